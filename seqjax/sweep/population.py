"""Runs that are trained together: the members of a population.

Members have the same compiled programs, the same number of batches and the same log interval, so that they
go through an epoch in step: a runner sends their updates, and the events of each member go to its own hooks.
After an epoch each goes its own way. One that is finished, or whose loss is not finite, leaves its slot to
the next run; the others do not notice. A run that joins in begins at its own first epoch beside others that
are at their tenth, since whatever depends on the epoch is a value.
"""

import gc
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from seqjax.errors import SeqjaxError, TrainingError
from seqjax.stopping import stop_error
from seqjax.sweep.runners import Kind, Order, Programs, Runner, Work, build_runner
from seqjax.training.epoch import Setup, Tally, learning_rates, momenta
from seqjax.training.evaluate import Evaluation
from seqjax.training.events import (
    BackEvent,
    EpochEvent,
    Event,
    Hook,
    PauseEvent,
    Standing,
    StandingEvent,
)
from seqjax.training.loop import is_finished, next_standing
from seqjax.training.memory import is_out_of_memory
from seqjax.training.setup import Run
from seqjax.training.state import TrainState
from seqjax.training.step import Constants, Report, Values
from seqjax.training.threads import Threads

logger = logging.getLogger(__name__)


@dataclass
class Member:
    """A run of a population."""

    run: Run
    """Its schedule, order and key are used; its programs are not."""
    values: Values
    """Its numbers in which the population differs."""
    start: TrainState | Standing
    """A new state, or where to go on."""
    epochs: int
    """Its last epoch."""
    patience: int | None = None
    """End after so many epochs without a lower validation loss; null trains all epochs."""
    until: int | None = None
    """The epoch after which it leaves its slot, finished or not; null stays."""
    hooks: Sequence[Hook] = ()
    """Told of everything that happens to it."""


Ended = Callable[[Member, Standing | TrainingError], None]
"""Told of a member that left its slot: where it stands, or why it cannot go on."""


