"""A target whose density is predicted goes from a table through training to every result."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import polars as pl
import pytest
from scipy.stats import norm

import seqjax
from seqjax.errors import ConfigError
from seqjax.inference.model import Model

ROWS, SEQUENCES = 40, 80
SCALES = {"calm": 1.0, "wild": 8.0}


def table() -> pl.DataFrame:
    """`price` is 50 and noise, whose size goes by the regime of the item before it."""
    rng = np.random.default_rng(0)
    regime = rng.choice(list(SCALES), ROWS * SEQUENCES)
    scale = np.array([SCALES[name] for name in np.roll(regime, 1)])
    return pl.DataFrame(
        {
            "sequenceId": np.repeat(np.arange(SEQUENCES), ROWS),
            "itemPosition": np.tile(np.arange(ROWS), SEQUENCES),
            "regime": regime,
            "price": 50 + scale * rng.normal(size=len(regime)),
        }
    )


TRAINING = {
    "project_root": ".",
    "metadata_config_path": "configs/metadata_configs/t.json",
    "model_name": "m",
    "seq_length": 4,
    "target_columns": ["regime", "price"],
    "target_column_types": {"regime": "categorical", "price": "real"},
    "inference_batch_size": 16,
    "export_generative_model": True,
    "export_embedding_model": False,
    "export_pt": True,
    "model_spec": {
        "initial_embedding_dim": 8,
        "feature_embedding_dims": {"regime": 6, "price": 2},
        "dim_model": 8,
        "n_head": 2,
        "dim_feedforward": 8,
        "num_layers": 1,
        "prediction_length": 1,
        "positional_encoding": "rope",
    },
    "training_spec": {
        "device": "cpu",
        "epochs": 6,
        "save_interval_epochs": 6,
        "batch_size": 16,
        "learning_rate": 0.02,
        "criterion": {"regime": "CrossEntropyLoss", "price": "GaussianNLLLoss"},
        "optimizer": {"name": "AdamW"},
        "scheduler": {"name": "StepLR", "step_size": 6},
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
    return seqjax.load_model(f"sequifier-m-best-6.{request.param}", project_root=project)


def test_the_mean_is_predicted(model: Model) -> None:
    predicted = model.predict(table(), forecast_from="latest")
    assert predicted.columns == ["sequenceId", "itemPosition", "regime", "price"]
    assert abs(predicted["price"].to_numpy() - 50).max() < 5


def test_draws_have_the_spread_of_the_regime_and_are_fed_back(model: Model) -> None:
    drawn = model.generate(
        table(),
        steps=2,
        forecast_from="latest",
        sample_from_distribution_columns=["price"],
        autoregression_samples=60,
    )
    assert drawn["itemPosition"].max() == ROWS + 1
    last = table().filter(pl.col("itemPosition") == ROWS - 1).select("sequenceId", latest="regime")
    spread = (
        drawn.filter(pl.col("itemPosition") == ROWS)
        .join(last, on="sequenceId")
        .group_by("latest")
        .agg(pl.col("price").std())
    )
    found = dict(spread.iter_rows())
    assert found == {name: pytest.approx(scale, rel=0.35) for name, scale in SCALES.items()}


def test_a_graph_returns_the_mean_and_the_parameters(project: Path) -> None:
    session = onnxruntime.InferenceSession(project / "models" / "sequifier-m-best-6.onnx")
    assert [value.name for value in session.get_outputs()] == [
        "regime_log_probs",
        "price_value",
        "price_params",
    ]
    feed = {
        "regime": np.full((3, 4), 2),
        "price": np.zeros((3, 4), np.float32),
        "valid_mask": np.ones((3, 4), np.bool_),
    }
    _, value, parameters = (np.asarray(array) for array in session.run(None, feed))
    assert (value.shape, parameters.shape) == ((3, 1, 1), (3, 1, 2))
    np.testing.assert_array_equal(value, parameters[..., :1])
    assert (parameters[..., 1] > 0).all()


def test_the_density_is_scored_in_units_of_the_table(project: Path) -> None:
    config = {
        "project_root": str(project),
        "model_path": "best",
        "data_path": "data/t-split2",
        "metadata_config_path": "configs/metadata_configs/t.json",
        "bootstrap_samples": 100,
        "html": True,
    }
    (found,) = seqjax.evaluate(config).models
    price = found.targets["price"]
    figures = {name: estimate.value for name, estimate in price.metrics["model"].items()}
    assert set(figures) == {"nll", "mae", "rmse", "r2", "bias"}
    # The last fifth of each sequence.
    rows = table().with_columns(scale=pl.col("regime").replace_strict(SCALES).shift(1).over("sequenceId"))
    scored = rows.filter(pl.col("itemPosition") >= 32)
    assert price.items == len(scored)
    best = -norm.logpdf(scored["price"], 50, scored["scale"]).mean()
    assert best - 0.05 < figures["nll"] < best + 0.15
    assert (price.head, price.verdict.metric, price.verdict.outcome) == ("gaussian", "nll", "better")
    marginal = price.metrics["marginal"]["nll"].value
    assert marginal == pytest.approx(
        -norm.logpdf(table()["price"], 50, table()["price"].std()).mean(), abs=0.2
    )


def test_training_logs_the_density(project: Path) -> None:
    lines = [json.loads(line) for line in next((project / "logs").glob("*.jsonl")).read_text().splitlines()]
    metrics = [line["metrics"]["price"] for line in lines if line.get("metrics")]
    assert {*metrics[-1]} == {"nll", "mae", "rmse"}
    assert metrics[-1]["nll"] < 3


def test_a_value_without_a_density_is_not_drawn(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    spec = {**TRAINING["training_spec"], "epochs": 1, "save_interval_epochs": 1}
    spec["criterion"] = {"regime": "CrossEntropyLoss", "price": "HuberLoss"}
    seqjax.train({**TRAINING, "model_name": "point", "training_spec": spec})
    point = seqjax.load_model("sequifier-point-best-1.onnx", project_root=project)
    with pytest.raises(ConfigError, match="no distribution to draw from"):
        point.predict(table(), sample_from_distribution_columns=["price"])
