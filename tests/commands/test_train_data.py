"""Where training finds its data, and what it keeps in memory."""

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import seqjax.commands.train_run as command
from seqjax.commands.preprocess import preprocess
from seqjax.commands.train import train
from seqjax.config.base import validate
from seqjax.config.preprocess import PreprocessConfig
from seqjax.config.train import TrainConfig
from seqjax.training import setup
from seqjax.windows.windows import Windows


def _preprocessed(root: str, write_format: str) -> None:
    folder = Path(root) / "data"
    folder.mkdir(parents=True)
    keys = {"sequenceId": np.repeat(np.arange(3), 20), "itemPosition": np.tile(np.arange(20), 3)}
    pl.DataFrame({**keys, "item": list("abc") * 20}).write_csv(folder / "t.csv")
    values = {"project_root": root, "data_path": "data/t.csv", "write_format": write_format, "seq_length": 4}
    preprocess(validate(PreprocessConfig, {**values, "split_ratios": [0.7, 0.3]}, "preprocess"))


def _train(root: str, monkeypatch: pytest.MonkeyPatch, **training: Any) -> None:
    monkeypatch.setattr(command, "export_models", lambda *_, **__: [])
    spec = {"initial_embedding_dim": 4, "dim_model": 4, "n_head": 1, "dim_feedforward": 4, "num_layers": 1}
    values = {
        "project_root": root,
        "metadata_config_path": "configs/metadata_configs/t.json",
        "model_name": "m",
        "target_columns": ["item"],
        "target_column_types": {"item": "categorical"},
        "seq_length": 4,
        "inference_batch_size": 4,
        "export_generative_model": False,
        "export_embedding_model": False,
        "model_spec": {**spec, "prediction_length": 1},
        "training_spec": {
            "device": "cpu",
            "epochs": 1,
            "save_interval_epochs": 1,
            "batch_size": 4,
            "learning_rate": 0.01,
            "criterion": {"item": "CrossEntropyLoss"},
            **training,
        },
    }
    train(validate(TrainConfig, values, "train"))


@pytest.mark.parametrize("write_format", ["arrow", "parquet"])
@pytest.mark.parametrize("in_ram", [False, True])
def test_data_is_read_from_disk_unless_it_shall_be_loaded(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    in_ram: bool,
    write_format: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    _preprocessed("project", write_format)
    # The project was preprocessed from outside, and is trained in from inside.
    monkeypatch.chdir("project")
    copied: list[Windows] = []
    to_ram = Windows.in_ram
    monkeypatch.setattr(Windows, "in_ram", lambda self, *names: copied.append(self) or to_ram(self, *names))
    monkeypatch.setattr(setup, "memory_limit", lambda *_, **__: 1.0)
    with caplog.at_level(logging.INFO):
        _train(".", monkeypatch, load_full_data_to_ram=in_ram, max_ram_gb=1e-6, num_workers=1)
    assert bool(re.search(r"t-split0\S* stays on disk", caplog.text)) == (not in_ram)
    assert bool(copied) == in_ram
