"""The benchmark's configurations are valid, its data can be read, and its sums are right."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from seqjax.config.base import validate
from seqjax.config.infer import InferConfig
from seqjax.config.train import TrainConfig
from seqjax.data.formats import load_windows
from tools import bench_infer


@pytest.mark.parametrize("name", bench_infer.CASES)
def test_configurations_are_valid(name):
    case, other = bench_infer.CASES[name], bench_infer.OTHERS[name]
    assert case.items != other.items
    assert case.model == other.model
    assert case.sequences == other.sequences
    config = validate(InferConfig, bench_infer.infer_config(case, "onnx"), "the test")
    assert (config.autoregression_extra_steps or 0) == case.steps
    training = validate(TrainConfig, bench_infer.train_config(case.model), "the test")
    assert training.target_columns == config.target_columns


def test_the_data_can_be_read(tmp_path):
    for folder in ("ours", "theirs"):
        (tmp_path / folder).mkdir()
        bench_infer.write_project(tmp_path / folder)
    for case in bench_infer.CASES.values():
        values = bench_infer.infer_config(case, "pt")
        ours, theirs = ((tmp_path / folder / values["data_path"]) for folder in ("ours", "theirs"))
        assert ours.read_bytes() == theirs.read_bytes()
        metadata = json.loads((tmp_path / "ours" / values["metadata_config_path"]).read_text())
        windows = load_windows(
            ours, "parquet", column_kinds=values["target_column_types"], n_classes=metadata["n_classes"]
        )
        assert len(windows) == case.sequences * case.windows
        assert len(np.unique(windows.sequence_id())) == case.sequences
        assert case.items == len(windows) + case.sequences * case.steps


def test_what_a_larger_job_needs_in_addition():
    seconds = bench_infer.Seconds([3.0, 2.0, 9.0], [5.0, 4.0, 5.0], [6.0, 6.0, 1.0])
    row = bench_infer._row(("windows", "seqjax", "pt"), seconds)
    assert row["process"] == 4680 / 3
    assert row["marginal"] == 4680 * 2 / 2
    assert row["first"] == 4680 / 6


def test_rates_are_compared_by_kind():
    rows = [
        {"case": case, "program": program, "model": model, "process": speed, "marginal": factor * speed}
        for case in bench_infer.CASES
        for program, model, speed, factor in (
            ("seqjax", "onnx", 300.0, 2),
            ("seqjax", "pt", 100.0, 6),
            ("sequifier", "onnx", 100.0, 1),
            ("sequifier", "pt", 50.0, 1),
        )
    ]
    ratios = bench_infer._ratios(rows)
    assert ratios["windows, process: ONNX to its ONNX"] == 3.0
    assert ratios["windows, marginal: ONNX to its pt"] == 12.0
    assert ratios["windows, process: JAX to its pt"] == 2.0
    assert ratios["windows, marginal: JAX to its pt"] == 12.0


def test_cpu_seconds_are_those_of_the_process(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_infer, "PROGRAM", "sum(range(20_000_000))  # {module}")
    seconds = bench_infer.measure(Path(sys.executable), "seqjax", tmp_path / "infer.yaml", tmp_path / "cache")
    assert 0.1 < seconds < 20


def test_sequences_with_a_memory_are_learnable():
    items = bench_infer._long_sequences()
    length = bench_infer.LONG["length"]
    assert items.shape == (bench_infer.LONG["train"] + bench_infer.LONG["rows"], 2 * length)
    assert items.min() == 2
    assert items.max() == bench_infer.CLASSES["kind"] - 1
    follower = {kind: np.bincount(items[:, 1:][items[:, :-1] == kind]) for kind in range(2, 22)}
    assert all(counts.max() > 0.4 * counts.sum() for counts in follower.values())
