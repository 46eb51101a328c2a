"""Raw tables: csv or parquet, one file or a folder of them, checked and sorted.

A table has one row per item: `sequenceId` (integer), `itemPosition` (integer, orders the items of a
sequence) and feature columns. Whatever is wrong is said once, naming file, column, row and value; rows count
from 1, the header not counted. What comes out is sorted by (sequenceId, itemPosition), and every later step
relies on that.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from jaxtyping import Bool, Int64

from seqjax.config.base import suggestion
from seqjax.config.schema import ColumnKind
from seqjax.data.columns import column_kind
from seqjax.errors import DataError

logger = logging.getLogger(__name__)

SEQUENCE_ID, ITEM_POSITION = "sequenceId", "itemPosition"
KEYS = (SEQUENCE_ID, ITEM_POSITION)

TableFormat = Literal["csv", "parquet"]


@dataclass(frozen=True)
class Table:
    """N rows in the order of (sequenceId, itemPosition), which is strict."""

    sequence_id: Int64[np.ndarray, "N"]
    item_position: Int64[np.ndarray, "N"]
    features: pl.DataFrame
    """The feature columns, in the order in which they were selected or else found."""

    @property
    def kinds(self) -> dict[str, ColumnKind]:
        """Whether each feature column is categorical or real."""
        kinds: dict[str, ColumnKind] = {}
        for column in self.features:
            kind = column_kind(column)
            assert kind is not None, "read_table refuses columns without a kind"
            kinds[column.name] = kind
        return kinds


@dataclass(frozen=True)
class _Origin:
    """Where the rows of several files came from, for messages."""

    files: list[Path]
    first_row: Int64[np.ndarray, "bounds"]

    def name(self, row: int) -> str:
        file = int(np.searchsorted(self.first_row, row, side="right")) - 1
        return f"row {row - self.first_row[file] + 1} of {self.files[file]}"


def read_table(
    path: Path,
    read_format: TableFormat,
    *,
    selected_columns: Sequence[str] | None = None,
    max_rows: int | None = None,
) -> Table:
    """Reads, checks and sorts a table.

    Args:
      path: A file, or a folder whose files of that format (nested ones too) are read in the order of their
        paths.
      read_format: Format of the files.
      selected_columns: Feature columns to read; null reads all.
      max_rows: Use only so many rows, the first in file order; null or 0 uses all.

    Raises:
      DataError: The table cannot be used; the message names file, column, row and value, and what to do.
    """
    files = table_files(path, read_format)
    columns = _feature_columns(files, read_format, selected_columns)
    frames: list[pl.DataFrame] = []
    missing = max_rows or None
    for file in files:
        frame = _read(file, read_format, [*KEYS, *columns])
        frames.append(frame if missing is None else frame.head(missing))
        if missing is not None:
            missing -= len(frames[-1])
            if missing <= 0:
                break
    files = files[: len(frames)]
    keys = [_checked_keys(file, frame) for file, frame in zip(files, frames, strict=True)]
    if sum(map(len, frames)) == 0:
        raise DataError(f"{path} holds no rows. A table needs a header and at least one row an item.")
    agree = _agreed_csv if read_format == "csv" else _agreed_parquet
    features = agree(files, [frame.select(columns) for frame in frames])
    for file, frame in zip(files, features, strict=True):
        _check_features(file, frame)
    origin = _Origin(files, np.cumsum([0, *map(len, frames)]))
    return _sorted(origin, np.concatenate(keys, axis=1), pl.concat(features, rechunk=True))


def table_files(path: Path, read_format: TableFormat) -> list[Path]:
    """The files of a table: `path` itself, or the files of that format in the folder `path`, sorted."""
    if not path.exists():
        raise DataError(
            f"{path} does not exist. data_path must be a {read_format} file, or a folder of them."
        )
    if path.is_file():
        return [path]
    files = sorted(file for file in path.rglob(f"*.{read_format}") if file.is_file())
    if not files:
        raise DataError(f"{path} holds no .{read_format} file. Check data_path and read_format.")
    return files


def _feature_columns(
    files: list[Path], read_format: TableFormat, selected: Sequence[str] | None
) -> list[str]:
    """The feature columns to read; every file must have them, and the same others."""
    headers = [_header(file, read_format) for file in files]
    for file, header in zip(files, headers, strict=True):
        _check_names(file, header)
        if set(header) != set(headers[0]):
            raise DataError(
                f"{file} has other columns than {files[0]}: it lacks "
                f"{sorted(set(headers[0]) - set(header))}, and only it has "
                f"{sorted(set(header) - set(headers[0]))}. All files of a folder need the same columns."
            )
    available = [name for name in headers[0] if name not in KEYS]
    columns = available if selected is None else list(selected)
    for name in columns:
        if name in KEYS:
            raise DataError(
                f"selected_columns names {name!r}, which orders the items and is always read; it cannot be a "
                "feature too. Leave it out, or copy it to a column of another name."
            )
        if name not in available:
            raise DataError(
                f"{files[0]} has no column {name!r} (selected_columns). {suggestion(name, available)}"
            )
    if "" in columns:
        raise DataError(
            f"{files[0]} has a column without a name (number {headers[0].index('') + 1}). Give it a name, or "
            "leave it out of selected_columns."
        )
    if not columns or len(set(columns)) < len(columns):
        found = "selected_columns names a column twice" if columns else f"{files[0]} has no feature column"
        raise DataError(
            f"{found} (columns: {columns}). At least one column besides {' and '.join(KEYS)} is needed."
        )
    return columns


def _header(file: Path, read_format: TableFormat) -> list[str]:
    try:
        if read_format == "parquet":
            return list(pl.read_parquet_schema(file))
        first = pl.read_csv(file, has_header=False, n_rows=1, infer_schema=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise _unreadable(file, read_format, error) from error
    return [name or "" for name in first.row(0)]


def _check_names(file: Path, header: list[str]) -> None:
    for name in KEYS:
        if name not in header:
            raise DataError(
                f"{file} has no column {name!r} (columns: {', '.join(header)}). A table needs {SEQUENCE_ID} "
                f"and {ITEM_POSITION}: rename your columns."
            )
    twice = [name for name in header if name and header.count(name) == max(map(header.count, header)) > 1]
    if twice:
        raise DataError(
            f"{file} has {len(twice)} columns named {twice[0]!r}. Give each column a name of its own."
        )


def _read(
    file: Path, read_format: TableFormat, columns: list[str], like: pl.DataFrame | None = None
) -> pl.DataFrame:
    try:
        if read_format == "parquet":
            return pl.read_parquet(file, columns=columns).select(columns)
        frame = pl.read_csv(
            file,
            columns=columns,
            infer_schema_length=None,
            schema_overrides=None if like is None else like.schema,
            try_parse_dates=False,
        )
        return frame.select(columns)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise _unreadable(file, read_format, error) from error


def _unreadable(file: Path, read_format: TableFormat, error: Exception) -> DataError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return DataError(f"{file} cannot be read as {read_format}: {reason}. Check the file, and read_format.")


def _checked_keys(file: Path, frame: pl.DataFrame) -> Int64[np.ndarray, "2 n"]:
    """The sequenceId and itemPosition of each row of a file."""
    return np.stack([_checked_key(file, frame[name]) for name in KEYS])


def _checked_key(file: Path, column: pl.Series) -> Int64[np.ndarray, "n"]:
    if column.is_empty():
        return np.empty(0, np.int64)
    remedy = f"Every {column.name} must be a whole number of at most 64 bits."
    if column.null_count():
        row = _first(column.is_null())
        raise DataError(f"{file}: column {column.name!r}, row {row + 1} is empty. {remedy}")
    if not (column.dtype.is_numeric() or isinstance(column.dtype, pl.String)):
        raise DataError(f"{file}: column {column.name!r} is of type {column.dtype}. {remedy}")
    numbers = column.cast(pl.Int64, strict=False)
    if not column.dtype.is_integer() or numbers.null_count():
        # A float column of whole numbers, or text of digits, is the wrong type from its first row on.
        whole = (numbers.cast(column.dtype) == column).fill_null(value=False)
        row = 0 if whole.all() else _first(~whole)
        raise DataError(
            f"{file}: column {column.name!r} is of type {column.dtype}; row {row + 1} holds {column[row]!r}. "
            f"{remedy}"
        )
    return numbers.to_numpy()


def _agreed_csv(files: list[Path], frames: list[pl.DataFrame]) -> list[pl.DataFrame]:
    """Gives each column one type in all files, as if they were one: types are inferred file by file."""
    common = _common_types(frames)
    agreed = []
    for file, frame in zip(files, frames, strict=True):
        again = frame.schema != common.schema
        agreed.append(_read(file, "csv", frame.columns, common).head(len(frame)) if again else frame)
    return agreed


def _common_types(frames: list[pl.DataFrame]) -> pl.DataFrame:
    """No rows, and for each column the type that holds all values; columns without a value have no say."""
    schema: dict[str, pl.DataType] = {}
    for name in frames[0].columns:
        types = {frame.schema[name] for frame in frames if frame[name].null_count() < len(frame)}
        if len(types) <= 1:
            schema[name] = types.pop() if types else pl.String()
        elif all(dtype.is_integer() for dtype in types):
            schema[name] = pl.Int128()
        else:
            schema[name] = pl.Float64() if all(dtype.is_numeric() for dtype in types) else pl.String()
    return pl.DataFrame(schema=schema)


def _agreed_parquet(files: list[Path], frames: list[pl.DataFrame]) -> list[pl.DataFrame]:
    for file, frame in zip(files, frames, strict=True):
        for name, dtype in frame.schema.items():
            expected = frames[0].schema[name]
            if dtype != expected:
                raise DataError(
                    f"{file}: column {name!r} is of type {dtype}, but {expected} in {files[0]}. "
                    "Write all files of a folder with the same types."
                )
    return frames


def _check_features(file: Path, frame: pl.DataFrame) -> None:
    for column in frame:
        kind = column_kind(column)
        if kind is None:
            raise DataError(
                f"{file}: column {column.name!r} is of type {column.dtype}, which is neither categorical "
                "(text, booleans, integers) nor real (floats). Convert it, or leave it out of "
                "selected_columns."
            )
        if kind == "real" and not column.is_finite().fill_null(value=False).all():
            row = _first(~column.is_finite().fill_null(value=False))
            found = "is empty" if column[row] is None else f"holds {column[row]}"
            raise DataError(
                f"{file}: column {column.name!r}, row {row + 1} {found}; a real column needs a finite number "
                "in every row. Fill or drop these rows, or leave the column out of selected_columns."
            )


def _sorted(origin: _Origin, keys: Int64[np.ndarray, "2 N"], features: pl.DataFrame) -> Table:
    """Sorts rows by (sequenceId, itemPosition) where they are not, and refuses two rows in one place."""
    sequence_id, item_position = keys
    if _ascending(sequence_id, item_position).all():
        return Table(sequence_id, item_position, features)
    order = np.lexsort((item_position, sequence_id))
    sequence_id, item_position = sequence_id[order], item_position[order]
    ascending = _ascending(sequence_id, item_position)
    if not ascending.all():
        place = int(np.argmin(ascending))
        first, second = order[place : place + 2].tolist()
        raise DataError(
            f"{SEQUENCE_ID} {sequence_id[place]} has {ITEM_POSITION} {item_position[place]} twice: in "
            f"{origin.name(first)} and in {origin.name(second)} "
            f"({np.count_nonzero(~ascending)} such repetitions in all). Each item needs a position of its "
            "own."
        )
    logger.info("Rows were not in the order of %s, %s: sorted them.", *KEYS)
    return Table(sequence_id, item_position, features[order])


def _ascending(
    sequence_id: Int64[np.ndarray, "N"], item_position: Int64[np.ndarray, "N"]
) -> Bool[np.ndarray, "N-1"]:
    """Whether each row but the first comes strictly after the one before it."""
    same = sequence_id[1:] == sequence_id[:-1]
    return (sequence_id[1:] > sequence_id[:-1]) | (same & (item_position[1:] > item_position[:-1]))


def _first(condition: pl.Series) -> int:
    """The first row where `condition` is true."""
    return int(np.argmax(condition.to_numpy()))
