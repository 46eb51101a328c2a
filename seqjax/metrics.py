"""Quality of predictions: scores of single items, and metrics made of their means.

Training and `evaluate` share both tables, which are written for numpy and jax arrays alike. To add a metric,
add a row, and what it is a mean of to `SCORES` if it is not there. A mean stays a sum and a count until the
last moment, so that sums of several pieces of the data can be added, weighted and resampled. Scores of real
values are in standard deviations of the column; `Metric.in_units` gives metrics in the units of the table.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from jaxtyping import Float, Float64, Num

from seqjax.config.schema import HeadName
from seqjax.model.distributions import DISTRIBUTIONS, Distribution, without_unknown

Outputs: TypeAlias = Float[Any, "*batch W"]
Truth: TypeAlias = Num[Any, "*batch"]
Numbers: TypeAlias = Float[Any, "*batch"]
Score: TypeAlias = Callable[[Distribution, Outputs, Truth], Numbers]
"""(distribution, parameters, truth) -> a number for each item."""
Values: TypeAlias = Float64[np.ndarray, "..."]
Unit = Literal["", "share", "nats", "density", "target"]
"""Of a metric: a plain number, a share to be shown in per cent, nats of a probability or of a density, or the
unit of the target."""


def _among_first(count: int, _: Distribution, logits: Outputs, ids: Truth) -> Numbers:
    """1 where the true class is among the `count` likeliest; of equally likely ones the lower id is first."""
    xp = logits.__array_namespace__()
    true = xp.take_along_axis(logits, ids[..., None], axis=-1)
    lower = xp.arange(logits.shape[-1]) < ids[..., None]
    ahead = ((logits > true) | ((logits == true) & lower)).sum(-1)
    return (ahead < count).astype(logits.dtype)


def _confidence(log_probs: Outputs) -> Numbers:
    """The probability of the most likely class."""
    return log_probs.__array_namespace__().exp(log_probs.max(axis=-1))


def _entropy(log_probs: Outputs) -> Numbers:
    """In nats; an impossible class adds nothing."""
    xp = log_probs.__array_namespace__()
    probs = xp.exp(log_probs)
    return -xp.where(probs > 0, probs * xp.where(probs > 0, log_probs, 0), 0).sum(axis=-1)


SCORES: Mapping[str, Score] = {
    "nll": lambda row, parameters, truth: -row.log_prob(parameters, truth),
    "top_1": functools.partial(_among_first, 1),
    "top_3": functools.partial(_among_first, 3),
    "top_5": functools.partial(_among_first, 5),
    "confidence": lambda _, log_probs, __: _confidence(log_probs),
    "entropy": lambda _, log_probs, __: _entropy(log_probs),
    "error": lambda row, parameters, truth: row.point(parameters) - truth,
    "absolute": lambda row, parameters, truth: abs(row.point(parameters) - truth),
    "square": lambda row, parameters, truth: (row.point(parameters) - truth) ** 2,
    "value": lambda _, __, truth: truth,
    "value_square": lambda _, __, truth: truth**2,
}
"""By name; `confidence` and `entropy` are of stated parameters, all others of any."""


@dataclass(frozen=True)
class Metric:
    """One figure: its label, a sentence for those who do not know it, and the scores that it is made of."""

    label: str
    meaning: str
    scores: tuple[str, ...]
    """Rows of `SCORES`, whose means it is made of."""
    of: Callable[..., Values] = lambda mean: mean
    """The means, one array a score, to the metric; NaN where it is not defined."""
    unit: Unit = ""
    in_training: bool = False
    classes: int = 0
    """Training logs it of targets with more classes than this: of fewer it says nothing."""

    def in_units(self, value: Values, unit: float) -> Values:
        """The metric in units of the table, for a target with this `Statistics.unit`."""
        if self.unit == "target":
            return value * unit
        return value + np.log(unit) if self.unit == "density" else value


def _explained(square: Values, value: Values, value_square: Values) -> Values:
    """1 - mean squared error / variance; undefined where all true values are equal."""
    variance = value_square - value**2
    # What is left of equal values by rounding is no variance.
    return 1 - square / np.where(variance > 1e-12 * value_square, variance, np.nan)


def _top(count: int, label: str, meaning: str) -> Metric:
    return Metric(label, meaning, (f"top_{count}",), unit="share", in_training=True, classes=count)


_CLASSES = {
    "top_1_accuracy": _top(1, "Top-1 accuracy", "how often the most likely class was the true one"),
    "top_3_accuracy": _top(3, "Top-3 accuracy", "how often the true class was among the three most likely"),
    "top_5_accuracy": _top(5, "Top-5 accuracy", "how often the true class was among the five most likely"),
    "nll": Metric(
        "NLL (nats)",
        "the mean negative log-probability of the true class: it rewards being sure only when right",
        ("nll",),
        unit="nats",
    ),
    "perplexity": Metric(
        "Perplexity",
        "exp(NLL): among how many equally likely classes the choice would be as hard",
        ("nll",),
        np.exp,
        in_training=True,
    ),
    "confidence": Metric(
        "Mean confidence", "the mean probability of the most likely class", ("confidence",), unit="share"
    ),
    "entropy": Metric(
        "Entropy (nats)", "how spread out the predicted probabilities are", ("entropy",), unit="nats"
    ),
}
_REALS = {
    "mae": Metric("MAE", "the mean distance from the truth", ("absolute",), unit="target", in_training=True),
    "rmse": Metric(
        "RMSE",
        "the root of the mean squared distance: large misses weigh more",
        ("square",),
        np.sqrt,
        unit="target",
        in_training=True,
    ),
    "r2": Metric(
        "R²",
        "the share of the variance that is explained; 1 is perfect",
        ("square", "value", "value_square"),
        _explained,
    ),
    "bias": Metric("Bias", "the mean of prediction less truth", ("error",), unit="target"),
}
_DENSITIES = {
    "nll": Metric(
        "NLL (nats)",
        "the mean negative log-density of the true value: it rewards being sure only when right",
        ("nll",),
        unit="density",
        in_training=True,
    ),
    **_REALS,
}

PREDICTED = ("top_1", "top_3", "top_5", "confidence")
"""Scores of the classes that are predicted, of which `unknown` may not be one."""

METRICS: Mapping[HeadName, Mapping[str, Metric]] = {
    name: _CLASSES if row.has_classes else _DENSITIES if row.is_density else _REALS
    for name, row in DISTRIBUTIONS.items()
}
"""In the order of tables."""

JUDGED_BY: Mapping[HeadName, str] = {
    name: "nll" if row.has_classes or row.is_density else "rmse" for name, row in DISTRIBUTIONS.items()
}
"""The metric that a verdict is about; lower is better."""
SECOND: Mapping[HeadName, str] = {
    name: "top_1_accuracy" if row.has_classes else "rmse"
    for name, row in DISTRIBUTIONS.items()
    if row.has_classes or row.is_density
}
"""Of heads that state probabilities: the metric of what is predicted, which a verdict mentions where it says
something else."""


@dataclass(frozen=True)
class Scoring:
    """Scores predictions of one target, in numpy and float64."""

    head: HeadName
    unit: float = 1.0
    """`Statistics.unit` of a real target; 1 leaves metrics in standard deviations."""
    unknown: bool = True
    """True if `unknown` may be the class that is predicted."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The scores that the metrics are means of, behind the number of items."""
        scores = (name for metric in METRICS[self.head].values() for name in metric.scores)
        return ("items", *dict.fromkeys(scores))

    def score(
        self, parameters: Float[np.ndarray, "N W"], truth: Num[np.ndarray, "N"]
    ) -> Float64[np.ndarray, "N scores"]:
        """One row an item, one column a score. All that follows adds rows up.

        Args:
          parameters: Stated parameters, or any logits; not NaN.
          truth: The classes or standardised values that came.
        """
        row, wide = DISTRIBUTIONS[self.head], parameters.astype(np.float64)
        wide = row.stated(wide) if row.has_classes else wide
        ranked = wide if self.unknown or not row.has_classes else without_unknown(wide)
        columns = [
            SCORES[name](row, ranked if name in PREDICTED else wide, truth) for name in self.columns[1:]
        ]
        return np.stack([np.ones(len(truth)), *columns], axis=1).astype(np.float64)

    def values(self, sums: Float64[np.ndarray, "... scores"]) -> dict[str, Values]:
        """Every metric of sums of scores; NaN or infinite where it is not defined."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            rows = np.moveaxis(sums / sums[..., :1], -1, 0)
            means = dict(zip(self.columns, rows, strict=True))
            return {
                name: np.asarray(
                    metric.in_units(metric.of(*(means[score] for score in metric.scores)), self.unit)
                )
                for name, metric in METRICS[self.head].items()
            }
