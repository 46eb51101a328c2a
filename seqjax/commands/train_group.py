"""Groups: runs of one shape, and their common windows, baselines and compiled programs."""

import json
import logging
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import jax
import numpy as np

from seqjax.config.load import resolve_path, resolve_split
from seqjax.config.metadata import Metadata
from seqjax.config.resolve import load_metadata, resolve_schema
from seqjax.config.schema import Schema
from seqjax.config.train import TrainConfig
from seqjax.data.columns import OTHER, TEXT, class_labels
from seqjax.data.formats import load_windows
from seqjax.errors import ConfigError, Problem, TrainingError
from seqjax.model.functional import abstract
from seqjax.training.devices import find_device, is_out_of_memory, memory_in_use
from seqjax.training.evaluate import Evaluation, Shared
from seqjax.training.events import Hook
from seqjax.training.feed import ResidentFeed
from seqjax.training.loop import Member, Population
from seqjax.training.objective import weighing
from seqjax.training.placement import Placement
from seqjax.training.processes import find_devices
from seqjax.training.runners import bytes_of, fitting, is_too_wide, suited
from seqjax.training.setup import Run, Splits, evaluate_baselines, prepare
from seqjax.training.shapes import shape_of, values_of
from seqjax.training.step import Values
from seqjax.windows.windows import Windows

if TYPE_CHECKING:
    from seqjax.commands.train import Trainer

logger = logging.getLogger(__name__)


class Group:
    """Runs of one shape.

    Args:
      config: One of them.
      trainer: Who trains them.
    """

    def __init__(self, config: TrainConfig, trainer: "Trainer") -> None:
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
        """Values of ids, by column."""
        self.memory = partial(memory_in_use, self.device.platform)
        self.bar: Hook = lambda event: None
        """A hook that shows how far the runs are."""
        self._trainer = trainer
        self._known = [one for one in trainer.known if shape_of(one) == self.shape]
        self._baselines: dict[Hashable, Mapping[str, Evaluation]] = {}
        self._prepared: Run | None = None
        self._population: Population | None = None
        self._names = jax.tree.structure(None)
        self._runs = 0

    @property
    def population(self) -> Population:
        """The slots in which the runs are trained; there are some once a run is compiled."""
        assert self._population is not None
        return self._population

    @property
    def splits(self) -> Splits:
        """The windows of all runs."""
        paths = [self.config.training_data_path, self.config.validation_data_path]
        key = json.dumps([*paths, self.config.seq_length, self.config.min_history, self.schema.columns])
        if key not in self._trainer.splits:
            self._trainer.splits = {key: load_splits(self.config, self.metadata, self.schema)}
        return self._trainer.splits[key]

    def expect(self, configs: Sequence[TrainConfig]) -> list[Values]:
        """Makes room for runs.

        A population is dropped if so many runs, or numbers of these names, need another one.

        Returns:
          The numbers of each that programs take in; what has differed once is taken in from then on.
        """
        before = [self.config, *self._known]
        self._known = [*self._known, *configs]
        values = values_of([*before, *configs], self.schema)[len(before) :]
        names, population = jax.tree.structure(values[0]), self._population
        wide = population and is_too_wide(
            population.kind, self.device, slots=population.size, runs=len(configs)
        )
        if names != self._names or wide:
            self._population = None
        self._names, self._runs = names, len(configs)
        return values

    def prepare(self, config: TrainConfig, shared: Shared | None = None) -> Run:
        """Puts a run together, on the data that all share."""
        units = {name: row.unit for name, row in self.metadata.selected_columns_statistics.items()}
        with _explaining_short_memory():
            run = prepare(
                config,
                self.schema,
                self.graphdef,
                self.splits,
                self.device,
                units=units,
                like=self._prepared,
                placement=self.placement,
                shared=shared,
            )
        self._prepared = self._prepared or run
        logger.info("[INFO] Number formats: %s", run.precision.describe())
        return run

    def baselines(self, run: Run) -> Mapping[str, Evaluation]:
        """The baselines of a run, which depend on how its targets are weighed."""
        key = weighing(run.evaluator.targets)
        if key not in self._baselines:
            with _explaining_short_memory():
                self._baselines[key] = evaluate_baselines(
                    run, self.schema, self.splits[0], self.config.baseline_period
                )
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
        is_resident, kind = isinstance(run.training, ResidentFeed), self._trainer.runner
        if kind == "auto":
            kind = suited(self.device, is_resident=is_resident, runs=self._runs)
        most = fitting(self.config, bytes_of(self.shapes), self.device)
        slots = max(1, min(self._runs, most, self._trainer.size or self._runs))
        if not self.on_screen:
            logger.info("[INFO] %d runs at a time are trained together (%s).", slots, kind)
        self._population = Population(run, kind=kind, slots=slots, micro_batches=micro_batches)
        if jax.process_count() == 1:
            nothing = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), self.shapes)
            self._population.compile(Member(run, run.begin(nothing), epochs=1, values=values))


def load_splits(config: TrainConfig, metadata: Metadata, schema: Schema) -> Splits:
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


def _labels(config: TrainConfig, metadata: Metadata) -> dict[str, dict[int, str]]:
    labels = {}
    for column, ids in (config.id_maps or metadata.id_maps).items():
        count, type_ = max(ids.values(), default=OTHER) + 1, metadata.value_types.get(column, TEXT)
        labels[column] = dict(enumerate(class_labels(ids, count, type_)))
    return labels


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
