"""Raw tables: csv or parquet, one file or a folder of them, checked row by row.

A table has one row per item: `sequenceId` (integer), `itemPosition` (integer, orders the items of a
sequence) and feature columns; or ids and times of any kind in columns that are named. Every mistake is
reported once, naming file, column, row and value; rows count from 1, the header not counted. `TableReader`
streams a table in file order; `sorting.py` puts the rows in the order of sequences and their items, on which
every later step relies.
"""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Int16, Int64

from seqjax.config.base import suggestion
from seqjax.config.keys import KeyColumns
from seqjax.config.schema import ColumnKind, ColumnRole, DecimalMark, MissingReal, TableFormat, kind_of_role
from seqjax.data.cells import Reading, Role, numbers_in, reading, without
from seqjax.data.columns import column_kind
from seqjax.data.keys import checked_id
from seqjax.data.staging import staged
from seqjax.data.table_files import CsvFiles, ParquetFiles, Piece, TableFiles, first_rows
from seqjax.data.times import checked_time, kept
from seqjax.errors import DataError

logger = logging.getLogger(__name__)

MOST_NAMED = 8
"""Files that a message names."""
SEQUENCE, ITEM, TIME, SPLIT = (f"{what} of the item" for what in ("sequence", "number", "time", "split"))
"""Names of columns that are no features: no feature is called so."""


@dataclass(frozen=True)
class Table:
    """N rows, in the order of sequences and their items unless said otherwise."""

    frame: pl.DataFrame
    """Numbers of the sequence and the item (int64), the split of a row where a column decides it, and the
    features."""
    roles: Mapping[str, ColumnKind] = field(default_factory=dict)
    """Columns that have another kind than their type gives."""

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def sequence_id(self) -> Int64[np.ndarray, "N"]:
        """The sequence of each row."""
        return self.frame[SEQUENCE].to_numpy()

    @property
    def item_position(self) -> Int64[np.ndarray, "N"]:
        """The position of each row in its sequence."""
        return self.frame[ITEM].to_numpy()

    @property
    def split(self) -> Int16[np.ndarray, "N"] | None:
        """The split of each row, where a column decides it."""
        return self.frame[SPLIT].to_numpy() if SPLIT in self.frame.columns else None

    @property
    def features(self) -> pl.DataFrame:
        """The feature columns, in the order in which they were selected, or else of the file."""
        return self.frame.drop(SEQUENCE, ITEM, TIME, SPLIT, strict=False)

    @property
    def kinds(self) -> dict[str, ColumnKind]:
        """The kind of each feature column."""
        kinds: dict[str, ColumnKind] = {}
        for column in self.features:
            kind = self.roles.get(column.name) or column_kind(column)
            assert kind is not None, "columns without a kind are refused"
            kinds[column.name] = kind
        return kinds


@dataclass(frozen=True)
class CutOffs:
    """A column that decides in which split a row is."""

    column: str
    values: Sequence[int | float | str]
    """Ascending; rows below the first are in split 0, and so on."""


