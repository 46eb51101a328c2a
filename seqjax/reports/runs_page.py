"""The page of several training runs, such as those of a search: which is best, and how they compare."""

import math
from collections.abc import Callable, Mapping, Sequence

from seqjax.reports.curves import GREY, Curve, baseline_curves, color, figure
from seqjax.reports.page import PALETTE, Cell, Figure, Row, Section, Table, page
from seqjax.reports.training_log import Measures, RunLog
from seqjax.reports.training_page import averaged, duration, flat, metric_title, targets_of, typical_speed

_POINTS = 20_000
"""Points of all training curves together."""

_LISTED_SETTINGS = 12
_SHOWN_TARGETS = 8
_SAME = 1e-3
"""Baselines that differ by less, relatively, are one."""


def runs_page(
    title: str, runs: Sequence[RunLog], *, log_scale: bool = False, bucket: int | None = None
) -> str:
    """The text of an HTML file about several runs.

    Args:
      title: The heading.
      runs: What their logs tell.
      log_scale: Whether losses are on a logarithmic scale at first.
      bucket: Batches that are averaged into one point of a training curve; null averages as many as needed.
    """
    ranked = sorted(runs, key=_best_loss)
    shared = _shared_baselines(ranked)
    targets = [target for target in targets_of(ranked[0]) if all(target in targets_of(run) for run in ranked)]
    sections = [
        Section("Validation and training loss", _loss_figures(ranked, shared, bucket, log_scale=log_scale)),
        Section("Runs", [_table(ranked)]),
        *(
            _target_section(ranked, target, shared, log_scale=log_scale)
            for target in (targets[:_SHOWN_TARGETS] if len(targets) > 1 or _has_metrics(ranked) else [])
        ),
        Section("Learning rate and speed", [Row(_speed_figures(ranked))]),
    ]
    notes = [note for run in ranked for note in run.notes]
    if not shared and any(run.baselines for run in ranked):
        notes.append(
            "The runs have different baselines, so their losses are of different data: compare with care."
        )
    return page(title, sections, lead="\n".join(notes), facts=_facts(ranked))


def _best_loss(run: RunLog) -> float:
    return math.inf if run.best is None else run.best.measures.loss


def _has_metrics(runs: Sequence[RunLog]) -> bool:
    return any(told.measures.metrics for run in runs for told in run.validations)


def _shared_baselines(runs: Sequence[RunLog]) -> dict[str, Measures]:
    """The baselines that all runs have, with the same losses; none if they differ."""
    first = runs[0].baselines
    same = all(
        run.baselines.keys() == first.keys()
        and all(_is_same(found.loss, first[name].loss) for name, found in run.baselines.items())
        for run in runs
    )
    return first if same else {}


def _is_same(loss: float, other: float) -> bool:
    return math.isclose(loss, other, rel_tol=_SAME) or not (math.isfinite(loss) or math.isfinite(other))


def _facts(ranked: Sequence[RunLog]) -> dict[str, Cell]:
    best = ranked[0]
    facts: dict[str, Cell] = {"runs": len(ranked), "best run": best.name}
    if best.best is not None:
        facts["best validation loss"] = best.best.measures.loss
        facts["its epoch"] = f"{best.best.epoch} of {best.epochs}"
    facts["time of all epochs"] = duration(sum(run.seconds for run in ranked))
    return facts


def _curves(
    ranked: Sequence[RunLog],
    points: Callable[[RunLog], Sequence[tuple[float, float]]],
    *,
    marked: bool = False,
) -> list[Curve]:
    """A curve for each run, the best on top; only the best have a colour and a name in the legend."""
    coloured = len(PALETTE)
    curves = []
    for rank, run in reversed(list(enumerate(ranked))):
        x, y = zip(*points(run), strict=True) if points(run) else ((), ())
        if rank < coloured:
            curves.append(Curve(run.name, x, y, color(rank), marked=marked, rank=rank))
        else:
            curves.append(Curve(run.name, x, y, GREY, width=1, opacity=0.5, in_legend=False))
    return curves


