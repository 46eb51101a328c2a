"""From values to what a model sees, and back.

A categorical value becomes an id: 0 for a missing value (and for padding), 1 for a value that was not there
when the map was made, and 2, 3, ... for the known values in ascending order. A real value is standardised.
Maps are keyed by text, as the metadata JSON is, so that a map applies to a column whatever type a file gives
it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Float, Float32, Float64, Integer, Real

from seqjax.config.metadata import Statistics
from seqjax.config.schema import ColumnKind
from seqjax.data.lookup import OTHER, Lookup
from seqjax.errors import DataError

UNKNOWN, FIRST_ID = 0, 2
"""The id of a missing value, and the first one of a known value; that of an unseen one is `OTHER`."""

INFINITE = (
    "An infinity cannot be learnt from; sequifier lets those of a table through. Correct the table, or empty "
    "the cell and set missing_real, and preprocess again."
)
"""The remedy for preprocessed data with infinities."""

NAMES_OF_RESERVED_IDS = ("unknown", "other")
TEXT = "String"
_INTEGERS = (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64)
VALUE_TYPES = {str(dtype): dtype for dtype in (pl.Boolean, pl.Date, pl.Float32, pl.Float64, *_INTEGERS)}
"""The types besides text that categories have in results as in the table, by polars' names."""
_BOOLEANS = {"0": False, "1": True}


@dataclass(frozen=True)
class Encoding:
    """The encoding of each column: an id map if it is categorical, statistics if it is real."""

    id_maps: dict[str, dict[str, int]]
    statistics: dict[str, Statistics]

    @property
    def n_classes(self) -> dict[str, int]:
        """Number of classes of each categorical column, ids 0 and 1 included."""
        return {name: max(id_map.values(), default=OTHER) + 1 for name, id_map in self.id_maps.items()}

    @cached_property
    def lookups(self) -> dict[str, Lookup]:
        """The id map of each categorical column, as values are looked up in it."""
        return {name: Lookup(id_map) for name, id_map in self.id_maps.items()}


def column_kind(column: pl.Series) -> ColumnKind | None:
    """The kind that a column's type gives it; None where it has none."""
    dtype = column.dtype
    if dtype.is_integer() or isinstance(dtype, (pl.String, pl.Boolean, pl.Categorical, pl.Enum)):
        return "categorical"
    return "real" if isinstance(dtype, (pl.Float32, pl.Float64)) else None


def check_columns(path: Path, types: Mapping[str, str | None], kinds: Mapping[str, ColumnKind]) -> None:
    """Raises a `DataError` for a column that preprocessed data lacks, or has as another kind.

    Args:
      path: The data.
      types: The NumPy type of each column; None where its format does not say.
      kinds: The columns to read.
    """
    for name, kind in kinds.items():
        if name not in types:
            raise DataError(
                f"{path} has no column {name!r} (columns: {', '.join(types)}). Check the columns, or "
                "preprocess again."
            )
        dtype = types[name]
        if dtype is not None and dtype.startswith("float") != (kind == "real"):
            raise DataError(
                f"{path}: column {name!r} is of type {dtype}, but expected to be {kind}. Check column_types."
            )


def encode(features: pl.DataFrame, encoding: Encoding) -> dict[str, np.ndarray]:
    """Encodes every column of `features` that `encoding` knows, in the order of `features`.

    Returns:
      (N,) ids in the smallest signed integer type that holds all classes, or float32, by column.
    """
    columns = {}
    for column in features:
        if column.name in encoding.id_maps:
            columns[column.name] = encode_ids(column, encoding.lookups[column.name])
        elif column.name in encoding.statistics:
            columns[column.name] = _encode_real(column, encoding.statistics[column.name])
    return columns


def encode_ids(column: pl.Series, lookup: Lookup) -> Integer[np.ndarray, "N"]:
    """The id of each value: 0 for a missing one, 1 for one that the map lacks."""
    if not isinstance(column.dtype, pl.Boolean):
        column = plain(column)
    dtype = id_dtype(max(lookup.id_map.values(), default=OTHER))
    known = column.unique().drop_nulls()
    ids = pl.Series(np.array(lookup.ids(known.cast(pl.String).to_list()), dtype))
    encoded = column.replace_strict(known, ids, default=UNKNOWN, return_dtype=ids.dtype)
    return encoded.to_numpy().astype(dtype, copy=False)


