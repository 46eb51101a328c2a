"""A mean is a sum and a weight until the last moment.

Losses leave the device as (total, weight) of each target, are added up, and divided once; padding never
weighs. So do the scores that metrics (`seqjax.metrics`) are means of, over positions that all weigh the same.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from seqjax.config.schema import HeadName, Schema
from seqjax.metrics import METRICS, SCORES
from seqjax.model.distributions import DISTRIBUTIONS
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
        """The share of each target in the total."""
        return {name: self.weights[name] * loss for name, loss in self.by_target.items()}

    @property
    def total(self) -> float:
        """The loss that is minimized."""
        return sum(self.weighted.values())


def no_sums(names: Iterable[str]) -> dict[str, Sums]:
    """Sums of nothing."""
    return {name: Sums(jnp.zeros(()), jnp.zeros(())) for name in names}


Tree = TypeVar("Tree")


def added(first: Tree, second: Tree) -> Tree:
    """The sums of both together, on the device."""
    return jax.tree.map(jnp.add, first, second)


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


@dataclass(frozen=True)
class Measured:
    """The metrics of one target."""

    head: HeadName
    """What predicts it."""
    metrics: tuple[str, ...]
    """Rows of `seqjax.metrics.METRICS`."""
    std: float = 1.0
    """The target's standard deviation, which turns standardised values into those of the table."""

    @property
    def scores(self) -> tuple[str, ...]:
        """The scores that the metrics are means of."""
        rows = METRICS[self.head]
        return tuple(dict.fromkeys(score for name in self.metrics for score in rows[name].scores))


MetricSums: TypeAlias = dict[str, dict[str, Sums]]
"""By target and score."""


def measured_targets(schema: Schema, std: Mapping[str, float]) -> dict[str, Measured]:
    """All metrics that say something, of each target.

    Args:
      schema: The targets, and how many classes they have.
      std: Standard deviation of real targets; one that is missing is measured in standard deviations.
    """
    measured = {}
    for name in schema.targets:
        head, classes = schema.head(name), schema.n_classes.get(name, 1)
        rows = {key: row for key, row in METRICS[head].items() if row.in_training and classes > row.classes}
        first = sorted(rows, key=lambda key: rows[key].classes)
        measured[name] = Measured(head, tuple(first), std.get(name, 1.0))
    return measured


def metric_sums(
    measured: Mapping[str, Measured], outputs: Mapping[str, Float[Array, "B T _"]], batch: Batch
) -> MetricSums:
    """Sums of what the metrics average, and numbers of positions.

    Args:
      measured: What is measured.
      outputs: Raw outputs of each target.
      batch: The truth.
    """
    mask_BT = target_mask(batch)
    count = mask_BT.sum().astype(jnp.float32)
    sums: MetricSums = {}
    for name, target in measured.items():
        row, truth_BT = DISTRIBUTIONS[target.head], targets_of(batch, name)
        parameters = row.parameters(outputs[name].astype(jnp.float32))
        values = {score: SCORES[score](row, parameters, truth_BT) for score in target.scores}
        sums[name] = {
            score: Sums(jnp.where(mask_BT, value, 0.0).sum(), count) for score, value in values.items()
        }
    return sums


def no_metric_sums(measured: Mapping[str, Measured]) -> MetricSums:
    """Sums of nothing."""
    return {name: no_sums(target.scores) for name, target in measured.items()}


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
    return {name: _values(target, [part[name] for part in fetched]) for name, target in measured.items()}


def _values(target: Measured, parts: Sequence[Mapping[str, Sums]]) -> dict[str, float]:
    means = {}
    for score in target.scores:
        count = sum(float(part[score].weight) for part in parts)
        if not count > 0:
            return {}
        means[score] = np.float64(sum(float(part[score].total) for part in parts) / count)
    rows = METRICS[target.head]
    with np.errstate(over="ignore", divide="ignore"):
        return {
            name: float(rows[name].in_units(rows[name].of(*map(means.get, rows[name].scores)), target.std))
            for name in target.metrics
        }
