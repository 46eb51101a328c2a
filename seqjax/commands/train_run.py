"""One run of a training: its logs, its checkpoints, its models."""

import logging
import shutil
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import jax
import numpy as np

from seqjax.artifacts.atomic import replacing
from seqjax.artifacts.card import describe_run
from seqjax.artifacts.layout import Layout, Which
from seqjax.artifacts.model_files import export_models, exported_files, resolve_model_path
from seqjax.artifacts.warm_start import warm_start
from seqjax.commands.train_resume import Checkpoint, Saver, find_checkpoint, restore, run_info
from seqjax.config.load import resolve_path
from seqjax.config.train import TrainConfig
from seqjax.errors import ConfigError, TrainingError
from seqjax.model.functional import init
from seqjax.training.evaluate import Evaluation
from seqjax.training.events import Event, Hook, RunState
from seqjax.training.logs import LogFiles, TextLog, baseline_lines, evaluation_values, json_log, number
from seqjax.training.loop import Member
from seqjax.training.processes import is_first, wait_for_all
from seqjax.training.setup import Run, parameter_count
from seqjax.training.step import Params, Values
from seqjax.training.tensorboard import tensorboard_log

if TYPE_CHECKING:
    from seqjax.commands.train import Group

logger = logging.getLogger(__name__)

Baselines: TypeAlias = Mapping[str, Evaluation]


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


@dataclass(frozen=True)
class Paused:
    """A run that waits, with a checkpoint, after an epoch that is not its last."""

    epoch: int
    best_epoch: int
    best_validation_loss: float


Failure: TypeAlias = TrainingError | ConfigError
"""Why a run fails by itself."""
End: TypeAlias = TrainResult | Paused | Failure


