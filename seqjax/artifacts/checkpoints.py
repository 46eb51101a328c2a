"""Checkpoints: a run after an epoch, as Orbax writes it, atomically.

A checkpoint holds the leaves of a tree by number and a JSON object that names them, so that it can be read
without the classes that the tree is made of. What it is loaded into says the structure; a leaf that is not
as expected is an error.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from seqjax.artifacts.layout import Layout
from seqjax.errors import ArtifactError

Tree: TypeAlias = Any
"""A nested structure of arrays."""

_LEAVES, _INFO = "leaves", "info"


def save_checkpoint(layout: Layout, epoch: int, tree: Tree, info: Mapping[str, Any]) -> Path:
    """Writes the checkpoint of an epoch, in place of one that may be there.

    Args:
      layout: Where the run's files lie.
      epoch: The epoch that was completed.
      tree: Nested numpy arrays.
      info: A JSON object; comes back from `load_info`.

    Returns:
      The checkpoint, which is a folder.
    """
    named, _ = jax.tree_util.tree_flatten_with_path(tree)
    leaves = {str(index): np.asarray(leaf) for index, (_, leaf) in enumerate(named)}
    names = [jax.tree_util.keystr(path) for path, _ in named]
    path = str(layout.checkpoint(epoch).resolve())
    ocp.save_checkpointables(path, {_LEAVES: leaves, _INFO: {**info, "leaves": names}}, overwrite=True)
    return layout.checkpoint(epoch)


def load_info(path: Path) -> dict[str, Any]:
    """The JSON object of a checkpoint."""
    return _load(path, _INFO)


def load_tree(path: Path, like: Tree) -> Tree:
    """The tree of a checkpoint.

    Args:
      path: The checkpoint.
      like: A tree of the same structure whose leaves have the expected shapes and dtypes.

    Returns:
      `like`, with numpy arrays from the checkpoint as leaves.

    Raises:
      ArtifactError: The checkpoint cannot be read, or holds something else.
    """
    named, structure = jax.tree_util.tree_flatten_with_path(like)
    names = [jax.tree_util.keystr(key) for key, _ in named]
    found = load_info(path)["leaves"]
    if found != names:
        differing = sorted(set(found) ^ set(names))[:3]
        raise ArtifactError(
            f"{path} is a checkpoint of another model or optimizer: {', '.join(differing) or 'their order'} "
            "differs. Set continue_training: false to start anew."
        )
    stored = _load(path, _LEAVES)
    leaves = [np.asarray(stored[str(index)]) for index in range(len(named))]
    for name, leaf, (_, expected) in zip(names, leaves, named, strict=True):
        if leaf.shape != expected.shape or leaf.dtype != expected.dtype:
            raise ArtifactError(
                f"{path}: {name} is {leaf.dtype} {leaf.shape} where the configuration gives {expected.dtype} "
                f"{tuple(expected.shape)}. Set continue_training: false to start anew."
            )
    return structure.unflatten(leaves)


def remove_checkpoints(layout: Layout, *, keep: int | None) -> None:
    """Removes all checkpoints of a run but that of the epoch `keep`, if there is one to keep."""
    for epoch in layout.saved_epochs():
        if epoch != keep:
            shutil.rmtree(layout.checkpoint(epoch))


def _load(path: Path, part: str) -> Tree:
    try:
        return ocp.load_checkpointables(str(path.resolve()), {part: None})[part]
    # Orbax lets through whatever its storage layers raise for a damaged file.
    except Exception as error:
        raise ArtifactError(
            f"{path} cannot be read as a checkpoint ({type(error).__name__}: {str(error)[:200]}). Remove "
            "this folder to go on from an earlier checkpoint, or set continue_training: false to start anew."
        ) from error
