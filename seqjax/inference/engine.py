"""One protocol for everything that runs a model: arrays in by column, arrays out by target.

An engine knows its model's card. The caller gathers windows and reads outputs; which library computes, and
what the graph calls its ends, stays in here.

Passes with dropout are averaged by an engine around another one: see `AveragingEngine`.
"""

import os
from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Float32, Num

from seqjax.artifacts.card import ModelCard
from seqjax.artifacts.model_files import dropout_feed, graph_feed
from seqjax.errors import ArtifactError
from seqjax.inference.sample import SPREAD, Reading
from seqjax.model.distributions import DISTRIBUTIONS, Distribution

if TYPE_CHECKING:
    import onnxruntime

    from seqjax.inference.jax_engine import Scan

ROWS_A_CORE = 32
"""Windows that a graph computes at once for each core: larger ones fall out of the cache, and are slower."""

Columns = Mapping[str, Num[np.ndarray, "B L"]]
Outputs = dict[str, Float32[np.ndarray, "B P _"]]
Feed = tuple[Columns, Bool[np.ndarray, "B L"]]
"""The arguments of `Engine.predict`."""


@runtime_checkable
class Engine(Protocol):
    """A model that is ready to run; if it was opened to drop, it drops anew at every call."""

    @property
    def card(self) -> ModelCard:
        """The description of the model."""
        ...

    def predict(self, inputs: Columns, valid_mask: Bool[np.ndarray, "B L"]) -> Outputs:
        """The model's outputs at the last P positions of B windows.

        Args:
          inputs: Each input column, ids or standardised values (B, L).
          valid_mask: Which positions hold a real item; models that attend to padding do not read it.

        Returns:
          What the model states of each target, such as log-probabilities (B, P, C) or standardised values
          (B, P, 1); see `seqjax.model.distributions`. Of an embedding model, `embedding` (B, P, D).
        """
        ...


@runtime_checkable
class ScanningEngine(Engine, Protocol):
    """An engine that also continues windows in compiled functions, unless it drops."""

    drops: bool

    def scan(self, reading: Reading, *, rolling: bool) -> "Scan":
        """The functions that continue windows.

        Args:
          reading: What is read at each step; its values are fed back.
          rolling: Whether keys and values are kept, rather than each window computed again; needs rotary
            positions.
        """
        ...


def without_dropout(model: str) -> ArtifactError:
    """The error of a graph that cannot drop."""
    return ArtifactError(
        f"{model} was exported without dropout, so infer_with_dropout cannot be true. Train it with "
        "export_with_dropout: true, or infer from its .pt file."
    )


class OnnxEngine:
    """A graph that seqjax exported, in onnxruntime."""

    def __init__(
        self, session: "onnxruntime.InferenceSession", card: ModelCard, *, live_dropout: bool = False
    ) -> None:
        """Takes an open file.

        Args:
          session: The open file.
          card: The card in it.
          live_dropout: Whether it shall drop.

        Raises:
          ArtifactError: The graph cannot drop.
        """
        if live_dropout and card.dropout_input is None:
            raise without_dropout("The model")
        self.card = card
        self._session = session
        self._dropout = dropout_feed(card, live=live_dropout)
        self._at_once = _rows_at_once(session)

    def predict(self, inputs: Columns, valid_mask: Bool[np.ndarray, "B L"]) -> Outputs:
        """The outputs; see `Engine.predict`."""
        feed, names = graph_feed(self.card, inputs, valid_mask), list(self.card.output_names)
        parts = [
            self._session.run(
                names, {**{name: values[rows] for name, values in feed.items()}, **self._dropout}
            )
            for rows in _even_slices(len(valid_mask), self._at_once)
        ]
        joined = (np.concatenate([np.asarray(part[at]) for part in parts]) for at in range(len(names)))
        return self.card.by_target(joined)


def _rows_at_once(session: "onnxruntime.InferenceSession") -> int | None:
    """The number of windows to compute at once; None where that is not a matter of a processor's cache."""
    if session.get_providers()[0] != "CPUExecutionProvider":
        return None
    threads = session.get_session_options().intra_op_num_threads or os.cpu_count() or 1
    return ROWS_A_CORE * threads


def _even_slices(rows: int, most: int | None) -> list[slice]:
    """The numbers below `rows` in slices of about one size, at most `most`."""
    count = 1 if most is None else max(1, -(-rows // most))
    borders = np.linspace(0, rows, count + 1).astype(int).tolist()
    return [slice(first, last) for first, last in pairwise(borders)]


class AveragingEngine:
    """Runs an engine that drops several times for each batch."""

    def __init__(self, engine: Engine, passes: int) -> None:
        """Takes an engine that drops anew at every call, and how many calls to average."""
        self.card = engine.card
        self._engine = engine
        self._passes = passes

    def predict(self, inputs: Columns, valid_mask: Bool[np.ndarray, "B L"]) -> Outputs:
        """The mean outputs; the standard deviation of an output is called `SPREAD` and its name."""
        first = self._moments(self._engine.predict(inputs, valid_mask))
        # Sums of what lies beyond the first pass stay precise where the passes hardly differ.
        sums = {name: np.zeros(values.shape, np.float64) for name, values in first.items()}
        squares = {name: np.zeros(values.shape, np.float64) for name, values in first.items()}
        for _ in range(self._passes - 1):
            for name, values in self._moments(self._engine.predict(inputs, valid_mask)).items():
                beyond = values.astype(np.float64) - first[name]
                sums[name] += beyond
                squares[name] += beyond**2
        outputs: Outputs = {}
        for name, values in first.items():
            mean = sums[name] / self._passes
            variance = np.maximum(squares[name] / self._passes - mean**2, 0)
            outputs[name] = self._row(name).mixed(values + mean).astype(np.float32)
            outputs[SPREAD + name] = np.sqrt(variance).astype(np.float32)
        return outputs

    def _moments(self, outputs: Outputs) -> dict[str, Float[np.ndarray, "B P _"]]:
        return {name: self._row(name).moments(values) for name, values in outputs.items()}

    def _row(self, name: str) -> Distribution:
        """The distribution of a target; components of an embedding are averaged as values are."""
        schema = self.card.column_schema
        return DISTRIBUTIONS[schema.head(name) if self.card.kind == "generative" else "point"]
