"""An epoch of updates: what is sent to the devices, and what is read back, one dispatch later.

The host sends about half a second of work at a time, so that a signal is soon noticed. What updates find is
summed up on the device over *spans*, whose bounds depend on nothing but the log interval; so sums, and with
them every loss that is logged, are the same to the bit however the work is cut into dispatches, and whether
or not the run was left and taken up again in between.
"""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from seqjax.errors import TrainingError
from seqjax.training.agreement import Agreement, Control, Wishes, no_wishes
from seqjax.training.evaluate import Evaluation
from seqjax.training.events import BatchEvent, EpochPart
from seqjax.training.feed import Feed, Fold
from seqjax.training.metrics import Losses
from seqjax.training.objective import Target, loss_weights
from seqjax.training.placement import Placement
from seqjax.training.state import Params, TrainState, to_host
from seqjax.training.step import Constants, Report, empty_report
from seqjax.windows.order import Order

_MAX_UPDATES_PER_SPAN = 64
_SECONDS_PER_DISPATCH = 0.5


@dataclass(frozen=True)
class Setup:
    """What a run's epochs are made of."""

    feed: Feed
    fold: Fold[tuple[TrainState, Report]]
    """The update, compiled for the feed."""
    order: Callable[[int], Order]
    """Which windows make up which batch of an epoch (counted from 1)."""
    learning_rate: Callable[[int, Sequence[float]], float]
    """The schedule, by its steps from 0 and the validation losses so far."""
    evaluate: Callable[[Params], Evaluation]
    """Evaluates parameters on the validation data."""
    targets: tuple[Target, ...]
    key: Key[Array, ""]
    """The dropout key."""
    accumulation: int = 1
    """Batches an update."""
    parts: int = 1
    """Micro-batches a batch."""
    log_interval: int = 10
    """Batches between log lines."""
    step_on_batch: bool = False
    """Whether the schedule steps with batches rather than epochs."""
    momentum: Callable[[int], float] | None = None
    """The momentum by the schedule's steps, where the schedule moves it."""
    save_interval: int | None = None
    """Updates between pauses, at which the run may be saved."""
    placement: Placement = field(default_factory=Placement)
    describe: Callable[[Int[np.ndarray, "n"]], str] | None = None
    """Says which windows these are, for messages."""


class Training(NamedTuple):
    """What an epoch of updates found."""

    losses: Losses
    learning_rate: float
    part: EpochPart
    """The epoch as one that is done but for its evaluation."""


@dataclass(frozen=True)
class Pause:
    """A moment between two updates, at which everything before it is known."""

    state: TrainState
    """Is consumed when the epoch goes on."""
    part: EpochPart
    signal: int
    """The number of the signal that asks to stop here; 0 if none came."""


class Pace:
    """How many updates to send at once."""

    def __init__(self) -> None:
        self.size = 1
        """What all processes have agreed on."""
        self.wish = 1
        """What suits this process."""

    def measured(self, updates: int, seconds: float) -> None:
        """Learns how long some updates took; the wish at most doubles, since the first are no good guide."""
        fitting = int(updates * _SECONDS_PER_DISPATCH / max(seconds, 1e-6))
        self.wish = max(1, min(fitting, 2 * self.size, _MAX_UPDATES_PER_SPAN))


def learning_rates(
    setup: Setup, epoch: int, n_batches: int, losses: Sequence[float] = ()
) -> Float[np.ndarray, "n_updates"]:
    """The learning rate of each update of an epoch; `losses` are the validation losses of those before."""
    return _scheduled(setup, epoch, n_batches, lambda step: setup.learning_rate(step, losses))


def momenta(setup: Setup, epoch: int, n_batches: int) -> Float[np.ndarray, "n_updates"] | None:
    """The momentum of each update of an epoch, where the schedule moves it."""
    return None if setup.momentum is None else _scheduled(setup, epoch, n_batches, setup.momentum)


def _scheduled(
    setup: Setup, epoch: int, n_batches: int, value: Callable[[int], float]
) -> Float[np.ndarray, "n_updates"]:
    """What a schedule says at each update of an epoch.

    A schedule that steps with batches has, at an update, made the steps of all batches before the update's
    last.
    """
    size = setup.accumulation
    ends = np.minimum(np.arange(size, n_batches + size, size), n_batches)
    if not setup.step_on_batch:
        return np.full(len(ends), value(epoch - 1), np.float32)
    done = (epoch - 1) * n_batches
    return np.asarray([value(done + int(end) - 1) for end in ends], np.float32)


