"""The files of a raw table as a stream of typed pieces, in bounded memory.

Parquet says its types. The types of csv are those of all its cells together, and are found while reading: the
first block is looked at, later ones are parsed as those types, and a block that does not fit widens them
(whole number, number, text). A reader then has to begin again, since the rows that it already has were
parsed too narrowly; `TypesWidened` tells it so. So one parse does where the beginning of a table is like the
rest, and types never depend on how a table is cut into files or blocks.
"""

import csv
import gzip
import io
import re
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from seqjax.errors import DataError

Types = dict[str, Any]
"""Polars types by column."""

ROWS_PER_PIECE = 1 << 17
BYTES_PER_BLOCK = 1 << 23
"""How much of a parquet or csv file is held at a time."""

NEWLINE, QUOTE, COMMA = b"\n", b'"', b","
STRAY_QUOTE = re.compile(rb'[^,"\r\n]"[^,"\r\n]')
BYTE_ORDER_MARK, GZIP = b"\xef\xbb\xbf", b"\x1f\x8b"
DAMAGED = (OSError, EOFError, zlib.error)
"""What reading a csv file may raise; the latter two, if it is gzipped."""
REFUSED = (pl.exceptions.PolarsError, pl.exceptions.PanicException)
"""What polars raises over csv that it cannot parse; it panics over some ends of files."""
LONGEST_RECORD = 1 << 26
"""Bytes of a csv record; where a quote is not closed, all that follows looks like a single one."""


class TypesWidened(Exception):
    """A column of csv files holds more than the type that its first rows have; read the table again."""


@dataclass(frozen=True)
class Piece:
    """Some consecutive rows of one file."""

    file: Path
    first_row: int
    """How many rows of the file come before."""
    frame: pl.DataFrame


class TableFiles(ABC):
    """Files with the same columns, as one table."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = list(files)
        self.headers = [self._header(file) for file in self.files]

    @abstractmethod
    def pieces(self, columns: Sequence[str]) -> Iterator[Piece]:
        """The rows, file after file, with these columns in this order.

        Raises:
          DataError: A file cannot be read.
          TypesWidened: All that was given out so far has too narrow types.
        """

    @abstractmethod
    def _header(self, file: Path) -> list[str]: ...


class FrameFile(TableFiles):
    """A polars frame, as the only file of a table."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self._frame = frame
        super().__init__([Path("the table")])

    def _header(self, file: Path) -> list[str]:
        del file
        return self._frame.columns

    def pieces(self, columns: Sequence[str]) -> Iterator[Piece]:
        """See `TableFiles`."""
        frame = self._frame.select(columns)
        for first, part in zip(
            range(0, len(frame), ROWS_PER_PIECE), frame.iter_slices(ROWS_PER_PIECE), strict=True
        ):
            yield Piece(self.files[0], first, part)


class ParquetFiles(TableFiles):
    """Parquet; every file must have the types of the first."""

    def _header(self, file: Path) -> list[str]:
        try:
            return list(pq.read_schema(file).names)
        except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
            raise unreadable(file, "parquet", error) from error

    def pieces(self, columns: Sequence[str]) -> Iterator[Piece]:
        """See `TableFiles`."""
        types = self._types(columns)
        for file in self.files:
            row = 0
            try:
                # Without pre_buffer, pages are read as they are needed rather than a row group at once.
                with pq.ParquetFile(file, pre_buffer=False) as source:
                    for batch in source.iter_batches(ROWS_PER_PIECE, columns=list(columns)):
                        batch.validate(full=True)  # Text that is not UTF-8 must not reach polars.
                        frame = pl.from_arrow(batch)
                        assert isinstance(frame, pl.DataFrame)
                        yield Piece(
                            file, row, frame.select(pl.col(name).cast(types[name]) for name in columns)
                        )
                        row += len(frame)
            except (OSError, pa.ArrowException, pl.exceptions.PolarsError) as error:
                raise unreadable(file, "parquet", error) from error

    def _types(self, columns: Sequence[str]) -> Types:
        first: Types = {}
        for file in self.files:
            schema = pq.read_schema(file)
            empty = pl.from_arrow(pa.schema([schema.field(name) for name in columns]).empty_table())
            assert isinstance(empty, pl.DataFrame)
            first = first or dict(empty.schema)
            for name, dtype in empty.schema.items():
                if dtype != first[name]:
                    raise DataError(
                        f"{file}: column {name!r} is of type {dtype}, but {first[name]} in {self.files[0]}. "
                        "Write all files of a folder with the same types."
                    )
        return first


