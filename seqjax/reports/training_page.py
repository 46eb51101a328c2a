"""The page of one training run: what it reached, how it got there, and with which settings."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from seqjax.reports.curves import GREY, Curve, baseline_curves, color, figure, level
from seqjax.reports.page import Cell, Figure, Row, Section, Table, page
from seqjax.reports.training_log import Batches, Measures, RunLog, Validation

MOST_POINTS = 1500
"""Points of a training curve; neighbours are averaged until there are no more."""

_LISTED_EPOCHS = 10
_NAMED_CLASSES = 12
_METRIC_GROUPS = (
    ("perplexity", ("perplexity",)),
    ("accuracy", ("top_1_accuracy", "top_3_accuracy", "top_5_accuracy")),
    ("error in original units", ("mae", "rmse")),
)
"""Metrics that share a figure, with the title of its y axis."""


def training_page(run: RunLog, *, log_scale: bool = False, bucket: int | None = None) -> str:
    """The text of an HTML file about one run.

    Args:
      run: What its log tells.
      log_scale: Whether losses are on a logarithmic scale at first.
      bucket: Batches that are averaged into one point of a training curve; null averages as many as needed.
    """
    batches = averaged(run.batches, bucket, MOST_POINTS)
    sections = [
        Section("Loss", _loss_parts(run, batches, log_scale=log_scale)),
        *(_target_section(run, target, batches, log_scale=log_scale) for target in targets_of(run)),
        Section("Learning rate and speed", [Row(_speed_figures(run, batches))] if batches else []),
        Section("Best epochs", [best_epochs(run)] if run.validations else []),
    ]
    if run.config is not None:
        rows = [[key, value] for key, value in flat(run.config).items()]
        sections.append(Section("Settings", [Table(["key", "value"], rows)], folded=True))
    return page(
        f"Training of {run.name}",
        [section for section in sections if section.parts],
        lead="\n".join([_state(run), *run.notes]),
        facts=_facts(run),
    )


def targets_of(run: RunLog) -> list[str]:
    """The targets that the log tells of, each by itself."""
    named = [target for told in run.validations[-1:] for target in told.measures.by_target]
    trained = [target for told in run.batches[-1:] for target in told.measures.by_target]
    return list(dict.fromkeys(named or trained))


def averaged(batches: Sequence[Batches], bucket: int | None, points: int) -> list[Batches]:
    """Means over neighbouring records of an epoch, each at the place of its last one.

    Args:
      batches: The records.
      bucket: Batches a mean at least; null takes as few as leave at most `points` means.
      points: See there.
    """
    size = bucket or math.ceil(sum(told.count for told in batches) / points)
    means = []
    for _, epoch in groupby(batches, key=lambda told: math.ceil(told.place - 1e-9)):
        parts: list[Batches] = []
        for told in epoch:
            parts.append(told)
            if sum(part.count for part in parts) >= size:
                means.append(_mean(parts))
                parts = []
        means += [_mean(parts)] if parts else []
    return means


def _mean(parts: Sequence[Batches]) -> Batches:
    if len(parts) == 1:
        return parts[0]
    count = sum(part.count for part in parts)

    def mean(values: Iterable[float]) -> float:
        return sum(part.count * value for part, value in zip(parts, values, strict=True)) / count

    by_target = {
        target: mean(part.measures.by_target[target] for part in parts)
        for target in parts[0].measures.by_target
    }
    measures = Measures(mean(part.measures.loss for part in parts), by_target)
    # A mean of speeds weighs by time.
    speed = 1 / mean(1 / part.speed if part.speed else math.nan for part in parts)
    last = parts[-1]
    return Batches(last.place, count, measures, last.learning_rate, speed, last.memory)


def _state(run: RunLog) -> str:
    if run.finished:
        return f"Finished after epoch {run.epochs}."
    place = max([run.epochs, *(told.place for told in run.batches[-1:])])
    return f"Under way or interrupted at {place:.4g} epochs: the log has no end."


def _facts(run: RunLog) -> dict[str, Cell]:
    facts: dict[str, Cell] = {}
    if run.best is not None:
        facts["best validation loss"] = run.best.measures.loss
        facts["best epoch"] = f"{run.best.epoch} of {run.epochs}"
        losses = {name: found.loss for name, found in run.baselines.items() if math.isfinite(found.loss)}
        if losses:
            name = min(losses, key=lambda name: losses[name])
            facts[f"best baseline ({name})"] = losses[name]
    if run.seconds:
        facts["time of all epochs"] = duration(run.seconds)
    if speed := typical_speed(run):
        facts[f"{run.speed_unit} per second"] = f"{speed:,.4g}" if speed < 1000 else f"{speed:,.0f}"
    return facts


def typical_speed(run: RunLog) -> float | None:
    """The median speed, the first record of compiling left out where there are others."""
    speeds = sorted(told.speed for told in run.batches[1:] or run.batches if math.isfinite(told.speed))
    return speeds[len(speeds) // 2] if speeds else None


def duration(seconds: float) -> str:
    """Seconds as a person reads them: 12.3 s, 4 min 5 s, 2 h 3 min."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _loss_parts(run: RunLog, batches: Sequence[Batches], *, log_scale: bool) -> list[Figure | Row]:
    validation = [(told.epoch, told.measures.loss) for told in run.validations]
    training = [(told.place, told.measures.loss) for told in batches]
    baselines = {name: found.loss for name, found in run.baselines.items()}
    size = max((told.count for told in batches), default=0)
    caption = f"A point of the training curve is the mean of {size} batches." if size > 1 else ""
    found: list[Figure | Row] = [
        _losses(training, validation, baselines, caption=caption, log_scale=log_scale)
    ]
    if len(targets_of(run)) > 1 and run.validations:
        found.append(_relative_losses(run, log_scale=log_scale))
    return found


