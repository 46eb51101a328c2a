"""A stream of rows as chunks of whole sequences, in order.

Pieces that are in order (see `order.py`) are cut into chunks as they come. Any others are sorted on disk
first, in bounded memory: rows go to buckets by ranges of sequenceId, and each bucket is sorted alone. Where
chunks end depends on the sorted rows only, hence never on files or on the order of the input. A sequence is
never divided, so that memory is bounded by the longest one.
"""

import bisect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
from jaxtyping import Int64

from seqjax.config.schema import ColumnKind
from seqjax.data.order import ascending, refuse_twins, sorted_order
from seqjax.data.tables import CheckedPiece, Table, joined

ROWS_PER_CHUNK = 1 << 18
ROWS_PER_BUCKET = 1 << 20
MOST_BUCKETS = 256
"""Buckets are larger rather than more, since each is an open file."""

ROW, PART = "row", "part"
"""Names of stored columns: the number of the row in the input, and its split."""
FEATURE, WIDE = "feature ", "integer "
"""How the names of stored features begin; integers of 128 bits, which Arrow lacks, are stored as text."""


class Unsorted(Exception):
    """Rows that come before rows they belong after."""


def in_order(pieces: Iterable[CheckedPiece]) -> Iterator[Table]:
    """The tables of pieces whose rows are in order.

    Raises:
      Unsorted: They are not.
      DataError: Two neighbours have the same sequenceId and itemPosition.
    """
    last: CheckedPiece | None = None
    for piece in pieces:
        table = piece.table
        before = np.zeros(0, np.int64), np.zeros(0, np.int64)
        if last is not None:
            before = last.table.sequence_id[-1:], last.table.item_position[-1:]
        sequence_id = np.concatenate([before[0], table.sequence_id])
        item_position = np.concatenate([before[1], table.item_position])
        fine = ascending(sequence_id, item_position)
        if not fine.all():
            place = int(np.argmin(fine))
            two = slice(place, place + 2)
            refuse_twins(sequence_id[two], item_position[two], _Names(last, piece, place))
            raise Unsorted
        yield table
        last = piece


@dataclass(frozen=True)
class _Names:
    """What to call rows that count from `place` in the last row of one piece and all of the next."""

    last: CheckedPiece | None
    piece: CheckedPiece
    place: int

    def __call__(self, row: int) -> str:
        row += self.place
        if self.last is None:
            return self.piece.name(row)
        return self.piece.name(row - 1) if row else self.last.name(len(self.last.table) - 1)


def chunks(tables: Iterable[Table], rows: int | None = None) -> Iterator[Table]:
    """Cuts a stream of sorted rows into tables of whole sequences.

    Args:
      tables: Rows in order.
      rows: A chunk ends at the first sequence that begins at or after so many rows; null is the usual number.
    """
    rows = rows or ROWS_PER_CHUNK
    held: list[Table] = []
    n_rows = 0
    for table in tables:
        while (end := _first_begin(table, held, rows - n_rows)) is not None:
            yield joined([*held, table.rows(0, end)])
            table = table.rows(end, len(table))
            held, n_rows = [], 0
        held.append(table)
        n_rows += len(table)
    if n_rows:
        yield joined(held)


def _first_begin(table: Table, held: list[Table], earliest: int) -> int | None:
    """The first row of `table`, not before row `earliest`, that begins a sequence; null if there is none."""
    earliest = max(earliest, 0 if held else 1)
    if earliest >= len(table):
        return None
    ids = table.sequence_id
    before = ids[earliest - 1] if earliest else held[-1].sequence_id[-1]
    begins = ids[earliest:] != np.concatenate([[before], ids[earliest:-1]])
    return earliest + int(np.argmax(begins)) if begins.any() else None


# Sorting on disk
# ------------------------------------------------------------------------------------


def sort_on_disk(
    pieces: Callable[[], Iterator[CheckedPiece]], keys: Iterable[CheckedPiece], folder: Path
) -> None:
    """Writes all rows to `folder`, in order.

    Args:
      pieces: Gives the rows.
      keys: The rows without features.
      folder: A folder to create; `sorted_tables` reads it.

    Raises:
      DataError: Two rows have the same sequenceId and itemPosition.
    """
    begins = _bucket_begins(keys)
    folder.mkdir()
    origins: list[tuple[int, CheckedPiece]] = []
    n_rows = 0
    with ExitStack() as files:
        writers: dict[int, pa.RecordBatchStreamWriter] = {}
        for piece in pieces():
            origins.append((n_rows, CheckedPiece(piece.file, piece.first_row, piece.table.rows(0, 0))))
            for number, part in _in_buckets(piece.table, begins, n_rows):
                if number not in writers:
                    place = str(folder / f"{number:05d}.bucket")
                    writers[number] = files.enter_context(pa.ipc.new_stream(place, part.schema))
                writers[number].write_table(part)
            n_rows += len(piece.table)
    for number in sorted(writers):
        _sort_bucket(folder / f"{number:05d}.bucket", lambda row: _name(origins, row))


