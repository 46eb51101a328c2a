"""How a device works on the members of a population: all at once, or one after the other.

A runner has slots, and each slot holds the state of a member. Members share compiled programs and differ in
their `Work`. Three runners compute the same, and differ in rounding at most:

* `Stacked` with `vmap` computes all slots in one operation each: small products become large ones, which is
  what an accelerator is good at. Every slot is computed, whether or not it has a member.
* `Stacked` with `map` goes through the slots that have members inside of the compiled program, which saves
  small models the overhead of many dispatches.
* `Loop` runs a program for one member as often as there are members, and moves no state of theirs. On a CPU
  as many members as there are cores are under way at once.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from seqjax.runtime import available_cores
from seqjax.training.batch import Batch, Tree
from seqjax.training.epoch import grouped
from seqjax.training.evaluate import Evaluator, Found, dispatches
from seqjax.training.feed import Feed, ResidentFeed, Step
from seqjax.training.objective import with_numbers, without_smoothing
from seqjax.training.placement import Placement
from seqjax.training.state import TrainState, to_host
from seqjax.training.step import Constants, Recipe, Report, Values, build_step, empty_report
from seqjax.training.threads import Threads

Kind: TypeAlias = Literal["vmap", "map", "loop"]
Order: TypeAlias = Int[np.ndarray, "n B"]


@dataclass(frozen=True)
class Programs:
    """What the members of a population have in common."""

    recipe: Recipe
    """Its numbers are used where a member brings none of its own."""
    evaluator: Evaluator
    training: Feed
    validation: Feed
    validation_order: Order
    placement: Placement | None = None
    """The devices of the feeds, where there are several: members are shared out among them."""


class Work(NamedTuple):
    """What a member does in an epoch."""

    order: Order
    """Its windows by batch."""
    constants: Constants
    """Its learning rates, key and numbers."""


class Runner(Protocol):
    """Slots on a device."""

    def compile(self, state: TrainState, work: Work) -> None:
        """Compiles what members of this kind need, before there are any.

        Args:
          state: Of the shapes that members have.
          work: Likewise.
        """
        ...

    def put(self, slot: int, state: TrainState) -> None:
        """Gives a slot a state, which is copied."""
        ...

    def begin(self, work: Mapping[int, Work]) -> None:
        """Says what the members do in the epoch that follows, by slot; other slots are of no interest."""
        ...

    def train(self, low: int, high: int) -> Tree:
        """Sends the updates from `low` to `high`; `read` says what they found."""
        ...

    def read(self, sent: Tree) -> dict[int, Report]:
        """What updates found, in host memory, by slot."""
        ...

    def evaluate(self, values: Mapping[int, Values]) -> dict[int, list[Found]]:
        """Evaluates the members; sums by slot, in host memory.

        Args:
          values: The members' own numbers, by slot.
        """
        ...

    def states(self, slots: Sequence[int]) -> dict[int, TrainState]:
        """Copies of the members' states in host memory."""
        ...

    def close(self) -> None:
        """Drops the members' states, and what was sent and is not begun; the runner is not used again."""
        ...


