"""The summary of a search: its runs in order of their validation loss, as text for the log and as csv.

A row is a mapping of column to value. All rows have the same columns; a failed run has no loss, and is last.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

LOSS = "best_validation_loss"


def ranked(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows from the lowest loss up, those without one last, each with its rank from 1 (or null) first."""
    finished = sorted((row for row in rows if row[LOSS] is not None), key=lambda row: row[LOSS])
    failed = [row for row in rows if row[LOSS] is None]
    return [
        *({"rank": rank, **row} for rank, row in enumerate(finished, start=1)),
        *({"rank": None, **row} for row in failed),
    ]


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as csv; lists and mappings are cells of JSON, null is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(rows[0] if rows else [])
    writer.writerows([_cell(value) for value in row.values()] for row in rows)
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


def _cell(value: object) -> object:
    if value is None:
        return ""
    if isinstance(value, bool | list | Mapping):
        return json.dumps(value, ensure_ascii=False)
    return value


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = "-" if value is None else str(_cell(value))
    return text if len(text) <= 40 else f"{text[:37]}..."