def _constants(
    setup: Setup, rates: Float[np.ndarray, "n"], moved: Float[np.ndarray, "n"] | None
) -> Constants:
    return Constants(jnp.asarray(rates), setup.key, momenta=None if moved is None else jnp.asarray(moved))


def span_end(update: int, n_updates: int, interval: int) -> int:
    """The end of the span that an update is in: 64 updates on, the next log line, or the end of the epoch.

    Args:
      update: Number of the update in its epoch.
      n_updates: Updates of an epoch.
      interval: Updates between log lines.
    """
    begin = update // interval * interval
    spans = (update - begin) // _MAX_UPDATES_PER_SPAN + 1
    return min(begin + spans * _MAX_UPDATES_PER_SPAN, begin + interval, n_updates)


def train_epoch(
    setup: Setup,
    state: TrainState,
    epoch: int,
    *,
    losses: Sequence[float] = (),
    part: EpochPart | None = None,
    control: Control = no_wishes,
    pace: Pace | None = None,
) -> Generator[BatchEvent | Pause, None, tuple[TrainState, Training]]:
    """Trains for an epoch.

    Args:
      setup: The run.
      state: The state before the epoch's first update that is to be done; it is consumed.
      epoch: The epoch's number, counted from 1.
      losses: Validation losses of the epochs before.
      part: What is done of it already.
      control: What the outside wishes.
      pace: How much to send at once; keeps what it learnt for the next epoch.

    Yields:
      The epoch's batch events, and pauses: where saving or stopping is asked for, and at the save interval.
    """
    order = setup.order(epoch)
    rates = learning_rates(setup, epoch, len(order), losses)
    constants = setup.placement.copied(_constants(setup, rates, momenta(setup, epoch, len(order))))
    placed = setup.feed.place(order, accumulation=setup.accumulation, micro_batches=setup.parts)
    tally = Tally(setup, epoch, order, rates, part=part)
    pace, ask = pace or Pace(), Agreement(setup.placement).ask
    nothing = to_host(empty_report(setup.targets))
    report = setup.placement.copied(nothing if part is None else part.report)
    index, sent, n_updates = tally.done, None, len(rates)
    while index < n_updates:
        end = min(tally.span_end(index), index + pace.size, _next_save(setup, epoch, n_updates, index))
        state, report = setup.fold((state, report), constants, placed, index, end)
        answer = ask(report.first_bad, control(), pace.wish)
        found = None
        if end == tally.span_end(index):
            found, report = report, setup.placement.copied(nothing)
        if sent is not None:
            yield from tally.read(sent, pace)
        sent, index = _Sent(index, end, answer, found), end
        due = end == _next_save(setup, epoch, n_updates, end - 1)
        if tally.wishes.signal or ((tally.wishes.save or due) and end < n_updates):
            yield from tally.read(sent, pace)
            sent = None
            yield Pause(state, tally.part(end, to_host(report)), tally.wishes.signal)
            tally.wishes = Wishes()
    if sent is not None:
        yield from tally.read(sent, pace)
    wishes = Agreement.read(ask(report.first_bad, control(), pace.wish)).wishes
    if wishes.signal:
        yield Pause(state, tally.part(n_updates, nothing), wishes.signal)
    return state, tally.training(nothing)


