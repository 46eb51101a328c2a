"""Feeds: sources of batches, and compiled loops over many of them.

A *fold* runs a pure function `step(carry, batch, index, constants) -> carry` over some batches of an order.
Training and evaluation are both folds. Two feeds run the same steps with the same numbers:

* `ResidentFeed` keeps the data on the device: one compiled loop computes the order there, cuts each batch and
  runs any number of steps a dispatch, since the bounds of the loop are values.
* `StreamedFeed` has a `Loader` cut each batch on the host, for data that does not fit; the device computes
  meanwhile. Each process cuts the rows of its own devices alone.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple, ParamSpec, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Num, UInt

from seqjax.training.placement import Placement, Tree
from seqjax.windows.batches import Loader
from seqjax.windows.order import Grouping, Order, Updates, windows_at
from seqjax.windows.windows import Batch, Windows

Carry = TypeVar("Carry")
P = ParamSpec("P")
Index: TypeAlias = Any
"""Number of a batch: a traced scalar, or one of numpy where the host counts."""
Step = Callable[[Carry, Batch, Index, Tree], Carry]
Fold = Callable[[Carry, Tree, Tree, int, int], Carry]
"""(carry, constants, placed order, first batch, end) -> carry; the carry that is given is consumed."""

_AHEAD = 64
"""Most updates whose windows are found at once, before the loop that gathers them. Found where they are
used, they would be fused into the gathers, and computed anew for each element."""
_WINDOWS_AHEAD = 4096
"""Most windows that are found at once, unless an update has more: those beyond the end of a dispatch are
found for nothing."""

_MOST_LISTED = 1 << 18
"""Most windows that are listed though they could be computed."""

# A device counts rows, and the places of an order with what fills it up, in 32 bits.
_MOST_ROWS = 2**31 - 2**24


@dataclass(eq=False)
class Feed(ABC):
    """A source of batches.

    Args:
      windows: The data.
      columns: Which columns a batch holds.
      compiler_options: XLA's, for the compiled loops.
      placement: The devices; jax's default device if none are given.
    """

    windows: Windows
    columns: tuple[str, ...]
    _: KW_ONLY
    compiler_options: Mapping[str, Any] | None = None
    placement: Placement = field(default_factory=Placement)
    nbytes: int = field(init=False, default=0)
    """Bytes of data that stay on the device, on each if there are several."""

    def place(self, order: Order | Sequence[Order], *, accumulation: int = 1, micro_batches: int = 1) -> Tree:
        """Makes the batches of an order ready for folds, which see those of an update as one.

        Args:
          order: The batches. Of several orders, one for each member of a population, a batch has the rows of
            one member after those of the other; devices share members then rather than rows.
          accumulation: Batches an update.
          micro_batches: Micro-batches a batch.
        """
        orders = (order,) if isinstance(order, Order) else tuple(order)
        devices = self.placement.size if isinstance(order, Order) else 1
        grouping = Grouping(orders[0].batch_size, accumulation, micro_batches, devices)
        return self._place(Updates(orders, grouping))

    @abstractmethod
    def fold(self, step: Step[Carry], *, by_rows: bool = False) -> Fold[Carry]:
        """Compiles a step, once, into a loop over batches.

        Args:
          step: Computes the next carry from each batch.
          by_rows: Whether the carry is cut among the devices by its first axis, rather than on all alike.
        """

    @abstractmethod
    def _place(self, updates: Updates) -> Tree: ...

    def _compiled(self, function: Callable[P, Carry], *, by_rows: bool) -> Callable[P, Carry]:
        """Compiles a function that consumes its first argument; its result lies where `by_rows` says."""
        return jax.jit(
            function,
            donate_argnums=0,
            out_shardings=self.placement.rows if by_rows else self.placement.everywhere,
            compiler_options=dict(self.compiler_options or {}) or None,
        )


class Rows(NamedTuple):
    """A data set on the device, or on its way there: rows, and the R runs that windows are computed from."""

    columns: dict[str, Num[Any, "N"]]
    """Encoded rows; ids in the smallest integer type."""
    first_row: Int[Any, "R"]
    rows: Int[Any, "R"]
    """Number of rows of each run."""
    first_target: Int[Any, "R"] | None
    """The first row of each run, counted in it, that is a target; None where no run has context."""
    first_window: Int[Any, "R"] | None
    """Number of the first window of each run; None where each has one alone."""
    stride: Int[Any, ""]
    slots: Int[Any, ""]
    """Most items of a window as runs were cut; those that are shown are the newest."""
    min_history: Int[Any, ""]
    """Number of items before an item in its window without which it is no target."""


def rows_of(windows: Windows, columns: Sequence[str]) -> Rows:
    """The part of a data set that the device needs.

    Windows are listed one by one where they are few (finding their runs is saved then), or where their steps
    are not all alike.
    """
    runs = windows.runs
    values = {name: np.asarray(windows.columns[name]) for name in columns}
    has_context = bool(np.any(runs.first_target))
    if len(windows) <= _MOST_LISTED or not runs.is_even:
        listed = np.empty((3, len(windows)), np.int32)
        for begin in range(0, len(windows), _MOST_LISTED):
            some = np.arange(begin, min(begin + _MOST_LISTED, len(windows)))
            listed[:, some] = windows.start(some), windows.length(some), windows.first_target(some)
        start, length, target = listed
        numbers = start, length, target if has_context else None, None, 1, windows.seq_length + 1
    else:
        first_target = runs.first_target if has_context else None
        numbers = runs.first_row, runs.rows, first_target, runs.first_window, runs.stride, runs.seq_length + 1
    numbers = *numbers, windows.min_history
    return Rows(values, *(None if number is None else np.asarray(number, np.int32) for number in numbers))


class Place(NamedTuple):
    """Places of windows in the rows."""

    first_row: Int[Array, "*batch"]
    """Row of each window's first item."""
    padding: Int[Array, "*batch"]
    """Leading slots that hold no item."""
    first_target: Int[Array, "*batch"]
    """The first slot whose item is a target."""


