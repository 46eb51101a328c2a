"""Models side by side: order, paired differences, and what cannot be compared."""

import numpy as np
import pytest

from seqjax.config.base import validate
from seqjax.config.evaluate import EvaluateConfig
from seqjax.evaluation.pieces import Estimate
from seqjax.evaluation.result import TargetResult, Verdict
from seqjax.evaluation.run import ModelScores, compare
from seqjax.metrics import Scoring

CONFIG = validate(EvaluateConfig, {"project_root": ".", "model_path": "m"}, "evaluate.yaml")
SCORING = Scoring("point")


def found(offset, *, pieces=30, seed=0):
    """A model that is off by `offset` on top of the same noise: 5 items in each piece."""
    noise = np.random.default_rng(seed).normal(size=(pieces, 5))
    sums = np.stack([SCORING.score(row[:, None] + offset, np.zeros(5)).sum(axis=0) for row in noise])
    rmse = float(np.sqrt(np.square(noise + offset).mean()))
    verdict = Verdict("better", "", "rmse", None, None, None)
    metrics = {"model": {"rmse": Estimate(rmse)}}
    target = TargetResult(
        "real", "point", sums.shape[0] * 5, {}, pieces, verdict, metrics, [], None, None, None, None
    )
    return ModelScores({"price": target}, [], 0, 0, "sequences", {"price": sums}, {"price": SCORING})


def test_a_single_model_is_not_compared():
    assert compare({"a": found(0.0)}, CONFIG) == {}


def test_the_best_comes_first_and_the_others_are_behind_it():
    ranks = compare({"worst": found(1.0), "best": found(0.0), "middle": found(0.3)}, CONFIG)["price"]
    assert [rank.model for rank in ranks] == ["best", "middle", "worst"]
    assert ranks[0].behind is None
    for rank in ranks[1:]:
        assert rank.behind is not None
        assert rank.figure.value is not None
        assert ranks[0].figure.value is not None
        assert rank.behind.value is not None
        assert rank.behind.value == pytest.approx(rank.figure.value - ranks[0].figure.value)
        assert rank.behind.low is not None
        assert rank.behind.high is not None
        assert rank.behind.low < rank.behind.value < rank.behind.high
    assert ranks[2].behind is not None
    assert ranks[2].behind.low is not None
    assert ranks[2].behind.low > 0


def test_equal_models_are_not_apart():
    behind = compare({"a": found(0.2), "b": found(0.2)}, CONFIG)["price"][1].behind
    assert behind is not None
    # Sums of resampled pieces are matrix products, whose order of addition may differ between equal columns.
    assert [behind.low, behind.value, behind.high] == pytest.approx([0.0, 0.0, 0.0], abs=1e-14)


def test_models_of_other_items_have_no_difference():
    ranks = compare({"a": found(0.0), "b": found(0.2, pieces=29)}, CONFIG)["price"]
    assert [rank.behind for rank in ranks] == [None, None]


def test_little_data_has_no_interval():
    ranks = compare({"a": found(0.0, pieces=4), "b": found(0.2, pieces=4)}, CONFIG)["price"]
    assert ranks[1].behind is not None
    assert ranks[1].behind.low is None
