"""Own columns of ids and times, and the way back to them.

Windows know sequences and items by number. Where a table names its own columns, its sequences are numbered in
the order of their ids, and the items of each in the order of their times, both from 0; a folder keeps what
the numbers stand for, as the table has it:

    keys.json         names of the columns, the form of times, numbers of sequences and rows
    sequences.arrow   id, firstRow, rows: a line a sequence
    times.arrow       time: a line a row, sequence after sequence

Files are read a batch at a time, so that memory stays bounded however many sequences there are.
"""

import json
import logging
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import pyarrow as pa
from jaxtyping import Bool, Int64, Integer

from seqjax.config.base import ConfigModel, validate
from seqjax.config.keys import ITEM_POSITION, KeyColumns
from seqjax.data.table_files import Piece
from seqjax.data.times import RECENT, Recent, counted_on
from seqjax.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

CONTENT, SEQUENCES, TIMES = "keys.json", "sequences.arrow", "times.arrow"
LINES = 1 << 16
"""Lines of a batch."""
SEQUENCES_AT_ONCE = 1 << 14
"""Sequences whose newest times are looked at together."""


def checked_id(piece: Piece, column: pl.Series) -> pl.Series:
    """A column of ids, whose values are checked.

    Raises:
      DataError: An id is missing, or cannot be compared with others.
    """
    dtype = column.dtype
    if dtype.is_nested() or isinstance(dtype, (pl.Object, pl.Unknown)):
        raise DataError(
            f"{piece.file}: column {column.name!r} is of type {dtype}, which names no sequence. A column of "
            "ids holds text, numbers, dates or bytes."
        )
    missing = column.is_null() | column.is_nan() if dtype.is_float() else column.is_null()
    if missing.any():
        raise DataError(f"{piece.place(column.name, missing)} is empty. Every row needs an id.")
    return column.cast(pl.String) if isinstance(dtype, (pl.Categorical, pl.Enum, pl.Int128)) else column


class Keys:
    """Ids and times that are the numbers of sequences and items themselves."""

    columns = KeyColumns()

    def of(
        self, sequence: Integer[np.ndarray, "R"], item: Integer[np.ndarray, "R"]
    ) -> tuple[pl.Series, pl.Series]:
        """The ids and times of items, under the names of their columns.

        Args:
          sequence: The number of each item's sequence.
          item: Its number in the sequence; items after the last have the times that would come next, and
            those before the first the times that would have come before.
        """
        names = self.columns.names
        return pl.Series(names[0], sequence, pl.Int64), pl.Series(names[1], item, pl.Int64)

    def name(self, sequence: int) -> str:
        """Names a sequence in a message."""
        return f"sequence {sequence}"


NUMBERS = Keys()
"""Those of the documented columns."""


class _Content(ConfigModel):
    """The content of keys.json."""

    format: Literal["seqjax-keys"] = "seqjax-keys"
    version: Literal[1] = 1
    id_column: str
    time_column: str
    time_format: str | None
    sequences: int
    rows: int


class KeyTable(Keys):
    """Ids and times in a folder."""

    def __init__(self, folder: Path) -> None:
        """Reads what the folder holds.

        Raises:
          DataError: A file is missing or damaged.
        """
        file = folder / CONTENT
        try:
            content = validate(_Content, json.loads(file.read_text(encoding="utf-8")), str(file))
        except (OSError, ValueError, ConfigError) as error:
            raise DataError(
                f"{file}, which keeps the ids and times of the data, cannot be read: {error}. Run preprocess "
                "again."
            ) from error
        self.columns = KeyColumns(
            id_column=content.id_column, time_column=content.time_column, time_format=content.time_format
        )
        self._sequences = _Lines(folder / SEQUENCES, content.sequences)
        self._times = _Lines(folder / TIMES, content.rows)
        self._has_told = False

    def of(
        self, sequence: Integer[np.ndarray, "R"], item: Integer[np.ndarray, "R"]
    ) -> tuple[pl.Series, pl.Series]:
        """The ids and times of items; see `Keys.of`."""
        numbers, which = np.unique(sequence, return_inverse=True)
        lines = self._sequences.at(numbers)
        first, rows = (lines[name].to_numpy() for name in ("firstRow", "rows"))
        times = self._times.at(first[which] + np.clip(item, 0, rows[which] - 1))["time"]
        after = np.maximum(item - (rows[which] - 1), 0) + np.minimum(item, 0)
        if self.columns.time_column == ITEM_POSITION and times.dtype.is_integer():
            times = (times + pl.Series(after)).cast(times.dtype, strict=False)
        else:
            times = self._counted_on(times, lines, which, after)
        names = self.columns.names
        return lines["id"].gather(which).alias(names[0]), times.alias(names[1])

    def _counted_on(
        self,
        times: pl.Series,
        sequences: pl.DataFrame,
        which: Int64[np.ndarray, "R"],
        after: Int64[np.ndarray, "R"],
    ) -> pl.Series:
        """Times, so many steps later.

        Args:
          times: The times.
          sequences: The lines of sequences.
          which: The sequence of each time, by its line.
          after: The number of steps of each.
        """
        order = np.argsort(which, kind="stable")
        order = order[after[order] != 0]
        borders = np.arange(0, len(sequences) + SEQUENCES_AT_ONCE, SEQUENCES_AT_ONCE)
        for some in np.split(order, np.searchsorted(which[order], borders)):
            if not len(some):
                continue
            numbers, sequence = np.unique(which[some], return_inverse=True)
            lines = sequences[numbers]
            further, usual = counted_on(
                self._recent(pl.concat([lines, self._longest])),
                times.gather(some),
                sequence,
                after[some],
                self.columns.time_format,
            )
            times = times.scatter(some, further)
            unusual = np.flatnonzero(~usual[:-1])
            if len(unusual) and not self._has_told:
                self._has_told = True
                self._tell(lines["id"][int(unusual[0])])
        return times

    @cached_property
    def _longest(self) -> pl.DataFrame:
        """The line of the longest sequence among the first ones, whose step stands in for others'."""
        lines = self._sequences.at(np.arange(min(LINES, self._sequences.count)))
        return lines[[int(np.argmax(lines["rows"].to_numpy()))]]

    def _recent(self, sequences: pl.DataFrame) -> Recent:
        """The newest times of sequences, whose lines are given."""
        first, rows = (sequences[name].to_numpy() for name in ("firstRow", "rows"))
        count = np.minimum(rows, RECENT + 1)
        sequence = np.repeat(np.arange(len(rows)), count)
        before = np.cumsum(count) - count
        at = (first + rows - count - before)[sequence] + np.arange(len(sequence))
        return Recent(self._times.at(at)["time"], sequence)

    def _tell(self, sequence: object) -> None:
        """Says of a sequence that its times are estimates."""
        logger.info(
            "%s %s has no usual step between its times: %s of items that are not in the data is counted on "
            "by the median of its last %d steps. So it is for others like it.",
            *(self.columns.names[0], _shown(sequence), self.columns.names[1], RECENT),
        )

    def name(self, sequence: int) -> str:
        """Names a sequence in a message."""
        return f"{self.columns.names[0]} {_shown(self._sequences.at(np.array([sequence]))['id'][0])}"


