"""Engines that train the runs of a search, and the record of their outcomes.

An engine takes tasks, and adds the end of each to the record as soon as it is known, so that a search that is
killed goes on from there. A run that fails by its own settings is recorded with the reason, and does not end
the search; what is wrong with data, files or devices does, and nothing is recorded of it.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from seqjax.artifacts.atomic import write_text
from seqjax.artifacts.search_files import Outcome, SearchFiles, SearchState, Waiting, save_state
from seqjax.commands.train import FAILURES, Trainer, train_until
from seqjax.commands.train_run import End, Paused, Task, TrainResult
from seqjax.config.base import validate
from seqjax.config.hyperparameter_search import HyperparameterSearchConfig
from seqjax.config.sampling import short_name
from seqjax.config.train import TrainConfig
from seqjax.config.yaml_text import to_yaml
from seqjax.errors import SeqjaxError
from seqjax.sweep.space import Candidate
from seqjax.training.evaluate import Shared

logger = logging.getLogger(__name__)


Engine: TypeAlias = Callable[[Sequence[Task]], None]


class Record:
    """Outcomes of the runs of a search, on disk as soon as they are known.

    Args:
      files: Of the search.
      state: What is known so far.
      shared: By what the runs are compared; None is their loss.
    """

    def __init__(self, files: SearchFiles, state: SearchState, shared: Shared | None = None) -> None:
        self._files = files
        self._shared = shared
        self._candidates: dict[int, Candidate] = {}
        self.state = state

    def save(self) -> None:
        """Writes the state."""
        save_state(self._files.state, self.state)

    def tasks(self, candidates: Sequence[Candidate], until: int | None = None) -> list[Task]:
        """The runs that are still to be trained: to their end, or until an epoch that comes before it."""
        self._candidates |= {candidate.run: candidate for candidate in candidates}
        tasks = []
        for run, config in ((candidate.run, candidate.config) for candidate in candidates):
            paused = self.state.paused.get(run, {})
            stop = until if until is not None and until < config.training_spec.epochs else None
            if run not in self.state.outcomes and stop not in paused:
                has_paused = run in self.state.paused
                tasks.append(Task(run, config, stop, has_paused=has_paused, shared=self._shared))
        return tasks

    def loss(self, run: int, epoch: int) -> float | None:
        """The number by which a run is compared, until an epoch where it waited; None where it failed."""
        outcome = self.state.outcomes.get(run)
        if outcome is not None:
            return outcome.best_validation_loss if self._shared is None else outcome.best_score
        waits = self.state.paused[run][epoch]
        return waits.loss if self._shared is None else waits.score

    def begin(self, task: Task) -> None:
        """Writes the configuration of a run, and logs what distinguishes it."""
        name, settings = task.config.model_name, self._candidates[task.number].settings
        values = (f"{short_name(key)} {_short(value)}" for key, value in settings.items())
        write_text(self._files.config(name), to_yaml(task.config.model_dump(mode="json")))
        logger.info("[INFO] %s: %s", name, ", ".join(values) or "the only combination")

    def add(self, task: Task, end: End, seconds: float, *, left: int) -> None:
        """Notes and logs how a run ended, or that it waits.

        Args:
          task: What was trained of it.
          end: Its end.
          seconds: How long it took.
          left: How many others are trained now, or wait for that.
        """
        _log_end(task.config.model_name, end, left)
        paused = self.state.paused.get(task.number, {})
        if isinstance(end, Paused):
            waits = Waiting(
                loss=end.best_validation_loss,
                score=end.best_score,
                best_epoch=end.best_epoch,
                seconds=seconds,
            )
            self._update("paused", task.number, {**paused, end.epoch: waits})
            return
        result: dict[str, Any] = {"status": "failed", "reason": str(end)}
        if isinstance(end, TrainResult):
            scores = ("best_validation_loss", "best_score", "best_epoch", "last_epoch")
            result = {name: getattr(end, name) for name in scores}
            result |= {"status": "complete", "models": [str(path) for path in end.best]}
        self._finish(task.number, result, seconds)

    def stop(self, run: int) -> None:
        """Notes that a run that waits is not trained on."""
        paused = self.state.paused[run]
        epoch = max(paused)
        last = paused[epoch]
        best = {"best_validation_loss": last.loss, "best_score": last.score, "best_epoch": last.best_epoch}
        self._finish(run, {"status": "stopped", "last_epoch": epoch, **best})

    def _finish(self, run: int, result: Mapping[str, Any], seconds: float = 0.0) -> None:
        """Records the result of a run, which was trained for some seconds after it last waited."""
        seconds += sum(waits.seconds for waits in self.state.paused.get(run, {}).values())
        combination = self._candidates[run].combination
        values = {"run": run, "combination": combination, "seconds": round(seconds, 3), **result}
        self._update("outcomes", run, validate(Outcome, values, "outcome"))

    def _update(self, key: Literal["outcomes", "paused"], run: int, value: object) -> None:
        self.state = self.state.model_copy(update={key: {**getattr(self.state, key), run: value}})
        self.save()


def _short(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else json.dumps(value)


def sequential(record: Record) -> Engine:
    """Trains one run after the other, each by itself."""

    def train_all(tasks: Sequence[Task]) -> None:
        for place, task in enumerate(tasks, start=1):
            record.begin(task)
            begin = time.perf_counter()
            try:
                end: End = train_until(task)
            except FAILURES as error:
                end = error
            record.add(task, end, time.perf_counter() - begin, left=len(tasks) - place)

    return train_all


def together(config: HyperparameterSearchConfig, record: Record, known: Sequence[TrainConfig]) -> Engine:
    """Trains runs of one shape together.

    Args:
      config: The search.
      record: Takes in the end of each run.
      known: Runs from which follows in which numbers those to come will differ.
    """
    trainer = Trainer(known, runner=config.population_runner, size=config.population_size)

    def train_all(tasks: Sequence[Task]) -> None:
        waiting = {task.number for task in tasks}
        for task in tasks:
            record.begin(task)

        def ended(task: Task, end: End, seconds: float) -> None:
            waiting.remove(task.number)
            record.add(task, end, seconds, left=len(waiting))

        trainer.train(tasks, ended)

    return train_all


def _log_end(name: str, end: End, left: int) -> None:
    if isinstance(end, SeqjaxError):
        logger.warning("[WARNING] %s failed: %s In training or waiting: %d.", name, end, left)
        return
    epoch = end.epoch if isinstance(end, Paused) else end.last_epoch
    score = "" if end.best_score is None else f", score {end.best_score:.6g}"
    logger.info(
        "[INFO] %s: best validation loss %.6g%s (epoch %d of %d); in training or waiting: %d.",
        name,
        end.best_validation_loss,
        score,
        end.best_epoch,
        epoch,
        left,
    )
