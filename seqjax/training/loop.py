"""The loop around the epochs, of one run or of several: train, evaluate, keep the score, call hooks.

The members of a `Population` have the same compiled programs and the same number of batches, so that they
go through an epoch in step; a run by itself is a population of one. The host sends about half a second of
work at a time, so that a signal is soon noticed, and reads what it found one dispatch later. The events of
each member go to its own hooks: logs, checkpoints and progress bars are functions of an event.

After an epoch each member goes its own way. One that is finished, or whose loss is not finite, leaves its
slot to the next run; the others do not notice. A run that joins in begins at its own first epoch beside
others that are at their tenth, and one that goes on in the middle of an epoch joins when the others have come
there.
"""

import gc
import itertools
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import jax
import numpy as np
from jaxtyping import Float

from seqjax.errors import SeqjaxError, TrainingError
from seqjax.stopping import Note, signal_of, stop_error
from seqjax.training.devices import is_out_of_memory
from seqjax.training.epoch import Epoch
from seqjax.training.evaluate import Evaluation
from seqjax.training.events import EpochEvent, Event, Hook, PauseEvent, ResumeEvent, RunState, StateEvent
from seqjax.training.processes import Agreement, Request
from seqjax.training.runners import Kind, Loop, Read, Stacked, Threads
from seqjax.training.setup import Run
from seqjax.training.step import TABLE_ROWS, TrainState, Values

logger = logging.getLogger(__name__)

_SECONDS_PER_DISPATCH = 0.5
_SECONDS_PER_ROUND = 2.0  # Of several runs: those that take turns fill a processor's caches anew in each.
_MOST_MICRO_BATCHES = 8  # Into how many micro-batches a batch is cut at most where memory is short.


@dataclass(eq=False)
class Member:
    """A run while it is trained."""

    run: Run
    state: RunState
    """Its state after its last epoch, or at its last pause."""
    epochs: int
    """Its last epoch."""
    patience: int | None = None
    """End after so many epochs without a lower validation loss; None trains all epochs."""
    until: int | None = None
    """The epoch after which it leaves its slot, finished or not; None stays."""
    values: Values = field(default_factory=dict)
    """Its numbers in which the population differs."""
    hooks: Sequence[Hook] = ()
    is_due: Callable[[], bool] = lambda: False
    """Says whether it is time to save, whatever the epoch."""
    error: TrainingError | None = None
    epoch: Epoch = field(init=False)
    _has_begun: bool = False

    @property
    def is_finished(self) -> bool:
        """True if no epoch follows."""
        return self.state.is_finished(epochs=self.epochs, patience=self.patience)

    @property
    def is_over(self) -> bool:
        """True if the member leaves."""
        paused = self.until is not None and self.state.epoch >= self.until
        return self.error is not None or self.is_finished or paused

    @property
    def batches_done(self) -> int:
        """Batches that the run was trained on, in all epochs."""
        return self.state.epoch * len(self.run.order(1)) + self.run.batches_done(self.state)

    def join(self) -> bool:
        """Takes a slot; returns whether the run is new, and to be evaluated before its first epoch."""
        is_new = not (self._has_begun or self.state.epoch or self.state.progress)
        if not is_new:
            done, batches = self.run.batches_done(self.state), len(self.run.order(1))
            self.tell(ResumeEvent(self.state.epoch + 1, done, batches))
        return is_new

    def begin_epoch(self) -> Epoch:
        """The next epoch, or what is left of it."""
        self.epoch = Epoch(self.run, self.state, self.values)
        return self.epoch

    def read(self, rows: Float[np.ndarray, "n columns"], seconds: float) -> None:
        """Takes in what updates found."""
        try:
            for event in self.epoch.read(rows, seconds):
                self.tell(event)
        except TrainingError as error:
            self.error = error

    def end_epoch(self, evaluation: Evaluation, state: TrainState, seconds: float) -> None:
        """Takes in an evaluation and the state after an epoch, and keeps the score."""
        epoch, rate = self.epoch, float(self.epoch.rates[-1])
        self.read_evaluation(
            EpochEvent(epoch.number, evaluation, rate, epoch.seconds + seconds, epoch.losses)
        )
        if self.error is None:
            self.state = self.state.after_epoch(evaluation, state)
            self.tell(StateEvent(self.state, self.is_finished))

    def pause(self, state: TrainState, signal: int) -> None:
        """Notes where the run is in the middle of an epoch, at a moment at which it may be saved."""
        self.state = replace(self.state, state=state, progress=self.epoch.progress)
        self.tell(PauseEvent(self.state, signal))

    def tell(self, event: Event) -> None:
        """Calls the hooks."""
        for hook in self.hooks:
            hook(event)

    def read_evaluation(self, event: EpochEvent) -> None:
        """Takes in an evaluation."""
        self._has_begun = True
        loss = event.evaluation.losses.total
        if math.isfinite(loss):
            self.tell(event)
        else:
            self.error = TrainingError(
                f"The validation loss is {loss} after epoch {event.epoch}. Nothing was exported; "
                "checkpoints of earlier epochs are kept. Try a lower learning_rate, or look for extreme "
                "values in real columns."
            )