class Population:
    """Slots for runs.

    Args:
      programs: What the members have in common.
      kind: How the device works on them.
      slots: How many are trained at once; halved where they do not fit into memory.
    """

    def __init__(self, programs: Programs, kind: Kind, slots: int) -> None:
        self._programs = programs
        self._kind: Kind = kind
        self._count = slots
        self._runner: Runner = build_runner(kind, programs, slots)
        self._compiler = Threads(1, "compiler")
        self._compiling: Future[None] | None = None
        self._slots: dict[int, _Slot] = {}
        self._signal: Callable[[], int] = lambda: 0

    @property
    def size(self) -> int:
        """The number of slots."""
        return self._count

    def compile(self, member: Member) -> None:
        """Begins to compile what such members need, in a thread; training waits for it."""
        slot = _Slot(member)
        slot.begin_epoch()
        self._compiling = self._compiler.submit(self._runner.compile, slot.standing.state, slot.work())

    def train(self, members: Iterable[Member], ended: Ended, signal: Callable[[], int] = lambda: 0) -> None:
        """Trains runs, as many at a time as there are slots.

        Args:
          members: The runs; the next one is asked for when a slot is free.
          ended: Told of each that ends.
          signal: The number of a signal that asks to stop; 0 if there is none.

        Raises:
          KeyboardInterrupt: A signal asked to stop; the members' hooks were told.
          MemoryError: There is too little memory for one member, whose hooks were told; jax has an error of
            its own for a device's memory (`is_out_of_memory`).
        """
        self._slots, self._signal = {}, signal
        waiting = iter(members)
        while True:
            try:
                self._fill(waiting)
                if not self._slots:
                    return
                self._epoch()
            except (MemoryError, jax.errors.JaxRuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                if self._count == 1:
                    self._pause(0)
                    raise
                waiting = _chained(self._halve(), waiting)
            self._leave(ended)

    def _fill(self, waiting: Iterator[Member]) -> None:
        """Gives free slots to the runs that wait."""
        joined = []
        for slot in range(self._count):
            member = None if slot in self._slots else next(waiting, None)
            if member is not None:
                self._slots[slot] = _Slot(member)
                joined.append(slot)
        compiling, self._compiling = self._compiling, None
        if compiling is not None:
            compiling.result()
        for slot in joined:
            self._runner.put(slot, self._slots[slot].standing.state)
        new = [slot for slot in joined if isinstance(self._slots[slot].member.start, TrainState)]
        if not new:
            return
        begin = time.perf_counter()
        for slot, found in self._evaluate(new).items():
            one = self._slots[slot]
            if one.checked(found, 0):
                rate = one.setup.learning_rate(0, ())
                one.tell(EpochEvent(0, found, rate, time.perf_counter() - begin))

    def _epoch(self) -> None:
        """Trains all members for an epoch, and evaluates them."""
        going = {slot: one for slot, one in self._slots.items() if one.error is None}
        if not going:
            return
        begin = time.perf_counter()
        for one in going.values():
            one.begin_epoch()
        self._runner.begin({slot: one.work() for slot, one in going.items()})
        first = next(iter(going.values()))  # All go in step.
        sent: tuple[int, object] | None = None
        low = 0
        while low < len(first.rates):
            high = first.tally.span_end(low)
            self._stop_if_asked()
            reports = self._runner.train(low, high)
            if sent is not None:
                self._read(*sent)
            sent, low = (high, reports), high
        if sent is not None:
            self._read(*sent)
        left = [slot for slot, one in going.items() if one.error is None]
        evaluations, states = self._evaluate(left), self._runner.states(left)
        for slot in left:
            self._slots[slot].end_epoch(evaluations[slot], states[slot], time.perf_counter() - begin)

    def _stop_if_asked(self) -> None:
        number = self._signal()
        if number:
            self._runner.close()
            self._pause(number)
            raise stop_error(number)

    def _pause(self, number: int) -> None:
        """Tells the members' hooks where they stood, before the epoch that is under way."""
        for one in self._slots.values():
            if one.error is None and one.standing.epoch > 0:
                try:
                    one.tell(PauseEvent(one.standing, number))
                except SeqjaxError as error:  # The others are to be saved nevertheless.
                    logger.warning("[WARNING] %s", error)

    def _read(self, high: int, sent: object) -> None:
        for slot, report in self._runner.read(sent).items():
            self._slots[slot].read(high, report)

    def _evaluate(self, slots: Sequence[int]) -> dict[int, Evaluation]:
        if not slots:
            return {}
        found = self._runner.evaluate({slot: self._slots[slot].member.values for slot in slots})
        evaluators = {slot: self._slots[slot].member.run.evaluator for slot in slots}
        return {slot: evaluators[slot].result(parts) for slot, parts in found.items()}

    def _leave(self, ended: Ended) -> None:
        """Frees the slots of runs that are over."""
        for slot, one in list(self._slots.items()):
            if one.is_over:
                del self._slots[slot]
                ended(one.member, one.error or one.standing)

    def _halve(self) -> list[Member]:
        """Makes half as many slots; the members that were in them, as they were after their last epoch."""
        back = [one for one in self._slots.values() if not one.is_over]
        for one in back:
            one.tell(BackEvent(one.standing))
        self._slots = {slot: one for slot, one in self._slots.items() if one.is_over}
        self._count = max(1, self._count // 2)
        logger.warning("[WARNING] Out of memory: from now on %d runs are trained together.", self._count)
        self._runner.close()
        gc.collect()
        jax.clear_caches()
        self._runner = build_runner(self._kind, self._programs, self._count)
        return [one.at_its_standing() for one in back]


@dataclass
class _Slot:
    """A member in its slot, and what is known of its epoch."""

    member: Member
    error: TrainingError | None = None
    standing: Standing = field(init=False)
    rates: Float[np.ndarray, "n_updates"] = field(init=False)
    order: Order = field(init=False)
    tally: Tally = field(init=False)

    def __post_init__(self) -> None:
        start = self.member.start
        if isinstance(start, TrainState):
            start = Standing(0, start, start.params, 0, float("inf"))
        self.standing = start

    @property
    def setup(self) -> Setup:
        """The member's."""
        return self.member.run.setup

    @property
    def is_over(self) -> bool:
        """Whether the member leaves."""
        standing, until = self.standing, self.member.until
        finished = is_finished(standing, epochs=self.member.epochs, patience=self.member.patience)
        return self.error is not None or finished or (until is not None and standing.epoch >= until)

    def at_its_standing(self) -> Member:
        """The member, which is to go on from its last epoch."""
        if self.standing.epoch > 0:
            self.member.start = self.standing
        return self.member

    def begin_epoch(self) -> None:
        """Looks up what the next epoch consists of."""
        epoch = self.standing.epoch + 1
        self.order = self.setup.order(epoch)
        self.rates = learning_rates(self.setup, epoch, len(self.order), self.standing.losses)
        self.tally = Tally(self.setup, epoch, self.order, self.rates)

    def work(self) -> Work:
        """What the member does in this epoch."""
        values = jax.tree.map(jnp.asarray, self.member.values)
        moved = momenta(self.setup, self.standing.epoch + 1, len(self.order))
        constants = Constants(
            jnp.asarray(self.rates), self.setup.key, values, None if moved is None else jnp.asarray(moved)
        )
        return Work(self.order, constants)

    def read(self, high: int, report: Report) -> None:
        """Learns what the updates before `high` found."""
        if self.error is not None:
            return
        if report.first_bad >= 0:
            self.error = TrainingError(
                f"The loss or its gradient is not finite in epoch {self.standing.epoch + 1}, update "
                f"{int(report.first_bad) + 1} of {len(self.rates)} (learning rate "
                f"{self.rates[int(report.first_bad)]:g})."
            )
            return
        event = self.tally.add(high, report)
        if event is not None:
            self.tell(event)

    def end_epoch(self, evaluation: Evaluation, state: TrainState, seconds: float) -> None:
        """Keeps the score."""
        epoch = self.standing.epoch + 1
        if not self.checked(evaluation, epoch):
            return
        rate = float(self.rates[-1])
        self.tell(EpochEvent(epoch, evaluation, rate, seconds, self.tally.losses))
        self.standing = next_standing(self.standing, epoch, evaluation.losses.total, state)
        finished = is_finished(self.standing, epochs=self.member.epochs, patience=self.member.patience)
        self.tell(StandingEvent(self.standing, finished))

    def checked(self, evaluation: Evaluation, epoch: int) -> bool:
        """Whether an evaluation is of use; if not, the member cannot go on."""
        loss = evaluation.losses.total
        if not np.isfinite(loss):
            self.error = TrainingError(f"The validation loss is {loss} after epoch {epoch}.")
        return self.error is None

    def tell(self, event: Event) -> None:
        """Tells the member's hooks."""
        for hook in self.member.hooks:
            hook(event)


def _chained(first: Iterable[Member], then: Iterator[Member]) -> Iterator[Member]:
    yield from first
    yield from then