class CsvFiles(TableFiles):
    """Comma-separated values with a header; an empty cell is null."""

    def __init__(self, files: Sequence[Path], max_rows: int | None = None) -> None:
        super().__init__(files)
        self._max_rows = max_rows
        self.types: Types = {}
        """Types found so far; a column without a value has none yet."""
        self._begun = False

    def _header(self, file: Path) -> list[str]:
        try:
            block = next(_blocks(file), b"")
            line = block[: _end_of_records(block, 1)]
            names = pl.read_csv(line, has_header=False, infer_schema=False).row(0)
        except (*DAMAGED, *REFUSED) as error:
            raise unreadable(file, "csv", error) from error
        return [name or "" for name in names]

    def pieces(self, columns: Sequence[str]) -> Iterator[Piece]:
        """See `TableFiles`."""
        left, self._begun = self._max_rows, False
        for file, header in zip(self.files, self.headers, strict=True):
            row = 0
            try:
                for number, block in enumerate(_blocks(file)):
                    if left == 0:
                        return
                    begin = _end_of_records(block, 1) if number == 0 else 0
                    end = len(block) if left is None else _end_of_records(block, left, begin)
                    if begin == end:
                        continue
                    frame = self._parsed(file, header, columns, block[begin:end], row)
                    self._begun = True
                    yield Piece(file, row, frame)
                    row += len(frame)
                    left = None if left is None else left - len(frame)
            except DAMAGED as error:
                raise unreadable(file, "csv", error) from error

    def _parsed(
        self, file: Path, header: list[str], columns: Sequence[str], block: bytes, row: int
    ) -> pl.DataFrame:
        try:
            frame = self._typed_block(header, columns, block)
        except REFUSED as refused:
            _check_quotes(file, block, row)
            _check_cells(file, header, block, row)
            raise unreadable(file, "csv", refused) from refused
        # Polars fills up rows that are too short, which a file that was cut off ends with.
        if _separators(block) != len(frame) * (len(header) - 1):
            _check_cells(file, header, block, row)
        return frame

    def _typed_block(self, header: list[str], columns: Sequence[str], block: bytes) -> pl.DataFrame:
        error: BaseException | None = None
        if self.types:
            try:
                frame = _read_block(block, header, columns, self.types)
                if all(name in self.types or column_is_empty(frame[name]) for name in columns):
                    return frame
            except REFUSED as refused:
                error = refused
        found = _read_block(block, header, columns, {})
        before = dict(self.types)
        self.types = _widened(self.types, found)
        if self.types == before and error is not None:
            raise error
        if self._begun and self.types != before:
            raise TypesWidened
        return _read_block(block, header, columns, self.types) if before else _typed(found, self.types)


def _read_block(block: bytes, header: list[str], columns: Sequence[str], types: Types) -> pl.DataFrame:
    """Parses rows without a header; types are inferred from all cells if none are given."""
    # Columns are known by number, since names may be missing, and a row of more cells is a mistake.
    numbers = ",".join(map(str, range(len(header)))).encode() + NEWLINE
    schema = {str(n): types.get(name, pl.String()) for n, name in enumerate(header)}
    places = [header.index(name) for name in columns]
    frame = pl.read_csv(
        numbers + block,
        columns=[str(place) for place in places],
        schema=schema if types else None,
        infer_schema_length=None,
        try_parse_dates=False,
    ).select(str(place) for place in places)
    frame.columns = list(columns)
    return frame


def _separators(block: bytes) -> int:
    """Number of commas outside quotes."""
    if QUOTE not in block:
        return block.count(COMMA)
    characters = np.frombuffer(block, np.uint8)
    outside = ~np.logical_xor.accumulate(characters == ord(QUOTE))
    return int(np.count_nonzero(outside & (characters == ord(COMMA))))


def _check_quotes(file: Path, block: bytes, first_row: int) -> None:
    """Raises a `DataError` for the first quote inside a text, neither at an end of it nor doubled."""
    found = STRAY_QUOTE.search(block)
    if found:
        row = first_row + 1 + block.count(NEWLINE, 0, found.start())
        around = block[max(found.start() - 20, 0) : found.end() + 20].decode(errors="replace")
        raise DataError(
            f"{file}: row {row} has a quote inside a text: {around!r}. Put the text in quotes and write "
            'those in it twice, such as "5"" pipe".'
        )


