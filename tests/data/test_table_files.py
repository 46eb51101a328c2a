"""Files as a stream of pieces: any block size gives the same rows and types."""

import gzip
import itertools
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
import pytest

from seqjax.data import table_files
from seqjax.data.cells import Reading
from seqjax.data.staging import staged
from seqjax.data.table_files import CsvFiles, FrameFile, ParquetFiles
from seqjax.errors import DataError

COLUMNS = ["item", "x", "n"]
TEXT = 'n,item,x\n1,"a\nb",0.5\n2,"say ""hi"", x",1\n3,,\n4,"",-2e3\n5,é,7\n'


def _read(files: CsvFiles, columns: list[str], max_rows: int | None = None) -> pl.DataFrame:
    with TemporaryDirectory() as folder:
        table = staged(files, dict.fromkeys(columns, Reading()), Path(folder) / "table", max_rows=max_rows)
        pieces = list(table.pieces(columns))
    for piece, after in itertools.pairwise(pieces):
        assert after.first_row == piece.first_row + len(piece.frame) or after.file != piece.file
    return pl.concat([piece.frame for piece in pieces])


@pytest.mark.parametrize("size", [1, 5, 16, 40, 1 << 20])
@pytest.mark.parametrize("ending", ["\n", "", "\r\n"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_blocks_are_whole_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, ending: str, start: bytes
) -> None:
    text = TEXT.rstrip("\n") + ending.strip("\r")
    path = tmp_path / "t.csv"
    path.write_bytes(start + (text.replace("\n", ending) if ending == "\r\n" else text).encode())
    monkeypatch.setattr(table_files, "BYTES_PER_BLOCK", size)
    frame = _read(CsvFiles([path]), COLUMNS)
    line = "a\r\nb" if ending == "\r\n" else "a\nb"
    assert frame["item"].to_list() == [line, 'say "hi", x', None, None, "é"]
    assert frame["x"].to_list() == [0.5, 1.0, None, -2000.0, 7.0]
    assert frame["n"].to_list() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("size", [1, 1 << 20])
@pytest.mark.parametrize("n", [1, 2, 4])
def test_rows_that_are_not_wanted_have_no_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, n: int
) -> None:
    (tmp_path / "t.csv").write_text("a\n1\n2\n3\n4\nx\n")
    monkeypatch.setattr(table_files, "BYTES_PER_BLOCK", size)
    frame = _read(CsvFiles([tmp_path / "t.csv"]), ["a"], n)
    assert frame["a"].to_list() == [1, 2, 3, 4][:n]


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
@pytest.mark.parametrize("end", ["", "\n", "\n\n\n", "\r\n\r\n"])
def test_blank_lines_at_the_end_are_no_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, end: str
) -> None:
    (tmp_path / "t.csv").write_bytes(b"a,b\n1,2\n3,4" + end.encode())
    monkeypatch.setattr(table_files, "BYTES_PER_BLOCK", size)
    assert _read(CsvFiles([tmp_path / "t.csv"]), ["a", "b"]).rows() == [(1, 2), (3, 4)]


def test_a_quote_inside_a_text_is_shown(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('a,b\n1,"x,""y"""\n2,"x"\n3,a 6" pipe\n4,"x"\n')
    with pytest.raises(DataError, match=r"row 3 has a quote inside a text: .*a 6. pipe"):
        _read(CsvFiles([tmp_path / "t.csv"]), ["b"])


def test_compressed_csv(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(gzip.compress(TEXT.encode()))
    assert _read(CsvFiles([tmp_path / "t.csv"]), ["n"])["n"].to_list() == [1, 2, 3, 4, 5]
    (tmp_path / "t.csv").write_bytes(gzip.compress(TEXT.encode())[:-9])
    with pytest.raises(DataError, match=r"t\.csv cannot be read as csv: "):
        _read(CsvFiles([tmp_path / "t.csv"]), ["n"])


def _parquet(folder: Path) -> Path:
    frame = pl.DataFrame({"n": range(5000), "item": [str(row) for row in range(5000)]})
    frame.write_parquet(folder / "t.parquet", row_group_size=1000)
    return folder / "t.parquet"


def test_parquet_comes_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_files, "ROWS_PER_PIECE", 300)
    pieces = list(ParquetFiles([_parquet(tmp_path)]).pieces(["item", "n"]))
    assert max(len(piece.frame) for piece in pieces) <= 300
    frame = pl.concat([piece.frame for piece in pieces])
    assert frame.columns == ["item", "n"]
    assert frame["n"].to_list() == list(range(5000))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_truncated_parquet(tmp_path: Path, share: float) -> None:
    path = _parquet(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError, match=r"t\.parquet cannot be read as parquet: .*\. Check the file"):
        list(ParquetFiles([path]).pieces(["n"]))


def test_damaged_parquet(tmp_path: Path) -> None:
    path = _parquet(tmp_path)
    content = bytearray(path.read_bytes())
    content[4:2000] = bytes(1996)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"t\.parquet cannot be read as parquet: "):
        list(ParquetFiles([path]).pieces(["n", "item"]))


def test_a_frame_is_a_file_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_files, "ROWS_PER_PIECE", 2)
    frame = pl.DataFrame({"a": [1, 2, 3], "b": ["x", None, "z"]})
    files = FrameFile(frame)
    pieces = list(files.pieces(["b"]))
    assert files.headers == [["a", "b"]]
    assert [(piece.file.name, piece.first_row) for piece in pieces] == [("the table", 0), ("the table", 2)]
    assert pl.concat([piece.frame for piece in pieces]).equals(frame.select("b"))
