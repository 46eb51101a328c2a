"""What each key of preprocess does, and which combinations are refused."""

import io
import itertools
import json
import logging
import random
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqjax.commands import preprocess as module
from seqjax.commands.preprocess import preprocess
from seqjax.config.base import validate
from seqjax.config.metadata import Metadata
from seqjax.config.preprocess import PreprocessConfig
from seqjax.config.schema import ColumnKind
from seqjax.data import sorting, table_files
from seqjax.data.formats import load_windows
from seqjax.errors import ConfigError, DataError, SeqjaxError
from seqjax.windows.windows import Windows

BASE = {
    "project_root": ".",
    "data_path": "data/t.csv",
    "write_format": "arrow",
    "seq_length": 3,
    "split_ratios": [0.6, 0.2, 0.2],
    "stride_by_split": [2, 1, 1],
    "history": False,
}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _config(**changes: Any) -> PreprocessConfig:
    values = {name: value for name, value in {**BASE, **changes}.items() if value != "absent"}
    return validate(PreprocessConfig, values, "test")


def _run(**changes: Any) -> Metadata:
    return preprocess(_config(**changes))


def _windows(metadata: Metadata, split: int = 0) -> Windows:
    kinds: dict[str, ColumnKind] = {name: metadata.kind(name) for name in metadata.column_types}
    assert metadata.write_format is not None
    return load_windows(Path(metadata.split_paths[split]), metadata.write_format, column_kinds=kinds)


def _positions(windows: Windows) -> list[int]:
    """Those of all items, as often as windows hold them."""
    numbers, slots = np.arange(len(windows)), np.arange(windows.seq_length + 1)
    real = slots >= windows.gather(numbers).padding[:, None]
    return windows.positions(numbers, slots)[real].tolist()


def _column(metadata: Metadata, name: str, split: int = 0) -> np.ndarray:
    return np.asarray(_windows(metadata, split).columns[name])


def _sequences(metadata: Metadata) -> list[set[int]]:
    return [set(_windows(metadata, k).sequence_id().tolist()) for k in range(len(metadata.split_paths))]


def _content(root: Path = Path()) -> dict[str, bytes]:
    files = [path for path in sorted(root.rglob("*")) if path.is_file() and "t.csv" not in str(path)]
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def _table(n_sequences: int = 10, n: int = 10, **columns: Any) -> pl.DataFrame:
    rows = n_sequences * n
    frame = pl.DataFrame(
        {
            "sequenceId": np.repeat(np.arange(n_sequences), n),
            "itemPosition": np.tile(np.arange(n), n_sequences),
            **(columns or {"item": [f"i{row * row % 7}" for row in range(rows)]}),
        }
    )
    frame.write_csv("data/t.csv")
    return frame


def test_column_roles() -> None:
    years = np.tile(np.arange(2000, 2010), 10)
    _table(year=years, grade=np.tile([1.0, 2.5, -0.0, 0.0, 10.0], 20), flag=[True, False] * 50)
    metadata = _run(column_roles={"year": "real", "grade": "categorical", "flag": "real"}, fit_on="all")
    assert metadata.column_types == {"year": "Float64", "grade": "Int64", "flag": "Float64"}
    assert metadata.selected_columns_statistics["year"].mean == pytest.approx(2004.5)
    assert metadata.selected_columns_statistics["flag"].mean == pytest.approx(0.5)
    assert metadata.id_maps == {"grade": {"0.0": 2, "1.0": 3, "2.5": 4, "10.0": 5}}


def _write(*rows: str, header: str = "sequenceId,itemPosition,item,price") -> None:
    Path("data/t.csv").write_text("\n".join([header, *rows]) + "\n")


ODD = ["1,0,NA,-999", "1,1,007,1.5", "1,2,7,?", "1,3,nan,-999.0", "1,4,007,2.5", "1,5,7,"]


def test_text_and_missing_values_and_where_they_are_kept() -> None:
    _write(*ODD)
    changes = {"split_ratios": [1.0], "stride_by_split": [1], "missing_real": "mean"}
    first = _run(**changes, column_roles={"item": "text"}, missing_values=[-999, "?"])
    assert first.id_maps == {"item": {"007": 2, "7": 3, "NA": 4, "nan": 5}}
    assert first.missing == {"price": 4}
    assert (first.column_roles, first.missing_values) == ({"item": "text"}, ["-999", "?"])
    values = _column(first, "item")
    Path("configs/metadata_configs/t.json").rename("first.json")
    again = _run(**changes, metadata_config_path="first.json")
    assert _column(again, "item").tolist() == values.tolist() == [4, 2, 3, 5, 2, 3]
    assert again.missing == first.missing
    assert (again.column_roles, again.missing_values) == (first.column_roles, first.missing_values)
    with pytest.raises(DataError, match=r"'price' .*row 3 holds '\?'.*missing_values: .'\?'."):
        _run(**changes, metadata_config_path="first.json", missing_values=[])
    assert _run(**changes, missing_values=["-999", "?"]).id_maps == {"item": {"007": 2, "7": 3}}


