"""A mean is a sum and a weight until the last moment.

Losses leave the device as (total, weight) of each target, are added up, and divided once; padding never
weighs. A metric is a row of `METRICS`: like a loss, it is a mean over positions, all of which weigh the same,
and a number that is made of that mean.
"""

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Num

from seqjax.config.schema import ColumnKind, Schema
from seqjax.windows.windows import Batch, target_mask, targets_of


class Sums(NamedTuple):
    """A weighted mean before the division."""

    total: Float[Array, ""]
    """Sum of weight * value."""
    weight: Float[Array, ""]
    """Sum of weights."""


@dataclass(frozen=True)
class Losses:
    """Mean losses, by target."""

    by_target: dict[str, float]
    """Mean loss of each target, before its loss weight."""
    weights: dict[str, float]
    """Loss weight of each target."""

    @property
    def weighted(self) -> dict[str, float]:
        """What each target adds to the total."""
        return {name: self.weights[name] * loss for name, loss in self.by_target.items()}

    @property
    def total(self) -> float:
        """The loss that is minimized."""
        return sum(self.weighted.values())


def no_sums(names: Iterable[str]) -> dict[str, Sums]:
    """Sums of nothing."""
    return {name: Sums(jnp.zeros(()), jnp.zeros(())) for name in names}


Tree = TypeVar("Tree")


def added(one: Tree, other: Tree) -> Tree:
    """The sums of both together, on the device."""
    return jax.tree.map(jnp.add, one, other)


def mean_losses(parts: Iterable[Mapping[str, Sums]], weights: Mapping[str, float]) -> Losses:
    """Adds up sums in float64 and divides; waits for the device.

    Args:
      parts: Sums of each target, from several dispatches.
      weights: Loss weight of each target.
    """
    fetched = jax.device_get(list(parts))
    by_target = {}
    for name in weights:
        total = sum(np.float64(part[name].total) for part in fetched)
        weight = sum(np.float64(part[name].weight) for part in fetched)
        by_target[name] = float(total / weight) if weight > 0 else 0.0
    return Losses(by_target, dict(weights))


Value: TypeAlias = Callable[[Float[Array, "B T _"], Num[Array, "B T"]], Float[Array, "B T"]]
"""(outputs, truth) -> a number for each position."""


@dataclass(frozen=True)
class Metric:
    """How good predictions are, in one number."""

    kind: ColumnKind
    """Of which targets it is told."""
    value: Value
    """What is averaged over positions."""
    number: Callable[[float, float], float]
    """(mean, the target's standard deviation) -> the metric."""
    above: int = 0
    """Only of targets with more classes than this: of fewer it says nothing."""


def cross_entropy(logits_BTC: Float[Array, "B T C"], ids_BT: Num[Array, "B T"]) -> Float[Array, "B T"]:
    """The negative log-probability of the true class."""
    return optax.softmax_cross_entropy_with_integer_labels(logits_BTC, ids_BT)


def _among_first(
    count: int, logits_BTC: Float[Array, "B T C"], ids_BT: Num[Array, "B T"]
) -> Float[Array, "B T"]:
    """1 where the true class is among the `count` likeliest; of equally likely ones the lower id is first."""
    true_BT1 = jnp.take_along_axis(logits_BTC, ids_BT[..., None], axis=-1)
    lower_BTC = jnp.arange(logits_BTC.shape[-1]) < ids_BT[..., None]
    before_BTC = (logits_BTC > true_BT1) | ((logits_BTC == true_BT1) & lower_BTC)
    return (before_BTC.sum(-1) < count).astype(jnp.float32)


def absolute(values_BT1: Float[Array, "B T 1"], truth_BT: Num[Array, "B T"]) -> Float[Array, "B T"]:
    """The distance of a value from the truth."""
    return jnp.abs(values_BT1[..., 0] - truth_BT)


def squared(values_BT1: Float[Array, "B T 1"], truth_BT: Num[Array, "B T"]) -> Float[Array, "B T"]:
    """The squared distance of a value from the truth."""
    return jnp.square(values_BT1[..., 0] - truth_BT)


def _accuracy(count: int) -> Metric:
    return Metric("categorical", functools.partial(_among_first, count), lambda mean, _: mean, above=count)


def _exponential(mean: float, _: float) -> float:
    return math.exp(mean) if mean < 700 else math.inf


METRICS: Mapping[str, Metric] = {
    "perplexity": Metric("categorical", cross_entropy, _exponential),
    "top_1_accuracy": _accuracy(1),
    "top_3_accuracy": _accuracy(3),
    "top_5_accuracy": _accuracy(5),
    "mae": Metric("real", absolute, lambda mean, std: mean * std),
    "rmse": Metric("real", squared, lambda mean, std: math.sqrt(mean) * std),
}


@dataclass(frozen=True)
class Measured:
    """What is measured on a target."""

    metrics: tuple[str, ...]
    """Rows of `METRICS`."""
    std: float = 1.0
    """The target's standard deviation, which turns standardised values into those of the table."""


MetricSums: TypeAlias = dict[str, dict[str, Sums]]
"""By target and metric."""


def measured_targets(schema: Schema, std: Mapping[str, float]) -> dict[str, Measured]:
    """All metrics that say something, of each target.

    Args:
      schema: The targets, and how many classes they have.
      std: Standard deviation of real targets; one that is missing is measured in standard deviations.
    """
    measured = {}
    for name, kind in schema.targets.items():
        classes = schema.n_classes.get(name, 1)
        rows = tuple(key for key, row in METRICS.items() if row.kind == kind and classes > row.above)
        measured[name] = Measured(rows, std.get(name, 1.0))
    return measured


def metric_sums(
    measured: Mapping[str, Measured], outputs: Mapping[str, Float[Array, "B T _"]], batch: Batch
) -> MetricSums:
    """Sums of what the metrics average, and numbers of positions.

    Args:
      measured: What is measured.
      outputs: Logits (B, T, C) or standardised values (B, T, 1) of each target.
      batch: The truth.
    """
    mask_BT = target_mask(batch)
    count = mask_BT.sum().astype(jnp.float32)
    sums: MetricSums = {}
    for name, target in measured.items():
        output, truth_BT = outputs[name].astype(jnp.float32), targets_of(batch, name)
        values = {key: METRICS[key].value(output, truth_BT) for key in target.metrics}
        sums[name] = {key: Sums(jnp.where(mask_BT, value, 0.0).sum(), count) for key, value in values.items()}
    return sums


def no_metric_sums(measured: Mapping[str, Measured]) -> MetricSums:
    """Sums of nothing."""
    return {name: no_sums(target.metrics) for name, target in measured.items()}


def metric_values(
    measured: Mapping[str, Measured], parts: Sequence[MetricSums]
) -> dict[str, dict[str, float]]:
    """Adds up sums in float64 and makes the metrics of them; waits for the device.

    Args:
      measured: What was measured.
      parts: Sums from several dispatches.

    Returns:
      The metrics of each target, by name; those of no position are left out.
    """
    fetched = jax.device_get(list(parts))
    values: dict[str, dict[str, float]] = {}
    for name, target in measured.items():
        values[name] = {}
        for key in target.metrics:
            total = sum(float(part[name][key].total) for part in fetched)
            count = sum(float(part[name][key].weight) for part in fetched)
            if count > 0:
                values[name][key] = METRICS[key].number(total / count, target.std)
    return values
