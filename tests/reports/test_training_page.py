"""What is on the page of a run: read back from the figures and tables in it."""

import math

import pytest

from seqjax.reports.run_log import Batches, Measures, RunLog, Validation, averaged
from seqjax.reports.runs_page import duration, runs_page
from tests.pages import figures, figures_titled, names, table, text_of


def measures(loss):
    metrics = {
        "item": {"perplexity": loss, "top_1_accuracy": 1 / loss},
        "price": {"mae": loss, "rmse": 2 * loss},
    }
    return Measures(loss, {"item": 0.6 * loss, "price": 0.4 * loss}, metrics)


def training_page(run, **options):
    return runs_page(f"Training of {run.name}", [run], **options)


def batches(places, *, count=5):
    return [Batches(place, count, measures(5 - place), 0.1, 100.0, 2e9) for place in places]


@pytest.fixture
def run():
    shares = {"item": {f"class {index}": 1 / 20 for index in range(20)}}
    validations = [Validation(epoch, measures(4.0 - epoch), 0.1, 30.0, shares) for epoch in range(3)]
    baselines = {"marginal": measures(3.5), "first-order Markov": measures(2.5)}
    config = {
        "model_name": "shop",
        "training_spec": {"epochs": 2, "dropout": None, "continue_training": True},
    }
    return RunLog("shop", batches([0.5, 1.0, 1.5, 2.0]), validations, baselines, config, finished=True)


def test_the_page_says_what_was_reached(run):
    text = training_page(run)
    words = text_of(text)
    assert "Training of shop" in words
    assert "Finished after epoch 2." in words
    for fact in (
        "best validation loss 2 ",
        "best epoch 2 of 2",
        "best baseline (first-order Markov) 2.5",
        "1 min 30 s",
    ):
        assert fact in words, fact
    rows = table(text, "Best epochs")
    assert [row[:2] for row in rows] == [
        ["epoch 2", "2"],
        ["epoch 1", "3"],
        ["epoch 0", "4"],
        ["baseline: marginal", "3.5"],
        ["baseline: first-order Markov", "2.5"],
    ]
    settings = table(text, "Settings")
    assert ["training_spec.epochs", "2"] in settings
    assert ["training_spec.continue_training", "true"] in settings
    assert len(settings) == 3


def test_the_best_baseline_is_one_whose_figures_are_finite(run):
    lost = Measures(math.nan, {"item": math.nan}, {"price": {"mae": math.nan, "rmse": math.nan}})
    run.baselines = {"last value": lost, **run.baselines}
    text = training_page(run)
    assert "best baseline (first-order Markov) 2.5" in text_of(text)
    assert "MAE of first-order Markov" in text
    run.baselines = {"last value": lost}
    text = training_page(run)
    assert "best baseline" not in text_of(text)
    assert "MAE of last value" not in text


def test_losses_are_drawn_beside_baselines(run):
    loss, relative = figures(training_page(run), "Loss")
    assert names(loss) == ["marginal", "first-order Markov", "training", "validation"]
    assert loss["data"][0]["x"] == [0, 1, 2]
    assert loss["data"][0]["y"] == [3.5, 3.5, 3.5]
    assert loss["data"][3]["x"] == [0, 1, 2]
    assert loss["data"][3]["y"] == [4, 3, 2]
    assert loss["data"][2]["x"] == [0.5, 1, 1.5, 2]
    assert names(relative) == ["item", "price"]
    assert relative["data"][0]["y"] == [1, 0.75, 0.5]


def test_each_target_has_its_losses_metrics_and_shares(run):
    text = training_page(run)
    item = figures_titled(text, "item")
    assert list(item) == ["loss", "perplexity", "accuracy", "share of predictions"]
    assert item["loss"]["data"][-1]["y"] == pytest.approx([2.4, 1.8, 1.2])
    assert item["perplexity"]["data"][1]["y"] == [2.5, 2.5, 2.5]
    assert names(item["accuracy"]) == ["top-1 accuracy of first-order Markov", "top-1 accuracy"]
    shares = item["share of predictions"]["data"]
    assert len(shares) == 13
    assert shares[-1]["name"] == "8 more classes"
    assert shares[-1]["y"] == pytest.approx([0.4, 0.4, 0.4])
    price = figures_titled(text, "price")
    assert list(price) == ["loss", "error in original units"]
    assert names(price["error in original units"])[2:] == ["MAE", "RMSE"]


def test_rate_speed_and_memory_are_drawn(run):
    found = figures_titled(training_page(run), "Learning rate and speed")
    assert list(found) == ["learning rate", "samples per second", "memory in use (GB)"]
    assert found["samples per second"]["data"][0]["y"] == [100] * 4
    assert found["memory in use (GB)"]["data"][0]["y"] == [2] * 4


def test_a_log_that_tells_little_makes_a_page_too():
    run = RunLog(
        "r", [Batches(0.5, 5, Measures(3.0), 0.1, 2.0)], speed_unit="batches", notes=["line 3 <is> cut"]
    )
    words = text_of(training_page(run))
    assert "Under way or interrupted at 0.5 epochs" in words
    assert "line 3 <is> cut" in words
    assert "batches per second" in words
    assert "Best epochs" not in words
    run = RunLog("r", validations=[Validation(0, Measures(3.0), 0.1, 1.0)])
    assert "Learning rate and speed" not in text_of(training_page(run))


def test_the_scale_can_start_logarithmic(run):
    assert text_of(training_page(run)).count("log scale") == 4
    assert training_page(run).count(" checked>log scale") == 0
    assert training_page(run, log_scale=True).count(" checked>log scale") == 4


def test_batches_are_averaged_within_epochs():
    records = batches([0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0], count=5)
    assert averaged(records, None, 8) == records
    found = averaged(records, 15, 1500)
    assert [told.place for told in found] == [0.75, 1.0, 1.75, 2.0]
    assert [told.count for told in found] == [15, 5, 15, 5]
    assert found[0].measures.loss == pytest.approx(4.5)
    assert found[0].measures.by_target["price"] == pytest.approx(1.8)
    assert len(averaged(records, None, 4)) == 4
    assert averaged([], None, 4) == []


def test_a_mean_of_speeds_weighs_by_time():
    slow, fast = batches([0.5, 1.0])
    (mean,) = averaged([slow, Batches(1.0, 5, fast.measures, 0.1, 50.0)], 10, 1500)
    assert mean.speed == pytest.approx(10 / (5 / 100 + 5 / 50))


@pytest.mark.parametrize(("seconds", "words"), [(12.345, "12.3 s"), (245, "4 min 5 s"), (7391, "2 h 3 min")])
def test_durations(seconds, words):
    assert duration(seconds) == words