def test_missing_values_of_parquet() -> None:
    frame = pl.read_csv(io.StringIO("sequenceId,itemPosition,item,price,n\n1,0,?,-999,1\n1,1,a,1.5,-999\n"))
    frame.write_parquet("data/t.parquet")
    files = {"data_path": "data/t.parquet", "read_format": "parquet", "split_ratios": [1.0]}
    metadata = _run(
        **files,
        stride_by_split=[1],
        missing_real="mean",
        missing_values=["?", "-999"],
        column_roles={"n": "text"},
    )
    assert metadata.id_maps == {"item": {"a": 2}, "n": {"1": 2}}
    assert metadata.missing == {"item": 1, "price": 1, "n": 1}


def test_decimal_commas_are_kept_too() -> None:
    header = "sequenceId;itemPosition;item;price;grade"
    _write("1;0;a;1,5;2,5", "1;1;b;-2;3", "1;2;a;0,25;2,5", "1;3;a;4;10", header=header)
    changes = {"split_ratios": [1.0], "stride_by_split": [1]}
    first = _run(**changes, decimal=",", column_roles={"grade": "categorical"})
    assert first.selected_columns_statistics["price"].mean == pytest.approx(0.9375)
    assert first.id_maps["grade"] == {"2.5": 2, "3.0": 3, "10.0": 4}
    Path("configs/metadata_configs/t.json").rename("first.json")
    again = _run(**changes, metadata_config_path="first.json")
    assert again.decimal == ","
    assert _column(again, "grade").tolist() == _column(first, "grade").tolist() == [2, 3, 2, 4]


def test_a_map_rules_over_what_cells_look_like(project: Path) -> None:
    (project / "configs" / "id_maps").mkdir(parents=True)
    maps = {"item": '{"true": 2, "NA": 3}', "price": '{"1.5": 2, "2.0": 3}', "a_b": '{"007": 2, "7": 3}'}
    for name, text in maps.items():
        (project / "configs" / "id_maps" / f"{name}.json").write_text(text)
    header = "sequenceId,itemPosition,item,price,a/b"
    _write("1,0,true,1.50,007", "1,1,NA,2,7", "1,2,True,3.5,7.0", "1,3,nan,,0007", header=header)
    metadata = _run(split_ratios=[1.0], stride_by_split=[1])
    assert _column(metadata, "item").tolist() == [2, 3, 2, 0]
    assert _column(metadata, "price").tolist() == [2, 3, 1, 0]
    assert _column(metadata, "a/b").tolist() == [2, 3, 3, 1]


@pytest.mark.parametrize("path", ["data/a\nb.csv", "data/..", "data/" + "n" * 230 + ".csv"])
def test_a_path_that_names_no_files(path: str) -> None:
    with pytest.raises(SeqjaxError):
        _run(data_path=path)


def test_missing_real_is_the_mean() -> None:
    _table(price=[None if row % 10 == 1 else float(row % 10) for row in range(100)])
    with pytest.raises(DataError, match=r"'price', row 2 is empty; .* missing_real: mean"):
        _run()
    metadata = _run(missing_real="mean")
    assert metadata.selected_columns_statistics["price"].mean == pytest.approx((0 + 2 + 3 + 4 + 5) / 5)
    assert metadata.missing_real == "mean"
    values = _column(metadata, "price")
    assert np.isnan(values[1])
    assert metadata.missing == {"price": 10}
    _table(price=[float("nan") if row % 10 == 1 else float(row) for row in range(100)])
    _run(missing_real="mean")
    _table(price=[float("inf") if row == 7 else float(row) for row in range(100)])
    with pytest.raises(DataError, match="row 8 holds inf"):
        _run(missing_real="mean")


