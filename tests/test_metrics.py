"""Metrics of sums, against their definitions over items."""

import numpy as np
import pytest
from scipy.stats import norm

from seqjax.metrics import JUDGED_BY, METRICS, Scoring

CLASSES, REALS = Scoring("categorical"), Scoring("point")


def test_categorical_metrics_are_means_over_items():
    rng = np.random.default_rng(1)
    log_probs = np.log(rng.dirichlet(np.ones(8), 300))
    truth = rng.integers(0, 8, 300)
    found = CLASSES.values(CLASSES.score(log_probs, truth).sum(axis=0))
    order = np.argsort(-log_probs, axis=1)
    probs = np.exp(log_probs)
    nll = -log_probs[np.arange(300), truth].mean()
    expected = {
        "top_1_accuracy": (order[:, :1] == truth[:, None]).any(axis=1).mean(),
        "top_3_accuracy": (order[:, :3] == truth[:, None]).any(axis=1).mean(),
        "top_5_accuracy": (order[:, :5] == truth[:, None]).any(axis=1).mean(),
        "nll": nll,
        "perplexity": np.exp(nll),
        "confidence": probs.max(axis=1).mean(),
        "entropy": -(probs * log_probs).sum(axis=1).mean(),
    }
    assert {name: float(value) for name, value in found.items()} == pytest.approx(expected)


def test_a_uniform_prediction_has_the_perplexity_of_the_number_of_classes():
    truth = np.arange(1024)
    found = CLASSES.values(CLASSES.score(np.zeros((1024, 1024)), truth).sum(axis=0))
    assert found["perplexity"] == pytest.approx(1024)
    assert found["entropy"] == pytest.approx(np.log(1024))
    assert (found["top_1_accuracy"], found["top_5_accuracy"]) == (1 / 1024, 5 / 1024)


def real(prediction, truth, scoring=REALS):
    scores = scoring.score(np.asarray(prediction, float)[:, None], np.asarray(truth, float))
    return {name: float(value) for name, value in scoring.values(scores.sum(axis=0)).items()}


def test_real_metrics_follow_their_definitions():
    rng = np.random.default_rng(2)
    truth = rng.normal(1000, 3, 500)
    prediction = truth + rng.normal(0.5, 1, 500)
    error = prediction - truth
    assert real(prediction, truth) == pytest.approx(
        {
            "mae": np.abs(error).mean(),
            "rmse": np.sqrt(np.square(error).mean()),
            "r2": 1 - np.square(error).sum() / np.square(truth - truth.mean()).sum(),
            "bias": error.mean(),
        }
    )


def test_the_mean_explains_nothing_and_the_truth_everything():
    truth = [1.0, 2.0, 6.0]
    assert real([3.0] * 3, truth)["r2"] == pytest.approx(0)
    assert real(truth, truth) == {"mae": 0, "rmse": 0, "r2": 1, "bias": 0}


@pytest.mark.parametrize("value", [0.0, 0.1, 1e9 / 3])
def test_equal_values_have_no_variance_to_explain(value):
    found = real([value + 1] * 7, [value] * 7)
    assert np.isnan(found["r2"])
    assert found["rmse"] == pytest.approx(1)


def test_figures_are_in_the_units_of_the_table():
    truth, prediction = np.arange(5.0), np.arange(5.0) + 2
    assert real(prediction, truth, Scoring("point", 10.0)) == pytest.approx(
        {"mae": 20, "rmse": 20, "r2": -1, "bias": 20}
    )


def test_a_density_is_judged_by_its_logarithm():
    rng = np.random.default_rng(4)
    mean, scale, truth = rng.normal(size=200), rng.uniform(0.1, 3, 200), rng.normal(size=200)
    scoring = Scoring("gaussian", 8.0)
    found = scoring.values(scoring.score(np.stack([mean, scale], axis=1), truth).sum(axis=0))
    assert found["nll"] == pytest.approx(-norm.logpdf(8 * truth, 8 * mean, 8 * scale).mean())
    assert found["mae"] == pytest.approx(8 * np.abs(truth - mean).mean())
    assert JUDGED_BY["gaussian"] == "nll"


@pytest.mark.parametrize("head", METRICS)
def test_no_items_give_no_figures(head):
    scoring = Scoring(head)
    assert all(np.isnan(value) for value in scoring.values(np.zeros(len(scoring.columns))).values())


@pytest.mark.parametrize("head", METRICS)
def test_figures_of_pieces_are_computed_at_once(head):
    scoring = Scoring(head)
    sums = np.random.default_rng(3).uniform(1, 2, (4, 3, len(scoring.columns)))
    found = scoring.values(sums)
    assert set(found) == set(METRICS[head])
    assert JUDGED_BY[head] in found
    for name, values in found.items():
        assert values.shape == (4, 3)
        np.testing.assert_array_equal(values[2, 1], scoring.values(sums[2, 1])[name])