Points = Sequence[tuple[float, float]]


def _losses(
    training: Points,
    validation: Points,
    baselines: Mapping[str, float],
    *,
    log_scale: bool,
    caption: str = "",
) -> Figure:
    last = max((x for x, _ in [*training, *validation]), default=1.0)
    lines = baseline_curves(baselines, last)
    curves = [
        *([Curve("training", *_split(training), color(1), width=1.3, opacity=0.85)] if training else []),
        *([Curve("validation", *_split(validation), color(0), width=2.4, marked=True)] if validation else []),
    ]
    return figure(curves, y="loss", baselines=lines, caption=caption, log_scale=log_scale)


def _relative_losses(run: RunLog, *, log_scale: bool) -> Figure:
    curves = []
    for number, target in enumerate(targets_of(run)):
        points = _target_points(run.validations, target)
        first = points[0][1] if points and points[0][1] else 1.0
        curves.append(Curve(target, *_split([(x, y / first) for x, y in points]), color(number), marked=True))
    first_epoch = run.validations[0].epoch
    return figure(
        curves,
        y=f"loss / loss of epoch {first_epoch}",
        caption="Validation loss of each target, beside what it was at first.",
        log_scale=log_scale,
    )


def _target_points(validations: Sequence[Validation], target: str) -> list[tuple[float, float]]:
    return [
        (told.epoch, told.measures.by_target[target])
        for told in validations
        if target in told.measures.by_target
    ]


def _target_section(run: RunLog, target: str, batches: Sequence[Batches], *, log_scale: bool) -> Section:
    training = [
        (told.place, told.measures.by_target[target]) for told in batches if target in told.measures.by_target
    ]
    validation = _target_points(run.validations, target)
    baselines = {
        name: found.by_target[target] for name, found in run.baselines.items() if target in found.by_target
    }
    figures = [
        _losses(training, validation, baselines, log_scale=log_scale),
        *_metric_figures(run, target),
    ]
    if any(target in told.shares for told in run.validations):
        figures.append(_share_figure(run, target))
    return Section(target, [Row(figures)])


def _metric_figures(run: RunLog, target: str) -> list[Figure]:
    figures = []
    for title, names in _METRIC_GROUPS:
        found = {name: points for name in names if (points := _metric_points(run, target, name))}
        if not found:
            continue
        last = max(points[-1][0] for points in found.values())
        if len(names) == 1:
            lines, caption = baseline_curves(_metric_baselines(run, target, names[0]), last), ""
        else:
            best = {name: baselines for name in found if (baselines := _metric_baselines(run, target, name))}
            lines = [_best_baseline(name, best[name], last, color(names.index(name))) for name in best]
            caption = "Dashed: the best baseline." if lines else ""
        curves = [
            Curve(metric_title(name), *_split(points), color(names.index(name)), marked=True)
            for name, points in found.items()
        ]
        figures.append(figure(curves, y=title, baselines=lines, caption=caption))
    return figures


def _metric_points(run: RunLog, target: str, name: str) -> list[tuple[float, float]]:
    return [
        (told.epoch, told.measures.metrics[target][name])
        for told in run.validations
        if name in told.measures.metrics.get(target, {})
    ]


