"""The loop around the step: epochs of updates and evaluations, as a stream of events.

`run_epochs` does the work and yields what happened; `fit` keeps the score (best parameters, patience) and
tells the hooks. Logs, checkpoints and progress bars are hooks: functions of an event. Within an epoch the
host only sends work; what a dispatch found is read after the next one has been sent.
"""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from seqjax.errors import TrainingError
from seqjax.training.evaluate import Evaluation
from seqjax.training.events import BatchEvent, EpochEvent, Event, Hook, Standing, StandingEvent
from seqjax.training.feed import Feed, Fold
from seqjax.training.metrics import Losses, mean_losses
from seqjax.training.objective import Target, loss_weights
from seqjax.training.state import Params, TrainState, to_host
from seqjax.training.step import Constants, Report, empty_report

_MAX_UPDATES_PER_DISPATCH = 64


@dataclass(frozen=True)
class Setup:
    """What a run's epochs are made of."""

    feed: Feed
    fold: Fold[tuple[TrainState, Report]]
    """The update, compiled for the feed."""
    order: Callable[[int], Int[np.ndarray, "n_batches B"]]
    """Which windows make up which batch of an epoch (counted from 1); -1 for a row of padding."""
    learning_rate: Callable[[int], float]
    """The schedule, by its steps from 0."""
    evaluate: Callable[[Params], Evaluation]
    """Evaluates parameters on the validation data."""
    targets: tuple[Target, ...]
    key: Key[Array, ""]
    """The dropout key."""
    accumulation: int = 1
    """Batches an update."""
    log_interval: int = 10
    """Batches between log lines."""
    step_on_batch: bool = False
    """Whether the schedule steps with batches rather than epochs."""


def fit(
    setup: Setup,
    start: TrainState | Standing,
    *,
    epochs: int,
    patience: int | None = None,
    hooks: Sequence[Hook] = (),
) -> Standing:
    """Trains, and keeps the best parameters.

    Args:
      setup: The run.
      start: A new state, which is consumed, or where to go on.
      epochs: The last epoch.
      patience: End after so many epochs without a lower validation loss; null trains all epochs.
      hooks: Told of everything that happens.

    Returns:
      The run after its last epoch.

    Raises:
      TrainingError: A loss is not finite.
    """
    standing = start if isinstance(start, Standing) else None
    state = jax.tree.map(jnp.asarray, start.state if isinstance(start, Standing) else start)
    for event in run_epochs(setup, state, standing.epoch + 1 if standing else 1, epochs):
        if isinstance(event, BatchEvent | EpochEvent):
            _tell(hooks, event)
            continue
        epoch, evaluation, state = event
        standing = _next_standing(standing, epoch, evaluation.losses.total, to_host(state))
        finished = is_finished(standing, epochs=epochs, patience=patience)
        _tell(hooks, StandingEvent(standing, finished))
        if finished:
            break
    if standing is None:
        raise TrainingError("training_spec.epochs: there is nothing to train (0 epochs).")
    return standing


def is_finished(standing: Standing, *, epochs: int, patience: int | None) -> bool:
    """Whether no epoch follows."""
    return standing.epoch >= epochs or (patience is not None and standing.stale >= patience)


def evaluate_start(setup: Setup, params: Params) -> EpochEvent:
    """The event of epoch 0: the parameters before training."""
    begin = time.perf_counter()
    evaluation = setup.evaluate(params)
    _check_evaluation(evaluation, 0)
    return EpochEvent(0, evaluation, setup.learning_rate(0), time.perf_counter() - begin)


def run_epochs(
    setup: Setup, state: TrainState, first: int, last: int
) -> Iterator[BatchEvent | EpochEvent | tuple[int, Evaluation, TrainState]]:
    """Trains from epoch `first` to `last`.

    Yields:
      The events of an epoch, then (epoch, evaluation, state); the state is consumed by the next epoch.
    """
    for epoch in range(first, last + 1):
        begin = time.perf_counter()
        state, training = yield from _train_epoch(setup, state, epoch)
        evaluation = setup.evaluate(state.params)
        _check_evaluation(evaluation, epoch)
        rate = training.learning_rate
        yield EpochEvent(epoch, evaluation, rate, time.perf_counter() - begin, training.losses)
        yield epoch, evaluation, state


