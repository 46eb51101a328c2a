"""The files of a raw table as a stream of pieces, in bounded memory.

Parquet says its types. csv is text; its types are those of all its cells together, and are settled once it
is read (see `staging.py`), so that they never depend on how a table is cut into files or blocks.
"""

import csv
import io
import logging
import re
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from seqjax.data.csv_dialect import NEWLINE, QUOTE, Dialect, decoded, dialect_of, outside_quotes
from seqjax.errors import DataError

logger = logging.getLogger(__name__)

ROWS_PER_PIECE = 1 << 17
BYTES_PER_BLOCK = 1 << 23
"""The amount of a parquet or csv file that is held at a time."""

DAMAGED = (OSError, EOFError, zlib.error, UnicodeError)
"""Errors of reading a csv file: if it is gzipped, and if it is no UTF-8, too."""
PANDAS_INDEX = re.compile(r"__index_level_[0-9]+__")
"""The names under which pandas writes an index without a name."""
REFUSED = (pl.exceptions.PolarsError, pl.exceptions.PanicException)
"""Errors of polars over csv that it cannot parse; it panics over some ends of files."""
LONGEST_RECORD = 1 << 26
"""Bytes of a csv record; where a quote is not closed, all that follows looks like a single one."""


@dataclass(frozen=True)
class Piece:
    """Some consecutive rows of one file."""

    file: Path
    first_row: int
    """Number of rows of the file that come before."""
    frame: pl.DataFrame

    def name(self, row: int) -> str:
        """Names one of the rows in a message."""
        return f"row {self.first_row + row + 1} of {self.file}"

    def place(self, column: str, wrong: pl.Series) -> str:
        """Names a column and the first of its rows that are wrong."""
        return f"{self.file}: column {column!r}, row {self.first_row + wrong.arg_true()[0] + 1}"


class TableFiles(ABC):
    """Files with the same columns, as one table."""

    def __init__(self, files: Sequence[Path], headers: Iterable[list[str]]) -> None:
        self.files = list(files)
        self.headers: list[list[str]] = []
        passed_over: dict[str, None] = {}
        for header in headers:
            indices = dict.fromkeys(filter(PANDAS_INDEX.fullmatch, header))
            self.headers.append([name for name in header if name not in indices])
            passed_over |= indices
        if passed_over:
            logger.info("Passed over %s: an index that pandas wrote.", ", ".join(passed_over))

    @abstractmethod
    def pieces(self, columns: Sequence[str]) -> Iterator[Piece]:
        """The rows, file after file, with these columns in this order.

        Raises:
          DataError: A file cannot be read.
        """


def first_rows(pieces: Iterable[Piece], n: int | None) -> Iterator[Piece]:
    """The first `n` rows; None gives all."""
    for piece in pieces:
        if n is not None:
            piece = replace(piece, frame=piece.frame.head(n))
            n -= len(piece.frame)
        yield piece
        if n == 0:
            return


class FrameFile(TableFiles):
    """A polars frame, as the only file of a table."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self._frame = frame
        super().__init__([Path("the table")], [frame.columns])

    def pieces(self, columns: Sequence[str]) -> Iterator[Piece]:
        """Reads the rows; as `TableFiles.pieces`."""
        for number, rows in enumerate(self._frame.select(columns).iter_slices(ROWS_PER_PIECE)):
            yield Piece(self.files[0], number * ROWS_PER_PIECE, rows)


class ParquetFiles(TableFiles):
    """Parquet; every file must have the types of the first."""

    def __init__(self, files: Sequence[Path]) -> None:
        super().__init__(files, map(_parquet_header, files))

    def pieces(self, columns: Sequence[str]) -> Iterator[Piece]:
        """Reads the rows; as `TableFiles.pieces`."""
        types = self._types(columns)
        for file in self.files:
            row = 0
            try:
                # Without pre_buffer, pages are read as they are needed rather than a row group at once.
                with pq.ParquetFile(file, pre_buffer=False) as source:
                    for batch in source.iter_batches(ROWS_PER_PIECE, columns=list(columns)):
                        batch.validate(full=True)  # Text that is not UTF-8 must not reach polars.
                        frame = pl.DataFrame(batch).select(columns).cast(pl.Schema(types))
                        yield Piece(file, row, frame)
                        row += len(frame)
            except (OSError, pa.ArrowException, pl.exceptions.PolarsError) as error:
                raise unreadable(file, "parquet", error) from error

    def _types(self, columns: Sequence[str]) -> dict[str, Any]:
        first: dict[str, Any] = {}
        for file in self.files:
            schema = pq.read_schema(file)
            empty = pl.DataFrame(pa.schema([schema.field(name) for name in columns]).empty_table())
            first = first or dict(empty.schema)
            for name, dtype in empty.schema.items():
                if dtype != first[name]:
                    raise DataError(
                        f"{file}: column {name!r} is of type {dtype}, but {first[name]} in {self.files[0]}. "
                        "Write all files of a folder with the same types."
                    )
        return first


class CsvFiles(TableFiles):
    """csv with a header, as text."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._forms = [_form(file) for file in files]
        super().__init__(files, [header for header, _ in self._forms])

    def pieces(self, columns: Sequence[str]) -> Iterator[Piece]:
        """Reads the rows; as `TableFiles.pieces`."""
        for file, (header, dialect) in zip(self.files, self._forms, strict=True):
            row = 0
            try:
                for number, block in enumerate(_blocks(file, dialect)):
                    rows = block[_end_of_first_record(block) :] if number == 0 else block
                    if not rows:
                        continue
                    piece = Piece(file, row, _parsed(rows, header, columns, dialect.separator, (file, row)))
                    yield piece
                    row += len(piece.frame)
            except DAMAGED as error:
                raise unreadable(file, "csv", error) from error


