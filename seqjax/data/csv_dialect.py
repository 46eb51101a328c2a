"""The form of a csv file, seen from its beginning: encoding, ends of lines, and what separates its cells."""

import codecs
import gzip
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from seqjax.errors import DataError

NEWLINE, RETURN, QUOTE = b"\n", b"\r", b'"'
SEPARATORS = ",;\t|"
BYTES_LOOKED_AT = 1 << 16
ROWS_LOOKED_AT = 20
GZIP = b"\x1f\x8b"
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order marks; the longer ones first that begin as others do."""
_OTHER_FILES = (
    (b"PK\x03\x04", "a zip archive or an Excel workbook: unpack it, or save it as csv"),
    (b"PAR1", "parquet: set read_format: parquet"),
    (b"BZh", "compressed by bzip2: unpack it, or use gzip"),
    (b"\xfd7zXZ", "compressed by xz: unpack it, or use gzip"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd: unpack it, or use gzip"),
    (b"ARROW1", "an Arrow file: write it as csv or parquet"),
)
"""Beginnings of files that are something else, and what these are."""


@dataclass(frozen=True)
class Dialect:
    """The form of a csv file."""

    encoding: str = "utf-8"
    newline: bytes = NEWLINE
    separator: str = ","

    def __str__(self) -> str:
        lines = "" if self.newline == NEWLINE else ", lines that end with a carriage return"
        return f"{self.encoding.upper()}, cells separated by {self.separator!r}{lines}"


def dialect_of(file: Path) -> Dialect:
    """The form of a csv file.

    Raises:
      DataError: It is no csv.
    """
    with opened(file) as source:
        start = source.read(BYTES_LOOKED_AT)
    for mark, what in _OTHER_FILES:
        if start.startswith(mark):
            raise DataError(f"{file} cannot be read as csv: it is {what}.")
    encoding = _encoding(start)
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    text = decoder.decode(start).encode("utf-8", "replace")
    has_newlines = outside_quotes(text, NEWLINE).any()
    newline = RETURN if not has_newlines and outside_quotes(text, RETURN).any() else NEWLINE
    return Dialect(encoding, newline, _separator(text.replace(newline, NEWLINE)))


def decoded(file: Path, dialect: Dialect, size: int) -> Iterator[bytes]:
    """The content of a csv file as UTF-8 without a mark, in pieces, with lines that end with a newline.

    Args:
      file: The file.
      dialect: Its form.
      size: Bytes to read at a time.
    """
    with opened(file) as source:
        if dialect.encoding == "utf-8-sig":
            source.read(len(codecs.BOM_UTF8))
        # Bytes that are no UTF-8 are refused later, with their place.
        is_plain = dialect.encoding.startswith("utf-8")
        decoder = None if is_plain else codecs.getincrementaldecoder(dialect.encoding)()
        while data := source.read(size):
            data = data if decoder is None else decoder.decode(data).encode()
            yield data if dialect.newline == NEWLINE else data.replace(dialect.newline, NEWLINE)
        if decoder is not None:
            decoder.decode(b"", final=True)


def opened(file: Path) -> io.BufferedIOBase:
    """Opens a file to read, through gzip if it is compressed."""
    source = file.open("rb")
    if source.peek(2)[:2] == GZIP:
        source.close()
        return gzip.open(file, "rb")
    return source


def outside_quotes(data: bytes, character: bytes) -> Bool[np.ndarray, "N"]:
    """Tells of each byte if it is a character outside quotes, which has an even number of them before it."""
    characters = np.frombuffer(data, np.uint8)
    hits = characters == ord(character)
    if QUOTE in data:
        hits &= ~np.logical_xor.accumulate(characters == ord(QUOTE))
    return hits


def _encoding(start: bytes) -> str:
    for mark, encoding in _MARKS:
        if start.startswith(mark):
            return encoding
    # Without a mark, UTF-16 shows by the zeros beside the letters of the header.
    halves = start[:64:2], start[1:64:2]
    zeros = [len(half) > 1 and not any(half) for half in halves]
    if zeros[0] != zeros[1]:
        return "utf-16-be" if zeros[0] else "utf-16-le"
    return "utf-8"


def _separator(text: bytes) -> str:
    """The mark that each of the first rows holds equally often, or else that the header holds most often."""
    ends = np.flatnonzero(outside_quotes(text, NEWLINE))[:ROWS_LOOKED_AT]
    rows = np.split(np.arange(len(text)), ends + 1)[: max(len(ends), 1)]
    counts = {}
    for mark in SEPARATORS:
        hits = outside_quotes(text, mark.encode())
        counts[mark] = [int(hits[row].sum()) for row in rows]
    alike = [mark for mark in SEPARATORS if counts[mark][0] and len(set(counts[mark])) == 1]
    return max(alike or SEPARATORS, key=lambda mark: counts[mark][0])
