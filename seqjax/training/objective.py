"""The objective: for each target a weighted mean over real positions, and their weighted sum.

    loss_c = sum(weight * loss) / sum(weight),   loss = sum_c loss_weight_c * loss_c

A position's weight is 0 on padding, else 1, or the class weight of the true class: torch's own weighted
mean. Losses are in nats, or in (squares of) standard deviations. The numbers of a `Target` may be traced
values, so that the members of a population can differ in them.

A mean is a sum and a weight until the last moment: losses leave the device as (total, weight) of each target,
are added up, and divided once; padding never weighs.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from seqjax.config.optimization import CRITERIA
from seqjax.config.schema import Schema
from seqjax.config.train import TrainingSpec
from seqjax.model.distributions import DISTRIBUTIONS, distribution_of
from seqjax.optim.rule import Number, is_off
from seqjax.training.placement import Tree
from seqjax.windows.windows import Batch, target_mask, targets_of

Outputs = dict[str, Float[Array, "B T _"]]


class Sums(NamedTuple):
    """A weighted mean before the division."""

    total: Float[Array, ""]
    """Sum of weight * value."""
    weight: Float[Array, ""]


@dataclass(frozen=True)
class Losses:
    """Mean losses, by target."""

    by_target: dict[str, float]
    """Mean loss of each target, before its loss weight."""
    weights: dict[str, float]

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


@dataclass(frozen=True)
class Target:
    """A column to predict, and how its errors count. All numbers may be traced."""

    name: str
    criterion: str
    loss_weight: Number = 1.0
    class_weights: Float[np.ndarray, "C"] | Float[Array, "C"] | None = None
    label_smoothing: Number = 0.0
    """Share of the truth that is spread evenly over all classes."""
    threshold: Number = 1.0
    """The error at which SmoothL1Loss (its `beta`) or HuberLoss (its `delta`) turns from square to linear."""


PointLoss: TypeAlias = Callable[[Float[Array, "B T"], Number], Float[Array, "B T"]]
"""(error, `Target.threshold`) -> loss of each position."""


def _huber(error_BT: Float[Array, "B T"], threshold: Number) -> Float[Array, "B T"]:
    size_BT = jnp.abs(error_BT)
    delta = jnp.asarray(threshold, error_BT.dtype)  # A traced number would widen the losses.
    small_BT = jnp.minimum(size_BT, delta)
    return 0.5 * small_BT * small_BT + delta * (size_BT - small_BT)


POINT_LOSSES: Mapping[str, PointLoss] = {
    "MSELoss": lambda error_BT, _: jnp.square(error_BT),
    "L1Loss": lambda error_BT, _: jnp.abs(error_BT),
    "SmoothL1Loss": lambda error_BT, threshold: _huber(error_BT, threshold) / threshold,
    "HuberLoss": _huber,
}
"""The losses of a head that says nothing but a value; that of any other is its negative log-probability."""


def loss(
    criterion: str, raw: Float[Array, "B T _"], truth_BT: Num[Array, "B T"], threshold: Number = 1.0
) -> Float[Array, "B T"]:
    """The loss of each position.

    Args:
      criterion: A name in `seqjax.config.optimization.CRITERIA`.
      raw: Raw outputs of the head that goes with it.
      truth_BT: What was to be predicted, ids or standardised values.
      threshold: See `Target`.
    """
    distribution = DISTRIBUTIONS[CRITERIA[criterion]]
    parameters = distribution.parameters(raw)
    if criterion in POINT_LOSSES:
        return POINT_LOSSES[criterion](distribution.point(parameters) - truth_BT, threshold)
    return -distribution.log_prob(parameters, truth_BT)


def build_targets(schema: Schema, spec: TrainingSpec) -> tuple[Target, ...]:
    """The targets of a run, in the schema's order."""
    loss_weights, class_weights = spec.loss_weights or {}, spec.class_weights or {}
    thresholds = {"HuberLoss": spec.huber_delta, "SmoothL1Loss": spec.smooth_l1_beta}
    return tuple(
        Target(
            name,
            spec.criterion[name],
            loss_weights.get(name, 1.0),
            np.asarray(class_weights[name], np.float32) if name in class_weights else None,
            _argument(spec.label_smoothing, name, 0.0) if distribution_of(schema, name).has_classes else 0.0,
            _argument(thresholds.get(spec.criterion[name], 1.0), name, 1.0),
        )
        for name in schema.targets
    )


