"""JSON lines and text lines of a run; also of one that was resumed, started anew, or killed while writing."""

import json
import math

import pytest

from seqjax.errors import ArtifactError
from seqjax.reports.run_log import Measures, read_log
from seqjax.training.ending import Rival
from seqjax.training.logs import TextLog, evaluation_values, json_log, log_files
from tests.training.test_logs import BATCH, VALIDATION

LINES = """\
--- Starting Training for model: a ---
[INFO] Initializing new model with  1.00e3 parameters.
-----------------------------------------------------------------------------------------
[INFO] Validation | Epoch:   0 | Loss:  4.60e0 | Baseline Loss:  4.11e0 | Time:  0.00s | LR  3.00e-3
[INFO]  - cat, 1_loss:  1.80e0, val_loss:  2.80e0
[INFO] cat, 1: other: 0.25000 | d: e: 0.75000
-----------------------------------------------------------------------------------------
[INFO] Epoch   1 | Batch     5/   15 | Loss:  4.00e0 | LR:  3.00e-3 | S/Batch  1.25e-1
[INFO] Epoch   1 | Batch    15/   15 | Loss:  3.50e0 | LR:  3.00e-3 | S/Batch  5.00e-1
[INFO] Validation | Epoch:   1 | Loss:  3.00e0 | Baseline Loss:  4.11e0 | Time:  1.50s | LR  2.00e-3
[INFO]  - cat, 1_loss: NaN, val_loss:  1.20e0
[INFO] cat, 1: other: 30.00000 | d: e: 120.00000
[INFO] Metrics of val | mae 0.5 | rmse 0.7
[INFO] Epoch   2 | Batch     5/   15 | Loss:   inf | LR:  2.00e-3 | S/Batch  1.25e-1
--- Training Complete ---
"""
TEXT = "".join(f"2025-11-21 05:00:00 | INFO | {line}\n" for line in LINES.splitlines())


def batch(epoch, number, loss, **more):
    return {
        "event": "batch",
        "epoch": epoch,
        "batch": number,
        "batches": 4,
        "count": 2,
        "loss": loss,
        "losses": {"a": {"loss": loss / 2, "weighted": loss}},
        "learning_rate": 0.1,
        "seconds": 0.5,
        "samples_per_second": 32.0,
        **more,
    }


def validation(epoch, loss, **more):
    return {
        "event": "validation",
        "epoch": epoch,
        "loss": loss,
        "losses": {"a": {"loss": loss / 2, "weighted": loss}},
        "metrics": {"a": {"perplexity": 2 * loss}},
        "learning_rate": 0.1,
        "seconds": 2.0,
        "shares": {},
        **more,
    }


def start(**more):
    return {"event": "start", "config": {"model_name": "r"}, **more}


BASELINES = {"event": "baselines", "marginal": {"loss": 3.0, "losses": {"a": {"loss": 1.5, "weighted": 3.0}}}}


def write(path, *records, end=""):
    path.write_text("".join(json.dumps(record) + "\n" for record in records) + end)
    return path


def read_json(tmp_path, *records, end=""):
    return read_log("r", write(tmp_path / "r.jsonl", *records, end=end))


def read_text(tmp_path, text):
    path = tmp_path / "r-3.txt"
    path.write_text(text)
    return read_log("r", path)


def places(run):
    return [told.place for told in run.batches], [told.epoch for told in run.validations]


def test_json_lines(tmp_path):
    run = read_json(
        tmp_path,
        start(labels={"a": ["unknown", "other", "x"]}),
        {"time": "2025", **BASELINES},
        validation(0, 4.0, shares={"a": [0.0, 0.25, 0.5, 0.25]}),
        batch(1, 2, 3.5, memory_bytes=1000),
        {"event": "of another version"},
        batch(1, 4, 3.0),
        validation(1, 2.0, training={"loss": 3.25, "losses": {"a": {"loss": 1.6, "weighted": 3.25}}}),
        {"event": "end"},
    )
    assert places(run) == ([0.5, 1.0], [0, 1])
    assert run.baselines == {"marginal": Measures(3.0, {"a": 1.5})}
    assert run.validations[0].shares == {"a": {"other": 0.25, "x": 0.5, "3": 0.25}}
    assert run.validations[1].measures == Measures(2.0, {"a": 1.0}, {"a": {"perplexity": 4.0}})
    assert (run.batches[0].memory, run.batches[1].memory) == (1000, None)
    assert run.best is run.validations[1]
    assert (run.finished, run.epochs, run.seconds, run.notes) == (True, 1, 4.0, [])
    assert run.config == {"model_name": "r"}


