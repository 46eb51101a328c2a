"""Columns of any name go from a table through preprocess, train and an ONNX model to predictions."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from seqjax.commands.infer import infer
from seqjax.commands.preprocess import preprocess
from seqjax.commands.train import train
from seqjax.config.base import validate
from seqjax.config.infer import InferConfig
from seqjax.config.preprocess import PreprocessConfig
from seqjax.config.train import TrainConfig

CATEGORICAL = ["my item.x", "lambda", "größe/日本", "inputCol"]
REAL = ["class", 'quo"te, and comma', "0"]


def test_any_name_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    keys = {"sequenceId": np.repeat(np.arange(4), 15), "itemPosition": np.tile(np.arange(15), 4)}
    ids = {name: [f"v{(row + n) % 3}" for row in range(60)] for n, name in enumerate(CATEGORICAL)}
    values = {name: np.sin(np.arange(60) + n) for n, name in enumerate(REAL)}
    pl.DataFrame({**keys, **ids, **values}).write_csv("data/t.csv")
    common = {"project_root": ".", "seq_length": 4}
    preparing = {"data_path": "data/t.csv", "write_format": "csv", "split_ratios": [0.6, 0.2, 0.2]}
    metadata = preprocess(validate(PreprocessConfig, {**common, **preparing}, "preprocess"))
    assert list(metadata.column_types) == [*CATEGORICAL, *REAL]
    criterion = dict.fromkeys(CATEGORICAL, "CrossEntropyLoss") | dict.fromkeys(REAL, "MSELoss")
    training = {
        "metadata_config_path": "configs/metadata_configs/t.json",
        "model_name": "m",
        "target_columns": [*REAL, *CATEGORICAL],
        "target_column_types": dict.fromkeys(CATEGORICAL, "categorical") | dict.fromkeys(REAL, "real"),
        "inference_batch_size": 4,
        "export_generative_model": True,
        "export_embedding_model": False,
        "model_spec": {
            "initial_embedding_dim": 14,
            "joint_embedding_dim": 8,
            "feature_embedding_dims": dict.fromkeys([*CATEGORICAL, *REAL], 2),
            "dim_model": 8,
            "n_head": 2,
            "dim_feedforward": 8,
            "num_layers": 1,
            "prediction_length": 1,
        },
        "training_spec": {
            "device": "cpu",
            "epochs": 1,
            "save_interval_epochs": 1,
            "batch_size": 8,
            "learning_rate": 0.01,
            "criterion": criterion,
            "optimizer": {"name": "AdamW"},
            "scheduler": {"name": "StepLR", "step_size": 1},
        },
    }
    train(validate(TrainConfig, {**common, **training}, "train"))
    inferring = {
        "model_path": "models/sequifier-m-best-1.onnx",
        "model_type": "generative",
        "data_path": metadata.split_paths[2],
        "inference_batch_size": 4,
        "write_format": "parquet",
    }
    infer(validate(InferConfig, {**common, **inferring}, "infer"))
    predictions = pl.concat([pl.read_parquet(file) for file in Path("outputs").rglob("*.parquet")])
    assert set(predictions.columns) >= {*CATEGORICAL, *REAL}
    assert set(predictions["lambda"].to_list()) <= {"v0", "v1", "v2", "other", "unknown"}
    assert predictions["class"].is_finite().all()
