"""Remarks at the end of a run: whether its loss still falls, and whether it beats the baselines."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from seqjax.config.train import TrainingSpec
from seqjax.training.evaluate import BEST_OF_EACH, Evaluation
from seqjax.training.events import EpochEvent, Event, RunState
from seqjax.training.objective import Losses
from seqjax.training.processes import is_first

logger = logging.getLogger(__name__)

_FEWEST_EPOCHS = 3
_MOST_EPOCHS = 10
"""Of the end of a run that are looked at, a quarter of all otherwise."""
_WORTH = 0.01
"""The fall in those epochs, as a share of all that the loss has fallen, that is worth telling."""
_TRIFLE = 0.01
"""The share of a baseline's loss by which a model is worse and yet about as good."""


class Rival(NamedTuple):
    """The best baseline, or the best ones of each target."""

    name: str
    """Its name, or the name for each target."""
    loss: float
    """Total validation loss."""


def totals(baselines: Mapping[str, Evaluation]) -> dict[str, float]:
    """The total losses of the baselines that predict all targets."""
    most = max(len(found.losses.by_target) for found in baselines.values())
    return {
        name: found.losses.total for name, found in baselines.items() if len(found.losses.by_target) == most
    }


def best_baseline(baselines: Mapping[str, Evaluation]) -> Rival:
    """The baseline of the lowest total loss among those of all targets."""
    losses = totals(baselines)
    best = min(losses, key=lambda name: losses[name])
    names: dict[str, list[str]] = {}
    for target, rival in best_by_target(baselines).items():
        names.setdefault(rival.name, []).append(target)
    each = ", ".join(f"{name} ({', '.join(targets)})" for name, targets in names.items())
    return Rival(each if best == BEST_OF_EACH else best, losses[best])


def best_by_target(baselines: Mapping[str, Evaluation]) -> dict[str, Rival]:
    """The baseline of the lowest loss of each target, before its loss weight."""
    own = {name: found.losses.by_target for name, found in baselines.items() if name != BEST_OF_EACH}
    targets = dict.fromkeys(target for losses in own.values() for target in losses)
    return {
        target: min((Rival(name, row[target]) for name, row in own.items() if target in row), key=_loss)
        for target in targets
    }


def _loss(rival: Rival) -> float:
    return rival.loss


class Fall(NamedTuple):
    """A fall of the loss in the last epochs of a run that is more than its noise."""

    epochs: int
    before: float
    after: float


def still_falling(losses: Sequence[float]) -> Fall | None:
    """The fall at the end of a run, if it goes on.

    A straight line is laid through a quarter of the epochs, three at least. Its fall must be twice the noise,
    which second differences tell (their variance is six times that of independent noise), and a hundredth of
    the fall since the first epoch.

    Args:
      losses: The validation loss of each epoch.
    """
    count = min(max(len(losses) // 4, _FEWEST_EPOCHS), _MOST_EPOCHS)
    if len(losses) < _FEWEST_EPOCHS or not np.isfinite(losses).all():
        return None
    values = np.asarray(losses, np.float64)
    slope, level = np.polyfit(np.arange(count) - (count - 1) / 2, values[-count:], 1)
    later = values[-max(count, len(values) // 2) :]
    noise = np.sqrt(np.square(np.diff(later, 2)).mean() / 6)
    half = -slope * (count - 1) / 2
    if 2 * half <= max(2 * noise, _WORTH * (values[0] - values.min())):
        return None
    return Fall(count, float(level + half), float(level - half))


class Ending:
    """A hook that keeps the best evaluation, and remarks on the end of the run.

    Args:
      baselines: Evaluations of the baselines, by name.
    """

    def __init__(self, baselines: Mapping[str, Evaluation]) -> None:
        self._rival, self._rivals = best_baseline(baselines), best_by_target(baselines)
        self._best: Losses | None = None

    def __call__(self, event: Event) -> None:
        """Keeps the losses of an evaluation if they are the lowest."""
        if isinstance(event, EpochEvent) and event.epoch:
            losses = event.evaluation.losses
            if self._best is None or losses.total < self._best.total:
                self._best = losses

    def warnings(self, state: RunState) -> Iterator[str]:
        """The targets, or the total, of which the best parameters are worse than the best baseline."""
        worse = [f"validation loss {state.best_loss:.4g} ({self._rival.name}: {self._rival.loss:.4g})"]
        if self._best is not None and self._best.total == state.best_loss and len(self._rivals) > 1:
            worse = [
                f"{target} {loss:.4g} ({self._rivals[target].name}: {self._rivals[target].loss:.4g})"
                for target, loss in self._best.by_target.items()
                if _is_worse(loss, self._rivals[target])
            ]
        elif not _is_worse(state.best_loss, self._rival):
            return
        if worse:
            yield (
                f"Worse than the best baseline after epoch {state.best_epoch}, the best: {'; '.join(worse)}. "
                "Train for more epochs or with another learning_rate, or give such targets larger "
                "loss_weights; if nothing helps, the baseline is the better model."
            )

    def tell(self, state: RunState, spec: TrainingSpec) -> None:
        """Logs what there is to say, in the first process."""
        if is_first():
            for line in self.remarks(state, spec):
                logger.info("[INFO] %s", line)
            for line in self.warnings(state):
                logger.warning("[WARNING] %s", line)

    def remarks(self, state: RunState, spec: TrainingSpec) -> Iterator[str]:
        """Advice to train for longer, where the loss still falls."""
        fall = still_falling(state.losses)
        if fall is None or state.epoch < spec.epochs:
            return
        longer, schedule = 2 * spec.epochs, _end_of_schedule(spec)
        anew = f", {schedule} as much longer, and continue_training: false" if schedule else ""
        goes_on = "" if schedule else ", which goes on from here"
        yield (
            f"The validation loss still falls, by more than its noise: from {fall.before:.4g} to "
            f"{fall.after:.4g} in the last {fall.epochs} of {state.epoch} epochs. More epochs would lower it "
            f"further: set training_spec.epochs: {longer}{anew}, and run seqjax train again{goes_on}."
        )


def _is_worse(loss: float, rival: Rival) -> bool:
    """Tells whether a loss is higher than a baseline's by more than a trifle."""
    return loss > rival.loss + _TRIFLE * abs(rival.loss)


def _end_of_schedule(spec: TrainingSpec) -> str | None:
    """The key that says how long the schedule is, if it has an end."""
    ends = ("T_max", "total_steps", "epochs")
    arguments = spec.scheduler.arguments
    return next((f"scheduler.{key}" for key in ends if arguments.get(key) is not None), None)
