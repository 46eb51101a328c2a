"""The page of one training run or of several: what they reached, how they got there, how they differ.

One run is a comparison of one. Several are ranked by their best validation loss.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from seqjax.config.changes import flattened
from seqjax.reports.curves import GREY, Points, Quantity, Value, View, color, draw, draw_traces, line_trace
from seqjax.reports.page import PALETTE, Cell, Figure, Row, Section, Table, page
from seqjax.reports.run_log import Batches, Measures, RunLog, averaged

_POINTS, _POINTS_OF_A_RUN, _LEAST_POINTS = 20_000, 1500, 50
"""Points of a figure's training curves; neighbours are averaged until there are no more."""
_LISTED_EPOCHS = 10
_LISTED_SETTINGS = 12
_COMPARED_TARGETS = 8
_NAMED_CLASSES = 12
_SAME = 1e-3
"""Baselines that differ by less, relatively, are taken for the same."""
_METRIC_GROUPS = (
    ("perplexity", ("perplexity",)),
    ("accuracy", ("top_1_accuracy", "top_3_accuracy", "top_5_accuracy")),
    ("error in original units", ("mae", "rmse")),
)
"""Metrics that share a figure, with the title of its y axis."""


def runs_page(
    title: str, runs: Sequence[RunLog], *, log_scale: bool = False, bucket: int | None = None
) -> str:
    """The text of an HTML file about runs.

    Args:
      title: The heading.
      runs: What their logs tell.
      log_scale: Whether losses are on a logarithmic scale at first.
      bucket: Batches that are averaged into one point of a training curve; None averages as many as needed.
    """
    ranked = sorted(runs, key=_best_loss)
    most = min(max(_POINTS // len(ranked), _LEAST_POINTS), _POINTS_OF_A_RUN)
    thinned = [replace(run, batches=averaged(run.batches, bucket, most)) for run in ranked]
    view = View(thinned, _shared_baselines(ranked), log_scale)
    sections = [
        Section("Loss" if view.is_single else "Validation and training loss", _loss_figures(view)),
        *([] if view.is_single else [Section("Runs", [_runs_table(ranked)])]),
        *(_target_section(view, target) for target in _shown_targets(ranked)),
        Section("Learning rate and speed", _row(_speed_figures(view))),
        *(_details(ranked[0]) if view.is_single else []),
    ]
    lead = [*([_state(ranked[0])] if view.is_single else []), *(note for run in ranked for note in run.notes)]
    if not view.baselines and any(run.baselines for run in ranked):
        lead.append(
            "The runs have different baselines, so their losses are of different data: compare with care."
        )
    shown = [section for section in sections if section.blocks]
    return page(title, shown, lead="\n".join(lead), facts=_facts(ranked, view.baselines))


def duration(seconds: float) -> str:
    """Seconds as a person reads them: 12.3 s, 4 min 5 s, 2 h 3 min."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _best_loss(run: RunLog) -> float:
    return math.inf if run.best is None else run.best.measures.loss


def _targets(run: RunLog) -> list[str]:
    """The targets that the log has losses of."""
    named = [target for record in run.validations[-1:] for target in record.measures.by_target]
    trained = [target for record in run.batches[-1:] for target in record.measures.by_target]
    return list(dict.fromkeys(named or trained))


def _shown_targets(runs: Sequence[RunLog]) -> list[str]:
    """The targets with a section: all of one run; of several runs, those that all have."""
    shared = [target for target in _targets(runs[0]) if all(target in _targets(run) for run in runs)]
    if len(runs) == 1:
        return shared
    has_metrics = any(record.measures.metrics for run in runs for record in run.validations)
    return shared[:_COMPARED_TARGETS] if len(shared) > 1 or has_metrics else []


def _shared_baselines(runs: Sequence[RunLog]) -> Mapping[str, Measures]:
    """The baselines that all runs have, with the same losses; none if they differ."""
    first = runs[0].baselines
    same = all(
        run.baselines.keys() == first.keys()
        and all(_is_same(measures.loss, first[name].loss) for name, measures in run.baselines.items())
        for run in runs
    )
    return first if same else {}


def _is_same(loss: float, other: float) -> bool:
    return math.isclose(loss, other, rel_tol=_SAME) or not (math.isfinite(loss) or math.isfinite(other))


def _state(run: RunLog) -> str:
    if run.finished:
        return f"Finished after epoch {run.epochs}."
    place = max([run.epochs, *(record.place for record in run.batches[-1:])])
    return f"Under way or interrupted at {place:.4g} epochs: the log has no end."


def _facts(ranked: Sequence[RunLog], baselines: Mapping[str, Measures]) -> dict[str, Cell]:
    run, single = ranked[0], len(ranked) == 1
    facts: dict[str, Cell] = {} if single else {"runs": len(ranked), "best run": run.name}
    if run.best is not None:
        facts["best validation loss"] = run.best.measures.loss
        facts["best epoch" if single else "its epoch"] = f"{run.best.epoch} of {run.epochs}"
        losses = {name: row.loss for name, row in baselines.items() if math.isfinite(row.loss)}
        if losses:
            name = min(losses, key=lambda name: losses[name])
            facts[f"best baseline ({name})"] = losses[name]
    if seconds := sum(run.seconds for run in ranked):
        facts["time of all epochs"] = duration(seconds)
    if single and (speed := _typical_speed(run)):
        facts[f"{run.speed_unit} per second"] = f"{speed:,.4g}" if speed < 1000 else f"{speed:,.0f}"
    return facts


def _typical_speed(run: RunLog) -> float | None:
    """The median speed, the first record of compiling left out where there are others."""
    speeds = sorted(record.speed for record in run.batches[1:] or run.batches if math.isfinite(record.speed))
    return speeds[len(speeds) // 2] if speeds else None


def _losses(value: Value) -> list[Quantity]:
    """Training and validation loss."""
    trained = _trained(lambda record: value(record.measures))
    return [
        Quantity("training", trained, "training loss", color=1, width=1.3, opacity=0.85),
        Quantity("validation", _validated(value), "validation loss", value, width=2.4),
    ]


def _trained(value: Callable[[Batches], float | None]) -> Callable[[RunLog], Points]:
    return lambda run: [(record.place, v) for record in run.batches if (v := value(record)) is not None]


def _validated(value: Value) -> Callable[[RunLog], Points]:
    return lambda run: [
        (record.epoch, v) for record in run.validations if (v := value(record.measures)) is not None
    ]


def _loss_figures(view: View) -> list[Figure]:
    losses = _losses(lambda measures: measures.loss)
    if not view.is_single:
        more = len(view.runs) - len(PALETTE)
        caption = (
            f"The best {len(PALETTE)} runs have a colour, the other {more} are grey." if more > 0 else ""
        )
        return draw(view, "loss", losses[::-1], caption=caption, height=440, of_losses=True)
    (run,) = view.runs
    size = max((record.count for record in run.batches), default=0)
    caption = f"A point of the training curve is the mean of {size} batches." if size > 1 else ""
    return [
        *draw(view, "loss", losses, caption=caption, of_losses=True),
        *(_relative_losses(view) if len(_targets(run)) > 1 and run.validations else []),
    ]


def _relative_losses(view: View) -> list[Figure]:
    (run,) = view.runs

    def relative(target: str) -> Callable[[RunLog], Points]:
        def points(run: RunLog) -> Points:
            losses = _validated(lambda measures: measures.by_target.get(target))(run)
            first = losses[0][1] if losses and losses[0][1] else 1.0
            return [(epoch, loss / first) for epoch, loss in losses]

        return points

    losses = [Quantity(target, relative(target), color=place) for place, target in enumerate(_targets(run))]
    caption = "Validation loss of each target, relative to its first."
    title = f"loss / loss of epoch {run.validations[0].epoch}"
    return draw(view, title, losses, caption=caption, of_losses=True)


def _target_section(view: View, target: str) -> Section:
    losses = _losses(lambda measures: measures.by_target.get(target))
    figures = draw(view, "loss", losses if view.is_single else losses[1:], of_losses=True)
    for title, names in _metric_groups(view, target):
        metrics = [_metric(target, name, place) for place, name in enumerate(names)]
        figures += draw(view, title, metrics)
    if view.is_single and any(target in record.shares for record in view.runs[0].validations):
        figures.append(_share_figure(view.runs[0], target))
    return Section(target, _row(figures))


def _row(figures: Sequence[Figure]) -> list[Row]:
    return [Row(figures)] if figures else []


def _metric_groups(view: View, target: str) -> list[tuple[str, Sequence[str]]]:
    """Groups of metrics, of which some may have no values; a metric of no group makes its own."""
    known = {name for _, names in _METRIC_GROUPS for name in names}
    others = dict.fromkeys(
        name
        for run in view.runs
        for record in run.validations
        for name in record.measures.metrics.get(target, {})
        if name not in known
    )
    return [*_METRIC_GROUPS, *((_metric_title(name), (name,)) for name in others)]


def _metric(target: str, name: str, number: int) -> Quantity:
    def value(measures: Measures) -> float | None:
        return measures.metrics.get(target, {}).get(name)

    return Quantity(_metric_title(name), _validated(value), measure=value, color=number)


def _metric_title(name: str) -> str:
    return name.upper() if name in {"mae", "rmse"} else name.replace("top_", "top-").replace("_", " ")


def _speed_figures(view: View) -> list[Figure]:
    units = " or ".join(dict.fromkeys(run.speed_unit for run in view.runs))
    quantities = [
        Quantity("learning rate", _trained(lambda record: record.learning_rate)),
        Quantity(f"{units} per second", _trained(lambda record: record.speed), color=2),
        Quantity(
            "memory in use (GB)",
            _trained(lambda record: record.memory / 1e9 if record.memory else None),
            color=4,
        ),
    ]
    height = 280 if view.is_single else 360
    return list(chain.from_iterable(draw(view, row.name, [row], height=height) for row in quantities))


def _share_figure(run: RunLog, column: str) -> Figure:
    """The share of each predicted class, one on top of the other."""
    shares = [(record.epoch, record.shares[column]) for record in run.validations if column in record.shares]
    totals: dict[str, float] = {}
    for _, of_class in shares:
        for name, share in of_class.items():
            totals[name] = totals.get(name, 0.0) + share
    names = sorted(totals, key=lambda name: -totals[name])

    def points(names: Sequence[str]) -> Points:
        return [(epoch, sum(of_class.get(name, 0.0) for name in names)) for epoch, of_class in shares]

    bands = [(name, points([name]), color(place)) for place, name in enumerate(names[:_NAMED_CLASSES])]
    if rest := names[_NAMED_CLASSES:]:
        bands.append((f"{len(rest)} more classes", points(rest), GREY))
    traces = [line_trace(name, band, tone, width=0.5) | {"stackgroup": "all"} for name, band, tone in bands]
    return draw_traces(traces, "share of predictions", is_share=True)


def _runs_table(ranked: Sequence[RunLog]) -> Table:
    """The runs, the best first, with the settings in which they differ."""
    settings = _differing(ranked)
    shown = list(settings)[:_LISTED_SETTINGS]
    rows: list[list[Cell]] = []
    for run in ranked:
        best, speed = run.best, _typical_speed(run)
        reached = (None, None) if best is None else (best.measures.loss, best.epoch)
        state = (run.epochs, "yes" if run.finished else "no", run.seconds)
        own = [_number(settings[key].get(run.name, "")) for key in shown]
        rows.append([run.name, *reached, *state, None if speed is None else round(speed, 1), *own])
    units = " or ".join(dict.fromkeys(run.speed_unit for run in ranked))
    heads = ["run", "best loss", "best epoch", "epochs done", "finished", "seconds", f"{units} per second"]
    more = len(settings) - len(shown)
    note = "" if not shown else "The last columns are the settings in which the runs differ."
    return Table(
        [*heads, *(key.rsplit(".", 1)[-1] for key in shown)],
        rows,
        note=f"{note} {more} more settings differ." if more > 0 else note,
    )


def _number(text: str) -> Cell:
    try:
        return int(text) if text.lstrip("-").isdigit() else float(text)
    except ValueError:
        return text or None


def _differing(runs: Sequence[RunLog]) -> dict[str, dict[str, str]]:
    """The settings in which the runs differ: key to name of the run to value."""
    known = {run.name: _settings(run.config) for run in runs if run.config is not None}
    keys = dict.fromkeys(key for config in known.values() for key in config if key != "model_name")
    return {
        key: {name: config[key] for name, config in known.items() if key in config}
        for key in keys
        if len({config.get(key) for config in known.values()}) > 1
    }


def _details(run: RunLog) -> list[Section]:
    """The best epochs and the settings of a run."""
    settings = [] if run.config is None else [[key, value] for key, value in _settings(run.config).items()]
    return [
        Section("Best epochs", [_best_epochs(run)] if run.validations else []),
        Section("Settings", [Table(["key", "value"], settings)] if settings else [], folded=True),
    ]


def _best_epochs(run: RunLog) -> Table:
    """The epochs with the lowest validation loss, and the baselines below them."""
    ranked = sorted(
        (record for record in run.validations if math.isfinite(record.measures.loss)),
        key=lambda record: record.measures.loss,
    )
    targets = _targets(run) if len(_targets(run)) > 1 else []
    metrics = [
        (target, name)
        for target, row in (ranked[0].measures.metrics if ranked else {}).items()
        for name in row
    ]

    def cells(measures: Measures) -> list[Cell]:
        losses: list[Cell] = [measures.loss, *(measures.by_target.get(target) for target in targets)]
        return [*losses, *(measures.metrics.get(target, {}).get(name) for target, name in metrics)]

    rows: list[list[Cell]] = [
        [f"epoch {record.epoch}", *cells(record.measures), record.learning_rate, record.seconds]
        for record in ranked[:_LISTED_EPOCHS]
    ]
    rows += [[f"baseline: {name}", *cells(measures), None, None] for name, measures in run.baselines.items()]
    of_target = " of {}" if len({target for target, _ in metrics}) > 1 else ""
    titles = [_metric_title(name) + of_target.format(target) for target, name in metrics]
    heads = ["", "loss", *(f"loss of {target}" for target in targets), *titles, "learning rate", "seconds"]
    more = len(ranked) - _LISTED_EPOCHS
    return Table(heads, rows, note=f"{more} more epochs have a higher loss." if more > 0 else "")


def _settings(config: Mapping[str, Any]) -> dict[str, str]:
    """The settings of a configuration by dotted key, as text; those that are None or empty are left out."""
    return {
        key: str(value).lower() if isinstance(value, bool) else str(value)
        for key, value in flattened(config).items()
        if value is not None and value != {}
    }
