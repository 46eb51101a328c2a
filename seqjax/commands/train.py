"""`seqjax train`: preprocessed windows become a trained, exported model.

Read the metadata and the windows; put the run together; judge the baselines; train, or go on from the newest
checkpoint; export the best and the last parameters. Everything that computes is in `seqjax.training`.
"""

import logging
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from seqjax.artifacts.atomic import replacing
from seqjax.artifacts.card import describe_run
from seqjax.artifacts.checkpoints import (
    load_info,
    load_tree,
    newest_intact,
    remove_checkpoints,
    save_checkpoint,
    trim_checkpoints,
)
from seqjax.artifacts.layout import Layout, Which
from seqjax.artifacts.model_files import export_models, exported_files
from seqjax.config.changes import changed_keys
from seqjax.config.load import resolve_path
from seqjax.config.metadata import Metadata
from seqjax.config.resolve import load_metadata, resolve_schema
from seqjax.config.schema import Schema
from seqjax.config.train import TrainConfig
from seqjax.data.columns import OTHER, class_labels
from seqjax.data.dataset import Windows
from seqjax.data.formats import load_windows
from seqjax.data.loader import epoch_order
from seqjax.errors import ConfigError, Problem
from seqjax.model.functional import GraphDef, abstract, init
from seqjax.progress import Advance, progress
from seqjax.training.devices import Device, find_device
from seqjax.training.evaluate import Evaluation
from seqjax.training.events import BatchEvent, Event, Hook, Standing, StandingEvent
from seqjax.training.logs import (
    JsonLog,
    TextLog,
    baseline_lines,
    evaluation_values,
    json_log,
    log_files,
    number,
)
from seqjax.training.loop import evaluate_start, fit, is_finished
from seqjax.training.setup import Data, Run, evaluate_baselines, parameter_count, prepare

logger = logging.getLogger(__name__)

# Keys that may change between a checkpoint and the run that goes on from it. `epochs` is looked at by itself.
_MAY_CHANGE = (
    "project_root",
    "export_generative_model",
    "export_embedding_model",
    "export_onnx",
    "export_pt",
    "export_with_dropout",
    "inference_batch_size",
    *(
        f"training_spec.{key}"
        for key in (
            "backend",
            "class_share_log_columns",
            "continue_training",
            "device",
            "device_max_concat_length",
            "early_stopping_epochs",
            "enforce_determinism",
            "epochs",
            "keep_checkpoints",
            "load_full_data_to_ram",
            "log_interval",
            "max_ram_gb",
            "num_workers",
            "save_interval_epochs",
            "world_size",
        )
    ),
)


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
    layout = Layout(Path(config.project_root), config.model_name)
    metadata = load_metadata(resolve_path(config.project_root, config.metadata_config_path, or_here=True))
    schema = resolve_schema(config, metadata)
    device = find_device(config.training_spec.device)
    with (
        log_files(layout.debug_log(), layout.info_log()),
        json_log(layout.json_log()) as log,
        jax.default_device(device),
    ):
        logger.info("--- Starting Training for model: %s ---", config.model_name)
        logger.info("categorical_columns = %s", list(schema.categorical_inputs))
        logger.info("real_columns = %s", list(schema.real_inputs))
        log.write("start", {"model": config.model_name, "config": config.model_dump(mode="json")})
        result = _Job(config, metadata, schema, layout, device).run(log)
        logger.info("--- Training Complete ---")
        log.write(
            "end", {name: value for name, value in asdict(result).items() if name.endswith(("epoch", "loss"))}
        )
    return result


