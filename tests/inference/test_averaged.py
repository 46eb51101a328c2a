"""Passes with dropout: their mean and standard deviation, from the engine to the tables."""

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from seqjax.config.metadata import Statistics
from seqjax.config.schema import ColumnKind
from seqjax.inference.engine import AveragingEngine
from seqjax.inference.forecast import embed, forecast
from seqjax.inference.sample import SPREAD, Reader
from seqjax.inference.tables import embedding_table, prediction_table
from tests.engines import FakeEngine, fake_card, heads, windows_of

PRICE = Statistics(mean=100.0, std=10.0)
MIXED: dict[str, ColumnKind] = {"price": "real", "item": "categorical"}
CARD = fake_card({"item": {"a": 2, "b": 3}}, {"price": PRICE}, MIXED)
ROWS = {7: {"item": [2, 3, 2, 2], "price": [0.1, 0.2, 0.3, 0.4]}}
POSITIONS = {7: [0, 1, 2, 3]}
PROBABILITIES = np.array([[0.1, 0.1, 0.6, 0.2], [0.1, 0.1, 0.2, 0.6], [0.1, 0.1, 0.2, 0.6]])
PRICES = np.array([1.0, 2.0, 6.0])


class Passes:
    """Outputs that differ from call to call."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, inputs, valid_mask):
        number = self.calls % 3
        self.calls += 1
        shape = (len(valid_mask), 1, 1)
        with np.errstate(divide="ignore"):
            item = np.log(np.tile(PROBABILITIES[number], shape))
        return {"item": item, "price": np.full(shape, PRICES[number])}


def test_mean_and_deviation_of_every_output() -> None:
    engine = AveragingEngine(FakeEngine(CARD, Passes()), 3)
    assert engine.card is CARD
    outputs = engine.predict({"item": np.zeros((2, 3))}, np.ones((2, 3), np.bool_))
    np.testing.assert_allclose(np.exp(outputs["item"])[1, 0], PROBABILITIES.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(outputs[SPREAD + "item"][1, 0], PROBABILITIES.std(axis=0), atol=1e-7)
    np.testing.assert_allclose(outputs["price"][1, 0], PRICES.mean(), rtol=1e-6)
    np.testing.assert_allclose(outputs[SPREAD + "price"][0, 0], PRICES.std(), rtol=1e-6)


@pytest.mark.parametrize("steps", [0, 2])
def test_columns_in_original_units(steps: int) -> None:
    engine = AveragingEngine(FakeEngine(CARD, Passes()), 3)
    windows = windows_of(ROWS, POSITIONS)
    found = forecast(engine, windows, Reader(heads(MIXED)), batch_size=4, extra_steps=steps)
    table = prediction_table(found, CARD, ["price", "item"], map_to_id=True)
    rows = 1 + steps
    values = {
        "price": [130.0] * rows,
        "price_mean": [130.0] * rows,
        "price_std": [PRICES.std() * 10] * rows,
        "item": ["b"] * rows,
        "item_mean": [PROBABILITIES[:, 3].mean()] * rows,
        "item_std": [PROBABILITIES[:, 3].std()] * rows,
    }
    keys = {"sequenceId": [7] * rows, "itemPosition": [3, 4, 5][:rows]}
    expected = pl.DataFrame({**keys, **values})
    assert_frame_equal(table, expected)


def test_embeddings_have_deviations_beside_them() -> None:
    passes = Passes()
    card = CARD.of_kind("embedding")

    def compute(inputs, valid_mask):
        return {"embedding": np.tile(passes(inputs, valid_mask)["price"], (1, 1, 2))}

    found = embed(AveragingEngine(FakeEngine(card, compute), 3), windows_of(ROWS, POSITIONS), batch_size=4)
    table = embedding_table(found)
    assert table.columns[3:] == ["0", "1", "0_std", "1_std"]
    np.testing.assert_allclose(table.row(0)[3:], [3.0, 3.0, PRICES.std(), PRICES.std()], rtol=1e-6)


def test_one_pass_has_no_spread() -> None:
    outputs = AveragingEngine(FakeEngine(CARD, Passes()), 1).predict({}, np.ones((1, 3), np.bool_))
    assert not outputs[SPREAD + "item"].any()
    np.testing.assert_allclose(np.exp(outputs["item"][0, 0]), PROBABILITIES[0], rtol=1e-6)
