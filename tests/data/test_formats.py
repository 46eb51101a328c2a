"""One contract for every format, and the two ways of the long one to say padding."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from seqjax.config.schema import ColumnKind
from seqjax.data import long_format
from seqjax.data.formats import FORMATS, Files, format_of, load_windows, window_blocks
from seqjax.data.splits import sequences
from seqjax.errors import DataError
from seqjax.windows.windows import Windows, cut

KINDS: dict[str, ColumnKind] = {"item": "categorical", "größe, cm": "real", "items": "categorical"}
LONG = ("csv", "parquet")


def _windows(names: list[str], lengths: tuple[int, ...] = (9, 1, 3, 5)) -> Windows:
    n = sum(lengths)
    rng = np.random.default_rng(1)
    columns = {
        "item": rng.integers(0, 9, n).astype(np.int8),
        "größe, cm": rng.normal(size=n).astype(np.float32),
        "items": rng.integers(200, 300, n).astype(np.int16),
    }
    ids = np.repeat(np.arange(len(lengths)) * 2 - 1, lengths)
    chosen = {name: columns[name] for name in names}
    return cut(sequences(ids), chosen, 7 + np.arange(n), seq_length=3, stride=2)


def _write(folder: Path, name: str, windows: Windows) -> Path:
    path = folder / f"x{FORMATS[name].suffix}"
    FORMATS[name].write(path, windows, Files())
    return path


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("names", [["items", "größe, cm", "item"], ["größe, cm"], ["item", "items"]])
def test_what_is_written_is_read(tmp_path: Path, name: str, names: list[str]) -> None:
    windows = _windows(names)
    found = load_windows(_write(tmp_path, name, windows), name, column_kinds={n: KINDS[n] for n in names})
    indices = np.arange(len(windows))
    expected, batch = windows.gather(indices), found.gather(indices)
    assert list(batch.columns) == names
    assert batch.padding.tolist() == expected.padding.tolist()
    for column in names:
        np.testing.assert_array_equal(batch.columns[column], expected.columns[column])
        assert found.columns[column].dtype == windows.columns[column].dtype
    for key in ("sequence_id", "subsequence_id", "start_item_position"):
        assert getattr(found, key)().tolist() == getattr(windows, key)().tolist()
    slots = np.arange(4)
    assert found.positions(indices, slots).tolist() == windows.positions(indices, slots).tolist()
    assert found.seq_length == 3


@pytest.mark.parametrize("name", LONG)
def test_large_data_is_written_in_blocks(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    windows = _windows(list(KINDS))
    whole = _write(tmp_path, name, windows)
    frame = pl.read_csv(whole) if name == "csv" else pl.read_parquet(whole)
    whole.unlink()
    monkeypatch.setattr(long_format, "ROWS_PER_BLOCK", 4)
    blocks = _write(tmp_path, name, windows)
    assert (pl.read_csv(blocks) if name == "csv" else pl.read_parquet(blocks)).equals(frame)


def test_long_format_as_documented(tmp_path: Path) -> None:
    frame = pl.read_parquet(_write(tmp_path, "parquet", _windows(["items", "größe, cm"])))
    assert frame.columns == [
        "sequenceId",
        "subsequenceId",
        "startItemPosition",
        "inputCol",
        "3",
        "2",
        "1",
        "0",
    ]
    assert frame.dtypes == [pl.Int64] * 3 + [pl.String] + [pl.Float64] * 4
    assert frame["inputCol"].head(2).to_list() == ["items", "größe, cm"]
    keys = frame.select("sequenceId", "subsequenceId").rows()
    assert keys == sorted(keys)
    short = frame.filter(pl.col("sequenceId") == 1)
    assert short.select("startItemPosition", "3", "2", "1").rows() == [(13, None, None, None)] * 2
    (tmp_path / "x.parquet").unlink()
    ids = pl.read_parquet(_write(tmp_path, "parquet", _windows(["item", "items"])))
    assert ids.dtypes[4:] == [pl.Int64] * 4


def test_csv_leaves_padding_empty(tmp_path: Path) -> None:
    lines = _write(tmp_path, "csv", _windows(["items"], (1, 4))).read_text().splitlines()
    assert lines[0] == "sequenceId,subsequenceId,startItemPosition,inputCol,3,2,1,0"
    assert lines[1].startswith("-1,0,4,items,,,,2")


@pytest.mark.parametrize("name", LONG)
def test_zeros_are_padding_where_every_column_is_zero(tmp_path: Path, name: str) -> None:
    rows = [
        (1, 0, 0, "a", 0.0, 0.0, 3.0, 0.0),
        (1, 0, 0, "x", 0.0, 0.5, 0.0, 0.0),
        (1, 1, 2, "a", 0.0, 0.0, 0.0, 0.0),
        (1, 1, 2, "x", 0.0, 0.0, 0.0, 0.0),
    ]
    path = _long(tmp_path, name, rows)
    kinds: dict[str, ColumnKind] = {"a": "categorical"}
    assert load_windows(path, name, column_kinds=kinds, padding="zero").length().tolist() == [3, 1]
    assert load_windows(path, name, column_kinds=kinds, padding="null").length().tolist() == [4, 4]


@pytest.mark.parametrize("name", LONG)
def test_rows_may_come_in_any_order(tmp_path: Path, name: str) -> None:
    windows = _windows(list(KINDS))
    path = _write(tmp_path, name, windows)
    frame = pl.read_csv(path) if name == "csv" else pl.read_parquet(path)
    frame = frame.sample(fraction=1.0, shuffle=True, seed=3)
    _save(path, name, frame)
    found = load_windows(path, name, column_kinds=KINDS)
    assert found.sequence_id().tolist() == windows.sequence_id().tolist()
    np.testing.assert_array_equal(
        found.gather(np.arange(len(windows))).columns["items"],
        windows.gather(np.arange(len(windows))).columns["items"],
    )


def _save(path: Path, name: str, frame: pl.DataFrame) -> Path:
    (frame.write_csv if name == "csv" else frame.write_parquet)(path)
    return path


def _long(
    folder: Path,
    name: str,
    rows: list[tuple],
    columns: str = "sequenceId subsequenceId startItemPosition inputCol 3 2 1 0",
) -> Path:
    frame = pl.DataFrame(rows, schema=columns.split(), orient="row", strict=False)
    return _save(folder / f"x.{name}", name, frame)


GOOD = [(1, 0, 0, "a", None, 2.0, 3.0, 4.0), (1, 0, 0, "x", None, 0.5, 0.0, 0.0)]
LONG_ERRORS = {
    "missing column": ([(1, 0, 0, "a", 2.0, 2.0, 3.0, 4.0)], "no column 'x' .columns: ."),
    "no id": (
        [(1, 0, 0, "a", 2.0, 2.5, 3.0, 4.0), (1, 0, 0, "x", 1.0, 1.0, 1.0, 1.0)],
        "'a' is categorical, but holds 2.5",
    ),
    "negative id": (
        [(1, 0, 0, "a", 2.0, -1.0, 3.0, 4.0), (1, 0, 0, "x", 1.0, 1.0, 1.0, 1.0)],
        "holds -1, which is no id",
    ),
    "id too large": (
        [(1, 0, 0, "a", 2.0, 9.0, 3.0, 4.0), (1, 0, 0, "x", 1.0, 1.0, 1.0, 1.0)],
        "holds id 9, but its 5 classes have the ids 0 to 4",
    ),
    "window lacks a column": (
        [*GOOD, (1, 1, 2, "a", 2.0, 2.0, 2.0, 2.0)],
        "do not have the same windows .2 and 1 rows",
    ),
    "window twice": ([*GOOD, *GOOD], "sequenceId 1, subsequenceId 0. occurs more than once"),
    "gap": ([GOOD[0], (1, 0, 0, "x", None, 0.5, None, 0.0)], "column 'x' has other nulls than 'a'"),
    "null after a value": (
        [(1, 0, 0, "a", 2.0, None, 3.0, 4.0), GOOD[1]],
        "column 'a' has a null after a value",
    ),
    "no item": (
        [(1, 0, 0, "a", None, None, None, None), (1, 0, 0, "x", None, None, None, None)],
        "window 0 holds no item",
    ),
    "infinity": (
        [GOOD[0], (1, 0, 0, "x", None, float("inf"), 1.0, 1.0)],
        "column 'x' holds an infinity in slot 2",
    ),
    "null key": ([*GOOD, (None, 0, 0, "x", None, 0.5, 0.0, 0.0)], "sequenceId must be a whole number"),
    "null name": ([*GOOD, (1, 0, 0, None, None, 0.5, 0.0, 0.0)], "inputCol must name a column"),
}


@pytest.mark.parametrize("name", LONG)
@pytest.mark.parametrize("case", LONG_ERRORS)
def test_long_format_errors(tmp_path: Path, name: str, case: str) -> None:
    rows, message = LONG_ERRORS[case]
    path = _long(tmp_path, name, rows)
    with pytest.raises(DataError, match=message) as error:
        load_windows(path, name, column_kinds={"a": "categorical", "x": "real"}, n_classes={"a": 5})
    assert str(path) in str(error.value)


def test_nulls_contradict_zero_padding(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds nulls, but padding is declared as zero"):
        load_windows(_long(tmp_path, "csv", GOOD), "csv", column_kinds={"a": "categorical"}, padding="zero")


@pytest.mark.parametrize("name", LONG)
@pytest.mark.parametrize(
    "columns",
    [
        "sequenceId subsequenceId startItemPosition inputCol 3 2 1 x",
        "sequenceId subsequenceId startItemPosition inputCol 0 1 2 3",
        "sequenceId subsequenceId position inputCol 3 2 1 0",
    ],
)
def test_other_tables_are_refused(tmp_path: Path, name: str, columns: str) -> None:
    with pytest.raises(DataError, match="is not in the long format"):
        load_windows(_long(tmp_path, name, GOOD, columns), name, column_kinds={"a": "categorical"})


def test_text_in_a_slot_is_refused(tmp_path: Path) -> None:
    path = _long(tmp_path, "csv", [(1, 0, 0, "a", "p", "2", "3", "4")])
    with pytest.raises(DataError, match="column '3' is of type String; it must hold numbers"):
        load_windows(path, "csv", column_kinds={"a": "categorical"})


@pytest.mark.parametrize("name", LONG)
def test_no_windows_are_refused(tmp_path: Path, name: str) -> None:
    columns = ["sequenceId", "subsequenceId", "startItemPosition", "inputCol", "1", "0"]
    path = _save(tmp_path / f"x.{name}", name, pl.DataFrame(schema=columns))
    with pytest.raises(DataError, match="holds no windows"):
        load_windows(path, name, column_kinds={"a": "categorical"})


@pytest.mark.parametrize("name", FORMATS)
def test_missing_and_foreign_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x"
    with pytest.raises(DataError, match="does not exist"):
        load_windows(path, name, column_kinds={"a": "categorical"})
    path.write_bytes(b"\xff\x00\xfe")
    with pytest.raises(
        DataError, match=r"cannot be read as|has no (manifest|metadata).json|is not in the long format"
    ):
        load_windows(path, name, column_kinds={"a": "categorical"})


def test_unknown_format(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"'xlsx' is no format of preprocessed data\. Known: csv, parquet, arrow, pt"
    ):
        load_windows(tmp_path, "xlsx", column_kinds={})


def test_shards_with_negative_ids_are_refused(tmp_path: Path) -> None:
    windows = _windows(["item"])
    np.asarray(windows.columns["item"])[3] = -2
    path = _write(tmp_path, "arrow", windows)
    with pytest.raises(DataError, match="column 'item' holds id -2"):
        load_windows(path, "arrow", column_kinds={"item": "categorical"}, n_classes={"item": 9})


@pytest.mark.parametrize("name", FORMATS)
def test_the_format_shows(tmp_path: Path, name: str) -> None:
    assert format_of(_write(tmp_path, name, _windows(["item"]))) == name
    assert format_of(tmp_path) is None


@pytest.mark.parametrize("name", [name for name, row in FORMATS.items() if row.by_file])
def test_files_together_are_the_whole(tmp_path: Path, name: str) -> None:
    windows = _windows(list(KINDS))
    FORMATS[name].write(tmp_path / "x", windows, Files(sequences=2))
    parts = list(window_blocks(tmp_path / "x", name, column_kinds=KINDS))
    assert [len(part) for part in parts] == [5, 3]
    assert np.concatenate([part.sequence_id() for part in parts]).tolist() == windows.sequence_id().tolist()
    with pytest.raises(DataError, match="column 'item' holds id"):
        list(window_blocks(tmp_path / "x", name, column_kinds=KINDS, n_classes={"item": 3}))


def test_shards_with_infinities_are_refused(tmp_path: Path) -> None:
    windows = _windows(["größe, cm"])
    np.asarray(windows.columns["größe, cm"])[3] = np.inf
    with pytest.raises(DataError, match="column 'größe, cm' holds an infinity"):
        load_windows(_write(tmp_path, "arrow", windows), "arrow", column_kinds={"größe, cm": "real"})
