"""Rules of optimizers: functions over trees of parameters, which take the learning rate.

Most optimizers are a transformation of gradients into *directions*, as optax has them: parameters move by
minus the learning rate times them, which scales decoupled weight decay as torch does. A few need the rate
itself, or take the gradient elsewhere than where the parameters are; they write a `Rule` of their own.

Rules see the parameters that are not frozen: a tree without some of its leaves.
"""

from collections.abc import Callable, Collection
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float

Scalar: TypeAlias = Float[Array, ""]
Number: TypeAlias = float | Scalar
"""A hyperparameter: a plain number, or a traced one."""
Params: TypeAlias = Any
"""Arrays in nested dicts."""
State: TypeAlias = Any
Path: TypeAlias = tuple[str, ...]
"""The keys that lead to a parameter."""


def _unmoved(params: Params, state: State) -> Params:
    return params


class Rule(NamedTuple):
    """The functions by which an optimizer moves parameters."""

    init: Callable[[Params], State]
    update: Callable[[Params, State, Params, Number], tuple[Params, State]]
    """(gradients, state, parameters, learning rate) -> (new parameters, new state)."""
    point: Callable[[Params, State], Params] = _unmoved
    """(parameters, state) -> the point at which the next gradient is taken."""


def directed(transformation: optax.GradientTransformation) -> Rule:
    """The rule that moves parameters by minus the learning rate times what a transformation returns."""

    def update(grads: Params, state: State, params: Params, learning_rate: Number) -> tuple[Params, State]:
        directions, state = transformation.update(grads, state, params)
        moved = jax.tree.map(lambda p, d: p - (learning_rate * d).astype(p.dtype), params, directions)
        return moved, state

    return Rule(transformation.init, update)


def transformation(
    init: Callable[[Params], State], rule: Callable[[Params, State, Params], tuple[Params, State]]
) -> optax.GradientTransformation:
    """Optax's form of `rule(gradients, state, parameters) -> (directions, new state)`."""

    def update(
        updates: optax.Updates, state: optax.OptState, params: Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        return rule(updates, state, params)

    return optax.GradientTransformation(lambda params: init(params), update)


def is_off(value: Number) -> bool:
    """True if a hyperparameter is 0 in every trace; one that is traced is not."""
    return isinstance(value, int | float) and value == 0


def decayed(coefficient: Number) -> optax.GradientTransformation:
    """Adds `coefficient` times the parameters: an L2 term before a rule, decoupled decay after it."""
    return optax.identity() if is_off(coefficient) else optax.add_decayed_weights(coefficient)


def ema(mean: Params, values: Params, decay: Number) -> Params:
    """Exponential means that have seen one more value."""
    return jax.tree.map(lambda m, v: decay * m + (1 - decay) * v, mean, values)


def ema_of_squares(mean: Params, values: Params, decay: Number) -> Params:
    """Exponential means of squares that have seen one more value."""
    return jax.tree.map(lambda m, v: decay * m + (1 - decay) * v * v, mean, values)


def dtype_of(tree: Params) -> jnp.dtype:
    """The dtype that all leaves fit in."""
    return jnp.result_type(*jax.tree.leaves(tree))


def without(tree: Params, left_out: Collection[Path]) -> Params:
    """A tree without some of its leaves, and without branches that have none left."""
    return unflatten_dict({path: leaf for path, leaf in flatten_dict(tree).items() if path not in left_out})


def replaced(tree: Params, subset: Params) -> Params:
    """A tree whose leaves are those of `subset`, where it has them."""
    return unflatten_dict(flatten_dict(tree) | flatten_dict(subset))


def widened(tree: Params) -> Params:
    """The leaves in float32, or in what they have if that is wider: an update is too small for less."""
    return jax.tree.map(
        lambda leaf: leaf if jnp.dtype(leaf.dtype).itemsize >= 4 else leaf.astype(jnp.float32), tree
    )
