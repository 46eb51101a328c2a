"""Figures of numbers over epochs, as plain plotly mappings."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from seqjax.reports.page import PALETTE, Figure, Toggle, plain

GREY = "#8a94a3"
"""The colour of what is there for comparison, on a light and on a dark ground."""

_AFTER_ALL = 1_000_000
_MARKED = 60
"""Curves of at most so many points show them."""


@dataclass(frozen=True)
class Curve:
    """One line of a figure."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    color: str | None = None
    """Null takes the next colour of the palette."""
    dash: str = "solid"
    """solid, dash, dot or dashdot."""
    width: float = 2.0
    opacity: float = 1.0
    marked: bool = False
    """Whether its points are shown, if they are few."""
    in_legend: bool = True
    rank: int = 0
    """Place in the legend; equal ones stand in the order of the curves."""
    group: str | None = None
    """Curves of one group are shown and hidden together."""
    fill: str | None = None
    """Curves of one such name are stacked."""


def baseline_curves(baselines: Mapping[str, float], last: float) -> list[Curve]:
    """Dashed lines from epoch 0 to the last one, by name."""
    dashes = ("dash", "dot", "dashdot")
    return [
        Curve(name, [0, last], [value, value], GREY, dashes[number % 3], 1.5, rank=_AFTER_ALL)
        for number, (name, value) in enumerate(baselines.items())
        if math.isfinite(value)
    ]


def figure(
    curves: Sequence[Curve],
    *,
    y: str,
    x: str = "epoch",
    caption: str = "",
    height: int = 360,
    log_scale: bool | None = None,
    hidden: Mapping[str, Iterable[int]] | None = None,
    share: bool = False,
    compared: bool = False,
) -> Figure:
    """A figure of curves.

    Args:
      curves: The lines, the last on top.
      y: Title of the y axis.
      x: Title of the x axis.
      caption: A sentence below.
      height: Pixels.
      log_scale: How the check box for a logarithmic y axis is at first; null has none.
      hidden: Numbers of curves that a further check box shows, by its label; it is checked at first.
      share: Whether y goes from 0 to 1.
      compared: Whether the curves are of several runs, of which hovering shows one rather than all.
    """
    layout: dict[str, object] = {
        "xaxis": {"title": {"text": plain(x)}, "rangemode": "tozero", "hoverformat": ".3~f"},
        "yaxis": {"title": {"text": plain(y)}, "hoverformat": ".4~g"} | ({"range": [0, 1]} if share else {}),
        "hovermode": "closest" if compared else "x unified",
        "showlegend": sum(curve.in_legend for curve in curves) > 1,
    }
    toggles = []
    if log_scale is not None:
        toggles.append(
            Toggle("log scale", {"yaxis.type": "log"}, {"yaxis.type": "linear"}, checked=log_scale)
        )
    for label, traces in (hidden or {}).items():
        if numbers := list(traces):
            toggles.append(Toggle(label, {}, {}, numbers, checked=True))
    data = [_trace(curve, compared=compared) for curve in curves]
    return Figure({"data": data, "layout": layout}, caption, height, toggles)


def _trace(curve: Curve, *, compared: bool) -> dict[str, object]:
    trace: dict[str, object] = {
        "type": "scatter",
        "mode": "lines+markers"
        if (curve.marked and len(curve.x) <= _MARKED) or len(curve.x) == 1
        else "lines",
        "name": plain(curve.name),
        "x": [rounded(value) for value in curve.x],
        "y": [rounded(value) for value in curve.y],
        "line": {"width": curve.width, "dash": curve.dash},
        "marker": {"size": 6},
        "opacity": curve.opacity,
        "showlegend": curve.in_legend,
        "legendrank": curve.rank,
    }
    if curve.color is not None:
        trace["line"] = {"width": curve.width, "dash": curve.dash, "color": curve.color}
        trace["marker"] = {"size": 6, "color": curve.color}
    if curve.group is not None:
        trace["legendgroup"] = curve.group
    if curve.fill is not None:
        trace["stackgroup"] = curve.fill
    if compared:
        trace["hovertemplate"] = "%{fullData.name}<br>epoch %{x:.3~f}: %{y:.4~g}<extra></extra>"
    return trace


def _shows_points(curve: Curve) -> bool:
    return len(curve.x) == 1 or (curve.marked and len(curve.x) <= _MARKED)


def rounded(value: float) -> float:
    """A number with as many digits as a figure can show, so that a page stays small."""
    return float(f"{value:.6g}")


def color(number: int) -> str:
    """A colour of the palette, by a number from 0 up."""
    return PALETTE[number % len(PALETTE)]
