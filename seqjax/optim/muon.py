"""Muon: momentum of a matrix, made orthogonal; and AdamW for what is no hidden matrix.

Optax's Muon moves by other numbers than torch's with `nesterov`, so the rule is here, and the split optax's.
Hidden matrices are those of the layers and `joint_embedding_layer.weight`. Embeddings, heads, norms and
biases move by AdamW, at the same learning rate times `adamw_lr_factor`.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from seqjax.config.optimizers import Muon
from seqjax.optim.rule import Params, Path, decayed, ema, transformation


class MomentumState(NamedTuple):
    """Exponential means of the gradients of matrices."""

    momentum: Params


def muon(settings: Muon, linear: frozenset[Path] | None) -> optax.GradientTransformation:
    """Directions of Muon for hidden matrices, and of AdamW for the other parameters.

    Args:
      settings: The keyword arguments.
      linear: The parameters of linear layers, whose matrices are hidden; None takes every matrix.
    """

    def kinds(params: Params) -> Params:
        return jax.tree_util.tree_map_with_path(partial(_kind, linear), params)

    hidden = optax.chain(_scale_by_orthogonal_momentum(settings), decayed(settings.weight_decay))
    adamw = optax.chain(
        optax.scale_by_adam(*settings.adamw_betas, settings.adamw_eps),
        decayed(settings.adamw_weight_decay),
        optax.scale(settings.adamw_lr_factor),
    )
    return optax.partition({"hidden": hidden, "others": adamw}, kinds)


def _scale_by_orthogonal_momentum(settings: Muon) -> optax.GradientTransformation:
    def init(params: Params) -> MomentumState:
        return MomentumState(jax.tree.map(jnp.zeros_like, params))

    def update(grads: Params, state: MomentumState, params: Params) -> tuple[Params, MomentumState]:
        momentum = ema(state.momentum, grads, settings.momentum)
        ahead = ema(grads, momentum, 1 - settings.momentum) if settings.nesterov else momentum
        directions = jax.tree.map(lambda m: _scale(settings, m.shape) * orthogonal(m, settings), ahead)
        return directions, MomentumState(momentum)

    return transformation(init, update)


def orthogonal(matrix: Float[Array, "rows columns"], settings: Muon) -> Float[Array, "rows columns"]:
    """A matrix with the same singular vectors whose singular values are near 1, by Newton-Schulz steps."""
    a, b, c = settings.ns_coefficients
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = wide / jnp.maximum(jnp.linalg.norm(wide), settings.eps)
    for _ in range(settings.ns_steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


def _scale(settings: Muon, shape: Sequence[int]) -> float:
    rows, columns = shape
    if settings.adjust_lr_fn == "match_rms_adamw":
        return 0.2 * math.sqrt(max(rows, columns))
    return math.sqrt(max(1, rows / columns))


def _kind(linear: frozenset[Path] | None, path: jax.tree_util.KeyPath, leaf: Array) -> str:
    is_linear = linear is None or tuple(str(key.key) for key in path) in linear
    return "hidden" if leaf.ndim == 2 and is_linear else "others"
