"""One target of one model: what the model and the baselines say about its items is scored batch by batch."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64, Integer, Num

from seqjax.baselines import Parameters, predict_baseline
from seqjax.config.evaluate import EvaluateConfig
from seqjax.config.metadata import Statistics
from seqjax.config.schema import ColumnKind
from seqjax.data.columns import denormalise
from seqjax.evaluation.bootstrap import FEWEST_PIECES, Estimate, estimate, resampled
from seqjax.evaluation.calibration import bin_sums, expected_error
from seqjax.evaluation.confusion import Confusion
from seqjax.evaluation.draw import RandomRows
from seqjax.evaluation.metrics import JUDGED_BY, values_of
from seqjax.evaluation.result import (
    MODEL,
    Bin,
    Calibration,
    ConfusionTable,
    Points,
    Position,
    TargetResult,
    Verdict,
)
from seqjax.evaluation.scores import CLASS_SCORES, REAL_SCORES, score_classes, score_reals
from seqjax.evaluation.tally import Tally
from seqjax.evaluation.verdict import judge

POINTS = 3000
"""Items of a real target that plots show."""


class Items(NamedTuple):
    """N items to score."""

    truth: Num[np.ndarray, "N"]
    """Ids or standardised values."""
    last: Num[np.ndarray, "N"]
    """The target's value one item earlier."""
    known: Bool[np.ndarray, "N"]
    """Whether there is such an item."""
    piece: Int64[np.ndarray, "N"]
    """The piece of the data that each is in."""
    position: Int64[np.ndarray, "N"]
    """The place in the prediction window, from 0."""


@runtime_checkable
class TargetRun(Protocol):
    """Scores one target."""

    @property
    def tallies(self) -> Mapping[str, Tally]:
        """The sums of each predictor, the model first."""
        ...

    def add(self, items: Items, output: Float[np.ndarray, "N _"]) -> None:
        """Scores items.

        Args:
          items: The items.
          output: The model's log-probabilities (N, C) or standardised values (N, 1).
        """
        ...

    def result(self, n_pieces: int, seq_length: int, not_scored: Mapping[str, int]) -> TargetResult:
        """What was found.

        Args:
          n_pieces: Number of pieces of the data.
          seq_length: L, the number of input items of a window.
          not_scored: Items that were left out, by reason.
        """
        ...


class CategoricalRun:
    """Scores a categorical target."""

    def __init__(
        self,
        labels: Sequence[str],
        baselines: Mapping[str, Parameters],
        config: EvaluateConfig,
        *,
        n_positions: int,
        likely: Integer[np.ndarray, "n"] | None = None,
    ) -> None:
        """Starts at zero.

        Args:
          labels: What each class is called.
          baselines: What to score beside the model.
          config: Bins and sizes.
          n_positions: P, the length of the prediction window.
          likely: Some true ids: where there are very many classes, the commonest of these are told apart.
        """
        self._labels = labels
        self._baselines = baselines
        self._config = config
        self.tallies = {name: Tally(len(CLASS_SCORES), n_positions) for name in (MODEL, *baselines)}
        self._bins = {name: np.zeros((config.calibration_bins, 3)) for name in self.tallies}
        self._confusion = Confusion(len(labels), likely)

    def add(self, items: Items, output: Float[np.ndarray, "N _"]) -> None:
        """See `TargetRun.add`."""
        truth = items.truth.astype(np.int64)
        for name, tally in self.tallies.items():
            log_probs = output
            if name != MODEL:
                log_probs = predict_baseline(self._baselines[name], items.last, items.known)
            found = score_classes(log_probs, truth)
            tally.add(items.piece, items.position, found.scores)
            confidence = found.scores[:, CLASS_SCORES.index("confidence")]
            self._bins[name] += bin_sums(confidence, found.chosen == truth, self._config.calibration_bins)
            if name == MODEL:
                self._confusion.add(truth, found.chosen)

    def result(self, n_pieces: int, seq_length: int, not_scored: Mapping[str, int]) -> TargetResult:
        """See `TargetRun.result`."""
        figures = _Figures("categorical", self.tallies, n_pieces, self._config)
        shown = self._confusion.commonest(self._config.confusion_classes)
        return TargetResult(
            kind="categorical",
            items=figures.items,
            not_scored=not_scored,
            pieces=figures.pieces,
            verdict=figures.verdict(),
            metrics=figures.metrics(),
            positions=_positions("categorical", self.tallies, seq_length),
            classes={
                "known": len(self._labels),
                "occurred": int(np.count_nonzero(self._confusion.true_counts)),
                "predicted": int(np.count_nonzero(self._confusion.chosen_counts)),
            },
            calibration=Calibration(
                {name: _finite(expected_error(sums)) for name, sums in self._bins.items()},
                _bins(self._bins[MODEL]),
            ),
            confusion=ConfusionTable(
                [self._labels[int(id_)] for id_ in shown.classes], shown.counts.tolist()
            ),
            points=None,
        )


