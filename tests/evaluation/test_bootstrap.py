"""Resampling: what is drawn, and how often an interval holds the truth."""

import numpy as np
import pytest

from seqjax.evaluation.pieces import Estimate, estimate, resampled


def test_resamples_are_sums_of_as_many_pieces_as_there_are():
    sums = np.stack([np.ones(30), np.arange(30.0)], axis=1)
    draws = resampled(sums, samples=200, seed=1)
    assert draws.shape == (200, 2)
    assert (draws[:, 0] == 30).all()
    assert draws[:, 1].mean() == pytest.approx(sums[:, 1].sum(), rel=0.03)
    assert draws[:, 1].std() == pytest.approx(np.sqrt(30) * sums[:, 1].std(), rel=0.15)


def test_equal_seeds_draw_the_same_pieces_whatever_is_summed():
    one, other = np.random.default_rng(0).normal(size=(2, 12, 3))
    both = resampled(np.stack([one, other], axis=1), samples=130, seed=4)
    np.testing.assert_allclose(both[:, 0], resampled(one, samples=130, seed=4))
    np.testing.assert_allclose(both[:, 1], resampled(other, samples=130, seed=4))
    assert not np.allclose(both[:, 0], resampled(one, samples=130, seed=5))


def test_intervals_hold_the_truth_as_often_as_they_say():
    """Sequences of different lengths whose items share an offset: only sequences are independent."""
    rng, held, too_narrow, trials = np.random.default_rng(5), 0, 0, 300
    for trial in range(trials):
        lengths = rng.integers(5, 30, 60)
        offsets = rng.normal(0, 1, 60)
        items = [offset + rng.normal(0, 1, length) for offset, length in zip(offsets, lengths, strict=True)]
        sums = np.array([[len(values), values.sum()] for values in items])
        draws = resampled(sums, samples=200, seed=trial)
        value = sums[:, 1].sum() / sums[:, 0].sum()
        found = estimate(value, draws[:, 1] / draws[:, 0], level=0.9)
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 0 <= found.high
        # Drawing single items instead, as if they were independent, gives intervals that are far too narrow.
        together = np.concatenate(items)
        too_narrow += abs(together.mean()) <= 1.645 * together.std() / np.sqrt(len(together))
    assert held / trials == pytest.approx(0.9, abs=0.045)
    assert too_narrow / trials < 0.6


def test_an_estimate_without_finite_draws_has_no_interval():
    assert estimate(1.0, None, level=0.9) == Estimate(1.0)
    assert estimate(1.0, np.array([1.0, np.nan]), level=0.9) == Estimate(1.0)
    assert estimate(np.inf, np.ones(5), level=0.9) == Estimate(None)


def test_the_interval_is_the_middle_of_the_draws():
    found = estimate(50.0, np.arange(101.0), level=0.9)
    assert (found.value, found.low, found.high) == pytest.approx((50, 5, 95))


def test_infinite_scores_of_a_piece_warn_nobody():
    sums = np.ones((12, 2))
    sums[3, 1] = np.inf
    draws = resampled(sums, samples=100, seed=0)
    assert not np.isfinite(draws[:, 1]).any()
