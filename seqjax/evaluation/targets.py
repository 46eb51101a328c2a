"""Scores of one target of one model, and of the baselines on the same items, batch by batch.

Calibration: of the items that a model is 80 % sure of, it should get 80 % right. Items are put into bins of
equal width by the probability of their most likely class.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64, Integer, Num

from seqjax.baselines import Fitted, Past, predict_baseline
from seqjax.config.evaluate import EvaluateConfig
from seqjax.config.metadata import Statistics
from seqjax.config.schema import HEADS, HeadName
from seqjax.evaluation.examples import RandomRows, in_table
from seqjax.evaluation.pieces import FEWEST_PIECES, Tally, estimate, resampled
from seqjax.evaluation.result import MODEL, Bin, Calibration, ConfusionTable, Points, Position, TargetResult
from seqjax.evaluation.verdict import judge
from seqjax.metrics import Scoring
from seqjax.model.distributions import DISTRIBUTIONS, without_unknown


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


MOST_TRACKED = 1024


class Confusion:
    """Counts pairs of true and predicted class."""

    def __init__(self, n_classes: int, likely: Integer[np.ndarray, "n"] | None = None) -> None:
        """Chooses the classes that are distinguished.

        Args:
          n_classes: Number of classes, C. Up to 1024 are distinguished.
          likely: Some true ids; where there are more classes, the commonest of these are distinguished.
        """
        tracked = np.arange(n_classes)
        if n_classes > MOST_TRACKED:
            seen = np.bincount(np.zeros(0, np.int64) if likely is None else likely, minlength=n_classes)
            tracked = np.sort(np.argsort(-seen, kind="stable")[:MOST_TRACKED])
        self._tracked = tracked
        self._place = np.full(n_classes, len(tracked))
        self._place[tracked] = np.arange(len(tracked))
        self._counts = np.zeros((len(tracked) + 1, len(tracked) + 1), np.int64)
        self.true_counts = np.zeros(n_classes, np.int64)
        """(C,) Items of each true class."""
        self.chosen_counts = np.zeros(n_classes, np.int64)
        """(C,) Items for which each class was predicted."""

    def add(self, truth: Integer[np.ndarray, "N"], chosen: Integer[np.ndarray, "N"]) -> None:
        """Adds items: what came, and what was predicted."""
        np.add.at(self._counts, (self._place[truth], self._place[chosen]), 1)
        np.add.at(self.true_counts, truth, 1)
        np.add.at(self.chosen_counts, chosen, 1)

    def commonest(self, most: int) -> tuple[Int64[np.ndarray, "k"], Int64[np.ndarray, "k1 k1"]]:
        """The confusion of at most `most` true classes that occur.

        Returns:
          Their ids, the commonest first, and items by true class (rows) and predicted class (columns), of
          which the last of each is every other class.
        """
        occurring = np.flatnonzero(self.true_counts[self._tracked])
        order = np.argsort(-self.true_counts[self._tracked][occurring], kind="stable")
        chosen = occurring[order][:most]
        rest = np.setdiff1d(np.arange(len(self._counts)), chosen)
        rows = np.concatenate([self._counts[chosen], self._counts[rest].sum(axis=0, keepdims=True)])
        counts = np.concatenate([rows[:, chosen], rows[:, rest].sum(axis=1, keepdims=True)], axis=1)
        return self._tracked[chosen], counts


POINTS = 3000
"""Items of a real target that plots show."""


class Items(NamedTuple):
    """N items to score, of the newest P positions of windows."""

    truth: Num[np.ndarray, "N"]
    """Ids or standardised values."""
    past: Past
    """The target's values before each of the P positions."""
    scored: Bool[np.ndarray, "B P"]
    """True at the positions of the N items."""
    piece: Int64[np.ndarray, "N"]
    position: Int64[np.ndarray, "N"]
    """The place in the prediction window, from 0."""