def _parquet_header(file: Path) -> list[str]:
    try:
        return list(pq.read_schema(file).names)
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise unreadable(file, "parquet", error) from error


def _form(file: Path) -> tuple[list[str], Dialect]:
    """The header of a csv file, and its dialect."""
    try:
        dialect = dialect_of(file)
        block = next(_blocks(file, dialect), b"")
        line = block[: _end_of_first_record(block)]
        names = pl.read_csv(line, has_header=False, infer_schema=False, separator=dialect.separator).row(0)
    except (*DAMAGED, *REFUSED) as error:
        raise unreadable(file, "csv", error) from error
    if b"\0" in line:  # Arrow cannot name a column so.
        raise unreadable(file, "csv", ValueError("the header holds a zero byte"))
    if dialect not in (Dialect(), Dialect("utf-8-sig")):
        logger.info("%s is read as %s.", file, dialect)
    return [name or "" for name in names], dialect


def _parsed(
    block: bytes, header: list[str], columns: Sequence[str], separator: str, place: tuple[Path, int]
) -> pl.DataFrame:
    """The cells of whole records, as text.

    Args:
      block: The records, without a header.
      header: The names of all columns.
      columns: The columns to return.
      separator: What separates cells.
      place: The file, and how many of its rows come before.
    """
    # Columns are known by number, since names may be missing, and a row of more cells is a mistake.
    numbers = [str(number) for number in range(len(header))]
    chosen = [str(header.index(name)) for name in columns]
    try:
        frame = pl.read_csv(
            separator.join(numbers).encode() + NEWLINE + block,
            columns=chosen,
            schema=dict.fromkeys(numbers, pl.String()),
            separator=separator,
        ).select(chosen)
    except REFUSED as refused:
        _check_quotes(block, separator, *place)
        _check_cells(block, header, separator, *place)
        raise unreadable(place[0], "csv", refused) from refused
    # Polars fills up rows that are too short, which a file that was cut off ends with.
    if np.count_nonzero(outside_quotes(block, separator.encode())) != len(frame) * (len(header) - 1):
        _check_cells(block, header, separator, *place)
    frame.columns = list(columns)
    return frame


def _check_quotes(block: bytes, separator: str, file: Path, first_row: int) -> None:
    """Raises a `DataError` for the first quote inside a text, neither at an end of it nor doubled."""
    other = rb'[^%b"\r\n]' % re.escape(separator).encode()
    quote = re.search(other + QUOTE + other, block)
    if quote:
        row = first_row + 1 + block.count(NEWLINE, 0, quote.start())
        around = block[max(quote.start() - 20, 0) : quote.end() + 20].decode(errors="replace")
        raise DataError(
            f"{file}: row {row} has a quote inside a text: {around!r}. Put the text in quotes and write "
            'those in it twice, such as "5"" pipe".'
        )


def _check_cells(block: bytes, header: list[str], separator: str, file: Path, first_row: int) -> None:
    """Raises a `DataError` for the first row that has more or fewer cells than the header, if one has."""
    text = io.TextIOWrapper(io.BytesIO(block), encoding="utf-8", errors="replace", newline="")
    try:
        rows = enumerate(csv.reader(text, delimiter=separator), start=first_row + 1)
        row, cells = next((item for item in rows if len(item[1]) != len(header)), (0, header))
    except csv.Error:
        return  # Its reader knows limits that polars does not; then polars decides.
    if not cells:
        raise DataError(f"{file}: row {row} is a blank line. Remove it.")
    if cells is not header:
        raise DataError(
            f"{file}: row {row} has {len(cells)} cells, and the header has {len(header)}. It begins with "
            f"{separator.join(cells)[:60]!r}. Correct the row: a text with {separator!r} in it needs quotes "
            "around it, and quotes must be closed."
        )


def _blocks(file: Path, dialect: Dialect) -> Iterator[bytes]:
    """The content of a csv file in blocks of whole records, without blank lines at its end."""
    rest = b""
    for data in decoded(file, dialect, BYTES_PER_BLOCK):
        rest += data
        newline = rest.rfind(NEWLINE)
        if rest.count(QUOTE, 0, max(newline, 0)) % 2:  # It is part of a text.
            newline = int(np.flatnonzero(outside_quotes(rest, NEWLINE)).max(initial=-1))
        records = rest[: newline + 1].rstrip(b"\r\n")
        if records:
            # Blank lines wait for what follows them: at the end of the file, nothing does.
            end = rest.index(NEWLINE, len(records)) + 1
            yield rest[:end]
            rest = rest[end:]
        if len(rest) > LONGEST_RECORD:
            raise DataError(
                f"{file} cannot be read as csv: a row does not end within {LONGEST_RECORD >> 20} MB, so "
                f"probably a quote is opened and not closed. It begins with {rest[:60]!r}. Close the "
                'quote, or write quotes within a text twice ("").'
            )
    if records := rest.rstrip(b"\r\n"):
        yield records + NEWLINE


def _end_of_first_record(data: bytes) -> int:
    """The end of the first record, or of the data where it holds no whole one."""
    newlines = np.flatnonzero(outside_quotes(data, NEWLINE))
    return int(newlines[0]) + 1 if len(newlines) else len(data)


def unreadable(file: Path, read_format: str, error: BaseException) -> DataError:
    """The error for a file that a reader refuses."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    remedy = "Check the file, and read_format."
    if read_format == "csv" and "utf-8" in reason:
        remedy = "Write it as UTF-8, such as with 'iconv -f latin1 -t utf-8' if it comes from Excel."
    return DataError(f"{file} cannot be read as {read_format}: {reason}. {remedy}")
