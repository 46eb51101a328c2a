"""The request, the start, the checkpoints, the model files and the result of a run.

A checkpoint holds the arrays of a run, and as JSON all that is counted: epochs, the score, and what the epoch
that is under way has found so far.
"""

import logging
import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import jax
import numpy as np

from seqjax.artifacts.atomic import replacing
from seqjax.artifacts.card import describe_run
from seqjax.artifacts.checkpoints import CheckpointWriter, load_info, load_tree, newest_intact
from seqjax.artifacts.layout import Layout, Place, Which
from seqjax.artifacts.model_files import export_models, exported_files, resolve_model_path
from seqjax.artifacts.warm_start import warm_start
from seqjax.commands.train_group import Group
from seqjax.config.changes import changed_keys, marked_keys
from seqjax.config.load import resolve_path
from seqjax.config.schema import Schema
from seqjax.config.train import TrainConfig, TrainingSpec
from seqjax.errors import ArtifactError, ConfigError, TrainingError
from seqjax.model.functional import init
from seqjax.training.evaluate import Shared
from seqjax.training.events import Event, PauseEvent, Progress, RunState, StateEvent
from seqjax.training.logs import JsonLog, number
from seqjax.training.loop import Member
from seqjax.training.processes import agree, is_first
from seqjax.training.setup import Run, parameter_count
from seqjax.training.step import Params

logger = logging.getLogger(__name__)

_COUNTED = ("epoch", "best_epoch", "best_loss", "best_score", "stale", "losses")
# Keys that may change between a checkpoint and the run that goes on from it; `epochs` is looked at by itself.
_MAY_CHANGE = marked_keys(TrainConfig, lambda mark: mark.may_change or not mark.has_influence)


@dataclass(frozen=True)
class Task:
    """A run, or the next part of one."""

    number: int
    """By which the caller knows it."""
    config: TrainConfig
    until: int | None = None
    """The epoch after which it pauses; None goes on to its end."""
    has_paused: bool = False
    """True for the next part of a run, which goes on whatever `continue_training` says."""
    shared: Shared | None = None
    """The items and metrics by which it is compared with others."""


@dataclass(frozen=True)
class TrainResult:
    """The outcome of a run that was trained to its end."""

    best: tuple[Path, ...]
    """Model files of the best parameters, and likewise of the last."""
    last: tuple[Path, ...]
    best_epoch: int
    best_validation_loss: float
    last_epoch: int
    baselines: Mapping[str, float]
    """Validation loss of simple predictors, by name."""
    best_score: float | None = None
    """By what a search compares the best parameters, where losses cannot be compared."""

    def next_steps(self) -> Iterator[str]:
        """Lines about the model files of a run, how good they are, and which commands use them."""
        files = (*self.best, *self.last)
        if not files:
            yield "No model file was written: export_generative_model and export_embedding_model are false."
            return
        loss = f"{self.best_validation_loss:.4g}"
        yield f"The best epoch was {self.best_epoch} of {self.last_epoch}, with a validation loss of {loss}."
        if self.baselines:
            rival = min(self.baselines, key=lambda name: self.baselines[name])
            yield f"The best of the simple baselines, {rival}, has {self.baselines[rival]:.4g}."
        yield "Model files:"
        yield from (f"  {path}" for path in files)
        generative = [path for path in self.best if "-embedding-" not in path.name]
        if generative:
            yield "Next, how good it is on held-out data, and what it predicts:"
            yield f"  seqjax evaluate {_options(generative[0])}"
            yield f"  seqjax infer {_options(generative[0])}"
        else:
            yield "Next, the hidden states of data:"
            yield f"  seqjax infer --model-type embedding {_options(files[0])}"


def _options(model: Path) -> str:
    """The options that name a model in the folder models of its project, for a shell."""
    root = model.parent.parent
    project = "" if root == Path() else f"--project-root {shlex.quote(str(root))} "
    return f"{project}--model-path {shlex.quote(str(model))}"