class Loop:
    """One member after the other, with the programs of one.

    On a CPU, threads send the members, one for each core: the operations of a small model are too short to
    be shared among cores, and two such models on two cores take 1.2 to 1.4 times less time side by side than
    in turn.
    """

    def __init__(self, programs: Programs) -> None:
        self._programs = programs
        self._placement = programs.placement or Placement()
        self._update = programs.training.fold(build_step(programs.recipe))
        self._evaluation = programs.validation.fold(evaluation_step(programs.evaluator))
        self._known = programs.validation.place(programs.validation_order)
        self._nothing = to_host((empty_report(programs.recipe.targets), programs.evaluator.empty()))
        self._threads = Threads(_at_once(programs), "members")
        self._states: dict[int, TrainState] = {}
        self._work: dict[int, tuple[Tree, Constants]] = {}
        self._sent: dict[int, Future[Report]] = {}

    def compile(self, state: TrainState, work: Work) -> None:
        """As `Runner.compile`."""
        carry = self._placement.copied((state, self._nothing[0]))
        params, empty, constants = self._placement.copied((state.params, self._nothing[1], work.constants))
        order = self._placed_order(work.order)
        update = self._threads.submit(self._update, carry, constants, order, 0, 0)
        self._evaluation(empty, (params, constants.values), self._known, 0, 0)
        update.result()

    def put(self, slot: int, state: TrainState) -> None:
        """As `Runner.put`."""
        self._states[slot] = self._placement.copied(state)

    def begin(self, work: Mapping[int, Work]) -> None:
        """As `Runner.begin`."""
        self._work = {
            slot: (self._placed_order(one.order), self._placement.copied(one.constants))
            for slot, one in work.items()
        }
        self._sent = {}

    def _placed_order(self, order: Order) -> Tree:
        """Windows by batch, as updates that all devices share."""
        devices = self._placement.size
        return self._programs.training.place(
            grouped(order, self._programs.recipe.accumulation, devices=devices)
        )

    def train(self, low: int, high: int) -> Tree:
        """As `Runner.train`."""
        self._sent = {
            slot: self._threads.submit(self._trained, slot, self._sent.get(slot), low, high)
            for slot in self._work
        }
        return self._sent

    def _trained(self, slot: int, before: "Future[Report] | None", low: int, high: int) -> Report:
        if before is not None:
            before.result()  # The member's own updates come in turn.
        order, constants = self._work[slot]
        carry = self._states[slot], self._placement.copied(self._nothing[0])
        self._states[slot], report = self._update(carry, constants, order, low, high)
        return to_host(report)

    def read(self, sent: Tree) -> dict[int, Report]:
        """As `Runner.read`."""
        return {slot: report.result() for slot, report in sent.items()}

    def evaluate(self, values: Mapping[int, Values]) -> dict[int, list[Found]]:
        """As `Runner.evaluate`."""
        found = {slot: self._threads.submit(self._evaluated, slot, own) for slot, own in values.items()}
        return {slot: parts.result() for slot, parts in found.items()}

    def _evaluated(self, slot: int, values: Values) -> list[Found]:
        constants = self._states[slot].params, self._placement.copied(_arrays(values))
        return [
            to_host(
                self._evaluation(self._placement.copied(self._nothing[1]), constants, self._known, *bounds)
            )
            for bounds in dispatches(len(self._programs.validation_order))
        ]

    def states(self, slots: Sequence[int]) -> dict[int, TrainState]:
        """As `Runner.states`."""
        return {slot: to_host(self._states[slot]) for slot in slots}

    def close(self) -> None:
        """As `Runner.close`."""
        self._threads.close()
        self._states, self._work, self._sent = {}, {}, {}


class Stacked:
    """All members in arrays whose first axis is the slot.

    Args:
      programs: What they have in common.
      slots: Their number.
      kind: vmap or map.
    """

    def __init__(self, programs: Programs, slots: int, kind: Kind) -> None:
        self._programs = programs
        placement = programs.placement or Placement()
        self._is_spread = placement.size > 1
        self._sharding = placement.rows if self._is_spread else placement.everywhere
        self._slots = slots + -slots % placement.size
        step, evaluation = build_step(programs.recipe), evaluation_step(programs.evaluator)
        self._shared = programs.training.fold(_batched(step, kind, own_batches=False))
        self._own = programs.training.fold(_batched(step, kind, own_batches=True), by_rows=self._is_spread)
        self._evaluation = programs.validation.fold(
            _batched(evaluation, kind, own_batches=False), by_rows=self._is_spread
        )
        self._known = programs.validation.place(programs.validation_order)
        self._insert = jax.jit(_inserted, donate_argnums=0)
        self._states: TrainState | None = None
        self._work: tuple[Callable[..., Tree], Tree, Tree] | None = None
        self._active: tuple[int, ...] = ()

    def compile(self, state: TrainState, work: Work) -> None:
        """As `Runner.compile`."""
        self.put(0, state)
        self.begin({0: work})
        self.train(0, 0)
        self.evaluate({0: dict(work.constants.values or {})})

    def put(self, slot: int, state: TrainState) -> None:
        """As `Runner.put`."""
        if self._states is None:
            self._states = self._placed(
                jax.tree.map(
                    lambda leaf: jnp.broadcast_to(jnp.asarray(leaf), (self._slots, *np.shape(leaf))).copy(),
                    state,
                )
            )
        else:
            self._states = self._placed(self._insert(self._states, state, np.int32(slot)))

    def begin(self, work: Mapping[int, Work]) -> None:
        """As `Runner.begin`."""
        self._active = tuple(work)
        # A slot without a member does what another does; nobody looks at it.
        filled = [work.get(slot, work[self._active[0]]) for slot in range(self._slots)]
        constants = self._placed((self._occupied(work), _stacked([one.constants for one in filled])))
        orders = [grouped(one.order, self._programs.recipe.accumulation) for one in filled]
        if not self._is_spread and all(np.array_equal(order, orders[0]) for order in orders):
            self._work = self._shared, self._programs.training.place(orders[0]), constants
        else:
            joined = np.concatenate(orders, axis=1)
            self._work = self._own, self._programs.training.place(joined), constants

    def train(self, low: int, high: int) -> Tree:
        """As `Runner.train`."""
        assert self._work is not None
        fold, order, constants = self._work
        empty = self._placed(_stacked([empty_report(self._programs.recipe.targets)] * self._slots))
        self._states, reports = fold((self._states, empty), constants, order, low, high)
        return reports

    def read(self, sent: Tree) -> dict[int, Report]:
        """As `Runner.read`."""
        fetched = jax.device_get(sent)
        return {slot: _at(fetched, slot) for slot in self._active}

    def evaluate(self, values: Mapping[int, Values]) -> dict[int, list[Found]]:
        """As `Runner.evaluate`."""
        assert self._states is not None
        some = next(iter(values.values()))
        own = self._placed(_stacked([_arrays(values.get(slot, some)) for slot in range(self._slots)]))
        empty = _stacked([self._programs.evaluator.empty()] * self._slots)
        constants = self._placed(self._occupied(values)), (self._states.params, own)
        found = [
            self._evaluation(self._placed(copied(empty)), constants, self._known, *bounds)
            for bounds in dispatches(len(self._programs.validation_order))
        ]
        fetched = jax.device_get(found)
        return {slot: [_at(part, slot) for part in fetched] for slot in values}

    def states(self, slots: Sequence[int]) -> dict[int, TrainState]:
        """As `Runner.states`."""
        fetched = jax.device_get(self._states)
        return {slot: to_host(_at(fetched, slot)) for slot in slots}  # A view would hold all of it.

    def close(self) -> None:
        """As `Runner.close`."""
        self._states, self._work = None, None

    def _occupied(self, members: Mapping[int, object]) -> Bool[np.ndarray, "slots"]:
        """Which slots have members."""
        return np.isin(np.arange(self._slots), list(members))

    def _placed(self, tree: Tree) -> Tree:
        """A stack, with each device's members on it."""
        return jax.device_put(tree, self._sharding)