class RealRun:
    """Scores a real target, in original units."""

    def __init__(
        self,
        statistics: Statistics,
        baselines: Mapping[str, Parameters],
        config: EvaluateConfig,
        *,
        n_positions: int,
    ) -> None:
        """Starts at zero.

        Args:
          statistics: How the target is standardised.
          baselines: What to score beside the model.
          config: Seed and sizes.
          n_positions: P, the length of the prediction window.
        """
        self._statistics = statistics
        self._baselines = baselines
        self._config = config
        self.tallies = {name: Tally(len(REAL_SCORES), n_positions) for name in (MODEL, *baselines)}
        self._points = RandomRows(POINTS, config.seed)

    def add(self, items: Items, output: Float[np.ndarray, "N _"]) -> None:
        """See `TargetRun.add`."""
        truth = denormalise(items.truth.astype(np.float64), self._statistics)
        points = {"truth": truth}
        for name, tally in self.tallies.items():
            values = output
            if name != MODEL:
                values = predict_baseline(self._baselines[name], items.last, items.known)
            points[f"by {name}"] = denormalise(values[:, 0].astype(np.float64), self._statistics)
            scores = score_reals(points[f"by {name}"], truth, origin=self._statistics.mean)
            tally.add(items.piece, items.position, scores)
        self._points.add(points)

    def result(self, n_pieces: int, seq_length: int, not_scored: Mapping[str, int]) -> TargetResult:
        """See `TargetRun.result`."""
        figures = _Figures("real", self.tallies, n_pieces, self._config)
        # More digits than a float32 holds only make the report longer.
        points = {
            name: [float(f"{value:.7g}") for value in values] for name, values in self._points.rows().items()
        }
        return TargetResult(
            kind="real",
            items=figures.items,
            not_scored=not_scored,
            pieces=figures.pieces,
            verdict=figures.verdict(),
            metrics=figures.metrics(),
            positions=_positions("real", self.tallies, seq_length),
            classes=None,
            calibration=None,
            confusion=None,
            points=Points(
                points.get("truth", []), {name: points.get(f"by {name}", []) for name in self.tallies}
            ),
        )


class _Figures:
    """The metrics of all predictors of a target, over all data and over its resamples."""

    def __init__(
        self, kind: ColumnKind, tallies: Mapping[str, Tally], n_pieces: int, config: EvaluateConfig
    ) -> None:
        self._kind: ColumnKind = kind
        self._names = list(tallies)
        self._level = config.confidence_level
        sums = scored_pieces(tallies, n_pieces)
        self.pieces = len(sums)
        self.items = int(sums[:, 0, 0].sum())
        self._values = values_of(kind, sums.sum(axis=0))
        self._draws: dict[str, Float64[np.ndarray, "R predictors"]] | None = None
        if self.pieces >= FEWEST_PIECES:
            drawn = resampled(sums, samples=config.bootstrap_samples, seed=config.seed)
            self._draws = values_of(kind, drawn)

    def metrics(self) -> dict[str, dict[str, Estimate]]:
        return {
            name: {
                metric: estimate(
                    float(values[at]),
                    None if self._draws is None else self._draws[metric][:, at],
                    level=self._level,
                )
                for metric, values in self._values.items()
            }
            for at, name in enumerate(self._names)
        }

    def verdict(self) -> Verdict:
        metric = JUDGED_BY[self._kind]
        values = dict(zip(self._names, map(float, self._values[metric]), strict=True))
        draws = None
        if self._draws is not None:
            draws = dict(zip(self._names, self._draws[metric].T, strict=True))
        return judge(self._kind, values, draws, level=self._level)


def scored_pieces(tallies: Mapping[str, Tally], n_pieces: int) -> Float64[np.ndarray, "S predictors scores"]:
    """The sums of every predictor, of the pieces in which an item was scored."""
    sums = np.stack([tally.by_piece(n_pieces) for tally in tallies.values()], axis=1)
    return sums[sums[:, 0, 0] > 0]


def _positions(kind: ColumnKind, tallies: Mapping[str, Tally], seq_length: int) -> list[Position]:
    """The figures at each position of the prediction window, if there are several."""
    values = {name: values_of(kind, tally.by_position) for name, tally in tallies.items()}
    items = tallies[MODEL].by_position[:, 0]
    if len(items) == 1:
        return []
    return [
        Position(
            position=at + 1,
            items_seen=seq_length - len(items) + at + 1,
            items=int(items[at]),
            metrics={
                name: {metric: _finite(float(found[at])) for metric, found in by_metric.items()}
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