def test_max_categories_keeps_the_most_frequent(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    _table(item=list("aabbbcdeee") * 10)
    metadata = _run(max_categories={"item": 3}, fit_on="all")
    assert metadata.id_maps == {"item": {"a": 2, "b": 3, "e": 4}}
    assert "20 rows hold a value that its id map lacks" in caplog.text
    assert _column(metadata, "item")[:6].tolist() == [2, 2, 3, 3, 3, 1]


def test_an_earlier_run_is_applied(project: Path) -> None:
    _table(item=list("abcab") * 20, price=np.arange(100.0))
    first = _run(fit_on="all")
    Path("configs/metadata_configs/t.json").rename("first.json")
    _table(extra=["x"] * 100, price=np.arange(100) * 2, item=list("bzbzb") * 20)
    second = _run(metadata_config_path="first.json")
    assert (second.id_maps, second.column_types) == (first.id_maps, first.column_types)
    assert second.selected_columns_statistics == first.selected_columns_statistics
    assert second.fit_on == "all"
    assert _column(second, "item")[:5].tolist() == [3, 1, 3, 1, 3]
    mean, std = (
        first.selected_columns_statistics["price"].mean,
        first.selected_columns_statistics["price"].std,
    )
    assert _column(second, "price")[1] == pytest.approx((2 - mean) / std, rel=1e-6)
    assert list(_run(metadata_config_path="first.json", selected_columns=["price"]).column_types) == ["price"]
    with pytest.raises(DataError, match=r"first.json says nothing about column 'extra'"):
        _run(metadata_config_path="first.json", selected_columns=["extra"])
    _table(item=[1] * 100, price=["x"] * 100)
    with pytest.raises(DataError, match=r"'price' .* .row 1 holds 'x'., but metadata_config_path says real"):
        _run(metadata_config_path="first.json")
    _table(price=np.arange(100.0))
    with pytest.raises(DataError, match="no column 'item'"):
        _run(metadata_config_path="first.json")


def test_integers_of_any_width_are_categorical(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    _table(item=list("abcab") * 20, price=np.arange(100.0))
    _run()
    text = Path("configs/metadata_configs/t.json").read_text()
    Path("narrow.json").write_text(text.replace("Int64", "Int32"))
    caplog.clear()
    assert _run(metadata_config_path="narrow.json").column_types == {"item": "Int32", "price": "Float64"}
    assert "Columns: item (categorical), price (real)." in caplog.text


def test_between_sequences_keeps_sequences_whole() -> None:
    _table(n_sequences=20)
    metadata = _run(split_method="between_sequences")
    splits = _sequences(metadata)
    assert [len(split) for split in splits] == [12, 4, 4]
    assert set.union(*splits) == set(range(20))
    assert sum(len(_column(metadata, "item", k)) for k in range(3)) == 200
    assert _sequences(_run(split_method="between_sequences")) == splits
    assert _sequences(_run(split_method="between_sequences", seed=3)) != splits
    assert splits[0] != set(range(12))
    with pytest.raises(DataError, match=r"Split 1 gets no rows: .* too few sequences"):
        _run(split_method="between_sequences", split_ratios=[0.98, 0.01, 0.01])


@pytest.mark.parametrize(
    ("column", "values", "cut_offs"),
    [
        ("itemPosition", None, [5, 8]),
        ("day", [f"2024-01-{day + 1:02d}" for day in range(10)], ["2024-01-06", "2024-01-09"]),
        ("score", [day / 2 for day in range(10)], [2.5, 4]),
    ],
)
def test_by_value_divides_by_a_column(column: str, values: list | None, cut_offs: list) -> None:
    columns: dict[str, Any] = {"item": list("abcdefghij") * 10}
    if values:
        columns[column] = values * 10
    _table(**columns)
    metadata = _run(
        split_method="by_value",
        split_column=column,
        split_values=cut_offs,
        split_ratios="absent",
        selected_columns=["item"],
    )
    positions = [set(_positions(_windows(metadata, k))) for k in range(3)]
    assert positions == [{0, 1, 2, 3, 4}, {5, 6, 7}, {8, 9}]
    assert list(metadata.column_types) == ["item"]
    assert (metadata.split_column, metadata.split_values) == (column, cut_offs)


@pytest.mark.parametrize(
    ("kind", "cut_off"),
    [
        (pl.Date, "2024-01-06"),
        (pl.Datetime("ms"), "2024-01-06 00:00:00"),
        (pl.Datetime, "2024-01-05T00:00:01"),
    ],
)
def test_by_value_with_dates(kind: Any, cut_off: str) -> None:
    days = pl.datetime_range(pl.datetime(2024, 1, 1), pl.datetime(2024, 1, 10), "1d", eager=True)
    frame = _table().with_columns(day=pl.concat([days] * 10).cast(kind))
    frame.write_parquet("data/t.parquet")
    changes = {"split_method": "by_value", "split_column": "day", "split_ratios": "absent"}
    changes |= {"data_path": "data/t.parquet", "read_format": "parquet", "selected_columns": ["item"]}
    metadata = _run(**changes, split_values=[cut_off], stride_by_split=[1, 1])
    assert [len(_column(metadata, "item", k)) for k in range(2)] == [50, 50]
    with pytest.raises(DataError, match=r"'day' \(split_column\) is of type Date.* cannot be compared with"):
        _run(**changes, split_values=["yesterday"], stride_by_split=[1, 1])


def _by_value(column: list, cut_offs: list) -> None:
    _table(time=column)
    _run(split_method="by_value", split_column="time", split_values=cut_offs, split_ratios="absent")


def test_by_value_refuses_what_it_cannot_divide() -> None:
    with pytest.raises(DataError, match=r"item 4 of sequence 0 .* in split 0, and the row before .* split 1"):
        _by_value([1, 2, 9, 3, 9, 9, 9, 9, 20, 21] * 10, [5, 15])
    with pytest.raises(DataError, match=r"'time', row 3 is empty, but split_column needs a value"):
        _by_value([1, 2, None, 3, 9, 9, 9, 9, 20, 21] * 10, [5, 15])
    with pytest.raises(DataError, match=r"cannot be compared with: 'a' is text"):
        _by_value(list(range(10)) * 10, ["a", "b"])
    with pytest.raises(DataError, match=r"cannot be compared with: 1 is a number"):
        _by_value(list("abcdefghij") * 10, [1, 2])
    with pytest.raises(DataError, match=r"Split 2 gets no rows: no time lies between its cut-offs"):
        _by_value(list(range(10)) * 10, [3, 15])
    with pytest.raises(DataError, match=r"no column 'tme' \(split_column\)\. Did you mean 'time'"):
        _run(split_method="by_value", split_column="tme", split_values=[3, 4], split_ratios="absent")


BY_VALUE = {"split_method": "by_value", "split_ratios": "absent", "stride_by_split": "absent"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"metadata_config_path": "m.json", "fit_on": "all"},
            "fit_on: must be left out where metadata_config",
        ),
        ({"metadata_config_path": "m.json", "max_categories": {"a": 2}}, "max_categories: must be left out"),
        ({"metadata_config_path": "m.json", "column_roles": {"a": "real"}}, "column_roles: must be left out"),
        (
            {"metadata_config_path": "m.json", "use_precomputed_maps": ["a"]},
            "use_precomputed_maps: must be left",
        ),
        ({"column_roles": {"a": "int"}}, "column_roles.a: must be 'categorical', 'real' or 'text'"),
        ({"max_categories": {"a": 0}}, "max_categories.a: must be greater than 0"),
        ({"max_categories": {"a": 2}, "column_roles": {"a": "real"}}, "which column_roles makes real"),
        ({"missing_real": "zero"}, "missing_real: must be 'error', 'mean' or 'mask'"),
        ({"split_values": [1]}, "split_values: is used by split_method: by_value alone"),
        ({"split_column": "a"}, "split_column: is used by split_method: by_value alone"),
        ({"split_ratios": "absent"}, "split_ratios: is required."),
        ({**BY_VALUE, "split_column": "a"}, "split_values: is required by split_method"),
        ({**BY_VALUE, "split_values": [1]}, "split_column: is required by split_method"),
        (
            {"split_method": "by_value", "split_column": "a", "split_values": [1, 2]},
            "split_ratios: must be left out",
        ),
        (
            {**BY_VALUE, "split_column": "a", "split_values": [2, 1]},
            "split_values: must be in ascending order",
        ),
        (
            {**BY_VALUE, "split_column": "a", "split_values": [1, "b"]},
            "split_values: must be all numbers or all text",
        ),
        (
            {"split_method": "by_value", "split_column": "a", "split_values": [1], "split_ratios": "absent"},
            "stride_by_split: needs one stride a split: 2 (found 3)",
        ),
    ],
)
def test_what_cannot_be_is_refused_up_front(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _config(**changes)
    assert message in str(caught.value)
    assert str(caught.value).count("\n") == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"column_roles": {"itm": "real"}}, "column_roles: no column 'itm' is read. Did you mean 'item'"),
        ({"column_roles": {"item": "real"}}, "String (row 1 holds 'a'), but column_roles says real"),
        ({"max_categories": {"itm": 2}}, "max_categories: no column 'itm' is read. Did you mean 'item'"),
        ({"max_categories": {"price": 2}}, "max_categories names 'price', which is real"),
        ({"max_categories": {"code": 2}}, "max_categories names 'code', which has an id map of its own"),
        ({"metadata_config_path": "no.json"}, "no.json does not exist"),
    ],
)
def test_what_the_table_contradicts_is_refused(project: Path, changes: dict[str, Any], message: str) -> None:
    _table(item=["a"] * 100, price=[0.5] * 100, code=["x"] * 100)
    (project / "configs" / "id_maps").mkdir(parents=True)
    (project / "configs" / "id_maps" / "code.json").write_text('{"x": 2}')
    with pytest.raises(SeqjaxError) as caught:
        _run(**changes)
    assert message in str(caught.value)
    assert sorted(path.name for path in Path().rglob("*") if path.is_file()) == ["code.json", "t.csv"]


