"""From distributions to values: the mode or mean of each target, or a draw.

A draw is the value at which the cumulative distribution passes a number in [0, 1). Every target has its own
streams of such numbers, one for the rows of windows and one for what is generated from them, so that neither
the batch size nor the engine nor the other targets change what is drawn.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Shaped

from seqjax.config.schema import HeadName
from seqjax.model.distributions import AS_PREDICTED, DISTRIBUTIONS, SamplingRule, without_unknown

SPREAD = "standard deviation of "
"""Begins the name of the output for the spread of another over passes with dropout; see `AveragingEngine`."""


class Readout(NamedTuple):
    """Values that are read off a model's outputs, for N windows."""

    values: dict[str, Shaped[np.ndarray, "N P ..."]]
    """By target: int64 ids (N, P) or float32 standardised values (N, P); or the `embedding` (N, P, D)."""
    log_probs: dict[str, Float32[np.ndarray, "N P _"]]
    """By categorical target, where they are kept: (N, P, C)."""
    spread: Mapping[str, Float[np.ndarray, "N P moments"]] = MappingProxyType({})
    """By target, of passes with dropout: mean and standard deviation of the value, or of the probability of
    the class that is the value, (N, P, 2)."""

    def map(self, function: Callable[[Shaped[np.ndarray, "..."]], Shaped[np.ndarray, "..."]]) -> "Readout":
        """The readout whose arrays are the results of `function` for these."""
        return Readout(*({name: function(values) for name, values in field.items()} for field in self))


@dataclass(frozen=True)
class Reading:
    """The values to read off a generative model's outputs; it can be a constant of a compiled function."""

    targets: tuple[tuple[str, HeadName], ...]
    """The targets and their heads."""
    sampled: tuple[str, ...] = ()
    """Targets whose value is drawn, by `rule`."""
    rule: SamplingRule = AS_PREDICTED
    kept: tuple[str, ...] = ()
    """Categorical targets whose distribution is returned too."""
    unknown: bool = True
    """True if `unknown` may be the value of a category."""

    def values(
        self, outputs: Mapping[str, Float[Any, "N P _"]], uniforms: Mapping[str, Float[Any, "N P"]]
    ) -> dict[str, Shaped[Any, "N P"]]:
        """The value of every target.

        Args:
          outputs: What a model states of each target.
          uniforms: By sampled target: numbers in [0, 1).
        """
        read = {}
        for name, head in self.targets:
            row, stated = DISTRIBUTIONS[head], outputs[name]
            if row.has_classes and not self.unknown:
                stated = without_unknown(stated)
            if name in self.sampled:
                read[name] = row.draw(stated, uniforms[name], self.rule)
            else:
                read[name] = row.point(stated)
        return read


class Reader:
    """Reads targets off a generative model's outputs, batch by batch."""

    def __init__(
        self,
        targets: Mapping[str, HeadName],
        *,
        sampled: Collection[str] = (),
        seed: int = 0,
        rule: SamplingRule = AS_PREDICTED,
        keep_log_probs: Collection[str] = (),
        unknown: bool = True,
    ) -> None:
        """Starts the streams of random numbers.

        Args:
          targets: The targets to read and their heads.
          sampled: Targets whose value is drawn from the distribution rather than its mode or mean.
          seed: Seed of the draws.
          rule: How the distribution is changed before.
          keep_log_probs: Categorical targets whose distribution is returned too.
          unknown: Whether `unknown` may be the value of a category.
        """
        chosen = tuple(name for name in targets if name in sampled)
        self.reading = Reading(tuple(targets.items()), chosen, rule, tuple(keep_log_probs), unknown)
        numbers = {name: number for number, name in enumerate(targets) if name in sampled}
        self._windows = {name: np.random.default_rng((seed, number)) for name, number in numbers.items()}
        self._further = {name: np.random.default_rng((seed, number, 1)) for name, number in numbers.items()}

    def __call__(self, outputs: Mapping[str, Float32[np.ndarray, "N P _"]]) -> Readout:
        """Reads the next batch of windows.

        Args:
          outputs: What a model states of each target.
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
        values = {name: widened(column) for name, column in read.items()}
        spread = {
            name: _moments(outputs[name], outputs[SPREAD + name], values[name], head)
            for name, head in self.reading.targets
            if SPREAD + name in outputs
        }
        return Readout(values, {name: outputs[name] for name in self.reading.kept}, spread)

    def further(self, rows: int, steps: int) -> dict[str, Float32[np.ndarray, "{rows} {steps}"]]:
        """The random numbers of the next rows that are generated, by sampled target, row after row."""
        return {name: stream.random((rows, steps), np.float32) for name, stream in self._further.items()}


def widened(column: Shaped[np.ndarray, "*shape"]) -> Shaped[np.ndarray, "*shape"]:
    """Ids as int64, values as float32."""
    return column.astype(np.int64 if np.issubdtype(column.dtype, np.integer) else np.float32)


def joined(parts: Sequence[Readout], *, axis: int = 0) -> Readout:
    """The readouts of consecutive batches (axis 0), or of consecutive steps of one (axis 1), as one."""

    def along(columns: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
        return {name: np.concatenate([column[name] for column in columns], axis) for name in columns[0]}

    return Readout(*map(along, zip(*parts, strict=True)))


def _moments(
    means: Float32[np.ndarray, "N P _"],
    deviations: Float32[np.ndarray, "N P _"],
    values: Shaped[np.ndarray, "N P"],
    head: HeadName,
) -> Float[np.ndarray, "N P 2"]:
    """Mean and standard deviation of the value, or of the probability of the class that is the value."""
    row = DISTRIBUTIONS[head]
    at = values[..., None] if row.has_classes else np.zeros((*values.shape, 1), np.int64)
    both = (row.moments(means), deviations)
    return np.concatenate([np.take_along_axis(numbers, at, axis=-1) for numbers in both], axis=-1)
