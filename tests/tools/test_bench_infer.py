"""The benchmark's configurations are valid, its data can be read, and its sums are right."""

import json

import numpy as np
import pytest

from seqjax.config.base import validate
from seqjax.config.infer import InferConfig
from seqjax.config.train import TrainConfig
from seqjax.data.formats import load_windows
from tools import bench_infer


@pytest.mark.parametrize("name", bench_infer.CASES)
def test_configurations_are_valid(name):
    case = bench_infer.CASES[name]
    config = validate(InferConfig, bench_infer.infer_config(name, "onnx"), "the test")
    assert (config.autoregression_extra_steps or 0) == case.steps
    training = validate(TrainConfig, bench_infer.train_config(case.model), "the test")
    assert training.target_columns == config.target_columns


def test_the_data_can_be_read(tmp_path):
    bench_infer.write_project(tmp_path)
    for name, case in bench_infer.CASES.items():
        values = bench_infer.infer_config(name, "pt")
        metadata = json.loads((tmp_path / values["metadata_config_path"]).read_text())
        windows = load_windows(
            tmp_path / values["data_path"],
            "parquet",
            column_kinds=values["target_column_types"],
            n_classes=metadata["n_classes"],
        )
        assert len(windows) == case.sequences * case.windows
        assert len(np.unique(windows.sequence_id)) == case.sequences
        assert case.items == len(windows) + case.sequences * case.steps


def test_graphs_are_compared_with_graphs_and_warm_jax_with_torch():
    rows = [
        {"case": case, "program": program, "model": model, "command": speed, "warm": 2 * speed}
        for case in bench_infer.CASES
        for program, model, speed in (
            ("seqjax", "onnx", 300.0),
            ("seqjax", "pt", 100.0),
            ("sequifier", "onnx", 100.0),
            ("sequifier", "pt", 50.0),
        )
    ]
    ratios = bench_infer._ratios(rows)
    assert ratios["windows: onnx command to sequifier onnx"] == 3.0
    assert ratios["windows: onnx command to sequifier pt"] == 6.0
    assert ratios["windows: jax warm to sequifier pt"] == 4.0


def test_sequences_with_a_memory_are_learnable():
    items = bench_infer._long_sequences()
    length = bench_infer.LONG["length"]
    assert items.shape == (bench_infer.LONG["train"] + bench_infer.LONG["rows"], 2 * length)
    assert items.min() == 2
    assert items.max() == bench_infer.CLASSES["kind"] - 1
    follower = {kind: np.bincount(items[:, 1:][items[:, :-1] == kind]) for kind in range(2, 22)}
    assert all(counts.max() > 0.4 * counts.sum() for counts in follower.values())
