"""Plain sentences: each outcome, and what they say."""

from dataclasses import replace

import numpy as np
import pytest

from seqjax.evaluation.result import TargetResult, Verdict
from seqjax.evaluation.verdict import judge, summary
from seqjax.metrics import JUDGED_BY, SECOND


def judged(model, rival, spread=0.01):
    rng = np.random.default_rng(0)
    values = {"model": model, "last value": rival, "marginal": 9.0}
    draws = {name: value + rng.normal(0, spread, 500) for name, value in values.items()}
    return judge("point", by_both("point", values), by_both("point", draws), level=0.95)


def by_both(head, values):
    """The same figures by both metrics of a head."""
    return {JUDGED_BY[head]: values, SECOND.get(head, JUDGED_BY[head]): values}


def test_better():
    found = judged(1.0, 2.0)
    assert (found.outcome, found.baseline, found.metric) == ("better", "last value", "rmse")
    assert found.difference is not None
    assert (found.difference.value, found.relative) == (1.0, 0.5)
    assert found.text.startswith("Better than the best baseline (last value): RMSE lower by 1 [0.9")
    assert found.text.endswith("], 50%.")


def test_worse_is_said_with_a_positive_size():
    found = judged(2.0, 1.0)
    assert found.outcome == "worse"
    assert found.text.startswith("Worse than the best baseline (last value): RMSE higher by 1 [0.9")
    assert found.text.endswith("], 100%.")


def test_what_may_be_chance_is_no_better():
    found = judged(1.0, 1.001, spread=0.1)
    assert found.outcome == "no better"
    assert found.text.startswith("No better than the best baseline (last value): RMSE lower by 0.001 [-0.")
    assert found.text.endswith("], which may be chance.")


def test_equal_predictions_are_no_better():
    same = np.full(100, 0.5)
    values, draws = {"model": 0.5, "marginal": 0.5}, {"model": same, "marginal": same}
    found = judge("categorical", by_both("categorical", values), by_both("categorical", draws), level=0.95)
    assert (found.outcome, found.metric) == ("no better", "nll")
    assert "NLL higher by 0 nats" in found.text


def test_too_little_data_gives_no_verdict():
    found = judge("point", by_both("point", {"model": 1.0, "last value": 2.0}), None, level=0.95)
    assert found.outcome == "not judged"
    assert found.text == (
        "Not judged: the RMSE is 1 lower than the best baseline (last value), but there is too little data "
        "to say whether that is chance."
    )


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"model": 1.0}, "Not judged: there is no baseline to compare with."),
        ({"model": np.nan, "last value": np.nan}, "Not judged: no item could be scored."),
        ({"model": np.inf, "last value": 1.0}, "Not judged: the RMSE is not finite."),
    ],
)
def test_why_there_is_no_verdict(values, text):
    draws = {name: np.full(10, value) for name, value in values.items()}
    assert judge("point", by_both("point", values), by_both("point", draws), level=0.95).text == text


def classes(nll, accuracy, *, spread=0.001):
    """A verdict from the figures of the model, of the last value and of the marginal."""
    rng = np.random.default_rng(0)
    names = ("model", "last value", "marginal")
    values: dict[str, dict[str, float]] = {
        "nll": dict(zip(names, nll, strict=True)),
        "top_1_accuracy": dict(zip(names, accuracy, strict=True)),
    }
    draws = {
        metric: {name: value + rng.normal(0, spread, 500) for name, value in row.items()}
        for metric, row in values.items()
    }
    return judge("categorical", values, draws, level=0.95)


def test_a_model_that_is_sure_and_wrong_is_told_by_both_metrics():
    found = classes((0.9, 0.7, 1.2), (0.8, 0.7, 0.5))
    assert found.outcome == "worse"
    assert found.also is not None
    assert (found.also.metric, found.also.outcome) == ("top_1_accuracy", "better")
    assert found.also.baseline == "last value"
    assert found.text.startswith("Worse than the best baseline (last value): NLL higher by 0.2 nats [0.19")
    assert (
        "], 29%. By top-1 accuracy it is better than the best baseline (last value): top-1 accuracy higher "
        "by 10.0% [9." in found.text
    )


