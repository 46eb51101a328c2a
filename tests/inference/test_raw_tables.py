"""Raw tables become the windows that preprocess would cut, encoded with the model's maps."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from seqjax.config.metadata import Statistics
from seqjax.data import sorting
from seqjax.data.columns import Encoding, encode
from seqjax.data.table_files import FrameFile
from seqjax.data.tables import open_files
from seqjax.errors import DataError
from seqjax.inference.inputs import is_raw, raw_source
from seqjax.windows.windows import Windows, joined
from tests.engines import fake_card

CARD = fake_card(
    {"item": {"apple": 2, "fig": 3}, "shop": {"7": 2, "12": 3}},
    {"price": Statistics(mean=100.0, std=10.0)},
    {"item": "categorical"},
)
TABLE = pl.DataFrame(
    {
        "sequenceId": [1, 1, 1, 1, 1, 1, 2, 2, 3],
        "itemPosition": [0, 1, 2, 3, 5, 8, 4, 5, 7],
        "note": ["not read"] * 9,
        "item": ["apple", "fig", "apple", None, "pear", "fig", "fig", "apple", "fig"],
        "price": [100.0, 110, 90, 100, 105, 95, 120, 80, 100],
        "shop": [7, 12, 7, 7, 12, 99, 7, 12, 7],
    }
)


def windows_of(table: pl.DataFrame, card=CARD, **options) -> Windows:
    with raw_source(FrameFile(table), card, **options) as source:
        windows = joined(list(source.parts()))
        assert source.total == len(windows)
    return windows


def test_the_newest_window_of_each_sequence() -> None:
    windows = windows_of(TABLE)
    batch = windows.gather(np.arange(3))
    assert windows.sequence_id().tolist() == [1, 2, 3]
    assert batch.padding.tolist() == [0, 2, 3]
    assert batch.columns["item"].tolist() == [[2, 0, 1, 3], [0, 0, 3, 2], [0, 0, 0, 3]]
    assert batch.columns["shop"].tolist() == [[2, 2, 3, 1], [0, 0, 2, 3], [0, 0, 0, 2]]
    np.testing.assert_allclose(batch.columns["price"][0], [-1, 0, 0.5, -0.5], atol=1e-6)
    assert windows.positions(np.arange(3), np.arange(4)).tolist() == [
        [2, 3, 5, 8],
        [2, 3, 4, 5],
        [4, 5, 6, 7],
    ]


def test_windows_a_stride_apart_end_each_sequence() -> None:
    windows = windows_of(TABLE, stride=2)
    # Nothing comes before the only item of sequence 3.
    assert windows.sequence_id().tolist() == [1, 1, 1, 2]
    assert windows.subsequence_id().tolist() == [0, 1, 2, 0]
    assert windows.gather(np.arange(4)).columns["item"].tolist() == [
        [0, 0, 2, 3],
        [2, 3, 2, 0],
        [2, 0, 1, 3],
        [0, 0, 3, 2],
    ]


@pytest.mark.parametrize("stride", [None, 1])
def test_neither_order_nor_chunks_nor_the_file_matter(tmp_path: Path, monkeypatch, stride) -> None:
    expected = windows_of(TABLE, stride=stride)
    monkeypatch.setattr(sorting, "ROWS_PER_CHUNK", 2)
    shuffled = TABLE.sample(fraction=1, shuffle=True, seed=3)
    shuffled.write_csv(tmp_path / "table.csv")
    TABLE[:4].write_parquet(tmp_path / "1.parquet")
    TABLE[4:].write_parquet(tmp_path / "2.parquet")
    for files in (
        FrameFile(shuffled),
        open_files(tmp_path / "table.csv", "csv"),
        open_files(tmp_path, "parquet"),
    ):
        with raw_source(files, CARD, stride=stride) as source:
            parts = list(source.parts())
            assert len(parts) > 1
            found = joined(parts)
            again = joined(list(source.parts()))
        for windows in (found, again):
            assert windows.sequence_id().tolist() == expected.sequence_id().tolist()
            every = np.arange(len(expected))
            for name, values in expected.gather(every).columns.items():
                np.testing.assert_array_equal(windows.gather(every).columns[name], values)


@pytest.mark.parametrize(
    ("id_map", "cells", "expected"),
    [
        ({"7": 2, "12": 3}, [7.0, 12.0, None, 0.5], [2, 3, 0, 1]),
        ({"0.5": 2, "7.0": 3}, [7, 12, None, 0], [3, 1, 0, 1]),
        ({"0": 2, "1": 3}, [True, False, None, True], [3, 2, 0, 3]),
        ({"a": 2, "7": 3}, [7, 12, None, 7], [3, 1, 0, 3]),
        ({"7": 2}, [7.0, 1e19, None, float("inf")], [2, 1, 0, 1]),
    ],
    ids=["floats for integers", "integers for floats", "booleans", "integers for text", "beyond int64"],
)
def test_numbers_are_matched_however_a_program_wrote_them(id_map, cells, expected) -> None:
    card = fake_card({"item": id_map}, {}, {"item": "categorical"})
    table = pl.DataFrame({"sequenceId": [1] * 4, "itemPosition": range(4), "item": cells})
    assert windows_of(table, card).gather(np.arange(1)).columns["item"].tolist() == [expected]


def test_text_that_looks_like_numbers_stays_text(tmp_path: Path) -> None:
    card = fake_card({"item": {"01": 2, "1": 3}}, {}, {"item": "categorical"})
    path = tmp_path / "table.csv"
    path.write_text("sequenceId,itemPosition,item\n1,0,01\n1,1,1\n1,2,001\n1,3,\n")
    with raw_source(open_files(path, "csv"), card) as source:
        (windows,) = source.parts()
    assert windows.gather(np.arange(1)).columns["item"].tolist() == [[2, 3, 1, 0]]


def test_a_column_may_be_another_than_an_input() -> None:
    assert list(windows_of(TABLE, columns=["shop"]).columns) == ["shop"]


@pytest.mark.parametrize(
    ("price", "statistics"),
    [
        (pl.Series([1e19, -1e19, 7.0, 0.1], dtype=pl.Float64), Statistics(mean=1e18, std=2e18)),
        (pl.Series([0.1, 0.10000001, 0.3, 1], dtype=pl.Float32), Statistics(mean=0.1, std=1e-6)),
    ],
    ids=["beyond int64", "float32"],
)
def test_real_columns_are_what_preprocess_makes_of_them(price: pl.Series, statistics: Statistics) -> None:
    table = pl.DataFrame({"sequenceId": [1] * 4, "itemPosition": range(4), "price": price})
    windows = windows_of(table, fake_card({}, {"price": statistics}, {"price": "real"}))
    expected = encode(table, Encoding({}, {"price": statistics}))["price"]
    np.testing.assert_array_equal(windows.gather(np.arange(1)).columns["price"], [expected])


def test_missing_numbers() -> None:
    table = TABLE.with_columns(price=pl.when(pl.col("itemPosition") == 3).then(None).otherwise("price"))
    with pytest.raises(DataError, match=r"column 'price', row 4 is empty.*missing_real: mean"):
        windows_of(table)
    batch = windows_of(table, missing_real="mean").gather(np.arange(1))
    np.testing.assert_allclose(batch.columns["price"][0], [-1, np.nan, 0.5, -0.5], atol=1e-6)


def test_columns_without_any_value() -> None:
    """Polars gives them a type of their own."""
    empty = TABLE.with_columns(item=pl.lit(None), price=pl.lit(None))
    batch = windows_of(empty, missing_real="mean").gather(np.arange(1))
    assert batch.columns["item"].tolist() == [[0, 0, 0, 0]]
    assert np.isnan(batch.columns["price"]).all()
    with pytest.raises(DataError, match=r"column 'price', row 1 is empty"):
        windows_of(empty)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda table: table.rename({"shop": "shops"}),
            r"no column 'shop' \(the model's columns\). Did you mean 'shops'",
        ),
        (lambda table: table.drop("itemPosition"), "no column 'itemPosition'"),
        (lambda table: pl.concat([table, table[4:5]]), "5 twice: in row 5 of the table and in row 10"),
        (lambda table: table.with_columns(price=pl.lit("cheap")), "the model says real"),
        (lambda table: table.clear(), "holds no rows"),
    ],
    ids=["column", "key", "twins", "kind", "empty"],
)  # fmt: skip
def test_tables_that_cannot_be_read(change, message: str) -> None:
    with pytest.raises(DataError, match=message):
        windows_of(change(TABLE))


def test_a_model_without_statistics_reads_no_raw_tables() -> None:
    card = CARD.model_copy(update={"statistics": {}})
    with pytest.raises(DataError, match="holds no mean and standard deviation of column 'price'"):
        windows_of(TABLE, card)


def test_a_table_is_raw_by_its_columns() -> None:
    assert is_raw(TABLE.columns)
    assert not is_raw(["sequenceId", "subsequenceId", "startItemPosition", "inputCol", "1", "0"])
