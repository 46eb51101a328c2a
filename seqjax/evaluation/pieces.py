"""Pieces of the data: running sums of scores over them, and intervals by the bootstrap.

The pieces are whole sequences, since the windows of one overlap and its items depend on each other. Where
there are too few sequences to draw from, they are blocks of consecutive windows.

An interval says how much a figure would move if other sequences had been observed: pieces are drawn with
replacement. All predictors are summed over the same draws, so that a difference between two of them is judged
item by item, not by two separate uncertainties.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64, Integer

FEWEST_PIECES = 10
"""From fewer pieces nothing is concluded."""
_DRAWS_AT_A_TIME = 64
ENOUGH_SEQUENCES = 20
"""Fewer sequences are cut into blocks."""
BLOCKS = 50
"""About how many blocks they are cut into."""
LARGEST_NUMBER_OF_PIECES = 1 << 16


class Pieces:
    """Numbers the pieces that windows belong to, in the order in which they appear.

    Args:
      block: Consecutive windows of a sequence that are a piece; None is the whole sequence.
    """

    def __init__(self, block: int | None = None) -> None:
        self.block = block
        self._numbers: dict[tuple[int, int], int] = {}

    @classmethod
    def of(cls, sequence_id: Int64[np.ndarray, "W"], seq_length: int) -> "Pieces":
        """Sequences where there are enough of them, else blocks that are longer than a window.

        Args:
          sequence_id: The sequence of each window of the data, or of the first part of it.
          seq_length: L, the number of input items of a window.
        """
        if len(np.unique(sequence_id)) >= ENOUGH_SEQUENCES:
            return cls()
        return cls(max(seq_length + 1, -(-len(sequence_id) // BLOCKS)))

    @property
    def unit(self) -> str:
        """The name of a piece, in the plural."""
        return "sequences" if self.block is None else f"blocks of {self.block} consecutive windows"

    def __len__(self) -> int:
        return len(self._numbers)

    def numbers(
        self, sequence_id: Int64[np.ndarray, "B"], subsequence_id: Int64[np.ndarray, "B"]
    ) -> Int64[np.ndarray, "B"]:
        """The piece of each window; when there are very many pieces, later ones share a number."""
        block = subsequence_id // self.block if self.block else np.zeros_like(subsequence_id)
        keys = zip(sequence_id.tolist(), block.tolist(), strict=True)
        return np.array([self._number(key) for key in keys], np.int64)

    def _number(self, key: tuple[int, int]) -> int:
        known = self._numbers.get(key)
        if known is not None:
            return known
        if len(self._numbers) == LARGEST_NUMBER_OF_PIECES:
            return hash(key) % LARGEST_NUMBER_OF_PIECES
        return self._numbers.setdefault(key, len(self._numbers))


class Tally:
    """Sums of the scores of one predictor."""

    def __init__(self, n_scores: int, n_positions: int) -> None:
        self._by_piece = np.zeros((64, n_scores))
        self.by_position: Float64[np.ndarray, "P scores"] = np.zeros((n_positions, n_scores))

    def add(
        self,
        piece: Integer[np.ndarray, "N"],
        position: Integer[np.ndarray, "N"],
        scores: Float64[np.ndarray, "N scores"],
    ) -> None:
        """Adds items.

        Args:
          piece: The number of each item's piece.
          position: The item's place in the prediction window, from 0.
          scores: One row an item.
        """
        pieces, row = np.unique(piece, return_inverse=True)
        self._reserve(int(pieces[-1]) + 1 if len(pieces) else 0)
        np.add.at(self.by_position, position, scores)
        summed = np.zeros((len(pieces), scores.shape[1]))
        np.add.at(summed, row, scores)
        self._by_piece[pieces] += summed

    def by_piece(self, count: int) -> Float64[np.ndarray, "S scores"]:
        """The sums of each of `count` pieces."""
        self._reserve(count)
        return self._by_piece[:count]

    def _reserve(self, rows: int) -> None:
        have = len(self._by_piece)
        if rows > have:
            more = max(rows, 2 * have) - have
            self._by_piece = np.concatenate([self._by_piece, np.zeros((more, self._by_piece.shape[1]))])


@dataclass(frozen=True)
class Estimate:
    """A figure and the ends of its interval; None where it is not defined."""

    value: float | None
    low: float | None = None
    high: float | None = None


def resampled(
    sums: Float64[np.ndarray, "S *rest"], *, samples: int, seed: int
) -> Float64[np.ndarray, "R *rest"]:
    """Sums over draws of S pieces with replacement; equal seeds and S give equal draws.

    Args:
      sums: The sums of each piece.
      samples: Number of draws.
      seed: Seed of the draws.
    """
    rng, count = np.random.default_rng(seed), len(sums)
    flat, result = sums.reshape(count, -1), np.empty((samples, sums[0].size))
    for first in range(0, samples, _DRAWS_AT_A_TIME):
        draws = rng.multinomial(count, np.full(count, 1 / count), size=min(_DRAWS_AT_A_TIME, samples - first))
        with np.errstate(invalid="ignore"):  # An infinite score of a piece that is not drawn is NaN.
            result[first : first + len(draws)] = draws.astype(np.float64) @ flat
    return result.reshape(samples, *sums.shape[1:])


def estimate(value: float, draws: Float64[np.ndarray, "R"] | None, *, level: float) -> Estimate:
    """A figure with the interval that holds the middle `level` of its resampled values.

    Args:
      value: The figure over all data.
      draws: Its resampled values; None, or any that is not finite, gives no interval.
      level: Such as 0.95.
    """
    shown = float(value) if np.isfinite(value) else None
    if draws is None or shown is None or not np.isfinite(draws).all():
        return Estimate(shown)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(shown, float(low), float(high))
