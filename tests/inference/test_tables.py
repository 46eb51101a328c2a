"""Result tables equal tables written by hand."""

import numpy as np
import polars as pl
from polars.testing import assert_frame_equal

from seqjax.config.metadata import Statistics
from seqjax.config.schema import ColumnKind
from seqjax.inference.forecast import Embeddings, Forecast
from seqjax.inference.tables import (
    embedding_table,
    frequency_table,
    prediction_table,
    probability_table,
    quantile_table,
)
from tests.engines import fake_card

CARD = fake_card(
    {"item": {"apple": 2, "fig": 3}, "shop": {"10": 2, "-3": 3}},
    {"price": Statistics(mean=100.0, std=10.0)},
    {"shop": "categorical", "price": "real", "item": "categorical"},
)
FORECAST = Forecast(
    np.array([4, 4, 9]),
    np.array([7, 8, 3]),
    {
        "shop": np.array([2, 3, 0]),
        "price": np.array([0.0, -1.5, 0.25], np.float32),
        "item": np.array([1, 3, 2]),
    },
    {
        "item": np.log(np.array([[0.1, 0.5, 0.2, 0.2], [0.125, 0.125, 0.25, 0.5], [0.25] * 4], np.float32))
        + 0.5
    },
)


def test_predictions_in_the_users_own_values() -> None:
    expected = pl.DataFrame(
        {
            "sequenceId": [4, 4, 9],
            "itemPosition": [7, 8, 3],
            "item": ["other", "fig", "apple"],
            "price": [100.0, 85.0, 102.5],
            "shop": ["10", "-3", "unknown"],
        }
    )
    found = prediction_table(FORECAST, CARD, ["item", "price", "shop"], map_to_id=True)
    assert_frame_equal(found, expected)


def test_categories_come_back_in_the_types_of_the_table() -> None:
    kinds: dict[str, ColumnKind] = {"flag": "categorical", "shop": "categorical"}
    card = fake_card({"flag": {"0": 2, "1": 3}, "shop": {"10": 2, "-3": 3}}, {}, kinds)
    card = card.model_copy(update={"value_types": {"flag": "Boolean", "shop": "Int64"}})
    ids = np.arange(4)
    log_probs = {"flag": np.log(np.full((4, 4), 0.25, np.float32))}
    forecast = Forecast(ids, ids, {"flag": ids, "shop": ids}, log_probs)
    found = prediction_table(forecast, card, ["flag", "shop"], map_to_id=True)
    typed = {"flag": [None, None, False, True], "shop": [None, None, 10, -3]}
    assert_frame_equal(found, pl.DataFrame({"sequenceId": ids, "itemPosition": ids, **typed}))
    assert probability_table(forecast, card, "flag").columns == ["unknown", "other", "false", "true"]


def test_real_values_keep_what_float32_would_round() -> None:
    card = fake_card({}, {"when": Statistics(mean=1.7e9, std=8.0)}, {"when": "real"})
    keys = np.arange(2)
    forecast = Forecast(keys, keys, {"when": np.array([0.0, 1.25], np.float32)}, {})
    found = prediction_table(forecast, card, ["when"], map_to_id=True)["when"]
    assert found.dtype == pl.Float64
    assert found.to_list() == [1.7e9, 1.7e9 + 10]


def test_predictions_as_ids() -> None:
    expected = pl.DataFrame(
        {"sequenceId": [4, 4, 9], "itemPosition": [7, 8, 3], "shop": [2, 3, 0], "item": [1, 3, 2]}
    )
    assert_frame_equal(prediction_table(FORECAST, CARD, ["shop", "item"], map_to_id=False), expected)


def test_probabilities_sum_to_one_under_each_class_label() -> None:
    rows = [[0.1, 0.5, 0.2, 0.2], [0.125, 0.125, 0.25, 0.5], [0.25] * 4]
    names = ["unknown", "other", "apple", "fig"]
    expected = pl.DataFrame(rows, schema=dict.fromkeys(names, pl.Float32), orient="row")
    assert_frame_equal(probability_table(FORECAST, CARD, "item"), expected)


def test_embeddings() -> None:
    vectors = np.arange(6, dtype=np.float32).reshape(3, 2)
    found = embedding_table(
        Embeddings(np.array([1, 1, 2]), np.array([0, 1, 0]), np.array([5, 6, 5]), vectors)
    )
    expected = pl.DataFrame(
        {
            "sequenceId": [1, 1, 2],
            "subsequenceId": [0, 1, 0],
            "itemPosition": [5, 6, 5],
            "0": pl.Series([0.0, 2.0, 4.0], dtype=pl.Float32),
            "1": pl.Series([1.0, 3.0, 5.0], dtype=pl.Float32),
        }
    )
    assert_frame_equal(found, expected)


SAMPLED = Forecast(
    np.array([4, 4, 4, 4, 4, 4, 4, 9, 9, 9, 9, 9, 9]),
    np.array([6, 7, 8, 7, 8, 7, 8, 3, 4, 3, 4, 3, 4]),
    {
        "price": np.array([9, 0, 3, 1, 4, 2, 5, 0, 0, 0, 0, 0, 3], np.float32),
        "item": np.array([0, 2, 3, 2, 3, 1, 3, 3, 3, 3, 2, 3, 0]),
    },
    {},
    np.array([-1, 0, 0, 1, 1, 2, 2, 0, 0, 1, 1, 2, 2]),
)
KEYS = {"sequenceId": [4, 4, 9, 9], "itemPosition": [7, 8, 3, 4]}


def test_samples_are_numbered() -> None:
    found = prediction_table(SAMPLED, CARD, ["item"], map_to_id=False)
    assert found.columns == ["sequenceId", "itemPosition", "sample", "item"]
    assert found["sample"].to_list() == [None, 0, 0, 1, 1, 2, 2, 0, 0, 1, 1, 2, 2]


def test_quantiles_of_samples_in_original_units() -> None:
    found = quantile_table(SAMPLED, CARD, ["price"])
    expected = {"mean": [110, 140, 100, 110], "q05": [101, 131, 100, 100], "q50": [110, 140, 100, 100]}
    expected |= {"q25": [105, 135, 100, 100], "q75": [115, 145, 100, 115], "q95": [119, 149, 100, 127]}
    names = ["mean", "q05", "q25", "q50", "q75", "q95"]
    columns = {f"price_{name}": pl.Series(expected[name], dtype=pl.Float64) for name in names}
    assert_frame_equal(found, pl.DataFrame({**KEYS, **columns}))


def test_frequencies_of_classes_among_samples() -> None:
    found = frequency_table(SAMPLED, CARD, "item")
    shares = [[0, 1 / 3, 2 / 3, 0], [0, 0, 0, 1], [0, 0, 0, 1], [1 / 3, 0, 1 / 3, 1 / 3]]
    labels = ["unknown", "other", "apple", "fig"]
    expected = pl.DataFrame(shares, schema=dict.fromkeys(labels, pl.Float32), orient="row")
    assert_frame_equal(found, pl.DataFrame(KEYS).hstack(expected))


def test_one_sample_is_its_own_summary() -> None:
    whole = Forecast(
        np.array([1, 1]), np.array([5, 6]), {"price": np.array([1.0, 2.0], np.float32)}, {}, np.array([0, 0])
    )
    assert quantile_table(whole, CARD, ["price"])["price_q95"].to_list() == [110.0, 120.0]
