"""Where batches come from, and how a computation runs over many of them.

A *fold* runs a pure function `step(carry, batch, index, constants) -> carry` over some batches of an order.
Training and evaluation are both folds. Two feeds run the same steps with the same numbers:

* `ResidentFeed` keeps the data on the device: one compiled loop cuts each batch there and runs any number
  of steps a dispatch, since the bounds of the loop are values.
* `StreamedFeed` cuts each batch on the host, for data that does not fit; the device computes meanwhile.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from seqjax.training.batch import Batch, Rows, Tree, WindowSource, take

Carry = TypeVar("Carry")
Step = Callable[[Carry, Batch, Int[Array, ""], Tree], Carry]
Fold = Callable[[Carry, Tree, Tree, int, int], Carry]
"""(carry, constants, placed order, first batch, end) -> carry; the carry that is given is consumed."""


@runtime_checkable
class Feed(Protocol):
    """A source of batches."""

    def place(self, order: Int[np.ndarray, "n B"]) -> Tree:
        """Makes an order (numbers of windows by batch, -1 for a row of padding) ready for folds."""
        ...

    def fold(self, step: Step[Carry]) -> Fold[Carry]:
        """Compiles a step, once, into a loop over batches."""
        ...


class ResidentFeed:
    """Batches that are cut on the device."""

    def __init__(
        self,
        windows: WindowSource,
        columns: tuple[str, ...],
        *,
        compiler_options: Mapping[str, Any] | None = None,
    ) -> None:
        self._options = dict(compiler_options or {})
        self._slots = windows.seq_length + 1
        self._rows = Rows(
            {name: jnp.asarray(windows.columns[name]) for name in columns},
            jnp.asarray(windows.start, jnp.int32),
            jnp.asarray(windows.length, jnp.int32),
        )

    def place(self, order: Int[np.ndarray, "n B"]) -> Int[Array, "n B"]:
        """The order on the device."""
        return jnp.asarray(order, jnp.int32)

    def fold(self, step: Step[Carry]) -> Fold[Carry]:
        """A compiled loop over batches; its bounds are values, so that it is compiled once."""

        def loop(
            carry: Carry, constants: Tree, rows: Rows, order: Int[Array, "n B"], bounds: tuple[Array, Array]
        ) -> Carry:
            def body(index: Int[Array, ""], carry: Carry) -> Carry:
                return step(carry, take(rows, order[index], self._slots), index, constants)

            return jax.lax.fori_loop(bounds[0], bounds[1], body, carry)

        compiled = jax.jit(loop, donate_argnums=0, compiler_options=self._options or None)

        def fold(carry: Carry, constants: Tree, order: Tree, begin: int, end: int) -> Carry:
            return compiled(carry, constants, self._rows, order, (np.int32(begin), np.int32(end)))

        return fold


class StreamedFeed:
    """Batches that are cut on the host."""

    def __init__(
        self,
        windows: WindowSource,
        columns: tuple[str, ...],
        *,
        compiler_options: Mapping[str, Any] | None = None,
    ) -> None:
        self._options = dict(compiler_options or {})
        self._windows = windows
        self._columns = columns

    def place(self, order: Int[np.ndarray, "n B"]) -> Int[np.ndarray, "n B"]:
        """The order as it is."""
        return order

    def fold(self, step: Step[Carry]) -> Fold[Carry]:
        """A loop on the host over a compiled step."""
        compiled = jax.jit(step, donate_argnums=0, compiler_options=self._options or None)

        def fold(carry: Carry, constants: Tree, order: Tree, begin: int, end: int) -> Carry:
            for index in range(begin, end):
                batch = self._windows.gather(order[index], self._columns)
                carry = compiled(
                    carry,
                    Batch(jax.tree.map(jnp.asarray, {**batch.columns}), jnp.asarray(batch.padding)),
                    np.int32(index),
                    constants,
                )
            return carry

        return fold


def build_feed(
    windows: WindowSource,
    columns: tuple[str, ...],
    *,
    limit: float | None,
    compiler_options: Mapping[str, Any] | None = None,
) -> Feed:
    """A resident feed where the data fits, else a streamed one.

    Args:
      windows: The data.
      columns: Which columns a batch holds.
      limit: Bytes that the data may take on the device; null knows no limit.
      compiler_options: XLA's, for the compiled loops.
    """
    size = sum(windows.columns[name].nbytes for name in columns) + 8 * len(windows)
    rows = max(len(windows.columns[name]) for name in columns)
    fits = rows < 2**31 and (limit is None or size <= limit)
    return (ResidentFeed if fits else StreamedFeed)(windows, columns, compiler_options=compiler_options)
