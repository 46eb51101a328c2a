"""Runs of one shape, trained together: each leaves the files that `seqjax train` leaves.

A `PopulationTrainer` keeps what runs have in common from one call to the next: windows in memory and on the
device, baselines, compiled programs. Each run has its own logs, checkpoints and models; only what computes is
shared.
"""

import gc
import json
import logging
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Literal, TypeAlias

import jax
import numpy as np

from seqjax.commands.train import Baselines, Job, TrainResult, load_job, train_until
from seqjax.commands.train_checkpoints import (
    Saver,
    check_until,
    cut_logs,
    find_checkpoint,
    restore,
    run_info,
)
from seqjax.config.train import TrainConfig
from seqjax.console import Advance, progress
from seqjax.data.dataset import Windows
from seqjax.errors import ConfigError, TrainingError
from seqjax.stopping import noted
from seqjax.sweep.population import Member, Population
from seqjax.sweep.runners import Kind, Programs
from seqjax.sweep.sizes import bytes_of, fitting, is_too_wide, suited
from seqjax.training.devices import find_device
from seqjax.training.distributed import find_devices
from seqjax.training.events import BatchEvent, Event, Hook, Standing
from seqjax.training.feed import ResidentFeed
from seqjax.training.logs import json_log, log_files
from seqjax.training.loop import is_finished
from seqjax.training.memory import is_out_of_memory
from seqjax.training.objective import weighing
from seqjax.training.placement import Placement
from seqjax.training.setup import Data, Run, evaluate_baselines
from seqjax.training.shapes import grouped_by_shape, shape_of, values_of
from seqjax.training.step import Values

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """A run, or the next part of one."""

    number: int
    """By which the caller knows it."""
    config: TrainConfig
    until: int | None = None
    """The epoch after which it pauses; null goes on to its end."""
    has_paused: bool = False
    """Whether it is the next part of a run, which goes on whatever `continue_training` says."""


@dataclass(frozen=True)
class Paused:
    """A run that waits, with a checkpoint, after an epoch that is not its last."""

    epoch: int
    best_epoch: int
    best_validation_loss: float


Failure: TypeAlias = TrainingError | ConfigError
"""Why a run fails by itself. Other errors, of data, files and devices, are no fault of its settings: they end
the search, and leave the run to be trained when they are mended."""
_FAILURES = (TrainingError, ConfigError)
End: TypeAlias = TrainResult | Paused | Failure
Ended: TypeAlias = Callable[[Task, End, float], None]
"""Told of each task: what came of it, and the seconds since it was begun."""


def train_alone(task: Task) -> End:
    """Trains a run by itself, in smaller micro-batches where its batches do not fit into memory."""
    try:
        end = train_until(task.config, task.until, has_paused=task.has_paused)
    except _FAILURES as error:
        return error
    return _paused(end) if isinstance(end, Standing) else end


