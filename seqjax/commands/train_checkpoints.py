"""When `seqjax train` saves, and how it goes on from what was saved.

A checkpoint holds the arrays of a run, and as JSON all that is counted: epochs, the score, what the epoch
that is under way has found so far, and how long the log files were. A run that goes on cuts its logs to that
length, so that what was logged after the checkpoint, and will be logged again, is there once.
"""

import logging
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from seqjax.artifacts.checkpoints import CheckpointWriter, load_info, load_tree, log_saved, newest_intact
from seqjax.artifacts.layout import Layout, Place
from seqjax.config.changes import changed_keys, marked_keys
from seqjax.config.schema import Schema
from seqjax.config.train import TrainConfig, TrainingSpec
from seqjax.errors import ArtifactError
from seqjax.training.distributed import agree
from seqjax.training.events import BackEvent, EpochPart, Event, PauseEvent, Standing, StandingEvent
from seqjax.training.setup import Run
from seqjax.training.state import Params, TrainState, to_host
from seqjax.training.step import Report, empty_report

logger = logging.getLogger(__name__)

# Keys that may change between a checkpoint and the run that goes on from it; `epochs` is looked at by itself.
_MAY_CHANGE = marked_keys(TrainConfig, lambda mark: mark.may_change or not mark.has_influence)


@dataclass(frozen=True)
class Checkpoint:
    """What there is to go on from."""

    path: Path | None
    """The newest intact checkpoint; null if there is none."""
    info: dict[str, Any]
    """Its JSON object."""
    damaged: tuple[str, ...] = ()
    """What is wrong with those that were passed over."""

    @property
    def parts(self) -> int:
        """Micro-batches a batch."""
        return self.info.get("parts", 1)

    def is_finished(self, spec: TrainingSpec) -> bool:
        """Whether nothing is left to train."""
        return self.path is not None and (
            self.info["epoch"] >= spec.epochs
            or (spec.early_stopping_epochs is not None and self.info["stale"] >= spec.early_stopping_epochs)
        )


NOTHING = Checkpoint(None, {})


def run_info(config: TrainConfig, schema: Schema) -> dict[str, Any]:
    """What a checkpoint says about the run that it belongs to."""
    return {"config": config.model_dump(mode="json"), "schema": schema.model_dump(mode="json")}


