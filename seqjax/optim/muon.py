"""Muon: momentum of a matrix, made orthogonal; and AdamW for what is no hidden matrix.

Hidden matrices are those of the layers and `joint_embedding_layer.weight`. Embeddings, heads, norms and
biases move by AdamW, at the same learning rate times `adamw_lr_factor`.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from seqjax.config.optimizers import Muon
from seqjax.optim.parts import Path, replaced, without
from seqjax.optim.rule import Params, State, decayed, ema, transformation

_NOT_HIDDEN = ("encoder", "pos_encoder", "decoder")


class MuonState(NamedTuple):
    """Momentum of the hidden matrices, and AdamW's state of the other parameters."""

    momentum: Params
    others: State


def muon(settings: Muon) -> optax.GradientTransformation:
    """Directions of Muon for hidden matrices, and of AdamW for the other parameters."""
    b1, b2 = settings.adamw_betas
    adamw = optax.chain(
        optax.scale_by_adam(b1, b2, settings.adamw_eps),
        decayed(settings.adamw_weight_decay),
        optax.scale(settings.adamw_lr_factor),
    )

    def init(params: Params) -> MuonState:
        hidden, others = _parts(params)
        return MuonState(jax.tree.map(jnp.zeros_like, hidden), adamw.init(others))

    def update(grads: Params, state: MuonState, params: Params) -> tuple[Params, MuonState]:
        hidden, others = _parts(grads)
        hidden_params, other_params = _parts(params)
        momentum = ema(state.momentum, hidden, settings.momentum)
        ahead = ema(hidden, momentum, 1 - settings.momentum) if settings.nesterov else momentum
        directions = jax.tree.map(
            lambda m, p: _scale(settings, p.shape) * orthogonal(m, settings) + settings.weight_decay * p,
            ahead,
            hidden_params,
        )
        moved, state_of_others = adamw.update(others, state.others, other_params)
        return replaced(replaced(grads, directions), moved), MuonState(momentum, state_of_others)

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


def _parts(tree: Params) -> tuple[Params, Params]:
    """The hidden matrices, and the others."""
    paths = {
        tuple(str(key.key) for key in path): leaf.ndim
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    }
    hidden = {path for path, ndim in paths.items() if _is_hidden(path, ndim)}
    return without(tree, set(paths) - hidden), without(tree, hidden)


def _is_hidden(path: Path, ndim: int) -> bool:
    return ndim == 2 and path[0] not in _NOT_HIDDEN
