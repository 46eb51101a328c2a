"""The tables of a report, as a terminal and a page show them alike."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TypeAlias

from seqjax.evaluation.pieces import Estimate
from seqjax.evaluation.result import MODEL, ConfusionTable, Example, ModelResult, Report, TargetResult, Value
from seqjax.metrics import JUDGED_BY, METRICS, Metric
from seqjax.reports.page import Cell, Table

OTHERS = "all others"
_COLUMNS_OF_AN_EXAMPLE = 8
_PLACES = 3
_MOST_PLACES = 6


TitledTable: TypeAlias = tuple[str, Table]


def titled_tables(report: Report) -> list[TitledTable]:
    """The verdicts and metrics of a report, for a terminal."""
    tables: list[TitledTable] = []
    several = len(report.models) > 1
    if several:
        tables.append(("The models side by side", ranks_table(report)))
    for model in report.models:
        tables.append((f"{model.name}: {model.verdict}", verdict_table(model)))
        for name, target in model.targets.items():
            title = f"{model.name}: {name}" if several else name
            tables.append((title, metrics_table(target, intervals_of=(MODEL,))))
    return tables


def verdict_table(model: ModelResult) -> Table:
    """One row a target: how it was judged."""
    heads = ["Target", "Verdict", "By", "Model", "Best baseline", "Difference"]
    rows = [_verdict_row(name, target) for name, target in model.targets.items()]
    note = "Difference: the baseline's figure less the model's; above 0 the model is better."
    return Table(heads, rows, note)


def _verdict_row(name: str, target: TargetResult) -> list[Cell]:
    verdict = target.verdict
    metric = METRICS[target.head][verdict.metric]
    shown = partial(figure, metric, places=places_of(target), with_interval=False)
    row: list[Cell] = [name, verdict.outcome, metric.label, shown(target.metrics[MODEL][verdict.metric])]
    if verdict.baseline is None or verdict.difference is None:
        return [*row, "", ""]
    rival = f"{shown(target.metrics[verdict.baseline][verdict.metric])} ({verdict.baseline})"
    difference = figure(metric, verdict.difference, places=places_of(target), with_interval=True)
    share_of_it = "" if verdict.relative is None else f", {verdict.relative:.0%}"
    return [*row, rival, f"{difference}{share_of_it}"]


def ranks_table(report: Report) -> Table:
    """One row a target and model, the best first."""
    rows: list[list[Cell]] = []
    for target, ranks in report.comparison.items():
        result = next(model.targets[target] for model in report.models if target in model.targets)
        metric = METRICS[result.head][JUDGED_BY[result.head]]
        shown = partial(figure, metric, places=places_of(result), with_interval=True)
        for rank in ranks:
            behind = "the best" if rank is ranks[0] else "other items were scored"
            if rank.behind is not None:
                behind = f"+{shown(rank.behind)}"
            rows.append([target, metric.label, rank.model, shown(rank.figure), behind])
    return Table(["Target", "By", "Model", "Figure", "Behind the best"], rows, note="Lower is better.")


def metrics_table(target: TargetResult, *, intervals_of: Sequence[str] | None = None) -> Table:
    """One row a metric, one column a predictor.

    Args:
      target: The scores of a target.
      intervals_of: Predictors whose intervals are shown; None shows all.
    """
    names = list(target.metrics)
    shown, places = names if intervals_of is None else intervals_of, places_of(target)
    rows: list[list[Cell]] = []
    for key, metric in METRICS[target.head].items():
        text = partial(figure, metric, places=places)
        rows.append([metric.label, *(text(target.metrics[n][key], with_interval=n in shown) for n in names)])
    if target.calibration is not None:
        rows.append(["ECE", *(share(target.calibration.ece[name]) for name in names)])
    return Table(["", *names], rows)


def positions_table(target: TargetResult) -> Table:
    """One row a position of the prediction window: the model's figures, and the best baseline's."""
    rival, judged, metrics = target.verdict.baseline, JUDGED_BY[target.head], METRICS[target.head]
    columns = [(MODEL, key, metric.label) for key, metric in metrics.items()]
    if rival is not None:
        columns.append((rival, judged, f"{metrics[judged].label}, {rival}"))
    shown = partial(figure, places=places_of(target))
    rows: list[list[Cell]] = []
    for row in target.positions:
        figures = (shown(metrics[key], Estimate(row.metrics[name][key])) for name, key, _ in columns)
        rows.append([row.position, row.items_seen, row.items, *figures])
    return Table(["Position", "Items seen", "Items", *(label for _, _, label in columns)], rows)


def classes_table(confusion: ConfusionTable) -> Table:
    """One row a common class: its items, and how many of them and of its predictions were right."""
    rows: list[list[Cell]] = []
    total = sum(map(sum, confusion.counts))
    labels = [*confusion.labels, OTHERS]
    for at, label in enumerate(labels[:-1]):
        support = sum(confusion.counts[at])
        predicted = sum(row[at] for row in confusion.counts)
        right = confusion.counts[at][at]
        shares = [(support, total), (right, support), (right, predicted)]
        texts = (share(some / whole if whole else None) for some, whole in shares)
        rows.append([label, support, *texts, _most_frequent_mistake(confusion.counts[at], at, labels)])
    return Table(
        ["Class", "Support", "Share", "Recall", "Precision", "Most often taken for"],
        rows,
        note="Support: items of this class. Recall: the share of them that was predicted as it. "
        "Precision: the share of what was predicted as it that was right.",
    )


def _most_frequent_mistake(row: Sequence[int], at: int, labels: Sequence[str]) -> str:
    wrong = {other: count for other, count in enumerate(row) if other != at and count}
    if not wrong:
        return ""
    other = max(wrong, key=lambda key: wrong[key])
    return f"{labels[other]} ({wrong[other]})"


def example_table(example: Example, targets: Mapping[str, TargetResult]) -> Table:
    """The items of a window, oldest first, then what followed and what was predicted."""
    columns = [name for name in example.window if name in targets]
    columns += [name for name in example.window if name not in targets]
    columns = columns[:_COLUMNS_OF_AN_EXAMPLE]
    count = len(next(iter(example.window.values())))
    rows: list[list[Cell]] = [
        [f"{count - at} before", *(cell(example.window[name][at]) for name in columns)] for at in range(count)
    ]
    guesses = [example.targets.get(name) for name in columns]
    rows.append(["actual", *(cell(guess.truth) if guess else "" for guess in guesses)])
    rows.append(["predicted", *(cell(guess.prediction) if guess else "" for guess in guesses)])
    if any(guess and guess.likely for guess in guesses):
        rows.append(["most likely", *(_likely(guess.likely) if guess else "" for guess in guesses)])
    return Table(["Item", *columns], rows)


def _likely(classes: Mapping[str, float] | None) -> str:
    return ", ".join(f"{label} {share(probability)}" for label, probability in (classes or {}).items())


def figure(metric: Metric, estimate: Estimate, *, places: int | None, with_interval: bool = False) -> str:
    """A figure as text, with its interval if it has one.

    Args:
      metric: What it is.
      estimate: The figure.
      places: Decimal places of what is in the target's units; see `places_of`.
      with_interval: Whether to add the interval.
    """

    def shown(value: float | None) -> str:
        if metric.unit == "share":
            return share(value)
        return number(value, places if metric.unit == "target" else _PLACES)

    if not with_interval or estimate.low is None or estimate.high is None:
        return shown(estimate.value)
    return f"{shown(estimate.value)} [{shown(estimate.low)}, {shown(estimate.high)}]"


def places_of(target: TargetResult) -> int | None:
    """Decimal places at which the figures of a target differ visibly; None for very small units."""
    if target.kind == "categorical":
        return _PLACES
    errors = [metrics["mae"].value for metrics in target.metrics.values()]
    smallest = min((error for error in errors if error), default=1.0)
    places = max(2 - math.floor(math.log10(smallest)), 0)
    return None if places > _MOST_PLACES else places


def number(value: float | None, places: int | None = None) -> str:
    """A number with so many decimal places, or else three significant digits; a dash for none."""
    if value is None:
        return "–"
    text = f"{value:.3g}" if places is None else f"{value:,.{places}f}"
    return text.removeprefix("-") if float(text.replace(",", "")) == 0 else text


def share(value: float | None) -> str:
    """A share in per cent."""
    return "–" if value is None else f"{value:.1%}"


def cell(value: Value) -> str:
    """A value of the data."""
    return f"{value:.12g}" if isinstance(value, float) else str(value)
