"""Runs are ranked by what is the same in all of them."""

import json

import numpy as np
import pytest

from seqjax.commands.hyperparameter_search import hyperparameter_search
from seqjax.commands.search_ranking import ranking_of
from seqjax.config.base import validate
from seqjax.config.hyperparameter_search import HyperparameterSearchConfig
from seqjax.errors import ConfigError
from seqjax.sweep.summary import importance, ranked
from tests.commands.test_hyperparameter_search import project  # noqa: F401
from tests.searches import search, values

BOTH = ["item", "price"]


def two_targets(training=None, **top):
    """A search of models that predict a category and a number."""
    criterion = {"item": "CrossEntropyLoss", "price": "MSELoss"}
    inputs = {
        "input_columns": [BOTH],
        "target_columns": BOTH,
        "target_column_types": {"item": "categorical", "price": "real"},
    }
    model = {"feature_embedding_dims": [{"item": 2, "price": 2}]}
    return search(model, {"criterion": criterion} | (training or {}), **(inputs | top))


def other(**keys):
    return {"other_sampling": {name.replace("__", "."): listed for name, listed in keys.items()}}


WEIGHTS = [{"item": 1.0, "price": 1.0}, {"item": 0.1, "price": 0.1}]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"seq_length": [2, 4]},
        {"seq_length": {"low": 2, "high": 5}, "n_samples": 2, "search_strategy": "sample"},
        other(training_spec__label_smoothing=[0.0, 0.1]),
        other(training_spec__optimizer__weight_decay=[0.0, 0.1], seed=[1, 2]),
    ],
)
def test_losses_of_the_same_things_are_compared(changes):
    ranking = ranking_of(two_targets(**changes))
    assert ranking.shared is None
    assert "lowest validation loss" in str(ranking)


@pytest.mark.parametrize(
    ("changes", "differing"),
    [
        (other(training_spec__loss_weights=WEIGHTS), "loss_weights"),
        (other(training_spec__loss_weights=[None, *WEIGHTS]), "loss_weights"),
        (other(training_spec__class_weights=[None, {"item": [1.0] * 5}]), "class_weights"),
        (other(training_spec__criterion__price=["MSELoss", "HuberLoss"]), "criterion.price"),
        (other(training_spec__huber_delta=[0.1, 1.0]), "huber_delta"),
        (other(training_spec__smooth_l1_beta={"low": 0.1, "high": 1.0}), "smooth_l1_beta"),
        (other(training_spec__select_on=["predicted", "all"]), "select_on"),
        (other(model_spec__prediction_length=[1, 2]), "prediction_length"),
        (other(min_history=[0, 2]), "min_history"),
    ],
)
def test_losses_of_different_things_are_not(changes, differing):
    changes |= {"search_strategy": "sample", "n_samples": 2}
    ranking = ranking_of(two_targets(**changes))
    assert ranking.differing == (differing,)
    assert ranking.shared is not None
    assert ranking.shared.metrics == {"item": ("categorical", "nll"), "price": ("point", "rmse")}
    assert str(ranking).startswith(f"Runs differ in {differing}, ")
    assert "the NLL (nats) of item + the RMSE of price (in standard deviations)" in str(ranking)


def test_targets_are_compared_by_what_all_heads_have():
    def metric(*criteria):
        ranking = ranking_of(two_targets(**other(training_spec__criterion__price=list(criteria))))
        assert ranking.shared is not None
        return ranking.shared.metrics["price"][1]

    assert metric("GaussianNLLLoss", "MSELoss") == "rmse"
    assert metric("L1Loss", "MSELoss") == "rmse"
    densities = {"criterion": {"item": "CrossEntropyLoss", "price": "GaussianNLLLoss"}}
    ranking = ranking_of(two_targets(densities, **other(training_spec__loss_weights=WEIGHTS)))
    assert ranking.shared is not None
    assert ranking.shared.metrics["price"] == ("gaussian", "nll")


