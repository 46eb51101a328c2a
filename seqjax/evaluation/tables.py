"""The tables of a report, as a terminal and a page show them alike."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from seqjax.evaluation.bootstrap import Estimate
from seqjax.evaluation.metrics import JUDGED_BY, METRICS, Metric
from seqjax.evaluation.result import (
    MODEL,
    ConfusionTable,
    Example,
    ModelResult,
    Position,
    Rank,
    Report,
    TargetResult,
    Value,
)
from seqjax.reports.page import Cell, Table

OTHERS = "all others"
_COLUMNS_OF_AN_EXAMPLE = 8


class Sheet(NamedTuple):
    """What a terminal shows: a table under a heading."""

    title: str
    table: Table


def sheets(report: Report) -> list[Sheet]:
    """The verdicts and metrics of a report, for a terminal."""
    found = []
    several = len(report.models) > 1
    for target, ranks in report.comparison.items():
        label = judging_label(report.models[0].targets[target])
        found.append(Sheet(f"{target}: the models by {label}, lower is better", ranks_table(ranks)))
    for model in report.models:
        found.append(Sheet(f"{model.name}: {model.verdict}", verdict_table(model)))
        for name, target in model.targets.items():
            title = f"{model.name}: {name}" if several else name
            found.append(Sheet(title, metrics_table(target, intervals_of=(MODEL,))))
    return found


def judging_label(target: TargetResult) -> str:
    """The metric that a target is judged by, as people read it."""
    return METRICS[target.kind][JUDGED_BY[target.kind]].label


def verdict_table(model: ModelResult) -> Table:
    """One row a target: how it was judged."""
    rows = [[name, target.verdict.text] for name, target in model.targets.items()]
    return Table(["Target", "Verdict"], rows)


def ranks_table(ranks: Sequence[Rank]) -> Table:
    """One row a model, the best first."""
    rows: list[list[Cell]] = []
    for rank in ranks:
        behind = "the best" if rank is ranks[0] else "not comparable"
        if rank.behind is not None:
            behind = f"{number(rank.behind.value)}{interval(rank.behind)}"
        rows.append([rank.model, f"{number(rank.figure.value)}{interval(rank.figure)}", behind])
    return Table(["Model", "Figure", "Behind the best"], rows)


def metrics_table(target: TargetResult, *, intervals_of: Sequence[str] | None = None) -> Table:
    """One row a metric, one column a predictor.

    Args:
      target: What was found.
      intervals_of: Predictors whose intervals are shown; null shows all.
    """
    names = list(target.metrics)
    shown = names if intervals_of is None else intervals_of
    rows: list[list[Cell]] = [
        [
            metric.label,
            *(figure(metric, target.metrics[name][key], with_interval=name in shown) for name in names),
        ]
        for key, metric in METRICS[target.kind].items()
    ]
    if target.calibration is not None:
        rows.append(["ECE", *(share(target.calibration.ece[name]) for name in names)])
    return Table(["", *names], rows)


def positions_table(target: TargetResult) -> Table:
    """One row a position of the prediction window: the model's figures, and the best baseline's."""
    rival = target.verdict.baseline
    judged = METRICS[target.kind][JUDGED_BY[target.kind]]
    metrics = METRICS[target.kind]
    heads = ["Position", "Items seen", "Items", *(metric.label for metric in metrics.values())]
    if rival is not None:
        heads.append(f"{judged.label}, {rival}")
    return Table(heads, [_position_row(position, metrics, rival, target) for position in target.positions])


def _position_row(
    position: Position, metrics: Mapping[str, Metric], rival: str | None, target: TargetResult
) -> list[Cell]:
    figures: list[Cell] = [position.metrics[MODEL][key] for key in metrics]
    if rival is not None:
        figures.append(position.metrics[rival][JUDGED_BY[target.kind]])
    return [position.position, position.items_seen, position.items, *figures]


def classes_table(confusion: ConfusionTable) -> Table:
    """One row a common class: how often it came, was predicted, and was right."""
    rows: list[list[Cell]] = []
    total = sum(map(sum, confusion.counts))
    labels = [*confusion.labels, OTHERS]
    for at, label in enumerate(labels[:-1]):
        came = sum(confusion.counts[at])
        predicted = sum(row[at] for row in confusion.counts)
        right = confusion.counts[at][at]
        rows.append(
            [
                label,
                came,
                share(came / total if total else None),
                share(right / came if came else None),
                share(right / predicted if predicted else None),
                _most_frequent_mistake(confusion.counts[at], at, labels),
            ]
        )
    return Table(
        ["Class", "Came", "Share", "Found", "Right when predicted", "Most often taken for"],
        rows,
        note="Found: how many of the items of this class were predicted as it.",
    )


def _most_frequent_mistake(row: Sequence[int], at: int, labels: Sequence[str]) -> str:
    wrong = {other: count for other, count in enumerate(row) if other != at and count}
    if not wrong:
        return ""
    other = max(wrong, key=lambda key: wrong[key])
    return f"{labels[other]} ({wrong[other]})"


def example_table(example: Example, targets: Mapping[str, TargetResult]) -> Table:
    """The items of a window, oldest first, then what came and what was predicted."""
    columns = [name for name in example.window if name in targets]
    columns += [name for name in example.window if name not in targets]
    columns = columns[:_COLUMNS_OF_AN_EXAMPLE]
    count = len(next(iter(example.window.values())))
    rows: list[list[Cell]] = [
        [f"{count - at} before", *(cell(example.window[name][at]) for name in columns)] for at in range(count)
    ]
    guesses = [example.targets.get(name) for name in columns]
    rows.append(["what came", *(cell(guess.truth) if guess else "" for guess in guesses)])
    rows.append(["predicted", *(cell(guess.prediction) if guess else "" for guess in guesses)])
    if any(guess and guess.likely for guess in guesses):
        rows.append(["most likely", *(_likely(guess.likely) if guess else "" for guess in guesses)])
    return Table(["Item", *columns], rows)


def _likely(classes: Mapping[str, float] | None) -> str:
    return ", ".join(f"{label} {share(probability)}" for label, probability in (classes or {}).items())


def figure(metric: Metric, estimate: Estimate, *, with_interval: bool) -> str:
    """A figure as text, with its interval if it has one."""
    show = share if metric.share else number
    return show(estimate.value) + (interval(estimate, share=metric.share) if with_interval else "")


def interval(estimate: Estimate, *, share: bool = False) -> str:
    """An interval in brackets, after a space; empty if there is none."""
    if estimate.low is None or estimate.high is None:
        return ""
    if share:
        return f" [{estimate.low:.1%}, {estimate.high:.1%}]"
    return f" [{number(estimate.low)}, {number(estimate.high)}]"


def number(value: float | None) -> str:
    """Three or four significant digits; a dash for what is not defined."""
    if value is None:
        return "–"
    return f"{value:.4g}" if abs(value) >= 1 else f"{value:.3g}"


def share(value: float | None) -> str:
    """A share in per cent."""
    return "–" if value is None else f"{value:.1%}"


def cell(value: Value) -> str:
    """A value of the data."""
    return number(value) if isinstance(value, float) else str(value)
