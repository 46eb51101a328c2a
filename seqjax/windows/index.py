"""Places of windows in rows, by arithmetic.

A window is L + 1 consecutive items of one run of rows: L inputs, and the same shifted by one as targets. A
run that is shorter gives a single window, padded on the left. The windows of a run are spread evenly: the
first starts it, the last ends it, and steps are at most the stride. Or they end at its targets: the last one
at the run's last row, the others `stride` rows apart before it, and those near the beginning are padded. So a
window follows from its number and the run it is in, and nothing is stored for each window or row. Windows
that a format lists one by one are runs of a single window each.

The first rows of a run may be there only to be shown: context of the rows after them, which are its targets.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Int64, Integer

from seqjax.errors import DataError

CONSECUTIVE = -1
"""In place of where a run's positions are kept: they count on from its first."""


@dataclass(frozen=True)
class Slices:
    """Runs of consecutive rows of one sequence each: their first row in the table, and at least one row."""

    sequence_id: Int64[np.ndarray, "S"]
    start: Int64[np.ndarray, "S"]
    length: Int64[np.ndarray, "S"]
    scattered: Bool[np.ndarray, "S"] | None = None
    """True where positions in the sequence are not consecutive; None: the rows' own positions tell."""
    first_target: Int64[np.ndarray, "S"] | None = None
    """Rows at the beginning of each that are context alone; None: none of any."""

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, some: slice) -> "Slices":
        """Some neighbouring slices."""
        return Slices(
            self.sequence_id[some],
            self.start[some],
            self.length[some],
            None if self.scattered is None else self.scattered[some],
            None if self.first_target is None else self.first_target[some],
        )

    def rows(self) -> Int64[np.ndarray, "N"]:
        """Indices of all rows in the table, slice after slice."""
        before = np.cumsum(self.length) - self.length
        return np.repeat(self.start - before, self.length) + np.arange(self.length.sum())


class Place(NamedTuple):
    """The places of some windows."""

    run: Int64[np.ndarray, "B"]
    number: Int64[np.ndarray, "B"]
    """Number of the window in its run."""
    offset: Int64[np.ndarray, "B"]
    """The window's first item, counted from the run's first."""
    length: Int64[np.ndarray, "B"]
    """Number of items, 1 to L + 1."""


@dataclass(frozen=True)
class Runs:
    """R runs of consecutive rows of one sequence each, and the windows over them."""

    sequence_id: Int64[np.ndarray, "R"]
    first_subsequence: Int[np.ndarray, "R"]
    """Number of the run's first window in its sequence."""
    first_row: Int[np.ndarray, "R"]
    rows: Int[np.ndarray, "R"]
    """Number of rows, at least 1."""
    first_position: Int64[np.ndarray, "R"]
    positions_at: Int[np.ndarray, "R"]
    """Place of the run's positions among those that are kept; -1 where they count on from the first."""
    first_target: Int[np.ndarray, "R"]
    """The first row, counted in the run, whose item is a target; those before it are only shown."""
    first_window: Int64[np.ndarray, "R"]
    """Number of the run's first window among all."""
    seq_length: int
    """L, the number of input items of the windows that runs are cut into."""
    stride: int
    """The largest step between window starts."""
    min_history: int | None = None
    """The number of rows of a run that are too early to be targets, if windows end at targets; None if they
    are spread evenly."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def n_windows(self) -> int:
        """Number of windows of all runs."""
        return int((self.first_window[-1:] + self._counts(slice(-1, None))).sum())

    @property
    def is_even(self) -> bool:
        """True if windows start at the run's first row and at every `stride`-th after it."""
        last = np.maximum(self.rows.astype(np.int64) - (self.seq_length + 1), 0)
        return self.min_history is None and not (last % self.stride).any()

    @property
    def without_history(self) -> int:
        """Number of rows that would be targets if they were not too early."""
        early = np.minimum(self.rows.astype(np.int64), self.min_history or 0) - self.first_target
        return int(np.maximum(early, 0).sum())

    def ending_at_targets(self, stride: int, *, min_history: int) -> "Runs":
        """Other windows over the same rows: they end at the last target and at every `stride`-th before it.

        Args:
          stride: The step between the ends of windows.
          min_history: Number of rows of a run that are too early to be targets.
        """
        runs = replace(self, stride=stride, min_history=min_history)
        counts = runs._counts(slice(None))
        return replace(runs, first_window=np.cumsum(counts) - counts)

    def _counts(self, runs: slice | Int64[np.ndarray, "_"]) -> Int64[np.ndarray, "_"]:
        """The number of windows of each of some runs."""
        rows = self.rows[runs].astype(np.int64)
        if self.min_history is not None:
            targets = np.maximum(rows - np.maximum(self.first_target[runs], self.min_history), 0)
            return -(-targets // self.stride)
        return n_windows(rows, seq_length=self.seq_length, stride=self.stride)

    def places(self, numbers: Integer[np.ndarray, "B"]) -> Place:
        """Finds windows, each in O(log R).

        Args:
          numbers: Numbers of windows, from 0; a negative one is taken for 0.
        """
        numbers = np.maximum(numbers, 0)
        run = np.searchsorted(self.first_window, numbers, side="right") - 1
        number = numbers - self.first_window[run]
        rows = self.rows[run].astype(np.int64)
        if self.min_history is not None:
            after = self._counts(run) - 1 - number
            end = rows - self.stride * after
            length = np.minimum(end, self.seq_length + 1)
            return Place(run, number, end - length, length)
        offset = window_starts(rows, number, seq_length=self.seq_length, stride=self.stride)
        return Place(run, number, offset, np.minimum(rows, self.seq_length + 1))

    def taken(self, runs: slice) -> "Runs":
        """Some neighbouring runs alone, over the same rows; their windows are counted from 0."""
        some = replace(self, **{name: getattr(self, name)[runs] for name in RUN_ARRAYS})
        return replace(some, first_window=some.first_window - some.first_window[:1])


RUN_ARRAYS = [
    field.name for field in fields(Runs) if field.name not in ("seq_length", "stride", "min_history")
]
"""The fields of `Runs` that hold a number a run."""


def joined_runs(parts: Sequence[Runs], n_rows: Sequence[int], n_positions: Sequence[int]) -> Runs:
    """The runs of several data sets of one seq_length and stride whose rows are put one after the other.

    Args:
      parts: The runs of each data set.
      n_rows: Number of its rows.
      n_positions: Number of positions that it keeps.
    """
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in RUN_ARRAYS}
    before = {
        "first_row": n_rows,
        "positions_at": n_positions,
        "first_window": [part.n_windows for part in parts],
    }
    for name, counts in before.items():
        arrays[name] = arrays[name] + np.repeat(np.cumsum([0, *counts[:-1]]), list(map(len, parts)))
    kept = np.concatenate([part.positions_at for part in parts]) != CONSECUTIVE
    arrays["positions_at"] = np.where(kept, arrays["positions_at"], CONSECUTIVE)
    return replace(parts[0], **arrays)


