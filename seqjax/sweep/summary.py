"""The results of a search: which runs go on, which are best, and which settings matter.

A row of the summary is a mapping of column to value. All rows have the same columns; a failed run has no
loss, and is last. Runs are compared by their loss, or by a score where losses are of different things.

Successive halving goes by rounds. In a round every run that is left is trained until the round's epoch; then
the best of so many are kept, and their training is continued, not repeated.

The importance of a setting is the share of the losses' variance that it explains by itself. Runs are put into
classes by a setting's value (numbers of many values by quarters), and losses are replaced by their ranks, so
that one run that went astray does not decide. The share is that of the variance between classes, less what
chance alone would give (omega squared), and at least 0. Shares of settings that work together do not add up
to 1.
"""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

LOSS = "best_validation_loss"
SCORE = "best_score"
"""Of runs whose losses are of different things; all rows have it then, and are ranked by it."""

_CLASSES = 4
_MANY = 6


def ranked(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows from the best up, those without a loss last, each with its rank from 1 (or None) first."""
    key = ranked_by(rows)
    best_first = sorted(rows, key=lambda row: (row[key] is None, row[key]))
    return [
        {"rank": None if row[key] is None else rank, **row} for rank, row in enumerate(best_first, start=1)
    ]


def ranked_by(rows: Sequence[Mapping[str, Any]]) -> str:
    """The column that says how good runs are: the less the better."""
    return SCORE if rows and SCORE in rows[0] else LOSS


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as csv, with an empty cell for None."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(rows[0] if rows else [])
    writer.writerows(map(cell, row.values()) for row in rows)
    return text.getvalue()


def table_lines(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], limit: int = 20) -> list[str]:
    """The first rows as aligned lines, headed by the columns' names.

    Args:
      rows: Ranked rows.
      columns: Which columns to show.
      limit: How many rows to show; a last line says how many more there are.
    """
    cells = [list(columns), *([_short(row[name]) for name in columns] for row in rows[:limit])]
    widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]
    more = len(rows) - limit
    return [*lines, f"... and {more} more"] if more > 0 else lines


def cell(value: Any) -> str | int | float | None:  # noqa: ANN401 (a setting is anything that YAML can say)
    """A value of a row as a cell of a table: booleans, lists and mappings are JSON."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, bool | list | Mapping) else value


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = "-" if value is None else str(cell(value))
    return text if len(text) <= 40 else f"{text[:37]}..."


def budgets(first: int, factor: int, last: int) -> list[int]:
    """The epoch at which each round ends.

    Args:
      first: That of the first round.
      factor: By which each is longer than the one before.
      last: The largest number of epochs of a run, where the last round ends.
    """
    ends = []
    epoch = first
    while epoch < last:
        ends.append(epoch)
        epoch *= factor
    return [*ends, last]


def kept(losses: Mapping[int, float], factor: int) -> list[int]:
    """The runs that are trained on: one of `factor` runs, and at least one.

    Args:
      losses: The lowest validation loss of each run that is left.
      factor: See above.

    Returns:
      Their numbers, in order.
    """
    best_first = sorted(losses, key=lambda run: (losses[run], run))
    return sorted(best_first[: math.ceil(len(best_first) / factor)])


def importance(rows: Sequence[Mapping[str, Any]], settings: Sequence[str]) -> dict[str, float]:
    """The share that each setting explains, the largest first.

    Args:
      rows: The runs; those without a loss are left out.
      settings: The columns that were varied.

    Returns:
      Shares from 0 to 1; empty if there are too few runs to say anything.
    """
    key = ranked_by(rows)
    finished = [row for row in rows if row[key] is not None]
    if len(finished) < 3:
        return {}
    ranks = _ranks(np.asarray([row[key] for row in finished], np.float64))
    shares = {name: _explained(_classes([row[name] for row in finished]), ranks) for name in settings}
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def _ranks(values: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """Places from 0; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts + 1) / 2)[inverse]


def _classes(values: Sequence[Any]) -> Int[np.ndarray, "n"]:
    """A number for each class of values."""
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    if numbers and len(set(values)) > _MANY:
        array = np.asarray(values, np.float64)
        borders = np.quantile(array, np.arange(1, _CLASSES) / _CLASSES)
        return np.searchsorted(borders, array, side="right")
    texts = [json.dumps(value, sort_keys=True) for value in values]
    return np.unique(texts, return_inverse=True)[1]


def _explained(classes: Int[np.ndarray, "n"], values: Float[np.ndarray, "n"]) -> float:
    count, kinds = len(values), len(np.unique(classes))
    total = float(((values - values.mean()) ** 2).sum())
    if kinds < 2 or kinds >= count or total == 0:
        return 0.0
    within = sum(
        float(((values[classes == kind] - values[classes == kind].mean()) ** 2).sum())
        for kind in np.unique(classes)
    )
    noise = within / (count - kinds)
    return max(0.0, (total - within - (kinds - 1) * noise) / (total + noise))
