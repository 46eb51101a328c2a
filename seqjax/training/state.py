"""What training changes: one tree of arrays, which a step consumes and returns."""

from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np
from jaxtyping import Array, Int

from seqjax.optim.optimizers import Optimizer
from seqjax.optim.rule import State
from seqjax.training.placement import Tree
from seqjax.training.precision import LossScale, first_scale

Params: TypeAlias = dict[str, Any]


class TrainState(NamedTuple):
    """Everything that the next step depends on, the data and the run's constants apart."""

    params: Params
    """Parameters, in the formats in which they are kept; these are evaluated and exported."""
    opt_state: State
    """The optimizer's state."""
    step: Int[Array, ""]
    """Steps made; what a step draws (dropout, rounding) depends on it."""
    loss_scale: LossScale | None = None
    """The factor of the loss, where float16 needs one."""


def new_state(params: Params, optimizer: Optimizer, *, is_scaled: bool = False) -> TrainState:
    """The state before the first update.

    Its leaves may share buffers: an optimizer may start two of its statistics from one array, and the caller
    keeps `params`. A step consumes a copy (`Placement.replicate`).

    Args:
      params: Parameters, in the formats in which they are kept.
      optimizer: What will move them.
      is_scaled: Whether losses must be scaled (`Precision.is_scaled`).
    """
    scale = first_scale() if is_scaled else None
    return TrainState(params, optimizer.init(params), jax.device_put(np.int32(0)), scale)


def to_host(tree: Tree) -> Tree:
    """A copy in host memory, which later steps cannot change.

    A plain fetch may return a view of a buffer that the next step is given to overwrite.
    """
    return jax.tree.map(lambda leaf: np.array(leaf, copy=True), tree)
