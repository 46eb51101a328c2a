"""Windows as views: flat columns of rows, and an index that says where each window lies in them.

Picture a long strip per column with every item written once, and a frame of L + 1 slots that is laid on it. A
frame that reaches over the beginning of its sequence is padded: its leading slots hold id 0 or value 0.0, and
`padding` counts them. Batches are gathered by index arithmetic; the strips may be memory-mapped, in one
piece or several (see `spliced.py`).
"""

import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32, Int64, Integer, Shaped

from seqjax.data.spliced import Spliced, parts_of, runs, spliced
from seqjax.errors import DataError


class Batch(NamedTuple):
    """B windows."""

    columns: dict[str, Shaped[np.ndarray, "B slots"]]
    """(B, L + 1) int32 ids or float32 standardised values, by column; 0 where padded."""
    padding: Int32[np.ndarray, "B"]
    """Leading slots that hold no item; L + 1 in rows that only fill up a batch."""


@dataclass(frozen=True)
class Windows:
    """W windows of up to L + 1 items over N rows."""

    columns: Mapping[str, Shaped[np.ndarray, "N"] | Spliced]
    """Encoded rows: ids in the smallest signed integer type, or float32."""
    start: Int64[np.ndarray, "W"]
    """Row of each window's first real item."""
    length: Int32[np.ndarray, "W"]
    """Number of real items, 1 to L + 1; they end the window."""
    sequence_id: Int64[np.ndarray, "W"]
    """The sequence of each window."""
    subsequence_id: Int64[np.ndarray, "W"]
    """The number of each window in its sequence."""
    start_item_position: Int64[np.ndarray, "W"]
    """Position of slot 0: that of the first real item, less the padding."""
    item_position: Int64[np.ndarray, "N"] | Spliced | None
    """Each row's own position, where the format keeps it."""
    seq_length: int
    """L, the number of input items."""
    mapped: tuple[mmap.mmap, ...] = ()
    """The files that rows lie in, where they are memory-mapped."""

    def __len__(self) -> int:
        return len(self.start)

    def order(self) -> Int64[np.ndarray, "W"]:
        """Numbers of the windows by sequence, and by subsequence in each."""
        return np.lexsort((self.subsequence_id, self.sequence_id))

    def crop(self, seq_length: int) -> "Windows":
        """The same windows with only their newest `seq_length` + 1 slots.

        Raises:
          DataError: The windows are shorter than that.
        """
        if seq_length > self.seq_length:
            raise DataError(
                f"The data holds windows of seq_length {self.seq_length}, which is less than the "
                f"{seq_length} asked for. Run preprocess with seq_length: {seq_length}, or use at most "
                f"{self.seq_length}."
            )
        length = np.minimum(self.length, np.int32(seq_length + 1))
        return replace(
            self,
            start=self.start + (self.length - length),
            length=length,
            start_item_position=self.start_item_position + (self.seq_length - seq_length),
            seq_length=seq_length,
        )

    def gather(self, indices: Integer[np.ndarray, "B"], columns: Sequence[str] | None = None) -> Batch:
        """The windows at `indices`, as arrays.

        Args:
          indices: Numbers of windows; -1 gives a row that is all padding.
          columns: Which columns; null gives all.
        """
        n_slots = self.seq_length + 1
        length = self.length[indices]
        padding = np.where(indices < 0, np.int32(n_slots), np.int32(n_slots) - length)
        padded = np.arange(n_slots) < padding[:, None] if padding.any() else None
        frame = _Frame(self.start[indices], self.start[indices] + length - n_slots, n_slots, padded)
        names = self.columns if columns is None else columns
        return Batch({name: frame.values(self.columns[name]) for name in names}, padding)

    def positions(
        self, indices: Integer[np.ndarray, "B"], slots: Integer[np.ndarray, "P"]
    ) -> Int64[np.ndarray, "B P"]:
        """Item positions of some slots of some windows.

        Positions of padded slots, and of all slots where the format keeps no positions, count on from slot 0.

        Args:
          indices: Numbers of windows.
          slots: Slots, 0 (oldest) to L (newest).
        """
        counted = self.start_item_position[indices][:, None] + slots
        if self.item_position is None:
            return counted
        padding = self.seq_length + 1 - self.length[indices][:, None]
        rows = self.start[indices][:, None] + np.maximum(slots - padding, 0)
        return np.where(slots >= padding, self.item_position.take(rows), counted)

    def release(self) -> None:
        """Gives back the memory of what was read of mapped files; reading it again takes it again.

        The kernel would do so where memory is short, but until then it counts as this process's.
        """
        self._advise("MADV_DONTNEED")

    def expect(self, *, scattered: bool) -> None:
        """Tells the kernel how mapped files will be read: here and there, or in their order."""
        self._advise("MADV_RANDOM" if scattered else "MADV_NORMAL")

    def _advise(self, name: str) -> None:
        if hasattr(mmap, name):
            for file in self.mapped:
                file.madvise(getattr(mmap, name))

    def in_ram(self, columns: Sequence[str] | None = None) -> "Windows":
        """The same windows with rows that are in memory, in one piece; those that are stay as they are.

        Args:
          columns: The columns that are needed; null is all.
        """
        names = self.columns if columns is None else columns
        return replace(self, columns={name: _in_ram(self.columns[name]) for name in names})