class TargetRun(ABC):
    """Scores one target, by the model and by baselines."""

    def __init__(
        self, scoring: Scoring, baselines: Fitted, config: EvaluateConfig, *, n_positions: int
    ) -> None:
        """Starts at zero.

        Args:
          scoring: How predictions are scored.
          baselines: Fitted baselines, which are scored on the same items.
          config: Seed, bins and sizes.
          n_positions: P, the length of the prediction window.
        """
        self.scoring = scoring
        self.tallies = {name: Tally(len(scoring.columns), n_positions) for name in (MODEL, *baselines)}
        self.not_scored = {"padding": 0, "without_history": 0, "missing": 0}
        """Items that were left out, by reason."""
        self._baselines = baselines
        self._config = config

    def baseline(self, name: str, items: Items) -> Float[np.ndarray, "N _"]:
        """Log-probabilities or raw outputs of a baseline."""
        return predict_baseline(name, self._baselines[name], items.past)[items.scored]

    @abstractmethod
    def add(self, items: Items, output: Float[np.ndarray, "N _"]) -> None:
        """Scores items.

        Args:
          items: The items.
          output: What the model states, such as log-probabilities (N, C) or standardised values (N, 1).
        """

    def result(self, n_pieces: int, seq_length: int) -> TargetResult:
        """The metrics of all predictors, over all items and over resamples.

        Args:
          n_pieces: Number of pieces of the data.
          seq_length: L, the number of input items of a window.
        """
        sums, level = scored_pieces(self.tallies, n_pieces), self._config.confidence_level
        values, draws = self.scoring.values(sums.sum(axis=0)), None
        if len(sums) >= FEWEST_PIECES:
            samples, seed = self._config.bootstrap_samples, self._config.seed
            draws = self.scoring.values(resampled(sums, samples=samples, seed=seed))
        return TargetResult(
            kind=HEADS[self.scoring.head].kind,
            head=self.scoring.head,
            items=int(sums[:, 0, 0].sum()),
            not_scored=self.not_scored,
            pieces=len(sums),
            verdict=judge(
                self.scoring.head,
                {key: dict(zip(self.tallies, row.tolist(), strict=True)) for key, row in values.items()},
                None
                if draws is None
                else {key: dict(zip(self.tallies, row.T, strict=True)) for key, row in draws.items()},
                level=level,
                unit=self.scoring.unit,
            ),
            metrics={
                name: {
                    key: estimate(float(row[at]), None if draws is None else draws[key][:, at], level=level)
                    for key, row in values.items()
                }
                for at, name in enumerate(self.tallies)
            },
            positions=_positions(self.scoring, self.tallies, seq_length),
        )


class CategoricalRun(TargetRun):
    """Scores a categorical target."""

    def __init__(
        self,
        labels: Sequence[str],
        baselines: Fitted,
        config: EvaluateConfig,
        *,
        n_positions: int,
        likely: Integer[np.ndarray, "n"],
        unknown: bool = False,
    ) -> None:
        """Starts at zero.

        Args:
          labels: The names of the classes.
          baselines: See `TargetRun`.
          config: See `TargetRun`.
          n_positions: See `TargetRun`.
          likely: Some true ids: of very many classes, the commonest of these are distinguished.
          unknown: Whether the model may predict `unknown`.
        """
        scoring = Scoring("categorical", unknown=unknown)
        super().__init__(scoring, baselines, config, n_positions=n_positions)
        self.not_scored |= {"other": 0}
        self._labels = labels
        self._bins = {name: np.zeros((config.calibration_bins, 3)) for name in self.tallies}
        self._confusion = Confusion(len(labels), likely)

    def add(self, items: Items, output: Float[np.ndarray, "N _"]) -> None:
        """Scores items; see `TargetRun`."""
        truth = items.truth.astype(np.int64)
        for name, tally in self.tallies.items():
            log_probs = output if name == MODEL else self.baseline(name, items)
            ranked = log_probs if self.scoring.unknown else without_unknown(log_probs)
            scores, chosen = self.scoring.score(log_probs, truth), ranked.argmax(axis=1)
            tally.add(items.piece, items.position, scores)
            confidence = scores[:, self.scoring.columns.index("confidence")]
            self._bins[name] += bin_sums(confidence, chosen == truth, self._config.calibration_bins)
            if name == MODEL:
                self._confusion.add(truth, chosen)

    def result(self, n_pieces: int, seq_length: int) -> TargetResult:
        """The metrics, calibration and confusion; see `TargetRun`."""
        classes, counts = self._confusion.commonest(self._config.confusion_classes)
        return replace(
            super().result(n_pieces, seq_length),
            classes={
                "known": len(self._labels),
                "occurred": int(np.count_nonzero(self._confusion.true_counts)),
                "predicted": int(np.count_nonzero(self._confusion.chosen_counts)),
            },
            calibration=Calibration(
                {name: _finite(expected_error(sums)) for name, sums in self._bins.items()},
                _bins(self._bins[MODEL]),
            ),
            confusion=ConfusionTable([self._labels[int(id_)] for id_ in classes], counts.tolist()),
        )


