"""The long format of preprocessed data: csv or parquet, one row per window and column.

The columns are sequenceId, subsequenceId, startItemPosition, inputCol, then the slots, named from L (oldest)
down to 0 (newest). Rows are in the order of sequenceId, subsequenceId and the columns of the data. Padded
slots are null, or zeros on request, and missing values NaN; files of sequifier hold zeros in the former. The
slots are Int64 if every column is categorical, else Float64. Where windows begin with items that are context
alone, a last column, contextLength, says how many; sequifier, which takes slots by name, passes over it.

A file is read as a table, in blocks of whole sequences. Rows may come in any order: where sequences do not
ascend, the rows go to buckets on disk first (see `sorting.py`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Float64, Int64

from seqjax.config.schema import ColumnKind, TableFormat
from seqjax.data.cells import Reading
from seqjax.data.columns import INFINITE, check_columns
from seqjax.data.sorting import bucket_begins, chunks, into_buckets, stored
from seqjax.data.staging import staged
from seqjax.data.table_files import CsvFiles, ParquetFiles, TableFiles
from seqjax.data.torch_shards import leading_zeros, of_slots
from seqjax.errors import DataError
from seqjax.windows.windows import Windows

Padding = Literal["null", "zero"]

KEYS = ("sequenceId", "subsequenceId", "startItemPosition", "inputCol")
CONTEXT = "contextLength"
ROWS_PER_BLOCK = 1 << 18
"""Rows that are written at a time."""
CELLS_PER_BLOCK = 1 << 22
"""Cells that are read at a time, if sequences are not longer."""

# Writing
# ------------------------------------------------------------------------------------


def write_csv(path: Path, windows: Windows, padding: Padding = "null") -> None:
    """Writes windows to one file."""
    with path.open("wb") as file:
        for number, block in enumerate(_blocks(windows, windows.by_sequence(), padding)):
            pl.DataFrame(block).write_csv(file, include_header=number == 0)


def write_parquet(
    path: Path, windows: Windows, order: Int64[np.ndarray, "B"], padding: Padding = "null"
) -> None:
    """Writes the windows at `order`, at least one, to one file."""
    blocks = _blocks(windows, order, padding)
    first = next(blocks)
    with pq.ParquetWriter(path, first.schema) as writer:
        for block in chain([first], blocks):
            writer.write_table(block)


def _blocks(windows: Windows, order: Int64[np.ndarray, "B"], padding: Padding) -> Iterator[pa.Table]:
    """The long format of the windows at `order`, some rows at a time."""
    names, n_slots = list(windows.columns), windows.seq_length + 1
    has_context = bool(np.any(windows.runs.first_target))
    step = max(ROWS_PER_BLOCK // len(names), 1)
    for first in range(0, len(order), step):
        indices = order[first : first + step]
        batch = windows.gather(indices)
        all_ids = all(values.dtype == np.int32 for values in batch.columns.values())
        values = np.empty((n_slots, len(indices), len(names)), np.int64 if all_ids else np.float64)
        for number, name in enumerate(names):
            values[:, :, number] = batch.columns[name].T
        # Slots that are padded hold zeros anyway.
        masked = batch.padding if padding == "null" else np.zeros_like(batch.padding)
        padded = np.repeat(np.arange(n_slots)[:, None] < masked, len(names), axis=1)
        arrays = [pa.array(np.repeat(key, len(names))) for key in windows.keys(indices)]
        arrays.append(pa.array(names * len(indices), pa.large_string()))
        arrays += [pa.array(values[slot].reshape(-1), mask=padded[slot]) for slot in range(n_slots)]
        titles = [*KEYS, *map(str, range(windows.seq_length, -1, -1))]
        if has_context:
            arrays.append(pa.array(np.repeat(windows.first_target(indices), len(names))))
            titles.append(CONTEXT)
        yield pa.table(arrays, names=titles)


# Reading
# ------------------------------------------------------------------------------------


def read_blocks(
    path: Path, column_kinds: Mapping[str, ColumnKind], padding: Padding, *, table_format: TableFormat
) -> Iterator[Windows]:
    """Reads the windows of whole sequences at a time.

    Args:
      path: A file, or a folder of parquet files.
      column_kinds: The columns to read, in the order that the result shall have.
      padding: The mark of padded slots.
      table_format: The format of the files.

    Raises:
      DataError: A file cannot be read or is not in the long format, or a column is missing or of another
        kind.
    """
    with TemporaryDirectory(prefix="seqjax-") as name:
        folder = Path(name)
        files = _typed_files(path, table_format, folder / "table")
        header = files.headers[0]
        rows = max(CELLS_PER_BLOCK // len(header), 1)

        def frames(columns: Sequence[str] = header) -> Iterator[pl.DataFrame]:
            return (piece.frame for piece in files.pieces(columns))

        if _in_order(header, frames):
            blocks = chunks(frames(), rows)
        else:
            begins = bucket_begins((frame["sequenceId"] for frame in frames(["sequenceId"])), rows)
            (folder / "buckets").mkdir()
            buckets = into_buckets(frames(), begins, folder / "buckets")
            blocks = (pl.concat(list(stored(bucket))) for bucket in buckets)
        empty = True
        for block in blocks:
            yield _windows(path, block, column_kinds, padding)
            empty = False
        if empty:
            _slots(path, header)
            raise DataError(f"{path} holds no windows. Preprocess again with a larger share for this split.")


def _typed_files(path: Path, table_format: TableFormat, folder: Path) -> TableFiles:
    """The files as a table with types."""
    csv = table_format == "csv"
    files = CsvFiles([path]) if csv else ParquetFiles(_parquet_files(path))
    header = files.headers[0]
    for file, other in zip(files.files, files.headers, strict=True):
        if other != header:
            raise DataError(
                f"{file} has other columns than {files.files[0]}. Use files of one preprocess run."
            )
    if len(set(header)) < len(header):
        _slots(path, header)
    if not isinstance(files, CsvFiles):
        return files
    if not set(KEYS) <= set(header):
        _slots(path, header)
    # NaN is a missing value of a column, and an empty cell is padding.
    numbers, names = Reading("key", missing=frozenset([""])), Reading("text", missing=frozenset())
    return staged(files, dict.fromkeys(header, numbers) | {"inputCol": names}, folder)


def _parquet_files(path: Path) -> list[Path]:
    """The file itself, or those in the folder, in order."""
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path} holds no .parquet file. Run preprocess first, or check the path.")
    return files


def _in_order(header: Sequence[str], frames: Callable[[Sequence[str]], Iterator[pl.DataFrame]]) -> bool:
    """Tells whether sequences ascend; columns that are not as they should be are refused later."""
    if "sequenceId" not in header:
        return True
    last: int | None = None
    for frame in frames(["sequenceId"]):
        ids = frame["sequenceId"]
        if not ids.dtype.is_integer() or ids.null_count() or ids.is_empty():
            return True
        if not ids.is_sorted() or (last is not None and ids[0] < last):
            return False
        last = ids[-1]
    return True


def _windows(
    path: Path, frame: pl.DataFrame, column_kinds: Mapping[str, ColumnKind], padding: Padding
) -> Windows:
    """The windows in rows of whole sequences."""
    # A slot that is padded in every row has no type of its own.
    empty = [column.name for column in frame if 0 < len(column) == column.null_count()]
    frame = frame.with_columns(pl.col(empty).cast(pl.Int64, strict=False))
    slots = _slots(path, frame.columns)
    _check_types(path, frame, slots)
    names = frame["inputCol"].unique(maintain_order=True).to_list()
    check_columns(path, dict.fromkeys(names), column_kinds)
    rows = _by_column(path, frame, names)
    values = {name: _matrix(path, some, slots) for name, some in rows.items()}
    nulls = {name: _nulls(some, slots) for name, some in rows.items()}
    n_padded = _null_padding(path, nulls) if padding == "null" else _zero_padding(path, values, nulls)
    keys = [rows[names[0]][name].to_numpy().astype(np.int64) for name in KEYS[:3]]
    first_target = rows[names[0]][CONTEXT].to_numpy().astype(np.int64) if CONTEXT in frame.columns else None
    if first_target is not None and ((first_target < 0) | (first_target > len(slots) - 1 - n_padded)).any():
        raise DataError(f"{path}: {CONTEXT} must leave each window an item, and not be negative.")
    return of_slots(path, values, n_padded, keys, column_kinds=column_kinds, first_target=first_target)


def _slots(path: Path, columns: Sequence[str]) -> list[str]:
    """The names of the slots, oldest first."""
    expected = [name for name in columns if name != CONTEXT]
    names = [str(number) for number in range(len(expected) - len(KEYS) - 1, -1, -1)]
    if len(names) < 2 or expected != [*KEYS, *names]:
        raise DataError(
            f"{path} is not in the long format: it has the columns {', '.join(columns)[:200]}, but "
            f"needs {', '.join(KEYS)}, L, L-1, ..., 1, 0. Use a file that preprocess wrote."
        )
    return names


def _check_types(path: Path, frame: pl.DataFrame, slots: list[str]) -> None:
    for name in (*KEYS[:3], *({CONTEXT} & set(frame.columns))):
        if not frame.schema[name].is_integer() or frame[name].null_count():
            raise DataError(
                f"{path}: {name} must be a whole number in every row (found type {frame.schema[name]})."
            )
    if not isinstance(frame.schema["inputCol"], pl.String) or frame["inputCol"].null_count():
        raise DataError(f"{path}: inputCol must name a column in every row.")
    text = [name for name in slots if not frame.schema[name].is_numeric()]
    if text:
        raise DataError(
            f"{path}: column {text[0]!r} is of type {frame.schema[text[0]]}; it must hold numbers."
        )


def _by_column(path: Path, frame: pl.DataFrame, names: list[str]) -> dict[str, pl.DataFrame]:
    """The rows of each column, all in the same order of windows; rows of a file may come in any order."""
    groups = frame.sort("sequenceId", "subsequenceId", maintain_order=True).partition_by(
        "inputCol", as_dict=True
    )
    rows = {str(name): some for (name,), some in groups.items()}
    keys = rows[names[0]].select(KEYS[:3])
    twice = keys.select(KEYS[:2]).is_duplicated()
    if twice.any():
        sequence, number = keys.row(int(np.argmax(twice.to_numpy())))[:2]
        raise DataError(
            f"{path}: window (sequenceId {sequence}, subsequenceId {number}) occurs more than once. "
            "Files of sequifier have this where a sequence lay in two input files; preprocess the data again."
        )
    for name in names:
        if not rows[name].select(KEYS[:3]).equals(keys):
            raise DataError(
                f"{path}: columns {names[0]!r} and {name!r} do not have the same windows ({len(keys)} and "
                f"{len(rows[name])} rows). Each window needs one row a column."
            )
    return rows


def _matrix(path: Path, rows: pl.DataFrame, slots: list[str]) -> Float64[np.ndarray, "W slots"]:
    """The slots of one column's rows; 0 where they are null."""
    values = rows.select(slots).cast(pl.Float64)
    infinite = values.select(pl.all().is_infinite().any()).row(0)
    if any(infinite):
        name = rows["inputCol"][0]
        slot = slots[infinite.index(True)]
        window = rows.filter(pl.col(slot).is_infinite()).select(KEYS[:2]).row(0)
        raise DataError(
            f"{path}: column {name!r} holds an infinity in slot {slot} of a window (sequenceId {window[0]}, "
            f"subsequenceId {window[1]}). {INFINITE}"
        )
    return values.fill_null(0.0).to_numpy()


def _nulls(rows: pl.DataFrame, slots: list[str]) -> Bool[np.ndarray, "W slots"]:
    return rows.select(pl.col(slots).is_null()).to_numpy()


def _null_padding(path: Path, masks: Mapping[str, Bool[np.ndarray, "W slots"]]) -> Int64[np.ndarray, "W"]:
    """Number of leading slots that are null, which they are in all columns or in none."""
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


def _zero_padding(
    path: Path,
    values: Mapping[str, Float64[np.ndarray, "W slots"]],
    nulls: Mapping[str, Bool[np.ndarray, "W slots"]],
) -> Int64[np.ndarray, "W"]:
    """Number of leading slots that are zero in every column; nulls must not occur."""
    for name, mask in nulls.items():
        if mask.any():
            raise DataError(
                f"{path}: column {name!r} holds nulls, but padding is declared as zero. "
                'Set "padding": "null" in the metadata JSON.'
            )
    return leading_zeros(values.values())
