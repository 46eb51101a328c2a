"""The reading of csv cells: what a cell is follows from its text, and what is known of its column.

A cell is missing, a boolean, a number, a number in a writing of its own (1,234.5), or text. What is known
of a column rules: with an id map or the role `text`, cells are taken as they are written; with the role
`real` they are numbers. Else the cells of the whole table decide together (`settled`): text if any is text,
numbers with decimals if any has decimals, and so on.
"""

import math
import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any, Literal, NamedTuple, TypeAlias

import polars as pl

MISSING_VALUES = ("", "NaN", "nan", "NA", "N/A", "null", "None", "#N/A")
"""The cells that mean a missing value, unless their column takes them for something else."""
BLANKS = " \t"
"""They are passed over around numbers, booleans and what means a missing value."""
FEW = 64
"""Cells that are tried before all are."""
MANY = 4096
"""Cells whose number of different texts says whether to count these first."""

Dtype: TypeAlias = Any
"""A polars type."""
TYPES: dict[str, Dtype] = {
    str(dtype): dtype for dtype in (pl.Int64(), pl.Int128(), pl.Float64(), pl.Boolean(), pl.String())
}
"""The types that a csv column can have, by name."""
Role: TypeAlias = Literal["guess", "key", "label", "categorical", "real", "text"]
"""The use of a column, where it is known: whole numbers (key), whole numbers or else texts as they are
(label), or a role that the user gives it, of which `text` takes cells as they are; guess knows nothing."""


class Cell(StrEnum):
    """The kinds of cells."""

    MISSING = "missing"
    BOOLEAN = "boolean"
    WHOLE = "whole"
    """A whole number of at most 64 bits."""
    WIDE = "wide"
    """A whole number of at most 128 bits."""
    LONG = "long"
    """A whole number that no type for whole numbers holds."""
    DECIMAL = "decimal"
    """A number with a decimal point or an exponent, or an infinity."""
    CODE = "code"
    """Digits that begin with a zero: 007 is not 7."""
    SIGNED = "signed"
    """A whole number with a plus: +5."""
    SPELLED = "spelled"
    """A number as people write it, such as 1,234.5 or 5 %."""
    TEXT = "text"


NUMBERS = (Cell.WHOLE, Cell.WIDE, Cell.LONG, Cell.DECIMAL)
"""Cells that are numbers beyond doubt."""
READABLE = (*NUMBERS, Cell.SIGNED, Cell.CODE)
"""Cells that have a value as a number, where a column is known to hold numbers."""
Counts: TypeAlias = Counter[Cell]

_WHOLE = r"-?(?:0|[1-9][0-9]*)"
_FRACTION = r"(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
_DECIMAL = rf"[-+]?(?:{_FRACTION}|[0-9]+[eE][-+]?[0-9]+|(?i:inf|infinity|nan))"
_SIGNED = r"\+[0-9]+"
# Numbers as people write them: with marks between thousands, a decimal comma, a unit, or other digits.
_GROUPED = "|".join(
    rf"[0-9]{{1,3}}(?:{mark}[0-9]{{2,3}})*{mark}[0-9]{{3}}(?:[{ends}][0-9]*)?"
    for mark, ends in [(",", "."), *((mark, ".,") for mark in "'’ _\u00a0\u2009\u202f")]
)
_DOTTED = r"[0-9]{1,3}(?:\.[0-9]{3})+,[0-9]*|[0-9]{1,3}(?:\.[0-9]{3}){2,}|[0-9]*,[0-9]+|[0-9]+(?:_[0-9]+)+"
_NUMERAL = rf"(?:{_GROUPED}|{_DOTTED}|[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
_SIGN, _UNIT = "[-+−]", "[%‰$€£¥₹]?"
_SPELLED = (
    rf"(?:{_SIGN}?\s?{_UNIT}|{_UNIT}\s?{_SIGN})\s?{_NUMERAL}\s?{_UNIT}-?|\({_UNIT}{_NUMERAL}\s?{_UNIT}\)"
    rf"|{_SIGN}?\p{{Nd}}+(?:[.,٫]\p{{Nd}}+)?"
)
_DIGITS_AND_MARKS = r"[\p{Nd}eE\s.,'’_٫+−%‰$€£¥₹()-]"
_LIKE_A_NUMBER = rf"{_DIGITS_AND_MARKS}*\p{{Nd}}{_DIGITS_AND_MARKS}*"
"""Numbers of any kind match this, and few texts do."""
_PATTERNS = (
    (_WHOLE, Cell.LONG),
    (_DECIMAL, Cell.DECIMAL),
    (r"-?0[0-9]+", Cell.CODE),
    (_SIGNED, Cell.SIGNED),
    (_SPELLED, Cell.SPELLED),
)
"""Tried in this order."""


