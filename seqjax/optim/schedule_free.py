"""Schedule-free AdamW: an average of what AdamW visits, in place of a schedule.

The parameters are the average x. AdamW moves z, and gradients are taken between the two, at
y = b1 x + (1 - b1) z. What is evaluated and exported is the average, then, without anyone knowing of it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from seqjax.config.optimizers import AdamWScheduleFree
from seqjax.optim.rule import Number, Params, Rule, Scalar, dtype_of, ema_of_squares


class ScheduleFreeState(NamedTuple):
    """Steps done, what AdamW visits, the mean square, the largest learning rate and the sum of weights."""

    steps: Int[Array, ""]
    visited: Params
    square: Params
    highest: Scalar
    weights: Scalar


def schedule_free_adamw(settings: AdamWScheduleFree) -> Rule:
    """Schedule-free AdamW; the learning rate should stay as it is."""
    b1, b2 = settings.betas

    def init(params: Params) -> ScheduleFreeState:
        zero = jnp.zeros((), dtype_of(params))
        return ScheduleFreeState(
            jnp.zeros((), jnp.int32), params, jax.tree.map(jnp.zeros_like, params), zero, zero
        )

    def point(params: Params, state: ScheduleFreeState) -> Params:
        return jax.tree.map(lambda x, z: b1 * x + (1 - b1) * z, params, state.visited)

    def update(
        grads: Params, state: ScheduleFreeState, params: Params, learning_rate: Number
    ) -> tuple[Params, ScheduleFreeState]:
        steps = state.steps + 1
        step = steps.astype(state.highest.dtype)
        rate = learning_rate * jnp.minimum(1.0, step / max(settings.warmup_steps, 1))
        rate = rate.astype(state.highest.dtype)
        highest = jnp.maximum(state.highest, rate)
        weight = step**settings.r * highest**settings.weight_lr_power
        weights = state.weights + weight
        share = weight / jnp.where(weights > 0, weights, 1.0)
        square = ema_of_squares(state.square, grads, b2)
        visited = jax.tree.map(
            lambda z, g, v, y: (
                z - rate * (g / (jnp.sqrt(v / (1 - b2**step)) + settings.eps) + settings.weight_decay * y)
            ),
            state.visited,
            grads,
            square,
            point(params, state),
        )
        averaged = jax.tree.map(lambda x, z: x + share * (z - x), params, visited)
        return averaged, ScheduleFreeState(steps, visited, square, highest, weights)

    return Rule(init, update, point)