def _metric_baselines(run: RunLog, target: str, name: str) -> dict[str, float]:
    """A metric of each baseline, where it is finite."""
    found = {
        baseline: measures.metrics.get(target, {}).get(name, math.nan)
        for baseline, measures in run.baselines.items()
    }
    return {baseline: value for baseline, value in found.items() if math.isfinite(value)}


def _best_baseline(name: str, baselines: Mapping[str, float], last: float, tone: str) -> Curve:
    pick = max if name.endswith("accuracy") else min
    baseline = pick(baselines, key=lambda baseline: baselines[baseline])
    title, value = f"{metric_title(name)} of {baseline}", baselines[baseline]
    return level(title, value, last, color=tone, dash="dash", opacity=0.7, in_legend=False)


def metric_title(name: str) -> str:
    """A metric as a person reads it."""
    return name.upper() if name in {"mae", "rmse"} else name.replace("top_", "top-").replace("_", " ")


def _share_figure(run: RunLog, column: str) -> Figure:
    told = [validation for validation in run.validations if column in validation.shares]
    totals: dict[str, float] = {}
    for validation in told:
        for name, share in validation.shares[column].items():
            totals[name] = totals.get(name, 0.0) + share
    names = sorted(totals, key=lambda name: -totals[name])
    shown, rest = names[:_NAMED_CLASSES], names[_NAMED_CLASSES:]
    epochs = [validation.epoch for validation in told]
    curves = [
        Curve(
            name,
            epochs,
            [v.shares[column].get(name, 0.0) for v in told],
            color(number),
            width=0.5,
            stacked=True,
        )
        for number, name in enumerate(shown)
    ]
    if rest:
        others = [sum(v.shares[column].get(name, 0.0) for name in rest) for v in told]
        curves.append(Curve(f"{len(rest)} more classes", epochs, others, GREY, width=0.5, stacked=True))
    return figure(curves, y="share of predictions", share=True)


def _speed_figures(run: RunLog, batches: Sequence[Batches]) -> list[Figure]:
    places = [told.place for told in batches]
    figures = [
        figure(
            [Curve("learning rate", places, [told.learning_rate for told in batches], color(0))],
            y="learning rate",
            height=280,
        ),
        figure(
            [Curve(run.speed_unit, places, [told.speed for told in batches], color(2))],
            y=f"{run.speed_unit} per second",
            height=280,
        ),
    ]
    memory = [(told.place, told.memory / 1e9) for told in batches if told.memory]
    if memory:
        figures.append(
            figure([Curve("memory", *_split(memory), color(4))], y="memory in use (GB)", height=280)
        )
    return figures


def best_epochs(run: RunLog) -> Table:
    """The epochs with the lowest validation loss, and the baselines below them."""
    ranked = sorted(
        (told for told in run.validations if math.isfinite(told.measures.loss)),
        key=lambda told: told.measures.loss,
    )
    targets = targets_of(run) if len(targets_of(run)) > 1 else []
    metrics = [
        (target, name)
        for target, found in (ranked[0].measures.metrics if ranked else {}).items()
        for name in found
    ]

    def cells(measures: Measures) -> list[Cell]:
        losses: list[Cell] = [measures.loss, *(measures.by_target.get(target) for target in targets)]
        return [*losses, *(measures.metrics.get(target, {}).get(name) for target, name in metrics)]

    rows: list[list[Cell]] = [
        [f"epoch {told.epoch}", *cells(told.measures), told.learning_rate, told.seconds]
        for told in ranked[:_LISTED_EPOCHS]
    ]
    rows += [[f"baseline: {name}", *cells(measures), None, None] for name, measures in run.baselines.items()]
    several = len({target for target, _ in metrics}) > 1
    titles = [
        f"{metric_title(name)} of {target}" if several else metric_title(name) for target, name in metrics
    ]
    heads = ["", "loss", *(f"loss of {target}" for target in targets), *titles, "learning rate", "seconds"]
    more = len(ranked) - _LISTED_EPOCHS
    return Table(heads, rows, note=f"{more} more epochs have a higher loss." if more > 0 else "")


def flat(config: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """A configuration as dotted keys with their values as text; empty ones are left out."""
    found: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        elif value is not None:
            found[f"{prefix}{key}"] = str(value).lower() if isinstance(value, bool) else str(value)
    return found


def _split(points: Points) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]
