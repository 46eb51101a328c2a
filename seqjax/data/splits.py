"""Which rows belong to which split.

A table sorted by sequence is a list of slices, one a sequence. A splitting cuts every slice at some borders:
each row lies in exactly one split, and a split is again a list of slices.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int16, Int64

from seqjax.errors import DataError
from seqjax.windows.index import Slices


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


@dataclass(frozen=True)
class Within:
    """Every sequence is cut at the cumulated ratios, its oldest rows first."""

    ratios: Sequence[float]

    def parts(
        self, slices: Slices, first: int = 0, part: Int16[np.ndarray, "N"] | None = None
    ) -> list[Slices]:
        """The slices of each split; a slice that would be empty is left out.

        Args:
          slices: Whole sequences.
          first: Number of the first of them in the whole table.
          part: The split of each row of the chunk, where a column decides it.
        """
        del first, part
        return _cut(slices, borders(slices.length, self.ratios))


@dataclass(frozen=True)
class Between:
    """Every sequence is in one split as a whole."""

    split: Int16[np.ndarray, "S"]
    """The split of each sequence of the table, by number."""
    n_splits: int

    @classmethod
    def drawn(cls, n_sequences: int, ratios: Sequence[float], seed: int) -> "Between":
        """Deals sequences out at random, in numbers that fit the ratios.

        Args:
          n_sequences: Number of sequences in the table.
          ratios: Share of each split; they sum to 1.
          seed: Seed of the draw.
        """
        counts = np.diff(borders(np.array([n_sequences]), ratios)[0])
        dealt = np.repeat(np.arange(len(ratios), dtype=np.int16), counts)
        return cls(np.random.default_rng(seed).permutation(dealt), len(ratios))

    def parts(
        self, slices: Slices, first: int = 0, part: Int16[np.ndarray, "N"] | None = None
    ) -> list[Slices]:
        """See `Within.parts`."""
        del part
        chosen = self.split[first : first + len(slices)]
        upper = np.where(chosen[:, None] <= np.arange(self.n_splits), slices.length[:, None], 0)
        return _cut(slices, np.concatenate([np.zeros_like(upper[:, :1]), upper], axis=1))


@dataclass(frozen=True)
class ByValue:
    """A column says the split of each row; it never goes back within a sequence."""

    n_splits: int
    column: str
    """Its name, for messages."""

    def parts(
        self, slices: Slices, first: int = 0, part: Int16[np.ndarray, "N"] | None = None
    ) -> list[Slices]:
        """See `Within.parts`.

        Raises:
          DataError: A row is in an earlier split than the one before it.
        """
        del first
        assert part is not None, "a column decides the split"
        back = np.flatnonzero(np.diff(part) < 0) + 1
        back = np.setdiff1d(back, slices.start)
        if len(back):
            row = int(back[0])
            number = int(np.searchsorted(slices.start, row, side="right")) - 1
            raise DataError(
                f"split_method: by_value needs {self.column!r} never to go back over a cut-off within a "
                f"sequence, but item {row - slices.start[number] + 1} of sequence "
                f"{slices.sequence_id[number]} (in the order of itemPosition) is in split {part[row]}, and "
                f"the row before it in split {part[row - 1]}. Choose a column that only grows, such as a "
                "time."
            )
        ends = slices.start + slices.length
        upper = np.empty((len(slices), self.n_splits), np.int64)
        for split in range(self.n_splits):
            before = np.concatenate([[0], np.cumsum(part <= split)])
            upper[:, split] = before[ends] - before[slices.start]
        return _cut(slices, np.concatenate([np.zeros_like(upper[:, :1]), upper], axis=1))


Splitting = Within | Between | ByValue
"""A way to divide sequences into splits; every row is in exactly one."""


def _cut(slices: Slices, cuts: Int64[np.ndarray, "S borders"]) -> list[Slices]:
    parts = []
    for lower, upper in zip(cuts.T[:-1], cuts.T[1:], strict=True):
        some = upper > lower
        parts.append(Slices(slices.sequence_id[some], (slices.start + lower)[some], (upper - lower)[some]))
    return parts
