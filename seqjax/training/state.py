"""What training changes: one tree of arrays, which a step consumes and returns."""

from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int

from seqjax.training.batch import Tree

Params: TypeAlias = dict[str, Any]


class TrainState(NamedTuple):
    """Everything that the next step depends on, the data and the run's constants apart."""

    params: Params
    """Parameters, as the model holds them."""
    opt_state: optax.OptState
    """The optimizer's state."""
    step: Int[Array, ""]
    """Updates done; the key of a step's dropout is drawn from it."""


def new_state(params: Params, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first update.

    Every leaf has a buffer of its own, since a step consumes them all: an optimizer may start two of its
    statistics from one array, and the caller keeps `params`.
    """
    state = TrainState(params, optimizer.init(params), jnp.zeros((), jnp.int32))
    return jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), state)


def to_host(tree: Tree) -> Tree:
    """A copy in host memory, which later steps cannot change.

    A plain fetch may return a view of a buffer that the next step is given to overwrite.
    """
    return jax.tree.map(lambda leaf: np.array(leaf, copy=True), tree)
