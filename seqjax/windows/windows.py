"""Windows as views: flat columns of rows, and runs that say where windows lie in them.

Picture a long strip per column with every item written once, and a frame of L + 1 slots that is laid on it. A
frame that reaches over the beginning of its run is padded: its leading slots hold id 0 or value 0.0, and
`padding` counts them. Batches are gathered by index arithmetic; the strips may be memory-mapped, in one
piece or several (see `spliced.py`).

The first L slots of a window are inputs, the last L are what they predict: position t sees slots 0 to t and
predicts slot t + 1. Slots before `padding` hold no item and weigh nothing. Items before `first_target` are
shown and not predicted: they are context from before the border of a split, or have too little history.
"""

import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Int64, Integer, Num, Shaped

from seqjax.errors import DataError
from seqjax.windows.index import CONSECUTIVE, Place, Runs, Slices, joined_runs, runs_of
from seqjax.windows.spliced import Spliced, consecutive, spliced


class Batch(NamedTuple):
    """B windows, as arrays of numpy or of jax."""

    columns: Mapping[str, Num[Any, "B slots"]]
    """(B, L + 1) int32 ids or float32 standardised values, by column; 0 where padded, NaN where missing."""
    padding: Int[Any, "B"]
    """Leading slots that hold no item; L + 1 in rows that only fill up a batch."""
    first_target: Int[Any, "B"]
    """The first slot whose item is a target; L + 1 or more where none is."""


def inputs_of(batch: Batch, names: Sequence[str], masked: Sequence[str] = ()) -> dict[str, Num[Any, "B T"]]:
    """The first L slots of some columns.

    Args:
      batch: The windows.
      names: The columns.
      masked: Those of them in which missing values stay NaN; in others they become 0, the mean.
    """
    inputs = {name: batch.columns[name][:, :-1] for name in names}
    return {name: values if name in masked else filled(values) for name, values in inputs.items()}


def targets_of(batch: Batch, name: str) -> Num[Any, "B T"]:
    """The last L slots of a column; 0 where a value is missing."""
    return filled(batch.columns[name][:, 1:])


def filled(values: Num[Any, "*shape"]) -> Num[Any, "*shape"]:
    """Values with 0, the mean, where they are missing."""
    xp = values.__array_namespace__()
    return values if xp.issubdtype(values.dtype, np.integer) else xp.where(xp.isnan(values), 0, values)


def present(values: Num[Any, "*shape"]) -> Bool[Any, "*shape"]:
    """True where there is a value: ids of a category other than 0, and numbers."""
    xp = values.__array_namespace__()
    return values != 0 if xp.issubdtype(values.dtype, np.integer) else ~xp.isnan(values)


def valid_mask(batch: Batch) -> Bool[Any, "B T"]:
    """Marks those of the L input positions that hold an item."""
    return batch.padding[:, None] <= np.arange(_length(batch), dtype=np.int32)


def target_mask(batch: Batch, name: str) -> Bool[Any, "B T"]:
    """Marks those of the L positions that predict a target, in a column: a missing value is no truth."""
    first = batch.first_target[:, None] <= np.arange(1, _length(batch) + 1, dtype=np.int32)
    return first & present(batch.columns[name][:, 1:])


def moved_on(batch: Batch) -> Batch:
    """The same windows one item later, when the newest item is an input and the one to predict is unknown."""
    columns = {name: values[:, [*range(1, values.shape[1]), 0]] for name, values in batch.columns.items()}
    return Batch(columns, np.maximum(batch.padding - 1, 0), batch.first_target - 1)


def newest(batch: Batch, count: int) -> Batch:
    """The same windows, with targets among the newest `count` slots alone."""
    first = _length(batch) + 1 - count
    return batch._replace(
        first_target=batch.first_target.__array_namespace__().maximum(batch.first_target, first)
    )


def _length(batch: Batch) -> int:
    return next(iter(batch.columns.values())).shape[1] - 1