def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorting, "ROWS_PER_CHUNK", 25)
    monkeypatch.setattr(sorting, "ROWS_PER_BUCKET", 40)
    monkeypatch.setattr(table_files, "ROWS_PER_PIECE", 7)
    monkeypatch.setattr(table_files, "BYTES_PER_BLOCK", 64)


@settings(deadline=None, max_examples=12)
@given(data=st.data())
def test_the_bytes_depend_on_the_rows_alone(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    lengths = data.draw(st.lists(st.integers(3, 12), min_size=2, max_size=12))
    chance = random.Random(data.draw(st.integers(0, 99)))
    cells = ['"a"', '"b,c"', '"a ""quote"" of\n2 lines"', "", "7"]
    rows = [
        f"{number * 3},{item},{chance.choice(cells)},{chance.random()}\n"
        for number, length in enumerate(lengths)
        for item in range(length)
    ]
    header = "sequenceId,itemPosition,item,price\n"
    method = data.draw(st.sampled_from(["within_sequence", "between_sequences"]))
    contents = []
    for n_cores, n_files, shuffled in [(1, 1, False), (2, 3, False), (3, 2, True)]:
        root = tmp_path_factory.mktemp("project")
        order = chance.sample(rows, len(rows)) if shuffled else rows
        cuts = sorted(chance.choices(range(1, len(rows)), k=n_files - 1))
        for number, (begin, end) in enumerate(itertools.pairwise([0, *cuts, len(rows)])):
            part = root / "in" / f"{number}" / "t.csv"
            part.parent.mkdir(parents=True)
            part.write_text(header + "".join(order[begin:end]))
        with pytest.MonkeyPatch.context() as patch:
            _small_pieces(patch)
            _run(
                project_root=str(root),
                data_path="in",
                n_cores=n_cores,
                split_method=method,
                split_ratios=[0.5, 0.5],
                stride_by_split=[1, 1],
                process_by_file=n_files == 1,
            )
        found = _content(root)
        (metadata,) = [name for name in found if name.endswith("in.json")]
        found[metadata] = found[metadata].replace(str(root).encode(), b"root")
        contents.append(found)
    assert contents[0] == contents[1] == contents[2]


BY_DAY = {"split_method": "by_value", "split_column": "day", "split_ratios": "absent"}


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize(
    "changes",
    [
        {"stride_by_split": [1, 3, 2]},
        {"split_method": "between_sequences"},
        {
            "split_method": "by_value",
            "split_column": "day",
            "split_values": [20, 30],
            "split_ratios": "absent",
        },
        {"fit_on": "all", "write_format": "parquet"},
    ],
)
def test_long_sequences_are_divided_and_nothing_shows_it(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], shuffled: bool
) -> None:
    rng = np.random.default_rng(0)
    lengths = [3, 41, 1, 60, 7, 30]
    rows = pl.DataFrame(
        {
            "sequenceId": np.repeat(np.arange(6), lengths),
            "itemPosition": np.concatenate([np.arange(n) for n in lengths]),
            "item": rng.integers(0, 9, sum(lengths)),
        }
    ).with_columns(day=pl.col("itemPosition"))
    # Positions of the longest sequence have a gap; those of the second begin elsewhere.
    gap = (pl.col("sequenceId") == 3) & (pl.col("itemPosition") > 50)
    later = pl.when(pl.col("sequenceId") == 1).then(100).otherwise(pl.when(gap).then(5).otherwise(0))
    rows = rows.with_columns(pl.col("itemPosition") + later)
    (rows.sample(fraction=1, shuffle=True, seed=1) if shuffled else rows).write_csv("data/t.csv")
    contents = []
    for most in (10**6, 7):
        monkeypatch.setattr(sorting, "ROWS_PER_CHUNK", 5)
        monkeypatch.setattr(sorting, "MOST_ROWS_PER_CHUNK", most)
        _run(selected_columns=["item"], **changes)
        contents.append(_content())
    assert contents[0] == contents[1]