def _next_save(setup: Setup, epoch: int, n_updates: int, update: int) -> int:
    """The first update after `update` before which the run is to be saved, counted in its epoch."""
    if setup.save_interval is None:
        return n_updates
    before = (epoch - 1) * n_updates
    return ((before + update) // setup.save_interval + 1) * setup.save_interval - before


class _Sent(NamedTuple):
    """A dispatch that is under way."""

    begin: int
    end: int
    answer: Int[Array, "4"]
    report: Report | None
    """What its span found, if the span ends with it."""


class Tally:
    """Reads what the dispatches of an epoch found, and makes an event of each log interval.

    Args:
      setup: The run.
      epoch: The epoch's number, counted from 1.
      order: The batches of the epoch.
      rates: Learning rate of each update.
      part: What is done of the epoch already.
    """

    def __init__(
        self,
        setup: Setup,
        epoch: int,
        order: Order,
        rates: Float[np.ndarray, "n_updates"],
        *,
        part: EpochPart | None = None,
    ) -> None:
        self.wishes = Wishes()
        """What was asked for when the last answer was read."""
        self.done = 0 if part is None else part.updates
        """Updates that were done when the epoch was taken up."""
        self._setup = setup
        self._epoch = epoch
        self._order = order
        self._rates = rates
        self._interval_updates = -(-setup.log_interval // setup.accumulation)
        none = {target.name: (0.0, 0.0) for target in setup.targets}
        self._interval = none if part is None else dict(part.interval)
        self._whole = none if part is None else dict(part.epoch)
        self._logged = 0 if part is None else part.logged
        self._skipped = 0 if part is None else part.skipped
        self._time = self._read_time = time.perf_counter()
        self._begin = self._time - (0.0 if part is None else part.seconds)

    def span_end(self, update: int) -> int:
        """The end of the span that an update is in."""
        return span_end(update, len(self._rates), self._interval_updates)

    def read(self, sent: _Sent, pace: Pace) -> Iterator[BatchEvent]:
        """Waits for a dispatch; yields the event of the log interval that ends with it, if one does."""
        first_bad, wishes, size = Agreement.read(sent.answer)
        self._check(first_bad)
        now = time.perf_counter()
        pace.size = size
        pace.measured(sent.end - sent.begin, now - self._read_time)
        self.wishes, self._read_time = wishes, now
        event = None if sent.report is None else self.add(sent.end, sent.report)
        if event is not None:
            yield event

    def add(self, end: int, report: Report) -> BatchEvent | None:
        """Learns what a span found.

        Args:
          end: Its end.
          report: What its updates found; is waited for.

        Returns:
          The event of the log interval that ends with it, if one does.
        """
        found = _fetched(report)
        self._interval, self._whole = _sum(self._interval, found), _sum(self._whole, found)
        self._skipped += int(report.skipped)
        is_told = end % self._interval_updates == 0 or end == len(self._rates)
        return self._event(end, time.perf_counter()) if is_told else None

    def part(self, updates: int, report: Report) -> EpochPart:
        """What is done, for going on later."""
        seconds = time.perf_counter() - self._begin
        return EpochPart(updates, self._logged, report, self._interval, self._whole, seconds, self._skipped)

    def training(self, report: Report) -> Training:
        """What the whole epoch found; the report is on nothing."""
        part = self.part(len(self._rates), report)
        return Training(self.losses, float(self._rates[-1]), part)

    @property
    def losses(self) -> Losses:
        """Mean over all that was added."""
        return self._mean(self._whole)

    def _event(self, end_update: int, now: float) -> BatchEvent:
        size, n_batches = self._setup.accumulation, len(self._order)
        begin, end = self._logged * size, min(end_update * size, n_batches)
        event = BatchEvent(
            epoch=self._epoch,
            batch=end,
            batches=n_batches,
            count=end - begin,
            losses=self._mean(self._interval),
            learning_rate=float(self._rates[end_update - 1]),
            seconds=now - self._time,
            samples=self._order.samples(begin, end),
            skipped=self._skipped,
        )
        self._interval = dict.fromkeys(self._interval, (0.0, 0.0))
        self._logged, self._skipped, self._time = end_update, 0, now
        return event

    def _mean(self, totals: dict[str, tuple[float, float]]) -> Losses:
        means = {name: total / weight if weight > 0 else 0.0 for name, (total, weight) in totals.items()}
        return Losses(means, loss_weights(self._setup.targets))

    def _check(self, bad: int) -> None:
        if bad < 0:
            return
        size = self._setup.accumulation
        first, last = bad * size + 1, min((bad + 1) * size, len(self._order))
        batches = f"batch {first}" if first == last else f"batches {first} to {last}"
        step = (self._epoch - 1) * len(self._rates) + bad + 1
        rows = self._order.batches(first - 1, last).ravel()
        about = self._setup.describe
        where = "" if about is None else f" Its windows: {about(rows[rows >= 0])}."
        raise TrainingError(
            f"The loss or its gradient is not finite at step {step}: epoch {self._epoch}, {batches} of "
            f"{len(self._order)} (learning rate {self._rates[bad]:g}).{where} Nothing was exported; earlier "
            "checkpoints are kept. Try a lower learning_rate, or look for extreme values in real columns."
        )


def _fetched(report: Report) -> dict[str, tuple[float, float]]:
    sums = jax.device_get(report.sums)
    return {name: (float(part.total), float(part.weight)) for name, part in sums.items()}


def _sum(
    one: dict[str, tuple[float, float]], other: dict[str, tuple[float, float]]
) -> dict[str, tuple[float, float]]:
    return {name: (total + other[name][0], weight + other[name][1]) for name, (total, weight) in one.items()}
