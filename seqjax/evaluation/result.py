"""The result of an evaluation: the content of the JSON report, which docs/evaluate.md documents.

A field is a key. Whatever is not defined (the R² of equal values, an interval of too little data) is null.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal, TypeAlias

from seqjax.config.schema import ColumnKind, HeadName
from seqjax.evaluation.pieces import Estimate

FORMAT = 1
"""The number of the report's format; it grows when a key changes its meaning or goes."""
MODEL = "model"
"""Name of the model among the predictors of a target."""

Outcome = Literal["better", "no better", "worse", "not judged"]


@dataclass(frozen=True)
class Verdict:
    """A model against the baseline that is best on this data, by one metric."""

    outcome: Outcome
    text: str
    metric: str
    """A key of `metrics`."""
    baseline: str | None
    difference: Estimate | None
    """The baseline's figure less the model's; above 0 the model is better."""
    relative: float | None
    """The difference as a share of the baseline's figure; None where that is nearly 0."""
    also: "Verdict | None" = None
    """The verdict by a second metric, where that is another: against the baseline that is best by it."""


@dataclass(frozen=True)
class Position:
    """One position of the prediction window, from 1, the oldest; figures by predictor and metric."""

    position: int
    items_seen: int
    """Items that the model sees before it."""
    items: int
    metrics: Mapping[str, Mapping[str, float | None]]


@dataclass(frozen=True)
class Bin:
    """Items of similar confidence, with their mean confidence and the share that was right."""

    low: float
    high: float
    items: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Calibration:
    """The expected calibration error of each predictor, and the bins of the model."""

    ece: Mapping[str, float | None]
    bins: Sequence[Bin]


@dataclass(frozen=True)
class ConfusionTable:
    """Items by true class (rows) and predicted class (columns)."""

    labels: Sequence[str]
    """The commonest true classes, the commonest first."""
    counts: Sequence[Sequence[int]]
    """One row and one column a label; the last ones are all other classes together."""


@dataclass(frozen=True)
class Points:
    """Items drawn at random, in original units; predictions by predictor."""

    truth: Sequence[float]
    predictions: Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class TargetResult:
    """The scores of one target, with `head` as in `seqjax.model.distributions`."""

    kind: ColumnKind
    head: HeadName
    items: int
    not_scored: Mapping[str, int]
    """Items that were left out, by reason: padding, unknown, other."""
    pieces: int
    """Pieces of the data that the intervals are drawn from."""
    verdict: Verdict
    metrics: Mapping[str, Mapping[str, Estimate]]
    """By predictor (the model first) and metric."""
    positions: Sequence[Position]
    """Empty unless the model predicts several positions a window."""
    # Of a categorical target.
    classes: Mapping[str, int] | None = None
    """Numbers of classes that there are, that occurred and that were predicted."""
    calibration: Calibration | None = None
    confusion: ConfusionTable | None = None
    # Of a real target.
    points: Points | None = None


Value: TypeAlias = str | float | None


@dataclass(frozen=True)
class Guess:
    """The prediction of one item, and its true value."""

    truth: Value
    prediction: Value
    likely: Mapping[str, float] | None
    """Of a categorical target: the most likely classes and their probabilities."""


@dataclass(frozen=True)
class Example:
    """A window and the prediction of the item after it, whose position is `item_position`."""

    sequence_id: int | float | str
    """Its id, as the table has it."""
    item_position: int | float | str
    """The number or the time that the table has."""
    window: Mapping[str, Sequence[Value]]
    """The newest items before it, oldest first, by column."""
    targets: Mapping[str, Guess]


@dataclass(frozen=True)
class Baselines:
    """The training data that the baselines are fitted on."""

    fitted_on: str | None
    """Null if there is no training data, and then there are no baselines."""
    windows: int
    periods: Mapping[str, int] = field(default_factory=dict)
    """Items after which the seasonal last value comes again, by target."""


@dataclass(frozen=True)
class ModelResult:
    """One model."""

    name: str
    path: str
    seq_length: int
    prediction_length: int
    best_epoch: int | None
    windows: int
    sequences: int
    resampled: str
    """The unit that the bootstrap draws."""
    baselines: Baselines
    verdict: str
    targets: Mapping[str, TargetResult]
    examples: Sequence[Example]
    notes: Sequence[str]


@dataclass(frozen=True)
class Rank:
    """A model's figure and its distance from the best one, by the metric that verdicts are about."""

    model: str
    figure: Estimate
    behind: Estimate | None
    """Its figure less that of the best model; null for the best, and where the scored items differ."""


@dataclass(frozen=True)
class Settings:
    """The settings that decide about figures besides models and data."""

    confidence_level: float
    bootstrap_samples: int
    seed: int
    calibration_bins: int
    score_reserved: bool


@dataclass(frozen=True)
class Report:
    """A whole evaluation of held-out data; `created` is in ISO 8601, UTC."""

    format: int
    seqjax_version: str
    created: str
    files: Sequence[str]
    data: str
    settings: Settings
    models: Sequence[ModelResult]
    comparison: Mapping[str, Sequence[Rank]]
    """By target, the best model first; empty for a single model."""


def to_json(report: Report) -> str:
    """The report as JSON; what is not finite is null."""
    # Python writes NaN and Infinity, which other readers of JSON refuse.
    values = json.loads(json.dumps(asdict(report)), parse_constant=lambda _: None)
    return json.dumps(values, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