class PopulationTrainer:
    """Trains runs together.

    Args:
      known: Runs that tell in which numbers those to come will differ, so that programs are compiled once.
      runner: How a device works on them; auto goes by the device and by where the data is.
      size: Largest number of runs at a time; null takes as many as fit into memory.
    """

    def __init__(
        self,
        known: Sequence[TrainConfig] = (),
        *,
        runner: Kind | Literal["auto"] = "auto",
        size: int | None = None,
    ) -> None:
        self._known = known
        self._runner: Kind | Literal["auto"] = runner
        self._size = size
        self._windows: dict[str, tuple[Windows, Windows]] = {}
        self._groups: dict[str, _ShapeGroup] = {}

    def train(self, tasks: Sequence[Task], ended: Ended) -> None:
        """Trains runs of any shapes, those of one shape together, one shape after the other.

        Args:
          tasks: What to train.
          ended: Told of each.

        Raises:
          DataError: The data cannot be used.
          ArtifactError: A checkpoint cannot be read, written, or continued.
          KeyboardInterrupt: A signal asked to stop; every run is saved.
        """
        for group in grouped_by_shape([(task, task.config) for task in tasks]):
            self._train_group(group, ended)

    def _train_group(self, tasks: Sequence[Task], ended: Ended) -> None:
        left = {task.number: task for task in tasks}

        def leave(task: Task, end: End, seconds: float) -> None:
            del left[task.number]
            ended(task, end, seconds)

        try:
            self._train_together(tasks, leave)
        except (MemoryError, jax.errors.JaxRuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        if not left:
            return
        # What did not fit was held by the error's frames as well, so that it is gone only now.
        self._groups, self._windows = {}, {}
        gc.collect()
        jax.clear_caches()
        logger.warning(
            "[WARNING] The device has too little memory for even one run beside what runs share: %d runs are "
            "trained one after the other, each by itself.",
            len(left),
        )
        _train_in_turn([*left.values()], leave)

    def _train_together(self, tasks: Sequence[Task], ended: Ended) -> None:
        shape = shape_of(tasks[0].config)
        if shape not in self._groups:
            self._groups = {}  # The programs and data of one shape at a time are on the device.
            tasks = self._prepared(shape, tasks, ended)
        if tasks:
            with jax.default_device(find_device(tasks[0].config.training_spec.device)):
                self._groups[shape].train(tasks, ended)

    def _prepared(self, shape: str, tasks: Sequence[Task], ended: Ended) -> Sequence[Task]:
        """Makes the group of a shape with the first run that can be trained; that run and those after it."""
        for place, task in enumerate(tasks):
            try:
                self._groups[shape] = self._group(task.config)
            except _FAILURES as error:
                ended(task, error, 0.0)
            else:
                return tasks[place:]
        return ()

    def _group(self, config: TrainConfig) -> "_ShapeGroup":
        known = [one for one in self._known if shape_of(one) == shape_of(config)]
        spec = config.training_spec
        job = load_job(config, Placement(find_devices(spec)))
        with jax.default_device(find_device(config.training_spec.device)):
            return _ShapeGroup(job, self._data(job), known, runner=self._runner, size=self._size)

    def _data(self, job: Job) -> tuple[Windows, Windows]:
        config = job.config
        key = json.dumps(
            [config.training_data_path, config.validation_data_path, config.seq_length, job.schema.columns]
        )
        if key not in self._windows:
            self._windows = {key: job.data.windows()}
        return self._windows[key]


class _ShapeGroup:
    """What the runs of one shape have in common."""

    def __init__(
        self,
        job: Job,
        windows: tuple[Windows, Windows],
        known: Sequence[TrainConfig],
        *,
        runner: Kind | Literal["auto"],
        size: int | None,
    ) -> None:
        self.windows = windows
        self.run = job.prepare(job.data.batches(*windows))
        self.job = job
        self._known = known
        self._baselines: dict[Hashable, Baselines] = {}
        is_resident = isinstance(self.run.setup.feed, ResidentFeed)
        self._kind: Kind = suited(job.device, is_resident=is_resident) if runner == "auto" else runner
        self._size = size
        self._population: tuple[str, Population] | None = None

    def train(self, tasks: Sequence[Task], ended: Ended) -> None:
        """Trains runs; see `PopulationTrainer.train`."""
        # Numbers that do not differ are compiled in as the run that the group was made with has them.
        known, configs = [self.job.config, *self._known], [task.config for task in tasks]
        values = values_of([*known, *configs], self.job.schema)[len(known) :]
        self._known = [*self._known, *configs]  # What has differed once is taken in from then on.
        population = self._slots(len(tasks), values[0])
        begun: dict[int, _MemberRun] = {}
        alone: list[Task] = []
        epochs = sum(task.until or task.config.training_spec.epochs for task in tasks)
        batches = epochs * len(self.run.setup.order(1))
        with noted() as note, progress(f"{len(tasks)} runs", batches, "batches") as bar:

            def members() -> Iterator[Member]:
                for task, own in zip(tasks, values, strict=True):
                    member_run = _MemberRun(task, self, bar)
                    try:
                        member = member_run.begin(own)
                    except _FAILURES as error:
                        member = member_run.ended(error)
                    except BaseException:
                        member_run.close()
                        raise
                    if member is None:
                        alone.append(task)
                    elif isinstance(member, Member):
                        begun[id(member)] = member_run
                        yield member
                    else:
                        ended(task, member, member_run.seconds)

            def leave(member: Member, end: Standing | TrainingError) -> None:
                member_run = begun[id(member)]
                try:
                    came = member_run.end(end)
                except _FAILURES as error:
                    came = member_run.ended(error)
                del begun[id(member)]  # Until then it is closed with the others, whatever happens.
                ended(member_run.task, came, member_run.seconds)

            try:
                population.train(members(), leave, signal=lambda: note.signal)
            finally:
                for member_run in begun.values():
                    member_run.close()
        _train_in_turn(alone, ended)

    def baselines(self, run: Run, data: Data) -> Baselines:
        """Those of a run, which depend on how its targets are weighed."""
        key = weighing(run.setup.targets)
        if key not in self._baselines:
            self._baselines[key] = evaluate_baselines(run, self.job.schema, data)
        return self._baselines[key]

    def _slots(self, count: int, values: Values) -> Population:
        """A population whose programs take in numbers of the names of these, with slots for so many runs."""
        names = json.dumps(jax.tree.map(lambda _: 0, values))
        wide = self._population is not None and is_too_wide(
            self._kind, self.job.device, slots=self._population[1].size, runs=count
        )
        if self._population is None or self._population[0] != names or wide:
            run = self.run
            order = self.job.data.batches(*self.windows).validation_order
            programs = Programs(
                *(run.recipe, run.evaluator, run.setup.feed, run.validation, order), run.setup.placement
            )
            most = fitting(self.job.config, bytes_of(self.job.shapes), self.job.device)
            slots = max(1, min(count, most, self._size or count))
            logger.info("[INFO] %d runs at a time are trained together (%s).", slots, self._kind)
            self._population = names, Population(programs, self._kind, slots)
            nothing = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), self.job.shapes)
            self._population[1].compile(Member(run, values, run.begin(nothing), epochs=1))
        return self._population[1]


