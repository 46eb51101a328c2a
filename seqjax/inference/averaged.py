"""Inference with dropout, many times over: the mean of the results, and how far they lie apart.

The mean of a target's distributions is a distribution again, and is read as one. Each output is followed by a
second one of the same shape, under a name of its own: the standard deviation over the passes, of
probabilities or of values.
"""

import numpy as np
from jaxtyping import Bool, Float

from seqjax.artifacts.card import ModelCard
from seqjax.inference.engine import Columns, Engine, Outputs
from seqjax.inference.sample import SPREAD
from seqjax.model.distributions import DISTRIBUTIONS, Distribution


class AveragingEngine:
    """Runs an engine that drops several times for each batch."""

    def __init__(self, engine: Engine, passes: int) -> None:
        """Takes an engine that drops anew at every call, and how many calls to average."""
        self._engine = engine
        self._passes = passes

    @property
    def card(self) -> ModelCard:
        """What the model says about itself."""
        return self._engine.card

    def predict(self, inputs: Columns, valid_mask: Bool[np.ndarray, "B L"]) -> Outputs:
        """See `Engine.predict`; the standard deviation of an output is called `SPREAD` and its name."""
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
