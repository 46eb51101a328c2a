"""Compiled programs at work: on one run, or on the members of a population.

A runner has slots, and each slot holds the state of a run. Runs share compiled programs and differ in their
`Work`. Two runners compute the same, and differ in rounding at most:

* `Stacked` computes all slots in one operation each (`vmap`): small products become large ones, which is what
  an accelerator is good at, and a batch is read once for all. Every slot is computed, whether or not it has a
  run.
* `Loop` runs a program for one as often as there are runs, and moves no state of theirs. On a CPU as many
  runs as there are cores are under way at once.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Literal, ParamSpec, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from seqjax.config.train import TrainConfig
from seqjax.runtime import available_cores
from seqjax.training.devices import Device
from seqjax.training.epoch import Epoch
from seqjax.training.evaluate import CompiledEvaluator, Found, batched
from seqjax.training.feed import ResidentFeed
from seqjax.training.placement import Tree, is_key, to_host
from seqjax.training.setup import Run
from seqjax.training.step import TABLE_ROWS, Constants, TrainState, Values, build_step, empty_table

Kind: TypeAlias = Literal["vmap", "loop"]
P = ParamSpec("P")
Result = TypeVar("Result")

_SHARE = 0.8  # Of an accelerator's memory that a population may take; too much is mended by halving it.
_COPIES = 5  # Parameters, gradients, two statistics of the optimizer, and room to write the next state.
_MOST_ON_A_CPU = 64


class Threads:
    """Threads that take up calls in the order in which these come, under the jax settings of whoever asks.

    Which device is the default and how wide numbers are is each thread's own affair with jax, so that a call
    in another thread has to be given them.

    Args:
      count: Number of threads; 0 makes each call at once, in the thread of the caller.
      name: What they are called.
    """

    def __init__(self, count: int, name: str) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count, name) if count else None

    def submit(self, function: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> "Future[Result]":
        """Has a thread call a function."""
        if self._pool is None:
            done: Future[Result] = Future()
            done.set_result(function(*args, **kwargs))
            return done
        settings: Any = jax.config  # Has these attributes; they are not declared.
        device, is_wide = settings.jax_default_device, settings.jax_enable_x64

        def call() -> Result:
            with jax.default_device(device), jax.enable_x64(is_wide):
                return function(*args, **kwargs)

        return self._pool.submit(call)

    def close(self) -> None:
        """Drops the calls that are not begun, and waits for those that are."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


Read: TypeAlias = Callable[[], dict[int, Float[np.ndarray, "n columns"]]]
"""Waits for updates; returns their rows of the loss tables, by slot."""


