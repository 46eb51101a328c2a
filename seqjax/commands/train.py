"""`seqjax train`: preprocessed windows become a trained, exported model.

Read the metadata and the windows; put the run together; judge the baselines; train, or go on from the newest
checkpoint; export the best and the last parameters. Everything that computes is in `seqjax.training`.
"""

import gc
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from seqjax.artifacts.atomic import replacing
from seqjax.artifacts.card import describe_run
from seqjax.artifacts.layout import Layout, Which
from seqjax.artifacts.model_files import export_models, exported_files, resolve_model_path
from seqjax.artifacts.warm_start import warm_start
from seqjax.commands.train_checkpoints import (
    Checkpoint,
    Saver,
    check_until,
    cut_logs,
    find_checkpoint,
    log_lengths,
    restore,
    run_info,
)
from seqjax.commands.train_data import TrainingData
from seqjax.config.load import resolve_path
from seqjax.config.metadata import Metadata
from seqjax.config.resolve import load_metadata, resolve_schema
from seqjax.config.schema import Schema
from seqjax.config.train import TrainConfig
from seqjax.console import Advance, configure_logging, progress
from seqjax.data.columns import OTHER, class_labels
from seqjax.errors import TrainingError
from seqjax.model.functional import GraphDef, abstract, init
from seqjax.stopping import noted
from seqjax.training.agreement import Wishes
from seqjax.training.devices import find_device
from seqjax.training.distributed import (
    connect,
    explaining_lost_processes,
    find_devices,
    is_first,
    wait_for_all,
)
from seqjax.training.evaluate import Evaluation
from seqjax.training.events import Hook, Standing
from seqjax.training.live import live_view
from seqjax.training.logs import (
    JsonLog,
    TextLog,
    baseline_lines,
    evaluation_values,
    json_log,
    log_files,
    number,
)
from seqjax.training.loop import batches_left, evaluate_start, fit, is_finished
from seqjax.training.memory import is_out_of_memory, memory_in_use
from seqjax.training.placement import Placement
from seqjax.training.setup import Data, Run, evaluate_baselines, parameter_count, prepare
from seqjax.training.state import Params, TrainState
from seqjax.training.tensorboard import require_tensorboard, tensorboard_log

logger = logging.getLogger(__name__)

Baselines: TypeAlias = Mapping[str, Evaluation]

_MOST_PARTS = 8
"""Into how many micro-batches a batch is cut at most where memory is short."""


@dataclass(frozen=True)
class TrainResult:
    """What a run left behind."""

    best: tuple[Path, ...]
    """Model files of the best parameters."""
    last: tuple[Path, ...]
    """Model files of the last parameters."""
    best_epoch: int
    """The epoch of the lowest validation loss."""
    best_validation_loss: float
    """The lowest validation loss."""
    last_epoch: int
    """The last completed epoch."""
    baselines: Mapping[str, float]
    """Validation loss of simple predictors, by name."""


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
    result = train_until(config, None)
    assert isinstance(result, TrainResult)
    return result


def train_until(
    config: TrainConfig, until: int | None, *, has_paused: bool = False
) -> TrainResult | Standing:
    """As `train`, which see.

    Args:
      config: What to train on, what, and how.
      until: An epoch after which to pause, with a checkpoint; null goes on to the end.
      has_paused: Whether the run goes on from such a pause, whatever `continue_training` says.

    Returns:
      As `train`; or how the run stands where it pauses.
    """
    spec = config.training_spec
    if spec.distributed:
        connect()
    if "tensorboard" in spec.log_to:
        require_tensorboard()
    job = load_job(config, Placement(find_devices(spec)), until=until)
    layout, rank = job.layout, jax.process_index()
    if not is_first():
        configure_logging(logging.WARNING)  # The first process tells for all.
    checkpoint = find_checkpoint(config, job.schema, layout, own=has_paused)
    check_until(checkpoint, until)
    if checkpoint.path is not None and is_first() and not checkpoint.is_finished(spec):
        cut_logs(layout, checkpoint.info)
    with (
        log_files(layout.debug_log(rank), layout.info_log(rank)),
        json_log(layout.json_log(rank), job.memory) as log,
        jax.default_device(job.device),
        explaining_lost_processes(),
    ):
        job.announce(checkpoint, log)
        result = job.run(checkpoint, log)
        if isinstance(result, TrainResult):
            wait_for_all("exported")
            job.conclude(result, log)
    return result