def locate(rows: Rows, indices: Int[Array, "*batch"], slots: int) -> Place:
    """Finds windows.

    Args:
      rows: The data.
      indices: Numbers of windows; -1 gives one that is all padding.
      slots: L + 1.
    """
    run, offset = indices, jnp.zeros_like(indices)
    if rows.first_window is not None:
        run = jnp.searchsorted(rows.first_window, indices, side="right", method="scan_unrolled") - 1
        offset = (indices - rows.first_window[run]) * rows.stride
    whole = jnp.minimum(rows.rows[run], rows.slots)
    length = jnp.minimum(whole, slots)
    padding = jnp.where(indices < 0, slots, slots - length).astype(jnp.int32)
    first = offset + whole - length
    target = 0 if rows.first_target is None else rows.first_target[run] - first
    return Place(rows.first_row[run] + first, padding, padding + jnp.maximum(target, rows.min_history))


def gather(rows: Rows, place: Place, slots: int) -> Batch:
    """Gathers windows of L + 1 slots."""
    slot = jnp.arange(slots)[None] - place.padding[:, None]
    row = place.first_row[:, None] + jnp.maximum(slot, 0)
    columns = {name: _widened(jnp.where(slot < 0, 0, column[row])) for name, column in rows.columns.items()}
    return Batch(columns, place.padding, place.first_target)


def _widened(values: Num[Array, "B slots"]) -> Num[Array, "B slots"]:
    return values.astype(jnp.int32 if jnp.issubdtype(values.dtype, jnp.integer) else jnp.float32)


@partial(
    jax.tree_util.register_dataclass, data_fields=["n", "keys"], meta_fields=["grouping", "members", "ahead"]
)
@dataclass(frozen=True)
class PlacedOrder:
    """The numbers from which a compiled loop computes an order."""

    n: Int[Array, ""]
    """Number of windows."""
    keys: UInt[Array, "members rounds 2"] | None
    """Keys of each member's shuffle; None without one."""
    grouping: Grouping
    """The grouping of batches into updates; compiled in."""
    members: int
    """Number of orders whose rows an update has."""
    ahead: int
    """Updates whose windows are computed at once."""

    def batches(self, begin: Index) -> Int[Array, "ahead B"]:
        """The windows of the `ahead` updates from `begin` on; -1 in rows that fill up."""
        update = begin + jnp.arange(self.ahead)[:, None]
        places = self.grouping.places(update, jnp.arange(self.grouping.width), self.n)
        if self.keys is None:
            return jnp.tile(windows_at(places, self.n, None), self.members)
        each = jax.vmap(lambda keys: windows_at(places, self.n, keys), out_axes=1)(self.keys)
        return each.reshape(self.ahead, -1)