class _Slots:
    """The programs that the slots of a runner share.

    Args:
      run: One of the runs: its recipe and data are compiled, with its numbers where an epoch brings none.
      slots: Number of runs that there is room for.
      micro_batches: Into how many parts each batch is cut, for want of memory.
    """

    def __init__(self, run: Run, slots: int, micro_batches: int) -> None:
        self._run = run
        self._slots = slots
        self._sizes = {"accumulation": run.recipe.accumulation, "micro_batches": micro_batches}
        self._step = build_step(replace(run.recipe, accumulation=run.recipe.accumulation * micro_batches))
        size = -(-run.validation_order.batch_size // micro_batches)
        self._known = replace(run.validation_order, batch_size=size)
        self._no_table = empty_table(run.recipe.targets)


class Loop(_Slots):
    """One run after the other, with the programs of one.

    On a CPU, threads send the runs, one for each core: the operations of a small model are too short to be
    shared among cores, and two such models on two cores take 1.2 to 1.4 times less time side by side than in
    turn.
    """

    def __init__(self, run: Run, slots: int, micro_batches: int) -> None:
        super().__init__(run, slots, micro_batches)
        self._update = run.training.fold(self._step)
        self._evaluator = CompiledEvaluator(run.evaluator, run.validation, self._known, run.placement)
        self._threads = Threads(_at_once(run) if slots > 1 else 0, "members")
        self._states: dict[int, TrainState] = {}
        # A table is read while the next updates fill the other one.
        self._tables: dict[int, list[Array]] = {}
        self._work: dict[int, tuple[Tree, Constants]] = {}
        self._sent: dict[int, Future[Any]] = {}

    def compile(self, state: TrainState, epoch: Epoch) -> None:
        """Compiles what runs of this kind need, before there are any.

        Args:
          state: Of the shapes that runs have.
          epoch: Likewise.
        """
        carry = self._run.placement.replicate((state, self._no_table))
        params, constants = self._run.placement.replicate((state.params, epoch.constants))
        order = self._run.training.place(epoch.order, **self._sizes)
        update = self._threads.submit(self._update, carry, constants, order, 0, 0)
        self._evaluator.compile(params, constants.values)
        update.result()

    def put(self, slot: int, state: TrainState) -> None:
        """Gives a slot a state, which is copied."""
        self._states[slot] = self._run.placement.replicate(state)
        self._tables[slot] = [*self._run.placement.replicate((self._no_table, self._no_table))]

    def begin(self, epochs: Mapping[int, Epoch]) -> None:
        """Takes the epoch that follows of each slot; other slots are of no interest."""
        place, replicate = self._run.training.place, self._run.placement.replicate
        self._sent = {}
        self._work = {
            slot: (place(epoch.order, **self._sizes), replicate(epoch.constants))
            for slot, epoch in epochs.items()
        }

    def train(self, slots: Sequence[int], low: int, high: int) -> Read:
        """Sends the updates from `low` to `high`, `TABLE_ROWS` at most, of some slots at least."""
        for slot in slots:
            self._sent[slot] = self._threads.submit(self._trained, slot, self._sent.get(slot), low, high)
        sent = {slot: self._sent[slot] for slot in slots}
        return lambda: {slot: np.asarray(table.result())[_rows(low, high)] for slot, table in sent.items()}

    def _trained(self, slot: int, before: "Future[Any] | None", low: int, high: int) -> Array | np.ndarray:
        if before is not None:
            before.result()  # A run's own updates come in turn.
        order, constants = self._work[slot]
        carry = self._states[slot], self._tables[slot].pop(0)
        self._states[slot], table = self._update(carry, constants, order, low, high)
        self._tables[slot].append(table)
        return to_host(table) if self._threads.count else table

    def evaluate(self, values: Mapping[int, Values]) -> dict[int, list[Found]]:
        """Evaluates runs; sums by slot, in host memory.

        Args:
          values: The runs' own numbers, by slot.
        """
        found = {slot: self._threads.submit(self._evaluated, slot, own) for slot, own in values.items()}
        return {slot: to_host(sums.result()) for slot, sums in found.items()}

    def _evaluated(self, slot: int, values: Values) -> list[Found]:
        found = self._evaluator(self._states[slot].params, self._run.placement.replicate(values))
        return jax.block_until_ready(found) if self._threads.count else found

    def states(self, slots: Sequence[int]) -> dict[int, TrainState]:
        """Copies of states in host memory."""
        return {slot: to_host(self._states[slot]) for slot in slots}

    def close(self) -> None:
        """Drops the states, and what was sent and is not begun; the runner is not used again."""
        self._threads.close()
        self._states, self._tables, self._work, self._sent = {}, {}, {}, {}


class Stacked(_Slots):
    """All runs in arrays whose first axis is the slot. Several devices share out the slots among them."""

    def __init__(self, run: Run, slots: int, micro_batches: int) -> None:
        placement = run.placement
        super().__init__(run, slots + -slots % placement.size, micro_batches)
        self._is_spread = placement.size > 1
        self._sharding = placement.rows if self._is_spread else placement.everywhere
        self._shared = run.training.fold(batched(self._step))
        self._own = run.training.fold(batched(self._step, own_batches=True), by_rows=self._is_spread)
        self._evaluator = CompiledEvaluator(
            run.evaluator, run.validation, self._known, placement, slots=self._slots
        )
        self._insert = jax.jit(_inserted, donate_argnums=0)
        self._states: TrainState | None = None
        self._tables: list[Array] = []
        self._work: tuple[Callable[..., Tree], Tree, Tree] | None = None

    def compile(self, state: TrainState, epoch: Epoch) -> None:
        """Compiles what runs of this kind need, before there are any: see `Loop`."""
        self.put(0, state)
        self.begin({0: epoch})
        self.train([0], 0, 0)
        self.evaluate({0: dict(epoch.constants.values or {})})

    def put(self, slot: int, state: TrainState) -> None:
        """Gives a slot a state, which is copied."""
        if self._states is None:
            self._states = self._place(_stacked([state] * self._slots))
            self._tables = [self._place(_stacked([self._no_table] * self._slots)) for _ in range(2)]
        else:
            self._states = self._place(self._insert(self._states, state, np.int32(slot)))

    def begin(self, epochs: Mapping[int, Epoch]) -> None:
        """Takes the epoch that follows of each slot."""
        # A slot without a run does what another does; nobody looks at it.
        first = next(iter(epochs.values()))
        filled = [epochs.get(slot, first) for slot in range(self._slots)]
        constants = self._place(_stacked([epoch.constants for epoch in filled]))
        orders = [epoch.order for epoch in filled]
        if not self._is_spread and all(order == orders[0] for order in orders):
            self._work = self._shared, self._run.training.place(orders[0], **self._sizes), constants
        else:
            self._work = self._own, self._run.training.place(orders, **self._sizes), constants

    def train(self, slots: Sequence[int], low: int, high: int) -> Read:
        """Sends the updates from `low` to `high`, `TABLE_ROWS` at most, of all slots."""
        assert self._work is not None
        fold, order, constants = self._work
        self._states, table = fold((self._states, self._tables.pop(0)), constants, order, low, high)
        self._tables.append(table)

        def read() -> dict[int, Float[np.ndarray, "n columns"]]:
            rows = np.asarray(table)[:, _rows(low, high)]
            return {slot: rows[slot] for slot in slots}

        return read

    def evaluate(self, values: Mapping[int, Values]) -> dict[int, list[Found]]:
        """Evaluates runs with numbers of their own; sums by slot, in host memory."""
        assert self._states is not None
        some = next(iter(values.values()))
        own = self._place(_stacked([values.get(slot, some) for slot in range(self._slots)]))
        fetched = jax.device_get(self._evaluator(self._states.params, own))
        return {slot: [_at(sums, slot) for sums in fetched] for slot in values}

    def states(self, slots: Sequence[int]) -> dict[int, TrainState]:
        """Copies of states in host memory."""
        fetched = jax.device_get(self._states)
        return {slot: to_host(_at(fetched, slot)) for slot in slots}  # A view would hold all of it.

    def close(self) -> None:
        """Drops the states; the runner is not used again."""
        self._states, self._tables, self._work = None, [], None

    def _place(self, tree: Tree) -> Tree:
        """A stack, with each device's slots on it, in buffers of its own."""
        return jax.device_put(tree, self._sharding, may_alias=False)


def suited(device: Device, *, is_resident: bool, runs: int) -> Kind:
    """The runner that is fastest on a device.

    On a CPU, `loop` is compiled soonest, and takes less wall time but for tiny models, which gain a tenth by
    `vmap` (docs/benchmarks/sweep.json). What `loop` does not do is to read a batch once for all runs.

    Args:
      device: Where the runs are trained.
      is_resident: Whether their data is in the device's memory.
      runs: How many there are.
    """
    return "loop" if runs == 1 or (device.platform == "cpu" and is_resident) else "vmap"


def is_too_wide(kind: Kind, device: Device, *, slots: int, runs: int) -> bool:
    """Tells whether to make a population anew for fewer runs, since its empty slots are computed as well.

    On a CPU compiling takes longer than that, for models that are small enough to be joined.

    Args:
      kind: How the device works on them.
      device: Where they are trained.
      slots: Of the population.
      runs: How many there are to train.
    """
    return kind == "vmap" and device.platform != "cpu" and 2 * runs <= slots


def fitting(config: TrainConfig, parameter_bytes: int, device: Device) -> int:
    """The number of runs that are likely to fit into a device's memory.

    Args:
      config: One of the runs.
      parameter_bytes: Size of its parameters.
      device: Where they are trained.
    """
    limit = None if device.platform == "cpu" else (device.memory_stats() or {}).get("bytes_limit")
    if limit is None:
        return _MOST_ON_A_CPU
    # What a backward pass keeps of the forward pass, roughly, in float32.
    spec, positions = config.model_spec, config.training_spec.batch_size * config.seq_length
    layer = 16 * spec.dim_model + 4 * spec.dim_feedforward + 3 * spec.n_head * config.seq_length
    activations = 4 * positions * (spec.num_layers * layer + 8 * spec.dim_model)
    return max(1, math.floor(_SHARE * limit / (_COPIES * parameter_bytes + activations)))


def bytes_of(tree: Tree) -> int:
    """The size of arrays, or of what has their shapes."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _at_once(run: Run) -> int:
    """The number of runs that may be under way together, each sent by a thread of its own.

    Those of an accelerator compute in turn anyway, several devices must be sent their work in one order, and
    data that is read while training goes on is read by one at a time.
    """
    placement = run.placement
    is_resident = all(isinstance(feed, ResidentFeed) for feed in (run.training, run.validation))
    return available_cores() if placement.is_cpu and placement.size == 1 and is_resident else 1


def _rows(low: int, high: int) -> Int[np.ndarray, "n"]:
    """The rows of a table in which the updates from `low` to `high` are."""
    return np.arange(low, high) % TABLE_ROWS


def _stacked(trees: Sequence[Tree]) -> Tree:
    """Trees as one with a first axis, in host memory; keys of jax.random are stacked where they are."""
    return jax.tree.map(
        lambda *leaves: jnp.stack(leaves) if is_key(leaves[0]) else np.stack(jax.device_get(leaves)), *trees
    )


def _inserted(states: Tree, state: Tree, slot: Int[Array, ""]) -> Tree:
    return jax.tree.map(lambda all_, one: all_.at[slot].set(one), states, state)


def _at(tree: Tree, slot: int) -> Tree:
    return jax.tree.map(lambda leaf: leaf[slot], tree)
