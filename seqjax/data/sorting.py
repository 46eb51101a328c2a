"""Rows in the order that every step relies on: by sequence, and in it by time; and no time twice.

`OrderedRows` gives the rows of a table in order, as often as asked. Rows that are not are sorted on disk
first, in bounded memory: they go to buckets by ranges of ids, and each bucket is sorted alone (so that the
longest sequence bounds the memory of sorting). Ids and times of own columns become numbers then, which
`keys.py` keeps the way back of.

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
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from jaxtyping import Bool

from seqjax.data.keys import NUMBERS, Keys, KeyTable, KeyWriter
from seqjax.data.splits import Pieces, sequences
from seqjax.data.tables import ITEM, SEQUENCE, TIME, Table, TableReader
from seqjax.errors import DataError
from seqjax.windows.index import scattered_positions

logger = logging.getLogger(__name__)

ROWS_PER_CHUNK = 1 << 18
MOST_ROWS_PER_CHUNK = 1 << 20
"""Rows after which a long sequence is divided."""
ROWS_PER_BUCKET = 1 << 20
MOST_BUCKETS = 256
"""Buckets are larger rather than more, since each is an open file."""
MOST_DRAWN = 1 << 17
"""Ids that are held to find out where buckets begin."""

ORDER = "order.json"
"""Says, when the order is known, whether rows are in it as they come."""
LENGTH, SCATTERED = "length.npy", "scattered.npy"
"""The number of rows of each sequence, and whether its positions are other than consecutive."""
KEYS = "keys"
"""The folder of own ids and times."""


class OrderedRows:
    """The rows of a table in order, as they come or from where they were sorted."""

    def __init__(self, reader: TableReader, folder: Path) -> None:
        """Looks at the keys of all rows, and sorts the rows if need be, unless that was done before.

        Args:
          reader: The table.
          folder: Where to keep the rows that must be sorted, and what is known of their order.

        Raises:
          DataError: The table cannot be used, or two rows of a sequence are of the same time.
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

    @property
    def keys(self) -> Keys:
        """The ids and times that the numbers of sequences and items stand for."""
        return NUMBERS if self.keys_folder is None else KeyTable(self.keys_folder)

    @property
    def keys_folder(self) -> Path | None:
        """The folder that holds them; None where they are the numbers themselves."""
        return self._folder / KEYS if self._reader.keys.are_own else None

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
            first = next(self._reader.pieces()).frame.drop(SEQUENCE, ITEM, TIME, strict=False)
            types: dict[Any, Any] = dict(first.schema)
            for file in sorted(self._folder.glob("*.sorted")):
                for frame in stored(file):
                    yield frame.cast(types)
            return
        order = _Order(self._reader)
        for piece in self._reader.pieces():
            frame = order.numbered(piece.frame)
            if frame is None:
                raise DataError(f"{piece.file} changed while it was read. Start again.")
            yield frame

    def _put_in_order(self) -> bool:
        keys = self.keys_folder
        order = _Order(self._reader, keys)
        if all(order.numbered(piece.frame) is not None for piece in self._reader.pieces(keys_only=True)):
            order.write(self._folder)
            return True
        logger.info("Rows are not in the order of %s, %s: sorting them.", *self._reader.keys.names)
        if keys is not None:
            shutil.rmtree(keys)
        ids = (piece.frame[SEQUENCE] for piece in self._reader.pieces(keys_only=True))
        begins, order = bucket_begins(ids, ROWS_PER_BUCKET), _Order(self._reader, keys)
        for bucket in into_buckets((piece.frame for piece in self._reader.pieces()), begins, self._folder):
            self._sort_bucket(bucket, order)
        order.write(self._folder)
        return False

    def _sort_bucket(self, file: Path, order: "_Order") -> None:
        """Sorts the rows of a bucket, to a file of its own."""
        frame = pl.concat(list(stored(file)), rechunk=True).sort(SEQUENCE, ITEM, maintain_order=True)
        numbered = order.numbered(frame)
        if numbered is None:
            raise self._refused(frame)
        arrow = _arrow(numbered)
        with pa.ipc.new_stream(str(file.with_suffix(".sorted")), arrow.schema) as writer:
            writer.write_table(arrow, max_chunksize=ROWS_PER_CHUNK)
        file.unlink()

    def _refused(self, frame: pl.DataFrame) -> DataError:
        """The error for sorted rows of which two are of one sequence and time."""
        first = int(np.argmin(ascending(frame[SEQUENCE], frame[ITEM])))
        shown, keys = frame[first], self._reader.keys.names
        names = [
            piece.name(row)
            for piece in self._reader.pieces(keys_only=True)
            for row in piece.frame.with_row_index("")
            .filter((pl.col(SEQUENCE) == shown[SEQUENCE][0]) & (pl.col(ITEM) == shown[ITEM][0]))[""]
            .head(2)
        ]
        id_, time = shown[SEQUENCE][0], shown[TIME if TIME in shown.columns else ITEM][0]
        what = "time" if self._reader.keys.are_own else "position"
        return DataError(
            f"{keys[0]} {id_} has {keys[1]} {time} twice: in {names[0]} and in {names[1]}. Each item needs a "
            f"{what} of its own; ties: order takes such rows in the order of the file."
        )


