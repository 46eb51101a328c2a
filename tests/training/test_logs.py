import dataclasses
import json
import logging
import math
import re
import signal

import numpy as np
import pytest

from seqjax.console import Advance
from seqjax.errors import TrainingError
from seqjax.stopping import Stopped
from seqjax.training.ending import Rival
from seqjax.training.evaluate import Evaluation
from seqjax.training.events import BatchEvent, EpochEvent, ResumeEvent
from seqjax.training.logs import (
    JsonLog,
    TextLog,
    baseline_lines,
    batch_line,
    json_log,
    live_view,
    log_files,
    number,
    size,
    validation_lines,
)
from seqjax.training.objective import Losses

LOSSES = Losses({"cat1": 1.8, "cat2": 1.59, "val": 0.61}, {"cat1": 1.0, "cat2": 1.0, "val": 2.0})
BATCH = BatchEvent(
    epoch=1, batch=5, batches=15, count=5, losses=LOSSES, learning_rate=3e-3, seconds=0.615, samples=80
)
METRICS = {"cat1": {"perplexity": 6.0496475, "top_1_accuracy": 0.5}, "val": {"mae": 0.25, "rmse": 1e-7}}
RIVAL = Rival("velocity", 4.11)
VALIDATION = EpochEvent(0, Evaluation(LOSSES, {"cat1": np.asarray([0.0, 0.25, 0.75])}, METRICS), 3e-3, 0.004)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (4.6, " 4.60e0"),
        (0, " 0.00e0"),
        (0.003, " 3.00e-3"),
        (1000, " 1.00e3"),
        (9.999, " 1.00e1"),
        (-0.25, "-2.50e-1"),
        (4970, " 4.97e3"),
        (1.5e-12, " 1.50e-12"),
        (float("nan"), "NaN"),
        (float("inf"), "  inf"),
    ],
)
def test_numbers(value, text):
    assert number(value) == text


def test_batch_line():
    assert batch_line(BATCH) == (
        "[INFO] Epoch   1 | Batch     5/   15 | Loss:  4.61e0 | LR:  3.00e-3 | S/Batch  1.23e-1"
    )


def test_validation_lines():
    assert validation_lines(VALIDATION, RIVAL, {"cat1": {0: "unknown", 1: "other", 2: "d"}}) == [
        "-" * 89,
        "[INFO] Validation | Epoch:   0 | Loss:  4.61e0 | Baseline Loss:  4.11e0 | Time:  0.00s "
        "| LR  3.00e-3",
        "[INFO]  - the baseline is the best one: velocity",
        "[INFO]  - cat1_loss:  1.80e0, cat2_loss:  1.59e0, val_loss:  1.22e0",
        "[INFO] cat1: other: 0.25000 | d: 0.75000",
        "[INFO] Metrics of cat1 | perplexity 6.0496 | top_1_accuracy 0.5",
        "[INFO] Metrics of val | mae 0.25 | rmse 1e-07",
        "-" * 89,
    ]


def test_one_target_needs_no_line_of_its_own():
    single = Evaluation(Losses({"a": 1.0}, {"a": 1.0}), {})
    lines = validation_lines(EpochEvent(2, single, 0.1, 12.5), RIVAL, {})
    assert lines[1].endswith("| Time: 12.50s | LR  1.00e-1")
    assert len(lines) == 4
    assert baseline_lines({"last value": single, "marginal": single}) == [
        "[INFO] Baselines | last value:  1.00e0 | marginal:  1.00e0"
    ]


def test_baselines_by_target():
    lines = baseline_lines({"last value": VALIDATION.evaluation})
    assert lines[0] == "[INFO] Baselines | last value:  4.61e0"
    assert lines[3] == "[INFO] Baselines of val | last value:  1.22e0"
    assert lines[4:] == [
        "[INFO] Baseline metrics of cat1 | last value: perplexity 6.0496, top_1_accuracy 0.5",
        "[INFO] Baseline metrics of val | last value: mae 0.25, rmse 1e-07",
    ]


def test_files_hold_their_levels_and_go_on(tmp_path):
    debug, info = tmp_path / "logs" / "2.txt", tmp_path / "logs" / "3.txt"
    package = logging.getLogger("seqjax")
    level, handlers = package.level, list(package.handlers)
    for _ in range(2):
        with log_files(debug, info):
            TextLog(RIVAL, {})(BATCH)
            logging.getLogger("seqjax.training").debug("detail")
    package.warning("outside")
    assert (package.level, package.handlers) == (level, handlers)
    lines = info.read_text().splitlines()
    assert len(lines) == 2
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \| INFO \| \[INFO\] Epoch   1 .*", lines[1])
    assert [line.split(" | ")[1] for line in debug.read_text().splitlines()] == ["INFO", "DEBUG"] * 2


def test_others_are_told_of_as_much_as_they_asked_for(tmp_path, caplog):
    package = logging.getLogger("seqjax")
    with caplog.at_level(logging.WARNING), log_files(tmp_path / "2.txt", tmp_path / "3.txt"):
        for level in (logging.DEBUG, logging.INFO, logging.WARNING):
            package.log(level, "level %d", level)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert len((tmp_path / "2.txt").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (TrainingError("The loss is not finite."), "| ERROR | [ERROR] The loss is not finite."),
        (Stopped(signal.SIGTERM), "| INFO | [INFO] Stopped by SIGTERM."),
        (KeyboardInterrupt(), "| INFO | [INFO] Stopped by SIGINT."),
    ],
)
def test_files_tell_why_a_run_ended_and_the_screen_does_not(tmp_path, caplog, error, line):
    with pytest.raises(type(error)), log_files(tmp_path / "2.txt", tmp_path / "3.txt"):
        raise error
    assert all((tmp_path / name).read_text().endswith(f"{line}\n") for name in ("2.txt", "3.txt"))
    assert caplog.text == ""