def n_windows(rows: Int64[np.ndarray, "R"], *, seq_length: int, stride: int) -> Int64[np.ndarray, "R"]:
    """The number of windows of runs of so many rows."""
    last = np.maximum(rows - (seq_length + 1), 0)
    return -(-last // stride) + 1


def window_starts(
    rows: Int64[np.ndarray, "B"], number: Int64[np.ndarray, "B"], *, seq_length: int, stride: int
) -> Int64[np.ndarray, "B"]:
    """The starts of windows in their runs.

    Args:
      rows: Rows of the run of each window, at least 1.
      number: Number of each window in its run.
      seq_length: L, the number of input items.
      stride: The largest step between window starts; it is the step wherever it divides the way from the
        first start to the last.
    """
    last = np.maximum(rows - (seq_length + 1), 0)
    steps = n_windows(rows, seq_length=seq_length, stride=stride) - 1
    # The operations of np.linspace(0, last, steps + 1, dtype=int), in its order, so that rounding is the same
    # too. The step is at least 1, hence the starts differ.
    offset = np.floor(number * (last / np.maximum(steps, 1))).astype(np.int64)
    return np.where(number == steps, last, offset)


def runs_of(
    slices: Slices, item_position: Int64[np.ndarray, "N"], *, seq_length: int, stride: int
) -> tuple[Runs, Int64[np.ndarray, "K"]]:
    """The slices of a split as runs over the split's own rows.

    Args:
      slices: The slices, as rows of the table.
      item_position: The position of each row of the split.
      seq_length: L, the number of input items.
      stride: The largest step between window starts.

    Returns:
      The runs, and the positions of those whose positions are not consecutive.
    """
    rows, zeros = slices.length, np.zeros(len(slices), np.int64)
    first_row = np.cumsum(rows) - rows
    scattered = scattered_positions(slices, item_position) if slices.scattered is None else slices.scattered
    kept = np.where(scattered, rows, 0)
    windows = n_windows(rows, seq_length=seq_length, stride=stride)
    runs = Runs(
        sequence_id=slices.sequence_id,
        first_row=first_row,
        rows=rows,
        first_position=item_position[first_row],
        positions_at=np.where(scattered, np.cumsum(kept) - kept, CONSECUTIVE),
        first_target=zeros if slices.first_target is None else slices.first_target,
        first_subsequence=zeros,
        first_window=np.cumsum(windows) - windows,
        seq_length=seq_length,
        stride=stride,
    )
    return runs, item_position[np.repeat(scattered, rows)]


def scattered_positions(slices: Slices, item_position: Int64[np.ndarray, "N"]) -> Bool[np.ndarray, "S"]:
    """Tells of each slice whether positions are other than consecutive.

    Args:
      slices: The slices.
      item_position: The position of each of their rows, slice after slice.
    """
    first = np.cumsum(slices.length) - slices.length
    jump = np.diff(item_position, prepend=item_position[:1]) != 1
    jump[first] = False
    return np.logical_or.reduceat(jump, first) if len(first) else np.zeros(0, np.bool_)


def check_exact(
    slices: Slices,
    *,
    seq_length: int,
    stride: int,
    split: int,
    name: Callable[[int], str] = "sequence {}".format,
) -> None:
    """Raises a `DataError` unless windows at every `stride`-th item end each slice exactly.

    Args:
      slices: The slices of one split.
      seq_length: L, the number of input items.
      stride: The step between window starts.
      split: Number of the split, for the message.
      name: Names a sequence by its number, for the message.
    """
    surplus = np.maximum(slices.length - (seq_length + 1), 0) % stride
    if surplus.any():
        first = int(np.argmax(surplus > 0))
        raise DataError(
            f"subsequence_start_mode: exact needs (rows - {seq_length + 1}) to be a multiple of the stride, "
            f"{stride}, in split {split}; {name(int(slices.sequence_id[first]))} has {slices.length[first]} "
            f"rows there, {surplus[first]} too many. Use subsequence_start_mode: distribute, or "
            "another stride_by_split."
        )
