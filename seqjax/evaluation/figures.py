"""The plots of a report, as plotly reads them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from seqjax.evaluation.result import MODEL, Bin, ConfusionTable, Points, TargetResult
from seqjax.evaluation.tables import OTHERS
from seqjax.metrics import JUDGED_BY, METRICS
from seqjax.reports.page import PALETTE, Figure, plain

MOST_POINTS = 800
"""Points of a scatter plot: more hide each other and slow the page down."""
_RESIDUAL_BINS = 60
_WIDE = 8
"""A scale is logarithmic if the largest figure is so many times the smallest."""
_MODEL, _RIVAL, _GREY = PALETTE[0], PALETTE[1], "#8a94a3"


def judged_metric(target: TargetResult) -> Figure:
    """The metric that the target is judged by, of every predictor, with intervals."""
    key = JUDGED_BY[target.head]
    names = list(target.metrics)[::-1]
    estimates = [target.metrics[name][key] for name in names]
    trace = _scatter(
        "markers",
        [estimate.value for estimate in estimates],
        [plain(name) for name in names],
        marker={"size": 12, "color": [_MODEL if name == MODEL else _GREY for name in names]},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [0 if item.high is None else item.high - (item.value or 0) for item in estimates],
            "arrayminus": [0 if item.low is None else (item.value or 0) - item.low for item in estimates],
            "color": _GREY,
        },
        hovertemplate="%{y}: %{x:.4g}<extra></extra>",
    )
    ends = [end for item in estimates for end in (item.low, item.value, item.high) if end is not None]
    # One hopeless baseline must not squeeze the others together.
    wide = min(ends, default=0) > 0 and max(ends) > _WIDE * min(ends)
    scale = _logarithmic(min(ends), max(ends)) if wide else {"rangemode": "tozero"}
    layout = {
        "xaxis": {"title": {"text": METRICS[target.head][key].label}, **scale},
        "yaxis": {"type": "category", "range": [-0.5, len(names) - 0.5]},
        "showlegend": False,
    }
    caption = (
        "Further left is better. The lines are intervals: with other sequences, "
        "figures would vary by this much."
    )
    if wide:
        caption += " The scale is logarithmic."
    return Figure([trace], layout, caption, height=110 + 40 * len(names))


def reliability(bins: Sequence[Bin]) -> Figure:
    """Confidence against accuracy."""
    filled = [item for item in bins if item.items]
    most = max((item.items for item in filled), default=1)
    points = _scatter(
        "lines+markers",
        [item.confidence for item in filled],
        [item.accuracy for item in filled],
        customdata=[item.items for item in filled],
        marker={"color": _MODEL, "size": [6 + 18 * (item.items / most) ** 0.5 for item in filled]},
        line={"color": _MODEL, "width": 1},
        name=MODEL,
        hovertemplate="sure: %{x:.1%}<br>right: %{y:.1%}<br>%{customdata} items<extra></extra>",
    )
    layout = _axes("how sure the model is", "how often it is right")
    for axis in layout.values():
        axis |= {"range": [0, 1.04], "tickformat": ".0%"}
    caption = (
        "Below the dotted line the model is surer than it should be, above it is better than it says. "
        "Larger points stand for more items."
    )
    return Figure([_line([0.0, 1.0], [0.0, 1.0], "perfect calibration"), points], layout, caption)


def confusion(table: ConfusionTable) -> Figure:
    """Shares of the predicted classes among the items of each true class."""
    labels = [_short(label) for label in (*table.labels, OTHERS)]
    counts = np.asarray(table.counts, np.float64)
    used = counts.sum(axis=1) > 0
    predicted = counts.sum(axis=0) > 0
    predicted[: len(table.labels)] = True
    rows = counts[used][:, predicted]
    shares = rows / rows.sum(axis=1, keepdims=True)
    across = [label for label, there in zip(labels, predicted, strict=True) if there]
    down = [label for label, there in zip(labels, used, strict=True) if there]
    trace = {
        "type": "heatmap",
        "x": across,
        "y": down,
        "z": shares,
        "zmin": 0,
        "zmax": 1,
        "customdata": rows,
        "text": [[f"{value:.0%}" if value >= 0.005 else "" for value in line] for line in shares],
        "texttemplate": "%{text}",
        "colorscale": [[0, "rgba(59,130,246,0.03)"], [1, "rgba(59,130,246,0.75)"]],
        "showscale": False,
        "hovertemplate": "actual: %{y}<br>predicted: %{x}<br>%{customdata} items, %{z:.1%}<extra></extra>",
    }
    layout = _axes("predicted", "actual")
    for axis in layout.values():
        axis |= {"type": "category", "showgrid": False}
    layout["yaxis"]["autorange"] = "reversed"
    caption = (
        "Each row is an actual class, and what was predicted for it: a perfect model fills the diagonal."
    )
    return Figure([trace], layout, caption, height=170 + 34 * len(down))


def residuals(points: Points, rival: str | None) -> list[Figure]:
    """Prediction against truth, the residuals, and the residuals against the prediction."""
    truth = np.asarray(points.truth, np.float64)
    predicted = np.asarray(points.predictions[MODEL], np.float64)
    shown = slice(None, None, -(-len(truth) // MOST_POINTS) or 1)
    low, high = float(min(truth.min(), predicted.min())), float(max(truth.max(), predicted.max()))
    hover = "actual: %{x}<br>predicted: %{y}<extra></extra>"
    against_truth = Figure(
        [_line([low, high], [low, high], "perfect prediction"), _dots(truth[shown], predicted[shown], hover)],
        _axes("actual", "predicted"),
        "Items drawn at random: the closer to the dotted line, the better.",
        height=360,
    )
    hover = "predicted: %{x}<br>too high by: %{y:.4g}<extra></extra>"
    against_prediction = Figure(
        [
            _line([float(predicted.min()), float(predicted.max())], [0.0, 0.0], "no error"),
            _dots(predicted[shown], (predicted - truth)[shown], hover),
        ],
        _axes("predicted", "prediction less truth"),
        "A slope or a bend says that the model is off in one direction where it predicts such values.",
        height=340,
    )
    return [against_truth, _histogram(points, truth, rival), against_prediction]


def _histogram(points: Points, truth: Float64[np.ndarray, "N"], rival: str | None) -> Figure:
    errors = {
        name: np.asarray(points.predictions[name], np.float64) - truth for name in (MODEL, rival) if name
    }
    # A few far misses must not squeeze all the others into one bar.
    reach = max(float(np.quantile(np.abs(values), 0.99)) for values in errors.values()) or 1.0
    edges = np.linspace(-reach, reach, _RESIDUAL_BINS + 1)
    middle = (edges[:-1] + edges[1:]) / 2
    data = [
        _scatter(
            "lines",
            _rounded(middle),
            np.histogram(values, edges)[0] / max(len(values), 1),
            line={"shape": "hvh", "color": color, "width": 2},
            fill="tozeroy" if name == MODEL else "none",
            name=plain(name),
            hovertemplate="about %{x:.3g}: %{y:.1%}<extra>%{fullData.name}</extra>",
        )
        for (name, values), color in zip(errors.items(), (_MODEL, _RIVAL), strict=False)
    ]
    layout = _axes("prediction less truth", "share of items")
    layout["yaxis"]["tickformat"] = ".0%"
    whose = f"the model and of the best baseline, {rival}" if rival else "the model"
    caption = f"The errors of {whose}; 1 % of the items may lie outside. Narrow and around 0 is good."
    return Figure(data, layout, caption, height=320)


def by_position(target: TargetResult) -> Figure:
    """The judged metric along the prediction window."""
    key = JUDGED_BY[target.head]
    rival = target.verdict.baseline
    data = [
        _scatter(
            "lines+markers",
            [position.items_seen for position in target.positions],
            [position.metrics[name][key] for position in target.positions],
            name=plain(name),
            line={"color": color},
        )
        for name, color in ((MODEL, _MODEL), (rival, _RIVAL))
        if name is not None
    ]
    layout = _axes("items that the model sees before", METRICS[target.head][key].label)
    layout["yaxis"]["rangemode"] = "tozero"
    return Figure(data, layout, "Whether more context helps: lower is better.", height=320)


def _logarithmic(low: float, high: float) -> dict[str, object]:
    """An axis with ticks at 1, 2 and 5 times the powers of ten."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [float(f"{digit}e{power}") for power in powers for digit in (1, 2, 5)]
    return {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}


