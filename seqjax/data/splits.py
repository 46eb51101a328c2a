"""Which rows belong to which split.

A table sorted by sequence is a list of slices, one a sequence. Splitting cuts every slice at the cumulated
ratios: each row lies in exactly one split, and a split is again a list of slices. Nothing here looks at a
  value.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64


@dataclass(frozen=True)
class Slices:
    """Non-empty runs of consecutive rows, each of one sequence."""

    sequence_id: Int64[np.ndarray, "S"]
    """The sequence that the rows belong to."""
    start: Int64[np.ndarray, "S"]
    """Index of the first row in the table."""
    length: Int64[np.ndarray, "S"]
    """Number of rows, at least 1."""

    def __len__(self) -> int:
        return len(self.start)

    def rows(self) -> Int64[np.ndarray, "N"]:
        """Indices of all rows in the table, slice after slice."""
        return ranges(self.start, self.length)


def ranges(start: Int64[np.ndarray, "S"], length: Int64[np.ndarray, "S"]) -> Int64[np.ndarray, "N"]:
    """The integers start, start + 1, ... of each range (`length` of them), range after range."""
    before = np.cumsum(length) - length
    return np.repeat(start - before, length) + np.arange(length.sum())


def sequences(sequence_id: Int64[np.ndarray, "N"]) -> Slices:
    """One slice a sequence.

    Args:
      sequence_id: The sequence of each row; rows of a sequence are adjacent.
    """
    changes = np.flatnonzero(sequence_id[1:] != sequence_id[:-1]) + 1
    start = np.concatenate([np.zeros(min(len(sequence_id), 1), np.int64), changes])
    length = np.diff(np.append(start, len(sequence_id)))
    return Slices(sequence_id[start], start, length)


def borders(length: Int64[np.ndarray, "S"], ratios: Sequence[float]) -> Int64[np.ndarray, "S borders"]:
    """Where each slice is cut: split k holds items borders[:, k] to borders[:, k + 1].

    A border is the cumulated ratio times the length, rounded down, unless floating point alone keeps that
    product from a whole number (0.7 + 0.2 is a little less than 0.9). The last border is the length.

    Args:
      length: Rows of each slice.
      ratios: Share of each of the K splits; they sum to 1.
    """
    exact = length[:, None] * np.cumsum(ratios)
    nearest = np.rint(exact)
    rounding = 4 * len(ratios) * np.finfo(np.float64).eps * np.maximum(length, 1)[:, None]
    upper = np.where(np.abs(exact - nearest) <= rounding, nearest, np.floor(exact)).astype(np.int64)
    upper[:, -1] = length
    return np.concatenate([np.zeros_like(upper[:, :1]), upper], axis=1)


def split(slices: Slices, ratios: Sequence[float]) -> list[Slices]:
    """Cuts every slice at the cumulated ratios.

    Args:
      slices: The sequences.
      ratios: Share of each split, oldest rows first.

    Returns:
      The slices of each split; a slice that would be empty is left out.
    """
    cuts = borders(slices.length, ratios)
    parts = []
    for lower, upper in zip(cuts.T[:-1], cuts.T[1:], strict=True):
        some = upper > lower
        parts.append(Slices(slices.sequence_id[some], (slices.start + lower)[some], (upper - lower)[some]))
    return parts
