"""Subsets of a tree of parameters: leaves of nested dicts are taken out, and put back."""

from collections.abc import Collection
from typing import TypeAlias

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from seqjax.optim.rule import Params

Path: TypeAlias = tuple[str, ...]
"""The keys that lead to a parameter."""


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
