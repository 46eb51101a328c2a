"""Plain sentences about a model and the best of the baselines."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float64

from seqjax.config.schema import HeadName
from seqjax.evaluation.pieces import Estimate, estimate
from seqjax.evaluation.result import MODEL, Outcome, TargetResult, Verdict
from seqjax.metrics import JUDGED_BY

_WORDS: Mapping[str, tuple[str, str]] = {"nll": ("NLL", " nats"), "rmse": ("RMSE", "")}
"""Name and unit of a metric in sentences."""


def judge(
    head: HeadName,
    values: Mapping[str, float],
    draws: Mapping[str, Float64[np.ndarray, "R"]] | None,
    *,
    level: float,
) -> Verdict:
    """The verdict on one target.

    Args:
      head: What the model predicts, which says by which metric it is judged.
      values: That metric over all data of each predictor, the model among them.
      draws: Its values over the same resamples; None if the data is too small to resample.
      level: Coverage of the interval.
    """
    metric = JUDGED_BY[head]
    rivals = {name: value for name, value in values.items() if name != MODEL and np.isfinite(value)}
    if not rivals:
        text = "Not judged: there is no baseline to compare with."
        if not np.isfinite(values[MODEL]):
            text = "Not judged: no item could be scored."
        return Verdict("not judged", text, metric, None, None, None)
    best = min(rivals, key=lambda name: rivals[name])
    drawn = None if draws is None else draws[best] - draws[MODEL]
    difference = estimate(rivals[best] - values[MODEL], drawn, level=level)
    relative = None
    if difference.value is not None and rivals[best] > 0:
        relative = difference.value / rivals[best]
    outcome = _outcome(difference)
    return Verdict(
        outcome, _sentence(outcome, metric, best, difference, relative), metric, best, difference, relative
    )


def _outcome(difference: Estimate) -> Outcome:
    if difference.value is None or difference.low is None or difference.high is None:
        return "not judged"
    if difference.low > 0:
        return "better"
    return "worse" if difference.high < 0 else "no better"


def _sentence(outcome: Outcome, metric: str, best: str, difference: Estimate, relative: float | None) -> str:
    name, unit = _WORDS[metric]
    rival = f"than the best baseline ({best})"
    if difference.value is None:
        return f"Not judged: the {name} is not finite."
    way = "lower" if difference.value > 0 else "higher"
    size = f"{abs(difference.value):.3g}{unit}"
    share = f", {abs(relative):.0%}" if relative is not None else ""
    if difference.low is None or difference.high is None:
        return (
            f"Not judged: the {name} is {size} {way} {rival}, but there is too little data to say whether "
            "that is chance."
        )
    ends = (difference.low, difference.high)
    if difference.value <= 0:
        ends = (-difference.high, -difference.low)
    by = f"{name} {way} by {size} [{ends[0]:.3g}, {ends[1]:.3g}]"
    if outcome == "no better":
        return f"No better {rival}: {by}, which may be chance."
    return f"{outcome.capitalize()} {rival}: {by}{share}."


def summary(targets: Mapping[str, TargetResult]) -> str:
    """All targets of a model in a sentence or two."""
    by_outcome: dict[Outcome, list[str]] = {}
    for name, result in targets.items():
        by_outcome.setdefault(result.verdict.outcome, []).append(name)
    better = by_outcome.get("better", [])
    count = len(targets)
    if len(better) == count:
        subject = {1: "the target", 2: "both targets"}.get(count, f"all {count} targets")
        return f"Better than the best baseline on {subject}: {_listed(better)}."
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
    return " ".join(sentences)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:-1]) + (" and " if len(names) > 1 else "") + names[-1]
