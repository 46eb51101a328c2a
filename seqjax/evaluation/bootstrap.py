"""Intervals by the bootstrap: how much a figure would move if other sequences had been observed.

Pieces of the data are drawn with replacement. All predictors are summed over the same draws, so that a
difference between two of them is judged item by item, not by two separate uncertainties.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

FEWEST_PIECES = 10
"""From fewer pieces nothing is concluded."""
_DRAWS_AT_A_TIME = 64


@dataclass(frozen=True)
class Estimate:
    """A figure and the ends of its interval; null where it is not defined."""

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