def test_json_lines(tmp_path):
    path = tmp_path / "logs" / "log.jsonl"
    with json_log(path) as log:
        assert isinstance(log, JsonLog)
        log(VALIDATION)
        log(BATCH)
    validation, batch = map(json.loads, path.read_text().splitlines())
    assert validation["event"] == "validation"
    assert validation["shares"]["cat1"] == [0.0, 0.25, 0.75]
    assert validation["metrics"] == METRICS
    assert batch["loss"] == pytest.approx(4.61)
    assert batch["losses"]["val"] == {"loss": 0.61, "weighted": 1.22}
    assert batch["samples_per_second"] == pytest.approx(80 / 0.615)
    assert (batch["epoch"], batch["batch"], batch["count"], batch["learning_rate"]) == (1, 5, 5, 3e-3)
    assert "memory_bytes" not in batch


def test_json_lines_hold_null_for_what_is_not_finite(tmp_path):
    losses = Losses({"cat1": math.inf}, {"cat1": 1.0})
    with json_log(tmp_path / "log.jsonl") as log:
        log(EpochEvent(0, Evaluation(losses, {}, {"cat1": {"perplexity": math.inf}}), 3e-3, 0.004))
        log(dataclasses.replace(BATCH, losses=Losses({"cat1": math.nan}, {"cat1": 1.0})))

    def refused(name):
        raise AssertionError(f"{name} is no JSON")

    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    validation, batch = (json.loads(line, parse_constant=refused) for line in lines)
    assert validation["loss"] is None
    assert validation["losses"] == {"cat1": {"loss": None, "weighted": None}}
    assert validation["metrics"] == {"cat1": {"perplexity": None}}
    assert (validation["epoch"], batch["loss"], batch["seconds"]) == (0, None, BATCH.seconds)


def test_json_lines_tell_memory_where_it_is_known(tmp_path):
    with json_log(tmp_path / "log.jsonl", lambda: 4096) as log:
        log(BATCH)
    assert json.loads((tmp_path / "log.jsonl").read_text())["memory_bytes"] == 4096


def test_a_line_that_was_cut_short_does_not_spoil_the_next(tmp_path):
    path = tmp_path / "log.jsonl"
    with json_log(path) as log:
        log(BATCH)
    path.write_text(path.read_text() + '{"event": "ba')
    for _ in range(2):
        with json_log(path) as log:
            log(BATCH)
    lines = path.read_text().splitlines()
    assert lines[1] == '{"event": "ba'
    assert [json.loads(line)["event"] for line in [lines[0], *lines[2:]]] == ["batch"] * 3


LIVE_LOSSES = Losses({"item": 1.23456, "price": 0.5}, {"item": 1.0, "price": 2.0})
LIVE_METRICS = {"item": {"perplexity": 3.4, "top_1_accuracy": 0.51239}, "price": {"mae": 12.0, "rmse": 20.0}}
LIVE_BATCH = BatchEvent(
    epoch=2,
    batch=30,
    batches=40,
    count=10,
    losses=LIVE_LOSSES,
    learning_rate=0.00125,
    seconds=0.5,
    samples=640,
)


class Bar(Advance):
    def __init__(self):
        self.count = 0
        self.shown = {}

    def advance(self, n=1, **shown):
        self.count += n
        self.shown |= shown


def test_the_bar_moves_by_batches_and_shows_how_the_run_does():
    bar = Bar()
    hook = live_view(bar, lambda: 56_700_000)
    hook(LIVE_BATCH)
    hook(EpochEvent(2, Evaluation(LIVE_LOSSES, {}, LIVE_METRICS), 0.001, 3.0))
    assert bar.count == 10
    assert bar.shown == {
        "epoch": "2",
        "loss": "2.235",
        "lr": "0.00125",
        "samples/s": "1,280",
        "memory": "57 MB",
        "validation": "2.235",
        "item": "top-1 0.5124",
        "price": "MAE 12",
    }


def test_many_targets_are_left_to_the_log():
    bar = Bar()
    metrics = {str(index): LIVE_METRICS["item"] for index in range(4)}
    live_view(bar, int)(EpochEvent(2, Evaluation(LIVE_LOSSES, {}, metrics), 0.001, 3.0))
    assert list(bar.shown) == ["validation"]


def test_sizes():
    assert size(1_234_000_000) == "1.23 GB"
    assert size(56_700_000) == "57 MB"


def test_a_run_that_goes_on_says_from_where(tmp_path, caplog):
    event = ResumeEvent(3, 4, 8)
    with caplog.at_level(logging.INFO):
        TextLog(RIVAL, {})(event)
    assert "[INFO] Resumed at epoch 3, batch 4 of 8 |" in caplog.text
    with json_log(tmp_path / "log.jsonl") as log:
        log(event)
    (values,) = map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())
    assert (values["event"], values["epoch"], values["batch"], values["batches"]) == ("resumed", 3, 4, 8)