@dataclass(frozen=True)
class Windows:
    """W windows of up to L + 1 items over N rows."""

    columns: Mapping[str, Shaped[np.ndarray, "N"] | Spliced]
    """Encoded rows: ids in the smallest signed integer type, or float32."""
    runs: Runs
    """Places of windows in the rows; they may be longer than those that are shown."""
    item_position: Int64[np.ndarray, "K"] | Spliced
    """Positions of the rows of runs whose positions are not consecutive; see `Runs.positions_at`."""
    seq_length: int
    """L, the number of input items."""
    mapped: tuple[mmap.mmap, ...] = ()
    """The files that rows lie in, where they are memory-mapped."""
    min_history: int = 0
    """Number of items before an item in its window without which it is no target."""

    def __len__(self) -> int:
        return self.runs.n_windows

    @property
    def has_targets(self) -> bool:
        """True if any item is a target."""
        first = np.maximum(self.runs.first_target, self.min_history)
        return bool((self.runs.rows > first).any())

    def start(self, numbers: Integer[np.ndarray, "B"] | None = None) -> Int64[np.ndarray, "B"]:
        """Row of each window's first real item.

        Args:
          numbers: Numbers of windows; None gives all.
        """
        place = self._places(numbers)
        return self.runs.first_row[place.run] + place.offset

    def length(self, numbers: Integer[np.ndarray, "B"] | None = None) -> Int64[np.ndarray, "B"]:
        """Number of real items, 1 to L + 1; they end the window."""
        return self._places(numbers).length

    def first_target(self, numbers: Integer[np.ndarray, "B"] | None = None) -> Int64[np.ndarray, "B"]:
        """The first real item of each window, counted from 0, that is a target."""
        return self._first_target(self._places(numbers))

    def sequence_id(self, numbers: Integer[np.ndarray, "B"] | None = None) -> Int64[np.ndarray, "B"]:
        """The sequence of each window."""
        return self.runs.sequence_id[self._places(numbers).run]

    def subsequence_id(self, numbers: Integer[np.ndarray, "B"] | None = None) -> Int64[np.ndarray, "B"]:
        """The number of each window in its sequence."""
        place = self._places(numbers)
        return self.runs.first_subsequence[place.run] + place.number

    def start_item_position(self, numbers: Integer[np.ndarray, "B"] | None = None) -> Int64[np.ndarray, "B"]:
        """Position of slot 0: that of the first real item, less the padding."""
        place = self._places(numbers)
        return self._item_positions(place, place.offset) - (self.seq_length + 1 - place.length)

    def keys(
        self, numbers: Integer[np.ndarray, "B"] | None = None
    ) -> tuple[Int64[np.ndarray, "B"], Int64[np.ndarray, "B"], Int64[np.ndarray, "B"]]:
        """Sequence, number in it and position of slot 0 of each window."""
        return self.sequence_id(numbers), self.subsequence_id(numbers), self.start_item_position(numbers)

    def by_sequence(self) -> Int64[np.ndarray, "W"]:
        """Numbers of the windows by sequence, and by subsequence in each."""
        return np.lexsort((self.subsequence_id(), self.sequence_id()))

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
        return replace(self, seq_length=seq_length)

    def gather(self, indices: Integer[np.ndarray, "B"], columns: Sequence[str] | None = None) -> Batch:
        """The windows at `indices`, as arrays.

        Args:
          indices: Numbers of windows; -1 gives a row that is all padding.
          columns: Which columns; None gives all.
        """
        n_slots = self.seq_length + 1
        place = self._places(indices)
        start = self.runs.first_row[place.run] + place.offset
        padding = np.where(indices < 0, n_slots, n_slots - place.length).astype(np.int32)
        padded = np.arange(n_slots) < padding[:, None] if padding.any() else None
        # The row of slot 0, which may lie before those of the run.
        begin = start + place.length - n_slots

        def values(column: Shaped[np.ndarray, "N"] | Spliced) -> Shaped[np.ndarray, "B slots"]:
            # Runs of rows are copied several times as fast as single rows.
            rows = consecutive(column, begin, n_slots)
            if rows is None:
                rows = column.take(np.maximum(begin[:, None] + np.arange(n_slots), start[:, None]))
            dtype = np.int32 if np.issubdtype(column.dtype, np.integer) else np.float32
            slots = rows.astype(dtype, copy=False)
            if padded is not None:
                slots[padded] = 0
            return slots

        names = self.columns if columns is None else columns
        first_target = (padding + self._first_target(place)).astype(np.int32)
        return Batch({name: values(self.columns[name]) for name in names}, padding, first_target)

    def positions(
        self, indices: Integer[np.ndarray, "B"], slots: Integer[np.ndarray, "P"]
    ) -> Int64[np.ndarray, "B P"]:
        """Item positions of some slots of some windows; those of padded slots count on from slot 0.

        Args:
          indices: Numbers of windows.
          slots: Slots, 0 (oldest) to L (newest).
        """
        place = self._places(indices)
        place = Place(*(field[:, None] for field in place))
        item = slots - (self.seq_length + 1 - place.length)
        return self._item_positions(place, place.offset + np.maximum(item, 0)) + np.minimum(item, 0)

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
          columns: The columns that are needed; None is all.
        """
        names = self.columns if columns is None else columns
        return replace(self, columns={name: _in_ram(self.columns[name]) for name in names})

    def ending_at_targets(self, stride: int) -> "Windows":
        """Windows over the same rows that end at the last target of a run, and at every `stride`-th before.

        So each target is among the newest `stride` items of exactly one window, and sees as much of its past
        as there is.
        """
        return replace(self, runs=self.runs.ending_at_targets(stride, min_history=self.min_history))

    def _first_target(self, place: Place) -> Int64[np.ndarray, "B"]:
        target = self.runs.first_target[place.run] - place.offset
        return np.maximum(target, self.min_history)

    def _places(self, numbers: Integer[np.ndarray, "B"] | None) -> Place:
        """The places of the newest L + 1 items of windows."""
        place = self.runs.places(np.arange(len(self)) if numbers is None else numbers)
        length = np.minimum(place.length, self.seq_length + 1)
        return place._replace(offset=place.offset + place.length - length, length=length)

    def _item_positions(self, place: Place, item: Int64[np.ndarray, "..."]) -> Int64[np.ndarray, "..."]:
        """Positions of items that are counted in their runs."""
        counted = self.runs.first_position[place.run] + item
        at = self.runs.positions_at[place.run]
        if (at == CONSECUTIVE).all():
            return counted
        kept = np.broadcast_to(at != CONSECUTIVE, counted.shape)
        counted[kept] = self.item_position.take((at + item)[kept][:, None])[:, 0]
        return counted


def cut(
    slices: Slices,
    columns: Mapping[str, Shaped[np.ndarray, "N"]],
    item_position: Int64[np.ndarray, "N"],
    *,
    seq_length: int,
    stride: int,
) -> Windows:
    """Cuts the rows of one split into windows.

    Args:
      slices: The slices of the split, as rows of the table.
      columns: Encoded values of all rows of the table, by column.
      item_position: The position of each row of the table.
      seq_length: L, the number of input items.
      stride: The largest step between window starts.

    Returns:
      Windows over the rows of this split alone.
    """
    rows = slices.rows()
    runs, positions = runs_of(slices, item_position[rows], seq_length=seq_length, stride=stride)
    return Windows({name: column[rows] for name, column in columns.items()}, runs, positions, seq_length)


def listed(
    columns: Mapping[str, Shaped[np.ndarray, "N"] | Spliced],
    *,
    start: Int64[np.ndarray, "W"],
    length: Integer[np.ndarray, "W"],
    seq_length: int,
    sequence_id: Int64[np.ndarray, "W"] | None = None,
    subsequence_id: Int64[np.ndarray, "W"] | None = None,
    start_item_position: Int64[np.ndarray, "W"] | None = None,
    first_target: Int64[np.ndarray, "W"] | None = None,
    item_position: Int64[np.ndarray, "N"] | None = None,
) -> Windows:
    """Windows that are listed one by one, as foreign formats do.

    Args:
      columns: Encoded rows.
      start: Row of each window's first real item.
      length: Number of real items of each.
      seq_length: L, the number of input items.
      sequence_id: The sequence of each; None is 0 for all.
      subsequence_id: The number of each in its sequence; None is 0 for all.
      start_item_position: Position of slot 0 of each; None is 0 for all.
      first_target: Number of items at the beginning of each that are context alone; None is 0 for all.
      item_position: Position of each row; None where they are consecutive in each window.
    """
    zeros, length = np.zeros(len(start), np.int64), length.astype(np.int64)
    runs = Runs(
        sequence_id=zeros if sequence_id is None else sequence_id,
        first_row=start,
        rows=length,
        first_position=(zeros if start_item_position is None else start_item_position)
        + (seq_length + 1 - length),
        positions_at=np.full(len(start), CONSECUTIVE) if item_position is None else start,
        first_target=zeros if first_target is None else first_target,
        first_subsequence=zeros if subsequence_id is None else subsequence_id,
        first_window=np.arange(len(start)),
        seq_length=seq_length,
        stride=1,
    )
    return Windows(columns, runs, zeros[:0] if item_position is None else item_position, seq_length)


def targets_once(windows: Windows, newest: int) -> Windows:
    """The same windows, in which each item is a target of one window alone, the first that has it.

    Args:
      windows: Windows that are listed one by one.
      newest: Where a window does not hold the items that its position says it shares with the one before,
        its newest items that stay targets.
    """
    runs, order = windows.runs, windows.by_sequence()
    first, second = order[:-1], order[1:]
    step = runs.first_position[second] - runs.first_position[first]
    shared = np.clip(runs.rows[first] - step, 0, runs.rows[second])
    follows = runs.sequence_id[first] == runs.sequence_id[second]
    agrees = (step > 0) & _equal_rows(windows, runs.first_row[first] + step, runs.first_row[second], shared)
    done = np.where(agrees, shared, np.maximum(runs.rows[second] - newest, 0))
    first_target = runs.first_target.astype(np.int64)
    first_target[second] = np.maximum(first_target[second], np.where(follows, done, 0))
    return replace(windows, runs=replace(runs, first_target=first_target))


def _equal_rows(
    windows: Windows,
    some: Int64[np.ndarray, "B"],
    others: Int64[np.ndarray, "B"],
    count: Int64[np.ndarray, "B"],
) -> Bool[np.ndarray, "B"]:
    """Tells of each pair of ranges of rows, `count` long, if they hold the same in all columns."""
    rows = len(next(iter(windows.columns.values())))
    places = [np.clip(Slices(begin, begin, count).rows(), 0, rows - 1)[:, None] for begin in (some, others)]
    differ = np.zeros(int(count.sum()), np.bool_)
    for column in windows.columns.values():
        one, other = (column.take(place)[:, 0] for place in places)
        differ |= (one != other) & ((one == one) | (other == other))  # Missing values are alike.
    ends = np.cumsum(count)
    total = np.concatenate([[0], np.cumsum(differ)])
    return total[ends] == total[ends - count]


def orders_of_files(windows: Windows, sequences: int) -> list[Int64[np.ndarray, "_"]]:
    """Numbers of the windows of each file, in order, where a file is closed when it has so many sequences."""
    order = windows.by_sequence()
    # Where each sequence but the first begins.
    first = np.flatnonzero(np.diff(windows.sequence_id(order))) + 1
    return np.split(order, first[sequences - 1 :: sequences])


def joined(parts: Sequence[Windows]) -> Windows:
    """One data set of several, at least one, with the same columns and windows; no row is copied."""
    n_rows = [len(next(iter(part.columns.values()))) for part in parts]
    n_positions = [len(part.item_position) for part in parts]
    return Windows(
        columns={name: spliced([part.columns[name] for part in parts]) for name in parts[0].columns},
        runs=joined_runs([part.runs for part in parts], n_rows, n_positions),
        item_position=spliced([part.item_position for part in parts]),
        seq_length=parts[0].seq_length,
        mapped=tuple(file for part in parts for file in part.mapped),
    )


def taken(windows: Windows, numbers: Integer[np.ndarray, "B"]) -> Windows:
    """Some of the windows, in any order, over the same rows."""
    place = windows.runs.places(numbers)
    at = windows.runs.positions_at[place.run]
    runs = replace(
        windows.runs,
        sequence_id=windows.runs.sequence_id[place.run],
        first_row=windows.runs.first_row[place.run] + place.offset,
        rows=place.length,
        first_position=windows.runs.first_position[place.run] + place.offset,
        positions_at=np.where(at == CONSECUTIVE, at, at + place.offset),
        first_target=np.maximum(windows.runs.first_target[place.run] - place.offset, 0),
        first_subsequence=windows.runs.first_subsequence[place.run] + place.number,
        first_window=np.arange(len(numbers)),
        min_history=None,
    )
    return replace(windows, runs=runs)


def _in_ram(column: Shaped[np.ndarray, "N"] | Spliced) -> Shaped[np.ndarray, "N"]:
    return column if isinstance(column, np.ndarray) and column.flags.owndata else np.array(column)