@dataclass(frozen=True)
class Selection:
    """The columns to read of a table, and their kinds."""

    selected_columns: Sequence[str] | None = None
    """Feature columns to read; None reads all."""
    columns_from: str = "selected_columns"
    """The key that chooses them, for messages."""
    max_rows: int | None = None
    """Use only so many rows, the first in file order; None or 0 uses all."""
    roles: Mapping[str, ColumnRole] = field(default_factory=dict)
    """Columns to take as another kind than their type gives, or as text."""
    roles_from: str = "column_roles"
    """The key that says `roles`, for messages."""
    id_maps: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Maps that are known beforehand: their columns are categorical, whatever the cells are like."""
    missing_values: Sequence[str] = ()
    """Values that mean a missing one, besides the usual ones."""
    decimal: DecimalMark = "."
    """Of csv: what stands before the decimals of a number."""
    missing_real: MissingReal = "error"
    """The treatment of empty cells and NaN in real columns: refused, or missing in the result."""
    cut_offs: CutOffs | None = None
    """The column that decides the split of a row, if one does."""
    keys: KeyColumns = field(default_factory=KeyColumns)
    """The columns of ids and times."""


class _WrongType(DataError):
    """A key column of numbers that are whole, but not of a type for whole numbers."""


class TableReader:
    """A table as a stream of checked pieces."""

    def __init__(self, files: TableFiles, chosen: Selection | None = None) -> None:
        self.chosen = chosen or Selection()
        self.keys = self.chosen.keys
        self.roles: dict[str, ColumnKind] = dict.fromkeys(self.chosen.id_maps, "categorical")
        self.roles |= {name: kind_of_role(role) for name, role in self.chosen.roles.items()}
        self.files = files
        self._features = _feature_columns(self.files, self.chosen)
        cut_offs = [] if self.chosen.cut_offs is None else [self.chosen.cut_offs.column]
        self._columns = list(dict.fromkeys([*self.keys.names, *self._features, *cut_offs]))
        self._readings = {name: self._reading(name) for name in self._columns}

    @property
    def features(self) -> list[str]:
        """The names of the feature columns."""
        return list(self._features)

    def typed(self, folder: Path) -> "TableReader":
        """The same table with types; csv gets them in a folder (see `staged`)."""
        if not isinstance(self.files, CsvFiles):
            return self
        files = staged(self.files, self._readings, folder, max_rows=self.chosen.max_rows or None)
        return TableReader(files, self.chosen)

    def _reading(self, name: str) -> Reading:
        """The knowledge of a column before its cells are read."""
        chosen = self.chosen
        if name not in self._features:
            return reading(self._role_of_other(name), decimal=chosen.decimal)
        return reading(
            chosen.roles.get(name, "guess"),
            further=chosen.missing_values,
            decimal=chosen.decimal,
            known=chosen.id_maps.get(name),
        )

    def _role_of_other(self, name: str) -> Role:
        """The use of a column that is no feature: of ids, times, or cut-offs."""
        if name not in self.keys.names:
            return "categorical"
        if not self.keys.are_own:
            return "key"
        if name == self.keys.names[0]:
            return "label"
        return "text" if self.keys.time_format is not None else "categorical"

    def pieces(self, *, keys_only: bool = False) -> Iterator[Piece]:
        """Reads the rows in the order of the files, checked, as `Table.frame` has them; csv must be `typed`.

        Of own columns, the numbers of sequences and items are ids (of their type) and times (as numbers, in
        whose order they are); behind these, `TIME` holds the times as they are.

        Args:
          keys_only: Leave out the features.

        Raises:
          DataError: The table cannot be used; the message names file, column, row and value, and what to do.
        """
        pieces = self.files.pieces(self.keys.names if keys_only else self._columns)
        n_rows = 0
        wrong_type: _WrongType | None = None
        for piece in first_rows(pieces, self.chosen.max_rows or None):
            n_rows += len(piece.frame)
            try:
                checked = self._checked(piece, keys_only=keys_only)
            except _WrongType as error:
                # A later row may hold the value that gave the column its type.
                wrong_type = wrong_type or error
                continue
            if len(checked.frame):
                yield checked
        if wrong_type is not None:
            raise wrong_type
        if n_rows == 0:
            path = self.files.files[0] if len(self.files.files) == 1 else self.files.files[0].parent
            raise DataError(f"{path} holds no rows. A table needs a header and at least one row per item.")

    def _checked(self, piece: Piece, *, keys_only: bool) -> Piece:
        ids, times = (piece.frame[name] for name in self.keys.names)
        if self.keys.are_own:
            numbers = checked_time(piece, times, self.keys.time_format)
            columns = [checked_id(piece, ids).alias(SEQUENCE), numbers.alias(ITEM), kept(times).alias(TIME)]
        else:
            columns = [_checked_key(piece, ids).alias(SEQUENCE), _checked_key(piece, times).alias(ITEM)]
        if not keys_only:
            if self.chosen.cut_offs is not None:
                columns.append(_splits(piece, self.chosen.cut_offs))
            columns += [
                _checked_feature(piece, piece.frame[name], self.chosen, self._readings[name])
                for name in self._features
            ]
        return Piece(piece.file, piece.first_row, pl.DataFrame(columns))


def open_files(path: Path, read_format: TableFormat) -> TableFiles:
    """The files of a table: `path` itself, or those of that format in the folder `path`, nested ones too."""
    if not path.exists():
        raise DataError(
            f"{path} does not exist. data_path must be a {read_format} file, or a folder of them."
        )
    files = [path] if path.is_file() else _members(path, read_format)
    return CsvFiles(files) if read_format == "csv" else ParquetFiles(files)


def _members(folder: Path, read_format: TableFormat) -> list[Path]:
    """The files of a format in a folder, those in linked folders too, in the order of their paths.

    Each is taken once, however many links lead to it. Hidden files and folders, such as those that editors
    leave, are passed over; what else is left out is logged.
    """
    endings = (".csv", ".csv.gz") if read_format == "csv" else (".parquet",)
    files, others, known = [], [], set()
    for file in sorted(_walk(folder)):
        if file.name.lower().endswith(endings) and file.is_file() and file.resolve() not in known:
            known.add(file.resolve())
            files.append(file)
        else:
            others.append(str(file.relative_to(folder)))
    if not files:
        found = f" (found: {', '.join(others[:MOST_NAMED])})" if others else ""
        raise DataError(f"{folder} holds no {endings[0]} file{found}. Check data_path and read_format.")
    if others:
        more = "" if len(others) <= MOST_NAMED else f" and {len(others) - MOST_NAMED} more"
        logger.warning(
            "%s: left out, since they are no %s files or were read before: %s%s.",
            folder,
            " or ".join(endings),
            ", ".join(others[:MOST_NAMED]),
            more,
        )
    return files


def _walk(folder: Path) -> Iterator[Path]:
    """The files in a folder and the folders in it, each folder once."""
    known: set[Path] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        if Path(place).resolve() in known:
            folders.clear()
            continue
        known.add(Path(place).resolve())
        folders[:] = sorted(name for name in folders if name[0] != ".")
        yield from (Path(place, name) for name in names if name[0] != ".")


def _feature_columns(table: TableFiles, chosen: Selection) -> list[str]:
    """The feature columns to read; every file must have them, and the same others."""
    files, headers = table.files, table.headers
    for file, header in zip(files, headers, strict=True):
        _check_names(file, header, chosen.keys.names)
        if set(header) != set(headers[0]):
            raise DataError(
                f"{file} has other columns than {files[0]}: it lacks "
                f"{sorted(set(headers[0]) - set(header))}, and only it has "
                f"{sorted(set(header) - set(headers[0]))}. All files of a folder need the same columns."
            )
    keys = chosen.keys.names
    available = [name for name in headers[0] if name not in keys]
    columns = available if chosen.selected_columns is None else list(chosen.selected_columns)
    for name in columns:
        if name in keys:
            raise DataError(
                f"{chosen.columns_from} names {name!r}, which orders the items and is always read; it "
                "cannot be a feature too. Leave it out, or copy it to a column of another name."
            )
        if name not in available:
            raise DataError(
                f"{files[0]} has no column {name!r} ({chosen.columns_from}). {suggestion(name, available)}"
            )
    if "" in columns:
        raise DataError(
            f"{files[0]} has a column without a name (number {headers[0].index('') + 1}). Give it a name, or "
            f"leave it out of {chosen.columns_from}."
        )
    if not columns or len(set(columns)) < len(columns):
        problem = "selected_columns names a column twice" if columns else f"{files[0]} has no feature column"
        raise DataError(
            f"{problem} (columns: {columns}). At least one column besides {' and '.join(keys)} is needed."
        )
    for name in chosen.roles:
        if name not in columns:
            raise DataError(f"{chosen.roles_from}: no column {name!r} is read. {suggestion(name, columns)}")
    if chosen.cut_offs is not None and chosen.cut_offs.column not in headers[0]:
        name = chosen.cut_offs.column
        raise DataError(f"{files[0]} has no column {name!r} (split_column). {suggestion(name, headers[0])}")
    return columns


def _check_names(file: Path, header: list[str], keys: tuple[str, str]) -> None:
    for name, key in zip(keys, ("id_column", "time_column"), strict=True):
        if name not in header:
            blanks = name in map(str.strip, header)
            remedy = f"{suggestion(name, header)} Name the column that says this by {key}."
            if blanks:
                remedy = "Remove the blanks around names."
            raise DataError(
                f"{file} has no column {name!r} (columns: {', '.join(header)}). A table needs {keys[0]}, "
                f"which says the sequence of a row, and {keys[1]}, which orders its items. {remedy}"
            )
    twice = [name for name in header if name and header.count(name) == max(map(header.count, header)) > 1]
    if twice:
        raise DataError(
            f"{file} has {header.count(twice[0])} columns named {twice[0]!r}. Give each a name of its own."
        )


# One column of some rows
# ------------------------------------------------------------------------------------


def _checked_key(piece: Piece, column: pl.Series) -> pl.Series:
    remedy = (
        f"Every {column.name} must be a whole number of at most 64 bits, unless id_column or time_column "
        "names the column."
    )
    if column.null_count():
        raise DataError(f"{piece.place(column.name, column.is_null())} is empty. {remedy}")
    if not (column.dtype.is_numeric() or isinstance(column.dtype, pl.String)):
        raise DataError(f"{piece.file}: column {column.name!r} is of type {column.dtype}. {remedy}")
    numbers = column.cast(pl.Int64, strict=False)
    if not column.dtype.is_integer() or numbers.null_count():
        text = isinstance(column.dtype, pl.String)
        whole = ~numbers.is_null() if text else (numbers.cast(column.dtype) == column).fill_null(value=False)
        row = 0 if whole.all() else _first(~whole)
        raise (_WrongType if whole.all() else DataError)(
            f"{piece.file}: column {column.name!r} is of type {column.dtype}; "
            f"row {piece.first_row + row + 1} holds {column[row]!r}. {remedy}"
        )
    return numbers


def _checked_feature(piece: Piece, column: pl.Series, chosen: Selection, how: Reading) -> pl.Series:
    """A feature column as its kind needs it: real columns are floats, missing only where they may be."""
    role = chosen.roles.get(column.name) or ("categorical" if column.name in chosen.id_maps else None)
    if role is not None and isinstance(column.dtype, pl.Null):
        column = column.cast(pl.Float64 if role == "real" else pl.String)
    if role == "categorical" and column.dtype == pl.Date:
        return column
    by_type = column_kind(column)
    if by_type is None:
        as_dates = f"make it a category ({chosen.roles_from}), " if column.dtype == pl.Date else ""
        raise DataError(
            f"{piece.file}: column {column.name!r} is of type {column.dtype}, which is neither categorical "
            f"(text, booleans, integers) nor real (floats). Convert it, {as_dates}or leave it out of "
            f"{chosen.columns_from}."
        )
    if isinstance(column.dtype, (pl.Categorical, pl.Enum)):
        column = column.cast(pl.String)
    if chosen.missing_values:
        column = without(
            column, replace(how, missing=frozenset(chosen.missing_values).difference(how.known or ()))
        )
    if (role or by_type) == "real":
        return _checked_real(piece, column, chosen, how)
    if by_type == "real":
        # Zero has one sign as a category, and NaN is no value.
        column = column.set(column == 0, 0.0).fill_nan(None)
    return column.cast(pl.String) if role == "text" else column


def _checked_real(piece: Piece, column: pl.Series, chosen: Selection, how: Reading) -> pl.Series:
    """A real column, in the float type that it has if it has one."""
    if isinstance(column.dtype, pl.String):
        numbers, others = numbers_in(column, how)
        if others.any():
            row = _first(others)
            raise DataError(
                f"{piece.file}: column {column.name!r} is of type String (row {piece.first_row + row + 1} "
                f"holds {column[row]!r}), but {chosen.roles_from} says real. Only numbers can be real, "
                f"written like {'-1234.5' if how.decimal == '.' else '-1234,5'}. If such a cell means a "
                f"missing value, say missing_values: [{column[row]!r}]."
            )
        column = numbers
    column = column if column.dtype.is_float() else column.cast(pl.Float64)
    fine = column.is_finite().fill_null(value=False)
    if chosen.missing_real != "error":
        column = column.fill_nan(None)
        fine = fine | column.is_null()
    if not fine.all():
        row = _first(~fine)
        content = "is empty" if column[row] is None else f"holds {column[row]}"
        raise DataError(
            f"{piece.place(column.name, ~fine)} {content}; a real column needs a finite number in every row. "
            f"Fill or drop these rows, leave the column out of {chosen.columns_from}, or (for empty cells, "
            "NaN and whatever else means a missing value) set missing_real: mean (or mask)."
        )
    return column


def _splits(piece: Piece, cut_offs: CutOffs) -> pl.Series:
    """The split of each row."""
    column = piece.frame[cut_offs.column]
    if column.null_count():
        place = piece.place(column.name, column.is_null())
        raise DataError(f"{place} is empty, but split_column needs a value in every row.")
    if isinstance(column.dtype, (pl.Categorical, pl.Enum)):
        column = column.cast(pl.String)
    try:
        reached = [column >= _comparable(value, column) for value in cut_offs.values]
        return sum(reached[1:], reached[0].cast(pl.Int16)).cast(pl.Int16).alias(SPLIT)
    except (TypeError, pl.exceptions.PolarsError) as error:
        raise DataError(
            f"{piece.file}: column {column.name!r} (split_column) is of type {column.dtype}, which "
            f"split_values {list(cut_offs.values)} cannot be compared with: {str(error).splitlines()[0]}. "
            "Write the cut-offs as values of that type."
        ) from error


def _comparable(value: int | float | str, column: pl.Series) -> object:
    """A cut-off as a value that those of the column can be compared with."""
    dtype = column.dtype
    if isinstance(dtype, pl.String) != isinstance(value, str) and not dtype.is_temporal():
        raise TypeError(f"{value!r} is {'text' if isinstance(value, str) else 'a number'}")
    if isinstance(dtype, pl.Date):
        return pl.Series([value], dtype=pl.String).str.to_date()[0]
    if isinstance(dtype, pl.Datetime):
        text = pl.Series([value], dtype=pl.String)
        return text.str.to_datetime(time_unit=dtype.time_unit, time_zone=dtype.time_zone)[0]
    return value


def _first(condition: pl.Series) -> int:
    """The first row where `condition` is true."""
    return int(np.argmax(condition.to_numpy()))
