"""Rows in the order that every step relies on: ascending (sequenceId, itemPosition), and no pair twice.

`OrderedRows` gives the rows of a table in order, as often as asked. Rows that are not are sorted on disk
first, in bounded memory: they go to buckets by ranges of sequenceId, and each bucket is sorted alone.

`chunks` cuts them into tables of whole sequences. Where chunks end depends on the sorted rows only, hence
never on files or on the order of the input. A sequence is never divided, so that memory is bounded by the
longest one.
"""

import bisect
import json
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
from jaxtyping import Bool, Int64

from seqjax.config.schema import ColumnKind
from seqjax.data.tables import KEYS, CheckedPiece, Table, TableReader, joined
from seqjax.errors import DataError

logger = logging.getLogger(__name__)

ROWS_PER_CHUNK = 1 << 18
ROWS_PER_BUCKET = 1 << 20
MOST_BUCKETS = 256
"""Buckets are larger rather than more, since each is an open file."""

ORDER = "order.json"
"""Says, when the order is known, whether rows are in it as they come, and how many sequences there are."""
ROW, PART = "row", "part"
"""Names of stored columns: the number of the row in the input, and its split."""
FEATURE, WIDE = "feature ", "integer "
"""How the names of stored features begin; integers of 128 bits, which Arrow lacks, are stored as text."""


class OrderedRows:
    """The rows of a table in order, as they come or from where they were sorted."""

    def __init__(self, reader: TableReader, folder: Path) -> None:
        """Looks at the keys of all rows, and sorts the rows if need be, unless that was done before.

        Args:
          reader: The table.
          folder: Where to keep the rows that must be sorted, and what is known of their order.

        Raises:
          DataError: The table cannot be used, or two rows have the same sequenceId and itemPosition.
        """
        self._reader = reader
        self._folder = folder
        noted = folder / ORDER
        if not noted.is_file():
            if folder.exists():
                shutil.rmtree(folder)
            folder.mkdir(parents=True)
            noted.write_text(json.dumps(self._put_in_order()), encoding="utf-8")
        self._in_order, self.n_sequences = json.loads(noted.read_text(encoding="utf-8"))

    def tables(self) -> Iterator[Table]:
        """The rows in order, some at a time; a `DataError` if a file changed since they were first read."""
        if not self._in_order:
            yield from sorted_tables(self._folder, self._reader.roles)
            return
        order = _Order()
        for piece in self._reader.pieces():
            if not order.continues(piece):
                raise DataError(f"{piece.file} changed while it was read. Start again.")
            yield piece.table

    def _put_in_order(self) -> tuple[bool, int]:
        order = _Order()
        if all(order.continues(piece) for piece in self._reader.pieces(keys_only=True)):
            return True, order.n_sequences
        logger.info("Rows are not in the order of %s, %s: sorting them.", *KEYS)
        return False, sort_on_disk(self._reader.pieces, self._reader.pieces(keys_only=True), self._folder)


@dataclass
class _Order:
    """The order of rows that come in pieces."""

    n_sequences: int = 0
    """Number of sequences so far, where rows are in order."""
    last: CheckedPiece | None = None

    def continues(self, piece: CheckedPiece) -> bool:
        """Whether these rows are in order, after those before; a `DataError` if two neighbours are twins."""
        ids, positions = piece.table.sequence_id, piece.table.item_position
        if self.last is not None:
            last = self.last.table
            keys = (
                np.append(last.sequence_id[-1:], ids[:1]),
                np.append(last.item_position[-1:], positions[:1]),
            )
            if not ascending(*keys).all():
                names = self.last.name(len(last) - 1), piece.name(0)
                refuse_twins(*keys, lambda row: names[row])
                return False
        fine = ascending(ids, positions)
        if not fine.all():
            place = int(np.argmin(fine))
            two = slice(place, place + 2)
            refuse_twins(ids[two], positions[two], lambda row: piece.name(place + row))
            return False
        joins = self.last is not None and self.last.table.sequence_id[-1] == ids[0]
        self.n_sequences += int(np.count_nonzero(ids[1:] != ids[:-1])) + (not joins)
        self.last = piece
        return True


def ascending(
    sequence_id: Int64[np.ndarray, "N"], item_position: Int64[np.ndarray, "N"]
) -> Bool[np.ndarray, "N-1"]:
    """Tells of each row but the first if it comes strictly after the one before it."""
    same = sequence_id[1:] == sequence_id[:-1]
    return (sequence_id[1:] > sequence_id[:-1]) | (same & (item_position[1:] > item_position[:-1]))


def sorted_order(
    sequence_id: Int64[np.ndarray, "N"], item_position: Int64[np.ndarray, "N"]
) -> Int64[np.ndarray, "N"] | None:
    """The numbers of the rows in order; None if they are in order, without twins, as they are."""
    if ascending(sequence_id, item_position).all():
        return None
    return np.lexsort((item_position, sequence_id))


