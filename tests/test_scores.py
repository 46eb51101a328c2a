"""Scores of single items, against their definitions written out by hand."""

import math

import numpy as np
import pytest

from seqjax.metrics import Scoring

CLASSES, REALS = Scoring("categorical"), Scoring("point")


def one(log_probs, truth):
    """The scores of one distribution, by name."""
    found = CLASSES.score(np.array([log_probs], np.float32), np.array([truth]))
    return dict(zip(CLASSES.columns, found[0].tolist(), strict=True))


def test_class_scores_follow_their_definitions():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(50, 7)).astype(np.float32)
    truth = rng.integers(0, 7, 50)
    found = CLASSES.score(logits, truth)
    for row in range(50):
        exact = [float(value) for value in logits[row]]
        total = sum(math.exp(value) for value in exact)
        probs = [math.exp(value) / total for value in exact]
        ahead = sum(other > exact[truth[row]] for other in exact)
        expected = [
            1,
            ahead < 1,
            ahead < 3,
            ahead < 5,
            -math.log(probs[truth[row]]),
            max(probs),
            -sum(p * math.log(p) for p in probs),
        ]
        np.testing.assert_allclose(found[row], expected, rtol=1e-12)


def test_probabilities_of_a_coarse_model_sum_to_one():
    exact = np.log([0.7, 0.2, 0.1])
    scores = one(exact + 0.01, 0)
    assert scores["nll"] == pytest.approx(-math.log(0.7), rel=1e-6)
    assert scores["confidence"] == pytest.approx(0.7, rel=1e-6)


def test_a_tie_goes_to_the_lower_id_as_argmax_has_it():
    assert [one([0, 0, 0, 0], truth)["top_1"] for truth in range(4)] == [1, 0, 0, 0]
    assert [one([0, 0, 0, 0], truth)["top_3"] for truth in range(4)] == [1, 1, 1, 0]


def test_unknown_is_ahead_of_nothing_where_it_is_not_predicted():
    scoring = Scoring("categorical", unknown=False)
    exact = np.log([[0.6, 0.1, 0.3], [0.6, 0.1, 0.3]])
    found = dict(zip(scoring.columns, scoring.score(exact, np.array([2, 1])).T.tolist(), strict=True))
    assert found["top_1"] == [1, 0]
    # The probabilities are those that the model states.
    np.testing.assert_allclose(found["confidence"], 0.3)
    np.testing.assert_allclose(found["nll"], -np.log([0.3, 0.1]))


def test_fewer_classes_than_ranks_are_always_among_the_first():
    scores = one([0, -1, -2], 2)
    assert (scores["top_1"], scores["top_3"], scores["top_5"]) == (0, 1, 1)


def test_impossible_classes_have_no_entropy_and_an_infinite_nll():
    scores = one([0, -math.inf], 0)
    assert (scores["nll"], scores["entropy"], scores["confidence"]) == (0, 0, 1)
    assert one([0, -math.inf], 1)["nll"] == math.inf


def test_large_logits_do_not_overflow():
    scores = one([3e38, 0, -3e38], 0)
    assert (scores["nll"], scores["entropy"]) == (0, 0)


def test_real_scores():
    found = REALS.score(np.array([[3.0], [-2.0]]), np.array([1.0, -1.0]))
    assert dict(zip(REALS.columns, found.T.tolist(), strict=True)) == {
        "items": [1, 1],
        "error": [2, -1],
        "absolute": [2, 1],
        "square": [4, 1],
        "value": [1, -1],
        "value_square": [1, 1],
    }