def learning_rates(setup: Setup, epoch: int, n_batches: int) -> Float[np.ndarray, "n_updates"]:
    """The learning rate of each update of an epoch.

    A schedule that steps with batches has, at an update, made the steps of all batches before the update's
    last.
    """
    size = setup.accumulation
    ends = np.minimum(np.arange(size, n_batches + size, size), n_batches)
    if not setup.step_on_batch:
        return np.full(len(ends), setup.learning_rate(epoch - 1), np.float32)
    done = (epoch - 1) * n_batches
    return np.asarray([setup.learning_rate(done + int(end) - 1) for end in ends], np.float32)


def grouped(order: Int[np.ndarray, "n_batches B"], accumulation: int) -> Int[np.ndarray, "n_updates large"]:
    """Joins the batches of an update; the last update of an epoch is filled up with rows of padding."""
    missing = -len(order) % accumulation
    full = np.concatenate([order, np.full((missing, order.shape[1]), -1, order.dtype)])
    return full.reshape(-1, accumulation * order.shape[1])


def spans(n_updates: int, interval: int) -> Iterator[tuple[int, int]]:
    """Cuts an epoch into dispatches: (first update, end), none over the end of a log interval."""
    longest = min(interval, _MAX_UPDATES_PER_DISPATCH)
    for begin in range(0, n_updates, interval):
        end = min(begin + interval, n_updates)
        for low in range(begin, end, longest):
            yield low, min(low + longest, end)


class _Training(NamedTuple):
    """What an epoch of updates found."""

    losses: Losses
    learning_rate: float


def _train_epoch(
    setup: Setup, state: TrainState, epoch: int
) -> Generator[BatchEvent, None, tuple[TrainState, _Training]]:
    order = setup.order(epoch)
    groups = grouped(order, setup.accumulation)
    rates = learning_rates(setup, epoch, len(order))
    constants = Constants(jnp.asarray(rates), setup.key)
    placed = setup.feed.place(groups)
    interval = -(-setup.log_interval // setup.accumulation)
    reader = _Reader(setup, epoch, order, rates)
    sent: tuple[int, Report] | None = None
    for low, high in spans(len(groups), interval):
        state, report = setup.fold((state, empty_report(setup.targets)), constants, placed, low, high)
        if sent is not None:
            yield from reader.read(*sent, interval)
        sent = high, report
    if sent is not None:
        yield from reader.read(*sent, interval)
    losses = mean_losses([report.sums for report in reader.reports], loss_weights(setup.targets))
    return state, _Training(losses, float(rates[-1]))


class _Reader:
    """Reads what the dispatches of an epoch found, and makes an event of each log interval."""

    def __init__(
        self,
        setup: Setup,
        epoch: int,
        order: Int[np.ndarray, "n_batches B"],
        rates: Float[np.ndarray, "n_updates"],
    ) -> None:
        self.reports: list[Report] = []
        self._setup = setup
        self._epoch = epoch
        self._order = order
        self._rates = rates
        self._logged_reports = 0
        self._logged_updates = 0
        self._time = time.perf_counter()

    def read(self, high: int, report: Report, interval: int) -> Iterator[BatchEvent]:
        """Yields the event of the log interval that ends with this dispatch, if one does."""
        self._check(int(report.first_bad))
        self.reports.append(report)
        if high % interval and high < len(self._rates):
            return
        size, n_batches = self._setup.accumulation, len(self._order)
        begin, end = self._logged_updates * size, min(high * size, n_batches)
        now = time.perf_counter()
        parts = [part.sums for part in self.reports[self._logged_reports :]]
        yield BatchEvent(
            epoch=self._epoch,
            batch=end,
            batches=n_batches,
            count=end - begin,
            losses=mean_losses(parts, loss_weights(self._setup.targets)),
            learning_rate=float(self._rates[high - 1]),
            seconds=now - self._time,
            samples=int((self._order[begin:end] >= 0).sum()),
        )
        self._logged_reports, self._logged_updates, self._time = len(self.reports), high, now

    def _check(self, bad: int) -> None:
        if bad < 0:
            return
        size = self._setup.accumulation
        batches = f"batch {bad + 1}" if size == 1 else f"batches {bad * size + 1} to {(bad + 1) * size}"
        raise TrainingError(
            f"The loss or its gradient is not finite in epoch {self._epoch}, {batches} of {len(self._order)} "
            f"(learning rate {self._rates[bad]:g}). Nothing was exported; checkpoints of earlier epochs are "
            "kept. Try a lower learning_rate, or look for extreme values in real columns."
        )


def _next_standing(before: Standing | None, epoch: int, loss: float, state: TrainState) -> Standing:
    if before is None or loss < before.best_loss:
        return Standing(epoch, state, state.params, epoch, loss)
    return replace(before, epoch=epoch, state=state, stale=before.stale + 1)


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
