"""Rules of optimizers: functions over trees of parameters, which take the learning rate.

Most optimizers are a transformation of gradients into *directions*, as optax has them: parameters move by
minus the learning rate times them, which scales decoupled weight decay as torch does. A few need the rate
itself, or take the gradient elsewhere than where the parameters are; they write a `Rule` of their own.

Rules see the parameters that are not frozen: a tree without some of its leaves.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

Scalar: TypeAlias = Float[Array, ""]
Number: TypeAlias = float | Scalar
"""A hyperparameter: a plain number, or a traced one."""
Params: TypeAlias = Any
"""Arrays in nested dicts."""
State: TypeAlias = Any
Path: TypeAlias = tuple[str, ...]
"""The keys that lead to a parameter."""


class Rule(NamedTuple):
    """The functions by which an optimizer moves parameters."""

    init: Callable[[Params], State]
    update: Callable[[Params, State, Params, Number], tuple[Params, State]]
    """(gradients, state, parameters, learning rate) -> (new parameters, new state)."""
    point: Callable[[Params, State], Params] = lambda params, state: params
    """(parameters, state) -> the point at which the next gradient is taken."""


def is_off(value: Number) -> bool:
    """True if a hyperparameter is 0 in every trace; one that is traced is not."""
    return isinstance(value, int | float) and value == 0


def decayed(coefficient: Number) -> optax.GradientTransformation:
    """Adds `coefficient` times the parameters: an L2 term before a rule, decoupled decay after it."""
    return optax.identity() if is_off(coefficient) else optax.add_decayed_weights(coefficient)


def widened(tree: Params) -> Params:
    """The leaves in float32, or in what they have if that is wider: an update is too small for less."""
    return jax.tree.map(
        lambda leaf: leaf if jnp.dtype(leaf.dtype).itemsize >= 4 else leaf.astype(jnp.float32), tree
    )
