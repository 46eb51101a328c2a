"""Checkpoints: a run after an epoch, as Orbax writes it, atomically.

A checkpoint holds the leaves of a tree by number and a JSON object that names them, so that it can be read
without the classes that the tree is made of. What it is loaded into says the structure; a leaf that is not
as expected is an error. A manifest of digests is the last file to be written.
"""

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from seqjax.artifacts.atomic import replacing
from seqjax.artifacts.layout import Layout
from seqjax.artifacts.manifest import check_manifest, write_manifest
from seqjax.errors import ArtifactError

logger = logging.getLogger(__name__)

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
    path = layout.checkpoint(epoch)
    with replacing(path.resolve()) as temporary:
        ocp.save_checkpointables(str(temporary), {_LEAVES: leaves, _INFO: {**info, "leaves": names}})
        write_manifest(temporary)
    return path


def newest_intact(layout: Layout) -> int | None:
    """The newest epoch of a run whose checkpoint is as it was written; None if there is no checkpoint.

    Damaged ones are named in the log and passed over.

    Raises:
      ArtifactError: All of them are damaged.
    """
    saved = layout.saved_epochs()
    for epoch in reversed(saved):
        try:
            check_manifest(layout.checkpoint(epoch))
        except ArtifactError as error:
            logger.warning("[INFO] %s It is passed over.", error)
        else:
            return epoch
    if saved:
        raise ArtifactError(
            f"{layout.checkpoints} holds no checkpoint that is intact (epochs {saved}). Restore one, or set "
            "continue_training: false to start anew."
        )
    return None


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


def trim_checkpoints(layout: Layout, *, newest: int, count: int | None) -> None:
    """Removes the checkpoints of a run that nothing will go on from.

    Args:
      layout: Where the run's files lie.
      newest: The epoch saved last; what lies after it was passed over as damaged.
      count: How many of the others are kept, that of `newest` counted; None keeps all.
    """
    saved = layout.saved_epochs()
    until = [epoch for epoch in saved if epoch <= newest]
    kept = until if count is None else until[-count:]
    for epoch in set(saved) - set(kept):
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
