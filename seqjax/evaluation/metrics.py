"""Metrics: each a function of sums of scores, over all items or over any part of them.

To add one, add a row. A mean stays a sum and a count until here, so that the sums of parts can be added,
weighted and resampled.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from seqjax.config.schema import ColumnKind
from seqjax.evaluation.scores import CLASS_SCORES, REAL_SCORES

Sums = Float64[np.ndarray, "... scores"]
Values = Float64[np.ndarray, "..."]
Computed = Values | np.float64


@dataclass(frozen=True)
class Metric:
    """One figure."""

    label: str
    """What people read."""
    meaning: str
    """One sentence for those who do not know it."""
    of: Callable[[Sums], Computed]
    """Its values for sums along the last axis; NaN where it is not defined."""
    share: bool = False
    """Whether it is a share, to be shown in per cent."""
    in_units: bool = False
    """Whether it is in the units of the target."""


def _mean(scores: tuple[str, ...], name: str) -> Callable[[Sums], Computed]:
    at = scores.index(name)
    return lambda sums: sums[..., at] / sums[..., 0]


def _perplexity(sums: Sums) -> Computed:
    return np.exp(_mean(CLASS_SCORES, "nll")(sums))


def _rmse(sums: Sums) -> Computed:
    return np.sqrt(_mean(REAL_SCORES, "square")(sums))


def _r2(sums: Sums) -> Computed:
    """1 - squared error / squared distance from the mean; undefined where all true values are equal."""
    count, square, value, value_square = (
        sums[..., REAL_SCORES.index(name)] for name in ("items", "square", "value", "value_square")
    )
    spread = value_square - np.square(value) / count
    # What is left of equal values by rounding is not a spread.
    return 1 - square / np.where(spread > 1e-12 * value_square, spread, np.nan)


_CLASS_METRICS = {
    "top_1_accuracy": Metric(
        "Top-1 accuracy",
        "how often the most likely class was the true one",
        _mean(CLASS_SCORES, "top_1"),
        share=True,
    ),
    "top_3_accuracy": Metric(
        "Top-3 accuracy",
        "how often the true class was among the three most likely",
        _mean(CLASS_SCORES, "top_3"),
        share=True,
    ),
    "top_5_accuracy": Metric(
        "Top-5 accuracy",
        "how often the true class was among the five most likely",
        _mean(CLASS_SCORES, "top_5"),
        share=True,
    ),
    "nll": Metric(
        "NLL (nats)",
        "the mean negative log-probability of the true class: it rewards being sure only when right",
        _mean(CLASS_SCORES, "nll"),
    ),
    "perplexity": Metric(
        "Perplexity",
        "exp(NLL): among how many equally likely classes the choice would be as hard",
        _perplexity,
    ),
    "confidence": Metric(
        "Mean confidence",
        "the mean probability of the most likely class",
        _mean(CLASS_SCORES, "confidence"),
        share=True,
    ),
    "entropy": Metric(
        "Entropy (nats)",
        "how spread out the predicted probabilities are",
        _mean(CLASS_SCORES, "entropy"),
    ),
}
_REAL_METRICS = {
    "mae": Metric(
        "MAE",
        "the mean distance from the truth",
        _mean(REAL_SCORES, "absolute"),
        in_units=True,
    ),
    "rmse": Metric(
        "RMSE",
        "the root of the mean squared distance: large misses weigh more",
        _rmse,
        in_units=True,
    ),
    "r2": Metric("R²", "the share of the variance that is explained; 1 is perfect", _r2),
    "bias": Metric("Bias", "the mean of prediction less truth", _mean(REAL_SCORES, "error"), in_units=True),
}

METRICS: Mapping[ColumnKind, Mapping[str, Metric]] = {"categorical": _CLASS_METRICS, "real": _REAL_METRICS}
"""The metrics of each kind of target, in the order of tables."""

JUDGED_BY: Mapping[ColumnKind, str] = {"categorical": "nll", "real": "rmse"}
"""The metric that a verdict is about; lower is better."""


def values_of(kind: ColumnKind, sums: Sums) -> dict[str, Values]:
    """Every metric of a kind; NaN or infinite where it is not defined."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return {name: np.asarray(metric.of(sums)) for name, metric in METRICS[kind].items()}
