"""A value has the id of its key, however a program wrote it, and no other."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqjax.data.columns import encode_ids
from seqjax.data.lookup import Lookup, numbers_of

WHOLE = {"7": 2, "12": 3, "-1": 4, "100000": 5, "0": 6}
DECIMAL = {"0.5": 2, "7.0": 3, "1e+16": 4}
TRUTHS = {"0": 2, "1": 3}
WORDS = {"false": 2, "true": 3, "yes": 4}
CODES = {"007": 2, "1.50": 3, "12": 4, "A1": 5}
LABELS = {"7": 2, "8": 3, "A1": 4, "0": 5}


@pytest.mark.parametrize(
    ("id_map", "texts"),
    [
        (WHOLE, {"7": 2, "7.0": 2, "7.": 2, " 7": 2, "+7": 2, "7e0": 2, "1e5": 5, "1e+05": 5, "-1.0": 4}),
        (
            WHOLE,
            {"-0": 6, "-0.0": 6, "7.5": 1, "007": 1, "8": 1, "x": 1, "": 1, "inf": 1, "nan": 1, "1e99": 1},
        ),
        (WHOLE, {"true": 1, "1,000": 1, "٧": 1, "1_2": 1}),
        (
            DECIMAL,
            {"0.5": 2, ".5": 2, "0.50": 2, "5e-1": 2, "7": 3, "7.0": 3, "07.0": 3, "1e16": 4, "0.51": 1},
        ),
        (
            TRUTHS,
            {"true": 3, "True": 3, "FALSE": 2, " false": 2, "1": 3, "0": 2, "1.0": 3, "maybe": 1, "2": 1},
        ),
        ({"1": 2}, {"true": 2, "false": 1, "1.0": 2}),
        ({"false": 2, "true": 3}, {"1": 3, "0": 2, "0.0": 2, "True": 3, "2": 1, "x": 1}),
        (WORDS, {"true": 3, "TRUE": 3, "False": 2, "yes": 4, "Yes": 1, "1": 1}),
        ({"true": 2, "True": 3, "x": 4}, {"true": 2, "True": 3, "TRUE": 1}),
        (CODES, {"007": 2, "7": 1, "7.0": 1, "1.50": 3, "1.5": 1, "12": 4, "12.0": 1, "A1": 5, "a1": 1}),
        (LABELS, {"7": 2, "7.0": 2, "8.0": 3, "A1": 4, "007": 1, "9.0": 1, "0.0": 5}),
        ({"1.1": 2, "1.10": 3, "2.0-b": 4}, {"1.1": 2, "1.10": 3, "1.100": 1, "1.1e0": 1}),
        ({}, {"a": 1, "1": 1}),
    ],
)
def test_by_hand(id_map: dict[str, int], texts: dict[str, int]) -> None:
    assert dict(zip(texts, Lookup(id_map).ids(texts), strict=True)) == texts


@pytest.mark.parametrize(
    ("id_map", "column", "expected"),
    [
        (WORDS, pl.Series([True, None, False]), [3, 0, 2]),
        (TRUTHS, pl.Series([True, None, False]), [3, 0, 2]),
        (WHOLE, pl.Series([7.0, None, 7.5, -1.0]), [2, 0, 1, 4]),
        (DECIMAL, pl.Series([7, None, 8]), [3, 0, 1]),
        (LABELS, pl.Series([7.0, None, 9.0]), [2, 0, 1]),
        (CODES, pl.Series([12, None, 7]), [4, 0, 1]),
        ({"a": 2}, pl.Series(["a", None, "b"], dtype=pl.Categorical), [2, 0, 1]),
        (DECIMAL, pl.Series([0.5, 7.0], dtype=pl.Float32), [2, 3]),
    ],
)
def test_columns_of_any_type(id_map: dict[str, int], column: pl.Series, expected: list[int]) -> None:
    assert encode_ids(column, Lookup(id_map)).tolist() == expected


@given(st.dictionaries(st.text(max_size=4), st.integers(2, 99), max_size=6), st.text(max_size=4))
def test_a_key_is_itself(id_map: dict[str, int], other: str) -> None:
    lookup = Lookup(id_map)
    assert lookup.ids(id_map) == list(id_map.values())
    if other not in id_map:
        assert lookup.ids([other])[0] in {1, *id_map.values()}


@given(st.sets(st.integers(-(2**70), 2**70), min_size=1, max_size=5), st.data())
def test_whole_numbers_have_one_id_in_any_writing(numbers: set[int], data: st.DataObject) -> None:
    id_map = {str(number): place for place, number in enumerate(sorted(numbers), start=2)}
    number = data.draw(st.sampled_from(sorted(numbers)))
    expected = [id_map[str(number)]] * 4
    assert Lookup(id_map).ids([f"{number}.0", f" {number} ", f"{number:+}", f"{number}e0"]) == expected
    if number + 1 not in numbers:
        assert Lookup(id_map).ids([f"{number + 1}.0"]) == [1]


def test_how_a_map_writes_numbers() -> None:
    assert numbers_of({"7": 2, "-1": 3}) == "whole"
    assert numbers_of({"7.0": 2, "0.5": 3}) == "decimal"
    assert numbers_of({"01": 2}) is None
    assert numbers_of({"a": 2, "7": 3}) is None
