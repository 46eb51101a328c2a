"""Result tables equal tables written by hand."""

import numpy as np
import polars as pl
from polars.testing import assert_frame_equal

from seqjax.config.metadata import Statistics
from seqjax.inference.forecast import Embeddings, Forecast
from seqjax.inference.tables import (
    embedding_table,
    prediction_table,
    probability_table,
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
            "price": pl.Series([100.0, 85.0, 102.5], dtype=pl.Float32),
            "shop": ["10", "-3", "unknown"],
        }
    )
    found = prediction_table(FORECAST, CARD, ["item", "price", "shop"], map_to_id=True)
    assert_frame_equal(found, expected)


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
