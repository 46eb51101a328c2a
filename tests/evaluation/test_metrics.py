"""Metrics of sums, against their definitions over items."""

import numpy as np
import pytest

from seqjax.evaluation.metrics import JUDGED_BY, METRICS, values_of
from seqjax.evaluation.scores import score_classes, score_reals
from seqjax.training.metrics import METRICS as METRICS_OF_TRAINING


def test_metrics_have_the_names_that_training_logs():
    assert all(name in METRICS[metric.kind] for name, metric in METRICS_OF_TRAINING.items())


def test_categorical_metrics_are_means_over_items():
    rng = np.random.default_rng(1)
    log_probs = np.log(rng.dirichlet(np.ones(8), 300))
    truth = rng.integers(0, 8, 300)
    found = values_of("categorical", score_classes(log_probs, truth).scores.sum(axis=0))
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
    found = values_of("categorical", score_classes(np.zeros((1024, 1024)), truth).scores.sum(axis=0))
    assert found["perplexity"] == pytest.approx(1024)
    assert found["entropy"] == pytest.approx(np.log(1024))
    assert (found["top_1_accuracy"], found["top_5_accuracy"]) == (1 / 1024, 5 / 1024)


def real(prediction, truth, origin=0.0):
    scores = score_reals(np.asarray(prediction, float), np.asarray(truth, float), origin=origin)
    return {name: float(value) for name, value in values_of("real", scores.sum(axis=0)).items()}


def test_real_metrics_follow_their_definitions():
    rng = np.random.default_rng(2)
    truth = rng.normal(1000, 3, 500)
    prediction = truth + rng.normal(0.5, 1, 500)
    error = prediction - truth
    assert real(prediction, truth, origin=1000.0) == pytest.approx(
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


@pytest.mark.parametrize("kind", ["categorical", "real"])
def test_no_items_give_no_figures(kind):
    width = {"categorical": 7, "real": 6}[kind]
    assert all(np.isnan(value) for value in values_of(kind, np.zeros(width)).values())


@pytest.mark.parametrize("kind", ["categorical", "real"])
def test_figures_of_parts_are_computed_at_once(kind):
    width = {"categorical": 7, "real": 6}[kind]
    sums = np.random.default_rng(3).uniform(1, 2, (4, 3, width))
    found = values_of(kind, sums)
    assert set(found) == set(METRICS[kind])
    assert JUDGED_BY[kind] in found
    for name, values in found.items():
        assert values.shape == (4, 3)
        np.testing.assert_array_equal(values[2, 1], values_of(kind, sums[2, 1])[name])
