"""Inference with dropout, many times over: the mean of the results, and how far they lie apart.

The mean of a categorical target's distributions is a distribution again, and is read as one. Beside each
output lies a second one of the same shape, under a name of its own: the standard deviation over the passes,
of probabilities or of values.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float32

from seqjax.artifacts.card import ModelCard
from seqjax.inference.engine import Columns, Engine, Outputs
from seqjax.inference.sample import SPREAD


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
        first = self._linear(self._engine.predict(inputs, valid_mask))
        # Sums of what lies beyond the first pass stay precise where the passes hardly differ.
        sums = {name: np.zeros(values.shape, np.float64) for name, values in first.items()}
        squares = {name: np.zeros(values.shape, np.float64) for name, values in first.items()}
        for _ in range(self._passes - 1):
            for name, values in self._linear(self._engine.predict(inputs, valid_mask)).items():
                beyond = values.astype(np.float64) - first[name]
                sums[name] += beyond
                squares[name] += beyond**2
        outputs: Outputs = {}
        for name, values in first.items():
            mean = sums[name] / self._passes
            variance = np.maximum(squares[name] / self._passes - mean**2, 0)
            outputs[name] = self._as_given(name, values + mean)
            outputs[SPREAD + name] = np.sqrt(variance).astype(np.float32)
        return outputs

    def _linear(self, outputs: Mapping[str, Float32[np.ndarray, "B P _"]]) -> Outputs:
        """Probabilities rather than their logarithms."""
        return {
            name: np.exp(values) if self._is_categorical(name) else values for name, values in outputs.items()
        }

    def _as_given(self, name: str, mean: np.ndarray) -> Float32[np.ndarray, "B P _"]:
        if not self._is_categorical(name):
            return mean.astype(np.float32)
        with np.errstate(divide="ignore"):
            return np.log(mean).astype(np.float32)

    def _is_categorical(self, name: str) -> bool:
        return self.card.column_schema.targets.get(name) == "categorical" and self.card.kind == "generative"
