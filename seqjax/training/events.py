"""Events of a run, which its hooks are called with: logs, checkpoints, progress bars."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

from seqjax.training.evaluate import Evaluation
from seqjax.training.objective import Losses
from seqjax.training.step import Params, TrainState


@dataclass(frozen=True)
class BatchEvent:
    """Some batches were trained on."""

    epoch: int
    batch: int
    """The last of them, counted from 1."""
    batches: int
    """Batches of an epoch."""
    count: int
    losses: Losses
    """Mean over them."""
    learning_rate: float
    seconds: float
    """Time that they took in all."""
    samples: int
    """Windows in them."""
    skipped: int = 0
    """Updates that were left out because a float16 gradient overflowed; the loss scale was halved at each."""

    @property
    def samples_per_second(self) -> float:
        """Windows a second."""
        return self.samples / max(self.seconds, 1e-9)


@dataclass(frozen=True)
class EpochEvent:
    """An epoch ended; epoch 0 is the evaluation before training."""

    epoch: int
    evaluation: Evaluation
    learning_rate: float
    seconds: float
    training: Losses | None = None
    """Mean over the epoch's batches, each with the parameters of its time."""


@dataclass(frozen=True)
class Progress:
    """The progress of an epoch that is under way, with the sums so far.

    Rows of the loss table are added in float64 and in their order, so that sums are the same to the bit
    wherever the work was cut.
    """

    updates: int
    seconds: float
    """Time that they took."""
    interval: tuple[float, ...]
    """Sum of the table's rows since the last batch event: skipped updates in the last place."""
    epoch: tuple[float, ...]
    """Sum of all rows of the epoch."""


@dataclass(frozen=True)
class RunState:
    """A run between two dispatches: all that is needed to go on, or to end. Its arrays are in host memory."""

    epoch: int
    """Whole epochs that are done."""
    state: TrainState
    best: Params
    best_epoch: int = 0
    best_loss: float = float("inf")
    best_score: float | None = None
    """By what a search compares the best parameters, where losses cannot be compared."""
    stale: int = 0
    """Epochs since the best."""
    losses: tuple[float, ...] = ()
    """Validation loss of each epoch, which a schedule may go by."""
    progress: Progress | None = None
    """The part of the next epoch that is done, if `state` is in the middle of it."""

    def is_finished(self, *, epochs: int, patience: int | None) -> bool:
        """True if no epoch follows."""
        return self.epoch >= epochs or (patience is not None and self.stale >= patience)

    def after_epoch(self, evaluation: Evaluation, state: TrainState) -> "RunState":
        """The run after one more epoch, with its score."""
        loss = evaluation.losses.total
        epoch, losses = self.epoch + 1, (*self.losses, loss)
        if loss < self.best_loss:
            return RunState(epoch, state, state.params, epoch, loss, evaluation.score, losses=losses)
        return replace(self, epoch=epoch, state=state, stale=self.stale + 1, losses=losses, progress=None)


@dataclass(frozen=True)
class StateEvent:
    """The score after an epoch."""

    state: RunState
    finished: bool


@dataclass(frozen=True)
class PauseEvent:
    """A moment at which the run may be saved in the middle of an epoch, or as it was before that epoch."""

    state: RunState
    signal: int
    """The number of the signal that ends the run here; 0 if it goes on."""


@dataclass(frozen=True)
class ResumeEvent:
    """The run goes on from a place; what was told of later ones will be told again."""

    epoch: int
    batch: int
    """Batches of that epoch that are done."""
    batches: int
    """Batches of an epoch."""


Event: TypeAlias = BatchEvent | EpochEvent | StateEvent | PauseEvent | ResumeEvent
Hook: TypeAlias = Callable[[Event], None]
