"""Subsets of a tree of parameters: leaves of nested dicts are taken out, and put back."""

from collections.abc import Collection
from typing import TypeAlias

import jax
import jax.numpy as jnp

from seqjax.optim.rule import Params

Path: TypeAlias = tuple[str, ...]
"""The keys that lead to a parameter."""


def without(tree: Params, left_out: Collection[Path], *, at: Path = ()) -> Params:
    """A tree without some of its leaves, and without branches that have none left."""
    kept = {}
    for key, value in tree.items():
        path = (*at, key)
        if isinstance(value, dict):
            branch = without(value, left_out, at=path)
            if branch:
                kept[key] = branch
        elif path not in left_out:
            kept[key] = value
    return kept


def replaced(tree: Params, subset: Params) -> Params:
    """A tree whose leaves are those of `subset`, where it has them."""
    return {key: _replaced(value, subset[key]) if key in subset else value for key, value in tree.items()}


def _replaced(value: Params, other: Params) -> Params:
    return replaced(value, other) if isinstance(value, dict) else other


def widened(tree: Params) -> Params:
    """The leaves in float32, or in what they have if that is wider: an update is too small for less."""
    return jax.tree.map(
        lambda leaf: leaf if jnp.dtype(leaf.dtype).itemsize >= 4 else leaf.astype(jnp.float32), tree
    )
