"""Rows in the order that every step relies on: ascending (sequenceId, itemPosition), and no pair twice.

`OrderedRows` gives the rows of a table in order, as often as asked. Rows that are not are sorted on disk
first, in bounded memory: they go to buckets by ranges of sequenceId, and each bucket is sorted alone.

`chunks` cuts them into tables of whole sequences. Where chunks end depends on the sorted rows only, hence
never on files or on the order of the input. A sequence is never divided, so that memory is bounded by the
longest one.
"""

import json
import logging
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
from jaxtyping import Bool, Int64

from seqjax.data.tables import ITEM_POSITION, KEYS, SEQUENCE_ID, Table, TableReader
from seqjax.errors import DataError

logger = logging.getLogger(__name__)

ROWS_PER_CHUNK = 1 << 18
ROWS_PER_BUCKET = 1 << 20
MOST_BUCKETS = 256
"""Buckets are larger rather than more, since each is an open file."""

ORDER = "order.json"
"""Says, when the order is known, whether rows are in it as they come, and how many sequences there are."""


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

    def chunks(self) -> Iterator[Table]:
        """The rows in order, some whole sequences at a time.

        Raises:
          DataError: A file changed since it was first read.
        """
        for frame in chunks(self._as_they_come() if self._in_order else self._sorted(), ROWS_PER_CHUNK):
            yield Table(frame, self._reader.roles)

    def _as_they_come(self) -> Iterator[pl.DataFrame]:
        order = _Order()
        for piece in self._reader.pieces():
            if not order.continues(piece.frame):
                raise DataError(f"{piece.file} changed while it was read. Start again.")
            yield piece.frame

    def _sorted(self) -> Iterator[pl.DataFrame]:
        schema = next(self._reader.pieces()).frame.schema
        for file in sorted(self._folder.glob("*.sorted")):
            for frame in stored(file):
                yield frame.cast(dict(schema))

    def _put_in_order(self) -> tuple[bool, int]:
        order = _Order()
        if all(order.continues(piece.frame) for piece in self._reader.pieces(keys_only=True)):
            return True, order.n_sequences
        logger.info("Rows are not in the order of %s, %s: sorting them.", *KEYS)
        keys = (piece.frame[SEQUENCE_ID] for piece in self._reader.pieces(keys_only=True))
        begins, n_sequences = bucket_begins(keys, ROWS_PER_BUCKET)
        for bucket in into_buckets((piece.frame for piece in self._reader.pieces()), begins, self._folder):
            twins = _sort_bucket(bucket)
            if twins is not None:
                raise self._refused(*twins)
        return False, n_sequences

    def _refused(self, sequence_id: int, item_position: int) -> DataError:
        names = [
            piece.name(row)
            for piece in self._reader.pieces(keys_only=True)
            for row in piece.frame.with_row_index("").filter(
                (pl.col(SEQUENCE_ID) == sequence_id) & (pl.col(ITEM_POSITION) == item_position)
            )[""]
        ]
        return DataError(
            f"sequenceId {sequence_id} has itemPosition {item_position} twice: in {names[0]} and in "
            f"{names[1]}. Each item needs a position of its own."
        )


@dataclass
class _Order:
    """The order of rows that come some at a time."""

    n_sequences: int = 0
    """Number of sequences so far, where rows are in order."""
    last: tuple[int, int] | None = None
    """The keys of the last row."""

    def continues(self, frame: pl.DataFrame) -> bool:
        """Tells whether these rows, at least one, are in order and come after those before."""
        ids, positions = (frame[name].to_numpy() for name in KEYS)
        if self.last is not None and self.last >= (ids[0], positions[0]):
            return False
        if not ascending(ids, positions).all():
            return False
        joins = self.last is not None and self.last[0] == ids[0]
        self.n_sequences += int(np.count_nonzero(ids[1:] != ids[:-1])) + (0 if joins else 1)
        self.last = int(ids[-1]), int(positions[-1])
        return True


def ascending(
    sequence_id: Int64[np.ndarray, "N"], item_position: Int64[np.ndarray, "N"]
) -> Bool[np.ndarray, "N-1"]:
    """Tells of each row but the first if it comes strictly after the one before it."""
    same = sequence_id[1:] == sequence_id[:-1]
    return (sequence_id[1:] > sequence_id[:-1]) | (same & (item_position[1:] > item_position[:-1]))


