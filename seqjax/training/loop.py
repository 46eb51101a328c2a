"""The loop around the epochs: train, evaluate, keep the score, tell the hooks.

`run_epochs` does the work and yields what happened; `fit` keeps the score (best parameters, patience) and
tells the hooks. Logs, checkpoints and progress bars are hooks: functions of an event.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from seqjax.errors import TrainingError
from seqjax.stopping import signal_of, stop_error
from seqjax.training.agreement import Control, no_wishes
from seqjax.training.epoch import Pace, Pause, Setup, train_epoch
from seqjax.training.evaluate import Evaluation
from seqjax.training.events import (
    BatchEvent,
    EpochEvent,
    EpochPart,
    Event,
    Hook,
    PauseEvent,
    Standing,
    StandingEvent,
)
from seqjax.training.state import Params, TrainState, to_host


def fit(
    setup: Setup,
    start: TrainState | Standing,
    *,
    epochs: int,
    patience: int | None = None,
    until: int | None = None,
    hooks: Sequence[Hook] = (),
    control: Control = no_wishes,
) -> Standing:
    """Trains, and keeps the best parameters.

    Args:
      setup: The run.
      start: A new state, or where to go on.
      epochs: The last epoch.
      patience: End after so many epochs without a lower validation loss; null trains all epochs.
      until: An epoch after which to pause; null goes on to the last.
      hooks: Told of everything that happens.
      control: Asked what is wished besides; a signal ends the run after the next dispatch.

    Returns:
      The run after its last epoch, or after `until`.

    Raises:
      TrainingError: A loss is not finite.
      KeyboardInterrupt: A signal asked to stop; the hooks were told.
    """
    standing = start if isinstance(start, Standing) else _before_training(start)
    state, first = setup.placement.copied(standing.state), standing.epoch + 1
    last = epochs if until is None else min(until, epochs)
    for event in run_epochs(
        setup, state, first, last, losses=standing.losses, part=standing.part, control=control
    ):
        if isinstance(event, BatchEvent | EpochEvent):
            _tell(hooks, event)
        elif isinstance(event, Pause):
            here = replace(standing, state=to_host(event.state), part=event.part)
            _tell(hooks, PauseEvent(here, event.signal))
            if event.signal:
                raise stop_error(event.signal)
        else:
            epoch, evaluation, state = event
            standing = next_standing(standing, epoch, evaluation.losses.total, to_host(state))
            finished = is_finished(standing, epochs=epochs, patience=patience)
            _tell(hooks, StandingEvent(standing, finished))
            if finished:
                break
    return standing


def is_finished(standing: Standing, *, epochs: int, patience: int | None) -> bool:
    """Whether no epoch follows."""
    return standing.epoch >= epochs or (patience is not None and standing.stale >= patience)


def batches_left(setup: Setup, begin: TrainState | Standing, last: int) -> int:
    """How many batches are to be trained on until the end of an epoch."""
    n_batches = len(setup.order(1))
    if isinstance(begin, TrainState):
        return last * n_batches
    done = 0 if begin.part is None else begin.part.updates * setup.accumulation
    return (last - begin.epoch) * n_batches - min(done, n_batches)


def evaluate_start(setup: Setup, params: Params) -> EpochEvent:
    """The event of epoch 0: the parameters before training."""
    begin = time.perf_counter()
    evaluation = setup.evaluate(setup.placement.copied(params))
    _check_evaluation(evaluation, 0)
    return EpochEvent(0, evaluation, setup.learning_rate(0, ()), time.perf_counter() - begin)


def run_epochs(
    setup: Setup,
    state: TrainState,
    first: int,
    last: int,
    *,
    losses: Sequence[float] = (),
    part: EpochPart | None = None,
    control: Control = no_wishes,
) -> Iterator[BatchEvent | EpochEvent | Pause | tuple[int, Evaluation, TrainState]]:
    """Trains from epoch `first` to `last`.

    Args:
      setup: The run.
      state: The state to begin with, which is consumed.
      first: The first epoch.
      last: The last one.
      losses: Validation losses of the epochs before the first.
      part: What is done of the first epoch already.
      control: Asked what is wished besides.

    Yields:
      The events of an epoch with its pauses, then (epoch, evaluation, state); the state is consumed by the
      next epoch.
    """
    pace, known = Pace(), list(losses)
    for epoch in range(first, last + 1):
        state, training = yield from train_epoch(
            setup, state, epoch, losses=known, part=part, control=control, pace=pace
        )
        part = None
        begin = time.perf_counter()
        try:
            evaluation = setup.evaluate(state.params)
        except KeyboardInterrupt as stop:  # The updates are done, and need not be done again.
            yield Pause(state, training.part, signal_of(stop))
            raise
        _check_evaluation(evaluation, epoch)
        known.append(evaluation.losses.total)
        seconds = training.part.seconds + time.perf_counter() - begin
        yield EpochEvent(epoch, evaluation, training.learning_rate, seconds, training.losses)
        yield epoch, evaluation, state


def _before_training(state: TrainState) -> Standing:
    start = to_host(state)
    return Standing(0, start, start.params, 0, float("inf"))


def next_standing(before: Standing, epoch: int, loss: float, state: TrainState) -> Standing:
    """The score after an epoch, from that before it."""
    losses = (*before.losses, loss)
    if loss < before.best_loss:
        return Standing(epoch, state, state.params, epoch, loss, losses=losses)
    return replace(before, epoch=epoch, state=state, stale=before.stale + 1, losses=losses, part=None)


def _check_evaluation(evaluation: Evaluation, epoch: int) -> None:
    if not np.isfinite(evaluation.losses.total):
        raise TrainingError(
            f"The validation loss is {evaluation.losses.total} after epoch {epoch}. Nothing was exported; "
            "checkpoints of earlier epochs are kept. Try a lower learning_rate, or look for extreme values "
            "in real columns."
        )


def _tell(hooks: Sequence[Hook], event: Event) -> None:
    for hook in hooks:
        hook(event)
