"""Targets that are no inputs go from a table through training, inference, evaluation and generation."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import seqjax
from seqjax.errors import DataError
from seqjax.inference.model import Model

COLUMNS = {"item": "categorical", "price": "real", "label": "categorical", "score": "real"}
INPUTS = ["item", "price"]
ROWS, SEQUENCES = 24, 12


def table() -> pl.DataFrame:
    """`label` and `score` go by the item before them."""
    rng = np.random.default_rng(0)
    count = ROWS * SEQUENCES
    item, price = rng.integers(0, 3, count), rng.normal(size=count)
    before = np.roll(item, 1)
    return pl.DataFrame(
        {
            "sequenceId": np.repeat(np.arange(SEQUENCES), ROWS),
            "itemPosition": np.tile(np.arange(ROWS), SEQUENCES),
            "item": [f"i{value}" for value in item],
            "price": price,
            "label": [f"l{value}" for value in before],
            "score": before * 10.0,
        }
    )


TRAINING = {
    "project_root": ".",
    "metadata_config_path": "configs/metadata_configs/t.json",
    "model_name": "m",
    "seq_length": 4,
    "input_columns": INPUTS,
    "target_columns": list(COLUMNS),
    "target_column_types": COLUMNS,
    "inference_batch_size": 16,
    "export_generative_model": True,
    "export_embedding_model": False,
    "export_pt": True,
    "model_spec": {
        "initial_embedding_dim": 8,
        "feature_embedding_dims": {"item": 6, "price": 2},
        "dim_model": 8,
        "n_head": 2,
        "dim_feedforward": 8,
        "num_layers": 1,
        "prediction_length": 1,
        "positional_encoding": "rope",
    },
    "training_spec": {
        "device": "cpu",
        "epochs": 4,
        "save_interval_epochs": 4,
        "batch_size": 16,
        "learning_rate": 0.02,
        "criterion": {
            name: "CrossEntropyLoss" if kind == "categorical" else "MSELoss" for name, kind in COLUMNS.items()
        },
        "optimizer": {"name": "AdamW"},
        "scheduler": {"name": "StepLR", "step_size": 4},
    },
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project")
    (root / "data").mkdir()
    table().write_csv(root / "data" / "t.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        preparing = {"project_root": ".", "data_path": "data/t.csv", "write_format": "arrow", "seq_length": 4}
        seqjax.preprocess({**preparing, "split_ratios": [0.6, 0.2, 0.2]})
        seqjax.train(TRAINING)
    return root


@pytest.fixture(params=["onnx", "pt"])
def model(project: Path, request: pytest.FixtureRequest) -> Model:
    return seqjax.load_model(f"sequifier-m-best-4.{request.param}", project_root=project)


def test_they_are_predicted_from_the_inputs_alone(model: Model) -> None:
    whole = model.predict(table(), forecast_from="latest")
    assert whole.columns == ["sequenceId", "itemPosition", *COLUMNS]
    assert whole["label"].str.starts_with("l").all()
    assert_frame_equal(model.predict(table().drop("label", "score"), forecast_from="latest"), whole)


def test_they_are_not_fed_back_where_sequences_go_on(model: Model) -> None:
    steps = model.generate(table().drop("label", "score"), steps=3, forecast_from="latest")
    assert steps.columns == ["sequenceId", "itemPosition", *COLUMNS]
    assert len(steps) == 3 * SEQUENCES
    first = steps.filter(pl.col("itemPosition") == ROWS).cast({"price": pl.Float64, "score": pl.Float64})
    shown = pl.concat([table(), first.select(table().columns)])
    again = model.predict(shown, forecast_from="latest").sort("sequenceId")
    second = steps.filter(pl.col("itemPosition") == ROWS + 1).sort("sequenceId")
    assert_frame_equal(again, second, abs_tol=1e-3)


def test_they_are_scored_from_held_out_data(project: Path) -> None:
    config = {
        "project_root": str(project),
        "model_path": "best",
        "data_path": "data/t.csv",
        "training_data_path": "data/t-split0",
        "bootstrap_samples": 100,
        "html": False,
    }
    (found,) = seqjax.evaluate(config).models
    assert set(found.targets) == set(COLUMNS)
    assert found.targets["label"].verdict.outcome == "better"
    table().drop("score").write_csv(project / "data" / "without.csv")
    with pytest.raises(DataError, match=r"without\.csv.*'score'"):
        seqjax.evaluate({**config, "data_path": "data/without.csv"})
