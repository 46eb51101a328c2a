"""Rows in the order that every step relies on: ascending (sequenceId, itemPosition), and no pair twice.

`OrderedRows` gives the rows of a table in order, as often as asked. Rows that are not are sorted on disk
first, in bounded memory: they go to buckets by ranges of sequenceId, and each bucket is sorted alone (so that
the longest sequence bounds the memory of sorting).

`chunks` cuts them between sequences, or within one where it is very long. Where chunks end depends on the
sorted rows only, hence never on files or on the order of the input.
"""

import json
import logging
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
from jaxtyping import Bool, Int64

from seqjax.data.splits import Pieces, sequences
from seqjax.data.tables import ITEM_POSITION, KEYS, SEQUENCE_ID, Table, TableReader
from seqjax.errors import DataError
from seqjax.windows.index import scattered_positions

logger = logging.getLogger(__name__)

ROWS_PER_CHUNK = 1 << 18
MOST_ROWS_PER_CHUNK = 1 << 20
"""Rows after which a long sequence is divided."""
ROWS_PER_BUCKET = 1 << 20
MOST_BUCKETS = 256
"""Buckets are larger rather than more, since each is an open file."""

ORDER = "order.json"
"""Says, when the order is known, whether rows are in it as they come."""
LENGTH, SCATTERED = "length.npy", "scattered.npy"
"""The number of rows of each sequence, and whether its positions are other than consecutive."""


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
        note = folder / ORDER
        if not note.is_file():
            if folder.exists():
                shutil.rmtree(folder)
            folder.mkdir(parents=True)
            note.write_text(json.dumps(self._put_in_order()), encoding="utf-8")
        self._in_order: bool = json.loads(note.read_text(encoding="utf-8"))
        self._length = np.load(folder / LENGTH, mmap_mode="r")
        self._scattered = np.load(folder / SCATTERED, mmap_mode="r")
        self.n_sequences = len(self._length)

    def chunks(self) -> Iterator[Table]:
        """The rows in order, some whole sequences at a time.

        Raises:
          DataError: A file changed since it was first read.
        """
        for frame in chunks(self._frames(), ROWS_PER_CHUNK):
            yield Table(frame, self._reader.roles)

    def pieces(self) -> Iterator[tuple[Pieces, Table]]:
        """The rows in order, some at a time, which may be of a part of a sequence.

        Raises:
          DataError: A file changed since it was first read.
        """
        end = n_rows = split_before = 0
        last_id: int | None = None
        for frame in chunks(self._frames(), ROWS_PER_CHUNK, MOST_ROWS_PER_CHUNK):
            table = Table(frame, self._reader.roles)
            slices, split = sequences(table.sequence_id), table.split
            goes_on = last_id == slices.sequence_id[0]
            first, before = (end - 1, n_rows) if goes_on else (end, 0)
            end = first + len(slices)
            slices = replace(slices, scattered=np.asarray(self._scattered[first:end]))
            length = np.asarray(self._length[first:end])
            yield Pieces(slices, first, before, length, split, split_before if goes_on else 0), table
            n_rows = int(slices.length[-1]) + (before if len(slices) == 1 else 0)
            last_id, split_before = slices.sequence_id[-1], 0 if split is None else int(split[-1])

    def _frames(self) -> Iterator[pl.DataFrame]:
        if not self._in_order:
            schema = next(self._reader.pieces()).frame.schema
            for file in sorted(self._folder.glob("*.sorted")):
                for frame in stored(file):
                    yield frame.cast(schema)
            return
        order = _Order()
        for piece in self._reader.pieces():
            if not order.continues(piece.frame):
                raise DataError(f"{piece.file} changed while it was read. Start again.")
            yield piece.frame

    def _put_in_order(self) -> bool:
        order = _Order()
        if all(order.continues(piece.frame) for piece in self._reader.pieces(keys_only=True)):
            order.write(self._folder)
            return True
        logger.info("Rows are not in the order of %s, %s: sorting them.", *KEYS)
        keys = (piece.frame[SEQUENCE_ID] for piece in self._reader.pieces(keys_only=True))
        begins, order = bucket_begins(keys, ROWS_PER_BUCKET), _Order()
        for bucket in into_buckets((piece.frame for piece in self._reader.pieces()), begins, self._folder):
            self._sort_bucket(bucket, order)
        order.write(self._folder)
        return False

    def _sort_bucket(self, file: Path, order: "_Order") -> None:
        """Sorts the rows of a bucket, to a file of its own."""
        frame = pl.concat(list(stored(file)), rechunk=True).sort(KEYS)
        ids, positions = (frame[name].to_numpy() for name in KEYS)
        twins = ~ascending(ids, positions)
        if twins.any():
            raise self._refused(int(ids[np.argmax(twins)]), int(positions[np.argmax(twins)]))
        order.continues(frame)
        arrow = _arrow(frame)
        with pa.ipc.new_stream(str(file.with_suffix(".sorted")), arrow.schema) as writer:
            writer.write_table(arrow, max_chunksize=ROWS_PER_CHUNK)
        file.unlink()

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


