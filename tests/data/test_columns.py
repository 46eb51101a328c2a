"""Maps, statistics, and the way there and back."""

import math
from datetime import date
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqjax.config.metadata import Metadata, Statistics
from seqjax.data.columns import (
    Encoding,
    class_labels,
    class_values,
    decode_ids,
    denormalise,
    encode,
    encode_ids,
    id_dtype,
    normalise,
)
from seqjax.data.lookup import Lookup
from seqjax.errors import DataError
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
    known = class_values(id_map, len(id_map) + 2, str(dtype()))
    decoded = decode_ids(encode_ids(column, Lookup(id_map)), known)
    if dtype == pl.Int128:
        assert decoded.to_list() == ["unknown" if value is None else str(value) for value in values]
        return
    assert decoded.dtype == dtype
    assert decoded.to_list() == [
        "unknown" if value is None and dtype == pl.String else value for value in values
    ]


def test_unseen_values_are_other() -> None:
    id_map = _id_map(pl.Series(["a", "b"]))
    assert encode_ids(pl.Series(["b", "c", None, "a"]), Lookup(id_map)).tolist() == [3, 1, 0, 2]
    assert decode_ids(np.array([1, 0, 2, 3]), class_values(id_map, 4)).to_list() == [
        "other",
        "unknown",
        "a",
        "b",
    ]


@pytest.mark.parametrize(
    ("value_type", "id_map", "values"),
    [
        ("Boolean", {"0": 2, "1": 3}, [None, None, False, True]),
        ("Int64", {"-3": 2, "10": 3}, [None, None, -3, 10]),
        ("UInt8", {"3": 2, "10": 4}, [None, None, 3, None, 10]),
        ("Float64", {"2.5": 2, "10.0": 3}, [None, None, 2.5, 10.0]),
        ("Date", {"2024-02-28": 2, "2024-02-29": 3}, [None, None, date(2024, 2, 28), date(2024, 2, 29)]),
        ("String", {"0": 2, "other": 3}, ["unknown", "other_", "0", "other"]),
        ("Int64", {"7": 2, "x": 3}, ["unknown", "other", "7", "x"]),
        ("Boolean", {"0": 2, "maybe": 3}, ["unknown", "other", "0", "maybe"]),
        ("Date", {"2024-02-30": 2}, ["unknown", "other", "2024-02-30"]),
        ("a type of another version", {"7": 2}, ["unknown", "other", "7"]),
    ],
)
def test_categories_come_back_in_their_type(value_type: str, id_map: dict[str, int], values: list) -> None:
    found = class_values(id_map, len(values), value_type)
    assert found.to_list() == values
    assert str(found.dtype) == (value_type if values[0] is None else "String")


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


def test_booleans_are_labelled_true_and_false() -> None:
    assert class_labels({"0": 2, "1": 3}, 4, "Boolean") == ["unknown", "other", "false", "true"]
    assert class_labels({"0": 2, "1": 3}, 4, "Int64") == ["unknown", "other", "0", "1"]


def test_a_map_applies_whatever_the_type_of_the_column() -> None:
    id_map = {"1": 2, "2": 3, "x": 4}
    assert encode_ids(pl.Series([2, 1, 7]), Lookup(id_map)).tolist() == [3, 2, 1]
    assert encode_ids(pl.Series(["2", "1", "x"]), Lookup(id_map)).tolist() == [3, 2, 4]


@pytest.mark.parametrize(
    ("largest", "dtype"), [(127, "int8"), (128, "int16"), (2**15, "int32"), (2**31, "int64")]
)
def test_ids_take_the_smallest_type(largest: int, dtype: str) -> None:
    assert id_dtype(largest) == np.dtype(dtype)


MAGNITUDES = st.floats(-300, 300).map(lambda exponent: 10.0**exponent)
LEVELS = st.just(0.0) | st.tuples(st.sampled_from([-1.0, 1.0]), MAGNITUDES).map(math.prod)
UNITS = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=20)


