"""Batches as the device sees them, and how they are cut from columns that live there.

A batch holds L + 1 slots a window. The first L are inputs, the last L are what they predict: position t
sees slots 0 to t and predicts slot t + 1. Slots before `padding` hold no item and weigh nothing.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Num, Shaped

Tree: TypeAlias = Any
"""A nested structure of arrays."""


class Batch(NamedTuple):
    """B windows."""

    columns: dict[str, Num[Array, "B slots"]]
    """(B, L + 1) int32 ids or float32 standardised values, by column; 0 where padded."""
    padding: Int[Array, "B"]
    """Leading slots that hold no item; L + 1 in rows that only fill up a batch."""


@runtime_checkable
class HostBatch(Protocol):
    """A `Batch` of numpy arrays, as the data layer cuts it."""

    @property
    def columns(self) -> Mapping[str, Shaped[np.ndarray, "B slots"]]:
        """As `Batch.columns`."""
        ...

    @property
    def padding(self) -> Shaped[np.ndarray, "B"]:
        """As `Batch.padding`."""
        ...


@runtime_checkable
class WindowSource(Protocol):
    """What training needs to know of a data set: flat columns, and where each window lies in them."""

    @property
    def columns(self) -> Mapping[str, Any]:
        """Encoded rows of each column: an (N,) array, or what NumPy can make one of; it knows `nbytes`."""
        ...

    @property
    def start(self) -> Shaped[np.ndarray, "W"]:
        """Row of each window's first item."""
        ...

    @property
    def length(self) -> Shaped[np.ndarray, "W"]:
        """Number of items of each window, 1 to L + 1; they end it."""
        ...

    @property
    def seq_length(self) -> int:
        """L, the number of input items."""
        ...

    def __len__(self) -> int: ...

    def gather(self, indices: Shaped[np.ndarray, "B"], columns: tuple[str, ...] | None = None) -> HostBatch:
        """The windows at `indices`; -1 gives a row that is all padding."""
        ...


class Rows(NamedTuple):
    """A data set on the device."""

    columns: dict[str, Num[Array, "N"]]
    """Encoded rows; ids in the smallest integer type."""
    start: Int[Array, "W"]
    """Row of each window's first item."""
    length: Int[Array, "W"]
    """Number of items of each window, 1 to L + 1; they end it."""


def take(rows: Rows, indices: Int[Array, "B"], slots: int) -> Batch:
    """Cuts windows out of the rows.

    Args:
      rows: The data.
      indices: Numbers of windows; -1 gives a row that is all padding.
      slots: L + 1.
    """
    length = jnp.where(indices < 0, 0, rows.length[indices]).astype(jnp.int32)
    padding = slots - length
    slot = jnp.arange(slots)[None] - padding[:, None]
    row = rows.start[indices][:, None] + jnp.maximum(slot, 0)
    columns = {name: _widened(jnp.where(slot < 0, 0, column[row])) for name, column in rows.columns.items()}
    return Batch(columns, padding)


def valid_mask(batch: Batch) -> Bool[Array, "B T"]:
    """Which of the L input positions hold an item."""
    return jnp.arange(_length(batch))[None] >= batch.padding[:, None]


def target_mask(batch: Batch) -> Bool[Array, "B T"]:
    """Which of the L positions predict an item; the first item is predicted from padding."""
    return jnp.arange(1, _length(batch) + 1)[None] >= batch.padding[:, None]


def inputs_of(batch: Batch, names: tuple[str, ...]) -> dict[str, Num[Array, "B T"]]:
    """The first L slots of some columns."""
    return {name: batch.columns[name][:, :-1] for name in names}


def targets_of(batch: Batch, name: str) -> Num[Array, "B T"]:
    """The last L slots of a column."""
    return batch.columns[name][:, 1:]


def _length(batch: Batch) -> int:
    return next(iter(batch.columns.values())).shape[1] - 1


def _widened(values: Num[Array, "B slots"]) -> Num[Array, "B slots"]:
    return values.astype(jnp.int32 if jnp.issubdtype(values.dtype, jnp.integer) else jnp.float32)
