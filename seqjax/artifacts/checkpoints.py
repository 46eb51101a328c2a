"""Checkpoints: a run after an epoch or in the middle of one, as Orbax writes it, atomically.

A checkpoint holds the leaves of a tree by number and a JSON object that names them, so that it can be read
without the classes that the tree is made of. What it is loaded into says the structure; a leaf that is not
as expected is an error. A manifest of digests is the last file to be written. A run writes its checkpoints
through a `CheckpointWriter`, in a thread of its own.
"""

import logging
import re
import shutil
import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax.traverse_util import unflatten_dict

from seqjax.artifacts.atomic import check_manifest, replacing, write_manifest
from seqjax.artifacts.layout import Layout, Place
from seqjax.errors import ArtifactError

logger = logging.getLogger(__name__)

Tree: TypeAlias = Any
"""A nested structure of arrays."""

_LEAVES, _INFO = "leaves", "info"
_ONE_AT_A_TIME = threading.Lock()
"""Runs that are trained together each have a thread that writes, and Orbax keeps names for all of them."""


class Found(NamedTuple):
    """The newest intact checkpoint, if there is one, and the damages of those that were passed over."""

    place: Place | None
    damaged: tuple[str, ...]


class CheckpointWriter:
    """Writes the checkpoints of a run while the run goes on, one at a time.

    It logs in the thread of its caller, since where a line goes to depends on the run that is at work there.

    Args:
      layout: Where the run's files lie.
      keep: How many of the newest are kept; None keeps all.
      fresh: Whether older checkpoints belong to an earlier run of this name. They are removed once there is
        one of this run, so that no later run takes them for this one's.
    """

    def __init__(self, layout: Layout, *, keep: int | None, fresh: bool) -> None:
        self._layout = layout
        self._keep = keep
        self._old_ones_remain = fresh
        self._pool = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[Path] | None = None
        self._remove_unfinished()  # A killed program left them.

    @property
    def busy(self) -> bool:
        """True while one is being written."""
        return self._writing is not None and not self._writing.done()

    def start(self, place: Place, tree: Tree, info: Mapping[str, Any]) -> None:
        """Begins to write a checkpoint; waits for the one before, and says so if that failed.

        Args:
          place: How far the run is.
          tree: Nested numpy arrays, which nobody changes any more.
          info: A JSON object; comes back from `load_info`.
        """
        try:
            self.finish()
        except ArtifactError as error:
            logger.warning("[WARNING] %s The run goes on.", error)
        self._writing = self._pool.submit(self._write, place, tree, info)

    def tell(self) -> None:
        """Logs that a checkpoint is written, if one is that was not told of."""
        if self._writing is not None and self._writing.done() and self._writing.exception() is None:
            self.finish()

    def finish(self) -> None:
        """Waits until everything is on disk, and logs it.

        Raises:
          ArtifactError: It could not be written.
        """
        writing, self._writing = self._writing, None
        if writing is None:
            return
        try:
            path = writing.result()
        # Orbax lets through whatever its storage layers raise for a full disk.
        except Exception as error:
            raise ArtifactError(
                f"No checkpoint could be written to {self._layout.checkpoints} ({type(error).__name__}: "
                f"{str(error)[:200]}). Look for free space and for the rights to write there."
            ) from error
        logger.info("[INFO] Saved model to %s", path)

    def close(self) -> None:
        """Waits for the thread to end."""
        self._pool.shutdown()
        self.tell()

    def _write(self, place: Place, tree: Tree, info: Mapping[str, Any]) -> Path:
        try:
            path = save_checkpoint(self._layout, place, tree, info)
        except BaseException:
            self._remove_unfinished()  # Orbax's own, which would take what little space there may be.
            raise
        trim_checkpoints(self._layout, newest=place, count=1 if self._old_ones_remain else self._keep)
        self._old_ones_remain = False
        return path

    def _remove_unfinished(self) -> None:
        for path in self._layout.checkpoints.glob(".epoch-*"):
            shutil.rmtree(path, ignore_errors=True)


def save_checkpoint(layout: Layout, place: Place, tree: Tree, info: Mapping[str, Any]) -> Path:
    """Writes a checkpoint, in place of one that may be there. Of several processes the first may.

    Args:
      layout: Where the run's files lie.
      place: How far the run is.
      tree: Nested numpy arrays.
      info: A JSON object; comes back from `load_info`.

    Returns:
      The checkpoint, which is a folder.
    """
    named, _ = jax.tree_util.tree_flatten_with_path(tree)
    leaves = {str(index): np.asarray(leaf) for index, (_, leaf) in enumerate(named)}
    names = [jax.tree_util.keystr(path) for path, _ in named]
    path = layout.checkpoint(*place)
    with replacing(path.resolve()) as temporary:
        with _ONE_AT_A_TIME, _alone() as checkpointer:
            saved = {
                _LEAVES: ocp.args.PyTreeSave(leaves),
                _INFO: ocp.args.JsonSave({**info, "leaves": names}),
            }
            checkpointer.save(temporary, ocp.args.Composite(**saved), force=True)
        write_manifest(temporary)
    return path


