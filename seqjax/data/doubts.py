"""Categorical columns that look like something else, which the user is told.

Whole numbers and text are categories, a class for each value. That is wrong for quantities, for numbers of
rows and for times, and shows: nearly all values differ, or they go one way within sequences, or change little
from item to item.
"""

import logging
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Int64

logger = logging.getLogger(__name__)

FEW_VALUES = 30
"""Columns of so many values or fewer are no matter of doubt."""
MOSTLY = 0.9
"""The share of rows from which on most have a value, or a direction, of their own."""
SMOOTH = 0.5
"""The mean square of steps over the variance, below which values change little; by chance it is 2."""


class Steps(NamedTuple):
    """The steps between the values of a column that follow each other in a sequence."""

    rows: int = 0
    """Rows that have a value."""
    pairs: int = 0
    up: int = 0
    down: int = 0
    squares: float = 0.0
    """The sum of the squares of steps, of whole numbers."""

    def plus(self, other: "Steps") -> "Steps":
        """The steps of both together."""
        counts = (one + more for one, more in zip(self[:4], other[:4], strict=True))
        return Steps(*counts, squares=self.squares + other.squares)


def steps(column: pl.Series, sequence_id: Int64[np.ndarray, "N"]) -> Steps:
    """The steps of some rows, in order."""
    same = pl.Series(np.append(False, sequence_id[1:] == sequence_id[:-1])[: len(column)], dtype=pl.Boolean)
    before = column.shift()
    pairs = column.is_not_null() & before.is_not_null() & same
    squares = 0.0
    if column.dtype.is_integer():
        squares = float((column.cast(pl.Float64).diff().filter(same) ** 2).sum())
    up, down = ((column > before) & pairs).sum(), ((column < before) & pairs).sum()
    return Steps(column.count(), int(pairs.sum()), int(up), int(down), squares)


def tell(name: str, n_values: int, seen: Steps, std: float | None) -> None:
    """Logs what speaks against categories.

    Args:
      name: The column.
      n_values: Number of its different values.
      seen: Its steps.
      std: The standard deviation of its values; None where they are no whole numbers.
    """
    if n_values <= FEW_VALUES:
        return
    one_way = max(seen.up, seen.down) >= MOSTLY * seen.pairs > 0
    why = None
    if n_values >= MOSTLY * seen.rows:
        why = "nearly all of them in one row only"
    elif one_way:
        why = f"which only go {'up' if seen.up >= seen.down else 'down'} within sequences"
    elif std is not None and 0 < seen.squares < SMOOTH * std**2 * seen.pairs:
        why = "which change little from item to item"
    remedy = f"a time or the number of a row is better left out (selected_columns: all columns but {name})"
    if std is not None:
        remedy = f"if it is a quantity, say column_roles: {{{name}: real}}; {remedy}"
    if why is not None:
        logger.warning("Column %r has %d values, %s, and a class for each: %s.", name, n_values, why, remedy)
    elif std is not None:
        logger.info("Column %r: %d whole numbers are labels, a class each; %s.", name, n_values, remedy)
