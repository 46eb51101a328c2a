"""The benchmark's configurations are valid, and what it writes for a peer is what the documents describe."""

import json

import pytest

from seqjax.config.base import validate
from seqjax.config.train import TrainConfig
from seqjax.data.formats import load_windows
from tools import bench_gpu, bench_train


@pytest.mark.parametrize("shape", [*bench_train.SHAPES.values(), *bench_gpu.SHAPES.values()])
def test_configurations_are_valid(shape):
    config = validate(TrainConfig, bench_train.training_config(shape, 0.1), "the test")
    assert config.training_spec.dropout == 0.1
    assert config.seq_length == shape["length"]


def test_the_data_of_a_peer_can_be_read(tmp_path):
    config = validate(TrainConfig, bench_train.training_config(bench_train.SHAPES["small"], 0.0), "the test")
    bench_train.write_project(tmp_path, config.seq_length, (256, 128))
    metadata = json.loads((tmp_path / "metadata.json").read_text())
    kinds = config.target_column_types
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
