"""The long format in blocks is the data, whatever the order of its rows and the size of the blocks."""

import itertools
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from seqjax.config.schema import ColumnKind
from seqjax.data import formats, long_format, table_files
from seqjax.data.formats import FORMATS, Files, load_windows, window_blocks
from seqjax.errors import DataError
from seqjax.windows.windows import Windows, joined
from tests.engines import windows_of
from tests.tables import assert_same_windows

KINDS: dict[str, ColumnKind] = {"item": "categorical", "price": "real"}


@pytest.fixture
def windows() -> Windows:
    rng = np.random.default_rng(3)
    lengths = {number: int(rng.integers(1, 12)) for number in (0, 2, 3, 9, 11)} | {40: 200}
    sequences = {
        number: {
            "item": rng.integers(0, 5, count).tolist(),
            "price": np.round(rng.normal(size=count), 3).tolist(),
        }
        for number, count in lengths.items()
    }
    return windows_of(sequences, {number: list(range(count)) for number, count in lengths.items()})


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_format, "CELLS_PER_BLOCK", 60)
    monkeypatch.setattr(table_files, "BYTES_PER_BLOCK", 200)
    monkeypatch.setattr(table_files, "ROWS_PER_PIECE", 7)
    monkeypatch.setattr(formats, "ROWS_PER_SHARD", 9)


def _blocks(path: Path, read_format: str, **options) -> list[Windows]:
    return list(window_blocks(path, read_format, column_kinds=KINDS, **options))


def _saved(path: Path, frame: pl.DataFrame) -> None:
    getattr(frame, f"write_{path.suffix[1:]}")(path)


@pytest.mark.parametrize("read_format", ["csv", "parquet"])
@pytest.mark.parametrize("order", ["as written", "reversed", "shuffled"])
def test_blocks_are_whole_sequences_in_order(
    tmp_path: Path, windows: Windows, read_format: str, order: str
) -> None:
    path = tmp_path / f"data.{read_format}"
    FORMATS[read_format].write(path, windows, Files())
    frame = pl.read_csv(path) if read_format == "csv" else pl.read_parquet(path)
    if order != "as written":
        _saved(
            path, frame.reverse() if order == "reversed" else frame.sample(fraction=1, shuffle=True, seed=1)
        )
    blocks = _blocks(path, read_format)
    assert len(blocks) > 2
    for block, after in itertools.pairwise(blocks):
        assert block.sequence_id()[-1] < after.sequence_id()[0]
    assert_same_windows(joined(blocks), windows)
    assert_same_windows(load_windows(path, read_format, column_kinds=KINDS), windows)


def test_a_folder_of_parquet_comes_in_blocks(tmp_path: Path, windows: Windows) -> None:
    path = tmp_path / "data"
    FORMATS["parquet"].write(path, windows, Files(sequences=2, merged=False))
    blocks = _blocks(path, "parquet")
    assert len(blocks) > 2
    assert_same_windows(joined(blocks), windows)
    (path / "z.parquet").write_bytes((path / "windows-00000.parquet").read_bytes())
    with pytest.raises(DataError, match="occurs more than once"):
        _blocks(path, "parquet")
    pl.read_parquet(path / "z.parquet").drop("0").write_parquet(path / "z.parquet")
    with pytest.raises(DataError, match=r"z\.parquet has other columns than .*windows-00000\.parquet"):
        _blocks(path, "parquet")


def test_a_csv_whose_later_rows_have_other_types(tmp_path: Path) -> None:
    header = "sequenceId,subsequenceId,startItemPosition,inputCol,1,0\n"
    rows = [
        f"{n},0,0,{name},{n % 3},{2 if n < 9 or name == 'item' else 0.5}" for n in range(12) for name in KINDS
    ]
    path = tmp_path / "data.csv"
    path.write_text(header + "\n".join(rows) + "\n")
    found = joined(_blocks(path, "csv"))
    assert found.gather(np.array([8, 11])).columns["price"].tolist() == [[2.0, 2.0], [2.0, 0.5]]


def test_arrow_and_pt_come_as_they_are(tmp_path: Path, windows: Windows) -> None:
    for read_format, count in (("arrow", 1), ("pt", 3)):
        path = tmp_path / read_format
        FORMATS[read_format].write(path, windows, Files(sequences=2))
        blocks = _blocks(path, read_format)
        assert len(blocks) == count
        assert_same_windows(joined(blocks), windows)


@pytest.mark.parametrize("read_format", ["csv", "parquet", "pt"])
def test_what_is_converted_leaves_no_files(
    tmp_path: Path, windows: Windows, read_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, temporary = tmp_path / f"data{FORMATS[read_format].suffix}", tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    FORMATS[read_format].write(path, windows, Files(sequences=2))
    found = load_windows(path, read_format, column_kinds=KINDS, n_classes={"item": 300})
    assert list(temporary.iterdir()) == []
    assert found.mapped
    assert found.columns["item"].dtype == np.int16
    assert_same_windows(found, windows)
    found.release()
    assert_same_windows(found.in_ram(), windows)
    with pytest.raises(DataError, match="holds id 4, but its 3 classes"):
        load_windows(path, read_format, column_kinds=KINDS, n_classes={"item": 3})
    assert list(temporary.iterdir()) == []


def test_without_space_to_convert_the_remedy_is_said(
    tmp_path: Path, windows: Windows, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "data.parquet"
    FORMATS["parquet"].write(path, windows, Files())
    monkeypatch.setattr(formats.shards, "write", full)
    with pytest.raises(DataError, match=r"data\.parquet cannot be converted in .*: No space left.* TMPDIR"):
        load_windows(path, "parquet", column_kinds=KINDS)


def test_data_that_cannot_be_used_is_refused(tmp_path: Path, windows: Windows) -> None:
    path = tmp_path / "data.parquet"
    FORMATS["parquet"].write(path, windows, Files())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="cannot be read as parquet"):
        _blocks(path, "parquet")
    with pytest.raises(DataError, match="does not exist"):
        _blocks(tmp_path / "none.csv", "csv")


def test_slots_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("sequenceId,subsequenceId,startItemPosition,inputCol,1,1,0\n0,0,0,item,2,2,2\n")
    with pytest.raises(DataError, match="is not in the long format"):
        _blocks(path, "csv")


@pytest.mark.parametrize("read_format", ["csv", "parquet"])
def test_padding_is_zeros_on_request(tmp_path: Path, windows: Windows, read_format: str) -> None:
    nulls, zeros = tmp_path / f"nulls.{read_format}", tmp_path / f"zeros.{read_format}"
    FORMATS[read_format].write(nulls, windows, Files())
    FORMATS[read_format].write(zeros, windows, Files(padding="zero"))
    read = pl.read_csv if read_format == "csv" else pl.read_parquet
    assert read(nulls).select(pl.all().null_count()).sum_horizontal().item() > 0
    assert read(zeros).equals(read(nulls).fill_null(0))


@pytest.mark.parametrize("read_format", ["csv", "parquet"])
def test_an_infinity_of_sequifier_is_placed(tmp_path: Path, windows: Windows, read_format: str) -> None:
    path = tmp_path / f"data.{read_format}"
    FORMATS[read_format].write(path, windows, Files(padding="zero"))
    frame = pl.read_csv(path) if read_format == "csv" else pl.read_parquet(path)
    is_price = pl.col("inputCol") == "price"
    _saved(path, frame.with_columns(pl.when(is_price).then(float("inf")).otherwise(pl.col("0")).alias("0")))
    with pytest.raises(DataError, match=r"'price' holds an infinity in slot 0 of a window \(sequenceId"):
        _blocks(path, read_format, padding="zero")
