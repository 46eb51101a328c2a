"""When `seqjax train` saves, and how it goes on from what was saved.

A checkpoint holds the arrays of a run, and as JSON all that is counted: epochs, the score, and what the epoch
that is under way has found so far.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from seqjax.artifacts.checkpoints import CheckpointWriter, load_info, load_tree, newest_intact
from seqjax.artifacts.layout import Layout, Place
from seqjax.config.changes import changed_keys, marked_keys
from seqjax.config.schema import Schema
from seqjax.config.train import TrainConfig, TrainingSpec
from seqjax.errors import ArtifactError
from seqjax.training.events import Event, PauseEvent, Progress, RunState, StateEvent
from seqjax.training.processes import agree
from seqjax.training.setup import Run
from seqjax.training.step import Params

logger = logging.getLogger(__name__)

# Keys that may change between a checkpoint and the run that goes on from it; `epochs` is looked at by itself.
_MAY_CHANGE = marked_keys(TrainConfig, lambda mark: mark.may_change or not mark.has_influence)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint to go on from."""

    path: Path | None
    """The newest intact one; None if there is none."""
    info: dict[str, Any]
    damaged: tuple[str, ...] = ()
    """Faults of those that were passed over."""

    def is_finished(self, spec: TrainingSpec) -> bool:
        """True if nothing is left to train."""
        return self.path is not None and (
            self.info["epoch"] >= spec.epochs
            or (spec.early_stopping_epochs is not None and self.info["stale"] >= spec.early_stopping_epochs)
        )


NOTHING = Checkpoint(None, {})


def run_info(config: TrainConfig, schema: Schema) -> dict[str, Any]:
    """A checkpoint's description of the run that it belongs to."""
    return {"config": config.model_dump(mode="json"), "schema": schema.model_dump(mode="json")}


def find_checkpoint(
    config: TrainConfig, schema: Schema, layout: Layout, *, own: bool = False, until: int | None = None
) -> Checkpoint:
    """The newest intact checkpoint of a run.

    Args:
      config: The run's.
      schema: Its columns.
      layout: Where its files lie.
      own: Whether it was written in the course of the same training, so that `continue_training` does not
        matter.
      until: The epoch after which the run pauses; it cannot go back there.

    Raises:
      ArtifactError: It was made with another configuration, it is beyond `until`, or all are damaged.
      TrainingError: The processes of the run find different ones.
    """
    if not (config.training_spec.continue_training or own):
        return NOTHING
    place, damaged = newest_intact(layout)
    agree(place or Place(-1), "The newest checkpoint (epoch, batch)")
    if place is None:
        return NOTHING
    path = layout.checkpoint(*place)
    info = load_info(path)
    before, now = {**info["config"], "schema": info["schema"]}, run_info(config, schema)
    changed = changed_keys(before, {**now["config"], "schema": now["schema"]}, ignored=_MAY_CHANGE)
    if config.training_spec.epochs < place.epoch:
        changed["training_spec.epochs"] = (f"{place.epoch} done", config.training_spec.epochs)
    if changed:
        raise ArtifactError(
            f"{path} was made with another configuration, so it cannot be continued. Undo the changes, "
            "choose another model_name, or set continue_training: false to start anew:"
            + "".join(f"\n  {key}: was {old!r}, is {new!r}." for key, (old, new) in changed.items())
        )
    if until is not None and info["epoch"] > until:
        raise ArtifactError(
            f"{path} is of epoch {info['epoch']}, but the run is to be compared with others after epoch "
            f"{until}. Remove the checkpoints of the search's runs, or set continue_training: false, to "
            "start them anew."
        )
    return Checkpoint(path, info, damaged)


def restore(checkpoint: Checkpoint, run: Run, shapes: Params) -> RunState:
    """The run as it was.

    Args:
      checkpoint: One that there is.
      run: The run that goes on.
      shapes: Shapes and types of the model's parameters.
    """
    assert checkpoint.path is not None
    like = jax.eval_shape(lambda params: (run.new_state(params), run.precision.keep(params)), shapes)
    state, best = load_tree(checkpoint.path, like)
    info, progress = checkpoint.info, checkpoint.info["progress"]
    if progress is not None:
        sums = {name: tuple(progress[name]) for name in ("interval", "epoch")}
        progress = Progress(**{**progress, **sums})
    best_loss = float("inf") if info["best_loss"] is None else info["best_loss"]
    losses = tuple(info["losses"])
    return RunState(
        info["epoch"], state, best, info["best_epoch"], best_loss, info["stale"], losses, progress
    )


class Saver:
    """A hook that writes checkpoints: after so many epochs, at pauses, and at the end.

    Args:
      layout: Where the run's files lie.
      info: Says what each checkpoint tells about the run.
      spec: When to save, and how many checkpoints to keep.
      run: The run.
      start: What it begins with.
    """

    def __init__(
        self,
        layout: Layout,
        info: Callable[[], dict[str, Any]],
        spec: TrainingSpec,
        run: Run,
        start: RunState,
    ) -> None:
        self._info = info
        self._spec = spec
        self._accumulation = run.recipe.accumulation
        self._batches = len(run.order(1))
        is_new = start.epoch == 0 and start.progress is None
        self._writer = CheckpointWriter(layout, keep=spec.keep_checkpoints, fresh=is_new)
        self._saved_at = time.monotonic()
        self._saved_epoch = None if is_new or start.progress is not None else start.epoch

    @property
    def is_due(self) -> bool:
        """True if the minutes are over after which to save, whatever the epoch."""
        minutes = self._spec.save_interval_minutes
        late = minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes
        return late and not self._writer.busy

    def __call__(self, event: Event) -> None:
        """Begins to save, if it is time. Waits for that only where a signal ends the run."""
        self._writer.tell()
        match event:
            case StateEvent(state=state):
                if event.finished or state.epoch % self._spec.save_interval_epochs == 0 or self.is_due:
                    self._save(state)
            case PauseEvent():
                self.pause(event.state)
                if event.signal:
                    self._writer.finish()
            case _:
                pass

    def pause(self, state: RunState) -> None:
        """Saves a run in the middle of an epoch; or as it was after one, unless that is saved already."""
        if state.progress is not None or state.epoch != self._saved_epoch:
            self._save(state)

    def finish(self) -> None:
        """Waits until everything is on disk.

        Raises:
          ArtifactError: It could not be written.
        """
        self._writer.finish()

    def close(self) -> None:
        """Waits for what is being written."""
        self._writer.close()

    def _save(self, state: RunState) -> None:
        progress = state.progress
        batch = 0 if progress is None else min(progress.updates * self._accumulation, self._batches)
        counted = {name: getattr(state, name) for name in ("epoch", "best_epoch", "stale", "losses")} | {
            "best_loss": state.best_loss if np.isfinite(state.best_loss) else None,
            "progress": None if progress is None else asdict(progress),
        }
        self._writer.start(Place(state.epoch, batch), (state.state, state.best), self._info() | counted)
        self._saved_at = time.monotonic()
        self._saved_epoch = state.epoch if progress is None else None
