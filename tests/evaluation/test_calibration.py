"""Bins of confidence, and the error that is expected of a model that is surer than right."""

import numpy as np
import pytest

from seqjax.evaluation.targets import bin_sums, expected_error


def test_bins_are_closed_on_the_right():
    confidence = np.array([0.05, 0.2, 0.2000001, 1.0, 0.0])
    sums = bin_sums(confidence, np.array([True, False, True, True, False]), 5)
    assert sums[:, 0].tolist() == [3, 1, 0, 0, 1]
    assert sums[:, 2].tolist() == [1, 1, 0, 0, 1]
    assert sums[:, 1].sum() == pytest.approx(confidence.sum())


def test_the_error_of_few_items_by_hand():
    sums = bin_sums(np.array([0.9, 0.8, 0.3]), np.array([True, False, True]), 2)
    assert expected_error(sums) == pytest.approx((abs(1.7 - 1) + abs(0.3 - 1)) / 3)


def test_items_as_often_right_as_sure_are_calibrated():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.2, 1, 200_000)
    right = rng.random(200_000) < confidence
    assert expected_error(bin_sums(confidence, right, 15)) < 0.01
    assert expected_error(bin_sums(confidence, rng.random(200_000) < confidence - 0.1, 15)) == pytest.approx(
        0.1, abs=0.01
    )


def test_sums_of_parts_add_up():
    rng = np.random.default_rng(1)
    confidence, right = rng.random(100), rng.random(100) < 0.5
    parts = bin_sums(confidence[:40], right[:40], 10) + bin_sums(confidence[40:], right[40:], 10)
    np.testing.assert_allclose(parts, bin_sums(confidence, right, 10))


def test_no_items_have_no_error():
    assert np.isnan(expected_error(bin_sums(np.zeros(0), np.zeros(0, bool), 4)))
