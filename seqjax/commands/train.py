"""`seqjax train`: preprocessed windows become a trained, exported model.

    train        a configuration becomes a result
    train_until  a run by itself, with its logs on the screen too
    Trainer      runs of any shapes, those of one shape together, in one loop (`seqjax.training.loop`)
    TrainingRun  one run from its start to its end: look for a checkpoint, put the run together, judge the
                 baselines, start or go on, be trained, save, export the best and the last parameters

What runs of one shape have in common (windows, baselines, compiled programs) is a `Group`. How a run starts,
saves and exports is in `train_run`; everything that computes is in `seqjax.training`.
"""

import itertools
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import jax

from seqjax.artifacts.layout import Layout
from seqjax.commands.train_group import Group
from seqjax.commands.train_run import (
    End,
    Paused,
    Saver,
    Task,
    TrainResult,
    announce,
    export,
    find_checkpoint,
    run_info,
    start,
)
from seqjax.config.train import TrainConfig
from seqjax.console import Advance, configure_logging, progress
from seqjax.errors import ConfigError, TrainingError
from seqjax.stopping import noted
from seqjax.training.ending import Ending, best_baseline, totals
from seqjax.training.events import Event, Hook
from seqjax.training.logs import (
    LogFiles,
    TextLog,
    baseline_lines,
    baseline_values,
    json_log,
    live_view,
    log_files,
)
from seqjax.training.loop import Member
from seqjax.training.processes import connect, explaining_lost_processes, is_first, wait_for_all
from seqjax.training.runners import Kind
from seqjax.training.setup import Splits
from seqjax.training.shapes import grouped_by_shape, shape_of
from seqjax.training.step import Values
from seqjax.training.tensorboard import TensorBoardLog, require_tensorboard

logger = logging.getLogger(__name__)

Ended: TypeAlias = Callable[[Task, End, float], None]
"""Called with each task, its end, and the seconds since it was begun."""
FAILURES = (TrainingError, ConfigError)
"""Errors with which a run fails by itself. Others, of data, files and devices, are no fault of its settings:
they end the search, and leave the run to be trained when they are mended."""


def train(config: TrainConfig) -> TrainResult:
    """Runs the step.

    Args:
      config: What to train on, what, and how.

    Returns:
      The model files, and how good they are.

    Raises:
      ConfigError: The columns, the schedule or the checkpoint do not fit the configuration.
      DataError: The metadata or the windows cannot be used.
      TrainingError: There is no such device, a split is empty, or a loss is not finite.
      ArtifactError: A checkpoint or a model file cannot be used.
    """
    result = train_until(Task(0, config))
    assert isinstance(result, TrainResult)
    return result


def train_until(task: Task) -> TrainResult | Paused:
    """Trains a run by itself, to its end or until its next pause; raises what `train` does."""
    config, ends = task.config, []
    if config.training_spec.distributed:
        connect()
    if "tensorboard" in config.training_spec.log_to:
        require_tensorboard()
    if not is_first():
        configure_logging(logging.WARNING)  # The first process tells for all.
    layout, rank = Layout(Path(config.project_root), config.model_name), jax.process_index()
    trainer = Trainer(on_screen=True)
    with log_files(layout.debug_log(rank), layout.info_log(rank)), explaining_lost_processes():
        trainer.train([task], lambda _, end, seconds: ends.append(end))
        (end,) = ends
        if isinstance(end, FAILURES):
            raise end
    return end


@dataclass
class Trainer:
    """Trains runs, those of one shape together.

    Args:
      known: Runs that tell in which numbers those to come will differ, so that programs are compiled once.
      runner: How a device works on them; auto goes by the device and by where the data is.
      size: Largest number of runs at a time; None takes as many as fit into memory.
      on_screen: Whether what a run logs is shown, rather than written to its own files alone.
    """

    known: Sequence[TrainConfig] = ()
    runner: Kind | Literal["auto"] = "auto"
    size: int | None = None
    on_screen: bool = False
    _group: Group | None = None
    splits: dict[str, Splits] = field(default_factory=dict)
    """Windows that were read last, by their description: the next shape may share them."""

    def train(self, tasks: Sequence[Task], ended: Ended) -> None:
        """Trains runs of any shapes, one shape after the other.

        Args:
          tasks: The runs.
          ended: Called with each.

        Raises:
          DataError: The data cannot be used.
          ArtifactError: A checkpoint cannot be read, written, or continued.
          KeyboardInterrupt: A signal asked to stop; every run is saved.
        """
        for alike in grouped_by_shape([(task, task.config) for task in tasks]):
            config = alike[0].config
            if self._group is None or self._group.shape != shape_of(config):
                self._group = None  # The programs and data of one shape at a time are on the device.
                self._group = Group(config, self)
            with jax.default_device(self._group.device):
                self._train_group(self._group, alike, ended)

    def _train_group(self, group: Group, tasks: Sequence[Task], ended: Ended) -> None:
        """Trains runs of one shape, as many at a time as there is room for."""
        values = group.expect([task.config for task in tasks])
        runs: dict[Member, TrainingRun] = {}
        under_way: set[TrainingRun] = set()

        def advance(run: TrainingRun) -> Member | None:
            member = run.advance()
            if member is None:
                under_way.remove(run)
                run.close()
                ended(run.task, run.end, time.perf_counter() - run.begun_at)
            return member

        def members() -> Iterator[Member]:
            for task, own in zip(tasks, values, strict=True):
                run = TrainingRun(task, group, own)
                under_way.add(run)
                member = advance(run)
                if member is not None:
                    runs[member] = run
                    yield member

        try:
            waiting = members()
            for first in waiting:
                together = itertools.chain([first], waiting)
                with _progress(group, tasks, first), noted() as note:
                    group.population.train(together, lambda member: advance(runs.pop(member)), note)
        finally:  # Whatever happens.
            for run in under_way:
                run.close()