class TrainingRun:
    """A run from its first line in the log to its exported models.

    Args:
      task: The run.
      group: What it has in common with others.
    """

    def __init__(self, task: Task, group: "Group") -> None:
        self.task = task
        self._group = group
        self._config = task.config
        self._layout = Layout(Path(task.config.project_root), task.config.model_name)
        self._started = time.perf_counter()
        alone = not group.on_screen
        self._files = LogFiles(self._layout.debug_log(), self._layout.info_log()) if alone else None
        self._open = ExitStack()
        self._saver: Saver | None = None
        self._hooks: list[Hook] = []

    @property
    def seconds(self) -> float:
        """Time since it was begun."""
        return time.perf_counter() - self._started

    def begin(self, values: Values) -> Member | End:
        """Puts the run together, and has the baselines judged.

        Args:
          values: Its numbers in which the group's runs differ.

        Returns:
          The run as a member of a population; or its end, if there is nothing left to train.
        """
        config, group, until = self._config, self._group, self.task.until
        checkpoint = find_checkpoint(
            config, group.schema, self._layout, own=self.task.has_paused, until=until
        )
        finished = checkpoint.is_finished(config.training_spec)
        if not finished and until is not None and checkpoint.info.get("epoch", 0) >= until:
            return _paused(checkpoint.info)
        with self._logging():
            self._announce(checkpoint)
            run = group.prepare(config)
            if not finished:
                group.compile(run, values, checkpoint.info.get("micro_batches", 1))
            self._baselines = group.baselines(run)
            for line in baseline_lines(self._baselines):
                logger.info(line)
            values_of = {name: evaluation_values(found) for name, found in self._baselines.items()}
            self._log.write("baselines", values_of)
            start = self._start(run, checkpoint)
            return self._finish(start, finished=True) if finished else self._member(run, start, values)

    def end(self, member: Member) -> End:
        """Saves the run that has left the population, and exports its models if it is finished.

        Raises:
          TrainingError: It cannot go on.
        """
        if member.error is not None:
            raise member.error
        with self._logging():
            if self._saver is not None:
                self._saver.pause(member.state)
                self._saver.finish()
            if member.is_finished:
                return self._finish(member.state, finished=False)
        return _paused(vars(member.state))

    def failed(self, error: Failure) -> Failure:
        """Says in the run's own log why it cannot go on."""
        with self._logging():
            if not self._group.on_screen:
                logger.warning("[WARNING] %s", error)
        return error

    def close(self) -> None:
        """Waits for what is being written, and closes the files."""
        with self._logging():
            self._open.close()
        if self._files is not None:
            self._files.close()

    def _announce(self, checkpoint: Checkpoint) -> None:
        config, group = self._config, self._group
        path = self._layout.json_log(jax.process_index())
        self._log = self._open.enter_context(json_log(path, group.memory))
        logger.info("--- Starting Training for model: %s ---", config.model_name)
        logger.info("categorical_columns = %s", list(group.schema.categorical_inputs))
        logger.info("real_columns = %s", list(group.schema.real_inputs))
        for damage in checkpoint.damaged:
            logger.warning("[WARNING] %s It is passed over.", damage)
        columns = config.training_spec.class_share_log_columns
        labels = {name: list(group.labels[name].values()) for name in columns}
        settings = config.model_dump(mode="json")
        self._log.write("start", {"model": config.model_name, "config": settings, "labels": labels})

    def _start(self, run: Run, checkpoint: Checkpoint) -> RunState:
        """A new model, or the run as its checkpoint has it."""
        config, spec = self._config, self._config.training_spec
        if checkpoint.path is None:
            return run.begin(self._first_parameters())
        start = restore(checkpoint, run, self._group.shapes)
        if checkpoint.is_finished(spec):
            patience = "" if spec.early_stopping_epochs is None else " or early_stopping_epochs"
            done = f"{start.epoch} epochs, best epoch {start.best_epoch}"
            advice = f"raise epochs ({spec.epochs}){patience}; to start anew, set continue_training: false"
            logger.info("[INFO] %s is trained already: %s. To go on, %s.", config.model_name, done, advice)
        else:
            goes_on = "[INFO] Resuming training from checkpoint '%s'. Total params: %s"
            logger.info(goes_on, checkpoint.path, number(parameter_count(start.state.params)))
        return start

    def _first_parameters(self) -> Params:
        """New parameters, or those that `warm_start` names."""
        config, spec, schema = self._config, self._config.training_spec, self._group.schema
        params = init(schema, config.model_spec, seed=config.seed % 2**32)[1]
        logger.info("[INFO] Initializing new model with %s parameters.", number(parameter_count(params)))
        if spec.warm_start is None:
            return params
        path = resolve_path(config.project_root, spec.warm_start, or_here=True)
        if not path.exists():
            path = resolve_model_path(config.project_root, spec.warm_start, key="training_spec.warm_start")
        found = warm_start(params, path, schema, strict=spec.warm_start_strict)
        for line in found.report():
            logger.info("[INFO] Warm start from %s: %s", path, line)
        return found.params

    def _member(self, run: Run, start: RunState, values: Values) -> Member:
        spec, group, until = self._config.training_spec, self._group, self.task.until
        patience = spec.early_stopping_epochs
        member = Member(run, start, spec.epochs, patience=patience, until=until, values=values)
        if not is_first():
            return member
        self._hooks = [TextLog(self._baselines["last value"].losses.total, group.labels), self._log]
        if "tensorboard" in spec.log_to:
            log = tensorboard_log(self._layout.tensorboard, len(run.order(1)), group.memory)
            self._hooks.append(self._open.enter_context(log))
        about = run_info(self._config, group.schema)
        self._saver = saver = Saver(
            self._layout, lambda: {**about, "micro_batches": group.micro_batches}, spec, run, start
        )
        self._open.callback(saver.close)
        self._hooks += [group.watch, saver]
        member.hooks, member.is_due = [self._tell], lambda: saver.is_due
        return member

    def _tell(self, event: Event) -> None:
        """Calls the hooks; what they log goes to this run's files."""
        with self._logging():
            for hook in self._hooks:
                hook(event)

    def _logging(self) -> AbstractContextManager[None]:
        """Sends what is logged to this run's files, unless those of a run by itself are open all the time."""
        return nullcontext() if self._files is None else self._files.attached(alone=True)

    def _finish(self, state: RunState, *, finished: bool) -> TrainResult:
        """Exports the best and the last parameters.

        Args:
          state: The run after its last epoch.
          finished: Whether that was so before; files that are there stay as they are.
        """
        best = self._export("best", state, missing_only=finished)
        if state.stale == 0 and not finished:
            last = self._copy_as_last(best, state.epoch)
        else:
            last = self._export("last", state, missing_only=finished)
        totals = {name: found.losses.total for name, found in self._baselines.items()}
        result = TrainResult(best, last, state.best_epoch, state.best_loss, state.epoch, totals)
        wait_for_all("exported")
        logger.info("--- Training Complete ---")
        ends = {name: value for name, value in asdict(result).items() if name.endswith(("epoch", "loss"))}
        self._log.write("end", ends)
        return result

    def _export(self, which: Which, state: RunState, *, missing_only: bool) -> tuple[Path, ...]:
        config, group = self._config, self._group
        there, best = self._model_files(which, state.epoch), which == "best"
        if not is_first() or (missing_only and all(path.exists() for path in there)):
            return there
        card = describe_run(
            config,
            group.schema,
            group.metadata,
            best_epoch=state.best_epoch,
            last_epoch=state.epoch,
            validation_loss=state.best_loss if best or state.stale == 0 else None,
        )
        windows = group.data.validation
        paths = export_models(
            self._layout,
            params=state.best if best else state.state.params,
            graphdef=group.graphdef,
            card=card,
            config=config,
            which=which,
            epoch=state.epoch,
            sample=windows.gather(np.arange(min(config.inference_batch_size, len(windows)))),
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
        return tuple(path for _, path in exported_files(self._layout, self._config, which, epoch))


def _paused(state: Mapping[str, Any]) -> Paused:
    return Paused(state["epoch"], state["best_epoch"], state["best_loss"])
