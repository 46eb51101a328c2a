"""Splits: the rows that belong to each.

A table sorted by sequence is a list of slices, one a sequence. A splitting cuts every slice at some borders:
each row lies in exactly one split, and a split is again a list of slices. Where a split begins within a
sequence, its slice may begin earlier: with rows that are shown as context, and are targets of the split
before alone.
"""

from collections.abc import Callable, Sequence
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


@dataclass(frozen=True)
class Pieces:
    """Rows of neighbouring sequences of a table; the first and the last may have others elsewhere in it."""

    slices: Slices
    """The rows of each sequence, counted in these rows."""
    first: int = 0
    """Number of the first sequence in the table."""
    before: int = 0
    """Rows of the first sequence that come earlier."""
    length: Int64[np.ndarray, "S"] | None = None
    """Rows of each sequence in the table; None where these are all."""
    split: Int16[np.ndarray, "N"] | None = None
    """The split of each row, where a column decides it."""
    split_before: int = 0
    """The split of the row before the first, where that is of the same sequence; else 0."""


def borders(length: Int64[np.ndarray, "S"], ratios: Sequence[float]) -> Int64[np.ndarray, "S borders"]:
    """Borders at which each slice is cut: split k holds items borders[:, k] to borders[:, k + 1].

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

    def cuts(self, pieces: Pieces) -> Int64[np.ndarray, "S borders"]:
        """Borders of each slice, counted from its first row: split k has cuts[:, k] to cuts[:, k + 1].

        Those of a sequence that other pieces have rows of may lie outside these rows.
        """
        cuts = borders(pieces.slices.length if pieces.length is None else pieces.length, self.ratios)
        cuts[:1] -= pieces.before
        return cuts


@dataclass(frozen=True)
class Given:
    """Every sequence is cut at borders that are known."""

    borders: Int64[np.ndarray, "S borders"]
    """Of each sequence of the table, by number."""

    def cuts(self, pieces: Pieces) -> Int64[np.ndarray, "S borders"]:
        """Borders of each slice, as `Within.cuts` returns them."""
        cuts = self.borders[pieces.first : pieces.first + len(pieces.slices)].copy()
        cuts[:1] -= pieces.before
        return cuts


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

    def cuts(self, pieces: Pieces) -> Int64[np.ndarray, "S borders"]:
        """Borders of each slice in these rows, as `Within.cuts` returns them."""
        slices = pieces.slices
        chosen = self.split[pieces.first : pieces.first + len(slices)]
        upper = np.where(chosen[:, None] <= np.arange(self.n_splits), slices.length[:, None], 0)
        return np.concatenate([np.zeros_like(upper[:, :1]), upper], axis=1)


@dataclass(frozen=True)
class ByValue:
    """A column says the split of each row; it never goes back within a sequence."""

    n_splits: int
    column: str
    """Its name, for messages."""
    name: Callable[[int], str] = "sequence {}".format
    """Names a sequence by its number, for messages."""

    def cuts(self, pieces: Pieces) -> Int64[np.ndarray, "S borders"]:
        """Borders of each slice in these rows, as `Within.cuts` returns them.

        Raises:
          DataError: A row is in an earlier split than the one before it.
        """
        slices, part = pieces.slices, pieces.split
        assert part is not None, "a column decides the split"
        back = np.flatnonzero(np.diff(part, prepend=np.int16(pieces.split_before)) < 0)
        back = np.setdiff1d(back, slices.start[pieces.before > 0 :])
        if len(back):
            row = int(back[0])
            number = int(np.searchsorted(slices.start, row, side="right")) - 1
            item = row - slices.start[number] + 1 + (0 if number else pieces.before)
            earlier = part[row - 1] if row else pieces.split_before
            raise DataError(
                f"split_method: by_value needs {self.column!r} never to go back over a cut-off within a "
                f"sequence, but item {item} of {self.name(int(slices.sequence_id[number]))} (in the order of "
                f"its items) is in split {part[row]}, and the row before it in split {earlier}. Choose a "
                "column that only grows, such as a time."
            )
        ends = slices.start + slices.length
        upper = np.empty((len(slices), self.n_splits), np.int64)
        for split in range(self.n_splits):
            before = np.concatenate([[0], np.cumsum(part <= split)])
            upper[:, split] = before[ends] - before[slices.start]
        return np.concatenate([np.zeros_like(upper[:, :1]), upper], axis=1)


Splitting = Within | Given | Between | ByValue
"""A way to divide sequences into splits; every row is in exactly one."""


@dataclass(frozen=True)
class History:
    """The rows before a split's own that its windows see."""

    seq_length: int
    """L, the number of input items of a window: so many rows are enough."""
    strides: Sequence[int]
    """The step between windows, by split."""
    is_exact: bool = False
    """True if only so many are taken that windows at every `stride`-th row still end the slice exactly."""

    def rows(
        self, own: Int64[np.ndarray, "S"], earlier: Int64[np.ndarray, "S"], split: int
    ) -> Int64[np.ndarray, "S"]:
        """Number of rows before those of a split that are shown.

        Args:
          own: Rows of each sequence in the split.
          earlier: Rows of the sequence before them.
          split: Number of the split.
        """
        most = np.minimum(earlier, self.seq_length)
        if not self.is_exact:
            return most
        surplus = np.maximum(own + most - (self.seq_length + 1), 0) % self.strides[split]
        return np.maximum(most - surplus, 0)


def parts(
    pieces: Pieces, cuts: Int64[np.ndarray, "S borders"], history: History | None = None
) -> list[Slices]:
    """The slices of each split; a slice that would be empty is left out.

    Args:
      pieces: Rows of the table.
      cuts: Their borders; with a history, those of whole sequences.
      history: The earlier rows that a slice begins with; None takes none.
    """
    slices, result = pieces.slices, []
    begin = np.zeros(len(slices), np.int64)
    begin[:1] = -pieces.before
    for split, (lower, upper) in enumerate(zip(cuts.T[:-1], cuts.T[1:], strict=True)):
        context = np.zeros_like(lower)
        if history is not None:
            context = np.where(upper > lower, history.rows(upper - lower, lower - begin, split), 0)
        first, end = (np.clip(cut, 0, slices.length) for cut in (lower - context, upper))
        some = end > first
        scattered = None if slices.scattered is None else slices.scattered[some]
        start, length = (slices.start + first)[some], (end - first)[some]
        result.append(Slices(slices.sequence_id[some], start, length, scattered, context[some]))
    return result
