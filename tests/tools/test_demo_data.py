"""The demo's optimum is the best possible loss: not beaten, and reached by the true model."""

import csv

import numpy as np
import pytest

from tools import demo_data

PROCESS = demo_data.make_process(seed=3, classes=4)
CATEGORIES, VALUES = demo_data.sample(PROCESS, sequences=20_000, items=6, seed=3)
NO_PADDING = np.zeros(len(CATEGORIES), dtype=np.int64)


def losses(padding=NO_PADDING):
    return demo_data.optimal_losses(PROCESS, CATEGORIES, VALUES, padding)


def test_pairs_are_stationary():
    pairs = PROCESS.pairs
    np.testing.assert_allclose(np.einsum("ab,abc->bc", pairs, PROCESS.transitions), pairs, atol=1e-12)
    np.testing.assert_allclose(pairs.sum(axis=0), pairs.sum(axis=1), atol=1e-12)


def test_entropy_rate_of_a_chain_known_by_hand():
    fair = demo_data.Process(np.full((2, 2, 2), 0.5), np.zeros(2), persistence=0.0, noise=1.0)
    assert fair.entropy_rate == pytest.approx(np.log(2))
    assert fair.variance == pytest.approx(1.0)


def test_sequences_start_in_equilibrium():
    for t in (0, 5):
        shares = np.bincount(CATEGORIES[:, t], minlength=4) / len(CATEGORIES)
        np.testing.assert_allclose(shares, PROCESS.pairs.sum(axis=1), atol=0.015)
        assert VALUES[:, t].var() == pytest.approx(PROCESS.variance, rel=0.04)


def test_optimum_from_two_items_is_the_analytic_rate():
    result = losses()
    assert result.cross_entropy[:, 1:].mean() == pytest.approx(PROCESS.entropy_rate, rel=0.01)
    assert result.squared_error[:, 1:].mean() == pytest.approx(PROCESS.noise**2, rel=0.01)


def test_less_history_costs_more():
    by_history = [losses(NO_PADDING + padding) for padding in (0, 1)]
    one_item, nothing = by_history[0], by_history[1]
    for name in ("cross_entropy", "squared_error"):
        first, second = getattr(one_item, name)[:, :2].mean(axis=0)
        alone = getattr(nothing, name)[:, 0].mean()
        assert second < first < alone


def test_the_category_before_the_first_item_is_inferred_as_well_as_counting_can():
    # The share of each category before items like (c, x), counted on the sample, is the belief.
    c, x = CATEGORIES[:, 1], VALUES[:, 1]
    belief = demo_data._previous_category(PROCESS, c[:, None], x[:, None])[:, 0]
    for category in range(4):
        for low, high in ((-1.0, 0.0), (0.0, 1.0)):
            chosen = (c == category) & (x >= low) & (x < high)
            counted = np.bincount(CATEGORIES[chosen, 0], minlength=4) / chosen.sum()
            np.testing.assert_allclose(
                belief[chosen].mean(axis=0), counted, atol=4 * 0.5 / chosen.sum() ** 0.5
            )


def test_padding_is_not_counted():
    padding = NO_PADDING + 3
    result = losses(padding)
    assert np.isnan(result.cross_entropy[:, :2]).all()
    assert not np.isnan(result.squared_error[:, 2:]).any()
    shares = PROCESS.pairs.sum(axis=1)
    np.testing.assert_allclose(result.cross_entropy[:, 2], -np.log(shares[CATEGORIES[:, 3]]))


def test_same_seed_same_table(tmp_path):
    for name in ("a.csv", "b.csv"):
        demo_data.write_csv(tmp_path / name, *demo_data.sample(demo_data.make_process(), 3, 4, seed=5))
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    rows = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    assert len(rows) == 12
    assert list(rows[0]) == ["sequenceId", "itemPosition", "event", "level"]
    assert rows[5]["sequenceId"] == "1"
    assert rows[5]["itemPosition"] == "1"
