"""From distributions to values: the mode, or a draw, of each categorical target; real targets as they are.

A draw is the class at which the cumulative distribution passes a number in [0, 1). Every target has its own
streams of such numbers, one for the rows of windows and one for what is generated from them, so that neither
the batch size nor the engine nor the other targets change what is drawn. The arithmetic is written for numpy
and jax arrays alike: the array says which.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType, ModuleType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int, Shaped

from seqjax.config.schema import ColumnKind

SPREAD = "standard deviation of "
"""What the name of an output begins with that says how far passes with dropout lie apart; see `averaged`."""


class Readout(NamedTuple):
    """What is read off a model's outputs, for N windows."""

    values: dict[str, Shaped[np.ndarray, "N P ..."]]
    """By target: int64 ids (N, P) or float32 standardised values (N, P); or the `embedding` (N, P, D)."""
    log_probs: dict[str, Float32[np.ndarray, "N P _"]]
    """By categorical target, where they are kept: (N, P, C)."""
    spread: Mapping[str, Float[np.ndarray, "N P moments"]] = MappingProxyType({})
    """By target, of passes with dropout: mean and standard deviation of the value, or of the probability of
    the class that is the value, (N, P, 2)."""


@dataclass(frozen=True)
class SamplingRule:
    """How a distribution is changed before a class is drawn: first the temperature, then what is cut off."""

    temperature: float = 1.0
    """What log-probabilities are divided by: below 1 sharper, above 1 flatter."""
    top_k: int | None = None
    """Only the k most probable classes are drawn; the lower id first where two are alike."""
    top_p: float | None = None
    """Only the fewest most probable classes are drawn that hold this probability together."""

    @property
    def cuts(self) -> bool:
        """Whether some classes may never be drawn."""
        return self.top_k is not None or self.top_p is not None


AS_PREDICTED = SamplingRule()
"""Draws from the distributions as they are."""


@dataclass(frozen=True)
class Reading:
    """What to read off a generative model's outputs; it can be a constant of a compiled function."""

    targets: tuple[tuple[str, ColumnKind], ...]
    """The targets and their kinds."""
    sampled: tuple[str, ...] = ()
    """Categorical targets whose value is drawn rather than the mode."""
    rule: SamplingRule = AS_PREDICTED
    """How it is drawn."""
    kept: tuple[str, ...] = ()
    """Categorical targets whose distribution is returned too."""

    def values(
        self, outputs: Mapping[str, Float[Any, "N P _"]], uniforms: Mapping[str, Float[Any, "N P"]]
    ) -> dict[str, Shaped[Any, "N P"]]:
        """The value of every target.

        Args:
          outputs: By target: log-probabilities (N, P, C), or standardised values (N, P, 1).
          uniforms: By sampled target: numbers in [0, 1).
        """
        read = {}
        for name, kind in self.targets:
            if kind == "real":
                read[name] = outputs[name][..., 0]
            elif name in self.sampled:
                read[name] = draw(outputs[name], uniforms[name], self.rule)
            else:
                read[name] = outputs[name].argmax(axis=-1)
        return read


class Reader:
    """Reads targets off a generative model's outputs, batch by batch."""

    def __init__(
        self,
        targets: Mapping[str, ColumnKind],
        *,
        sampled: Collection[str] = (),
        seed: int = 0,
        rule: SamplingRule = AS_PREDICTED,
        keep_log_probs: Collection[str] = (),
    ) -> None:
        """Starts the streams of random numbers.

        Args:
          targets: The targets to read and their kinds.
          sampled: Categorical targets whose value is drawn from the distribution rather than its mode.
          seed: Seed of the draws.
          rule: How the distribution is changed before.
          keep_log_probs: Categorical targets whose distribution is returned too.
        """
        chosen = tuple(name for name in targets if name in sampled)
        self.reading = Reading(tuple(targets.items()), chosen, rule, tuple(keep_log_probs))
        numbers = {name: number for number, name in enumerate(targets) if name in sampled}
        self._windows = {name: np.random.default_rng((seed, number)) for name, number in numbers.items()}
        self._further = {name: np.random.default_rng((seed, number, 1)) for name, number in numbers.items()}

    def __call__(self, outputs: Mapping[str, Float32[np.ndarray, "N P _"]]) -> Readout:
        """Reads the next batch of windows.

        Args:
          outputs: By target: log-probabilities (N, P, C), or standardised values (N, P, 1).
        """
        uniforms = {
            name: stream.random(outputs[name].shape[:-1], np.float32)
            for name, stream in self._windows.items()
        }
        return self.read(outputs, uniforms)

    def read(
        self,
        outputs: Mapping[str, Float32[np.ndarray, "N P _"]],
        uniforms: Mapping[str, Float32[np.ndarray, "N P"]],
    ) -> Readout:
        """Reads a batch with given random numbers, one for each row and position, by sampled target."""
        read = self.reading.values(outputs, uniforms)
        kinds = dict(self.reading.targets)
        values = {
            name: column if kinds[name] == "real" else column.astype(np.int64)
            for name, column in read.items()
        }
        spread = {
            name: _moments(outputs[name], outputs[SPREAD + name], values[name], kind)
            for name, kind in kinds.items()
            if SPREAD + name in outputs
        }
        return Readout(values, {name: outputs[name] for name in self.reading.kept}, spread)

    def further(self, rows: int, steps: int) -> dict[str, Float32[np.ndarray, "{rows} {steps}"]]:
        """The random numbers of the next rows that are generated, by sampled target, row after row."""
        return {name: stream.random((rows, steps), np.float32) for name, stream in self._further.items()}