@dataclass(frozen=True)
class Paused:
    """A run that waits, with a checkpoint, after an epoch that is not its last."""

    epoch: int
    best_epoch: int
    best_validation_loss: float
    best_score: float | None = None


End: TypeAlias = TrainResult | Paused | TrainingError | ConfigError
"""The end of a run, or of a part of it; an error if it fails by itself."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint to go on from."""

    path: Path | None = None
    """The newest intact one; None if there is none."""
    info: dict[str, Any] = field(default_factory=dict)
    damaged: tuple[str, ...] = ()
    """Faults of those that were passed over."""

    def is_finished(self, spec: TrainingSpec) -> bool:
        """True if nothing is left to train."""
        return self.path is not None and (
            self.info["epoch"] >= spec.epochs
            or (spec.early_stopping_epochs is not None and self.info["stale"] >= spec.early_stopping_epochs)
        )


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
        return Checkpoint()
    place, damaged = newest_intact(layout)
    agree(place or Place(-1), "The newest checkpoint (epoch, batch)")
    if place is None:
        return Checkpoint()
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


def announce(config: TrainConfig, group: Group, checkpoint: Checkpoint, log: JsonLog) -> None:
    """Logs what a run begins with."""
    logger.info("--- Starting Training for model: %s ---", config.model_name)
    logger.info("categorical_columns = %s", list(group.schema.categorical_inputs))
    logger.info("real_columns = %s", list(group.schema.real_inputs))
    for damage in checkpoint.damaged:
        logger.warning("[WARNING] %s It is passed over.", damage)
    columns = config.training_spec.class_share_log_columns
    labels = {name: list(group.labels[name].values()) for name in columns}
    settings = config.model_dump(mode="json")
    log.write("start", {"model": config.model_name, "config": settings, "labels": labels})


def start(checkpoint: Checkpoint, config: TrainConfig, group: Group, run: Run) -> RunState:
    """The run as its checkpoint has it, or with a new model."""
    if checkpoint.path is None:
        return run.begin(_first_parameters(config, group.schema))
    like = jax.eval_shape(lambda params: (run.new_state(params), run.precision.keep(params)), group.shapes)
    state, best = load_tree(checkpoint.path, like)
    counted = {name: checkpoint.info[name] for name in _COUNTED}
    counted["losses"] = tuple(counted["losses"])
    if counted["best_loss"] is None:
        counted["best_loss"] = float("inf")
    progress = checkpoint.info["progress"]
    if progress is not None:
        sums = {name: tuple(progress[name]) for name in ("interval", "epoch")}
        progress = Progress(**{**progress, **sums})
    found, spec = RunState(state=state, best=best, progress=progress, **counted), config.training_spec
    if checkpoint.is_finished(spec):
        patience = "" if spec.early_stopping_epochs is None else " or early_stopping_epochs"
        done = f"{found.epoch} epochs, best epoch {found.best_epoch}"
        advice = f"raise epochs ({spec.epochs}){patience}; to start anew, set continue_training: false"
        logger.info("[INFO] %s is trained already: %s. To go on, %s.", config.model_name, done, advice)
    else:
        goes_on = "[INFO] Resuming training from checkpoint '%s'. Total params: %s"
        logger.info(goes_on, checkpoint.path, number(parameter_count(state.params)))
    return found


def _first_parameters(config: TrainConfig, schema: Schema) -> Params:
    """New parameters, or those that `warm_start` names."""
    spec = config.training_spec
    params = init(schema, config.model_spec, seed=config.seed % 2**32)[1]
    logger.info("[INFO] Initializing new model with %s parameters.", number(parameter_count(params)))
    if spec.warm_start is None:
        return params
    path = resolve_path(config.project_root, spec.warm_start, or_here=True)
    if not path.exists():
        path = resolve_model_path(config.project_root, spec.warm_start, key="training_spec.warm_start")
    params, lines = warm_start(params, path, schema, strict=spec.warm_start_strict)
    for line in lines:
        logger.info("[INFO] Warm start from %s: %s", path, line)
    return params


