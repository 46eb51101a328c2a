"""Torch files all the way: shards are trained on, a .pt model is exported, and infers as the graph does."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import polars as pl
import pytest

from seqjax.artifacts.model_files import read_pt
from seqjax.commands import train_run as command
from seqjax.commands.infer import infer
from seqjax.commands.preprocess import preprocess
from seqjax.commands.train import train
from seqjax.config.base import validate
from seqjax.config.infer import InferConfig
from seqjax.config.preprocess import PreprocessConfig
from seqjax.config.train import TrainConfig
from seqjax.interop.names import from_sequifier


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project")
    rng = np.random.default_rng(0)
    lengths = [20, 3, 15, 9, 2]
    rows = sum(lengths)
    frame = pl.DataFrame(
        {
            "sequenceId": np.repeat(np.arange(5), lengths),
            "itemPosition": np.concatenate([np.arange(length) for length in lengths]),
            "item": rng.choice(["a", "b", "c"], rows),
            "price": rng.normal(10, 3, rows),
        }
    )
    (root / "data").mkdir()
    frame.write_csv(root / "data" / "t.csv")
    values = {
        "project_root": str(root),
        "data_path": "data/t.csv",
        "write_format": "pt",
        "merge_output": False,
        "batches_per_file": 2,
        "seq_length": 4,
        "split_ratios": [0.5, 0.5],
        "stride_by_split": [1, 1],
        "history": False,
    }
    preprocess(validate(PreprocessConfig, values, "preprocess.yaml"))
    return root


def _train_config(root: Path, **changes: Any) -> TrainConfig:
    values = {
        "project_root": str(root),
        "metadata_config_path": "configs/metadata_configs/t.json",
        "model_name": "demo",
        "target_columns": ["item", "price"],
        "target_column_types": {"item": "categorical", "price": "real"},
        "seq_length": 4,
        "inference_batch_size": 4,
        "export_generative_model": True,
        "export_embedding_model": True,
        "export_pt": True,
        "model_spec": {
            "initial_embedding_dim": 6,
            "feature_embedding_dims": {"item": 4, "price": 2},
            "dim_model": 6,
            "n_head": 1,
            "dim_feedforward": 4,
            "num_layers": 1,
        },
        "training_spec": {
            "device": "cpu",
            "epochs": 1,
            "save_interval_epochs": 1,
            "batch_size": 8,
            "learning_rate": 0.01,
            "criterion": {"item": "CrossEntropyLoss", "price": "MSELoss"},
        },
    }
    return validate(TrainConfig, {**values, **changes}, "train.yaml")


def test_shards_to_predictions(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exported: list[dict[str, Any]] = []
    export = command.export_models

    def recorded(layout: Any, **given: Any) -> list[Path]:
        exported.append(given)
        return export(layout, **given)

    monkeypatch.setattr(command, "export_models", recorded)
    config = _train_config(project)
    result = train(config)
    stems = ("sequifier-demo-best-1", "sequifier-demo-best-embedding-1")
    assert [path.name for path in result.best] == [
        f"{stem}{end}" for end in (".onnx", ".pt") for stem in stems
    ]
    assert [path.name.replace("last", "best") for path in result.last] == [path.name for path in result.best]
    assert all(path.is_file() for path in (*result.best, *result.last))
    expected = jax.device_get(exported[0]["params"])
    for path in (*result.best[2:], *result.last[2:]):
        model = read_pt(path)
        assert model.card is not None
        params = from_sequifier(model.parameters, expected, model.card.column_schema)
        jax.tree.map(
            lambda one, other: np.testing.assert_array_equal(one, other, strict=True), params, expected
        )
    graph, torch = (_predictions(project, path) for path in (result.best[0], result.best[2]))
    assert graph.drop("price").equals(torch.drop("price"))
    np.testing.assert_allclose(graph["price"], torch["price"], rtol=1e-5)


def _predictions(root: Path, model: Path) -> pl.DataFrame:
    values = {
        "project_root": str(root),
        "model_path": f"models/{model.name}",
        "model_type": "generative",
        "metadata_config_path": "configs/metadata_configs/t.json",
    }
    written = infer(validate(InferConfig, values, "infer.yaml"))
    assert [path.name for path in written] == [
        f"{model.stem}-{number}-predictions.csv" for number in range(3)
    ]
    return pl.concat(pl.read_csv(path) for path in written)