def _shown(value: object) -> str:
    return repr(value) if isinstance(value, str) else str(value)


class KeyWriter:
    """Writes ids and times, in the order of sequences and items, to a folder."""

    def __init__(self, folder: Path, columns: KeyColumns) -> None:
        """Makes the folder, where nothing is yet."""
        folder.mkdir()
        self._folder = folder
        self._columns = columns
        self._sequences, self._times = _LineFile(folder / SEQUENCES), _LineFile(folder / TIMES)
        self._open: pl.DataFrame | None = None
        """The newest sequence, which may go on: its id and first row."""

    def append(self, ids: pl.Series, begins: Bool[np.ndarray, "N"], times: pl.Series) -> None:
        """Writes rows that follow those before.

        Args:
          ids: The id of each row.
          begins: True where a row is the first of a sequence.
          times: The time of each row.
        """
        first = pl.Series("firstRow", self._times.count + np.flatnonzero(begins), pl.Int64)
        new = pl.DataFrame([ids.filter(pl.Series(begins)).alias("id"), first])
        started = new if self._open is None else pl.concat([self._open, new])
        self._times.append(times.alias("time").to_frame())
        self._close(started[:-1], started["firstRow"][1:])
        self._open = started[-1:]

    def finish(self) -> None:
        """Writes what is left, and the description."""
        assert self._open is not None, "a table has a row"
        self._close(self._open, pl.Series([self._times.count]))
        for file in (self._sequences, self._times):
            file.finish()
        content = _Content(
            id_column=self._columns.names[0],
            time_column=self._columns.names[1],
            time_format=self._columns.time_format,
            sequences=self._sequences.count,
            rows=self._times.count,
        )
        (self._folder / CONTENT).write_text(content.model_dump_json(indent=1) + "\n", encoding="utf-8")

    def _close(self, sequences: pl.DataFrame, end: pl.Series) -> None:
        self._sequences.append(sequences.with_columns((end - sequences["firstRow"]).alias("rows")))


class _LineFile:
    """An Arrow file of batches of `LINES` lines, the last one shorter."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: pl.DataFrame | None = None
        self._writer: pa.RecordBatchFileWriter | None = None
        self.count = 0

    def append(self, lines: pl.DataFrame) -> None:
        self.count += len(lines)
        held = lines if self._held is None else pl.concat([self._held, lines])
        whole = len(held) // LINES * LINES
        self._write(held[:whole])
        self._held = held[whole:]

    def finish(self) -> None:
        assert self._held is not None
        self._write(self._held)
        assert self._writer is not None
        self._writer.close()

    def _write(self, lines: pl.DataFrame) -> None:
        arrow = lines.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
        if self._writer is None:
            self._writer = pa.ipc.new_file(
                str(self._path), arrow.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")
            )
        for batch in arrow.to_batches(max_chunksize=LINES):
            self._writer.write_batch(batch)


class _Lines:
    """An Arrow file that `_LineFile` wrote, for lines in any order."""

    def __init__(self, path: Path, count: int) -> None:
        self._path = path
        self.count = count

    def at(self, numbers: Int64[np.ndarray, "N"]) -> pl.DataFrame:
        """The lines of these numbers."""
        order = np.argsort(numbers, kind="stable")
        batch, line = np.divmod(numbers[order], LINES)
        batches, begins = np.unique(batch, return_index=True)
        try:
            with pa.OSFile(str(self._path)) as file, pa.ipc.open_file(file) as reader:
                parts = [
                    pl.DataFrame(reader.get_batch(number))[some]
                    for number, some in zip(batches.tolist(), np.split(line, begins[1:]), strict=True)
                ]
        except (OSError, pa.ArrowException, IndexError, pl.exceptions.PolarsError) as error:
            raise DataError(
                f"{self._path} cannot be read, or is of other data ({error}). Run preprocess again."
            ) from error
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return pl.concat(parts)[back]
