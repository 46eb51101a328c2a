"""Scores of single predictions: one row an item, one column a score. All that follows adds rows up.

Probabilities are computed in float64 and sum to 1 whatever the precision of the model. A class wins a tie
against those of higher ids, as it does where `infer` writes the most likely class.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, Integer

CLASS_SCORES = ("items", "nll", "top_1", "top_3", "top_5", "confidence", "entropy")
"""Columns for a categorical target: 1, nats, 0 or 1 three times, probability, nats."""
REAL_SCORES = ("items", "error", "absolute", "square", "value", "value_square")
"""Columns for a real target: 1, prediction less truth, its size and square, the truth, its square."""

_TOP = (1, 3, 5)


class ClassScores(NamedTuple):
    """What is known of N predictions of a categorical target."""

    scores: Float64[np.ndarray, "N 7"]
    """By `CLASS_SCORES`."""
    chosen: Integer[np.ndarray, "N"]
    """The most likely class."""


def score_classes(log_probs: Float[np.ndarray, "N C"], truth: Integer[np.ndarray, "N"]) -> ClassScores:
    """Scores distributions over classes.

    Args:
      log_probs: Log-probabilities, or any logits; not NaN.
      truth: The class that came.
    """
    rows = np.arange(len(truth))
    exact = log_probs.astype(np.float64)
    exact -= exact.max(axis=1, keepdims=True)
    probs = np.exp(exact)
    total = probs.sum(axis=1, keepdims=True)
    probs /= total
    exact -= np.log(total)
    entropy = -np.multiply(probs, exact, where=probs > 0, out=np.zeros_like(probs)).sum(axis=1)
    rank = _rank(log_probs, truth)
    columns = [
        np.ones(len(truth)),
        -exact[rows, truth],
        *(rank < k for k in _TOP),
        probs.max(axis=1),
        entropy,
    ]
    return ClassScores(np.stack(columns, axis=1).astype(np.float64), log_probs.argmax(axis=1))


def score_reals(
    prediction: Float64[np.ndarray, "N"], truth: Float64[np.ndarray, "N"], *, origin: float
) -> Float64[np.ndarray, "N 6"]:
    """Scores predicted numbers, by `REAL_SCORES`.

    Args:
      prediction: Predictions in original units.
      truth: What came.
      origin: A number near the truth, which is counted from there, so that its variance survives rounding.
    """
    error, value = prediction - truth, truth - origin
    return np.stack(
        [np.ones(len(truth)), error, np.abs(error), np.square(error), value, np.square(value)], axis=1
    )


def _rank(log_probs: Float[np.ndarray, "N C"], truth: Integer[np.ndarray, "N"]) -> Integer[np.ndarray, "N"]:
    """How many classes are ahead of the true one."""
    mine = log_probs[np.arange(len(truth)), truth][:, None]
    lower_id: Bool[np.ndarray, "N C"] = np.arange(log_probs.shape[1]) < truth[:, None]
    return ((log_probs > mine) | ((log_probs == mine) & lower_id)).sum(axis=1)