class _Order:
    """The order of rows that come some at a time, and what is known of their sequences."""

    def __init__(self, reader: TableReader, folder: Path | None = None) -> None:
        """Begins before the first row.

        Args:
          reader: The table.
          folder: Where to write own ids and times; None writes none.
        """
        self._are_own, self._ties = reader.keys.are_own, reader.keys.ties == "order"
        self._keys = None if folder is None else KeyWriter(folder, reader.keys)
        self._last: tuple[Any, Any] | None = None
        self._length: list[np.ndarray] = []
        self._scattered: list[np.ndarray] = []
        self._sequences = 0
        self._position = -1

    def numbered(self, frame: pl.DataFrame) -> pl.DataFrame | None:
        """Rows, at least one, with numbers in place of own ids and times.

        Returns:
          None where the rows are not in order, or do not come after those before.
        """
        ids, times = frame[SEQUENCE], frame[ITEM]
        first, last = (ids[0], times[0]), (ids[-1], times[-1])
        follows = self._last is None or self._last < first or (self._ties and self._last == first)
        if not follows or not ascending(ids, times, ties=self._ties).all():
            return None
        goes_on = self._last is not None and self._last[0] == first[0]
        if self._are_own:
            begins = np.append(not goes_on, (ids[1:] != ids[:-1]).to_numpy())
            if self._keys is not None:
                self._keys.append(ids, begins, frame[TIME])
            frame = self._with_numbers(frame, begins)
        self._look(frame, goes_on=goes_on)
        self._last = last
        return frame

    def _with_numbers(self, frame: pl.DataFrame, begins: Bool[np.ndarray, "N"]) -> pl.DataFrame:
        row = np.arange(len(frame))
        first = np.maximum.accumulate(np.where(begins, row, -1 - self._position))
        numbers = {SEQUENCE: self._sequences - 1 + np.cumsum(begins), ITEM: row - first}
        return frame.drop(TIME).with_columns(**{name: pl.Series(column) for name, column in numbers.items()})

    def _look(self, frame: pl.DataFrame, *, goes_on: bool) -> None:
        ids, positions = (frame[name].to_numpy() for name in (SEQUENCE, ITEM))
        slices = sequences(ids)
        length, scattered = slices.length, scattered_positions(slices, positions)
        if goes_on:
            self._length[-1][-1] += length[0]
            self._scattered[-1][-1] |= scattered[0] or self._position + 1 != positions[0]
            length, scattered = length[1:], scattered[1:]
        if len(length):
            self._length.append(length)
            self._scattered.append(scattered)
        self._sequences += len(length)
        self._position = int(positions[-1])

    def write(self, folder: Path) -> None:
        """Notes the number of rows of each sequence, and whether its positions are scattered."""
        np.save(folder / LENGTH, np.concatenate(self._length))
        np.save(folder / SCATTERED, np.concatenate(self._scattered))
        if self._keys is not None:
            self._keys.finish()


def ascending(sequence: pl.Series, item: pl.Series, *, ties: bool = False) -> Bool[np.ndarray, "_"]:
    """Tells of each row but the first if it comes after the one before it, or with `ties` not before it."""
    later = item[1:] >= item[:-1] if ties else item[1:] > item[:-1]
    return ((sequence[1:] > sequence[:-1]) | ((sequence[1:] == sequence[:-1]) & later)).to_numpy()


def chunks(frames: Iterable[pl.DataFrame], rows: int, most: int | None = None) -> Iterator[pl.DataFrame]:
    """Cuts a stream of sorted rows between sequences.

    Args:
      frames: Rows in the order of their first column, the sequence.
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
    ids = frame.to_series(0).to_numpy()
    before = ids[earliest - 1] if earliest else held[-1].to_series(0)[-1]
    begins = ids[earliest:] != np.concatenate([[before], ids[earliest:-1]])
    return earliest + int(np.argmax(begins)) if begins.any() else None


# Sorting on disk
# ------------------------------------------------------------------------------------


def bucket_begins(ids: Iterable[pl.Series], rows: int) -> pl.Series:
    """The smallest id of each bucket of whole sequences, about equally large.

    Args:
      ids: The sequence of each row, some rows at a time.
      rows: Rows of a bucket, where that does not make too many.
    """
    # Of a table with very many sequences, ids are drawn.
    random, share, n_rows, drawn = np.random.default_rng(0), 1.0, 0, None
    for some in ids:
        n_rows += len(some)
        more = some.filter(pl.Series(random.random(len(some)) < share))
        drawn = more if drawn is None else pl.concat([drawn, more])
        while len(drawn) > MOST_DRAWN:
            drawn, share = drawn.filter(pl.Series(random.random(len(drawn)) < 0.5)), share / 2
    assert drawn is not None, "a table has a row"
    buckets = min(-(-n_rows // rows), MOST_BUCKETS)
    drawn = drawn.sort()
    return drawn.gather(np.arange(buckets) * len(drawn) // buckets).unique().sort()


def into_buckets(frames: Iterable[pl.DataFrame], begins: pl.Series, folder: Path) -> list[Path]:
    """Writes rows to a file a bucket, which `stored` reads; returns the files by ascending sequences.

    Args:
      frames: Rows whose first column says the sequence.
      begins: The smallest of each bucket.
      folder: Where the files are written.
    """
    writers: dict[Path, pa.RecordBatchStreamWriter] = {}
    with ExitStack() as files:
        for frame in frames:
            bucket = begins.search_sorted(frame.to_series(0), side="right").to_numpy().astype(np.int64)
            bucket = np.maximum(bucket - 1, 0)
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