@dataclass(frozen=True)
class Reading:
    """The knowledge of a column before its cells are read."""

    role: Role = "guess"
    missing: frozenset[str] = frozenset(MISSING_VALUES)
    """The cells that mean a missing value."""
    decimal: Literal[".", ","] = "."
    """The mark before the decimals of a number."""
    known: frozenset[str] | None = None
    """The values that a map of the column knows."""

    @cached_property
    def missing_numbers(self) -> list[float]:
        """The numbers that mean a missing value, however they are written."""
        return [float(text) for text in self.missing if is_number(text) and math.isfinite(float(text))]


def reading(
    role: Role,
    *,
    further: Collection[str] = (),
    decimal: Literal[".", ","] = ".",
    known: Collection[str] | None = None,
) -> Reading:
    """The reading of a column: its map rules, then what the user says is missing, then the usual list.

    Args:
      role: What is known of the column; where it has a map, whether it is `text`.
      further: Texts that the user says mean a missing value.
      decimal: The mark before the decimals of a number.
      known: The values that a map of the column knows; it is read as text then.
    """
    missing = frozenset(further).union([""] if role in ("text", "label") else MISSING_VALUES)
    if known is None:
        return Reading(role, missing, decimal)
    return Reading("text", missing - frozenset(known), decimal, frozenset(known))


def is_number(text: str) -> bool:
    """Tells if a text is written as a number; digits that begin with a zero are not."""
    return re.fullmatch(f"{_WHOLE}|{_DECIMAL}|{_SIGNED}", text.strip(BLANKS)) is not None


# Cells
# ------------------------------------------------------------------------------------


def look(cells: pl.Series, how: Reading) -> "Looked":
    """Counts the cells of some rows by what they are.

    Args:
      cells: (N,) text; empty cells are null.
      how: What is known of their column.
    """
    texts = _NO_TEXTS
    narrow = _narrow(cells, how)
    if narrow is None and (missing := _means_missing(cells, how)).any():
        texts = _counted(cells.filter(missing)).with_columns(cell=pl.lit(Cell.MISSING))
        cells = _null_where(missing, cells)
        narrow = _narrow(cells, how)
    counts = Counter({Cell.MISSING: int(texts["count"].sum())})
    if narrow is not None:
        cells = without(narrow, how)
        counts[Cell.WHOLE if narrow.dtype.is_integer() else Cell.DECIMAL] = cells.count()
        counts[Cell.MISSING] += narrow.count() - cells.count()
    elif _all_decimal(cells, how):
        counts[Cell.DECIMAL] = cells.count()
    else:
        others = _classified(_counted(cells.drop_nulls()), how)
        for cell, count in others.group_by("cell").agg(pl.col("count").sum()).rows():
            counts[Cell(cell)] += count
        texts = pl.concat([some.select(_NO_TEXTS.columns) for some in (texts, others)])
    return Looked(+counts, cells, texts)


