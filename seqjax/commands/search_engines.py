"""How the runs of a search are trained, and the record of what came of them.

An engine takes tasks, and tells the record of each as soon as it is known, so that a search that is killed
goes on from there. A run that fails is recorded with the reason, and does not end the search.
"""

import gc
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import jax

from seqjax.artifacts.atomic import write_text
from seqjax.artifacts.checkpoints import remove_checkpoints
from seqjax.artifacts.layout import Layout
from seqjax.artifacts.search_files import Outcome, SearchFiles, SearchState, save_state
from seqjax.commands.train import TrainResult, train
from seqjax.commands.train_together import End, Paused, Task, Workshop
from seqjax.config.base import validate
from seqjax.config.hyperparameter_search import HyperparameterSearchConfig
from seqjax.config.train import TrainConfig
from seqjax.config.yaml_text import to_yaml
from seqjax.errors import SeqjaxError
from seqjax.sweep.population import is_out_of_memory
from seqjax.sweep.space import Candidate

logger = logging.getLogger(__name__)

MAX_HALVINGS = 3


@dataclass(frozen=True)
class Part:
    """A run that is to be trained, to its end or until an epoch."""

    candidate: Candidate
    until: int | None = None
    """The epoch after which it waits; null goes on to its end."""


Engine: TypeAlias = Callable[[Sequence[Part]], None]


class Record:
    """What came of the runs of a search; on disk as soon as it is known."""

    def __init__(self, files: SearchFiles, state: SearchState) -> None:
        self._files = files
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

    def write_config(self, config: TrainConfig) -> None:
        """Writes the configuration of a run."""
        write_text(self._files.config(config.model_name), to_yaml(config.model_dump(mode="json")))

    def add(self, candidate: Candidate, end: End, seconds: float) -> None:
        """Notes how a run ended, or that it waits."""
        if isinstance(end, Paused):
            waits = {"loss": end.best_validation_loss, "best_epoch": end.best_epoch, "seconds": seconds}
            paused = {**self.state.paused.get(candidate.run, {}), end.epoch: waits}
            self._update("paused", {**self._plain("paused"), candidate.run: paused})
            return
        before = sum(one.seconds for one in self.state.paused.get(candidate.run, {}).values())
        self._finish(candidate, _came(end), before + seconds)
        if isinstance(end, SeqjaxError):
            logger.warning("[WARNING] %s failed: %s", candidate.config.model_name, end)

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

    def halved(self, run: int, times: int) -> None:
        """Notes that a run was begun anew with smaller batches."""
        self._update("halvings", {**self.state.halvings, run: times})

    def _finish(self, candidate: Candidate, came: Mapping[str, Any], seconds: float) -> None:
        values = {
            "run": candidate.run,
            "combination": candidate.combination,
            "seconds": round(seconds, 3),
            "batch_halvings": self.state.halvings.get(candidate.run, 0),
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


def sequential(record: Record, settings_text: Callable[[Candidate], str]) -> Engine:
    """Trains one run after the other, each by itself."""

    def train_all(parts: Sequence[Part]) -> None:
        for part in parts:
            record.write_config(part.candidate.config)
            logger.info("[INFO] %s: %s", part.candidate.config.model_name, settings_text(part.candidate))
            _train_alone(record, part.candidate)

    return train_all


def together(
    config: HyperparameterSearchConfig,
    record: Record,
    settings_text: Callable[[Candidate], str],
    known: Sequence[TrainConfig],
) -> Engine:
    """Trains runs of one shape together.

    Args:
      config: The search.
      record: Is told of each run.
      settings_text: What distinguishes a run.
      known: Runs that tell in which numbers those to come will differ.
    """
    alone = config.engine == "sequential"
    workshop = Workshop(
        known,
        runner="loop" if alone else config.population_runner,
        size=1 if alone else config.population_size,
    )

    def train_all(parts: Sequence[Part]) -> None:
        by_run = {part.candidate.run: part.candidate for part in parts}
        for part in parts:
            record.write_config(part.candidate.config)
            logger.info("[INFO] %s: %s", part.candidate.config.model_name, settings_text(part.candidate))
        left = len(parts)

        def ended(task: Task, end: End, seconds: float) -> None:
            nonlocal left
            left -= 1
            record.add(by_run[task.number], end, seconds)
            if not isinstance(end, SeqjaxError):
                epoch = end.epoch if isinstance(end, Paused) else end.last_epoch
                logger.info(
                    "[INFO] %s: best validation loss %.6g (epoch %d of %d); %d runs left.",
                    *(task.config.model_name, end.best_validation_loss, end.best_epoch, epoch, left),
                )

        workshop.train([Task(part.candidate.run, part.candidate.config, part.until) for part in parts], ended)

    return train_all


def halved(config: TrainConfig, times: int) -> TrainConfig:
    """The configuration with micro-batches of 1 / 2**times the size, and as many more to an update."""
    if times == 0:
        return config
    values = config.model_dump(mode="json")
    spec = values["training_spec"]
    spec["batch_size"] //= 2**times
    spec["accumulation_steps"] = (spec["accumulation_steps"] or 1) * 2**times
    return validate(TrainConfig, values, config.model_name)


def can_be_halved(candidate: Candidate, halvings: int) -> bool:
    """Whether half the micro-batch is possible once more without changing the training."""
    spec = candidate.config.training_spec
    return (
        halvings < MAX_HALVINGS
        and spec.batch_size % 2 ** (halvings + 1) == 0
        # A schedule that steps with batches would run twice as fast.
        and spec.scheduler_step_on == "epoch"
    )


class _OutOfMemoryError(SeqjaxError):
    """A run that needs more memory than there is."""


def _train_alone(record: Record, candidate: Candidate) -> None:
    """Trains a candidate, with smaller batches where memory is missing."""
    halvings = record.state.halvings.get(candidate.run, 0)
    begin = time.perf_counter()
    while True:
        config = halved(candidate.config, halvings)
        record.write_config(config)
        end = _attempt(config)
        if not isinstance(end, _OutOfMemoryError) or not can_be_halved(candidate, halvings):
            break
        halvings += 1
        logger.warning(
            "[WARNING] %s ran out of memory. It is trained again with half the batch_size and twice the "
            "accumulation_steps, which leaves the training as it is.",
            config.model_name,
        )
        gc.collect()
        jax.clear_caches()
        # They were made with the larger batches, so that the run could not go on from them.
        remove_checkpoints(Layout(Path(config.project_root), config.model_name), keep=None)
        record.halved(candidate.run, halvings)
    record.add(candidate, end, time.perf_counter() - begin)


def _attempt(config: TrainConfig) -> TrainResult | SeqjaxError:
    try:
        return train(config)
    except SeqjaxError as error:
        return error
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return _OutOfMemoryError(f"out of memory with batch_size {config.training_spec.batch_size}.")


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
