"""`seqjax train`: preprocessed windows become a trained, exported model.

Read the metadata and the windows; put the run together; judge the baselines; train, or go on from the newest
checkpoint; export the best and the last parameters. A run by itself and the runs of a search go the same way:
a `Trainer` trains those of one shape together, and keeps what they have in common from one call to the next:
windows in memory and on the device, baselines, compiled programs. Each run has its own logs, checkpoints and
models (`seqjax.commands.train_run`). Everything that computes is in `seqjax.training`.
"""

import itertools
import json
import logging
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Literal, TypeAlias

import jax
import numpy as np

from seqjax.artifacts.layout import Layout
from seqjax.commands.train_run import Baselines, End, Paused, Task, TrainingRun, TrainResult
from seqjax.config.load import resolve_path, resolve_split
from seqjax.config.metadata import Metadata
from seqjax.config.resolve import load_metadata, resolve_schema
from seqjax.config.schema import Schema
from seqjax.config.train import TrainConfig
from seqjax.console import Advance, configure_logging, progress
from seqjax.data.columns import OTHER, class_labels
from seqjax.data.formats import load_windows
from seqjax.errors import ConfigError, Problem, TrainingError
from seqjax.model.functional import abstract
from seqjax.stopping import noted
from seqjax.training.devices import find_device, is_out_of_memory, memory_in_use
from seqjax.training.events import Event, Hook
from seqjax.training.feed import ResidentFeed
from seqjax.training.logs import live_view, log_files
from seqjax.training.loop import Member, Population
from seqjax.training.objective import weighing
from seqjax.training.placement import Placement
from seqjax.training.processes import connect, explaining_lost_processes, find_devices, is_first
from seqjax.training.runners import Kind, bytes_of, fitting, is_too_wide, suited
from seqjax.training.setup import Data, Run, evaluate_baselines, prepare
from seqjax.training.shapes import grouped_by_shape, shape_of, values_of
from seqjax.training.step import Values
from seqjax.training.tensorboard import require_tensorboard
from seqjax.windows.windows import Windows

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
    _group: "Group | None" = None
    _windows: dict[str, tuple[Windows, Windows]] = field(default_factory=dict)

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
        for group in grouped_by_shape([(task, task.config) for task in tasks]):
            shape = shape_of(group[0].config)
            if self._group is None or self._group.shape != shape:
                self._group = None  # The programs and data of one shape at a time are on the device.
                self._group = Group(group[0].config, self)
            with jax.default_device(self._group.device):
                self._group.train(group, ended)

    def windows(self, group: "Group") -> tuple[Windows, Windows]:
        """The windows of a group, which the next group may share."""
        config = group.config
        key = json.dumps(
            [
                config.training_data_path,
                config.validation_data_path,
                config.seq_length,
                config.min_history,
                group.schema.columns,
            ]
        )
        if key not in self._windows:
            self._windows = {key: load_splits(config, group.metadata, group.schema)}
        return self._windows[key]


