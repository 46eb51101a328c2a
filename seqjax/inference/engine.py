"""One protocol for everything that runs a model: arrays in by column, arrays out by target.

An engine knows its model's card. The caller gathers windows and reads outputs; which library computes, and
what the graph calls its ends, stays in here.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32, Num

from seqjax.artifacts.card import ModelCard
from seqjax.artifacts.model_files import dropout_feed, graph_feed
from seqjax.errors import ArtifactError

if TYPE_CHECKING:
    import onnxruntime

Columns = Mapping[str, Num[np.ndarray, "B L"]]
Outputs = dict[str, Float32[np.ndarray, "B P _"]]


@runtime_checkable
class Engine(Protocol):
    """A model that is ready to run; if it was opened to drop, it drops anew at every call."""

    @property
    def card(self) -> ModelCard:
        """What the model says about itself."""
        ...

    def predict(self, inputs: Columns, valid_mask: Bool[np.ndarray, "B L"]) -> Outputs:
        """The model's outputs at the last P positions of B windows.

        Args:
          inputs: Each input column, ids or standardised values (B, L).
          valid_mask: Which positions hold a real item; models that attend to padding do not read it.

        Returns:
          Each target's log-probabilities (B, P, C), or standardised values (B, P, 1); of an embedding model,
          `embedding` (B, P, D).
        """
        ...


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
            raise ArtifactError(
                "The model was exported without dropout, so infer_with_dropout cannot be true. Train it with "
                "export_with_dropout: true, or infer from its .pt file."
            )
        self._session = session
        self._card = card
        self._dropout = dropout_feed(card, live=live_dropout)

    @property
    def card(self) -> ModelCard:
        """What the model says about itself."""
        return self._card

    def predict(self, inputs: Columns, valid_mask: Bool[np.ndarray, "B L"]) -> Outputs:
        """See `Engine.predict`."""
        card = self._card
        feed = {**graph_feed(card, inputs, valid_mask), **self._dropout}
        values = self._session.run(list(card.outputs.values()), feed)
        return {name: np.asarray(value) for name, value in zip(card.outputs, values, strict=True)}
