"""How the runs of a search are trained, and the record of what came of them.

An engine takes tasks, and tells the record of each as soon as it is known, so that a search that is killed
goes on from there. A run that fails by its own settings is recorded with the reason, and does not end the
search; what is wrong with data, files or devices does, and nothing is recorded of it.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from seqjax.artifacts.atomic import write_text
from seqjax.artifacts.search_files import Outcome, SearchFiles, SearchState, save_state
from seqjax.commands.train import FAILURES, Trainer, train_until
from seqjax.commands.train_run import End, Paused, Task, TrainResult
from seqjax.config.base import validate
from seqjax.config.hyperparameter_search import HyperparameterSearchConfig
from seqjax.config.train import TrainConfig
from seqjax.config.yaml_text import to_yaml
from seqjax.errors import SeqjaxError
from seqjax.sweep.space import Candidate

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """A run that is to be trained, to its end or until an epoch."""

    candidate: Candidate
    until: int | None = None
    """The epoch after which it waits; null goes on to its end."""
    has_paused: bool = False
    """Whether it has waited before."""

    @property
    def task(self) -> Task:
        """What is to be trained."""
        return Task(self.candidate.run, self.candidate.config, self.until, self.has_paused)


Engine: TypeAlias = Callable[[Sequence[Part]], None]


class Record:
    """What came of the runs of a search; on disk as soon as it is known.

    Args:
      files: Of the search.
      state: What is known so far.
      settings_text: Says what distinguishes a run.
    """

    def __init__(
        self, files: SearchFiles, state: SearchState, settings_text: Callable[[Candidate], str]
    ) -> None:
        self._files = files
        self._settings_text = settings_text
        self.state = state

    def save(self) -> None:
        """Writes the state."""
        save_state(self._files.state, self.state)

    def is_known(self, part: Part) -> bool:
        """Whether nothing is left to do."""
        run = part.candidate.run
        return run in self.state.outcomes or (
            part.until is not None and part.until in self.state.paused.get(run, {})
        )

    def loss(self, run: int, epoch: int) -> float | None:
        """The lowest validation loss of a run, until an epoch where it waited there; null where it failed."""
        outcome = self.state.outcomes.get(run)
        return self.state.paused[run][epoch].loss if outcome is None else outcome.best_validation_loss

    def begin(self, part: Part) -> None:
        """Writes the configuration of a run, and logs what distinguishes it."""
        config = part.candidate.config
        write_text(self._files.config(config.model_name), to_yaml(config.model_dump(mode="json")))
        logger.info("[INFO] %s: %s", config.model_name, self._settings_text(part.candidate))

    def add(self, part: Part, end: End, seconds: float, *, left: int) -> None:
        """Notes and logs how a run ended, or that it waits.

        Args:
          part: What was trained of it.
          end: What came of it.
          seconds: How long it took.
          left: How many others are trained now, or wait for that.
        """
        candidate = part.candidate
        _log_end(candidate.config.model_name, end, left)
        if isinstance(end, Paused):
            waits = {"loss": end.best_validation_loss, "best_epoch": end.best_epoch, "seconds": seconds}
            paused = {**self.state.paused.get(candidate.run, {}), end.epoch: waits}
            self._update("paused", {**self._plain("paused"), candidate.run: paused})
            return
        before = sum(one.seconds for one in self.state.paused.get(candidate.run, {}).values())
        self._finish(candidate, _came(end), before + seconds)

    def stop(self, candidate: Candidate) -> None:
        """Notes that a run that waits is not trained on."""
        waits = self.state.paused[candidate.run]
        epoch = max(waits)
        known = {
            "status": "stopped",
            "best_validation_loss": waits[epoch].loss,
            "best_epoch": waits[epoch].best_epoch,
            "last_epoch": epoch,
        }
        self._finish(candidate, known, sum(one.seconds for one in waits.values()))

    def _finish(self, candidate: Candidate, came: Mapping[str, Any], seconds: float) -> None:
        values = {
            "run": candidate.run,
            "combination": candidate.combination,
            "seconds": round(seconds, 3),
            **came,
        }
        outcome = validate(Outcome, values, "outcome")
        self._update("outcomes", {**self._plain("outcomes"), candidate.run: outcome.model_dump(mode="json")})

    def _plain(self, key: str) -> dict[int, Any]:
        return self.state.model_dump(mode="json")[key]

    def _update(self, key: str, value: Mapping[int, Any]) -> None:
        values = {**self.state.model_dump(mode="json"), key: value}
        self.state = validate(SearchState, values, "the state of the search")
        self.save()


def sequential(record: Record) -> Engine:
    """Trains one run after the other, each by itself."""

    def train_all(parts: Sequence[Part]) -> None:
        for place, part in enumerate(parts, start=1):
            record.begin(part)
            begin = time.perf_counter()
            try:
                end: End = train_until(part.task)
            except FAILURES as error:
                end = error
            record.add(part, end, time.perf_counter() - begin, left=len(parts) - place)

    return train_all


def together(config: HyperparameterSearchConfig, record: Record, known: Sequence[TrainConfig]) -> Engine:
    """Trains runs of one shape together.

    Args:
      config: The search.
      record: Is told of each run.
      known: Runs that tell in which numbers those to come will differ.
    """
    trainer = Trainer(known, runner=config.population_runner, size=config.population_size)

    def train_all(parts: Sequence[Part]) -> None:
        waiting = {part.candidate.run: part for part in parts}
        for part in parts:
            record.begin(part)

        def ended(task: Task, end: End, seconds: float) -> None:
            record.add(waiting.pop(task.number), end, seconds, left=len(waiting))

        trainer.train([part.task for part in parts], ended)

    return train_all


def _log_end(name: str, end: End, left: int) -> None:
    if isinstance(end, SeqjaxError):
        logger.warning("[WARNING] %s failed: %s In training or waiting: %d.", name, end, left)
        return
    epoch = end.epoch if isinstance(end, Paused) else end.last_epoch
    logger.info(
        "[INFO] %s: best validation loss %.6g (epoch %d of %d); in training or waiting: %d.",
        *(name, end.best_validation_loss, end.best_epoch, epoch, left),
    )


def _came(end: TrainResult | SeqjaxError) -> dict[str, Any]:
    if isinstance(end, SeqjaxError):
        return {"status": "failed", "reason": str(end)}
    return {
        "status": "complete",
        "best_validation_loss": end.best_validation_loss,
        "best_epoch": end.best_epoch,
        "last_epoch": end.last_epoch,
        "models": [str(path) for path in end.best],
    }