def _loss_figures(
    ranked: Sequence[RunLog], shared: Mapping[str, Measures], bucket: int | None, *, log_scale: bool
) -> list[Figure]:
    last = max(run.epochs for run in ranked)
    lines = baseline_curves({name: found.loss for name, found in shared.items()}, last)
    more = len(ranked) - len(PALETTE)
    caption = f"The best {len(PALETTE)} runs have a colour, the other {more} are grey." if more > 0 else ""
    validation = _curves(
        ranked, lambda run: [(t.epoch, t.measures.loss) for t in run.validations], marked=True
    )
    most = max(_POINTS // len(ranked), 50)
    training = _curves(
        ranked, lambda run: [(t.place, t.measures.loss) for t in averaged(run.batches, bucket, most)]
    )
    return [
        figure(
            validation,
            baselines=lines,
            y="validation loss",
            caption=caption,
            height=440,
            log_scale=log_scale,
            compared=True,
        ),
        figure(training, y="training loss", height=380, log_scale=log_scale, compared=True),
    ]


def _target_section(
    ranked: Sequence[RunLog], target: str, shared: Mapping[str, Measures], *, log_scale: bool
) -> Section:
    last = max(run.epochs for run in ranked)

    def loss(measures: Measures) -> float | None:
        return measures.by_target.get(target)

    figures = [_compared(ranked, loss, shared, last, title="validation loss", log_scale=log_scale)]
    names = dict.fromkeys(
        name for run in ranked for told in run.validations for name in told.measures.metrics.get(target, {})
    )
    for name in names:

        def metric(measures: Measures, name: str = name) -> float | None:
            return measures.metrics.get(target, {}).get(name)

        figures.append(_compared(ranked, metric, shared, last, title=metric_title(name)))
    return Section(target, [Row(figures)])


def _compared(
    ranked: Sequence[RunLog],
    value: Callable[[Measures], float | None],
    shared: Mapping[str, Measures],
    last: float,
    *,
    title: str,
    log_scale: bool | None = None,
) -> Figure:
    """A figure of one number of each run's validations."""
    lines = baseline_curves(
        {name: v for name, found in shared.items() if (v := value(found)) is not None}, last
    )

    def points(run: RunLog) -> list[tuple[float, float]]:
        return [(told.epoch, v) for told in run.validations if (v := value(told.measures)) is not None]

    return figure(
        _curves(ranked, points, marked=True),
        baselines=lines,
        y=title,
        log_scale=log_scale,
        compared=True,
    )


def _speed_figures(ranked: Sequence[RunLog]) -> list[Figure]:
    most = max(_POINTS // len(ranked), 50)
    return [
        figure(
            _curves(
                ranked, lambda run: [(t.place, t.learning_rate) for t in averaged(run.batches, None, most)]
            ),
            y="learning rate",
            compared=True,
        ),
        figure(
            _curves(ranked, lambda run: [(t.place, t.speed) for t in averaged(run.batches, None, most)]),
            y=f"{_unit(ranked)} per second",
            compared=True,
        ),
    ]


def _unit(runs: Sequence[RunLog]) -> str:
    return " or ".join(dict.fromkeys(run.speed_unit for run in runs))


def _table(ranked: Sequence[RunLog]) -> Table:
    settings = _differing(ranked)
    shown = list(settings)[:_LISTED_SETTINGS]
    rows: list[list[Cell]] = []
    for run in ranked:
        best = run.best
        speed = typical_speed(run)
        rows.append(
            [
                run.name,
                None if best is None else best.measures.loss,
                None if best is None else best.epoch,
                run.epochs,
                "yes" if run.finished else "no",
                run.seconds,
                None if speed is None else round(speed, 1),
                *(_number(settings[key].get(run.name, "")) for key in shown),
            ]
        )
    speed = f"{_unit(ranked)} per second"
    heads = ["run", "best loss", "best epoch", "epochs done", "finished", "seconds", speed]
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
    known = {run.name: flat(run.config) for run in runs if run.config is not None}
    keys = dict.fromkeys(key for config in known.values() for key in config if key != "model_name")
    return {
        key: {name: config[key] for name, config in known.items() if key in config}
        for key in keys
        if len({config.get(key) for config in known.values()}) > 1
    }
