"""Plain sentences about a model and the best of the baselines."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TypeAlias

import numpy as np
from jaxtyping import Float64

from seqjax.config.schema import HeadName
from seqjax.evaluation.pieces import Estimate, estimate
from seqjax.evaluation.result import MODEL, Outcome, TargetResult, Verdict
from seqjax.metrics import JUDGED_BY, METRICS, SECOND

_WORDS: Mapping[str, tuple[str, str]] = {
    "nll": ("NLL", " nats"),
    "rmse": ("RMSE", ""),
    "top_1_accuracy": ("top-1 accuracy", ""),
}
"""Name and unit of a metric in sentences."""
_NEARLY_NO_NLL = 0.01
_NEARLY_NO_ERROR = 1e-3
"""In standard deviations of the target. No share of a smaller figure is told: it would say nothing."""

Figures: TypeAlias = Mapping[str, Mapping[str, float]]
"""By metric and predictor, the model among them."""
Draws: TypeAlias = Mapping[str, Mapping[str, Float64[np.ndarray, "R"]]]
"""The same over R resamples."""


def judge(
    head: HeadName, values: Figures, draws: Draws | None, *, level: float, unit: float = 1.0
) -> Verdict:
    """The verdict on one target; it tells of a second metric too where that says something else.

    Args:
      head: What the model predicts, which says by which metrics it is judged.
      values: The metrics over all data of each predictor.
      draws: Their values over the same resamples; None if the data is too small to resample.
      level: Coverage of the interval.
      unit: `Statistics.unit` of a real target.
    """
    metric, second = JUDGED_BY[head], SECOND.get(head, JUDGED_BY[head])
    verdict, other = (
        _by(key, values[key], None if draws is None else draws[key], level=level) for key in (metric, second)
    )
    if verdict.relative is not None:
        least = _NEARLY_NO_NLL if metric == "nll" else _NEARLY_NO_ERROR * unit
        figure = values[metric][verdict.baseline or MODEL]
        if METRICS[head][metric].unit == "density" or figure < least:
            verdict = replace(verdict, relative=None)
    text = _sentence(verdict)
    if _disagrees(verdict, other):
        also = replace(other, relative=None)
        return replace(verdict, text=f"{text} By {_WORDS[second][0]} it is {_again(also)}", also=also)
    return replace(verdict, text=text)


def _by(
    metric: str,
    values: Mapping[str, float],
    draws: Mapping[str, Float64[np.ndarray, "R"]] | None,
    *,
    level: float,
) -> Verdict:
    """The verdict by one metric; without its text, unless there is nothing to judge."""
    sign = -1 if _is_share(metric) else 1
    rivals = {name: value for name, value in values.items() if name != MODEL and np.isfinite(value)}
    if not rivals:
        text = "Not judged: there is no baseline to compare with."
        if not np.isfinite(values[MODEL]):
            text = "Not judged: no item could be scored."
        return Verdict("not judged", text, metric, None, None, None)
    best = min(rivals, key=lambda name: sign * rivals[name])
    drawn = None if draws is None else sign * (draws[best] - draws[MODEL])
    difference = estimate(sign * (rivals[best] - values[MODEL]), drawn, level=level)
    relative = None
    if difference.value is not None and rivals[best] > 0:
        relative = difference.value / rivals[best]
    return Verdict(_outcome(difference), "", metric, best, difference, relative)


def _is_share(metric: str) -> bool:
    """True of a metric of which more is better."""
    return metric.endswith("accuracy")


def _outcome(difference: Estimate) -> Outcome:
    if difference.value is None or difference.low is None or difference.high is None:
        return "not judged"
    if difference.low > 0:
        return "better"
    return "worse" if difference.high < 0 else "no better"


def _disagrees(verdict: Verdict, other: Verdict) -> bool:
    """Tells whether another metric comes to another outcome, beyond chance or in its direction."""
    outcomes = {verdict.outcome, other.outcome}
    if len(outcomes) == 1 or "not judged" in outcomes:
        return False
    assert verdict.difference is not None
    assert other.difference is not None
    product = (verdict.difference.value or 0.0) * (other.difference.value or 0.0)
    return other.outcome != "no better" or product < 0


def _sentence(verdict: Verdict) -> str:
    if verdict.baseline is None or verdict.difference is None:
        return verdict.text
    name, value = _WORDS[verdict.metric][0], verdict.difference.value
    if value is None:
        return f"Not judged: the {name} is not finite."
    if verdict.outcome == "not judged":
        return (
            f"Not judged: the {name} is {_size(verdict.metric, value)} {_way(verdict.metric, value)} than "
            f"the best baseline ({verdict.baseline}), but there is too little data to say whether that is "
            "chance."
        )
    text = _again(verdict)
    return text[0].upper() + text[1:]


def _again(verdict: Verdict) -> str:
    """The outcome and the difference, as the end of a sentence."""
    metric, difference = verdict.metric, verdict.difference
    assert difference is not None
    value, low, high = (end or 0.0 for end in (difference.value, difference.low, difference.high))
    ends = (low, high) if value > 0 else (-high, -low)
    shown = ", ".join(f"{end:.1%}" if _is_share(metric) else f"{end:.3g}" for end in ends)
    size, way = _size(metric, value), _way(metric, value)
    by = f"{_WORDS[metric][0]} {way} by {size} [{shown}]"
    share = f", {abs(verdict.relative):.0%}" if verdict.relative is not None else ""
    end = ", which may be chance" if verdict.outcome == "no better" else share
    return f"{verdict.outcome} than the best baseline ({verdict.baseline}): {by}{end}."


def _size(metric: str, value: float) -> str:
    return f"{abs(value):.1%}" if _is_share(metric) else f"{abs(value):.3g}{_WORDS[metric][1]}"


def _way(metric: str, value: float) -> str:
    return "lower" if (value > 0) != _is_share(metric) else "higher"


def summary(targets: Mapping[str, TargetResult]) -> str:
    """All targets of a model in a sentence or two."""
    by_outcome: dict[Outcome, list[str]] = {}
    for name, result in targets.items():
        by_outcome.setdefault(result.verdict.outcome, []).append(name)
    better = by_outcome.get("better", [])
    count = len(targets)
    if len(better) == count:
        subject = {1: "the target", 2: "both targets"}.get(count, f"all {count} targets")
        text = f"Better than the best baseline on {subject}: {_listed(better)}."
        return " ".join([text, *_by_another(targets)])
    sentences = []
    if better:
        sentences.append(
            f"Better than the best baseline on {len(better)} of {count} targets: {_listed(better)}."
        )
    for outcome in ("no better", "worse"):
        if names := by_outcome.get(outcome):
            sentences.append(f"{outcome.capitalize()} than the best baseline on {_listed(names)}.")
    if names := by_outcome.get("not judged"):
        sentences.append(f"Not judged: {_listed(names)}.")
    return " ".join([*sentences, *_by_another(targets)])


def _by_another(targets: Mapping[str, TargetResult]) -> Iterator[str]:
    """Sentences about the targets on which a second metric says something else."""
    names: dict[tuple[str, Outcome], list[str]] = {}
    for name, result in targets.items():
        if (also := result.verdict.also) is not None:
            names.setdefault((also.metric, also.outcome), []).append(name)
    for (metric, outcome), those in names.items():
        yield f"By {_WORDS[metric][0]}, {outcome} on {_listed(those)}."


def _listed(names: list[str]) -> str:
    return ", ".join(names[:-1]) + (" and " if len(names) > 1 else "") + names[-1]
