"""What happens in a run, as it is told to the hooks: logs, checkpoints, progress bars."""

from collections.abc import Callable
from dataclasses import dataclass

from seqjax.training.evaluate import Evaluation
from seqjax.training.metrics import Losses
from seqjax.training.state import Params, TrainState


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
class Standing:
    """A run after an epoch: all that is needed to go on, or to end. Its arrays are in host memory."""

    epoch: int
    state: TrainState
    best: Params
    best_epoch: int
    best_loss: float
    """Validation loss of the best parameters."""
    stale: int = 0
    """Epochs since the best."""


@dataclass(frozen=True)
class StandingEvent:
    """The score after an epoch."""

    standing: Standing
    finished: bool
    """Whether no epoch follows."""


Event = BatchEvent | EpochEvent | StandingEvent
Hook = Callable[[Event], None]