class _Job:
    """One run of the command, with what all of its parts need."""

    def __init__(
        self, config: TrainConfig, metadata: Metadata, schema: Schema, layout: Layout, device: Device
    ) -> None:
        self._config = config
        self._metadata = metadata
        self._schema = schema
        self._layout = layout
        self._device = device

    def run(self, log: JsonLog) -> TrainResult:
        """Trains and exports."""
        config, spec = self._config, self._config.training_spec
        epoch = self._newest_checkpoint()
        data = self._load_data()
        graphdef, shapes = abstract(self._schema, config.model_spec)
        prepared = prepare(config, self._schema, graphdef, data, self._device)
        logger.info("[INFO] Number formats: %s", prepared.precision.describe())
        start = None if epoch is None else self._restore(epoch, prepared, shapes)
        finished = start is not None and is_finished(
            start, epochs=spec.epochs, patience=spec.early_stopping_epochs
        )
        if start is not None and finished:
            logger.info(
                "[INFO] %s is trained already: %d epochs, best epoch %d. To go on, raise epochs (%d)%s; to "
                "start anew, set continue_training: false.",
                *(config.model_name, start.epoch, start.best_epoch, spec.epochs),
                "" if spec.early_stopping_epochs is None else " or early_stopping_epochs",
            )
        baselines = evaluate_baselines(prepared, self._schema, data)
        for line in baseline_lines(baselines):
            logger.info(line)
        log.write("baselines", {name: evaluation_values(found) for name, found in baselines.items()})
        standing = start if start is not None and finished else self._train(prepared, start, baselines, log)
        # A finished run whose files are there writes none: what was exported stays as it is.
        best = self._export("best", standing, graphdef, data, missing_only=finished)
        if standing.stale == 0 and not finished:
            last = self._copy_as_last(best, standing.epoch)
        else:
            last = self._export("last", standing, graphdef, data, missing_only=finished)
        totals = {name: found.losses.total for name, found in baselines.items()}
        return TrainResult(best, last, standing.best_epoch, standing.best_loss, standing.epoch, totals)

    def _train(
        self, prepared: Run, start: Standing | None, baselines: Mapping[str, Evaluation], log: JsonLog
    ) -> Standing:
        config, spec, setup = self._config, self._config.training_spec, prepared.setup
        text = TextLog(
            baselines["last value"].losses.total, _labels(config.id_maps or self._metadata.id_maps)
        )
        saver = _Saver(
            self._layout,
            self._info(),
            spec.save_interval_epochs,
            keep=spec.keep_checkpoints,
            fresh=start is None,
        )
        n_batches = len(setup.order(1))
        done = start.epoch if start else 0
        with progress(config.model_name, (spec.epochs - done) * n_batches, "batches") as bar:
            if start is None:
                params = init(self._schema, config.model_spec, seed=config.seed % 2**32)[1]
                logger.info(
                    "[INFO] Initializing new model with %s parameters.", number(parameter_count(params))
                )
                begin = prepared.begin(params)
                before = evaluate_start(setup, begin.params)
                text(before)
                log(before)
            else:
                path, count = self._layout.checkpoint(start.epoch), parameter_count(start.state.params)
                logger.info(
                    "[INFO] Resuming training from checkpoint '%s'. Total params: %s", path, number(count)
                )
                begin = start
            hooks: list[Hook] = [text, log, _bar_hook(bar), saver]
            try:
                return fit(setup, begin, epochs=spec.epochs, patience=spec.early_stopping_epochs, hooks=hooks)
            except KeyboardInterrupt:
                saver.save_newest()
                raise

    def _load_data(self) -> Data:
        config, paths = self._config, self._metadata.split_paths
        if not paths and not (config.training_data_path and config.validation_data_path):
            raise ConfigError(
                f"The training configuration of {config.model_name!r}",
                [Problem("training_data_path", "is required, since the metadata names no splits.")],
            )
        training = self._load(config.training_data_path or paths[0])
        validation = self._load(config.validation_data_path or paths[min(1, len(paths) - 1)])
        size = config.training_spec.batch_size
        count = len(training)

        def order(epoch: int) -> np.ndarray:
            return epoch_order(count, min(size, max(count, 1)), seed=config.seed, epoch=epoch, shuffle=True)

        known = epoch_order(
            len(validation), min(size, max(len(validation), 1)), seed=config.seed, epoch=0, shuffle=False
        )
        statistics = self._metadata.selected_columns_statistics
        return Data(training, validation, order, known, {name: row.std for name, row in statistics.items()})

    def _load(self, name: str) -> Windows:
        config, metadata = self._config, self._metadata
        path = resolve_path(config.project_root, name, or_here=True)
        windows = load_windows(
            path,
            config.read_format or metadata.write_format or "parquet",
            column_kinds=self._schema.columns,
            padding=metadata.padding,
            n_classes=self._schema.n_classes,
        ).crop(config.seq_length)
        logger.info("[INFO] Loaded %s: %d windows of %d items.", path, len(windows), config.seq_length + 1)
        return windows

    def _info(self) -> dict[str, Any]:
        return {
            "config": self._config.model_dump(mode="json"),
            "schema": self._schema.model_dump(mode="json"),
        }

    def _newest_checkpoint(self) -> int | None:
        """The epoch of the checkpoint to go on from, if there is one; it must be of this configuration."""
        if not self._config.training_spec.continue_training:
            return None
        epoch = newest_intact(self._layout)
        if epoch is None:
            return None
        path = self._layout.checkpoint(epoch)
        info = load_info(path)
        before = {**info["config"], "schema": info["schema"]}
        now = self._info()
        changed = changed_keys(before, {**now["config"], "schema": now["schema"]}, ignored=_MAY_CHANGE)
        if self._config.training_spec.epochs < epoch:
            changed["training_spec.epochs"] = (f"{epoch} done", self._config.training_spec.epochs)
        if changed:
            raise ConfigError(
                f"{path} was made with another configuration, so it cannot be continued. Undo the changes, "
                "choose another model_name, or set continue_training: false to start anew; the configuration",
                [Problem(key, f"was {old!r}, is {new!r}.") for key, (old, new) in changed.items()],
            )
        return epoch

    def _restore(self, epoch: int, prepared: Run, shapes: dict[str, Any]) -> Standing:
        path = self._layout.checkpoint(epoch)
        like = jax.eval_shape(
            lambda params: (prepared.begin(params), prepared.precision.keep(params)), shapes
        )
        info, (state, best) = load_info(path), load_tree(path, like)
        return Standing(epoch, state, best, info["best_epoch"], info["best_loss"], info["stale"])

    def _export(
        self, which: Which, standing: Standing, graphdef: GraphDef, data: Data, *, missing_only: bool
    ) -> tuple[Path, ...]:
        config = self._config
        there = self._model_files(which, standing.epoch)
        if missing_only and all(path.exists() for path in there):
            return there
        best = which == "best"
        card = describe_run(
            config,
            self._schema,
            self._metadata,
            best_epoch=standing.best_epoch,
            last_epoch=standing.epoch,
            validation_loss=standing.best_loss if best or standing.stale == 0 else None,
        )
        count = min(config.inference_batch_size, len(data.validation))
        paths = export_models(
            self._layout,
            params=standing.best if best else standing.state.params,
            graphdef=graphdef,
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
        for source, path in zip(best, last, strict=True):
            with replacing(path) as temporary:
                shutil.copyfile(source, temporary)
            logger.info("[INFO] The last parameters are the best: copied %s to %s.", source.name, path)
        return last

    def _model_files(self, which: Which, epoch: int) -> tuple[Path, ...]:
        return tuple(path for _, path in exported_files(self._layout, self._config, which, epoch))


class _Saver:
    """A hook that writes checkpoints: every so many epochs, and at the end."""

    def __init__(
        self, layout: Layout, info: dict[str, Any], every: int, *, keep: int | None, fresh: bool
    ) -> None:
        self._layout = layout
        self._info = info
        self._every = every
        self._keep = keep
        self._old_ones_remain = fresh
        self._newest: Standing | None = None
        self._saved = 0

    def __call__(self, event: Event) -> None:
        """Saves, if it is time."""
        if isinstance(event, StandingEvent):
            self._newest = event.standing
            if event.finished or event.standing.epoch % self._every == 0:
                self.save_newest()

    def save_newest(self) -> None:
        """Saves the last completed epoch, if there is one that is not saved yet."""
        standing = self._newest
        if standing is None or standing.epoch == self._saved:
            return
        names = ("epoch", "best_epoch", "best_loss", "stale")
        info = self._info | {name: getattr(standing, name) for name in names}
        path = save_checkpoint(self._layout, standing.epoch, (standing.state, standing.best), info)
        self._saved = standing.epoch
        logger.info("[INFO] Saved model to %s", path)
        if self._old_ones_remain:
            # They belong to an earlier run of this name, which a later run must not take for this one.
            remove_checkpoints(self._layout, keep=standing.epoch)
            self._old_ones_remain = False
        trim_checkpoints(self._layout, newest=standing.epoch, count=self._keep)


def _bar_hook(bar: Advance) -> Hook:
    def hook(event: Event) -> None:
        if isinstance(event, BatchEvent):
            speed = event.samples / max(event.seconds, 1e-9)
            shown = {"epoch": event.epoch, "loss": number(event.losses.total).strip()}
            bar.advance(event.count, **shown, **{"windows/s": f"{speed:.0f}"})

    return hook


def _labels(id_maps: Mapping[str, Mapping[str, int]]) -> dict[str, dict[int, str]]:
    return {
        column: dict(enumerate(class_labels(ids, max(ids.values(), default=OTHER) + 1)))
        for column, ids in id_maps.items()
    }
