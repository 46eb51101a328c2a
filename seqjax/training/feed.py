"""Where batches come from, and how a computation runs over many of them.

A *fold* runs a pure function `step(carry, batch, index, constants) -> carry` over some batches of an order.
Training and evaluation are both folds. Two feeds run the same steps with the same numbers:

* `ResidentFeed` keeps the data on the device: one compiled loop cuts each batch there and runs any number
  of steps a dispatch, since the bounds of the loop are values.
* `StreamedFeed` cuts each batch on the host, for data that does not fit, or has it cut ahead by a `Reader`;
  the device computes meanwhile. Each process cuts the rows of its own devices alone.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, Protocol, TypeAlias, TypeVar, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Int

from seqjax.training.batch import Batch, HostBatch, Rows, Tree, WindowSource, take
from seqjax.training.placement import Placement

Carry = TypeVar("Carry")
P = ParamSpec("P")
Index: TypeAlias = Any
"""Number of a batch: a traced scalar, or one of numpy where the host counts."""
Step = Callable[[Carry, Batch, Index, Tree], Carry]
Fold = Callable[[Carry, Tree, Tree, int, int], Carry]
"""(carry, constants, placed order, first batch, end) -> carry; the carry that is given is consumed."""
Order: TypeAlias = Int[np.ndarray, "n B"]


class Batches(Protocol):
    """Batches of an order, one after the other."""

    def __next__(self) -> HostBatch: ...

    def close(self) -> None:
        """Ends what reads ahead."""
        ...


Reader: TypeAlias = Callable[[Order, int], Batches]
"""(order, first batch) -> its batches from there on."""


@runtime_checkable
class Feed(Protocol):
    """A source of batches."""

    def place(self, order: Int[np.ndarray, "n B"]) -> Tree:
        """Makes an order (numbers of windows by batch, -1 for a row of padding) ready for folds."""
        ...

    def fold(self, step: Step[Carry], *, by_rows: bool = False) -> Fold[Carry]:
        """Compiles a step, once, into a loop over batches.

        Args:
          step: What is done with each batch.
          by_rows: Whether the carry is cut among the devices by its first axis, rather than on all alike.
        """
        ...


class ResidentFeed:
    """Batches that are cut on the device."""

    def __init__(
        self,
        windows: WindowSource,
        columns: tuple[str, ...],
        *,
        compiler_options: Mapping[str, Any] | None = None,
        placement: Placement | None = None,
    ) -> None:
        self._options = dict(compiler_options or {})
        self._placement = placement or Placement()
        self._slots = windows.seq_length + 1
        self._rows = Rows(
            self._placement.copied({name: np.asarray(windows.columns[name]) for name in columns}),
            self._placement.copied(windows.start.astype(np.int32)),
            self._placement.copied(windows.length.astype(np.int32)),
        )

    @property
    def nbytes(self) -> int:
        """Bytes of data that stay on the device, on each if there are several."""
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self._rows))

    def place(self, order: Order) -> Int[Array, "n B"]:
        """The order on the device."""
        return self._placement.cut(order)

    def fold(self, step: Step[Carry], *, by_rows: bool = False) -> Fold[Carry]:
        """A compiled loop over batches; its bounds are values, so that it is compiled once."""

        def loop(
            carry: Carry, constants: Tree, rows: Rows, order: Int[Array, "n B"], bounds: tuple[Index, Index]
        ) -> Carry:
            def body(index: Int[Array, ""], carry: Carry) -> Carry:
                return step(carry, take(rows, order[index], self._slots), index, constants)

            return jax.lax.fori_loop(bounds[0], bounds[1], body, carry)

        compiled = _compiled(loop, self._placement, self._options, by_rows=by_rows)

        def fold(carry: Carry, constants: Tree, order: Tree, begin: int, end: int) -> Carry:
            bounds = np.int32(begin), np.int32(end)
            placed = carry if by_rows else self._placement.placed(carry)
            return compiled(placed, constants, self._rows, order, bounds)

        return fold


class StreamedFeed:
    """Batches that are cut on the host.

    Args:
      windows: The data.
      columns: Which columns a batch holds.
      compiler_options: XLA's, for the compiled step.
      placement: The devices.
      reader: What cuts batches ahead; null cuts each when it is needed.
    """

    def __init__(
        self,
        windows: WindowSource,
        columns: tuple[str, ...],
        *,
        compiler_options: Mapping[str, Any] | None = None,
        placement: Placement | None = None,
        reader: Reader | None = None,
    ) -> None:
        self._options = dict(compiler_options or {})
        self._placement = placement or Placement()
        self._reader = reader or (lambda order, begin: _InTurn(windows, columns, order, begin))
        self.nbytes = 0
        """Bytes of data that stay on the device: none."""
        self.waited = 0.0
        """Seconds that the host has spent on getting batches."""

    def place(self, order: Order) -> "Stream":
        """The part of the order that this process reads."""
        return Stream(self._placement.own_columns(order), self._reader)

    def fold(self, step: Step[Carry], *, by_rows: bool = False) -> Fold[Carry]:
        """A loop on the host over a compiled step."""
        compiled = _compiled(step, self._placement, self._options, by_rows=by_rows)

        def fold(carry: Carry, constants: Tree, stream: "Stream", begin: int, end: int) -> Carry:
            carry = carry if by_rows else self._placement.placed(carry)
            for index in range(begin, end):
                before = time.perf_counter()
                own = stream.batch(index)
                self.waited += time.perf_counter() - before
                batch = Batch(
                    {name: self._placement.joined(column) for name, column in own.columns.items()},
                    self._placement.joined(own.padding),
                )
                carry = compiled(carry, batch, np.int32(index), constants)
            return carry

        return fold


class Stream:
    """Batches of an order by number; going through them in turn is what it is fast at."""

    def __init__(self, order: Order, reader: Reader) -> None:
        self._order = order
        self._reader = reader
        self._next = 0
        self._batches: Batches | None = None

    def batch(self, number: int) -> HostBatch:
        """A batch."""
        if self._batches is None or number != self._next:
            self._close()
            self._batches = self._reader(self._order, number)
        found = next(self._batches)
        self._next = number + 1
        if self._next == len(self._order):
            self._close()
        return found

    def _close(self) -> None:
        if self._batches is not None:
            self._batches.close()
            self._batches = None


class _InTurn:
    """Cuts a batch when it is asked for."""

    def __init__(self, windows: WindowSource, columns: tuple[str, ...], order: Order, begin: int) -> None:
        self._windows = windows
        self._columns = columns
        self._rest = iter(order[begin:])

    def __next__(self) -> HostBatch:
        return self._windows.gather(next(self._rest), self._columns)

    def close(self) -> None:
        """There is nothing to end."""


def _compiled(
    function: Callable[P, Carry], placement: Placement, options: Mapping[str, Any], *, by_rows: bool
) -> Callable[P, Carry]:
    """A function compiled so that its first argument is consumed; its result lies where `by_rows` says."""
    return jax.jit(
        function,
        donate_argnums=0,
        out_shardings=placement.rows if by_rows else placement.everywhere,
        compiler_options=dict(options) or None,
    )


def build_feed(
    windows: WindowSource,
    columns: tuple[str, ...],
    *,
    limit: float | None,
    compiler_options: Mapping[str, Any] | None = None,
    placement: Placement | None = None,
    reader: Reader | None = None,
) -> ResidentFeed | StreamedFeed:
    """A resident feed where the data fits, else a streamed one.

    Args:
      windows: The data.
      columns: Which columns a batch holds.
      limit: Bytes that the data may take on the device; null knows no limit.
      compiler_options: XLA's, for the compiled loops.
      placement: The devices; null is jax's default device.
      reader: What cuts batches ahead for a streamed feed.
    """
    size = sum(windows.columns[name].nbytes for name in columns) + 8 * len(windows)
    rows = max(len(windows.columns[name]) for name in columns)
    if rows < 2**31 and (limit is None or size <= limit):
        return ResidentFeed(windows, columns, compiler_options=compiler_options, placement=placement)
    return StreamedFeed(
        windows, columns, compiler_options=compiler_options, placement=placement, reader=reader
    )