@pytest.mark.parametrize(
    ("changes", "newest", "history"),
    [
        (other(training_spec__select_on=["all"]), 2, 1),
        (other(training_spec__select_on=["all"], min_history=[1, 2]), 1, 2),
        (other(model_spec__prediction_length=[1, 2]), 1, 1),
        (other(model_spec__prediction_length=[2]), None, None),
    ],
)
def test_items_are_those_that_all_runs_predict(changes, newest, history):
    ranking = ranking_of(two_targets(seq_length=[2, 4], **changes))
    shared = None if ranking.shared is None else (ranking.shared.newest, ranking.shared.min_history)
    assert shared == (None if newest is None else (newest, history))


def test_other_validation_data_or_other_targets_cannot_be_ranked():
    with pytest.raises(ConfigError, match="validation_data_path: cannot be varied"):
        two_targets(**other(validation_data_path=["a", "b"]))
    with pytest.raises(ConfigError, match="no target in common"):
        ranking_of(two_targets(**other(target_columns=[["item"], ["price"]])))


def test_a_score_ranks_before_a_loss():
    rows = [
        {"run": "a", "best_score": 2.0, "best_validation_loss": 0.1, "x": 1},
        {"run": "b", "best_score": 1.0, "best_validation_loss": 1.0, "x": 2},
        {"run": "c", "best_score": None, "best_validation_loss": None, "x": 2},
        {"run": "d", "best_score": 1.5, "best_validation_loss": 0.5, "x": 1},
    ]
    assert [(row["run"], row["rank"]) for row in ranked(rows)] == [("b", 1), ("d", 2), ("a", 3), ("c", None)]
    assert set(importance(rows, ["x"])) == {"x"}


@pytest.mark.usefixtures("compile_once", "compile_fast")
@pytest.mark.parametrize("strategy", ["grid", "halving"])
def test_small_weights_do_not_win(project, strategy):  # noqa: F811
    """Losses with weights of 0.1 are a tenth, which says nothing about what is predicted."""
    changes = values(
        {"feature_embedding_dims": [{"item": 2, "price": 2}]},
        {
            "criterion": {"item": "CrossEntropyLoss", "price": "MSELoss"},
            "learning_rate": [0.01],
            "epochs": [2],
        },
        input_columns=[BOTH],
        target_columns=BOTH,
        target_column_types={"item": "categorical", "price": "real"},
        engine="vmap",
        search_strategy=strategy,
        project_root=str(project),
        export_generative_model=False,
        **other(training_spec__loss_weights=WEIGHTS),
    )
    rows = hyperparameter_search(validate(HyperparameterSearchConfig, changes, "search.yaml"))
    assert len(rows) == 2
    trained = [row for row in rows if row["status"] == "complete"]
    assert trained[0]["rank"] == 1
    scores = [row["best_score"] for row in rows]
    assert scores == sorted(scores)
    small = next(row for row in rows if row["loss_weights"]["item"] == 0.1)
    assert small["best_validation_loss"] < 0.2 * max(row["best_validation_loss"] for row in rows)
    for row in trained:
        lines = (project / f"logs/sequifier-{row['run']}-rank0.jsonl").read_text().splitlines()
        found = [event for event in map(json.loads, lines) if event["event"] == "validation"]
        (best,) = [event for event in found if event["epoch"] == row["best_epoch"]]
        # The price of the test's metadata has a standard deviation of 1.
        metrics = best["metrics"]
        score = np.log(metrics["item"]["perplexity"]) + metrics["price"]["rmse"]
        assert row["best_score"] == pytest.approx(score, rel=1e-5)
    report = json.loads((project / "outputs/hyperparameter_search/demo.json").read_text())
    assert report["ranked_by"].startswith("Runs differ in loss_weights,")
    assert report["ranked_by"] in (project / "logs/sequifier-demo-rank0-3.txt").read_text()