def orders_of_files(windows: Windows, sequences: int) -> list[Int64[np.ndarray, "_"]]:
    """Numbers of the windows of each file, in order, where a file is closed when it has so many sequences."""
    order = windows.order()
    # Where each sequence but the first begins.
    first = np.flatnonzero(np.diff(windows.sequence_id[order])) + 1
    return np.split(order, first[sequences - 1 :: sequences])


def joined(parts: Sequence[Windows]) -> Windows:
    """One data set of several, at least one, with the same columns and seq_length; no row is copied."""
    n_rows = [len(next(iter(part.columns.values()))) for part in parts]
    first_row = np.cumsum([0, *n_rows[:-1]], dtype=np.int64)
    positions = [part.item_position for part in parts if part.item_position is not None]
    return Windows(
        columns={name: _spliced([part.columns[name] for part in parts]) for name in parts[0].columns},
        start=np.concatenate([part.start + first for part, first in zip(parts, first_row, strict=True)]),
        length=np.concatenate([part.length for part in parts]),
        sequence_id=np.concatenate([part.sequence_id for part in parts]),
        subsequence_id=np.concatenate([part.subsequence_id for part in parts]),
        start_item_position=np.concatenate([part.start_item_position for part in parts]),
        item_position=_spliced(positions) if len(positions) == len(parts) else None,
        seq_length=parts[0].seq_length,
        mapped=tuple(file for part in parts for file in part.mapped),
    )


def _in_ram(column: Shaped[np.ndarray, "N"] | Spliced) -> Shaped[np.ndarray, "N"]:
    return column if isinstance(column, np.ndarray) and column.flags.owndata else np.array(column)


def _spliced(columns: Sequence[Shaped[np.ndarray, "_"] | Spliced]) -> Shaped[np.ndarray, "N"] | Spliced:
    return spliced([part for column in columns for part in parts_of(column)])


class _Frame(NamedTuple):
    """What to cut out of every strip for a batch."""

    start: Int64[np.ndarray, "B"]
    """Row of each window's first item."""
    begin: Int64[np.ndarray, "B"]
    """Row of each window's slot 0, which may lie before those of its sequence."""
    n_slots: int
    padded: Bool[np.ndarray, "B slots"] | None
    """Slots that hold no item, if there are any."""

    def values(self, column: Shaped[np.ndarray, "N"] | Spliced) -> Shaped[np.ndarray, "B slots"]:
        """The windows of one column: runs of rows, which are copied several times as fast as single rows."""
        dtype = np.int32 if np.issubdtype(column.dtype, np.integer) else np.float32
        found = runs(column, self.begin, self.n_slots)
        if found is None:
            rows = self.begin[:, None] + np.arange(self.n_slots)
            found = column.take(np.maximum(rows, self.start[:, None]))
        found = found.astype(dtype, copy=False)
        if self.padded is not None:
            found[self.padded] = 0
        return found
