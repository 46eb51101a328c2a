"""One protocol for everything that runs a model: arrays in by column, arrays out by target.

An engine knows its model's card. The caller gathers windows and reads outputs; which library computes, and
what the graph calls its ends, stays in here.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32, Num

from seqjax.artifacts.card import ModelCard
from seqjax.artifacts.model_files import graph_feed

if TYPE_CHECKING:
    import onnxruntime

Columns = Mapping[str, Num[np.ndarray, "B L"]]
Outputs = dict[str, Float32[np.ndarray, "B P _"]]


@runtime_checkable
class Engine(Protocol):
    """A model that is ready to run."""

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

    def __init__(self, session: "onnxruntime.InferenceSession", card: ModelCard) -> None:
        """Takes an open file and the card in it."""
        self._session = session
        self._card = card

    @property
    def card(self) -> ModelCard:
        """What the model says about itself."""
        return self._card

    def predict(self, inputs: Columns, valid_mask: Bool[np.ndarray, "B L"]) -> Outputs:
        """See `Engine.predict`."""
        card = self._card
        values = self._session.run(list(card.outputs.values()), graph_feed(card, inputs, valid_mask))
        return {name: np.asarray(value) for name, value in zip(card.outputs, values, strict=True)}