class Group:
    """Runs of one shape, and what they have in common.

    Args:
      config: One of them.
      trainer: Who trains them.
    """

    def __init__(self, config: TrainConfig, trainer: Trainer) -> None:
        spec = config.training_spec
        self.config = config
        self.shape = shape_of(config)
        self.on_screen = trainer.on_screen
        self.device = find_device(spec.device)
        self.placement = Placement(find_devices(spec))
        self.metadata = load_metadata(
            resolve_path(config.project_root, config.metadata_config_path, or_here=True)
        )
        self.schema = resolve_schema(config, self.metadata)
        self.graphdef, self.shapes = abstract(self.schema, config.model_spec)
        self.labels = _labels(config, self.metadata)
        self.memory = partial(memory_in_use, self.device.platform)
        self._trainer = trainer
        self._known = [one for one in trainer.known if shape_of(one) == self.shape]
        self._baselines: dict[Hashable, Baselines] = {}
        self._prepared: Run | None = None
        self._population: Population | None = None
        self._names = ""
        self._tasks = 0
        self._bar: Hook = lambda event: None

    def train(self, tasks: Sequence[Task], ended: Ended) -> None:
        """Trains some of the runs, as many at a time as there is room for."""
        values = self._values([task.config for task in tasks])
        self._resize(len(tasks), values[0])
        runs: dict[Member, TrainingRun] = {}
        under_way: set[TrainingRun] = set()

        def end(run: TrainingRun, step: Callable[[], Member | End]) -> Member | None:
            """Makes a step of a run, with which it may end: by itself, or with an error of its own."""
            try:
                found = step()
            except FAILURES as error:
                found = run.failed(error)
            if isinstance(found, Member):
                return found
            under_way.remove(run)
            run.close()
            ended(run.task, found, run.seconds)
            return None

        def members() -> Iterator[Member]:
            for task, own in zip(tasks, values, strict=True):
                run = TrainingRun(task, self)
                under_way.add(run)
                member = end(run, partial(run.begin, own))
                if member is not None:
                    runs[member] = run
                    yield member

        def leave(member: Member) -> None:
            run = runs.pop(member)
            end(run, partial(run.end, member))

        try:
            waiting = members()
            for first in waiting:
                assert self._population is not None
                with self._progress(tasks, first), noted() as note:
                    self._population.train(itertools.chain([first], waiting), leave, note)
        finally:  # Whatever happens.
            for run in under_way:
                run.close()

    @cached_property
    def data(self) -> Data:
        """The windows that all are trained on."""
        statistics = self.metadata.selected_columns_statistics
        training, validation = self._trainer.windows(self)
        return Data(training, validation, {name: row.std for name, row in statistics.items()})

    def prepare(self, config: TrainConfig) -> Run:
        """A run on the data that all share."""
        with _explaining_short_memory():
            run = prepare(
                config,
                self.schema,
                self.graphdef,
                self.data,
                self.device,
                like=self._prepared,
                placement=self.placement,
            )
        self._prepared = self._prepared or run
        logger.info("[INFO] Number formats: %s", run.precision.describe())
        return run

    def baselines(self, run: Run) -> Baselines:
        """Those of a run, which depend on how its targets are weighed."""
        key = weighing(run.evaluator.targets)
        if key not in self._baselines:
            with _explaining_short_memory():
                self._baselines[key] = evaluate_baselines(run, self.schema, self.data)
        return self._baselines[key]

    def compile(self, run: Run, values: Values, micro_batches: int) -> None:
        """Begins to compile what the runs need, unless that is done.

        Args:
          run: One of them; its numbers that do not differ are compiled in.
          values: Those that do.
          micro_batches: Into how many parts it cuts each batch.
        """
        if self._population is not None:
            return
        is_resident, runner = isinstance(run.training, ResidentFeed), self._trainer.runner
        kind = suited(self.device, is_resident=is_resident, runs=self._tasks) if runner == "auto" else runner
        most = fitting(self.config, bytes_of(self.shapes), self.device)
        slots = max(1, min(self._tasks, most, self._trainer.size or self._tasks))
        if not self.on_screen:
            logger.info("[INFO] %d runs at a time are trained together (%s).", slots, kind)
        self._population = Population(run, kind=kind, slots=slots, micro_batches=micro_batches)
        if jax.process_count() == 1:
            nothing = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), self.shapes)
            self._population.compile(Member(run, run.begin(nothing), epochs=1, values=values))

    @property
    def micro_batches(self) -> int:
        """Into how many parts each batch is cut."""
        return 1 if self._population is None else self._population.micro_batches

    def watch(self, event: Event) -> None:
        """A hook that shows how far the runs are."""
        self._bar(event)

    def _values(self, configs: Sequence[TrainConfig]) -> list[Values]:
        """The numbers that programs take in; what has differed once is taken in from then on."""
        before = [self.config, *self._known]
        self._known = [*self._known, *configs]
        return values_of([*before, *configs], self.schema)[len(before) :]

    def _resize(self, tasks: int, values: Values) -> None:
        """Drops the population if so many runs, with numbers of these names, need another one."""
        names, population = json.dumps(jax.tree.map(lambda _: 0, values)), self._population
        wide = population and is_too_wide(population.kind, self.device, slots=population.size, runs=tasks)
        if names != self._names or wide:
            self._population = None
        self._names, self._tasks = names, tasks

    @contextmanager
    def _progress(self, tasks: Sequence[Task], first: Member) -> Iterator[None]:
        """Shows a bar while the block runs; what the first run has done before is not of it."""
        name = tasks[0].config.model_name if len(tasks) == 1 else f"{len(tasks)} runs"
        epochs = sum(task.until or task.config.training_spec.epochs for task in tasks)
        left = epochs * len(first.run.order(1)) - first.batches_done
        with progress(name, left, "batches") if is_first() else nullcontext(Advance()) as bar:
            self._bar = live_view(bar, self.memory, alone=len(tasks) == 1)
            yield


def load_splits(config: TrainConfig, metadata: Metadata, schema: Schema) -> tuple[Windows, Windows]:
    """Reads the training and the validation windows, into memory or mapped.

    Raises:
      ConfigError: Nothing says where they are.
      DataError: They cannot be used.
    """
    paths = [str(resolve_split(config.project_root, path)) for path in metadata.split_paths]
    if not paths and not (config.training_data_path and config.validation_data_path):
        raise ConfigError(
            f"The training configuration of {config.model_name!r}",
            [Problem("training_data_path", "is required, since the metadata names no splits.")],
        )

    def load(name: str) -> Windows:
        path = resolve_path(config.project_root, name, or_here=True)
        windows = load_windows(
            path,
            config.read_format or metadata.write_format or "parquet",
            column_kinds=schema.columns,
            padding=metadata.padding,
            n_classes=schema.n_classes,
        ).crop(config.seq_length)
        windows = replace(windows, min_history=config.min_history)
        if not config.training_spec.load_full_data_to_ram:
            logger.info("%s stays on disk, and is read from there as it is needed.", path)
        logger.info("[INFO] Loaded %s: %d windows of %d items.", path, len(windows), config.seq_length + 1)
        return windows

    training = load(config.training_data_path or paths[0])
    return training, load(config.validation_data_path or paths[min(1, len(paths) - 1)])


@contextmanager
def _explaining_short_memory() -> Iterator[None]:
    """Says in words that what all runs share does not fit into memory."""
    try:
        yield
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            "The device has too little memory for the data and one batch of it. Set load_full_data_to_ram: "
            f"false and a smaller max_ram_gb, or a smaller batch_size. ({str(error)[:200]})"
        ) from error


def _labels(config: TrainConfig, metadata: Metadata) -> dict[str, dict[int, str]]:
    """Values of ids, by column."""
    id_maps = config.id_maps or metadata.id_maps
    return {
        column: dict(enumerate(class_labels(ids, max(ids.values(), default=OTHER) + 1)))
        for column, ids in id_maps.items()
    }