def chunks(frames: Iterable[pl.DataFrame], rows: int) -> Iterator[pl.DataFrame]:
    """Cuts a stream of sorted rows between sequences.

    Args:
      frames: Rows in the order of their sequenceId.
      rows: A chunk ends at the first sequence that begins at or after so many rows.
    """
    held: list[pl.DataFrame] = []
    n_rows = 0
    for frame in frames:
        while (end := _first_begin(frame, held, rows - n_rows)) is not None:
            yield pl.concat([*held, frame[:end]], rechunk=True)
            frame = frame[end:]
            held, n_rows = [], 0
        held.append(frame)
        n_rows += len(frame)
    if n_rows:
        yield pl.concat(held, rechunk=True)


def _first_begin(frame: pl.DataFrame, held: list[pl.DataFrame], earliest: int) -> int | None:
    """The first row of `frame`, not before row `earliest`, that begins a sequence; None if there is none."""
    earliest = max(earliest, 0 if held else 1)
    if earliest >= len(frame):
        return None
    ids = frame[SEQUENCE_ID].to_numpy()
    before = ids[earliest - 1] if earliest else held[-1][SEQUENCE_ID][-1]
    begins = ids[earliest:] != np.concatenate([[before], ids[earliest:-1]])
    return earliest + int(np.argmax(begins)) if begins.any() else None


# Sorting on disk
# ------------------------------------------------------------------------------------


def bucket_begins(sequence_ids: Iterable[pl.Series], rows: int) -> tuple[Int64[np.ndarray, "buckets"], int]:
    """The smallest sequenceId of each bucket of whole sequences, about equally large; how many sequences.

    Args:
      sequence_ids: The sequence of each row, some rows at a time.
      rows: Rows of a bucket, where that does not make too many.
    """
    ids, counts = np.zeros(0, np.int64), np.zeros(0, np.int64)
    for some in sequence_ids:
        more, number = np.unique(some.to_numpy(), return_counts=True)
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
            bucket = np.searchsorted(begins, frame[SEQUENCE_ID].to_numpy(), side="right") - 1
            rows = frame[np.argsort(bucket, kind="stable")]
            numbers, counts = np.unique(bucket, return_counts=True)
            ends = np.cumsum(counts).tolist()
            for number, begin, end in zip(numbers.tolist(), [0, *ends], ends, strict=False):
                file, some = folder / f"{number:05d}.bucket", _arrow(rows[begin:end])
                if file not in writers:
                    writers[file] = files.enter_context(pa.ipc.new_stream(str(file), some.schema))
                writers[file].write_table(some)
    return sorted(writers)


def _sort_bucket(file: Path) -> tuple[int, int] | None:
    """Sorts the rows of a bucket, to a file of its own; returns the keys of two rows that have the same."""
    frame = pl.concat(list(stored(file)), rechunk=True)
    ids, positions = (frame[name].to_numpy() for name in KEYS)
    if not ascending(ids, positions).all():
        order = np.lexsort((positions, ids))
        frame, ids, positions = frame[order], ids[order], positions[order]
        twins = ~ascending(ids, positions)
        if twins.any():
            return int(ids[np.argmax(twins)]), int(positions[np.argmax(twins)])
    arrow = _arrow(frame)
    with pa.ipc.new_stream(str(file.with_suffix(".sorted")), arrow.schema) as writer:
        writer.write_table(arrow, max_chunksize=ROWS_PER_CHUNK)
    file.unlink()
    return None


def stored(file: Path) -> Iterator[pl.DataFrame]:
    """The rows of a file of sorting, some at a time."""
    with pa.OSFile(str(file)) as source, pa.ipc.open_stream(source) as reader:
        for batch in reader:
            frame = pl.from_arrow(batch)
            assert isinstance(frame, pl.DataFrame)
            yield frame


def _arrow(frame: pl.DataFrame) -> pa.Table:
    # Arrow lacks integers of 128 bits, which wait as text.
    return frame.cast({pl.Int128: pl.String}).to_arrow(compat_level=pl.CompatLevel.oldest())