def test_going_back_is_noticed_where_a_sequence_is_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    _table(n_sequences=1, n=10, day=[0, 1, 2, 3, 4, 5, 6, 0, 8, 9])
    monkeypatch.setattr(sorting, "ROWS_PER_CHUNK", 5)
    monkeypatch.setattr(sorting, "MOST_ROWS_PER_CHUNK", 7)
    with pytest.raises(DataError, match=r"item 8 of sequence 0 .* in split 0, .* in split 1"):
        _run(**BY_DAY, split_values=[5], stride_by_split=[1, 1])


def test_types_that_show_late_are_those_of_the_whole_column(monkeypatch: pytest.MonkeyPatch) -> None:
    late = {
        "real": ["1"] * 99 + ["0.5"],
        "text": ["1"] * 50 + ["x"] + ["02"] * 49,
        "wide": ["7"] * 99 + ["99999999999999999999"],
        "empty": [""] * 98 + ["3", "4"],
    }
    lines = [",".join(cells) for cells in zip(*late.values(), strict=True)]
    rows = [f"{row // 10},{row % 10},{line}\n" for row, line in enumerate(lines)]
    header = f"sequenceId,itemPosition,{','.join(late)}\n"

    def run(order: list[str]) -> dict[str, bytes]:
        Path("data/t.csv").write_text(header + "".join(order))
        metadata = _run(fit_on="all")
        assert metadata.column_types == {
            "real": "Float64",
            "text": "Int64",
            "wide": "Int64",
            "empty": "Int64",
        }
        assert metadata.id_maps["text"] == {"02": 2, "1": 3, "x": 4}
        assert metadata.id_maps["wide"] == {"7": 2, "99999999999999999999": 3}
        return _content()

    whole = run(rows)
    _small_pieces(monkeypatch)
    assert run(rows) == whole
    assert run(rows[::-1]) == whole


