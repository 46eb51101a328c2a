"""The HTML page of a report: the verdict, then tables, then plots with a sentence each."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from seqjax.evaluation import figures, tables
from seqjax.evaluation.result import ModelResult, Report, TargetResult
from seqjax.metrics import METRICS
from seqjax.reports.page import Block, Cell, Section, Table, Text, page


def report_page(report: Report) -> str:
    """The text of the HTML file."""
    several = len(report.models) > 1
    sections: list[Section] = []
    if several:
        sections.append(Section("The models side by side", [_unbroken(tables.ranks_table(report))]))
    for model in report.models:
        sections += _model_sections(model, f"{model.name}: " if several else "")
    sections.append(_reading(report))
    if several:
        title = f"{len(report.models)} models on {_file_name(report.data)}"
        lead = "\n".join(f"{model.name}: {model.verdict}" for model in report.models)
    else:
        title = f"{report.models[0].name} on {_file_name(report.data)}"
        lead = report.models[0].verdict
    return page(title, sections, lead=lead, facts=_facts(report))


def _facts(report: Report) -> Mapping[str, Cell]:
    first = report.models[0]
    return {
        "Held-out data": report.data,
        "Windows": f"{first.windows:,}",
        "Sequences": f"{first.sequences:,}",
        "Baselines fitted on": first.baselines.fitted_on or "no training data",
        "Evaluated": f"{report.created[:16].replace('T', ' ')} UTC",
    }


def _model_sections(model: ModelResult, prefix: str) -> Iterator[Section]:
    parts: list[Block] = [_unbroken(tables.verdict_table(model))]
    if model.notes:
        parts.append(Text("\n\n".join(model.notes)))
    yield Section(f"{prefix}Verdict", parts)
    for name, target in model.targets.items():
        yield Section(f"{prefix}{name}", list(_target_parts(target)))
    if model.examples:
        yield Section(f"{prefix}Examples", list(_example_parts(model)))


def _target_parts(target: TargetResult) -> Iterator[Block]:
    yield Text(target.verdict.text)
    yield _unbroken(tables.metrics_table(target))
    left_out = [f"{count:,} {reason}" for reason, count in target.not_scored.items() if count]
    if left_out:
        yield Text(f"{target.items:,} items scored; not scored: {', '.join(left_out)}.")
    yield figures.judged_metric(target)
    if target.positions:
        yield tables.positions_table(target)
        yield figures.by_position(target)
    if target.calibration is not None and target.items:
        yield figures.reliability(target.calibration.bins)
    if target.confusion is not None and target.items:
        yield tables.classes_table(target.confusion)
        yield figures.confusion(target.confusion)
    if target.points is not None and target.points.truth:
        yield from figures.residuals(target.points, target.verdict.baseline)


def _example_parts(model: ModelResult) -> Iterator[Block]:
    yield Text("Windows drawn at random: the newest items that the model saw, and the item after them.")
    for example in model.examples:
        yield Text(f"Sequence {example.sequence_id}, item {example.item_position}")
        yield tables.example_table(example, model.targets)


def _reading(report: Report) -> Section:
    model, settings = report.models[0], report.settings
    targets = [target for other in report.models for target in other.targets.values()]
    heads = {target.head for target in targets}
    shown = {row.meaning: row for head in METRICS if head in heads for row in METRICS[head].values()}
    metrics = [f"{row.label}: {row.meaning}." for row in shown.values()]
    if any(target.calibration for target in targets):
        metrics.append("ECE: the mean distance between how sure the model is and how often it is right.")
    baselines = (
        "Baselines are counted, not trained. Last value: the same again (a category at the rate at which one "
        "repeats). Marginal: the share of each class, or the mean. First-order Markov: what follows the last "
        "class how often, or a straight line of the last value. Second-order Markov: what follows the last "
        "two classes. Velocity: the line through the last two values. Seasonal last value: that of one "
        "period before. Drift: the line through the first and the last value of the window."
    )
    if model.baselines.periods:
        periods = (f"{count} items of {name}" for name, count in model.baselines.periods.items())
        baselines += f" Periods: {', '.join(periods)}."
    level = f"{settings.confidence_level:.0%}"
    intervals = (
        f"Brackets are {level} intervals: {settings.bootstrap_samples:,} times, {model.resampled} were drawn "
        "with replacement from the held-out data, and everything was computed again. A difference is called "
        "better or worse only if its interval lies on one side of 0."
    )
    return Section("How to read this", [Text(baselines), Text(intervals), Text("\n".join(metrics))])


def _unbroken(table: Table) -> Table:
    """The table with intervals that a narrow page does not break."""
    rows = [[c.replace(", ", ",\u00a0") if isinstance(c, str) else c for c in row] for row in table.rows]
    return replace(table, rows=rows)


def _file_name(path: str) -> str:
    return path.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