class Saver(CheckpointWriter):
    """A hook that writes checkpoints: after so many epochs, at pauses, and at the end.

    Args:
      layout: Where the run's files lie.
      info: Says what each checkpoint tells about the run.
      spec: When to save, and how many checkpoints to keep.
      member: The run, before it is trained.
    """

    def __init__(
        self, layout: Layout, info: Callable[[], dict[str, Any]], spec: TrainingSpec, member: Member
    ) -> None:
        start = member.state
        is_new = start.epoch == 0 and start.progress is None
        super().__init__(layout, keep=spec.keep_checkpoints, fresh=is_new)
        self._info = info
        self._spec = spec
        self._run = member.run
        self._saved_at = time.monotonic()
        self._saved_epoch = None if is_new or start.progress is not None else start.epoch

    @property
    def is_due(self) -> bool:
        """True if the minutes are over after which to save, whatever the epoch."""
        minutes = self._spec.save_interval_minutes
        late = minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes
        return late and not self.busy

    def __call__(self, event: Event) -> None:
        """Begins to save, if it is time. Waits for that only where a signal ends the run."""
        self.tell()
        match event:
            case StateEvent(state=state):
                if event.finished or state.epoch % self._spec.save_interval_epochs == 0 or self.is_due:
                    self._save(state)
            case PauseEvent():
                self.pause(event.state)
                if event.signal:
                    self.finish()
            case _:
                pass

    def pause(self, state: RunState) -> None:
        """Saves a run in the middle of an epoch; or as it was after one, unless that is saved already."""
        if state.progress is not None or state.epoch != self._saved_epoch:
            self._save(state)

    def _save(self, state: RunState) -> None:
        progress = state.progress
        counted = {name: getattr(state, name) for name in _COUNTED} | {
            "best_loss": state.best_loss if np.isfinite(state.best_loss) else None,
            "progress": None if progress is None else asdict(progress),
        }
        place = Place(state.epoch, self._run.batches_done(state))
        self.start(place, (state.state, state.best), self._info() | counted)
        self._saved_at = time.monotonic()
        self._saved_epoch = state.epoch if progress is None else None


def export(
    config: TrainConfig, layout: Layout, group: Group, state: RunState, *, missing_only: bool
) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Writes the model files of the best and of the last parameters, and returns them.

    Args:
      config: The run.
      layout: Where its files lie.
      group: What it has in common with others.
      state: The run after its last epoch.
      missing_only: Whether files that are there stay as they are.
    """
    windows, paths = group.splits[1], dict[Which, tuple[Path, ...]]()
    parameters: dict[Which, Params] = {"best": state.best, "last": state.state.params}
    for which, params in parameters.items():
        files = [path for _, path in exported_files(layout, config, which, state.epoch)]
        paths[which] = tuple(files)
        if not is_first() or (missing_only and all(path.exists() for path in files)):
            continue
        if which == "last" and state.stale == 0 and not missing_only:
            _copy(paths["best"], files)
            continue
        card = describe_run(
            config,
            group.schema,
            group.metadata,
            best_epoch=state.best_epoch,
            last_epoch=state.epoch,
            validation_loss=state.best_loss if which == "best" or state.stale == 0 else None,
        )
        export_models(
            layout,
            params=params,
            graphdef=group.graphdef,
            card=card,
            config=config,
            which=which,
            epoch=state.epoch,
            sample=windows.gather(np.arange(min(config.inference_batch_size, len(windows)))),
        )
    return paths["best"], paths["last"]


def _copy(best: Sequence[Path], last: Sequence[Path]) -> None:
    """Copies the files of the last parameters, where these are the best: exporting is slow."""
    for source, path in zip(best, last, strict=True):
        with replacing(path) as temporary:
            shutil.copyfile(source, temporary)
        logger.info("[INFO] The last parameters are the best: copied %s to %s.", source.name, path)
