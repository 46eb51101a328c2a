"""What is on the page of several runs: the best first, and what they differ in."""

import math

import pytest

from seqjax.reports.run_log import Batches, Measures, RunLog, Validation
from seqjax.reports.runs_page import runs_page
from tests.pages import figures, figures_titled, names, table, text_of


def measures(loss):
    return Measures(loss, {"a": loss, "b": loss}, {"a": {"perplexity": loss}, "b": {"mae": loss}})


def run(name, best, *, epochs=2, baseline=5.0, **config):
    validations = [
        Validation(epoch, measures(best + epochs - epoch), 0.1, 2.0) for epoch in range(epochs + 1)
    ]
    batches = [Batches((step + 1) / 4, 5, measures(best), 0.1, 100.0) for step in range(4 * epochs)]
    settings = {"model_name": name, "training_spec": {"epochs": epochs, **config}}
    return RunLog(
        name, batches, validations, {"marginal": measures(baseline)}, settings, finished=epochs == 2
    )


def test_the_best_run_is_first():
    runs = [
        run("slow", 3.0, epochs=1, dropout=0.1),
        run("best", 1.0, dropout=0.25),
        run("<b>", 2.0, dropout=0.1),
    ]
    text = runs_page("Three runs", runs)
    words = text_of(text)
    assert "Three runs" in words
    assert "best run best best validation loss 1 its epoch 2 of 2" in words
    assert table(text, "Runs") == [
        ["best", "1", "2", "2", "yes", "6", "100", "2", "0.25"],
        ["<b>", "2", "2", "2", "yes", "6", "100", "2", "0.1"],
        ["slow", "3", "1", "1", "no", "4", "100", "1", "0.1"],
    ]
    validation, training = figures(text, "Validation and training loss")
    assert names(validation) == ["marginal", "slow", "&lt;b&gt;", "best"]
    assert validation["data"][-1]["y"] == [3, 2, 1]
    assert [trace["legendrank"] for trace in training["data"]] == [2, 1, 0]
    assert training["data"][-1]["x"] == [0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2]
    assert len({trace["line"]["color"] for trace in training["data"]}) == 3


def test_each_target_is_compared():
    text = runs_page("t", [run("x", 1.0), run("y", 2.0)])
    assert list(figures_titled(text, "a")) == ["validation loss", "perplexity"]
    assert list(figures_titled(text, "b")) == ["validation loss", "MAE"]
    assert names(figures_titled(text, "b")["MAE"]) == ["marginal", "y", "x"]
    assert list(figures_titled(text, "Learning rate and speed")) == ["learning rate", "samples per second"]


def test_other_baselines_are_said_and_not_drawn():
    text = runs_page("t", [run("x", 1.0), run("y", 2.0, baseline=7.0)])
    assert "different baselines" in text_of(text)
    assert names(figures(text, "Validation and training loss")[0]) == ["y", "x"]


def test_a_baseline_that_is_finite_for_no_run_is_no_difference():
    text = runs_page("Two runs", [run("a", 1.0, baseline=math.nan), run("b", 2.0, baseline=math.nan)])
    assert "different baselines" not in text_of(text)


def test_of_many_runs_the_best_ten_have_colours():
    text = runs_page("t", [run(f"r{number}", 1.0 + number) for number in range(25)])
    validation = figures(text, "Validation and training loss")[0]
    shown = [trace["name"] for trace in validation["data"] if trace["showlegend"]]
    assert shown == ["marginal", *(f"r{number}" for number in reversed(range(10)))]
    assert "the other 15 are grey" in text_of(text)
    assert len(table(text, "Runs")) == 25


def test_the_points_of_many_runs_are_averaged():
    long = [run(f"r{number}", 1.0, epochs=100) for number in range(200)]
    training = figures(runs_page("t", long), "Validation and training loss")[1]
    assert len(training["data"]) == 200
    assert all(len(trace["x"]) == 100 for trace in training["data"])
    averaged = figures(runs_page("t", long[:2], bucket=10), "Validation and training loss")[1]
    assert len(averaged["data"][0]["x"]) == 200


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_run_that_diverged_is_last(loss):
    diverged = RunLog("bad", [], [Validation(1, Measures(loss), 0.1, 1.0)])
    text = runs_page("t", [diverged, run("good", 1.0)])
    assert [row[:2] for row in table(text, "Runs")] == [["good", "1"], ["bad", ""]]
