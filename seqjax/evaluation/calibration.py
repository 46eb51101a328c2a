"""Calibration: of the items that a model is 80 % sure of, it should get 80 % right.

Items are put into bins of equal width by the probability of their most likely class.
"""

import numpy as np
from jaxtyping import Bool, Float64


def bin_sums(
    confidence: Float64[np.ndarray, "N"], right: Bool[np.ndarray, "N"], n_bins: int
) -> Float64[np.ndarray, "bins 3"]:
    """Items, sum of confidence and right items of each bin; bin i holds i/n < confidence <= (i + 1)/n.

    Args:
      confidence: The probability of the most likely class.
      right: Whether it came.
      n_bins: Number of bins.
    """
    place = np.clip(np.ceil(confidence * n_bins).astype(np.int64) - 1, 0, n_bins - 1)
    weights = (None, confidence, right.astype(np.float64))
    counts = [np.bincount(place, weights=weight, minlength=n_bins) for weight in weights]
    return np.stack(counts, axis=1).astype(np.float64)


def expected_error(sums: Float64[np.ndarray, "bins 3"]) -> float:
    """ECE: the mean distance between confidence and accuracy, bins weighed by their items; NaN without items.

    Args:
      sums: What `bin_sums` returns, possibly added up.
    """
    total = sums[:, 0].sum()
    return float(np.abs(sums[:, 1] - sums[:, 2]).sum() / total) if total else float("nan")
