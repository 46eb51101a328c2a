"""A mean is a sum and a weight until the last moment.

Losses leave the device as (total, weight) of each target, are added up, and divided once; padding never
weighs.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


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


def added(one: dict[str, Sums], other: dict[str, Sums]) -> dict[str, Sums]:
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