def load_job(config: TrainConfig, placement: Placement | None = None, *, until: int | None = None) -> "Job":
    """A run, from what its configuration says and from the metadata of its data.

    Args:
      config: The run's.
      placement: All devices to compute on; null is the first one that the configuration allows.
      until: An epoch after which to pause; null goes on to the end.
    """
    metadata = load_metadata(resolve_path(config.project_root, config.metadata_config_path, or_here=True))
    placement = placement or Placement([find_device(config.training_spec.device)])
    schema = resolve_schema(config, metadata)
    return Job(config, Common(metadata, schema, placement, *abstract(schema, config.model_spec)), until)


class Common(NamedTuple):
    """What runs on the same data, with models of the same shapes, have in common."""

    metadata: Metadata
    schema: Schema
    placement: Placement
    graphdef: GraphDef
    shapes: Params
    """Shapes and types of the model's parameters."""


class Job:
    """One run of the command, with what all of its parts need."""

    def __init__(self, config: TrainConfig, common: Common, until: int | None = None) -> None:
        self.layout = Layout(Path(config.project_root), config.model_name)
        """Where the run's files lie."""
        self.schema = common.schema
        """Its columns."""
        self.shapes = common.shapes
        """Shapes and types of the model's parameters."""
        self.device = find_device(config.training_spec.device)
        """Where it computes."""
        self.config = config
        self._common = common
        self._until = until
        self._has_saved = False
        self.data = TrainingData(config, common.metadata, common.schema)
        """What it trains on."""
        self.labels = _labels(config.id_maps or common.metadata.id_maps)
        self.memory = partial(memory_in_use, self.device.platform)
        """Says how much memory is in use."""

    def beside(self, config: TrainConfig) -> "Job":
        """Another run, on the same data and with a model of the same shapes."""
        return Job(config, self._common)

    def announce(self, checkpoint: Checkpoint, log: JsonLog) -> None:
        """Logs what is about to start."""
        config = self.config
        logger.info("--- Starting Training for model: %s ---", config.model_name)
        logger.info("categorical_columns = %s", list(self.schema.categorical_inputs))
        logger.info("real_columns = %s", list(self.schema.real_inputs))
        for damage in checkpoint.damaged:
            logger.warning("[WARNING] %s It is passed over.", damage)
        columns = config.training_spec.class_share_log_columns
        labels = {name: list(self.labels[name].values()) for name in columns}
        settings = config.model_dump(mode="json")
        log.write("start", {"model": config.model_name, "config": settings, "labels": labels})

    def conclude(self, result: TrainResult, log: JsonLog) -> None:
        """Logs how it ended."""
        logger.info("--- Training Complete ---")
        log.write(
            "end", {name: value for name, value in asdict(result).items() if name.endswith(("epoch", "loss"))}
        )

    def run(self, checkpoint: Checkpoint, log: JsonLog) -> TrainResult | Standing:
        """Trains, or goes on from a checkpoint, and exports; or pauses."""
        spec, data = self.config.training_spec, self.data.batches(*self.data.windows())
        standing, baselines = self._train_within_memory(data, checkpoint, log)
        if not is_finished(standing, epochs=spec.epochs, patience=spec.early_stopping_epochs):
            return standing
        return self.finish(standing, data, baselines, finished=checkpoint.is_finished(spec))

    def finish(self, standing: Standing, data: Data, baselines: Baselines, *, finished: bool) -> TrainResult:
        """Exports the best and the last parameters.

        Args:
          standing: The run after its last epoch.
          data: The windows.
          baselines: What simple predictors reach.
          finished: Whether that was so before; files that are there stay as they are.
        """
        best = self._export("best", standing, data, missing_only=finished)
        if standing.stale == 0 and not finished:
            last = self._copy_as_last(best, standing.epoch)
        else:
            last = self._export("last", standing, data, missing_only=finished)
        totals = {name: found.losses.total for name, found in baselines.items()}
        return TrainResult(best, last, standing.best_epoch, standing.best_loss, standing.epoch, totals)

    def _train_within_memory(
        self, data: Data, checkpoint: Checkpoint, log: JsonLog
    ) -> tuple[Standing, Baselines]:
        """Trains; with smaller micro-batches where the device's memory does not suffice."""
        before = log_lengths(self.layout)
        while True:
            try:
                return self._train(data, checkpoint, log)
            except (MemoryError, jax.errors.JaxRuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                checkpoint = self._with_smaller_parts(checkpoint, str(error))
            # What the failed attempt logged will be logged again, and what it held must be gone by then.
            cut_logs(self.layout, {"logs": before, **checkpoint.info})
            gc.collect()
            logger.warning(
                "[WARNING] The device has too little memory: each batch is computed in %d parts from here "
                "on, which changes nothing but the time it takes.",
                checkpoint.parts,
            )

    def _with_smaller_parts(self, checkpoint: Checkpoint, error: str) -> Checkpoint:
        size, parts = self.config.training_spec.batch_size, 2 * checkpoint.parts
        if parts > min(_MOST_PARTS, size) or jax.process_count() > 1:
            reason = error.partition("\n")[0]
            raise TrainingError(
                f"The device has too little memory for batches of {size} windows in {parts // 2} parts. Set "
                "a smaller batch_size with more accumulation_steps, a shorter seq_length or a smaller "
                f"model_spec. ({reason[:200]})"
            )
        if self._has_saved:
            checkpoint = find_checkpoint(self.config, self.schema, self.layout, own=True)
        return replace(checkpoint, info={**checkpoint.info, "parts": parts})

    def _train(self, data: Data, checkpoint: Checkpoint, log: JsonLog) -> tuple[Standing, Baselines]:
        config, spec = self.config, self.config.training_spec
        run = self.prepare(data, parts=checkpoint.parts)
        baselines = evaluate_baselines(run, self.schema, data)
        self.tell_baselines(baselines, log)
        start = self.start(run, checkpoint)
        if isinstance(start, Standing) and checkpoint.is_finished(spec):
            return start, baselines
        info = {**run_info(config, self.schema), "parts": checkpoint.parts}
        with self.hooks(run, baselines, log) as hooks:
            told = hooks if is_first() else []
            if isinstance(start, TrainState):
                before = evaluate_start(run.setup, start.params)
                for hook in told:
                    hook(before)
            return self._fit(run, start, told, info), baselines

    def prepare(self, data: Data, *, parts: int = 1, beside: Run | None = None) -> Run:
        """Puts the run together; see `seqjax.training.setup.prepare`."""
        run = prepare(
            *(self.config, self.schema, self._common.graphdef, data, self.device),
            placement=self._common.placement,
            parts=parts,
            beside=beside,
        )
        logger.info("[INFO] Number formats: %s", run.precision.describe())
        return run

    def tell_baselines(self, baselines: Baselines, log: JsonLog) -> None:
        """Logs what simple predictors reach."""
        for line in baseline_lines(baselines):
            logger.info(line)
        log.write("baselines", {name: evaluation_values(found) for name, found in baselines.items()})

    def start(self, run: Run, checkpoint: Checkpoint) -> TrainState | Standing:
        """A new model, or the run as its checkpoint has it."""
        config, spec = self.config, self.config.training_spec
        if checkpoint.path is None:
            return run.begin(self._first_parameters())
        start = restore(checkpoint, run, self.shapes)
        if checkpoint.is_finished(spec):
            logger.info(
                "[INFO] %s is trained already: %d epochs, best epoch %d. To go on, raise epochs (%d)%s; to "
                "start anew, set continue_training: false.",
                *(config.model_name, start.epoch, start.best_epoch, spec.epochs),
                "" if spec.early_stopping_epochs is None else " or early_stopping_epochs",
            )
        else:
            count = number(parameter_count(start.state.params))
            logger.info(
                "[INFO] Resuming training from checkpoint '%s'. Total params: %s", checkpoint.path, count
            )
        return start

    def _first_parameters(self) -> Params:
        """New parameters, or those that `warm_start` names."""
        config, spec = self.config, self.config.training_spec
        params = init(self.schema, config.model_spec, seed=config.seed % 2**32)[1]
        logger.info("[INFO] Initializing new model with %s parameters.", number(parameter_count(params)))
        if spec.warm_start is None:
            return params
        path = resolve_path(config.project_root, spec.warm_start, or_here=True)
        if not path.exists():
            path = resolve_model_path(config.project_root, spec.warm_start, key="training_spec.warm_start")
        found = warm_start(params, path, self.schema, config.model_spec, strict=spec.warm_start_strict)
        for line in found.report():
            logger.info("[INFO] Warm start from %s: %s", path, line)
        return found.params

    @contextmanager
    def hooks(self, run: Run, baselines: Baselines, log: JsonLog) -> Iterator[list[Hook]]:
        """What writes the run's logs while the block runs."""
        with self._event_files(run) as sinks:
            yield [TextLog(baselines["last value"].losses.total, self.labels), log, *sinks]

    @contextmanager
    def _event_files(self, run: Run) -> Iterator[list[Hook]]:
        """The hooks of `log_to`."""
        if "tensorboard" not in self.config.training_spec.log_to:
            yield []
            return
        with tensorboard_log(self.layout.tensorboard, len(run.setup.order(1)), self.memory) as hook:
            yield [hook]

    def _fit(
        self, run: Run, begin: TrainState | Standing, hooks: list[Hook], info: dict[str, Any]
    ) -> Standing:
        """Trains until the last epoch, a pause, a signal or an error, and saves."""
        spec, setup = self.config.training_spec, run.setup
        first = is_first()
        saver = Saver(self.layout, info, spec, run, begin) if first else None
        left = batches_left(setup, begin, self._until or spec.epochs)
        shown = progress(self.config.model_name, left, "batches") if first else nullcontext(Advance())
        try:
            with shown as bar, noted() as note:
                # Evaluations can be left at any point, if no other process waits for this one.
                if jax.process_count() == 1:
                    setup = replace(setup, evaluate=note.raising(setup.evaluate))
                standing = fit(
                    setup,
                    begin,
                    epochs=spec.epochs,
                    patience=spec.early_stopping_epochs,
                    until=self._until,
                    hooks=[*hooks, live_view(bar, self.memory), *([saver] if saver else [])],
                    control=lambda: Wishes(note.signal, saver is not None and saver.is_due),
                )
                if saver is not None and standing is not begin:
                    saver.pause(standing)
                    saver.finish()
                return standing
        finally:
            if saver is not None:
                saver.close()
                self._has_saved |= saver.has_saved

    def _export(
        self, which: Which, standing: Standing, data: Data, *, missing_only: bool
    ) -> tuple[Path, ...]:
        config = self.config
        there = self._model_files(which, standing.epoch)
        if not is_first() or (missing_only and all(path.exists() for path in there)):
            return there
        best = which == "best"
        card = describe_run(
            config,
            self.schema,
            self._common.metadata,
            best_epoch=standing.best_epoch,
            last_epoch=standing.epoch,
            validation_loss=standing.best_loss if best or standing.stale == 0 else None,
        )
        count = min(config.inference_batch_size, len(data.validation))
        paths = export_models(
            self.layout,
            params=standing.best if best else standing.state.params,
            graphdef=self._common.graphdef,
            card=card,
            config=config,
            which=which,
            epoch=standing.epoch,
            sample=data.validation.gather(np.arange(count)),
        )
        return tuple(paths)

    def _copy_as_last(self, best: tuple[Path, ...], epoch: int) -> tuple[Path, ...]:
        """The files of the last parameters, where these are the best: exporting is slow."""
        last = self._model_files("last", epoch)
        for source, path in zip(best, last, strict=True) if is_first() else ():
            with replacing(path) as temporary:
                shutil.copyfile(source, temporary)
            logger.info("[INFO] The last parameters are the best: copied %s to %s.", source.name, path)
        return last

    def _model_files(self, which: Which, epoch: int) -> tuple[Path, ...]:
        return tuple(path for _, path in exported_files(self.layout, self.config, which, epoch))


def _labels(id_maps: Mapping[str, Mapping[str, int]]) -> dict[str, dict[int, str]]:
    return {
        column: dict(enumerate(class_labels(ids, max(ids.values(), default=OTHER) + 1)))
        for column, ids in id_maps.items()
    }