Ended: TypeAlias = Callable[[Member], object]
"""Called with each member that leaves its slot: over, or with an `error`."""


class Population:
    """Slots for runs.

    Args:
      run: One of the runs; its programs are compiled.
      kind: How the device works on several.
      slots: How many are trained at once; halved where they do not fit into memory.
      micro_batches: Into how many parts each batch is cut; doubled where not even one run fits.
    """

    def __init__(self, run: Run, *, kind: Kind = "loop", slots: int = 1, micro_batches: int = 1) -> None:
        self.run = run
        self.kind: Kind = kind
        self.size = slots
        self.micro_batches = micro_batches
        self.runner: Loop | Stacked | None = None
        self._compiler = Threads(1, "compiler")
        self._compiling: Future[None] | None = None
        self._agreement = Agreement(run.placement)
        self._members: dict[int, Member] = {}
        self._note = Note()
        self._updates = 1  # How many updates to send at once: all processes agree on it.
        self._fitting = 1  # How many of them suit this process.
        self._clock = 0.0

    def compile(self, member: Member) -> None:
        """Begins to compile what such members need, in a thread; training waits for it."""
        compile_ = self._at_work().compile
        self._compiling = self._compiler.submit(compile_, member.state.state, member.begin_epoch())

    def train(self, members: Iterable[Member], ended: Ended, note: Note | None = None) -> None:
        """Trains runs, as many at a time as there are slots.

        Args:
          members: The runs; the next one is asked for when a slot is free.
          ended: Called with each that ends.
          note: Says which signal asks to stop.

        Raises:
          KeyboardInterrupt: A signal asked to stop; the members' hooks were called with a `PauseEvent`.
        """
        self._members, self._note = {}, note or Note()
        waiting = iter(members)
        try:
            while True:
                short_of_memory = None
                try:
                    self._fill(waiting)
                    if not self._members:
                        return
                    self._epoch()
                except (MemoryError, jax.errors.JaxRuntimeError) as error:
                    if not is_out_of_memory(error):
                        raise
                    short_of_memory = str(error).partition("\n")[0]
                if short_of_memory is not None:  # By now the error is gone, and what its frames held.
                    waiting = itertools.chain(self._shrink(short_of_memory), waiting)
                self._leave(ended)
        except BaseException:
            self._close()
            raise

    def _at_work(self) -> Loop | Stacked:
        if self.runner is None:
            runner = Loop if self.kind == "loop" else Stacked
            self.runner = runner(self.run, self.size, self.micro_batches)
        return self.runner

    def _fill(self, waiting: Iterator[Member]) -> None:
        """Gives free slots to the runs that wait."""
        joined: dict[int, Member] = {}
        for slot in range(self.size):
            member = None if slot in self._members else next(waiting, None)
            if member is not None:
                self._members[slot] = joined[slot] = member
        compiling, self._compiling = self._compiling, None
        if compiling is not None:
            compiling.result()
        new = []
        for slot, member in joined.items():
            if member.state.progress is None:
                self._at_work().put(slot, member.state.state)
            if member.join():
                new.append(slot)
        begin = time.perf_counter()
        for slot, found in self._evaluate(new).items():
            member, seconds = self._members[slot], time.perf_counter() - begin
            member.read_evaluation(EpochEvent(0, found, member.run.learning_rate(0, ()), seconds))

    def _epoch(self) -> None:
        """Trains all members for an epoch, and evaluates them."""
        epochs = {slot: self._members[slot].begin_epoch() for slot in self._going()}
        if not epochs:
            return
        self._at_work().begin(epochs)
        self._updates_of_an_epoch()
        begin, going = time.perf_counter(), self._going()
        if not going:
            return
        try:
            # No other process waits for this one, so that it can be left at any point.
            alone = self.run.placement.processes == 1
            with self._note.at_once() if alone else nullcontext():
                evaluations = self._evaluate(going)
        except KeyboardInterrupt as stop:  # The updates are done, and need not be done again.
            self._pause(going, signal_of(stop))
            raise
        states = self._at_work().states(going)
        for slot in going:
            seconds = time.perf_counter() - begin
            self._members[slot].end_epoch(evaluations[slot], states[slot], seconds)

    def _updates_of_an_epoch(self) -> None:
        """Sends the updates of an epoch, reads what they find, and saves or stops where that is asked for."""
        going = {slot: self._members[slot] for slot in self._going()}
        first = {slot: member.epoch.updates for slot, member in going.items()}
        low, end = min(first.values()), len(next(iter(going.values())).epoch.rates)
        under_way, self._clock = None, time.perf_counter()
        while True:
            self._join_epoch(first, low)
            at_work = [slot for slot in self._going() if first[slot] <= low]
            if low == end or not self._going():
                break
            bounds = [end, *(at for at in first.values() if at > low)]
            bounds += [going[slot].epoch.next_save(low) for slot in at_work]
            high = min(low + self._updates, *bounds)
            read = self._at_work().train(at_work, low, high)
            answer = self._ask()
            request = self._read(under_way)
            under_way, low = (read, high - low, answer), high
            due = [slot for slot in at_work if low < end and self._is_due(going[slot], low, request)]
            if request.signal or due:
                self._read(under_way)
                under_way = None
                self._pause(self._going() if request.signal else due, request.signal)
        self._read(under_way)
        signal = self._agreement.read(self._ask()).signal
        if signal:
            self._pause(self._going(), signal)

    def _ask(self) -> Any:  # noqa: ANN401
        """Asks all processes for what this one needs."""
        save = any(member.is_due() for member in self._members.values())
        return self._agreement.ask(Request(self._note.signal, save, self._fitting))

    def _join_epoch(self, first: Mapping[int, int], update: int) -> None:
        """Hands over the states of members that go on at an update in the middle of the epoch."""
        for slot, at in first.items():
            if at == update and self._members[slot].state.progress is not None:
                self._at_work().put(slot, self._members[slot].state.state)

    def _is_due(self, member: Member, update: int, request: Request) -> bool:
        """Tells whether a member is to be saved; all processes come to the same."""
        asked = request.save and (member.is_due() or self.run.placement.processes > 1)
        return asked or member.epoch.next_save(update - 1) == update

    def _read(self, under_way: tuple[Read, int, Any] | None) -> Request:
        """Waits for updates, and hands over what they found; returns what processes have asked for since."""
        if under_way is None:
            return Request()
        read, count, answer = under_way
        found = read()
        request = self._agreement.read(answer)
        now = time.perf_counter()
        seconds, self._clock = now - self._clock, now
        self._updates = request.size
        # At most twice as many as now, since the first are no good guide.
        aim = _SECONDS_PER_DISPATCH if self.size == 1 else _SECONDS_PER_ROUND
        fitting = int(count * aim / max(seconds, 1e-6))
        self._fitting = max(1, min(fitting, 2 * request.size, TABLE_ROWS))
        for slot, rows in found.items():
            if self._members[slot].error is None:
                self._members[slot].read(rows, seconds)
        return request

    def _pause(self, slots: Sequence[int], signal: int) -> None:
        """Lets members save what is done of the epoch; a signal then ends the training."""
        failed: list[SeqjaxError] = []
        states = self._at_work().states(slots)
        for slot in slots:
            member = self._members[slot]
            try:
                if member.state.progress == member.epoch.progress:  # It has not joined in yet.
                    member.tell(PauseEvent(member.state, signal))
                else:
                    member.pause(states[slot], signal)
            except SeqjaxError as error:  # The others are to be saved nevertheless.
                failed.append(error)
        for error in failed[1:] if len(failed) == len(slots) else failed:
            logger.warning("[WARNING] %s", error)
        if failed and len(failed) == len(slots):
            raise failed[0]
        if signal:
            raise stop_error(signal)

    def _evaluate(self, slots: Sequence[int]) -> dict[int, Evaluation]:
        if not slots:
            return {}
        found = self._at_work().evaluate({slot: self._members[slot].values for slot in slots})
        return {slot: self._members[slot].run.evaluator.result(sums) for slot, sums in found.items()}

    def _going(self) -> list[int]:
        return [slot for slot, member in self._members.items() if member.error is None]

    def _leave(self, ended: Ended) -> None:
        """Frees the slots of runs that are over."""
        for slot, member in list(self._members.items()):
            if member.is_over:
                del self._members[slot]
                ended(member)

    def _shrink(self, reason: str) -> list[Member]:
        """Makes half as many slots, or micro-batches half as large; the members go on where they were."""
        self._close()
        gc.collect()
        jax.clear_caches()
        size = self.run.order(1).batch_size
        if self.size > 1:
            self.size //= 2
            logger.warning("[WARNING] Out of memory: from now on %d runs are trained together.", self.size)
        elif 2 * self.micro_batches <= min(_MOST_MICRO_BATCHES, size) and jax.process_count() == 1:
            self.micro_batches *= 2
            logger.warning(
                "[WARNING] The device has too little memory: each batch is computed in %d parts from here "
                "on, which changes nothing but the time it takes.",
                self.micro_batches,
            )
        else:
            for member in self._members.values():
                if member.state.epoch or member.state.progress:
                    member.tell(PauseEvent(member.state, 0))
                member.error = TrainingError(
                    f"The device has too little memory for batches of {size} windows in {self.micro_batches} "
                    "parts. Set a smaller batch_size with more accumulation_steps, a shorter seq_length or a "
                    f"smaller model_spec. ({reason[:200]})"
                )
        back = [member for member in self._members.values() if not member.is_over]
        self._members = {slot: member for slot, member in self._members.items() if member.is_over}
        return back

    def _close(self) -> None:
        runner, self.runner, self._compiling = self.runner, None, None
        if runner is not None:
            runner.close()
