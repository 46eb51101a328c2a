"""Maps, statistics, and the way there and back."""

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqjax.data.columns import class_labels, decode_ids, denormalise, encode, encode_ids, id_dtype, normalise
from seqjax.data.lookup import Lookup
from tests.tables import learn


def _id_map(column: pl.Series) -> dict[str, int]:
    return learn(column.alias("c").to_frame(), {"c": "categorical"}).id_maps["c"]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pl.Series(["high", None, "Zed", "é", "high"]), {"Zed": 2, "high": 3, "é": 4}),
        (pl.Series([10, -5, 9, None, 2**63 - 1]), {"-5": 2, "9": 3, "10": 4, str(2**63 - 1): 5}),
        (pl.Series([True, None, False]), {"0": 2, "1": 3}),
        (pl.Series([True]), {"1": 2}),
        (pl.Series(["b", "a"], dtype=pl.Categorical), {"a": 2, "b": 3}),
        (pl.Series(["b", "a"], dtype=pl.Enum(["b", "c", "a"])), {"a": 2, "b": 3}),
        (pl.Series(["", " "]), {"": 2, " ": 3}),
    ],
)
def test_id_map_is_ascending(column: pl.Series, expected: dict[str, int]) -> None:
    id_map = _id_map(column)
    assert list(id_map.items()) == list(expected.items())
    ids = encode_ids(column, Lookup(id_map))
    assert ids.dtype == np.int8
    assert (ids == 0).tolist() == column.is_null().to_list()


def _values(dtype: Any) -> st.SearchStrategy[list]:
    if dtype == pl.String:
        item = st.text(st.characters(blacklist_categories=("Cs",)), max_size=5)
    elif dtype == pl.Boolean:
        item = st.booleans()
    else:
        item = st.integers(pl.select(dtype.min()).item(), pl.select(dtype.max()).item())
    return st.lists(st.none() | item, min_size=1, max_size=30)


@settings(deadline=None, max_examples=150)
@given(st.data(), st.sampled_from([pl.String, pl.Boolean, pl.Int8, pl.Int64, pl.UInt64, pl.Int128]))
def test_encoding_round_trip(data: st.DataObject, dtype: Any) -> None:
    values = data.draw(_values(dtype))
    column = pl.Series("c", values, dtype=dtype)
    id_map = _id_map(column)
    assert list(id_map.values()) == list(range(2, len(id_map) + 2))
    decoded = decode_ids(encode_ids(column, Lookup(id_map)), class_labels(id_map, len(id_map) + 2)).to_list()
    texts = [
        None if value is None else value if isinstance(value, str) else str(int(value)) for value in values
    ]
    assert decoded == ["unknown" if text is None else text for text in texts]


def test_unseen_values_are_other() -> None:
    id_map = _id_map(pl.Series(["a", "b"]))
    assert encode_ids(pl.Series(["b", "c", None, "a"]), Lookup(id_map)).tolist() == [3, 1, 0, 2]
    assert decode_ids(np.array([1, 0, 2, 3]), class_labels(id_map, 4)).to_list() == [
        "other",
        "unknown",
        "a",
        "b",
    ]


@pytest.mark.parametrize(
    ("id_map", "classes", "labels"),
    [
        ({"a": 2, "b": 3}, 4, ["unknown", "other", "a", "b"]),
        ({"unknown": 2, "other": 3}, 4, ["unknown_", "other_", "unknown", "other"]),
        ({"unknown": 2, "unknown_": 3}, 4, ["unknown__", "other", "unknown", "unknown_"]),
        ({"b": 4}, 5, ["unknown", "other", "2", "3", "b"]),
        ({"3": 2, "b": 4}, 5, ["unknown", "other", "3", "3_", "b"]),
        ({}, 3, ["unknown", "other", "2"]),
    ],
)
def test_labels_are_all_different(id_map: dict[str, int], classes: int, labels: list[str]) -> None:
    assert class_labels(id_map, classes) == labels


def test_a_map_applies_whatever_the_type_of_the_column() -> None:
    id_map = {"1": 2, "2": 3, "x": 4}
    assert encode_ids(pl.Series([2, 1, 7]), Lookup(id_map)).tolist() == [3, 2, 1]
    assert encode_ids(pl.Series(["2", "1", "x"]), Lookup(id_map)).tolist() == [3, 2, 4]


@pytest.mark.parametrize(
    ("largest", "dtype"), [(127, "int8"), (128, "int16"), (2**15, "int32"), (2**31, "int64")]
)
def test_ids_take_the_smallest_type(largest: int, dtype: str) -> None:
    assert id_dtype(largest) == np.dtype(dtype)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20))
def test_normalising_round_trip(values: list[float]) -> None:
    column = np.array(values)
    statistics = learn(pl.DataFrame({"x": column}), {"x": "real"}).statistics["x"]
    scaled = normalise(column, statistics)
    assert scaled.dtype == np.float32
    back = denormalise(scaled, statistics)
    assert np.abs(back - column).max() <= 1e-6 * max(np.abs(column).max(), statistics.std, 1e-2)


def test_encode_covers_the_columns_that_it_knows() -> None:
    features = pl.DataFrame({"x": [1.0, 3.0], "s": ["b", "a"], "f": pl.Series([1.0, 2.0], dtype=pl.Float32)})
    encoding = learn(features, {"x": "real", "s": "categorical", "f": "real"})
    assert encoding.n_classes == {"s": 4}
    columns = encode(features.with_columns(extra=1), encoding)
    assert {name: str(column.dtype) for name, column in columns.items()} == {
        "x": "float32",
        "s": "int8",
        "f": "float32",
    }
    assert columns["s"].tolist() == [3, 2]
