"""Preprocessed data in parts, so that inference on it needs little memory.

A part holds whole sequences. Arrow data is mapped, so its parts are views. A file in the long format that is
not small is read twice: once to see that its sequences are in order and what its types are, once to be given
out. One whose sequences are not in order is read whole.
"""

import bisect
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int64

from seqjax.config.schema import ColumnKind
from seqjax.data.formats import (
    Padding,
    check_values,
    from_long,
    is_by_file,
    load_window_files,
    load_windows,
    parquet_files,
)
from seqjax.data.table_files import CsvFiles, TypesWidened, unreadable
from seqjax.windows.windows import Windows

logger = logging.getLogger(__name__)

CELLS_PER_PART = 1 << 22
"""Cells of the long format that are held at a time."""
SMALL_CSV = 1 << 25
"""Bytes of a csv file that is read whole."""

Frames = Iterable[pl.DataFrame]


def window_parts(
    path: Path,
    read_format: str,
    *,
    column_kinds: Mapping[str, ColumnKind],
    padding: Padding = "null",
    n_classes: Mapping[str, int] | None = None,
) -> Iterator[Windows]:
    """Reads preprocessed data a part at a time; by file, in a format for which `is_by_file` is true.

    The arguments and errors are those of `load_windows`.
    """
    known = n_classes or {}
    if is_by_file(read_format):
        yield from load_window_files(path, read_format, column_kinds=column_kinds, n_classes=known)
        return
    frames = {"csv": _csv_frames, "parquet": _parquet_frames}.get(read_format)
    parts = frames(path) if frames is not None and path.exists() else None
    if parts is None:
        yield load_windows(path, read_format, column_kinds=column_kinds, padding=padding, n_classes=known)
        return
    for frame in parts:
        windows = from_long(path, frame, column_kinds, padding)
        check_values(path, windows, known)
        yield windows


def in_parts(windows: Windows, most: int) -> Iterator[Windows]:
    """Windows cut into parts of whole sequences, of at most `most` windows unless a sequence has more.

    Args:
      windows: Windows; where those of a sequence do not lie together, they are one part.
      most: How many a part.
    """
    runs = windows.runs
    begins = np.flatnonzero(np.append(True, runs.sequence_id[1:] != runs.sequence_id[:-1]))
    if len(windows) <= most or len(np.unique(runs.sequence_id[begins])) < len(begins):
        yield windows
        return
    run_ends = [*begins[1:].tolist(), len(runs)]
    ends = [*runs.first_window[begins[1:]].tolist(), len(windows)]
    first = run = 0
    while first < len(windows):
        # The last sequence that ends in time, or else the next one.
        place = max(bisect.bisect_right(ends, first + most) - 1, bisect.bisect_right(ends, first))
        yield replace(windows, runs=runs.taken(slice(run, run_ends[place])))
        first, run = ends[place], run_ends[place]


def whole_sequences(frames: Frames, rows: int) -> Iterator[pl.DataFrame]:
    """The same rows cut between sequences, at least `rows` a frame but in the last.

    Args:
      frames: Rows of the long format whose sequences are in order.
      rows: How many to collect.
    """
    held: list[pl.DataFrame] = []
    for frame in frames:
        held.append(frame)
        if sum(map(len, held)) < rows:
            continue
        whole = pl.concat(held)
        ids = whole["sequenceId"].to_numpy()
        end = int(np.searchsorted(ids, ids[-1]))
        held = [whole[end:]]
        if end:
            yield whole[:end]
    if held:
        yield pl.concat(held)


def _parquet_frames(path: Path) -> Iterator[pl.DataFrame] | None:
    """The rows in parts; null where they are few, or not in order."""
    files = parquet_files(path)
    try:
        sizes = [pq.read_metadata(file) for file in files]
        columns = max(size.num_columns for size in sizes)
        rows = max(CELLS_PER_PART // max(columns, 1), 1)
        if sum(size.num_rows for size in sizes) <= rows:
            return None
        keys = (batch["sequenceId"] for batch in _batches(files, rows, ["sequenceId"]))
        if not _in_order(column.to_numpy() for column in keys):
            return None
    except (OSError, UnicodeDecodeError, KeyError, pa.ArrowException, pl.exceptions.PolarsError):
        return None  # Whoever reads it whole says what is wrong.
    return whole_sequences(_checked(path, _batches(files, rows)), rows)


def _batches(files: list[Path], rows: int, columns: list[str] | None = None) -> Iterator[pl.DataFrame]:
    for file in files:
        with pq.ParquetFile(file, pre_buffer=False) as source:
            for batch in source.iter_batches(rows, columns=columns):
                batch.validate(full=True)
                frame = pl.from_arrow(batch)
                assert isinstance(frame, pl.DataFrame)
                yield frame


def _checked(path: Path, frames: Frames) -> Iterator[pl.DataFrame]:
    try:
        yield from frames
    except (OSError, UnicodeDecodeError, pa.ArrowException, pl.exceptions.PolarsError) as error:
        raise unreadable(path, "parquet", error) from error


def _csv_frames(path: Path) -> Iterator[pl.DataFrame] | None:
    """The rows in parts; null where they are few, or not in order."""
    if not path.is_file() or path.stat().st_size <= SMALL_CSV:
        return None
    files = CsvFiles([path])
    header = files.headers[0]
    if not {"sequenceId", "inputCol"} <= set(header) or len(set(header)) < len(header):
        return None  # Whoever reads it whole says what is wrong.
    files.types["inputCol"] = pl.String()
    while True:
        try:
            ordered = _in_order(piece.frame["sequenceId"].to_numpy() for piece in files.pieces(header))
            break
        except TypesWidened:
            logger.debug("A column has another type than its first rows show: reading again.")
    if not ordered:
        return None
    frames = (piece.frame for piece in files.pieces(header))
    return whole_sequences(frames, max(CELLS_PER_PART // len(header), 1))


def _in_order(columns: Iterable[Int64[np.ndarray, "n"]]) -> bool:
    """Whether numbers that come in parts ascend; what is no number does not."""
    last = None
    for column in columns:
        if not np.issubdtype(column.dtype, np.integer) or not (column[1:] >= column[:-1]).all():
            return False
        if len(column) and last is not None and column[0] < last:
            return False
        last = column[-1] if len(column) else last
    return True