class Looked(NamedTuple):
    """Some cells of a column."""

    counts: Counts
    """Numbers of cells, those aside that are null."""
    cells: pl.Series
    """Null where they mean a missing value; as numbers if these write the same texts."""
    texts: pl.DataFrame
    """Each `text` that was looked at by itself, its `cell`, and a `count`: it may be there several times."""


_NO_TEXTS = pl.DataFrame(schema={"text": pl.String, "cell": pl.String, "count": pl.Int64})


def _counted(texts: pl.Series) -> pl.DataFrame:
    """Texts, each once with its number, or as they are with 1 where most are different."""
    texts = texts.alias("text")
    if texts.head(MANY).n_unique() > MANY // 2:
        return texts.to_frame().with_columns(count=pl.lit(1, pl.Int64))
    return texts.value_counts(name="count").cast({"count": pl.Int64})


def _null_where(condition: pl.Series, cells: pl.Series) -> pl.Series:
    return cells.to_frame().select(pl.when(~condition).then(pl.first())).to_series()


def _all_decimal(cells: pl.Series, how: Reading) -> bool:
    """Tells whether all cells are decimal numbers, if that is seen at once."""
    some = (cells.head(FEW), cells)
    return how.decimal == "." and all(part.str.contains(f"^(?:{_DECIMAL})$").all() for part in some)


def _means_missing(texts: pl.Series, how: Reading) -> pl.Series:
    """Tells of each text if it means a missing value."""
    missing, plain = sorted(how.missing), texts.str.strip_chars(BLANKS)
    listed = texts.is_in(missing) | plain.is_in(missing)
    if how.missing_numbers:
        value = texts.alias("text").to_frame().select(_plain(how).cast(pl.Float64, strict=False))
        listed |= value.to_series().is_in(how.missing_numbers)
    listed = listed.fill_null(value=False)
    return listed & ~texts.is_in(sorted(how.known)) if how.known and listed.any() else listed


def _classified(texts: pl.DataFrame, how: Reading) -> pl.DataFrame:
    """Adds `plain` and the `cell` of each `text`."""
    plain, number = pl.col("plain"), pl.col("number")
    # Most texts are no numbers, and are not compared with what numbers are like.
    like_a_number = plain.cast(pl.Float64, strict=False).is_not_null() | _is(plain, _LIKE_A_NUMBER)
    cell = pl.when(_means_missing(texts["text"], how)).then(pl.lit(Cell.MISSING))
    cell = cell.when(number.is_null() & _is(plain, "(?i)true|false")).then(pl.lit(Cell.BOOLEAN))
    cell = cell.when(number.is_null()).then(pl.lit(Cell.TEXT))
    whole = _is(number, _WHOLE)
    for dtype, kind in ((pl.Int64, Cell.WHOLE), (pl.Int128, Cell.WIDE)):
        cell = cell.when(whole & number.cast(dtype, strict=False).is_not_null()).then(pl.lit(kind))
    for pattern, kind in _PATTERNS:
        cell = cell.when(_is(number, pattern)).then(pl.lit(kind))
    texts = texts.with_columns(plain=_plain(how))
    texts = texts.with_columns(number=pl.when(like_a_number).then(plain))
    return texts.with_columns(cell=cell.otherwise(pl.lit(Cell.TEXT)))


def _is(texts: pl.Expr, pattern: str) -> pl.Expr:
    return texts.str.contains(f"^(?:{pattern})$")


def _plain(how: Reading) -> pl.Expr:
    """The `text` of numbers as programs write them: without blanks around, and with a decimal point."""
    text = pl.col("text").str.strip_chars(BLANKS)
    return text if how.decimal == "." else text.str.replace_many([".", ","], [",", "."])


def _narrow(cells: pl.Series, how: Reading) -> pl.Series | None:
    """The cells as numbers of 64 bits, if these write the same texts."""
    for dtype in (pl.Int64(), pl.Float64()) if how.decimal == "." else (pl.Int64(),):
        if (numbers := _numbers(cells, dtype)) is not None:
            return numbers
    return None