@pytest.mark.parametrize("write_format", ["arrow", "parquet"])
@pytest.mark.parametrize("stop", range(12))
def test_an_interrupted_run_is_continued_to_the_same_bytes(
    monkeypatch: pytest.MonkeyPatch, stop: int, write_format: str
) -> None:
    _small_pieces(monkeypatch)
    _table(n_sequences=9, n=9)
    monkeypatch.setattr(module, "SECONDS_BETWEEN_NOTES", 0.0)
    changes = {"write_format": write_format}
    _run(**changes)
    expected = _content()
    _run(**changes, seq_length=2)
    before = _content()
    write_note, notes = module.Workspace.write_note, itertools.count()

    def interrupted(self: module.Workspace, name: str, value: object) -> None:
        if next(notes) == stop:
            raise KeyboardInterrupt
        write_note(self, name, value)

    monkeypatch.setattr(module.Workspace, "write_note", interrupted)
    try:
        _run(**changes)
    except KeyboardInterrupt:
        visible = {name: text for name, text in _content().items() if "/." not in name}
        assert visible == before
        monkeypatch.setattr(module.Workspace, "write_note", write_note)
        with pytest.raises(
            ConfigError, match="seq_length: was 3 when the interrupted run began, and is 2 now"
        ):
            _run(**changes, seq_length=2, continue_preprocessing=True)
        _run(**changes, continue_preprocessing=True, n_cores=1)
    assert _content() == expected


def test_a_changed_table_is_not_continued(monkeypatch: pytest.MonkeyPatch) -> None:
    _table()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module.shards.ShardWriter, "finish", killed)
        with pytest.raises(KeyboardInterrupt):
            _run()
    _table(n_sequences=11)
    with pytest.raises(ConfigError, match=r"files.data/t.csv: was '.* bytes of .*' when"):
        _run(continue_preprocessing=True)
    _run()
    assert len(json.loads(Path("data/t-split0/manifest.json").read_text())["shards"]) == 1
    assert set(_windows(_run()).sequence_id().tolist()) == set(range(11))