class _MemberRun:
    """One run while it is trained: its logs, its checkpoints, its models."""

    def __init__(self, task: Task, group: _ShapeGroup, bar: Advance) -> None:
        self.task = task
        self._group = group
        self._bar = bar
        self._started = time.perf_counter()
        self._open = ExitStack()
        self._job = group.job.beside(task.config)
        self._saver: Saver | None = None

    @property
    def seconds(self) -> float:
        """Time since it was begun."""
        return time.perf_counter() - self._started

    def begin(self, values: Values) -> Member | End | None:
        """The run as a member of a population; or what came of it, if there is nothing left to train.

        Args:
          values: Its numbers in which the population differs.

        Returns:
          Null where it goes on in the middle of an epoch, which is no place to join others at.
        """
        job, spec, until = self._job, self.task.config.training_spec, self.task.until
        checkpoint = find_checkpoint(job.config, job.schema, job.layout, own=self.task.has_paused)
        check_until(checkpoint, until)
        if checkpoint.path is not None and not checkpoint.is_finished(spec):
            if until is not None and checkpoint.info["epoch"] >= until:
                return _paused(restore(checkpoint, self._group.run, job.shapes))
            if checkpoint.info["part"] is not None:
                return None
            cut_logs(job.layout, checkpoint.info)
        self._log = self._open.enter_context(json_log(job.layout.json_log(), job.memory))
        self._data = job.data.batches(*self._group.windows)
        with self._logging():
            job.announce(checkpoint, self._log)
            run = job.prepare(self._data, beside=self._group.run)
            self._baselines = self._group.baselines(run, self._data)
            job.tell_baselines(self._baselines, self._log)
            start = job.start(run, checkpoint)
        if isinstance(start, Standing) and checkpoint.is_finished(spec):
            return self._finish(start, finished=True)
        self._saver = Saver(job.layout, run_info(job.config, job.schema), spec, run, start)
        self._open.callback(self._saver.close)
        hooks = self._open.enter_context(job.hooks(run, self._baselines, self._log))
        told = [*hooks, self._count, self._saver]
        return Member(
            *(run, values, start, spec.epochs),
            patience=spec.early_stopping_epochs,
            until=until,
            hooks=[self._in_its_logs(hook) for hook in told],
        )

    def end(self, end: Standing | TrainingError) -> End:
        """Writes what is left to write when the run has left the population."""
        if not isinstance(end, Standing):
            return self.ended(end)
        spec = self.task.config.training_spec
        if self._saver is not None:
            with self._logging():
                self._saver.pause(end)
                self._saver.finish()
        if is_finished(end, epochs=spec.epochs, patience=spec.early_stopping_epochs):
            return self._finish(end, finished=False)
        self.close()
        return _paused(end)

    def ended(self, error: Failure) -> Failure:
        """Says in the run's log why it cannot go on."""
        with self._logging():
            logger.warning("[WARNING] %s", error)
        self.close()
        return error

    def close(self) -> None:
        """Waits for what is being written, and closes the files."""
        with self._logging():
            self._open.close()

    def _finish(self, standing: Standing, *, finished: bool) -> TrainResult:
        with self._logging():
            result = self._job.finish(standing, self._data, self._baselines, finished=finished)
            self._job.conclude(result, self._log)
        self.close()
        return result

    def _count(self, event: Event) -> None:
        if isinstance(event, BatchEvent):
            self._bar.advance(event.count)

    def _in_its_logs(self, hook: Hook) -> Hook:
        def told(event: Event) -> None:
            with self._logging():
                hook(event)

        return told

    def _logging(self) -> AbstractContextManager[None]:
        layout = self._job.layout
        return log_files(layout.debug_log(), layout.info_log(), alone=True)


def _train_in_turn(tasks: Sequence[Task], ended: Ended) -> None:
    for task in tasks:
        begin = time.perf_counter()
        end = train_alone(task)
        ended(task, end, time.perf_counter() - begin)


def _paused(standing: Standing) -> Paused:
    return Paused(standing.epoch, standing.best_epoch, standing.best_loss)