def class_labels(id_map: Mapping[str, int], n_classes: int, value_type: str = TEXT) -> list[str]:
    """The label of each class, all different: its value, `unknown` for 0, `other` for 1.

    Where a category of the data is itself called `unknown` or `other`, it keeps its name and ours gets
    underscores.

    Args:
      id_map: Value to id, from 2 up.
      n_classes: Number of classes; an id without a value is labelled by its number.
      value_type: The type of the values in the table; booleans are `false` and `true`.
    """
    names = {text: str(value).lower() for text, value in _BOOLEANS.items()} if value_type == "Boolean" else {}
    by_id = {id_: names.get(value, value) for value, id_ in id_map.items()}
    labels: list[str] = []
    taken = set(by_id.values())
    for id_ in range(n_classes):
        label = by_id.get(id_)
        if label is None:
            label = NAMES_OF_RESERVED_IDS[id_] if id_ < FIRST_ID else str(id_)
            while label in taken:
                label += "_"
            taken.add(label)
        labels.append(label)
    return labels


def class_values(id_map: Mapping[str, int], n_classes: int, value_type: str = TEXT) -> pl.Series:
    """The value of each class in the type that it has in the table.

    Text stands as `class_labels` has it. In any other type, a class without a value is null.

    Args:
      id_map: Value to id, from 2 up.
      n_classes: Number of classes.
      value_type: The type, by polars' name. Where a value of the map is not of that type, all are text.
    """
    labels = pl.Series(class_labels(id_map, n_classes), dtype=pl.String)
    dtype = VALUE_TYPES.get(value_type)
    if dtype is None:
        return labels
    by_id = {id_: value for value, id_ in id_map.items()}
    texts = pl.Series([by_id.get(id_) for id_ in range(n_classes)], dtype=pl.String)
    if dtype == pl.Boolean:
        values = texts.replace_strict(_BOOLEANS, default=None, return_dtype=pl.Boolean)
    else:
        is_date = dtype == pl.Date
        values = texts.str.to_date("%F", strict=False) if is_date else texts.cast(dtype, strict=False)
    return labels if values.null_count() > texts.null_count() else values


def decode_ids(ids: Integer[np.ndarray, "N"], values: pl.Series) -> pl.Series:
    """The value of each id.

    Args:
      ids: Ids below the number of classes.
      values: From `class_values`.
    """
    return values.gather(ids.astype(np.int64))


def normalise(values: Real[np.ndarray, "..."], statistics: Statistics) -> Float64[np.ndarray, "..."]:
    """Standardised values of a table's; infinite where float64 holds no number as large."""
    with np.errstate(over="ignore"):
        return (values.astype(np.float64) - statistics.mean) / statistics.divisor


def denormalise(values: Float[np.ndarray, "..."], statistics: Statistics) -> Float64[np.ndarray, "..."]:
    """The table's values of standardised ones: the inverse of `normalise`, but for rounding."""
    return values.astype(np.float64) * statistics.factor + statistics.mean


def _encode_real(column: pl.Series, statistics: Statistics) -> Float32[np.ndarray, "N"]:
    """Standardised values; NaN where there is none."""
    exact = normalise(column.to_numpy(), statistics)
    too_far = np.abs(exact) > np.finfo(np.float32).max
    if too_far.any():
        raise DataError(
            f"Column {column.name!r} holds {column[int(np.argmax(too_far))]}, too far from the mean "
            f"{statistics.mean:g} to be stored in standard deviations of {statistics.divisor:g}, as its rows "
            "of the training split have them. Fit on all rows (fit_on: all), or leave the column out."
        )
    return exact.astype(np.float32)


def id_dtype(largest: int) -> np.dtype:
    """The smallest signed integer type that holds ids up to `largest`."""
    return np.min_scalar_type(-1 - max(largest, 0))  # Of a negative number, it is a signed type.


def plain(column: pl.Series) -> pl.Series:
    """Text for dictionary-encoded types and 0 or 1 for booleans, which then sort as documented."""
    if isinstance(column.dtype, (pl.Categorical, pl.Enum)):
        return column.cast(pl.String)
    return column.cast(pl.Int8) if isinstance(column.dtype, pl.Boolean) else column
