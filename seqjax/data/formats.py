"""The formats of preprocessed data: one row of `FORMATS` each.

The long format (csv, parquet) has one row per window and column: sequenceId, subsequenceId,
startItemPosition, inputCol, then the slots, named from L (oldest) down to 0 (newest). Rows are in the order
of sequenceId, subsequenceId and the columns of the data. Padded slots are null; files of sequifier hold
zeros there. The slots are Int64 if every column is categorical, else Float64. The native format, `arrow`, is
in `shards.py`; torch's, `pt`, in `torch_shards.py`.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float64, Int64, Shaped

from seqjax.config.schema import ColumnKind
from seqjax.data import shards, torch_shards
from seqjax.data.columns import id_dtype
from seqjax.data.padding import leading_zeros
from seqjax.data.table_files import REFUSED, unreadable
from seqjax.errors import DataError
from seqjax.windows.spliced import parts_of
from seqjax.windows.windows import Windows, listed, orders_of_files

logger = logging.getLogger(__name__)

Padding = Literal["null", "zero"]

KEYS = ("sequenceId", "subsequenceId", "startItemPosition", "inputCol")
ROWS_PER_BLOCK = 1 << 18
"""Rows of the long format that are made at a time."""
BYTES_PER_CELL, TIMES_SIZE_OF_PT = 45, 4
"""Memory that reading took at its peak when measured: of the long format, and of pt files."""
SAMPLE_BYTES = 1 << 16
"""How much of a csv file is looked at to know how many cells it holds."""


@dataclass(frozen=True)
class Files:
    """What the files in a folder are called, and how much each holds, where a format leaves that open."""

    stem: str = "windows"
    """What their names begin with."""
    sequences: int = 1024
    """Sequences a file."""
    merged: bool = True
    """Whether the long format is one file rather than a folder."""


Read = Callable[[Path, Mapping[str, ColumnKind], Padding], Windows]
ReadFiles = Callable[[Path, Mapping[str, ColumnKind]], Iterator[Windows]]


@dataclass(frozen=True)
class Format:
    """How windows are written and read."""

    suffix: str
    """End of the name of a split, with its dot; empty for a folder."""
    write: Callable[[Path, Windows, Files], None]
    """Writes windows to a path where nothing is yet."""
    read: Read
    """Reads the named columns; raises a `DataError` for anything that is not as written."""
    read_files: ReadFiles | None = None
    """Reads a folder file by file, where results are to be written file by file too."""
    marker: str | None = None
    """A file that a folder of this format holds."""
    memory: Callable[[Path], int] | None = None
    """About how many bytes reading needs; null where the data stays on disk."""


def load_windows(
    path: Path,
    read_format: str,
    *,
    column_kinds: Mapping[str, ColumnKind],
    padding: Padding = "null",
    n_classes: Mapping[str, int] | None = None,
    max_ram_gb: float | None = None,
) -> Windows:
    """Reads preprocessed data; arrow stays on disk, mapped into memory.

    Args:
      path: A file, or the folder of an arrow data set.
      read_format: A key of `FORMATS`.
      column_kinds: The columns to read, in the order that the result shall have.
      padding: How a long format marks padded slots; sequifier's own files have zeros.
      n_classes: Where given, ids of a column must be below it.
      max_ram_gb: Most memory to use, in GB; null knows no limit.

    Raises:
      DataError: The data is missing, damaged, lacks a column, or needs more memory than allowed.
    """
    row = _format(path, read_format)
    if max_ram_gb is not None:
        _check_memory(path, read_format, row, max_ram_gb)
    windows = row.read(path, column_kinds, padding)
    check_values(path, windows, n_classes or {})
    return windows


def load_window_files(
    path: Path,
    read_format: str,
    *,
    column_kinds: Mapping[str, ColumnKind],
    n_classes: Mapping[str, int] | None = None,
) -> Iterator[Windows]:
    """Reads preprocessed data file by file, in a format for which `is_by_file` is true.

    Args:
      path: The folder.
      read_format: The format.
      column_kinds: The columns to read, in the order that the result shall have.
      n_classes: Where given, ids of a column must be below it.

    Raises:
      DataError: The data is missing, damaged, or lacks a column.
    """
    read_files = _format(path, read_format).read_files
    assert read_files is not None, read_format
    for windows in read_files(path, column_kinds):
        check_values(path, windows, n_classes or {})
        yield windows


def is_by_file(read_format: str) -> bool:
    """Whether inference on this format writes one result a file."""
    return read_format in FORMATS and FORMATS[read_format].read_files is not None


def format_of(path: Path) -> str | None:
    """The format of preprocessed data, as far as its name or its folder shows it."""
    for name, row in FORMATS.items():
        if (row.suffix and path.suffix == row.suffix) or (row.marker and (path / row.marker).is_file()):
            return name
    return None


def _format(path: Path, name: str) -> Format:
    if name not in FORMATS:
        raise DataError(f"{path}: {name!r} is no format of preprocessed data. Known: {', '.join(FORMATS)}.")
    if not path.exists():
        raise DataError(f"{path} does not exist. Run preprocess first, or check the path and read_format.")
    return FORMATS[name]


def _check_memory(path: Path, name: str, row: Format, max_ram_gb: float) -> None:
    if row.memory is None:
        logger.info("%s stays on disk, and is read from there as it is needed.", path)
        return
    needed = row.memory(path) / 1e9
    if needed > max_ram_gb:
        raise DataError(
            f"{path} needs about {needed:.3g} GB of memory, but max_ram_gb allows {max_ram_gb:g}: only the "
            f"format arrow can be read from disk as it is needed, and this is {name}. Preprocess with "
            "write_format: arrow, or raise max_ram_gb."
        )
    logger.info(
        "%s is loaded into memory (about %.3g GB while it is read): only the format arrow can be read from "
        "disk as it is needed, and this is %s.",
        *(path, needed, name),
    )


def check_values(path: Path, windows: Windows, n_classes: Mapping[str, int]) -> None:
    """Raises a `DataError` if a number is not finite, or an id not below its number of classes (if given)."""
    for name in windows.columns:
        low, high = _range(windows, name)
        if not np.isfinite([low, high]).all():
            raise DataError(f"{path}: column {name!r} holds NaN or infinity. Run preprocess again.")
        classes = n_classes.get(name)
        if classes is not None and (low < 0 or high >= classes):
            raise DataError(
                f"{path}: column {name!r} holds id {low if low < 0 else high}, but its {classes} classes "
                f"have the ids 0 to {classes - 1}. Data and metadata are of different runs of preprocess."
            )


def _range(windows: Windows, name: str) -> tuple[np.number, np.number]:
    """The smallest and the largest value of a column, or NaN; what was mapped for it is given back."""
    ends = np.zeros(2, windows.columns[name].dtype)
    for part in parts_of(windows.columns[name]):
        for first in range(0, len(part), ROWS_PER_BLOCK):
            some = part[first : first + ROWS_PER_BLOCK]
            ends = np.stack([np.minimum(ends[0], some.min()), np.maximum(ends[1], some.max())])
            windows.release()
    return ends[0], ends[1]


# Writing the long format
# ------------------------------------------------------------------------------------


def _write_csv(path: Path, windows: Windows, files: Files) -> None:
    del files  # There is one.
    with path.open("wb") as file:
        for number, block in enumerate(_blocks(windows, windows.by_sequence())):
            frame = pl.from_arrow(block)
            assert isinstance(frame, pl.DataFrame)
            frame.write_csv(file, include_header=number == 0)


def _write_parquet(path: Path, windows: Windows, files: Files) -> None:
    if files.merged:
        _write_parquet_file(path, windows, windows.by_sequence())
        return
    path.mkdir()
    for number, order in enumerate(orders_of_files(windows, files.sequences)):
        _write_parquet_file(path / f"{files.stem}-{number:05d}.parquet", windows, order)


def _write_parquet_file(path: Path, windows: Windows, order: Int64[np.ndarray, "B"]) -> None:
    writer = None
    try:
        for block in _blocks(windows, order):
            writer = writer or pq.ParquetWriter(path, block.schema)
            writer.write_table(block)
    finally:
        if writer is not None:
            writer.close()


def _blocks(windows: Windows, order: Int64[np.ndarray, "B"]) -> Iterator[pa.Table]:
    """The long format of the windows at `order`, some rows at a time."""
    step = max(ROWS_PER_BLOCK // len(windows.columns), 1)
    for first in range(0, len(order), step):
        yield _block(windows, order[first : first + step])


def _block(windows: Windows, indices: Int64[np.ndarray, "B"]) -> pa.Table:
    batch = windows.gather(indices)
    names, n_slots = list(windows.columns), windows.seq_length + 1
    all_ids = all(np.issubdtype(column.dtype, np.integer) for column in windows.columns.values())
    values = np.empty((n_slots, len(indices), len(names)), np.int64 if all_ids else np.float64)
    for number, name in enumerate(names):
        values[:, :, number] = batch.columns[name].T
    padded = np.repeat(np.arange(n_slots)[:, None] < batch.padding, len(names), axis=1)
    arrays = [pa.array(np.repeat(key, len(names))) for key in windows.keys(indices)]
    arrays.append(pa.array(names * len(indices), pa.large_string()))
    arrays += [pa.array(values[slot].reshape(-1), mask=padded[slot]) for slot in range(n_slots)]
    return pa.table(arrays, names=[*KEYS, *map(str, range(windows.seq_length, -1, -1))])


# Reading the long format
# ------------------------------------------------------------------------------------


def _read_csv(path: Path, column_kinds: Mapping[str, ColumnKind], padding: Padding) -> Windows:
    try:
        frame = pl.read_csv(path, infer_schema_length=None, schema_overrides={"inputCol": pl.String})
    except (OSError, *REFUSED) as error:
        raise unreadable(path, "csv", error) from error
    return from_long(path, frame, column_kinds, padding)


def _parquet_table(file: Path) -> pa.Table:
    # Not read_table, which imports more, and reads columns out of folders' names.
    with pq.ParquetFile(file) as source:
        return source.read()


def _read_parquet(path: Path, column_kinds: Mapping[str, ColumnKind], padding: Padding) -> Windows:
    try:
        # Polars panics over some damaged files; pyarrow refuses them.
        table = pa.concat_tables(_parquet_table(file) for file in parquet_files(path))
        table.validate(full=True)
        frame = pl.from_arrow(table)
    except (OSError, UnicodeDecodeError, pa.ArrowException, pl.exceptions.PolarsError) as error:
        raise unreadable(path, "parquet", error) from error
    assert isinstance(frame, pl.DataFrame)
    return from_long(path, frame, column_kinds, padding)


def parquet_files(path: Path) -> list[Path]:
    """The files of a split in parquet: the file itself, or those in the folder, in order."""
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path} holds no .parquet file. Run preprocess first, or check the path.")
    return files


def from_long(
    path: Path, frame: pl.DataFrame, column_kinds: Mapping[str, ColumnKind], padding: Padding
) -> Windows:
    """The windows in rows of the long format.

    Args:
      path: Where they come from, for messages.
      frame: The rows of some windows, of all their columns.
      column_kinds: The columns to read, in the order that the result shall have.
      padding: How padded slots are marked.

    Raises:
      DataError: They are not as they should be.
    """
    # A slot that is padded in every row has no type of its own.
    empty = [column.name for column in frame if 0 < len(column) == column.null_count()]
    frame = frame.with_columns(pl.col(empty).cast(pl.Int64, strict=False))
    slots = _slots(path, frame)
    names = frame["inputCol"].unique(maintain_order=True).to_list()
    missing = [name for name in column_kinds if name not in names]
    if missing:
        raise DataError(
            f"{path} has no column {missing[0]!r} (columns: {names}). Check the columns, or preprocess again."
        )
    parts = _by_column(path, frame, names)
    values = {name: _matrix(path, part, slots) for name, part in parts.items()}
    first = parts[names[0]]
    n_padded = (_null_padding if padding == "null" else _zero_padding)(path, values)
    real = np.arange(len(slots)) >= n_padded[:, None]
    length = len(slots) - n_padded
    return listed(
        {name: _typed(path, name, kind, values[name][real]) for name, kind in column_kinds.items()},
        start=np.cumsum(length) - length,
        length=length,
        sequence_id=first["sequenceId"].to_numpy().astype(np.int64),
        subsequence_id=first["subsequenceId"].to_numpy().astype(np.int64),
        start_item_position=first["startItemPosition"].to_numpy().astype(np.int64),
        seq_length=len(slots) - 1,
    )


def _slots(path: Path, frame: pl.DataFrame) -> list[str]:
    """The names of the slots, oldest first, after a check of all columns of the file."""
    names = [name for name in frame.columns if name not in KEYS]
    if (
        list(frame.columns[:4]) != list(KEYS)
        or len(names) < 2
        or names != [str(n) for n in range(len(names))][::-1]
    ):
        raise DataError(
            f"{path} is not in the long format: it has the columns {', '.join(frame.columns)[:200]}, but "
            f"needs {', '.join(KEYS)}, L, L-1, ..., 1, 0. Use a file that preprocess wrote."
        )
    if frame.is_empty():
        raise DataError(f"{path} holds no windows. Preprocess again with a larger share for this split.")
    for name in KEYS[:3]:
        if not frame.schema[name].is_integer() or frame[name].null_count():
            raise DataError(
                f"{path}: {name} must be a whole number in every row (found type {frame.schema[name]})."
            )
    if not isinstance(frame.schema["inputCol"], pl.String) or frame["inputCol"].null_count():
        raise DataError(f"{path}: inputCol must name a column in every row.")
    text = [name for name in names if not frame.schema[name].is_numeric()]
    if text:
        raise DataError(
            f"{path}: column {text[0]!r} is of type {frame.schema[text[0]]}; it must hold numbers."
        )
    return names


def _by_column(path: Path, frame: pl.DataFrame, names: list[str]) -> dict[str, pl.DataFrame]:
    """The rows of each column, all in the same order of windows; rows of a file may come in any order."""
    groups = frame.sort("sequenceId", "subsequenceId", maintain_order=True).partition_by(
        "inputCol", as_dict=True
    )
    parts = {str(name): part for (name,), part in groups.items()}
    keys = parts[names[0]].select(KEYS[:3])
    twice = keys.select(KEYS[:2]).is_duplicated()
    if twice.any():
        sequence, number = keys.row(int(np.argmax(twice.to_numpy())))[:2]
        raise DataError(
            f"{path}: window (sequenceId {sequence}, subsequenceId {number}) occurs more than once. "
            "Files of sequifier have this where a sequence lay in two input files; preprocess the data again."
        )
    for name in names:
        if not parts[name].select(KEYS[:3]).equals(keys):
            raise DataError(
                f"{path}: columns {names[0]!r} and {name!r} do not have the same windows ({len(keys)} and "
                f"{len(parts[name])} rows). Each window needs one row a column."
            )
    return parts


def _matrix(path: Path, part: pl.DataFrame, slots: list[str]) -> Float64[np.ndarray, "W slots"]:
    """The slots of one column's rows; null becomes NaN, which the file itself must not hold."""
    values = part.select(slots).cast(pl.Float64)
    finite = values.select(pl.all().is_finite().fill_null(value=True).all()).row(0)
    if not all(finite):
        name = part["inputCol"][0]
        raise DataError(
            f"{path}: column {name!r} holds NaN or infinity in slot {slots[finite.index(False)]}."
        )
    return values.fill_null(float("nan")).to_numpy()


