"""What is minimized: for each target a weighted mean over real positions, and their weighted sum.

    loss_c = sum(weight * loss) / sum(weight),   loss = sum_c loss_weight_c * loss_c

A position's weight is 0 on padding, else 1, or the class weight of the true class: torch's own weighted
mean. A loss is a row of `CRITERIA`: a function of outputs and truth without any reduction.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Float32, Num

from seqjax.config.schema import Schema
from seqjax.config.train import TrainingSpec
from seqjax.training.batch import Batch, target_mask, targets_of
from seqjax.training.metrics import Sums

Outputs = dict[str, Float[Array, "B T _"]]


def _cross_entropy(logits_BTC: Float[Array, "B T C"], ids_BT: Num[Array, "B T"]) -> Float[Array, "B T"]:
    return optax.softmax_cross_entropy_with_integer_labels(logits_BTC, ids_BT)


def _squared(values_BT1: Float[Array, "B T 1"], truth_BT: Num[Array, "B T"]) -> Float[Array, "B T"]:
    return jnp.square(values_BT1[..., 0] - truth_BT)


def _absolute(values_BT1: Float[Array, "B T 1"], truth_BT: Num[Array, "B T"]) -> Float[Array, "B T"]:
    return jnp.abs(values_BT1[..., 0] - truth_BT)


def _huber(values_BT1: Float[Array, "B T 1"], truth_BT: Num[Array, "B T"]) -> Float[Array, "B T"]:
    return optax.huber_loss(values_BT1[..., 0], truth_BT, delta=1.0)


CRITERIA: Mapping[str, Callable[[Float[Array, "B T _"], Num[Array, "B T"]], Float[Array, "B T"]]] = {
    "CrossEntropyLoss": _cross_entropy,
    "NLLLoss": _cross_entropy,  # Of log-probabilities, which a model's logits stand for.
    "MSELoss": _squared,
    "L1Loss": _absolute,
    "SmoothL1Loss": _huber,  # With torch's beta of 1 the two are the same.
    "HuberLoss": _huber,
}


@dataclass(frozen=True)
class Target:
    """A column to predict, and how its errors count."""

    name: str
    criterion: str
    loss_weight: float = 1.0
    class_weights: Float32[np.ndarray, "C"] | None = None


def build_targets(schema: Schema, spec: TrainingSpec) -> tuple[Target, ...]:
    """The targets of a run, in the schema's order."""
    loss_weights, class_weights = spec.loss_weights or {}, spec.class_weights or {}
    return tuple(
        Target(
            name,
            spec.criterion[name],
            loss_weights.get(name, 1.0),
            np.asarray(class_weights[name], np.float32) if name in class_weights else None,
        )
        for name in schema.targets
    )


def loss_weights(targets: Sequence[Target]) -> dict[str, float]:
    """The weight of each target's loss in the sum."""
    return {target.name: target.loss_weight for target in targets}


def position_weights(target: Target, batch: Batch) -> Float[Array, "B T"]:
    """The weight of each position: 0 on padding, else 1 or the true class's weight."""
    mask_BT = target_mask(batch).astype(jnp.float32)
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
      outputs: Logits (B, T, C) or standardised values (B, T, 1) of each target.
      batch: The truth.
    """
    sums = {}
    for target in targets:
        weight_BT = position_weights(target, batch)
        loss_BT = CRITERIA[target.criterion](outputs[target.name], targets_of(batch, target.name))
        # A product would turn an infinite loss on padding into NaN.
        total = jnp.where(weight_BT > 0, weight_BT * loss_BT, 0.0).sum()
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
