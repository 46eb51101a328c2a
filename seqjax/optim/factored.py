"""Adafactor: the mean square of a matrix's gradient from those of its rows and columns, as torch has it.

Optax's `scale_by_factored_rms` adds its eps to every square, where torch takes it for the least of squares;
so the squares are kept here, and the steps that follow are optax's.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from seqjax.config.optimizers import Adafactor
from seqjax.optim.rule import Number, Params, Rule, State, dtype_of, transformation


class FactoredState(NamedTuple):
    """Steps done, and mean squares: of rows and columns of what has two axes or more, else of all elements.

    What has fewer axes keeps its squares in `rows`, and a scalar in `columns`.
    """

    steps: Int[Array, ""]
    rows: Params
    columns: Params


def adafactor(settings: Adafactor) -> Rule:
    """Adafactor, whose steps are relative to the size of each tensor, and to at most 1 / sqrt(step)."""
    scaled = optax.chain(
        _scale_by_factored_rms(settings),
        optax.clip_by_block_rms(settings.d),
        optax.scale_by_param_block_rms(settings.eps[1]),
    )

    def update(grads: Params, state: State, params: Params, learning_rate: Number) -> tuple[Params, State]:
        directions, state = scaled.update(grads, state, params)
        rate = jnp.minimum(learning_rate, 1 / jnp.sqrt(state[0].steps.astype(dtype_of(params))))
        kept = 1 - learning_rate * settings.weight_decay
        moved = jax.tree.map(lambda p, d: (p * kept - rate * d).astype(p.dtype), params, directions)
        return moved, state

    return Rule(scaled.init, update)


def _scale_by_factored_rms(settings: Adafactor) -> optax.GradientTransformation:
    def init(params: Params) -> FactoredState:
        rows = jax.tree.map(lambda p: jnp.zeros_like(_over(p, -1)), params)
        # An array without elements could not be saved, hence a scalar.
        columns = jax.tree.map(
            lambda p: jnp.zeros_like(_over(p, -2)) if p.ndim > 1 else jnp.zeros(()), params
        )
        return FactoredState(jnp.zeros((), jnp.int32), rows, columns)

    def update(grads: Params, state: FactoredState, params: Params) -> tuple[Params, FactoredState]:
        del params
        steps = state.steps + 1
        share = steps.astype(dtype_of(grads)) ** settings.beta2_decay
        rows = jax.tree.map(lambda r, g: r + share * (_over(g * g, -1) - r), state.rows, grads)
        columns = jax.tree.map(
            lambda c, g: c + share * (_over(g * g, -2) - c) if g.ndim > 1 else c, state.columns, grads
        )
        return jax.tree.map(direction, grads, rows, columns), FactoredState(steps, rows, columns)

    def direction(
        grad: Float[Array, "*shape"], row: Float[Array, "..."], column: Float[Array, "..."]
    ) -> Float[Array, "*shape"]:
        least = settings.eps[0]
        least = float(jnp.finfo(grad.dtype).eps) if least is None else least
        square = row * column / jnp.maximum(row.mean(-2, keepdims=True), least) if grad.ndim > 1 else row
        return grad / jnp.sqrt(jnp.maximum(square, least * least))

    return transformation(init, update)


def _over(squares: Float[Array, "..."], axis: int) -> Float[Array, "..."]:
    """Means over an axis of what has two axes or more; vectors and scalars as they are."""
    return squares.mean(axis, keepdims=True) if squares.ndim > 1 else squares
