"""The type of a csv column: decided once, from its text and the counts of what parses.

`look` counts the cells of some rows by what they can be read as, `settled` decides by the counts of all rows,
and `typed` applies the decision. Until it is made, cells wait in a form that loses nothing: as numbers where
these write the very same text, as text otherwise.
"""

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any, Literal, TypeAlias

import polars as pl

Dtype: TypeAlias = Any
"""A polars type."""
TYPES: dict[str, Dtype] = {
    str(dtype): dtype for dtype in (pl.Int64(), pl.Int128(), pl.Float64(), pl.Boolean(), pl.String())
}
"""The types that a csv column can have, by name."""
FEW = 64
"""Cells that are tried before all are."""
WHOLE = r"^-?[0-9]+$"
DECIMAL = r"^[-+]?([0-9]*\.[0-9]+([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|[0-9]+\.|inf|NaN)$"


@dataclass(frozen=True)
class Counts:
    """Numbers of cells by the narrowest type that reads them; empty cells are in none."""

    boolean: int = 0
    integer: int = 0
    """Whole numbers of at most 64 bits."""
    wide: int = 0
    """Whole numbers of at most 128 bits."""
    decimal: int = 0
    text: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*map(sum, zip(astuple(self), astuple(other), strict=True)))


def look(cells: pl.Series) -> tuple[Counts, pl.Series]:
    """Counts the cells of some rows by type.

    Args:
      cells: (N,) text; empty cells are missing.

    Returns:
      The counts, and the cells as numbers if these write the same texts, else as they are.
    """
    n = len(cells) - cells.null_count()
    integers = _numbers(cells, pl.Int64())
    if integers is not None:
        return Counts(integer=n), integers
    decimals = _numbers(cells, pl.Float64())
    if decimals is not None:
        return Counts(decimal=n), decimals
    return _counts(cells, n), cells


def settled(counts: Counts) -> Dtype:
    """The type of a column with these cells: the narrowest that reads all, text where there are none."""
    numbers = counts.integer + counts.wide + counts.decimal
    if counts.text or (counts.boolean and numbers):
        return TYPES["String"]
    if counts.boolean:
        return TYPES["Boolean"]
    if counts.decimal:
        return TYPES["Float64"]
    return TYPES["Int128" if counts.wide else "Int64" if counts.integer else "String"]


def typed(cells: pl.Series, dtype: Dtype) -> pl.Series:
    """Cells, as `look` returned them, as the type of their column."""
    if isinstance(dtype, pl.Boolean) and isinstance(cells.dtype, pl.String):
        return cells.str.to_lowercase() == "true"
    return cells.cast(dtype)


def numbers_of(id_map: Mapping[str, int]) -> Literal["whole", "decimal"] | None:
    """The way the keys of a map are written: `whole` or `decimal` numbers; None if some are text."""
    try:
        if all(str(int(key)) == key for key in id_map):
            return "whole"
    except ValueError:
        pass
    try:
        return "decimal" if all(str(float(key)) == key for key in id_map) else None
    except ValueError:
        return None


def _numbers(cells: pl.Series, dtype: Dtype) -> pl.Series | None:
    """The cells as numbers of a type, if these write the same texts."""
    if len(cells) > FEW and _numbers(cells.head(FEW), dtype) is None:
        return None
    numbers = cells.cast(dtype, strict=False)
    same = numbers.null_count() == cells.null_count() and (numbers.cast(pl.String) == cells).all()
    return numbers if same else None


def _counts(cells: pl.Series, n: int) -> Counts:
    if cells.cast(pl.Float64, strict=False).count() == 0:
        boolean = int(cells.str.to_lowercase().is_in(["true", "false"]).sum())
        return Counts(boolean=boolean, text=n - boolean)
    decimal = int(cells.str.contains(DECIMAL).sum())
    if decimal == n:
        return Counts(decimal=n)
    whole = cells.filter(cells.str.contains(WHOLE))
    integer, up_to_wide = (whole.cast(dtype, strict=False).count() for dtype in (pl.Int64, pl.Int128))
    # Among numbers a boolean is a text like any other.
    return Counts(integer=integer, wide=up_to_wide - integer, decimal=decimal, text=n - up_to_wide - decimal)