def test_text_lines(tmp_path):
    run = read_text(tmp_path, TEXT)
    assert places(run) == ([1 / 3, 1.0, 1 + 1 / 3], [0, 1])
    assert [told.count for told in run.batches] == [5, 10, 5]
    assert [told.speed for told in run.batches] == [8.0, 2.0, 8.0]
    assert run.batches[2].measures.loss == math.inf
    assert run.batches[1].learning_rate == 3e-3
    first, second = run.validations
    assert first.measures.by_target == {"cat, 1": 1.8, "val": 2.8}
    assert math.isnan(second.measures.by_target["cat, 1"])
    assert first.shares == {"cat, 1": {"other": 0.25, "d: e": 0.75}}
    assert second.shares == {"cat, 1": {"other": 0.2, "d: e": 0.8}}
    assert (second.measures.loss, second.seconds, second.learning_rate) == (3.0, 1.5, 2e-3)
    assert run.baselines == {"last value": Measures(4.11)}
    assert (run.finished, run.speed_unit, run.notes) == (True, "batches", [])


@pytest.mark.parametrize(("name", "precision"), [("r.jsonl", 1e-12), ("r-3.txt", 5e-3)])
def test_what_training_writes_is_read_back(tmp_path, name, precision):
    labels = {"cat1": {0: "unknown", 1: "other", 2: "d"}}
    with json_log(tmp_path / "r.jsonl") as log, log_files(tmp_path / "r-2.txt", tmp_path / "r-3.txt"):
        names = {column: list(ids.values()) for column, ids in labels.items()}
        log.write("start", {"model": "r", "config": {"seed": 1}, "labels": names})
        log.write("baselines", {"velocity": evaluation_values(VALIDATION.evaluation)})
        rival = Rival("velocity", VALIDATION.evaluation.losses.total)
        for hook in (log, TextLog(rival, labels)):
            hook(VALIDATION)
            hook(BATCH)
    run = read_log("r", tmp_path / name)
    (found,), (batches,), losses = run.validations, run.batches, VALIDATION.evaluation.losses
    assert run.notes == []
    assert (found.epoch, batches.place, batches.count) == (0, BATCH.batch / BATCH.batches, BATCH.count)
    numbers = [found.measures.loss, found.learning_rate, found.shares["cat1"]["d"], batches.measures.loss]
    expected = [losses.total, VALIDATION.learning_rate, 0.75, BATCH.losses.total]
    assert numbers == pytest.approx(expected, rel=precision)
    # Text tells losses after their weights.
    by_target = losses.by_target if name.endswith("jsonl") else losses.weighted
    assert found.measures.by_target == pytest.approx(by_target, rel=precision)
    assert run.baselines["velocity"].loss == pytest.approx(losses.total, rel=precision)


def test_lines_of_sequifier_have_no_level(tmp_path):
    run = read_text(tmp_path, TEXT.replace(" | INFO | ", " | "))
    assert repr(run) == repr(read_text(tmp_path, TEXT))


def test_what_a_resumed_run_repeats_counts_once(tmp_path):
    before = [start(), validation(0, 4.0), batch(1, 2, 3.0), batch(1, 4, 3.0), validation(1, 3.0)]
    lost = [batch(2, 2, 9.0), batch(2, 4, 9.0), validation(2, 9.0), batch(3, 2, 9.0)]
    again = [start(), batch(2, 2, 2.0), batch(2, 4, 2.0), validation(2, 2.0)]
    run = read_json(tmp_path, *before, *lost, *again)
    assert places(run) == ([0.5, 1.0, 1.5, 2.0], [0, 1, 2])
    assert [told.measures.loss for told in run.batches] == [3.0, 3.0, 2.0, 2.0]
    assert run.best is run.validations[2]
    assert not run.finished


@pytest.mark.parametrize(("epoch", "number"), [(3, 0), (2, 4)])
def test_what_was_written_after_the_place_of_resuming_is_forgotten(tmp_path, epoch, number):
    before = [validation(0, 4.0), batch(1, 4, 3.0), validation(1, 3.0), batch(2, 4, 3.0), validation(2, 3.0)]
    lost = [batch(3, 1, 9.0), batch(3, 3, 9.0), validation(3, 0.1)]
    resumed = {"event": "resumed", "epoch": epoch, "batch": number, "batches": 4}
    run = read_json(tmp_path, *before, *lost, {"event": "end"}, resumed)
    assert places(run) == ([1.0, 2.0], [0, 1, 2])
    assert run.best is run.validations[1]
    assert (run.finished, run.notes) == (False, [])
    run = read_json(tmp_path, *before, *lost, resumed, batch(3, 2, 2.0), batch(3, 4, 2.0), validation(3, 2.0))
    assert places(run) == ([1.0, 2.0, 2.5, 3.0], [0, 1, 2, 3])