def _axes(x: str, y: str) -> dict[str, Any]:
    return {"xaxis": {"title": {"text": x}}, "yaxis": {"title": {"text": y}}}


def _scatter(
    mode: str, x: Sequence[object], y: Sequence[object] | Float64[np.ndarray, "bins"], **style: object
) -> dict[str, object]:
    return {"type": "scatter", "mode": mode, "x": x, "y": y, **style}


def _line(x: Sequence[float], y: Sequence[float], name: str) -> Mapping[str, object]:
    return _scatter("lines", x, y, name=name, line={"dash": "dot", "color": _GREY}, hoverinfo="skip")


def _dots(x: Float64[np.ndarray, "N"], y: Float64[np.ndarray, "N"], hover: str) -> Mapping[str, object]:
    dots = {"size": 5, "opacity": 0.45, "color": _MODEL}
    return _scatter("markers", _rounded(x), _rounded(y), marker=dots, name="items", hovertemplate=hover)


def _rounded(values: Float64[np.ndarray, "N"]) -> list[float]:
    """Values with as many digits of their range as a plot can show, so that the page stays small."""
    reach = float(np.ptp(values)) or float(np.abs(values).max(initial=0)) or 1.0
    return [round(value, 4 - math.floor(math.log10(reach))) for value in values.tolist()]


def _short(label: str) -> str:
    return plain(label if len(label) <= 24 else f"{label[:23]}…")
