"""What happens in a run, as it is told to the hooks: logs, checkpoints, progress bars."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from seqjax.training.evaluate import Evaluation
from seqjax.training.metrics import Losses
from seqjax.training.state import Params, TrainState
from seqjax.training.step import Report

Totals: TypeAlias = Mapping[str, tuple[float, float]]
"""Sum of weight * loss and sum of weights, of each target."""


@dataclass(frozen=True)
class BatchEvent:
    """Some batches were trained on."""

    epoch: int
    batch: int
    """The last of them, counted from 1."""
    batches: int
    """Batches of an epoch."""
    count: int
    """How many they are."""
    losses: Losses
    """Mean over them."""
    learning_rate: float
    seconds: float
    """How long they took in all."""
    samples: int
    """Windows in them."""
    skipped: int = 0
    """Updates that were left out because a float16 gradient overflowed; the loss scale was halved at each."""


@dataclass(frozen=True)
class EpochEvent:
    """An epoch ended; epoch 0 is the evaluation before training."""

    epoch: int
    evaluation: Evaluation
    """On the validation data."""
    learning_rate: float
    seconds: float
    training: Losses | None = None
    """Mean over the epoch's batches, each with the parameters of its time."""


@dataclass(frozen=True)
class EpochPart:
    """The part of an epoch that is done, and what it found so far."""

    updates: int
    """Updates that are done."""
    logged: int
    """Updates that were told of in batch events."""
    report: Report
    """What the updates since the last one that was read found; in host memory."""
    interval: Totals
    """What was read since the last batch event."""
    epoch: Totals
    """What was read in this epoch."""
    seconds: float
    """How long the epoch took so far."""
    skipped: int = 0
    """Updates that were left out since the last batch event."""


@dataclass(frozen=True)
class Standing:
    """A run after an epoch: all that is needed to go on, or to end. Its arrays are in host memory."""

    epoch: int
    """Whole epochs that are done."""
    state: TrainState
    best: Params
    best_epoch: int
    best_loss: float
    """Validation loss of the best parameters."""
    stale: int = 0
    """Epochs since the best."""
    losses: tuple[float, ...] = ()
    """Validation loss of each epoch, which a schedule may go by."""
    part: EpochPart | None = None
    """What is done of the next epoch, if `state` is in the middle of it."""


@dataclass(frozen=True)
class StandingEvent:
    """The score after an epoch."""

    standing: Standing
    finished: bool
    """Whether no epoch follows."""


@dataclass(frozen=True)
class PauseEvent:
    """A moment at which the run may be saved in the middle of an epoch, or as it was before that epoch."""

    standing: Standing
    signal: int
    """The number of the signal that ends the run here; 0 if it goes on."""


@dataclass(frozen=True)
class BackEvent:
    """The run is back where it stood; what was told since then will be told again."""

    standing: Standing
    """As in the last `StandingEvent`; where there was none, as the run was begun."""


Event = BatchEvent | EpochEvent | StandingEvent | PauseEvent | BackEvent
Hook = Callable[[Event], None]