def test_a_run_that_goes_on_within_an_epoch_keeps_what_is_before(tmp_path):
    resumed = {"event": "resumed", "epoch": 2, "batch": 2, "batches": 4}
    before = [validation(0, 4.0), batch(1, 4, 3.0), validation(1, 3.0), batch(2, 2, 3.0), batch(2, 3, 9.0)]
    run = read_json(tmp_path, *before, resumed, batch(2, 4, 2.0))
    assert places(run) == ([1.0, 1.5, 2.0], [0, 1])
    line = "[INFO] Resumed at epoch 1, batch 5 of 15 | What was logged after that is logged again.\n"
    run = read_text(tmp_path, TEXT + line)
    assert places(run) == ([1 / 3], [0])
    assert (run.finished, run.notes) == (False, [])


def test_a_run_that_started_anew_counts_alone(tmp_path):
    run = read_json(tmp_path, validation(0, 4.0), batch(1, 4, 3.0), validation(1, 1.0), validation(0, 5.0))
    assert places(run) == ([], [0])
    assert read_text(tmp_path, TEXT + TEXT).batches == read_text(tmp_path, TEXT).batches


@pytest.mark.parametrize("end", ['{"event": "validation", "epo', "not json", "[1]\n", '{"event": "batch"}\n'])
def test_a_damaged_json_line_is_left_out_and_named(tmp_path, end):
    run = read_json(tmp_path, start(), validation(0, 4.0), end=end)
    assert places(run) == ([], [0])
    assert run.notes == ["r.jsonl: line 3 could not be read, and the page does without."]


@pytest.mark.parametrize("cut", [-1, -3, -20, -60])
def test_a_damaged_text_line_is_left_out_and_named(tmp_path, cut):
    last = "[INFO] Epoch   2 | Batch    10/   15 | Loss:  1.00e0 | LR:  2.00e-3 | S/Batch  1.25e-1\n"
    run = read_text(tmp_path, TEXT + last[:cut])
    assert places(run) == places(read_text(tmp_path, TEXT))
    assert run.notes == ["r-3.txt: line 16 could not be read, and the page does without."]


def test_many_damaged_lines_are_counted(tmp_path):
    run = read_json(tmp_path, validation(0, 4.0), end="x\n" * 7)
    assert run.notes == [
        "r.jsonl: lines 2, 3, 4, 5, 6 and 2 more could not be read, and the page does without."
    ]


@pytest.mark.parametrize(
    ("text", "message"), [("", "is empty"), ("\n", "is empty"), (json.dumps(start()), "no training")]
)
def test_a_log_without_training_is_an_error(tmp_path, text, message):
    path = tmp_path / "r.jsonl"
    path.write_text(text)
    with pytest.raises(ArtifactError, match=rf"{message}.*'r'.*seqjax train"):
        read_log("r", path)


def test_null_is_a_number_that_is_not_finite(tmp_path):
    lost = {"loss": None, "losses": {"a": {"loss": None, "weighted": None}}}
    metrics = {"metrics": {"a": {"perplexity": None}}}
    run = read_json(
        tmp_path,
        {"event": "baselines", "marginal": lost | metrics},
        validation(0, 3.0) | lost | metrics,
        batch(1, 4, 2.0) | lost,
        validation(1, 2.0, training=lost),
    )
    assert run.notes == []
    first, second = run.validations
    found = [run.baselines["marginal"], first.measures, run.batches[0].measures]
    assert all(math.isnan(measures.loss) and math.isnan(measures.by_target["a"]) for measures in found)
    assert all(math.isnan(measures.metrics["a"]["perplexity"]) for measures in found[:2])
    assert run.best is second


def test_the_best_epoch_is_finite_and_after_the_start(tmp_path):
    run = read_json(
        tmp_path, validation(0, 1.0), validation(1, math.nan), validation(2, 3.0), validation(3, 2.0)
    )
    assert run.best is run.validations[3]
    assert read_json(tmp_path, validation(0, math.inf)).best is None