def rounding(values: np.ndarray, statistics: Statistics) -> np.ndarray:
    """A few of the smallest steps that the numbers on the way to standardised values and back can make."""
    return 8 * np.spacing(np.abs(values) + abs(statistics.mean))


@settings(deadline=None, max_examples=300)
@given(LEVELS, MAGNITUDES, UNITS)
def test_standardising_has_an_exact_inverse_at_any_scale_and_level(
    level: float, std: float, distances: list[float]
) -> None:
    statistics = Statistics(mean=level, std=std)
    values = level + std * np.array(distances)
    back = denormalise(normalise(values, statistics), statistics)
    assert (np.abs(back - values) <= rounding(values, statistics)).all()
    # And the other way round, as exactly as the level lets the table hold it.
    again = normalise(denormalise(np.array(distances), statistics), statistics)
    assert (np.abs(again - distances) * std <= rounding(values, statistics) + 1e-12 * std).all()


@settings(deadline=None, max_examples=200)
@given(LEVELS, MAGNITUDES, st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=20, unique=True))
def test_values_are_stored_to_a_float32_of_a_deviation(
    level: float, scale: float, distances: list[float]
) -> None:
    column = level + scale * np.array(distances)
    encoding = learn(pl.DataFrame({"x": column}), {"x": "real"})
    statistics = encoding.statistics["x"]
    stored = encode(pl.DataFrame({"x": column}), encoding)["x"]
    assert stored.dtype == np.float32
    error = np.abs(denormalise(stored, statistics) - column)
    exact = np.abs(normalise(column, statistics)) * statistics.unit
    smallest = 2.0**-149 * statistics.unit
    assert (error <= 1e-7 * exact + smallest + rounding(column, statistics)).all()


@settings(deadline=None, max_examples=100)
@given(LEVELS, st.integers(1, 9), LEVELS)
def test_a_constant_column_has_the_scale_1(value: float, n: int, later: float) -> None:
    statistics = learn(pl.DataFrame({"x": [value] * n}), {"x": "real"}).statistics["x"]
    assert (statistics.mean, statistics.std, statistics.unit) == (value, 0.0, 1.0)
    assert normalise(np.array([value]), statistics).tolist() == [0.0]
    values = np.array([later])
    back = denormalise(normalise(values, statistics), statistics)
    assert (np.abs(back - values) <= rounding(values, statistics)).all()


@pytest.mark.parametrize("std", [0.0, 1e-12, 1e-9, 1e-8, 3.0])
def test_files_of_sequifier_keep_its_formula(std: float) -> None:
    exact = Statistics(std=std, mean=2.0)
    files = {
        version: Metadata.model_validate(
            {
                "n_classes": {},
                "id_maps": {},
                "split_paths": [],
                "column_types": {"x": "Float64"},
                "selected_columns_statistics": {"x": {"std": std, "mean": 2.0}},
                "seqjax_version": version,
            }
        ).selected_columns_statistics["x"]
        for version in (None, "1")
    }
    values = np.array([2.0, 2.5, -1.0])
    theirs = normalise(values, files[None])
    np.testing.assert_array_equal(theirs, (values - 2.0) / (std + 1e-9))
    np.testing.assert_array_equal(denormalise(theirs, files[None]), theirs * (std - 1e-9) + 2.0)
    assert files["1"] == exact
    # The formula stays with the numbers, wherever they are written.
    assert Statistics.model_validate(files[None].model_dump()) == files[None] != files["1"]


def test_a_value_that_cannot_be_stored_is_refused() -> None:
    encoding = Encoding({}, {"x": Statistics(mean=0.0, std=1e-40)})
    assert encode(pl.DataFrame({"x": [1e-40, None]}), encoding)["x"].tolist()[0] == 1.0
    with pytest.raises(DataError, match=r"Column 'x' holds 10\.0, too far from the mean 0 .* of 1e-40"):
        encode(pl.DataFrame({"x": [1e-40, None, 10.0]}), encoding)


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
