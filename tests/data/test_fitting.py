"""Maps and statistics: what they are, whatever chunks the rows come in."""

import logging
import math
from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqjax.config.metadata import Statistics
from seqjax.data.columns import encode, normalise
from seqjax.data.fitting import Learner, Moments
from seqjax.errors import DataError
from tests.tables import learn


def _statistics(column: pl.Series) -> Statistics:
    return learn(column.alias("x").to_frame(), {"x": "real"}).statistics["x"]


def _in_chunks(learner: Learner, column: pl.Series, borders: list[int]) -> Learner:
    for begin, end in zip([0, *borders], [*borders, len(column)], strict=True):
        learner.add(learner.look(column[begin:end].to_frame()))
    return learner


@pytest.mark.parametrize("n", [2, 5, 1000])
def test_statistics_are_mean_and_sample_deviation(n: int) -> None:
    values = np.random.default_rng(n).normal(50, 3, n)
    found = _statistics(pl.Series(values))
    assert found.mean == pytest.approx(math.fsum(values) / n, rel=1e-14)
    assert found.std == pytest.approx(np.std(values, ddof=1), rel=1e-13)


def test_a_single_row_and_a_constant_have_no_deviation() -> None:
    assert _statistics(pl.Series([3.5])) == Statistics(std=0.0, mean=3.5)
    constant = _statistics(pl.Series([3.5] * 7))
    assert constant == Statistics(std=0.0, mean=3.5)
    assert normalise(np.array([3.5]), constant).tolist() == [0.0]


def test_a_constant_column_is_told_and_rounding_makes_no_scale(caplog: pytest.LogCaptureFixture) -> None:
    assert _statistics(pl.Series([0.3, 0.1 + 0.2, 0.3])).std == 0.0
    assert "Column 'x' is constant (0.3) in the rows" in caplog.text
    caplog.clear()
    assert _statistics(pl.Series([0.3, 0.3 + 1e-14])).std > 0
    assert _statistics(pl.Series([1e16, 1e16 + 2])).std > 0
    assert not caplog.text


@pytest.mark.parametrize("borders", [[], [1], [2, 3]])
@pytest.mark.parametrize("size", [1e-310, 1e-200, 1e-12, 1.0, 1.7e9, 1e200, 1e307])
def test_statistics_of_numbers_of_any_size(size: float, borders: list[int]) -> None:
    column = pl.Series("x", [size, -size, 2 * size, size])
    found = _in_chunks(Learner({"x": "real"}), column, borders).encoding().statistics["x"]
    assert found.mean / size == pytest.approx(0.75)
    assert found.std / size == pytest.approx(np.std([1, -1, 2, 1], ddof=1))


def test_a_sum_that_overflows_is_refused() -> None:
    with pytest.raises(DataError, match="column 'x' are too large"):
        _statistics(pl.Series([1.7e308, -1.7e308]))


@settings(deadline=None, max_examples=100)
@given(st.lists(st.floats(-1e6, 1e6) | st.none(), min_size=1, max_size=30), st.data())
def test_statistics_of_chunks_are_those_of_the_whole(values: list[float | None], data: st.DataObject) -> None:
    column = pl.Series("x", values, dtype=pl.Float64)
    numbers = [value for value in values if value is not None]
    borders = sorted(data.draw(st.lists(st.integers(0, len(values)), max_size=5)))
    learner = _in_chunks(Learner({"x": "real"}), column, borders)
    if not numbers:
        with pytest.raises(DataError, match="Column 'x' holds no number"):
            learner.encoding()
        return
    found = learner.encoding().statistics["x"]
    scale = max(map(abs, numbers)) + 1e-12
    assert found.mean == pytest.approx(np.mean(numbers), abs=1e-12 * scale)
    expected = np.std(numbers, ddof=1) if len(numbers) > 1 else 0.0
    assert found.std == pytest.approx(expected, abs=1e-7 * scale)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.sampled_from([None, *"abcdefgh"]), min_size=1, max_size=40), st.integers(1, 9), st.data())
def test_the_most_frequent_values_are_kept(values: list[str | None], most: int, data: st.DataObject) -> None:
    borders = sorted(data.draw(st.lists(st.integers(0, len(values)), max_size=5)))
    learner = Learner({"c": "categorical"}, max_categories={"c": most})
    found = _in_chunks(learner, pl.Series("c", values, dtype=pl.String), borders).encoding().id_maps["c"]
    counts = Counter(value for value in values if value is not None)
    kept = sorted(sorted(counts, key=lambda value: (-counts[value], value))[:most])
    assert list(found.items()) == [(value, number) for number, value in enumerate(kept, start=2)]


@pytest.mark.parametrize("borders", [[], [3], [1, 2, 5], [0, 0, 7]])
def test_maps_of_chunks_are_those_of_the_whole(borders: list[int]) -> None:
    column = pl.Series("c", [10, -5, 9, None, 10, 2, 9])
    found = _in_chunks(Learner({"c": "categorical"}), column, borders).encoding()
    assert found.id_maps == {"c": {"-5": 2, "2": 3, "9": 4, "10": 5}}


def test_numbers_as_categories_are_in_the_order_of_numbers() -> None:
    found = learn(pl.DataFrame({"c": [10.0, 2.5, None, -1.0]}), {"c": "categorical"})
    assert found.id_maps == {"c": {"-1.0": 2, "2.5": 3, "10.0": 4}}
    assert encode(pl.DataFrame({"c": [2.5, 7.0, None]}), found)["c"].tolist() == [3, 1, 0]


def test_missing_numbers_count_for_no_mean_and_stay_missing() -> None:
    features = pl.DataFrame({"x": [1.0, None, 5.0]})
    found = learn(features, {"x": "real"})
    assert found.statistics["x"].mean == 3.0
    values = encode(features, found)["x"]
    assert np.isnan(values[1])
    assert values[0] == -values[2] != 0


def test_given_maps_replace_what_would_be_learnt() -> None:
    learner = Learner({"s": "categorical"}, given={"s": {"a": 2, "b": 9, "zz": 4}})
    learner.add(learner.look(pl.DataFrame({"s": ["a", "b", "c"]})))
    encoding = learner.encoding()
    assert encoding.n_classes == {"s": 10}
    assert encode(pl.DataFrame({"s": ["a", "b", "c", "a"]}), encoding)["s"].tolist() == [2, 9, 1, 2]


def test_a_column_without_values_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert learn(pl.DataFrame({"s": pl.Series([None], dtype=pl.String)}), {"s": "categorical"}).id_maps == {
        "s": {}
    }
    assert "'s' holds no value" in caplog.text


def test_no_values_leave_moments_as_they_are() -> None:
    assert Moments(3, 1.0, 2.0).plus(Moments()) == Moments(3, 1.0, 2.0)
    assert Moments().plus(Moments()) == Moments()