class TrainingRun:
    """A run from its first line in the log to its exported models.

    Args:
      task: The run.
      group: What it has in common with others.
      values: Its numbers in which the group's runs differ.
    """

    end: End
    """Its end, once it is over."""

    def __init__(self, task: Task, group: Group, values: Values) -> None:
        self.task = task
        self.begun_at = time.perf_counter()
        self._group = group
        self._values = values
        self._layout = layout = Layout(Path(task.config.project_root), task.config.model_name)
        self._files = None if group.on_screen else LogFiles(layout.debug_log(), layout.info_log())
        self._open = ExitStack()
        self._steps = self._trained()

    def advance(self) -> Member | None:
        """Goes on until the run is to be trained, as the member that is returned, or is over: None."""
        try:
            with self._logging():
                return next(self._steps, None)
        except FAILURES as error:
            self._fail(error)
            return None

    def close(self) -> None:
        """Waits for what is being written, and closes the files."""
        with self._logging():
            self._open.close()
        if self._files is not None:
            self._files.close()

    def _trained(self) -> Iterator[Member]:
        """The run from its start to its end; yields it to be trained, unless it is finished already."""
        task, config, spec = self.task, self.task.config, self.task.config.training_spec
        group, layout = self._group, self._layout
        checkpoint = find_checkpoint(config, group.schema, layout, own=task.has_paused, until=task.until)
        finished = checkpoint.is_finished(spec)
        if not finished and task.until is not None and checkpoint.info.get("epoch", 0) >= task.until:
            self.end = _paused(checkpoint.info)
            return
        log = self._open.enter_context(json_log(layout.json_log(jax.process_index()), group.memory))
        announce(config, group, checkpoint, log)
        run = group.prepare(config, task.shared)
        if not finished:
            group.compile(run, self._values, checkpoint.info.get("micro_batches", 1))
        baselines = group.baselines(run)
        for line in baseline_lines(baselines):
            logger.info(line)
        log.write("baselines", baseline_values(baselines))
        ending = Ending(baselines)
        member = Member(
            run,
            start(checkpoint, config, group, run),
            spec.epochs,
            patience=spec.early_stopping_epochs,
            until=task.until,
            values=self._values,
        )
        if not finished:
            saver = self._watch(member, [TextLog(best_baseline(baselines), group.labels), log, ending])
            yield member
            if member.error is not None:
                self._fail(member.error)
                return
            if saver is not None:
                saver.pause(member.state)
                saver.finish()
            if not member.is_finished:
                self.end = _paused(vars(member.state))
                return
        state = member.state
        best, last = export(config, layout, group, state, missing_only=finished)
        score = (state.best_epoch, state.best_loss, state.epoch)
        self.end = TrainResult(best, last, *score, totals(baselines), state.best_score)
        wait_for_all("exported")
        ending.tell(state, spec)
        logger.info("--- Training Complete ---")
        score = ("best_epoch", "best_validation_loss", "last_epoch")
        log.write("end", {name: getattr(self.end, name) for name in score})

    def _watch(self, member: Member, hooks: list[Hook]) -> Saver | None:
        """Has logs, the bar and checkpoints hear of what happens to a member, in the first process."""
        config, group, layout = self.task.config, self._group, self._layout
        if not is_first():
            return None
        if "tensorboard" in config.training_spec.log_to:
            log = TensorBoardLog(layout.tensorboard, len(member.run.order(1)), group.memory)
            self._open.callback(log.close)
            hooks.append(log)
        about = run_info(config, group.schema)

        def info() -> dict[str, Any]:
            return {**about, "micro_batches": group.population.micro_batches}

        saver = Saver(layout, info, config.training_spec, member)
        self._open.callback(saver.close)
        hooks += [lambda event: group.bar(event), saver]

        def tell(event: Event) -> None:
            with self._logging():
                for hook in hooks:
                    hook(event)

        member.hooks, member.is_due = [tell], lambda: saver.is_due
        return saver

    def _fail(self, error: TrainingError | ConfigError) -> None:
        """Notes why the run cannot go on, and says it in its own log."""
        self.end = error
        with self._logging():
            if not self._group.on_screen:
                logger.warning("[WARNING] %s", error)

    def _logging(self) -> AbstractContextManager[None]:
        """Sends what is logged to this run's files, unless those of a run by itself are open all the time."""
        return nullcontext() if self._files is None else self._files.attached(alone=True)


@contextmanager
def _progress(group: Group, tasks: Sequence[Task], first: Member) -> Iterator[None]:
    """Shows a bar while the block runs; what the first run has done before is not of it."""
    name = tasks[0].config.model_name if len(tasks) == 1 else f"{len(tasks)} runs"
    epochs = sum(task.until or task.config.training_spec.epochs for task in tasks)
    left = epochs * len(first.run.order(1)) - first.batches_done
    with progress(name, left, "batches") if is_first() else nullcontext(Advance()) as bar:
        group.bar = live_view(bar, group.memory, alone=len(tasks) == 1)
        yield


def _paused(state: Mapping[str, Any]) -> Paused:
    return Paused(state["epoch"], state["best_epoch"], state["best_loss"], state["best_score"])
