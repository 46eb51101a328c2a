"""Figures of numbers over epochs, as plain plotly mappings."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from seqjax.reports.page import PALETTE, Figure, Toggle, plain

GREY = "#8a94a3"
"""The colour of what is there for comparison, on a light and on a dark ground."""

_LAST = 1_000_000
"""The place of baselines in the legend."""
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
    stacked: bool = False
    """Whether it fills the space above the stacked curves before it."""


def baseline_curves(baselines: Mapping[str, float], last: float) -> list[Curve]:
    """Dashed lines from epoch 0 to the last one, by name."""
    dashes = ("dash", "dot", "dashdot")
    return [
        level(name, value, last, color=GREY, dash=dashes[number % 3], rank=_LAST)
        for number, (name, value) in enumerate(baselines.items())
        if math.isfinite(value)
    ]


def level(
    name: str,
    value: float,
    last: float,
    *,
    color: str,
    dash: str,
    opacity: float = 1.0,
    in_legend: bool = True,
    rank: int = 0,
) -> Curve:
    """A straight line at `value`, with a point at each epoch, so that hovering tells the value there."""
    epochs = [*range(math.ceil(last)), last]
    return Curve(
        name, epochs, [value] * len(epochs), color, dash, 1.5, opacity, in_legend=in_legend, rank=rank
    )


def figure(
    curves: Sequence[Curve],
    *,
    y: str,
    baselines: Sequence[Curve] = (),
    caption: str = "",
    height: int = 360,
    log_scale: bool | None = None,
    share: bool = False,
    compared: bool = False,
) -> Figure:
    """A figure of curves over epochs.

    Args:
      curves: The lines, the last on top.
      y: Title of the y axis.
      baselines: Lines behind the curves, which a check box hides.
      caption: A sentence below.
      height: Pixels.
      log_scale: How the check box for a logarithmic y axis is at first; null has none.
      share: Whether y goes from 0 to 1.
      compared: Whether the curves are of several runs, of which hovering shows one rather than all.
    """
    layout: dict[str, object] = {
        "xaxis": {"title": {"text": "epoch"}, "rangemode": "tozero", "hoverformat": ".3~f"},
        "yaxis": {"title": {"text": plain(y)}, "hoverformat": ".4~g"} | ({"range": [0, 1]} if share else {}),
        "hovermode": "closest" if compared else "x unified",
        "showlegend": sum(curve.in_legend for curve in [*baselines, *curves]) > 1,
    }
    toggles = []
    if log_scale is not None:
        toggles.append(
            Toggle("log scale", {"yaxis.type": "log"}, {"yaxis.type": "linear"}, checked=log_scale)
        )
    if baselines:
        toggles.append(Toggle("baselines", {}, {}, range(len(baselines)), checked=True))
    data = [_trace(curve, compared=compared) for curve in [*baselines, *curves]]
    return Figure({"data": data, "layout": layout}, caption, height, toggles)


def _trace(curve: Curve, *, compared: bool) -> dict[str, object]:
    trace: dict[str, object] = {
        "type": "scatter",
        "mode": "lines+markers" if _shows_points(curve) else "lines",
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
    if curve.stacked:
        trace["stackgroup"] = "all"
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
