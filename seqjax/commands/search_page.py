"""The page of a search: which settings matter, how they go with the loss, and all runs."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from seqjax.reports.page import Block, Cell, Figure, Section, Table, Text, page, plain
from seqjax.sweep.summary import LOSS, SCORE, cell, importance, ranked_by

_MOST_LINES = 2000
_TITLES = {LOSS: "validation loss", SCORE: "score"}
_COLOURS = [[0.0, "#1d6ff2"], [0.3, "#a855f7"], [0.65, "#f59e0b"], [1.0, "#a8adb7"]]
"""From the lowest loss up: the best runs catch the eye, on a light page and on a dark one."""
_MOST_MARKS = 8


def search_page(name: str, rows: Sequence[Mapping[str, Any]], settings: Sequence[str], lead: str = "") -> str:
    """The text of an HTML file.

    Args:
      name: Name of the search.
      rows: The ranked runs.
      settings: The columns of what was varied.
      lead: By what runs are ranked.

    Raises:
      MissingPackageError: Plotly is not installed.
    """
    key = ranked_by(rows)
    done = [row for row in rows if row[key] is not None]
    facts: dict[str, Cell] = {"runs": len(rows), "without a loss": len(rows) - len(done)}
    if done:
        facts |= {"best run": done[0]["run"], f"lowest {_TITLES[key]}": done[0][key]}
    sections = [Section("Runs", [_table(rows, settings)])]
    if len(done) > 1 and settings:
        figures: list[Block] = [_coordinates(done[:_MOST_LINES], settings)]
        sections = [Section("Settings and loss", figures), *_importance(done, settings), *sections]
    return page(f"Search {name}", sections, lead=lead, facts=facts)


def _coordinates(rows: Sequence[Mapping[str, Any]], settings: Sequence[str]) -> Figure:
    """A line for each run, through its settings to its loss."""
    key = ranked_by(rows)
    losses = [row[key] for row in rows]
    dimensions = [_dimension(name, [row[name] for row in rows]) for name in settings]
    dimensions.append({"label": _TITLES[key], "values": losses})
    # A few runs that went astray would leave all others one colour.
    top = sorted(losses)[math.ceil(0.9 * len(losses)) - 1]
    line = {
        "color": losses,
        "colorscale": _COLOURS,
        "cmin": min(losses),
        "cmax": max(top, min(losses) + 1e-9),
        "showscale": True,
    }
    trace = {"type": "parcoords", "dimensions": dimensions, "line": line}
    layout = {"margin": {"l": 80, "r": 60, "t": 60, "b": 30}}
    caption = "Each line is a run. Drag along an axis to choose some, and an axis by its name to move it."
    return Figure([trace], layout, caption, height=460)


def _dimension(name: str, values: Sequence[Any]) -> dict[str, Any]:
    """An axis: numbers as they are (on a logarithmic scale where they lie so), all else by place."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        numbers, marks = values, _marks(values)
        names = [f"{mark:g}" for mark in marks]
        if _is_logarithmic(values):
            numbers, marks = [math.log10(value) for value in values], [math.log10(mark) for mark in marks]
    else:
        texts = [value if isinstance(value, str) else json.dumps(value) for value in values]
        kinds = sorted(set(texts))
        numbers, marks = [kinds.index(text) for text in texts], range(len(kinds))
        names = [plain(kind if len(kind) <= 24 else f"{kind[:21]}...") for kind in kinds]
    axis = {"label": plain(name), "values": list(numbers)}
    return axis | ({"tickvals": list(marks), "ticktext": names} if names else {})


def _is_logarithmic(values: Sequence[float]) -> bool:
    """True if numbers span much, and half of them lie on either side of the middle of a logarithmic axis."""
    low, high, median = min(values), max(values), statistics.median(values)
    return low > 0 and high / low >= 50 and median < (low + high) / 4


def _marks(values: Sequence[float]) -> list[float]:
    """The numbers to mark on an axis; none leave it to the figure."""
    kinds = sorted(set(values))
    if len(kinds) <= _MOST_MARKS:
        return kinds
    if not _is_logarithmic(values):
        return []
    powers = range(math.floor(math.log10(kinds[0])), math.ceil(math.log10(kinds[-1])))
    marks = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
    return [mark for mark in marks if kinds[0] <= mark <= kinds[-1]]


def _importance(rows: Sequence[Mapping[str, Any]], settings: Sequence[str]) -> list[Section]:
    shares = importance(rows, settings)
    if not shares:
        return []
    names = list(reversed(shares))
    labels, lengths = [plain(name) for name in names], [shares[name] for name in names]
    bar = {"type": "bar", "orientation": "h", "y": labels, "x": lengths}
    layout = {"xaxis": {"range": [0, 1], "title": {"text": "share"}}, "yaxis": {"automargin": True}}
    caption = (
        "The share of the differences between runs (by rank of their loss) that each setting explains by "
        "itself, beyond what chance would."
    )
    return [Section("Importance", [Figure([bar], layout, caption, height=120 + 32 * len(names))])]


def _table(rows: Sequence[Mapping[str, Any]], settings: Sequence[str]) -> Block:
    if not rows:
        return Text("No run was trained.")
    scores = [key for key in (SCORE, LOSS) if key in rows[0]]
    columns = ["rank", "run", "status", *scores, "best_epoch", "last_epoch", "seconds", *settings, "reason"]
    return Table(
        [name.replace("_", " ") for name in columns], [[cell(row[name]) for name in columns] for row in rows]
    )
