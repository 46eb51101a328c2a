"""From distributions to values: the mode, or a draw, of each categorical target; real targets as they are.

Every target has its own stream of random numbers, one a row, so that neither the batch size nor the other
targets change what is drawn.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int64, Shaped

from seqjax.config.schema import ColumnKind


class Readout(NamedTuple):
    """What is read off a model's outputs, for N windows."""

    values: dict[str, Shaped[np.ndarray, "N P ..."]]
    """By target: int64 ids (N, P) or float32 standardised values (N, P); or the `embedding` (N, P, D)."""
    log_probs: dict[str, Float32[np.ndarray, "N P _"]]
    """By categorical target, where they are kept: (N, P, C)."""


class Reader:
    """Reads targets off a generative model's outputs, batch by batch."""

    def __init__(
        self,
        targets: Mapping[str, ColumnKind],
        *,
        sampled: Collection[str] = (),
        seed: int = 0,
        keep_log_probs: Collection[str] = (),
    ) -> None:
        """Starts the streams of random numbers.

        Args:
          targets: The targets to read and their kinds.
          sampled: Categorical targets whose value is drawn from the distribution rather than its mode.
          seed: Seed of the draws.
          keep_log_probs: Categorical targets whose distribution is returned too.
        """
        self._targets = dict(targets)
        self._streams = {
            name: np.random.default_rng((seed, number))
            for number, name in enumerate(targets)
            if name in sampled
        }
        self._keep = tuple(keep_log_probs)

    def __call__(self, outputs: Mapping[str, Float32[np.ndarray, "N P _"]]) -> Readout:
        """Reads the next batch.

        Args:
          outputs: By target: log-probabilities (N, P, C), or standardised values (N, P, 1).
        """
        values = {name: self._value(name, outputs[name]) for name in self._targets}
        return Readout(values, {name: outputs[name] for name in self._keep})

    def _value(self, name: str, output: Float32[np.ndarray, "N P _"]) -> Shaped[np.ndarray, "N P"]:
        if self._targets[name] == "real":
            return output[..., 0]
        if name not in self._streams:
            return output.argmax(axis=-1).astype(np.int64)
        return sample_classes(output, self._streams[name].random(output.shape[:-1]))


def sample_classes(
    log_probs: Float32[np.ndarray, "N P C"], uniform: Float64[np.ndarray, "N P"]
) -> Int64[np.ndarray, "N P"]:
    """The classes at which the cumulative distributions pass the numbers of `uniform`.

    Args:
      log_probs: Log-probabilities.
      uniform: Numbers in [0, 1), one a distribution.
    """
    cumulative = np.cumsum(np.exp(log_probs, dtype=np.float64), axis=-1)
    passed = cumulative <= uniform[..., None] * cumulative[..., -1:]
    # Rounding may let the number pass every class; the first that completes the sum is the last possible one.
    last_possible = np.argmax(cumulative >= cumulative[..., -1:], axis=-1)
    return np.minimum(passed.sum(axis=-1), last_possible).astype(np.int64)


def joined(parts: Sequence[Readout]) -> Readout:
    """The readouts of consecutive batches as one."""
    first = parts[0]
    return Readout(
        {name: np.concatenate([part.values[name] for part in parts]) for name in first.values},
        {name: np.concatenate([part.log_probs[name] for part in parts]) for name in first.log_probs},
    )