def _check_cells(file: Path, header: list[str], block: bytes, first_row: int) -> None:
    """Raises a `DataError` for the first row that has more or fewer cells than the header, if one has."""
    text = io.TextIOWrapper(io.BytesIO(block), encoding="utf-8", errors="replace", newline="")
    try:
        rows = enumerate(csv.reader(text), start=first_row + 1)
        row, cells = next((item for item in rows if len(item[1]) != len(header)), (0, header))
    except csv.Error:
        return  # Its reader knows limits that polars does not; then polars decides.
    if not cells:
        raise DataError(f"{file}: row {row} is a blank line. Remove it.")
    if cells is not header:
        raise DataError(
            f"{file}: row {row} has {len(cells)} cells, and the header has {len(header)}. It begins with "
            f"{','.join(cells)[:60]!r}. Correct the row: a text with a comma needs quotes around it, and "
            "quotes must be closed."
        )


def _typed(frame: pl.DataFrame, types: Types) -> pl.DataFrame:
    return frame.with_columns(pl.col(name).cast(pl.String) for name in frame.columns if name not in types)


def column_is_empty(column: pl.Series) -> bool:
    """Whether a column holds nothing but nulls."""
    return column.null_count() == len(column)


def _widened(types: Types, found: pl.DataFrame) -> Types:
    """Types that hold what they held and the values found too; a column without values has no say."""
    wider = dict(types)
    for column in found:
        one, other = wider.get(column.name, column.dtype), column.dtype
        if column_is_empty(column):
            continue
        if one == other:
            wider[column.name] = one
        elif one.is_integer() and other.is_integer():
            wider[column.name] = pl.Int128()
        else:
            numbers = one.is_numeric() and other.is_numeric()
            wider[column.name] = pl.Float64() if numbers else pl.String()
    return wider


def _blocks(file: Path) -> Iterator[bytes]:
    """The content of a csv file in blocks of whole records, without blank lines at its end."""
    last = b""
    for block in _blocks_with_blank_end(file):
        if block.strip(b"\r\n"):
            if last:
                yield last
            last = block
        else:
            last += block
    if content := last.rstrip(b"\r\n"):
        yield content + NEWLINE


def _blocks_with_blank_end(file: Path) -> Iterator[bytes]:
    with _opened(file) as source:
        rest = b""
        while data := source.read(BYTES_PER_BLOCK):
            data = rest + data
            end = _end_of_last_record(data)
            if end:
                yield data[:end]
            rest = data[end:]
            if len(rest) > LONGEST_RECORD:
                raise DataError(
                    f"{file} cannot be read as csv: a row does not end within {LONGEST_RECORD >> 20} MB, so "
                    f"probably a quote is opened and not closed. It begins with {rest[:60]!r}. Close the "
                    'quote, or write quotes within a text twice ("").'
                )
        if rest:
            yield rest


def _opened(file: Path) -> io.BufferedIOBase:
    source = file.open("rb")
    start = source.read(3)
    if start[:2] == GZIP:
        source.close()
        return gzip.open(file, "rb")
    source.seek(3 if start == BYTE_ORDER_MARK else 0)
    return source


def _end_of_last_record(data: bytes) -> int:
    """Where the last whole record ends: after a newline with an even number of quotes before it."""
    newline = data.rfind(NEWLINE)
    odd = data.count(QUOTE, 0, newline) % 2 if newline >= 0 else 0
    while newline >= 0 and odd:
        earlier = data.rfind(NEWLINE, 0, newline)
        odd = (odd + data.count(QUOTE, max(earlier, 0), newline)) % 2
        newline = earlier
    return newline + 1


def _end_of_records(data: bytes, n: int, begin: int = 0) -> int:
    """Where the `n`-th record from `begin` ends, or the data where it holds fewer."""
    newline = begin - 1
    if n == 1:
        odd = 0
        while (later := data.find(NEWLINE, newline + 1)) >= 0:
            odd = (odd + data.count(QUOTE, newline + 1, later)) % 2
            newline = later
            if not odd:
                return later + 1
        return len(data)
    characters = np.frombuffer(data, np.uint8)[begin:]
    quoted = np.logical_xor.accumulate(characters == ord(QUOTE))
    ends = np.flatnonzero((characters == ord(NEWLINE)) & ~quoted)
    return begin + int(ends[n - 1]) + 1 if len(ends) >= n else len(data)


def unreadable(file: Path, read_format: str, error: BaseException) -> DataError:
    """What to say of a file that a reader refuses."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    remedy = "Check the file, and read_format."
    if read_format == "csv" and "utf-8" in reason:
        remedy = "Write it as UTF-8, such as with 'iconv -f latin1 -t utf-8' if it comes from Excel."
    return DataError(f"{file} cannot be read as {read_format}: {reason}. {remedy}")