def _numbers(cells: pl.Series, dtype: Dtype) -> pl.Series | None:
    """The cells as numbers of a type, if these write the same texts."""
    if len(cells) > FEW and _numbers(cells.head(FEW), dtype) is None:
        return None
    numbers = cells.cast(dtype, strict=False)
    same = numbers.null_count() == cells.null_count() and (numbers.cast(pl.String) == cells).all()
    return numbers if same else None


def without(column: pl.Series, how: Reading) -> pl.Series:
    """A column, null where it holds what means a missing value."""
    if isinstance(column.dtype, pl.String):
        return column.set(_classified(column.alias("text").to_frame(), how)["cell"] == Cell.MISSING, None)
    if column.dtype.is_float() and "NaN" in how.missing:
        column = column.fill_nan(None)
    if how.missing_numbers and column.dtype.is_numeric():
        column = column.set(column.cast(pl.Float64).is_in(how.missing_numbers).fill_null(value=False), None)
    return column


# Columns
# ------------------------------------------------------------------------------------


def settled(counts: Counts, role: Role = "guess") -> Dtype:
    """The type of a column with these cells: the narrowest that reads all, text where there are none."""
    if role == "key":
        counts = counts + Counter({Cell.WHOLE: counts[Cell.CODE] + counts[Cell.SIGNED]})
        counts[Cell.CODE] = counts[Cell.SIGNED] = 0
    n = counts.total() - counts[Cell.MISSING]
    readable = sum(counts[cell] for cell in READABLE)
    if role == "label":
        return TYPES["Int64" if n and counts[Cell.WHOLE] == n else "String"]
    if role == "text" or (n == 0 and role != "real"):
        return TYPES["String"]
    if counts[Cell.BOOLEAN] == n and n:
        return TYPES["Boolean"]
    if role == "real":
        return TYPES["Float64" if readable == n else "String"]
    if counts[Cell.DECIMAL] and readable - counts[Cell.CODE] == n:
        return TYPES["Float64"]
    if counts[Cell.WHOLE] + counts[Cell.WIDE] == n:
        return TYPES["Int128" if counts[Cell.WIDE] else "Int64"]
    return TYPES["String"]


def typed(cells: pl.Series, dtype: Dtype, how: Reading) -> pl.Series:
    """Cells, as `look` returned them, as the type of their column."""
    if not isinstance(cells.dtype, pl.String):
        return cells.cast(dtype)
    if isinstance(dtype, pl.String):
        # The keys of maps have points.
        return cells if how.known is None or how.decimal == "." else _with_points(cells, how)
    plain = cells.alias("text").to_frame().select(_plain(how)).to_series().alias(cells.name)
    if isinstance(dtype, pl.Boolean):
        return plain.str.to_lowercase() == "true"
    return plain.cast(dtype, strict=False)


def numbers_in(cells: pl.Series, how: Reading) -> tuple[pl.Series, pl.Series]:
    """The numbers (Float64) that cells of text write, and where there is a cell that writes none."""
    texts = _classified(cells.alias("text").to_frame(), how)
    value = pl.when(pl.col("cell").is_in(READABLE)).then(pl.col("plain").cast(pl.Float64, strict=False))
    other = ~pl.col("cell").is_in([*READABLE, Cell.MISSING]) & pl.col("text").is_not_null()
    numbers = texts.select(value.alias("value"), other.alias("other"))
    return numbers["value"].alias(cells.name), numbers["other"]


def _with_points(cells: pl.Series, how: Reading) -> pl.Series:
    """Cells in which decimal numbers have a point, except those that the map knows as they are."""
    texts = _classified(cells.alias("text").to_frame(), how)
    is_number = (pl.col("cell") == Cell.DECIMAL) & ~pl.col("text").is_in(sorted(how.known or ()))
    value = pl.when(is_number).then(pl.col("plain")).otherwise(pl.col("text"))
    return texts.select(value.alias(cells.name)).to_series()