class _Order:
    """The order of rows that come some at a time, and what is known of their sequences."""

    def __init__(self) -> None:
        self._last: tuple[int, int] | None = None
        self._length: list[np.ndarray] = []
        self._scattered: list[np.ndarray] = []

    def continues(self, frame: pl.DataFrame) -> bool:
        """Tells whether these rows, at least one, are in order and come after those before."""
        ids, positions = (frame[name].to_numpy() for name in KEYS)
        if self._last is not None and self._last >= (ids[0], positions[0]):
            return False
        if not ascending(ids, positions).all():
            return False
        slices = sequences(ids)
        length, scattered = slices.length, scattered_positions(slices, positions)
        if self._last is not None and self._last[0] == ids[0]:
            self._length[-1][-1] += length[0]
            self._scattered[-1][-1] |= scattered[0] or self._last[1] + 1 != positions[0]
            length, scattered = length[1:], scattered[1:]
        if len(length):
            self._length.append(length)
            self._scattered.append(scattered)
        self._last = int(ids[-1]), int(positions[-1])
        return True

    def write(self, folder: Path) -> None:
        """Notes the number of rows of each sequence, and whether its positions are scattered."""
        np.save(folder / LENGTH, np.concatenate(self._length))
        np.save(folder / SCATTERED, np.concatenate(self._scattered))


def ascending(
    sequence_id: Int64[np.ndarray, "N"], item_position: Int64[np.ndarray, "N"]
) -> Bool[np.ndarray, "N-1"]:
    """Tells of each row but the first if it comes strictly after the one before it."""
    same = sequence_id[1:] == sequence_id[:-1]
    return (sequence_id[1:] > sequence_id[:-1]) | (same & (item_position[1:] > item_position[:-1]))


def chunks(frames: Iterable[pl.DataFrame], rows: int, most: int | None = None) -> Iterator[pl.DataFrame]:
    """Cuts a stream of sorted rows between sequences.

    Args:
      frames: Rows in the order of their sequenceId.
      rows: A chunk ends at the first sequence that begins at or after so many rows.
      most: A chunk of so many rows ends within a sequence; None never divides one.
    """
    held: list[pl.DataFrame] = []
    n_rows = 0
    for frame in frames:
        while True:
            end = _first_begin(frame, held, rows - n_rows)
            if most is not None and most - n_rows < (len(frame) if end is None else end):
                end = most - n_rows
            if end is None:
                break
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


def bucket_begins(sequence_ids: Iterable[pl.Series], rows: int) -> Int64[np.ndarray, "buckets"]:
    """The smallest sequenceId of each bucket of whole sequences, about equally large.

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
    return ids[np.flatnonzero(np.diff(bucket, prepend=-1))]


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


def stored(file: Path) -> Iterator[pl.DataFrame]:
    """The rows of a file of sorting, some at a time."""
    with pa.OSFile(str(file)) as source, pa.ipc.open_stream(source) as reader:
        yield from map(pl.DataFrame, reader)


def _arrow(frame: pl.DataFrame) -> pa.Table:
    # Arrow lacks integers of 128 bits, which wait as text.
    return frame.cast({pl.Int128: pl.String}).to_arrow(compat_level=pl.CompatLevel.oldest())
