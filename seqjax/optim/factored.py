"""Adafactor: the mean square of a matrix's gradient from those of its rows and columns, as torch has it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from seqjax.config.optimizers import Adafactor
from seqjax.optim.rule import Number, Params, Rule, Scalar


class AdafactorState(NamedTuple):
    """Steps done, and the mean squares: of rows and columns of what has two axes or more, else of all.

    A scalar stands where a parameter has none of a kind.
    """

    steps: Int[Array, ""]
    rows: Params
    columns: Params
    whole: Params


def adafactor(settings: Adafactor) -> Rule:
    """Adafactor, whose steps are relative to the size of each tensor, and to at most 1 / sqrt(step)."""

    def init(params: Params) -> AdafactorState:
        none = jnp.zeros(())  # An array without elements could not be saved.
        return AdafactorState(
            jnp.zeros((), jnp.int32),
            jax.tree.map(lambda p: jnp.zeros((*p.shape[:-1], 1), p.dtype) if p.ndim > 1 else none, params),
            jax.tree.map(
                lambda p: jnp.zeros((*p.shape[:-2], 1, p.shape[-1]), p.dtype) if p.ndim > 1 else none, params
            ),
            jax.tree.map(lambda p: none if p.ndim > 1 else jnp.zeros_like(p), params),
        )

    def update(
        grads: Params, state: AdafactorState, params: Params, learning_rate: Number
    ) -> tuple[Params, AdafactorState]:
        leaves, structure = jax.tree.flatten(params)
        parts = [jax.tree.leaves(tree) for tree in (grads, state.rows, state.columns, state.whole)]
        steps = state.steps + 1
        moved = [
            _moved(settings, leaf, grad, tuple(squares), steps=steps, learning_rate=learning_rate)
            for leaf, grad, *squares in zip(leaves, *parts, strict=True)
        ]
        new, rows, columns, whole = (structure.unflatten(found) for found in zip(*moved, strict=True))
        return new, AdafactorState(steps, rows, columns, whole)

    return Rule(init, update)


def _moved(
    settings: Adafactor,
    param: Float[Array, "..."],
    grad: Float[Array, "..."],
    squares: tuple[Float[Array, "..."], ...],
    *,
    steps: Int[Array, ""],
    learning_rate: Number,
) -> tuple[Float[Array, "..."], ...]:
    row, column, whole = squares
    step = steps.astype(param.dtype)
    small, least = settings.eps
    small = float(jnp.finfo(param.dtype).eps) if small is None else small
    share = step**settings.beta2_decay
    if param.ndim > 1:
        row = row + share * (jnp.square(grad).mean(-1, keepdims=True) - row)
        column = column + share * (jnp.square(grad).mean(-2, keepdims=True) - column)
        square = row * column / jnp.maximum(row.mean(-2, keepdims=True), small)
    else:
        whole = whole + share * (grad * grad - whole)
        square = whole
    direction = grad / jnp.sqrt(jnp.maximum(square, small * small))
    rate = jnp.maximum(least, _rms(param)) * jnp.minimum(learning_rate, 1 / jnp.sqrt(step))
    moved = param * (1 - learning_rate * settings.weight_decay)
    moved = moved - rate / jnp.maximum(1.0, _rms(direction) / settings.d) * direction
    return moved.astype(param.dtype), row, column, whole


def _rms(x: Float[Array, "..."]) -> Scalar:
    return jnp.sqrt(jnp.mean(x * x))