def find_checkpoint(config: TrainConfig, schema: Schema, layout: Layout, *, own: bool = False) -> Checkpoint:
    """The newest intact checkpoint of a run.

    Args:
      config: The run's.
      schema: Its columns.
      layout: Where its files lie.
      own: Whether it was written in the course of the same training, so that `continue_training` does not
        matter.

    Raises:
      ArtifactError: It was made with another configuration, or all are damaged.
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
    return Checkpoint(path, info, damaged)


def check_until(checkpoint: Checkpoint, until: int | None) -> None:
    """Refuses to pause after an epoch that a checkpoint is beyond: a run cannot go back.

    Raises:
      ArtifactError: It is.
    """
    if checkpoint.path is not None and until is not None and checkpoint.info["epoch"] > until:
        raise ArtifactError(
            f"{checkpoint.path} is of epoch {checkpoint.info['epoch']}, but the run is to be compared with "
            f"others after epoch {until}. Remove the checkpoints of the search's runs, or set "
            "continue_training: false, to start them anew."
        )


def restore(checkpoint: Checkpoint, run: Run, shapes: Params) -> Standing:
    """The run as it was.

    Args:
      checkpoint: One that there is.
      run: The run that goes on.
      shapes: Shapes and types of the model's parameters.
    """
    assert checkpoint.path is not None
    state, best = jax.eval_shape(lambda params: (run.begin(params), run.precision.keep(params)), shapes)
    report = to_host(empty_report(run.setup.targets))
    state, best, report = load_tree(checkpoint.path, (state, best, report))
    info = checkpoint.info
    loss = float("inf") if info["best_loss"] is None else info["best_loss"]
    part = None if info["part"] is None else _part(info["part"], report)
    losses = tuple(info["losses"])
    return Standing(info["epoch"], state, best, info["best_epoch"], loss, info["stale"], losses, part)


def cut_logs(layout: Layout, info: dict[str, Any]) -> None:
    """Removes from the logs what was written after a checkpoint."""
    for path in _logs(layout):
        length = info["logs"].get(path.name)
        if length is not None and path.exists() and path.stat().st_size > length:
            os.truncate(path, length)


def log_lengths(layout: Layout) -> dict[str, int]:
    """How long the logs are, in bytes."""
    return {path.name: path.stat().st_size for path in _logs(layout) if path.exists()}


class Saver:
    """A hook that writes checkpoints: after so many epochs, at pauses, and at the end.

    Args:
      layout: Where the run's files lie.
      info: What each checkpoint says about the run.
      spec: When to save, and how many checkpoints to keep.
      run: The run.
      start: Its new state, or what its checkpoint holds.
    """

    def __init__(
        self, layout: Layout, info: dict[str, Any], spec: TrainingSpec, run: Run, start: TrainState | Standing
    ) -> None:
        self._layout = layout
        self._info = info
        self._spec = spec
        self._accumulation = run.setup.accumulation
        self._batches = len(run.setup.order(1))
        self._nothing = to_host(empty_report(run.setup.targets))
        fresh = isinstance(start, TrainState)
        self._writer = CheckpointWriter(layout, keep=spec.keep_checkpoints, fresh=fresh)
        self._saved_at = time.monotonic()
        self._saved_epoch = None if isinstance(start, TrainState) or start.part is not None else start.epoch
        self._note_lengths(wait=False)
        self.has_saved = False
        """Whether a checkpoint was begun."""

    @property
    def is_due(self) -> bool:
        """Whether the minutes are over after which to save, whatever the epoch."""
        minutes = self._spec.save_interval_minutes
        late = minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes
        return late and not self._writer.busy

    def __call__(self, event: Event) -> None:
        """Begins to save, if it is time. Waits for that only where a signal ends the run."""
        self._writer.tell()
        match event:
            case StandingEvent():
                is_its_turn = event.standing.epoch % self._spec.save_interval_epochs == 0
                is_saved = event.finished or is_its_turn or self.is_due
                self._note_lengths(wait=is_saved)
                if is_saved:
                    self._save(event.standing)
            case PauseEvent():
                self.pause(event.standing)
                if event.signal:
                    self._writer.finish()
            case BackEvent():
                cut_logs(self._layout, {"logs": self._lengths})
                if self._writer.told is not None and self._writer.told != self._told:
                    log_saved(self._writer.told)
            case _:
                pass

    def pause(self, standing: Standing) -> None:
        """Saves a run in the middle of an epoch; or as it was after one, unless that is saved already."""
        if standing.part is not None:
            self._note_lengths(wait=True)
            self._save(standing)
        elif standing.epoch != self._saved_epoch:
            self._save(standing)

    def finish(self) -> None:
        """Waits until everything is on disk.

        Raises:
          ArtifactError: It could not be written.
        """
        self._writer.finish()

    def close(self) -> None:
        """Waits for what is being written."""
        self._writer.close()

    def _note_lengths(self, *, wait: bool) -> None:
        """Notes to which lengths the logs are cut if the run goes on from here.

        Args:
          wait: Whether the line of a checkpoint that is being written is to be among what stays.
        """
        if wait:
            self._writer.make_way()
        self._lengths, self._told = log_lengths(self._layout), self._writer.told

    def _save(self, standing: Standing) -> None:
        part = standing.part
        batch = 0 if part is None else min(part.updates * self._accumulation, self._batches)
        counted = {
            "epoch": standing.epoch,
            "best_epoch": standing.best_epoch,
            "best_loss": standing.best_loss if np.isfinite(standing.best_loss) else None,
            "stale": standing.stale,
            "losses": list(standing.losses),
            "part": None if part is None else {**asdict(part), "report": None},
            "logs": self._lengths,
        }
        report = self._nothing if part is None else part.report
        tree = (standing.state, standing.best, report)
        self._writer.start(Place(standing.epoch, batch), tree, self._info | counted)
        self._saved_at, self.has_saved = time.monotonic(), True
        self._saved_epoch = standing.epoch if part is None else None


def _part(values: dict[str, Any], report: Report) -> EpochPart:
    totals = {
        name: {target: (pair[0], pair[1]) for target, pair in values[name].items()}
        for name in ("interval", "epoch")
    }
    return EpochPart(**{**values, **totals, "report": report})


def _logs(layout: Layout) -> tuple[Path, ...]:
    """The logs that tell of events; those of other processes than the first do not."""
    return (layout.debug_log(), layout.info_log(), layout.json_log())
