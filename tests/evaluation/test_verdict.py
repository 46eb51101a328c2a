"""Plain sentences: each outcome, and what they say."""

import numpy as np
import pytest

from seqjax.evaluation.result import TargetResult, Verdict
from seqjax.evaluation.verdict import judge, summary


def judged(model, rival, spread=0.01):
    rng = np.random.default_rng(0)
    values = {"model": model, "last value": rival, "marginal": 9.0}
    draws = {name: value + rng.normal(0, spread, 500) for name, value in values.items()}
    return judge("point", values, draws, level=0.95)


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
    found = judge(
        "categorical", {"model": 0.5, "marginal": 0.5}, {"model": same, "marginal": same}, level=0.95
    )
    assert (found.outcome, found.metric) == ("no better", "nll")
    assert "NLL higher by 0 nats" in found.text


def test_too_little_data_gives_no_verdict():
    found = judge("point", {"model": 1.0, "last value": 2.0}, None, level=0.95)
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
    assert judge("point", values, draws, level=0.95).text == text


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
