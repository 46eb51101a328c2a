"""Figures of numbers over epochs, of one run or of several, as plain plotly mappings.

Quantities that belong together, such as training and validation loss, share a figure where there is one run;
of several runs each quantity has a figure of its own, with a curve for each run.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seqjax.reports.page import PALETTE, Figure, Toggle, plain
from seqjax.reports.run_log import Measures, RunLog

GREY = "#8a94a3"
"""The colour of what is there for comparison, on a light and on a dark ground."""

_MARKED, _THICK = 60, 2.0
"""Curves of at most so many points show them, if they are at least so wide."""
_DASHES = ("dash", "dot", "dashdot")
_LAST = 1_000_000
"""The place of baselines in the legend."""

Points = Sequence[tuple[float, float]]
"""Epochs, which may be fractions, and the values there."""
Value = Callable[[Measures], float | None]


@dataclass(frozen=True)
class Quantity:
    """A number that every run has over its epochs."""

    name: str
    points: Callable[[RunLog], Points]
    title: str = ""
    """Title of the y axis of a figure of it alone, if it is not the name."""
    measure: Value | None = None
    """The same number of a baseline, if it is one of validations."""
    color: int = 0
    """Number of its colour in a figure of one run."""
    width: float = _THICK
    opacity: float = 1.0


@dataclass(frozen=True)
class View:
    """The runs of a page, the best first, their batches averaged."""

    runs: Sequence[RunLog]
    baselines: Mapping[str, Measures]
    """Those that all runs have."""
    log_scale: bool

    @property
    def is_single(self) -> bool:
        """True for one run."""
        return len(self.runs) == 1


def draw(
    view: View,
    title: str,
    group: Sequence[Quantity],
    *,
    caption: str = "",
    height: int = 360,
    of_losses: bool = False,
) -> list[Figure]:
    """The figures of quantities that belong together; a quantity without points is left out.

    Args:
      view: The runs.
      title: Title of the y axis, if all are in one figure.
      group: The quantities, the last on top.
      caption: A sentence below the first figure.
      height: Pixels.
      of_losses: True gives a check box for a logarithmic y axis.
    """
    each = [(quantity.title or quantity.name, [quantity]) for quantity in group]
    shared = [(title, group)] if view.is_single else each
    figures = []
    for y, quantities in shared:
        traces = _traces(view, quantities)
        if traces:
            measured = [quantity for quantity in quantities if quantity.measure]
            baselines = _baseline_traces(view, measured, max(max(trace["x"]) for trace in traces))
            if baselines and len(measured) > 1:
                caption = "Dashed: the best baseline."
            figures.append(
                draw_traces(
                    traces,
                    y,
                    baselines=baselines,
                    caption="" if figures else caption,
                    height=height,
                    log_scale=view.log_scale if of_losses else None,
                    compared=not view.is_single,
                )
            )
    return figures


Trace = dict[str, Any]


def _traces(view: View, quantities: Sequence[Quantity]) -> list[Trace]:
    """Curves of one run's quantities; of several runs a curve each, the best on top and in colour."""
    traces = []
    for rank, run in reversed(list(enumerate(view.runs))):
        for quantity in quantities:
            points = quantity.points(run)
            if not points:
                continue
            if view.is_single:
                tone, width = color(quantity.color), quantity.width
                trace = line_trace(quantity.name, points, tone, width=width, opacity=quantity.opacity)
            elif rank < len(PALETTE):
                trace = line_trace(run.name, points, color(rank)) | {"legendrank": rank}
            else:
                trace = line_trace(run.name, points, GREY, width=1, opacity=0.5) | {"showlegend": False}
            traces.append(trace)
    return traces


def _baseline_traces(view: View, quantities: Sequence[Quantity], last: float) -> list[Trace]:
    """Dashed lines: all baselines of a quantity by itself, the best baseline of each quantity of several."""
    # A point at each epoch, so that hovering tells the value there.
    epochs = [*range(math.ceil(last)), last]
    values = [(quantity, _baseline_values(view, quantity)) for quantity in quantities]
    if len(values) == 1:
        return [
            line_trace(name, [(x, value) for x in epochs], GREY, width=1.5, dash=_DASHES[at % len(_DASHES)])
            | {"legendrank": _LAST}
            for at, (name, value) in enumerate(values[0][1].items())
        ]
    traces = []
    for quantity, by_name in values:
        if by_name:
            best = (max if quantity.name.endswith("accuracy") else min)(by_name, key=lambda n: by_name[n])
            level = [(x, by_name[best]) for x in epochs]
            name, tone = f"{quantity.name} of {best}", color(quantity.color)
            traces.append(
                line_trace(name, level, tone, width=1.5, dash="dash", opacity=0.7) | {"showlegend": False}
            )
    return traces


def _baseline_values(view: View, quantity: Quantity) -> dict[str, float]:
    """A quantity of each baseline, where it is finite."""
    values = {
        name: quantity.measure(measures) for name, measures in view.baselines.items() if quantity.measure
    }
    return {name: value for name, value in values.items() if value is not None and math.isfinite(value)}


def line_trace(
    name: str, points: Points, tone: str, *, width: float = _THICK, dash: str = "solid", opacity: float = 1.0
) -> Trace:
    """A curve through points."""
    shows_points = len(points) == 1 or (width >= _THICK and len(points) <= _MARKED)
    return {
        "type": "scatter",
        "mode": "lines+markers" if shows_points else "lines",
        "name": plain(name),
        # As many digits as a figure can show, so that a page stays small.
        "x": [float(f"{x:.6g}") for x, _ in points],
        "y": [float(f"{y:.6g}") for _, y in points],
        "line": {"width": width, "dash": dash, "color": tone},
        "marker": {"size": 6, "color": tone},
        "opacity": opacity,
        "showlegend": True,
        "legendrank": 0,
    }


def draw_traces(
    traces: Sequence[Trace],
    y: str,
    *,
    baselines: Sequence[Trace] = (),
    caption: str = "",
    height: int = 360,
    log_scale: bool | None = None,
    is_share: bool = False,
    compared: bool = False,
) -> Figure:
    """A figure over epochs.

    Args:
      traces: The curves, the last on top.
      y: Title of the y axis.
      baselines: Lines behind the curves, which a check box hides.
      caption: A sentence below.
      height: Pixels.
      log_scale: State of the check box for a logarithmic y axis at first; None leaves the box out.
      is_share: True lets y go from 0 to 1.
      compared: True where hovering shows one curve rather than all.
    """
    data = [*baselines, *traces]
    in_legend = sum(trace["showlegend"] for trace in data)
    if compared:
        template = "%{fullData.name}<br>epoch %{x:.3~f}: %{y:.4~g}<extra></extra>"
        data = [trace | {"hovertemplate": template} for trace in data]
    bounds = {"range": [0, 1]} if is_share else {}
    layout = {
        "xaxis": {"title": {"text": "epoch"}, "rangemode": "tozero", "hoverformat": ".3~f"},
        "yaxis": {"title": {"text": plain(y)}, "hoverformat": ".4~g"} | bounds,
        "hovermode": "closest" if compared else "x unified",
        "showlegend": in_legend > 1,
    }
    toggles = []
    if log_scale is not None:
        toggles.append(
            Toggle("log scale", {"yaxis.type": "log"}, {"yaxis.type": "linear"}, checked=log_scale)
        )
    if baselines:
        toggles.append(Toggle("baselines", {}, {}, range(len(baselines)), checked=True))
    return Figure(data, layout, caption, height, toggles)


def color(number: int) -> str:
    """A colour of the palette, by a number from 0 up."""
    return PALETTE[number % len(PALETTE)]