def refuse_twins(
    sequence_id: Int64[np.ndarray, "N"], item_position: Int64[np.ndarray, "N"], name: Callable[[int], str]
) -> None:
    """Raises a `DataError` if two neighbours have the same keys.

    Args:
      sequence_id: The sequence of each row.
      item_position: The position of each row in its sequence.
      name: Names a row, for the message.
    """
    twins = (sequence_id[1:] == sequence_id[:-1]) & (item_position[1:] == item_position[:-1])
    if twins.any():
        place = int(np.argmax(twins))
        raise DataError(
            f"sequenceId {sequence_id[place]} has itemPosition {item_position[place]} twice: in "
            f"{name(place)} and in {name(place + 1)}. Each item needs a position of its own."
        )


def chunks(tables: Iterable[Table], rows: int | None = None) -> Iterator[Table]:
    """Cuts a stream of sorted rows into tables of whole sequences.

    Args:
      tables: Rows in order.
      rows: A chunk ends at the first sequence that begins at or after so many rows; None is the usual number.
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
    """The first row of `table`, not before row `earliest`, that begins a sequence; None if there is none."""
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
) -> int:
    """Writes all rows to `folder`, in order, and returns the number of sequences.

    Args:
      pieces: Gives the rows.
      keys: The rows without features.
      folder: An empty folder; `sorted_tables` reads it.

    Raises:
      DataError: Two rows have the same sequenceId and itemPosition.
    """
    begins, n_sequences = bucket_begins((piece.table.sequence_id for piece in keys), ROWS_PER_BUCKET)
    origins: list[tuple[int, CheckedPiece]] = []

    def frames() -> Iterator[pl.DataFrame]:
        n_rows = 0
        for piece in pieces():
            origins.append((n_rows, CheckedPiece(piece.file, piece.first_row, piece.table.rows(0, 0))))
            yield _frame(piece.table, n_rows)
            n_rows += len(piece.table)

    for bucket in into_buckets(frames(), begins, folder):
        _sort_bucket(bucket, lambda row: _name(origins, row))
    return n_sequences


def sorted_tables(folder: Path, roles: Mapping[str, ColumnKind]) -> Iterator[Table]:
    """The rows that `sort_on_disk` wrote.

    Args:
      folder: Where.
      roles: Columns that have another kind than their type gives.
    """
    for file in sorted(folder.glob("*.sorted")):
        for frame in stored(file):
            yield _table(frame, roles)


def bucket_begins(
    sequence_ids: Iterable[Int64[np.ndarray, "n"]], rows: int
) -> tuple[Int64[np.ndarray, "buckets"], int]:
    """The smallest sequenceId of each bucket of whole sequences, about equally large; how many sequences.

    Args:
      sequence_ids: The sequence of each row, some rows at a time.
      rows: Rows of a bucket, where that does not make too many.
    """
    ids, counts = np.zeros(0, np.int64), np.zeros(0, np.int64)
    for some in sequence_ids:
        more, number = np.unique(some, return_counts=True)
        ids, place = np.unique(np.concatenate([ids, more]), return_inverse=True)
        counts = np.bincount(place, np.concatenate([counts, number])).astype(np.int64)
    size = max(rows, -(-int(counts.sum()) // MOST_BUCKETS))
    bucket = (np.cumsum(counts) - counts) // size
    return ids[np.flatnonzero(np.diff(bucket, prepend=-1))], len(ids)


def into_buckets(
    frames: Iterable[pl.DataFrame], begins: Int64[np.ndarray, "buckets"], folder: Path
) -> list[Path]:
    """Writes rows to a file a bucket, which `stored` reads; returns the files by ascending sequences.

    Args:
      frames: Rows with a column sequenceId.
      begins: The smallest sequenceId of each bucket.
      folder: Where the files are written.
    """
    writers: dict[Path, pa.RecordBatchStreamWriter] = {}
    with ExitStack() as files:
        for frame in frames:
            bucket = np.searchsorted(begins, frame["sequenceId"].to_numpy(), side="right") - 1
            rows = frame[np.argsort(bucket, kind="stable")]
            numbers, counts = np.unique(bucket, return_counts=True)
            ends = np.cumsum(counts).tolist()
            for number, begin, end in zip(numbers.tolist(), [0, *ends], ends, strict=False):
                file, some = folder / f"{number:05d}.bucket", _arrow(rows[begin:end])
                if file not in writers:
                    writers[file] = files.enter_context(pa.ipc.new_stream(str(file), some.schema))
                writers[file].write_table(some)
    return sorted(writers)


def _sort_bucket(file: Path, name: Callable[[int], str]) -> None:
    frame = pl.concat(list(stored(file)), rechunk=True)
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


def stored(file: Path) -> Iterator[pl.DataFrame]:
    """The rows of a file of sorting, some at a time."""
    with pa.OSFile(str(file)) as source, pa.ipc.open_stream(source) as reader:
        for batch in reader:
            frame = pl.from_arrow(batch)
            assert isinstance(frame, pl.DataFrame)
            yield frame


def _arrow(frame: pl.DataFrame) -> pa.Table:
    return frame.to_arrow(compat_level=pl.CompatLevel.oldest())


def _name(origins: Sequence[tuple[int, CheckedPiece]], row: int) -> str:
    """Names a row of the input."""
    place = bisect.bisect_right([first for first, _ in origins], row) - 1
    first, piece = origins[place]
    return piece.name(row - first)
