"""Files are read in any usual encoding, with any ends of lines and separators, in blocks of any size."""

import codecs
import gzip
from pathlib import Path

import pytest

from seqjax.data import table_files
from seqjax.data.csv_dialect import Dialect, dialect_of
from seqjax.errors import DataError
from tests.tables import read_table

TEXT = 'sequenceId,itemPosition,item,x\n1,0,"a\nb",0.5\n1,1,"say ""hi"", x",1\n1,2,é€,-2e3\n'
ENCODINGS = {
    "utf-8": b"",
    "utf-8-sig": b"",
    "utf-16": b"",
    "utf-16-le": b"",
    "utf-16-be": b"",
    "utf_16_be": codecs.BOM_UTF16_BE,
    "utf-32": b"",
}
"""Python's names, which write a mark where they do not say the order of bytes, and what is put before."""


@pytest.mark.parametrize(
    ("separator", "size", "packed"),
    [(",", 1, False), (";", 7, True), ("\t", 1 << 20, False), ("|", 40, False)],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_any_form(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    encoding: str,
    newline: str,
    separator: str,
    size: int,
    packed: bool,
) -> None:
    text = TEXT.replace("\n", newline).replace('hi"", x', "hi; x").replace(",", separator)
    content = ENCODINGS[encoding] + text.encode(encoding)
    (tmp_path / "t.csv").write_bytes(gzip.compress(content) if packed else content)
    monkeypatch.setattr(table_files, "BYTES_PER_BLOCK", size)
    features = read_table(tmp_path / "t.csv", "csv").features
    within = "\r\n" if newline == "\r\n" else "\n"
    assert features["item"].to_list()[::2] == [f"a{within}b", "é€"]
    assert features["x"].to_list() == [0.5, 1.0, -2000.0]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a,b;c;d\n1,2\n3,4\n", Dialect(separator=",")),
        (b"a;b;c\n1;0;3,5\n1;1;2\n", Dialect(separator=";")),
        (b"a,b,c\n1,2,3,4\n1,2,3\n", Dialect()),
        (b"a\n1\n", Dialect()),
        (b"", Dialect()),
        (b"\n", Dialect()),
        (b'"a;b;c","d"\n"1;2;3","4"\n', Dialect()),
        (b"a,b\r1,2\r", Dialect(newline=b"\r")),
        (b"a,b\r1,2", Dialect(newline=b"\r")),
        (b'"a\rb",c\n1,2\n', Dialect()),
    ],
)
def test_by_hand(tmp_path: Path, content: bytes, expected: Dialect) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    assert dialect_of(tmp_path / "t.csv") == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04rest", "a zip archive or an Excel workbook"),
        (b"PAR1rest", "parquet: set read_format: parquet"),
        (b"BZh9rest", "compressed by bzip2"),
        (b"\x28\xb5\x2f\xfdrest", "compressed by zstd"),
        (TEXT.encode("utf-16")[:-1], "cannot be read as csv: .*truncated data"),
        (b"sequenceId,itemPosition,item\n1,0,caf\xe9\n", "Write it as UTF-8"),
        (b"sequenceId,itemPosition,item\n1,0,a\0b\n1,1,\n", ""),
    ],
)
def test_the_true_cause_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    if not message:
        assert read_table(tmp_path / "t.csv", "csv").features["item"].to_list() == ["a\0b", None]
        return
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / "t.csv", "csv")
