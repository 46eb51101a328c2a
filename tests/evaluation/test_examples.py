"""Example windows in the user's own values."""

import numpy as np
import pytest

from seqjax.config.metadata import Statistics
from seqjax.data.columns import denormalise
from seqjax.evaluation.examples import Examples, in_table
from tests.engines import fake_card, windows_of

CARD = fake_card(
    {"item": {"apple": 2, "fig": 3}},
    {"price": Statistics(mean=100.0, std=10.0)},
    {"item": "categorical", "price": "real"},
)


def added(count, rows, positions):
    windows = windows_of(rows, positions, seq_length=3)
    examples = Examples(count, 0, CARD, ["item", "price"])
    indices = np.arange(len(windows))
    outputs = {
        "item": np.tile(np.log(np.array([0.1, 0.2, 0.1, 0.6], np.float32)), (len(windows), 2, 1)),
        "price": np.full((len(windows), 2, 1), 0.5, np.float32),
    }
    examples.add(windows, indices, windows.gather(indices), outputs)
    return examples.examples()


def test_windows_labels_and_units():
    rows = {8: {"item": [2, 3, 2, 1], "price": [0.0, 1.0, -1.0, 2.0]}}
    (found,) = added(3, rows, {8: [10, 12, 14, 17]})
    assert (found.sequence_id, found.item_position) == (8, 17)
    assert found.window["item"] == ["apple", "fig", "apple"]
    assert found.window["price"] == pytest.approx([100, 110, 90])
    assert (found.targets["item"].truth, found.targets["item"].prediction) == ("other", "fig")
    assert found.targets["item"].likely == pytest.approx({"fig": 0.6, "other": 0.2, "apple": 0.1})
    assert found.targets["price"].truth == pytest.approx(120)
    assert found.targets["price"].prediction == pytest.approx(105)
    assert found.targets["price"].likely is None


def test_padding_is_not_shown():
    found = added(
        5, {1: {"item": [2], "price": [0.0]}, 2: {"item": [3, 2], "price": [1.0, 0.0]}}, {1: [0], 2: [0, 1]}
    )
    assert [example.window["item"] for example in found] == [[], ["fig"]]
    assert [example.targets["item"].truth for example in found] == ["apple", "apple"]


def test_as_many_as_asked_for():
    rows = {number: {"item": [2] * 4, "price": [0.0] * 4} for number in range(30)}
    found = added(4, rows, {number: [0, 1, 2, 3] for number in rows})
    assert len(found) == 4
    assert added(0, rows, {number: [0, 1, 2, 3] for number in rows}) == []


@pytest.mark.parametrize("mean", [0.0, 1.7e9, -3e-9])
@pytest.mark.parametrize("std", [0.0, 1e-307, 1e-12, 3.0, 1e7, 1e300])
def test_values_keep_the_digits_that_are_within_a_deviation(mean, std):
    statistics, values = Statistics(mean=mean, std=std), np.array([0.0, 1.25, -1 / 3, np.nan])
    found, exact = np.array(in_table(values, statistics)), denormalise(values, statistics)
    np.testing.assert_allclose(found, exact, rtol=1e-15, atol=1e-6 * statistics.unit)
    assert in_table(values[1:2].astype(np.float32), Statistics(mean=0.5, std=8.0)) == [10.5]