@dataclass(eq=False)
class ResidentFeed(Feed):
    """Batches that are cut on the device."""

    def __post_init__(self) -> None:
        self._slots = self.windows.seq_length + 1
        self._rows = self.placement.replicate(rows_of(self.windows, self.columns))
        self.nbytes = sum(leaf.nbytes for leaf in jax.tree.leaves(self._rows) if leaf.ndim)

    def _place(self, updates: Updates) -> PlacedOrder:
        """The few numbers from which the order is computed on the device."""
        keys = [order.keys for order in updates.orders if order.keys is not None]
        n = np.asarray(updates.orders[0].n, np.int32)
        n, keys = self.placement.replicate((n, np.stack(keys) if keys else None))
        width = len(updates.orders) * updates.grouping.width
        ahead = max(min(_AHEAD, _WINDOWS_AHEAD // width), 2)  # XLA dissolves a loop of one turn.
        return PlacedOrder(n, keys, updates.grouping, len(updates.orders), ahead)

    def fold(self, step: Step[Carry], *, by_rows: bool = False) -> Fold[Carry]:
        """A compiled loop over batches; its bounds are values, so that it is compiled once."""

        def loop(
            carry: Carry, constants: Tree, rows: Rows, order: PlacedOrder, bounds: tuple[Index, Index]
        ) -> Carry:
            def some(state: tuple[Index, Carry]) -> tuple[Index, Carry]:
                begin, carry = state
                end = jnp.minimum(begin + order.ahead, bounds[1])
                # A loop of its own, into which the arithmetic of the order is not fused either.
                places = jax.lax.map(lambda some: locate(rows, some, self._slots), order.batches(begin))

                def body(index: Int[Array, ""], carry: Carry) -> Carry:
                    place = jax.tree.map(lambda leaf: leaf[index - begin], places)
                    place = jax.lax.with_sharding_constraint(place, self.placement.rows)
                    return step(carry, gather(rows, place, self._slots), index, constants)

                return end, jax.lax.fori_loop(begin, end, body, carry)

            return jax.lax.while_loop(lambda state: state[0] < bounds[1], some, (bounds[0], carry))[1]

        compiled = self._compiled(loop, by_rows=by_rows)

        def fold(carry: Carry, constants: Tree, order: Tree, begin: int, end: int) -> Carry:
            bounds = np.int32(begin), np.int32(end)
            placed = carry if by_rows else self.placement.ensure_replicated(carry)
            return compiled(placed, constants, self._rows, order, bounds)

        return fold


@dataclass(eq=False)
class StreamedFeed(Feed):
    """Batches that are cut on the host.

    Args:
      loader: What gathers batches; None gathers each when it is needed.
    """

    loader: Loader | None = None
    waited: float = field(init=False, default=0.0)
    """Seconds that the host has spent on getting batches."""

    def _place(self, updates: Updates) -> "Stream":
        """The rows of the updates that this process reads."""
        own = self.placement.own_rows(updates.batch_size)
        return Stream(replace(updates, rows=own), self.loader or Loader(self.windows, self.columns))

    def fold(self, step: Step[Carry], *, by_rows: bool = False) -> Fold[Carry]:
        """A loop on the host over a compiled step."""
        compiled = self._compiled(step, by_rows=by_rows)

        def fold(carry: Carry, constants: Tree, stream: "Stream", begin: int, end: int) -> Carry:
            carry = carry if by_rows else self.placement.ensure_replicated(carry)
            for index in range(begin, end):
                before = time.perf_counter()
                own = stream.batch(index)
                self.waited += time.perf_counter() - before
                batch = Batch(
                    {name: self.placement.from_local_rows(column) for name, column in own.columns.items()},
                    self.placement.from_local_rows(own.padding),
                    self.placement.from_local_rows(own.first_target),
                )
                carry = compiled(carry, batch, np.int32(index), constants)
            return carry

        return fold


class Stream:
    """Batches of an order by number; going through them in turn is what it is fast at."""

    def __init__(self, updates: Updates, loader: Loader) -> None:
        self._updates = updates
        self._loader = loader
        self._next = 0
        # A generator that is dropped is closed, and its threads end.
        self._batches: Iterator[Batch] | None = None

    def batch(self, number: int) -> Batch:
        """A batch."""
        if self._batches is None or number != self._next:
            self._batches = self._loader.batches(self._updates, number)
        batch = next(self._batches)
        self._next = number + 1
        if self._next == len(self._updates):
            self._batches = None
        return batch


def fits(windows: Windows, columns: Sequence[str], *, limit: float | None) -> bool:
    """Tells whether a data set can be kept on a device.

    Args:
      windows: The data.
      columns: Which columns a batch holds.
      limit: Bytes that it may take there; None knows no limit.
    """
    size = sum(windows.columns[name].nbytes for name in columns)
    size += 8 * (min(_MOST_LISTED, len(windows)) if windows.runs.is_even else len(windows))
    rows = max(len(windows), *(len(windows.columns[name]) for name in columns))
    return rows < _MOST_ROWS and (limit is None or size <= limit)