def _null_padding(path: Path, values: Mapping[str, Float64[np.ndarray, "W slots"]]) -> Int64[np.ndarray, "W"]:
    """Number of leading slots that are null, which they are in all columns or in none."""
    masks = {name: np.isnan(column) for name, column in values.items()}
    first, expected = next(iter(masks.items()))
    n_padded = expected.sum(axis=1)
    leading = np.arange(expected.shape[1]) < n_padded[:, None]
    for name, mask in masks.items():
        if (mask != leading).any():
            window = int(np.argmax((mask != leading).any(axis=1)))
            what = "has a null after a value" if name == first else f"has other nulls than {first!r}"
            raise DataError(
                f"{path}: window {window} of column {name!r} {what}; only padding, on the left, is null."
            )
    if (n_padded == expected.shape[1]).any():
        raise DataError(f"{path}: window {int(np.argmax(n_padded))} holds no item.")
    return n_padded


def _zero_padding(path: Path, values: Mapping[str, Float64[np.ndarray, "W slots"]]) -> Int64[np.ndarray, "W"]:
    """Number of leading slots that are zero in every column; nulls must not occur."""
    for name, column in values.items():
        if np.isnan(column).any():
            raise DataError(
                f"{path}: column {name!r} holds nulls, but padding is declared as zero. "
                'Set "padding": "null" in the metadata JSON.'
            )
    return leading_zeros(values.values())