def build_runner(kind: Kind, programs: Programs, slots: int) -> Runner:
    """A runner of a kind."""
    return Loop(programs) if kind == "loop" else Stacked(programs, slots, kind)


def _at_once(programs: Programs) -> int:
    """How many members may be under way together, each sent by a thread of its own.

    Those of an accelerator compute in turn anyway, several devices must be sent their work in one order, and
    data that is read while training goes on is read by one at a time.
    """
    placement = programs.placement or Placement()
    is_resident = all(isinstance(feed, ResidentFeed) for feed in (programs.training, programs.validation))
    return available_cores() if placement.is_cpu and placement.size == 1 and is_resident else 1


def evaluation_step(evaluator: Evaluator) -> Step[Found]:
    """A step of an evaluation whose constants are (parameters, a member's own numbers)."""

    def step(found: Found, batch: Batch, index: Int[Array, ""], constants: tuple[Tree, Values]) -> Found:
        params, values = constants
        targets = without_smoothing(with_numbers(evaluator.targets, values.get("targets", {})))
        own = replace(evaluator, targets=targets)
        return own.step(found, batch, index, params)

    return step


def copied(tree: Tree) -> Tree:
    """A tree of device arrays with buffers of their own, which a step may consume."""
    return jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), tree)


def _batched(step: Step[Any], kind: Kind, *, own_batches: bool) -> Step[Any]:
    """A step of all members: carry and constants have a first axis of slots.

    Its constants are (which slots have members, the constants of each slot).

    Args:
      step: That of one.
      kind: vmap or map.
      own_batches: Whether the rows of a batch are those of the members, one after the other.
    """

    def all_of_them(carry: Tree, batch: Batch, index: Int[Array, ""], constants: Tree) -> Tree:
        occupied, of_each = constants
        slots = len(occupied)

        def one(part: tuple[Tree, Batch | None, Tree]) -> Tree:
            carry, own, constants = part
            return step(carry, batch if own is None else own, index, constants)

        def one_if_there(part: tuple[Bool[Array, ""], tuple[Tree, Batch | None, Tree]]) -> Tree:
            return jax.lax.cond(part[0], one, lambda part: part[0], part[1])

        own = None
        if own_batches:
            own = jax.tree.map(lambda leaf: leaf.reshape(slots, -1, *leaf.shape[1:]), batch)
        parts = carry, own, of_each
        return jax.lax.map(one_if_there, (occupied, parts)) if kind == "map" else jax.vmap(one)(parts)

    return all_of_them


def _arrays(values: Values) -> Tree:
    return jax.tree.map(jnp.asarray, values)


def _stacked(trees: Sequence[Tree]) -> Tree:
    return jax.tree.map(lambda *leaves: jnp.stack(list(map(jnp.asarray, leaves))), *trees)


def _inserted(states: Tree, state: Tree, slot: Int[Array, ""]) -> Tree:
    return jax.tree.map(lambda all_, one: all_.at[slot].set(one), states, state)


def _at(tree: Tree, slot: int) -> Tree:
    return jax.tree.map(lambda leaf: leaf[slot], tree)