def draw(
    log_probs: Float[Any, "N P C"], uniform: Float[Any, "N P"], rule: SamplingRule = AS_PREDICTED
) -> Int[Any, "N P"]:
    """The class that each number in [0, 1) selects from its distribution.

    Args:
      log_probs: Log-probabilities, numpy or jax.
      uniform: The numbers, one a distribution.
      rule: How the distributions are changed before.
    """
    xp = log_probs.__array_namespace__()
    wide = log_probs.astype(np.float64) if xp is np else log_probs
    scaled = wide if rule.temperature == 1 else wide / rule.temperature
    if not rule.cuts:
        return _passed(xp, _weights(xp, scaled), uniform)
    order = xp.argsort(-scaled, axis=-1, stable=True)
    weights = _cut(xp, _weights(xp, xp.take_along_axis(scaled, order, axis=-1)), rule)
    rank = _passed(xp, weights, uniform)
    return xp.take_along_axis(order, rank[..., None], axis=-1)[..., 0]


def joined(parts: Sequence[Readout]) -> Readout:
    """The readouts of consecutive batches as one."""
    first = parts[0]
    return Readout(
        {name: np.concatenate([part.values[name] for part in parts]) for name in first.values},
        {name: np.concatenate([part.log_probs[name] for part in parts]) for name in first.log_probs},
        {name: np.concatenate([part.spread[name] for part in parts]) for name in first.spread},
    )


def _moments(
    means: Float32[np.ndarray, "N P _"],
    deviations: Float32[np.ndarray, "N P _"],
    values: Shaped[np.ndarray, "N P"],
    kind: ColumnKind,
) -> Float[np.ndarray, "N P 2"]:
    """Mean and standard deviation of what was read off an output."""
    if kind == "real":
        return np.concatenate([means, deviations], axis=-1)
    chosen = values[..., None]
    probability = np.exp(np.take_along_axis(means, chosen, axis=-1))
    return np.concatenate([probability, np.take_along_axis(deviations, chosen, axis=-1)], axis=-1)


def _weights(xp: ModuleType, logs: Float[Any, "N P C"]) -> Float[Any, "N P C"]:
    """What is proportional to the probabilities, at most 1."""
    return xp.exp(logs - logs.max(axis=-1, keepdims=True))


def _cut(xp: ModuleType, weights: Float[Any, "N P C"], rule: SamplingRule) -> Float[Any, "N P C"]:
    """Zeroes those of descending weights that are not to be drawn; the first always remains."""
    if rule.top_k is not None:
        weights = xp.where(xp.arange(weights.shape[-1]) < rule.top_k, weights, xp.zeros_like(weights))
    if rule.top_p is None:
        return weights
    before = xp.cumsum(weights, axis=-1) - weights
    enough = rule.top_p * weights.sum(axis=-1, keepdims=True)
    return xp.where(before < enough, weights, xp.zeros_like(weights))


def _passed(xp: ModuleType, weights: Float[Any, "N P C"], uniform: Float[Any, "N P"]) -> Int[Any, "N P"]:
    """The places at which the cumulative weights pass their share `uniform` of the whole."""
    cumulative = xp.cumsum(weights, axis=-1)
    whole = cumulative[..., -1:]
    passed = (cumulative <= uniform[..., None] * whole).sum(axis=-1)
    # Rounding may let the number pass every place; the first that completes the sum is the last possible one.
    return xp.minimum(passed, xp.argmax(cumulative >= whole, axis=-1))
