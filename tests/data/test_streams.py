"""Preprocessed data in parts is the data, whatever the format and the size of the parts."""

import itertools
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from seqjax.config.schema import ColumnKind
from seqjax.data import streams, table_files
from seqjax.data.formats import FORMATS, Files, load_windows
from seqjax.data.streams import in_parts, window_parts
from seqjax.errors import DataError
from seqjax.windows.windows import Windows, joined, taken
from tests.engines import windows_of

KINDS: dict[str, ColumnKind] = {"item": "categorical", "price": "real"}


@pytest.fixture
def windows() -> Windows:
    rng = np.random.default_rng(3)
    lengths = {number: int(rng.integers(1, 12)) for number in (0, 2, 3, 9, 11, 40)}
    sequences = {
        number: {
            "item": rng.integers(0, 5, count).tolist(),
            "price": np.round(rng.normal(size=count), 3).tolist(),
        }
        for number, count in lengths.items()
    }
    return windows_of(sequences, {number: list(range(count)) for number, count in lengths.items()})


def parts_of(path: Path, read_format: str, **options) -> list[Windows]:
    return list(window_parts(path, read_format, column_kinds=KINDS, **options))


def assert_same(found: Windows, expected: Windows) -> None:
    assert len(found) == len(expected)
    every = np.arange(len(expected))
    for name in ("sequence_id", "subsequence_id", "start_item_position"):
        np.testing.assert_array_equal(getattr(found, name)(), getattr(expected, name)())
    for one, other in zip(found.gather(every), expected.gather(every), strict=True):
        if isinstance(one, dict):
            for name, values in one.items():
                np.testing.assert_allclose(values, other[name])
        else:
            np.testing.assert_array_equal(one, other)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "CELLS_PER_PART", 60)
    monkeypatch.setattr(streams, "SMALL_CSV", 0)
    monkeypatch.setattr(table_files, "BYTES_PER_BLOCK", 200)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("read_format", ["csv", "parquet"])
def test_the_long_format_comes_in_parts(tmp_path: Path, windows: Windows, read_format: str) -> None:
    path = tmp_path / f"data.{read_format}"
    FORMATS[read_format].write(path, windows, Files())
    parts = parts_of(path, read_format)
    assert len(parts) > 2
    for one, other in itertools.pairwise(parts):
        assert one.sequence_id()[-1] < other.sequence_id()[0]
    assert_same(joined(parts), windows)


@pytest.mark.usefixtures("small_parts")
def test_a_folder_of_parquet_comes_in_parts(tmp_path: Path, windows: Windows) -> None:
    path = tmp_path / "data"
    FORMATS["parquet"].write(path, windows, Files(sequences=2, merged=False))
    parts = parts_of(path, "parquet")
    assert len(parts) > 2
    assert_same(joined(parts), windows)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("read_format", ["csv", "parquet"])
def test_what_is_not_in_order_is_read_whole(tmp_path: Path, windows: Windows, read_format: str) -> None:
    path = tmp_path / f"data.{read_format}"
    FORMATS[read_format].write(path, windows, Files())
    frame = pl.read_csv(path) if read_format == "csv" else pl.read_parquet(path)
    getattr(frame.reverse(), f"write_{read_format}")(path)
    (whole,) = parts_of(path, read_format)
    assert len(whole) == len(windows)
    assert whole.sequence_id().tolist() == sorted(windows.sequence_id().tolist())


@pytest.mark.usefixtures("small_parts")
def test_a_csv_whose_later_rows_have_other_types(tmp_path: Path) -> None:
    header = "sequenceId,subsequenceId,startItemPosition,inputCol,1,0\n"
    rows = [
        f"{n},0,0,{name},{n % 3},{2 if n < 9 or name == 'item' else 0.5}" for n in range(12) for name in KINDS
    ]
    path = tmp_path / "data.csv"
    path.write_text(header + "\n".join(rows) + "\n")
    found = joined(parts_of(path, "csv"))
    assert_same(found, load_windows(path, "csv", column_kinds=KINDS))
    assert found.gather(np.array([11])).columns["price"].tolist() == [[2.0, 0.5]]


def test_arrow_and_pt_come_as_they_are(tmp_path: Path, windows: Windows) -> None:
    for read_format, count in (("arrow", 1), ("pt", 3)):
        path = tmp_path / read_format
        FORMATS[read_format].write(path, windows, Files(sequences=2))
        parts = parts_of(path, read_format)
        assert len(parts) == count
        assert_same(joined(parts), windows)


@pytest.mark.usefixtures("small_parts")
def test_data_that_cannot_be_used_is_refused_as_a_whole_file_is(tmp_path: Path, windows: Windows) -> None:
    path = tmp_path / "data.parquet"
    FORMATS["parquet"].write(path, windows, Files())
    with pytest.raises(DataError, match="holds id 4, but its 3 classes"):
        parts_of(path, "parquet", n_classes={"item": 3})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="cannot be read as parquet"):
        parts_of(path, "parquet")
    with pytest.raises(DataError, match="does not exist"):
        parts_of(tmp_path / "none.csv", "csv")


@pytest.mark.parametrize("most", [1, 3, 5, 1000])
def test_parts_of_windows_are_whole_sequences(windows: Windows, most: int) -> None:
    parts = list(in_parts(windows, most))
    assert_same(joined(parts), windows)
    for part in parts:
        assert len(part) <= most or len(set(part.sequence_id().tolist())) == 1
    for one, other in itertools.pairwise(parts):
        assert one.sequence_id()[-1] != other.sequence_id()[0]
        assert len(one) + (other.sequence_id() == other.sequence_id()[0]).sum() > most


def test_windows_of_a_sequence_that_lie_apart_are_one_part(windows: Windows) -> None:
    order = np.argsort(windows.subsequence_id(), kind="stable")
    (whole,) = in_parts(taken(windows, order), 1)
    assert len(whole) == len(windows)
