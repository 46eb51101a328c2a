"""Where the windows of a split start.

A window is L + 1 consecutive items of one slice: L inputs, and the same shifted by one as targets. A slice
that is shorter gives a single window, padded on the left. Windows are an index (start, length) into the rows
and never copy them. The arithmetic runs over all slices at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int32, Int64, Shaped

from seqjax.data.dataset import Windows
from seqjax.data.splits import Slices
from seqjax.errors import DataError

StartMode = Literal["distribute", "exact"]


@dataclass(frozen=True)
class WindowIndex:
    """The windows of several slices, slice after slice and from left to right."""

    slice: Int64[np.ndarray, "W"]
    """Number of the slice."""
    subsequence: Int64[np.ndarray, "W"]
    """Number of the window in its slice."""
    offset: Int64[np.ndarray, "W"]
    """The window's first real item, counted from the slice's first."""
    length: Int32[np.ndarray, "W"]
    """Number of real items, 1 to L + 1."""


def n_windows(length: Int64[np.ndarray, "S"], *, seq_length: int, stride: int) -> Int64[np.ndarray, "S"]:
    """The number of windows of each slice; see `window_index`."""
    last = np.maximum(length - (seq_length + 1), 0)
    return -(-last // stride) + 1


def window_index(length: Int64[np.ndarray, "S"], *, seq_length: int, stride: int) -> WindowIndex:
    """Spreads windows evenly: the first starts a slice, the last ends it, steps are at most `stride`.

    Where `stride` divides the way from the first to the last start, all steps are equal to it.

    Args:
      length: Rows of each slice, at least 1.
      seq_length: L, the number of input items.
      stride: The largest step between window starts.
    """
    last = np.maximum(length - (seq_length + 1), 0)
    count = n_windows(length, seq_length=seq_length, stride=stride)
    steps = count - 1
    of_slice = np.repeat(np.arange(len(length)), count)
    number = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    # The operations of np.linspace(0, last, count, dtype=int), in its order, so that rounding is the same
    # too. The step is at least 1, hence the starts differ.
    step = last / np.maximum(steps, 1)
    offset = np.floor(number * step[of_slice]).astype(np.int64)
    offset = np.where(number == steps[of_slice], last[of_slice], offset)
    real = np.minimum(length, seq_length + 1).astype(np.int32)
    return WindowIndex(slice=of_slice, subsequence=number, offset=offset, length=real[of_slice])


def check_exact(slices: Slices, *, seq_length: int, stride: int, split: int) -> None:
    """Raises a `DataError` unless windows at every `stride`-th item end each slice exactly.

    Args:
      slices: The slices of one split.
      seq_length: L, the number of input items.
      stride: The step between window starts.
      split: Number of the split, for the message.
    """
    surplus = np.maximum(slices.length - (seq_length + 1), 0) % stride
    if surplus.any():
        first = int(np.argmax(surplus > 0))
        raise DataError(
            f"subsequence_start_mode: exact needs (rows - {seq_length + 1}) to be a multiple of the stride, "
            f"{stride}, in split {split}; sequence {slices.sequence_id[first]} has {slices.length[first]} "
            f"rows there, {surplus[first]} too many. Use subsequence_start_mode: distribute, or "
            "another stride_by_split."
        )


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
    index = window_index(slices.length, seq_length=seq_length, stride=stride)
    rows = slices.rows()
    start = (np.cumsum(slices.length) - slices.length)[index.slice] + index.offset
    positions = item_position[rows]
    return Windows(
        columns={name: column[rows] for name, column in columns.items()},
        start=start,
        length=index.length,
        sequence_id=slices.sequence_id[index.slice],
        subsequence_id=index.subsequence,
        start_item_position=positions[start] - (seq_length + 1 - index.length),
        item_position=positions,
        seq_length=seq_length,
    )
