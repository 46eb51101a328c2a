"""A folder gives every file of its format once, and what it does not give is named."""

import gzip
import logging
from pathlib import Path

import pytest

from seqjax.data.tables import open_files
from seqjax.errors import DataError
from tests.tables import read_table

HEADER = "sequenceId,itemPosition,item\n"


def _write(path: Path, sequence: int, *, packed: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = f"{HEADER}{sequence},0,a\n".encode()
    path.write_bytes(gzip.compress(content) if packed else content)
    return path


def _names(folder: Path) -> list[str]:
    return [str(file.relative_to(folder)) for file in open_files(folder, "csv").files]


def test_every_csv_in_the_order_of_paths(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "in"
    for number, name in enumerate(["b.csv", "A.CSV", "sub/deep/c.Csv", "z.csv"]):
        _write(folder / name, number)
    for number, name in enumerate(["d.csv.gz", "E.CSV.GZ"], start=10):
        _write(folder / name, number, packed=True)
    _write(tmp_path / "elsewhere" / "f.csv", 20)
    _write(tmp_path / "alone.csv", 21)
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "one.csv").symlink_to(tmp_path / "alone.csv")
    caplog.set_level(logging.INFO)
    assert _names(folder) == [
        *("A.CSV", "E.CSV.GZ", "b.csv", "d.csv.gz", "linked/f.csv", "one.csv", "sub/deep/c.Csv", "z.csv")
    ]
    assert not caplog.messages
    assert read_table(folder, "csv").sequence_id.tolist() == [0, 1, 2, 3, 10, 11, 20, 21]


def test_what_is_left_out_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "in"
    _write(folder / "a.csv", 0)
    for name in ("notes.txt", "t.parquet", "a.csv.bak", "sub/x.tsv", ".hidden.csv", ".git/y.csv", "_SUCCESS"):
        _write(folder / name, 9)
    (folder / "again.csv").symlink_to(folder / "a.csv")
    (folder / "broken.csv").symlink_to(tmp_path / "nowhere")
    (folder / "round").symlink_to(folder)
    assert _names(folder) == ["a.csv"]
    (message,) = caplog.messages
    for name in ("notes.txt", "t.parquet", "a.csv.bak", "sub/x.tsv", "again.csv", "broken.csv", "_SUCCESS"):
        assert name in message
    assert "hidden" not in message
    assert ".git" not in message


def test_a_folder_without_any(tmp_path: Path) -> None:
    _write(tmp_path / "in" / "a.tsv", 0)
    with pytest.raises(DataError, match=r"in holds no \.csv file \(found: a\.tsv\)\. Check data_path"):
        open_files(tmp_path / "in", "csv")


def test_many_that_are_left_out_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _write(tmp_path / "a.csv", 0)
    for number in range(20):
        (tmp_path / f"{number:02d}.log").touch()
    open_files(tmp_path, "csv")
    assert caplog.messages[0].endswith("07.log and 12 more.")