def sorted_tables(folder: Path, roles: Mapping[str, ColumnKind]) -> Iterator[Table]:
    """The rows that `sort_on_disk` wrote.

    Args:
      folder: Where.
      roles: Columns that have another kind than their type gives.
    """
    for file in sorted(folder.glob("*.sorted")):
        for frame in _stored(file):
            yield _table(frame, roles)


def _bucket_begins(keys: Iterable[CheckedPiece]) -> Int64[np.ndarray, "buckets"]:
    """The smallest sequenceId of each bucket: whole sequences, about equally many rows."""
    ids, counts = np.zeros(0, np.int64), np.zeros(0, np.int64)
    for piece in keys:
        more, number = np.unique(piece.table.sequence_id, return_counts=True)
        ids, place = np.unique(np.concatenate([ids, more]), return_inverse=True)
        counts = np.bincount(place, np.concatenate([counts, number])).astype(np.int64)
    size = max(ROWS_PER_BUCKET, -(-int(counts.sum()) // MOST_BUCKETS))
    bucket = (np.cumsum(counts) - counts) // size
    return ids[np.flatnonzero(np.diff(bucket, prepend=-1))]


def _in_buckets(
    table: Table, begins: Int64[np.ndarray, "buckets"], first_row: int
) -> Iterator[tuple[int, pa.Table]]:
    """The rows of each bucket that has some."""
    bucket = np.searchsorted(begins, table.sequence_id, side="right") - 1
    frame = _frame(table, first_row)[np.argsort(bucket, kind="stable")]
    numbers, counts = np.unique(bucket, return_counts=True)
    ends = np.cumsum(counts).tolist()
    for number, begin, end in zip(numbers.tolist(), [0, *ends], ends, strict=False):
        yield number, _arrow(frame[begin:end])


def _sort_bucket(file: Path, name: Callable[[int], str]) -> None:
    frame = pl.concat(list(_stored(file)), rechunk=True)
    keys = frame["sequenceId"].to_numpy(), frame["itemPosition"].to_numpy()
    order = sorted_order(*keys)
    if order is not None:
        frame = frame[order]
        refuse_twins(keys[0][order], keys[1][order], lambda row: name(frame[ROW][row]))
    arrow = _arrow(frame)
    with pa.ipc.new_stream(str(file.with_suffix(".sorted")), arrow.schema) as writer:
        writer.write_table(arrow, max_chunksize=ROWS_PER_CHUNK)
    file.unlink()


def _frame(table: Table, first_row: int) -> pl.DataFrame:
    """The rows as they are stored, each with its number in the input."""
    columns = {
        "sequenceId": table.sequence_id,
        "itemPosition": table.item_position,
        ROW: np.arange(first_row, first_row + len(table)),
    }
    if table.part is not None:
        columns[PART] = table.part
    features = [
        column.cast(pl.String).alias(WIDE + column.name)
        if isinstance(column.dtype, pl.Int128)
        else column.alias(FEATURE + column.name)
        for column in table.features
    ]
    return pl.DataFrame(columns).hstack(features)


def _table(frame: pl.DataFrame, roles: Mapping[str, ColumnKind]) -> Table:
    features = [
        column.cast(pl.Int128).alias(column.name[len(WIDE) :])
        if column.name.startswith(WIDE)
        else column.alias(column.name[len(FEATURE) :])
        for column in frame
        if column.name.startswith((FEATURE, WIDE))
    ]
    return Table(
        frame["sequenceId"].to_numpy(),
        frame["itemPosition"].to_numpy(),
        pl.DataFrame(features),
        roles,
        frame[PART].to_numpy() if PART in frame.columns else None,
    )


def _stored(file: Path) -> Iterator[pl.DataFrame]:
    with pa.OSFile(str(file)) as source, pa.ipc.open_stream(source) as reader:
        for batch in reader:
            frame = pl.from_arrow(batch)
            assert isinstance(frame, pl.DataFrame)
            yield frame


def _arrow(frame: pl.DataFrame) -> pa.Table:
    return frame.to_arrow(compat_level=pl.CompatLevel.oldest())


def _name(origins: Sequence[tuple[int, CheckedPiece]], row: int) -> str:
    """What to call a row of the input."""
    place = bisect.bisect_right([first for first, _ in origins], row) - 1
    first, piece = origins[place]
    return piece.name(row - first)