def with_numbers(targets: Sequence[Target], numbers: Mapping[str, Mapping[str, Any]]) -> tuple[Target, ...]:
    """The targets with other numbers, which may be traced.

    Args:
      targets: What counts.
      numbers: By target and the name of a `Target`'s field; what is not there stays.
    """
    return tuple(replace(target, **numbers.get(target.name, {})) for target in targets)


def without_smoothing(targets: Sequence[Target]) -> tuple[Target, ...]:
    """The targets as they are evaluated: by the plain loss."""
    return tuple(replace(target, label_smoothing=0.0) for target in targets)


def loss_weights(targets: Sequence[Target]) -> dict[str, float]:
    """The weight of each target's loss in the sum."""
    return {target.name: float(target.loss_weight) for target in targets}


def weighing(targets: Sequence[Target]) -> tuple[tuple[str, float, bytes | None], ...]:
    """A key that is equal where all weights are, and so where losses can be compared."""
    return tuple(
        (
            target.name,
            float(target.loss_weight),
            None if target.class_weights is None else np.asarray(target.class_weights).tobytes(),
        )
        for target in targets
    )


def position_weights(target: Target, batch: Batch) -> Float[Array, "B T"]:
    """The weight of each position: 0 where there is no target, else 1 or the true class's weight."""
    mask_BT = target_mask(batch, target.name).astype(jnp.float32)
    if target.class_weights is None:
        return mask_BT
    return mask_BT * jnp.asarray(target.class_weights)[targets_of(batch, target.name)]


def total_weights(targets: Sequence[Target], batch: Batch) -> dict[str, Float[Array, ""]]:
    """Each target's sum of weights, which no output changes."""
    return {target.name: position_weights(target, batch).sum() for target in targets}


def loss_sums(targets: Sequence[Target], outputs: Outputs, batch: Batch) -> dict[str, Sums]:
    """Each target's weighted sum of losses, and sum of weights.

    Args:
      targets: What counts.
      outputs: Raw outputs of each target.
      batch: The truth.
    """
    sums = {}
    for target in targets:
        output, truth_BT = outputs[target.name], targets_of(batch, target.name)
        weight_BT = position_weights(target, batch)
        loss_BT = loss(target.criterion, output, truth_BT, target.threshold)
        # A product would turn an infinite loss on padding into NaN.
        total = jnp.where(weight_BT > 0, weight_BT * loss_BT, 0.0).sum()
        if not is_off(target.label_smoothing):
            spread_BT = jnp.where(target_mask(batch, target.name), _loss_of_all_classes(target, output), 0.0)
            total = (1 - target.label_smoothing) * total + target.label_smoothing * spread_BT.sum()
        sums[target.name] = Sums(total, weight_BT.sum())
    return sums


def weighted_loss(
    targets: Sequence[Target], sums: Mapping[str, Sums], weights: Mapping[str, Float[Array, ""]]
) -> Float[Array, ""]:
    """The loss of (a part of) a batch whose targets' weights sum to `weights`.

    The losses of the parts of a batch add up to that of the whole, if each is given the weights of the whole.
    """
    parts = [
        target.loss_weight
        * sums[target.name].total
        / jnp.where(weights[target.name] > 0, weights[target.name], 1.0)
        for target in targets
    ]
    return jnp.stack(parts).sum()


def added(first: Tree, second: Tree) -> Tree:
    """The sums of both together, on the device."""
    return jax.tree.map(jnp.add, first, second)


def mean_losses(parts: Sequence[Mapping[str, Sums]], weights: Mapping[str, float]) -> Losses:
    """Adds up sums in float64 and divides.

    Args:
      parts: Sums of each target, from several dispatches.
      weights: Loss weight of each target.
    """
    means = {name: mean([part[name] for part in parts]) for name in weights}
    by_target = {name: 0.0 if value is None else value for name, value in means.items()}
    return Losses(by_target, dict(weights))


def mean(parts: Sequence[Sums]) -> float | None:
    """Adds up sums in float64 and divides; None where nothing weighs."""
    weight = sum(float(part.weight) for part in parts)
    return sum(float(part.total) for part in parts) / weight if weight > 0 else None


def _loss_of_all_classes(target: Target, logits_BTC: Float[Array, "B T C"]) -> Float[Array, "B T"]:
    """The mean cross-entropy over all classes, each with its class weight, as in torch's label smoothing."""
    losses_BTC = -jax.nn.log_softmax(logits_BTC, axis=-1)
    if target.class_weights is not None:
        losses_BTC = losses_BTC * jnp.asarray(target.class_weights)
    return losses_BTC.mean(-1)


def _argument(given: float | Mapping[str, float], target: str, default: float) -> float:
    return given.get(target, default) if isinstance(given, Mapping) else given