def test_a_model_that_is_wrong_and_knows_it_is_told_by_both_metrics():
    found = classes((0.6, 0.7, 1.2), (0.5, 0.4, 0.6))
    assert (found.outcome, found.baseline) == ("better", "last value")
    assert found.also is not None
    assert (found.also.outcome, found.also.baseline) == ("worse", "marginal")
    assert "By top-1 accuracy it is worse than the best baseline (marginal): top-1" in found.text


@pytest.mark.parametrize("accuracy", [(0.8, 0.7, 0.5), (0.7, 0.7, 0.5)])
def test_metrics_that_agree_or_are_equal_are_told_once(accuracy):
    found = classes((0.6, 0.7, 1.2), accuracy)
    assert found.outcome == "better"
    assert found.also is None
    assert "accuracy" not in found.text


@pytest.mark.parametrize(
    ("rival", "share"), [(0.7, True), (0.02, True), (0.009, False), (1e-6, False), (0.0, False)]
)
def test_no_share_of_a_figure_that_is_nearly_zero_is_told(rival, share):
    better, worse = (
        classes((rival / 2 - 1e-9, rival, 9.0), (1.0, 1.0, 1.0), spread=0.0),
        classes((2.0, rival, 9.0), (1.0, 1.0, 1.0)),
    )
    assert [found.relative is not None for found in (better, worse)] == [share, share]
    assert ("%" in better.text, "%" in worse.text) == (share, share)
    assert (better.outcome, worse.outcome) == ("better", "worse")


@pytest.mark.parametrize(("std", "share"), [(1.0, True), (1e5, False), (1e-5, True)])
def test_errors_are_nearly_zero_beside_the_deviation_of_the_target(std, share):
    values, spread = {"model": 1.0, "last value": 2.0}, np.linspace(0.9, 1.1, 50)
    draws = {name: value * spread for name, value in values.items()}
    found = judge("point", by_both("point", values), by_both("point", draws), level=0.95, unit=std)
    assert (found.relative is not None) == share


def test_a_log_density_has_no_share():
    values, spread = {"model": 1.0, "last value": 2.0}, np.linspace(0.9, 1.1, 50)
    draws = {name: value * spread for name, value in values.items()}
    found = judge("gaussian", by_both("gaussian", values), by_both("gaussian", draws), level=0.95)
    assert (found.outcome, found.metric, found.relative) == ("better", "nll", None)


def test_summaries_tell_of_the_other_metric():
    also = Verdict("worse", "", "top_1_accuracy", "marginal", None, None)
    results = {name: target("better") for name in "abc"}
    results["b"] = replace(results["b"], verdict=replace(results["b"].verdict, also=also))
    text = "Better than the best baseline on all 3 targets: a, b and c. By top-1 accuracy, worse on b."
    assert summary(results) == text


def target(outcome):
    verdict = Verdict(outcome, "", "rmse", "last value", None, None)
    return TargetResult("real", "point", 1, {}, 1, verdict, {}, [], None, None, None, None)


@pytest.mark.parametrize(
    ("outcomes", "text"),
    [
        ({"a": "better"}, "Better than the best baseline on the target: a."),
        ({"a": "better", "b": "better"}, "Better than the best baseline on both targets: a and b."),
        (
            {"a": "better", "b": "no better", "c": "worse", "d": "better", "e": "not judged"},
            "Better than the best baseline on 2 of 5 targets: a and d. No better than the best baseline on "
            "b. Worse than the best baseline on c. Not judged: e.",
        ),
        ({"a": "no better", "b": "no better"}, "No better than the best baseline on a and b."),
    ],
)
def test_summaries(outcomes, text):
    assert summary({name: target(outcome) for name, outcome in outcomes.items()}) == text