def newest_intact(layout: Layout) -> Found:
    """The newest checkpoint of a run that is as it was written, and what was passed over.

    Raises:
      ArtifactError: All of them are damaged.
    """
    saved, damaged = layout.saved(), []
    for place in reversed(saved):
        try:
            check_manifest(layout.checkpoint(*place))
        except ArtifactError as error:
            damaged.append(str(error))
        else:
            return Found(place, tuple(damaged))
    if saved:
        names = ", ".join(layout.checkpoint(*place).name for place in saved)
        raise ArtifactError(
            f"{layout.checkpoints} holds no checkpoint that is intact ({names}). Restore one, or set "
            f"continue_training: false to start anew. The newest: {damaged[0]}"
        )
    return Found(None, ())


def load_info(path: Path) -> dict[str, Any]:
    """The JSON object of a checkpoint."""
    return _load(path, _INFO)


def load_leaves(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint by their paths in its tree, in its order."""
    names, stored = load_info(path)["leaves"], _load(path, _LEAVES)
    return {name: np.asarray(stored[str(index)]) for index, name in enumerate(names)}


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
    stored = load_leaves(path)
    if list(stored) != names:
        differing = sorted(set(stored) ^ set(names))[:3]
        raise ArtifactError(
            f"{path} is a checkpoint of another model or optimizer: {', '.join(differing) or 'their order'} "
            "differs. Set continue_training: false to start anew."
        )
    for (name, leaf), (_, expected) in zip(stored.items(), named, strict=True):
        if leaf.shape != expected.shape or leaf.dtype != expected.dtype:
            raise ArtifactError(
                f"{path}: {name} is {leaf.dtype} {leaf.shape} where the configuration gives {expected.dtype} "
                f"{tuple(expected.shape)}. Set continue_training: false to start anew."
            )
    return structure.unflatten(stored.values())


def load_best(path: Path) -> dict[str, Any]:
    """The best parameters in the checkpoint of a training: the second of its trees, as nested dicts."""
    best = {name: leaf for name, leaf in load_leaves(path).items() if name.startswith("[1]")}
    return unflatten_dict({tuple(re.findall(r"\['([^']*)'\]", name)): leaf for name, leaf in best.items()})


def trim_checkpoints(layout: Layout, *, newest: Place, count: int | None) -> None:
    """Removes the checkpoints of a run that nothing will go on from.

    Args:
      layout: Where the run's files lie.
      newest: The place saved last; what lies after it was passed over as damaged.
      count: How many of the others are kept, that of `newest` counted; None keeps all.
    """
    saved = layout.saved()
    until = [place for place in saved if place <= newest]
    kept = until if count is None else until[-count:]
    for place in set(saved) - set(kept):
        shutil.rmtree(layout.checkpoint(*place))


def _load(path: Path, part: str) -> Tree:
    how = ocp.args.PyTreeRestore() if part == _LEAVES else ocp.args.JsonRestore()
    try:
        with _ONE_AT_A_TIME, _alone() as checkpointer:
            return checkpointer.restore(path.resolve(), ocp.args.Composite(**{part: how}))[part]
    # Orbax lets through whatever its storage layers raise for a damaged file.
    except Exception as error:
        raise ArtifactError(
            f"{path} cannot be read as a checkpoint ({type(error).__name__}: {str(error)[:200]}). Remove "
            "this folder to go on from an earlier checkpoint, or set continue_training: false to start anew."
        ) from error


def _alone() -> ocp.Checkpointer:
    """Orbax waiting for no other process: what is written is the same in all, and one writes it.

    Orbax's newer functions compare the paths of all processes before they save, which needs all of them at
    once, and would get between the sums of gradients that they form meanwhile.
    """
    this = jax.process_index()
    options = ocp.options.MultiprocessingOptions(
        primary_host=this, active_processes={this}, barrier_sync_key_prefix=f"process-{this}"
    )
    handler = ocp.CompositeCheckpointHandler(
        composite_options=ocp.CompositeOptions(multiprocessing_options=options),
        **{
            _LEAVES: ocp.PyTreeCheckpointHandler(multiprocessing_options=options),
            _INFO: ocp.JsonCheckpointHandler(multiprocessing_options=options),
        },
    )
    return ocp.Checkpointer(handler, multiprocessing_options=options)