def _typed(
    path: Path, name: str, kind: ColumnKind, values: Float64[np.ndarray, "N"]
) -> Shaped[np.ndarray, "N"]:
    if kind == "real":
        return values.astype(np.float32)
    wrong = (values != np.floor(values)) | (values < 0) | (values > np.iinfo(np.int32).max)
    if wrong.any():
        raise DataError(
            f"{path}: column {name!r} is categorical, but holds {values[np.argmax(wrong)]:g}, which is no "
            "id. Check the column types."
        )
    return values.astype(id_dtype(int(values.max(initial=0))))


def _csv_memory(path: Path) -> int:
    with path.open("rb") as file:
        sample = file.read(SAMPLE_BYTES)
    cells = sample.count(b",") + sample.count(b"\n")
    return BYTES_PER_CELL * cells * path.stat().st_size // max(len(sample), 1)


def _parquet_memory(path: Path) -> int:
    try:
        parts = [pq.read_metadata(file) for file in parquet_files(path)]
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise unreadable(path, "parquet", error) from error
    return BYTES_PER_CELL * sum(part.num_rows * part.num_columns for part in parts)


# Folders
# ------------------------------------------------------------------------------------


def _write_arrow(path: Path, windows: Windows, files: Files) -> None:
    del files  # The format has names and sizes of its own.
    shards.write(path, windows)


def _read_arrow(path: Path, column_kinds: Mapping[str, ColumnKind], padding: Padding) -> Windows:
    del padding  # Shards hold the length of each window, and no padding at all.
    return shards.read(path, column_kinds)


def _write_pt(path: Path, windows: Windows, files: Files) -> None:
    torch_shards.write(path, windows, stem=files.stem, sequences_per_file=files.sequences)


def _read_pt(path: Path, column_kinds: Mapping[str, ColumnKind], padding: Padding) -> Windows:
    del padding  # The folder itself says how padding is to be told.
    return torch_shards.read(path, column_kinds)


def _pt_memory(path: Path) -> int:
    return TIMES_SIZE_OF_PT * sum(file.stat().st_size for file in path.glob("*.pt"))


FORMATS: dict[str, Format] = {
    "csv": Format(".csv", _write_csv, _read_csv, memory=_csv_memory),
    "parquet": Format(".parquet", _write_parquet, _read_parquet, memory=_parquet_memory),
    "arrow": Format("", _write_arrow, _read_arrow, marker=shards.MANIFEST),
    "pt": Format(
        "", _write_pt, _read_pt, torch_shards.read_files, marker=torch_shards.METADATA, memory=_pt_memory
    ),
}
