"""The benchmark's configurations are valid, and what it writes for a peer is what the documents describe."""

import json

import pytest

from seqjax.config.base import validate
from seqjax.config.train import TrainConfig
from seqjax.data.formats import load_windows
from tools import bench_train


@pytest.mark.parametrize("name", bench_train.SHAPES)
def test_configurations_are_valid(name):
    config = validate(TrainConfig, bench_train.training_config(name, 0.1), "the test")
    assert config.training_spec.dropout == 0.1
    assert config.seq_length == bench_train.SHAPES[name]["length"]


def test_the_data_of_a_peer_can_be_read(tmp_path, monkeypatch):
    monkeypatch.setitem(bench_train.BATCHES, "small", 2)
    bench_train.write_project(tmp_path, "small")
    metadata = json.loads((tmp_path / "metadata.json").read_text())
    kinds = validate(TrainConfig, bench_train.training_config("small", 0.0), "the test").target_column_types
    counts = [
        len(
            load_windows(
                tmp_path / path,
                "parquet",
                column_kinds=kinds,
                padding="zero",
                n_classes=metadata["n_classes"],
            )
        )
        for path in metadata["split_paths"]
    ]
    assert counts == [256, 128]


def test_the_median_counts():
    values = [{"per_cpu_second": value, "per_second": 1.0} for value in (1.0, 9.0, 2.0)]
    assert bench_train.summary(values) == {
        "per_cpu_second": 2.0,
        "per_second": 1.0,
        "repeats_per_cpu_second": [1.0, 9.0, 2.0],
    }