class RealRun(TargetRun):
    """Scores a real target, in original units."""

    def __init__(
        self,
        statistics: Statistics,
        baselines: Fitted,
        config: EvaluateConfig,
        *,
        head: HeadName,
        n_positions: int,
    ) -> None:
        """Starts at zero.

        Args:
          statistics: Mean and standard deviation by which the target is standardised.
          baselines: See `TargetRun`.
          config: See `TargetRun`.
          head: What the model predicts of the target.
          n_positions: See `TargetRun`.
        """
        super().__init__(Scoring(head, statistics.unit), baselines, config, n_positions=n_positions)
        self._statistics = statistics
        self._points = RandomRows(POINTS, config.seed)

    def add(self, items: Items, output: Float[np.ndarray, "N _"]) -> None:
        """Scores items; see `TargetRun`."""
        row, truth = DISTRIBUTIONS[self.scoring.head], items.truth.astype(np.float64)
        points = {"truth": truth}
        for name, tally in self.tallies.items():
            parameters = output if name == MODEL else row.parameters(self.baseline(name, items))
            points[f"by {name}"] = row.point(parameters).astype(np.float64)
            tally.add(items.piece, items.position, self.scoring.score(parameters, truth))
        self._points.add(points)

    def result(self, n_pieces: int, seq_length: int) -> TargetResult:
        """The metrics, and some predictions; see `TargetRun`."""
        points = {name: in_table(values, self._statistics) for name, values in self._points.rows().items()}
        by_predictor = {name: points.get(f"by {name}", []) for name in self.tallies}
        result = super().result(n_pieces, seq_length)
        return replace(result, points=Points(points.get("truth", []), by_predictor))


def scored_pieces(tallies: Mapping[str, Tally], n_pieces: int) -> Float64[np.ndarray, "S predictors scores"]:
    """The sums of every predictor, of the pieces in which an item was scored."""
    sums = np.stack([tally.by_piece(n_pieces) for tally in tallies.values()], axis=1)
    return sums[sums[:, 0, 0] > 0]


def _positions(scoring: Scoring, tallies: Mapping[str, Tally], seq_length: int) -> list[Position]:
    """The figures at each position of the prediction window, if there are several."""
    values = {name: scoring.values(tally.by_position) for name, tally in tallies.items()}
    items = tallies[MODEL].by_position[:, 0]
    if len(items) == 1:
        return []
    return [
        Position(
            position=at + 1,
            items_seen=seq_length - len(items) + at + 1,
            items=int(items[at]),
            metrics={
                name: {metric: _finite(float(figures[at])) for metric, figures in by_metric.items()}
                for name, by_metric in values.items()
            },
        )
        for at in range(len(items))
    ]


def _bins(sums: Float64[np.ndarray, "bins 3"]) -> list[Bin]:
    n_bins = len(sums)
    return [
        Bin(
            low=at / n_bins,
            high=(at + 1) / n_bins,
            items=int(items),
            confidence=float(confidence / items) if items else None,
            accuracy=float(right / items) if items else None,
        )
        for at, (items, confidence, right) in enumerate(sums)
    ]


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
