"""Numbers and types are the table's, from preprocess to the results: small units, large levels, constants."""

import json
import logging
import shutil
from datetime import date, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import seqjax
from seqjax import cli

ROWS, SEQUENCES, HELD_OUT = 20, 12, 14
UNIT = 5e-12
LEVEL = 1_700_000_000.5


def table() -> pl.DataFrame:
    """Columns whose next value follows from the last one, and one that is constant in the first 14 rows."""
    position = np.tile(np.arange(ROWS), SEQUENCES)
    sequence = np.repeat(np.arange(SEQUENCES), ROWS)
    phase = (position + sequence) % 3
    return pl.DataFrame(
        {
            "sequenceId": sequence,
            "itemPosition": position,
            "field": UNIT * (1 - 2 * (phase % 2)),
            "when": LEVEL + 10 * phase,
            "rain": np.where(position < HELD_OUT, 0.25, 0.25 + phase),
            "open": phase == 0,
            "shop": phase * 10 - 10,
            "day": pl.Series([date(2024, 2, 27) + timedelta(int(days)) for days in phase]),
            "code": [["01", "1", "other"][number] for number in phase],
        }
    )


REALS = {"field": UNIT, "when": 10.0, "rain": 1.0}
"""Each real column, and the size of its steps."""
CATEGORIES = ["open", "shop", "day", "code"]
TRAINING = {
    "project_root": ".",
    "metadata_config_path": "configs/metadata_configs/t.json",
    "model_name": "m",
    "seq_length": 4,
    "target_columns": [*REALS, *CATEGORIES],
    "target_column_types": {**dict.fromkeys(REALS, "real"), **dict.fromkeys(CATEGORIES, "categorical")},
    "inference_batch_size": 16,
    "export_generative_model": True,
    "export_embedding_model": False,
    "model_spec": {
        "initial_embedding_dim": 28,
        "feature_embedding_dims": dict.fromkeys([*REALS, *CATEGORIES], 4),
        "dim_model": 16,
        "joint_embedding_dim": 16,
        "n_head": 2,
        "dim_feedforward": 16,
        "num_layers": 1,
        "prediction_length": 1,
    },
    "training_spec": {
        "device": "cpu",
        "epochs": 6,
        "save_interval_epochs": 6,
        "batch_size": 16,
        "learning_rate": 0.02,
        "criterion": {**dict.fromkeys(REALS, "MSELoss"), **dict.fromkeys(CATEGORIES, "CrossEntropyLoss")},
        "optimizer": {"name": "AdamW"},
        "scheduler": {"name": "StepLR", "step_size": 6},
    },
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project")
    (root / "data").mkdir()
    table().write_parquet(root / "data" / "t.parquet")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        seqjax.preprocess(
            {
                "project_root": ".",
                "data_path": "data/t.parquet",
                "read_format": "parquet",
                "seq_length": 4,
                "split_ratios": [0.7, 0.3],
                "stride_by_split": [1, 1],
                "column_roles": {"day": "categorical"},
            }
        )
        seqjax.train(TRAINING)
    return root


@pytest.fixture(scope="module")
def forecasts(project: Path) -> pl.DataFrame:
    """Every held-out item as the last epoch's model predicts it, beside its row of the table."""
    model = seqjax.load_model("last", project_root=project)
    predicted = model.predict(table(), stride=1)
    return predicted.join(table(), on=["sequenceId", "itemPosition"], suffix=" in the table").filter(
        pl.col("itemPosition") >= HELD_OUT
    )


def test_training_evaluate_and_infer_tell_the_same_figures(project: Path, forecasts: pl.DataFrame) -> None:
    (log,) = (project / "logs").glob("*.jsonl")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    logged = [line["metrics"] for line in lines if line["event"] == "validation"][-1]
    report = seqjax.evaluate(
        {
            "project_root": str(project),
            "model_path": "last",
            "data_path": "data/t-split1.parquet",
            "metadata_config_path": "configs/metadata_configs/t.json",
            "bootstrap_samples": 100,
            "html": False,
        }
    )
    targets = report.models[0].targets
    for name, unit in REALS.items():
        truth = forecasts[f"{name} in the table"]
        error = (forecasts[name] - truth).to_numpy()
        expected = {"mae": np.abs(error).mean(), "rmse": np.sqrt(np.square(error).mean())}
        found = {key: figure.value for key, figure in targets[name].metrics["model"].items()}
        assert targets[name].items == len(error) == SEQUENCES * (ROWS - HELD_OUT)
        # Windows and models hold float32.
        close = partial(pytest.approx, rel=1e-4, abs=1e-6 * unit)
        assert {key: logged[name][key] for key in expected} == close(expected)
        assert {key: found[key] for key in expected} == close(expected)
        assert found["bias"] == close(error.mean())
        points = targets[name].points
        assert points is not None
        np.testing.assert_allclose(sorted(set(points.truth)), sorted(set(truth)), rtol=0, atol=1e-6 * unit)
        assert len(set(points.predictions["model"])) > 1


def test_forecasts_are_as_exact_as_the_model(forecasts: pl.DataFrame) -> None:
    for name in ("field", "when"):
        assert forecasts[name].dtype == pl.Float64
        error = (forecasts[name] - forecasts[f"{name} in the table"]).to_numpy()
        assert np.abs(error).mean() < 0.2 * REALS[name]
    # Never negative rain, where there never was any but a constant.
    assert forecasts["rain"].to_numpy().min() > 0


def test_categories_come_back_as_what_they_were(project: Path, forecasts: pl.DataFrame) -> None:
    for name in CATEGORIES:
        assert forecasts[name].dtype == table()[name].dtype
        assert set(forecasts[name]) <= set(table()[name])
    model = seqjax.load_model("last", project_root=project)
    classes = model.probabilities(table())["open"].columns[2:]
    assert classes == ["unknown", "other", "false", "true"]
    assert model.probabilities(table())["day"].columns[4:] == ["2024-02-27", "2024-02-28", "2024-02-29"]


@pytest.mark.parametrize("write_format", ["csv", "parquet"])
def test_files_hold_them_too(project: Path, forecasts: pl.DataFrame, write_format: str) -> None:
    (path,) = seqjax.infer(
        {
            "project_root": str(project),
            "model_path": "last",
            "model_type": "generative",
            "data_path": "data/t.parquet",
            "stride": 1,
            "write_format": write_format,
        }
    )
    read = pl.read_parquet(path) if write_format == "parquet" else pl.read_csv(path, try_parse_dates=True)
    held_out = read.filter(pl.col("itemPosition") >= HELD_OUT)
    for name in [*REALS, *CATEGORIES]:
        values = held_out[name]
        # csv knows no text beside numbers.
        assert values.cast(forecasts[name].dtype).to_list() == forecasts[name].to_list()
    if write_format == "csv":
        assert "true" in path.read_text()


def test_metadata_applied_again_keep_types_and_formula(
    project: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    shutil.copytree(project / "configs", tmp_path / "configs")
    place = tmp_path / "configs" / "metadata_configs" / "t.json"
    first = json.loads(place.read_text())
    assert first["selected_columns_statistics"]["rain"] == {"std": 0.0, "mean": 0.25}
    again = {
        "project_root": str(tmp_path),
        "data_path": str(project / "data" / "t.parquet"),
        "read_format": "parquet",
        "seq_length": 4,
        "split_ratios": [1.0],
        "metadata_config_path": str(place),
    }
    found = seqjax.preprocess(again)
    assert {str(number) for number in found.value_types.values()} == {"Boolean", "Int64", "Date", "String"}
    assert found.selected_columns_statistics["rain"].unit == 1.0
    # The same without a word of seqjax is a file of sequifier.
    place.write_text(json.dumps({key: value for key, value in first.items() if key != "seqjax_version"}))
    theirs = seqjax.preprocess(again).selected_columns_statistics
    written = json.loads(place.read_text())
    assert written["seqjax_version"]
    assert {row["formula"] for row in written["selected_columns_statistics"].values()} == {"sequifier"}
    assert theirs["rain"].unit == pytest.approx(1e-9)


def test_a_constant_column_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "t.csv").write_text(
        "sequenceId,itemPosition,rain\n" + "".join(f"0,{row},{max(0, row - 7)}.5\n" for row in range(10))
    )
    seqjax.preprocess(
        {"project_root": str(tmp_path), "data_path": "t.csv", "seq_length": 2, "split_ratios": [0.7, 0.3]}
    )
    assert "Column 'rain' is constant (0.5) in the rows that its mean is taken from" in caplog.text


# Cases beside the repository
# ------------------------------------------------------------------------------------


@pytest.fixture
def case(
    request: pytest.FixtureRequest, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A copy of a case, in which its first two commands were run."""
    source = shared / "cases" / request.param
    if not source.is_dir():
        pytest.skip(f"the cases are not part of this repository (no {source})")
    root = tmp_path / "case"
    shutil.copytree(source, root)
    monkeypatch.chdir(root)
    assert cli.main(["preprocess"]) == 0
    assert cli.main(["train"]) == 0
    return root


def predictions(root: Path) -> pl.DataFrame:
    assert cli.main(["infer"]) == 0
    (path,) = (root / "outputs" / "predictions").glob("*.csv")
    return pl.read_csv(path)


def evaluation(root: Path) -> dict:
    assert cli.main(["evaluate"]) == 0
    (path,) = (root / "outputs" / "evaluations").glob("*.json")
    return json.loads(path.read_text())["models"][0]["targets"]


@pytest.mark.parametrize("case", ["01-small-units"], indirect=True)
def test_small_units(case: Path) -> None:
    found = predictions(case)
    last = (
        pl.read_csv(case / "data" / "t.csv").group_by("sequenceId").agg(pl.col("field").last().alias("last"))
    )
    both = found.join(last, on="sequenceId")
    assert len(both) == len(last)
    assert np.abs((both["field"] + both["last"]).to_numpy()).max() < 1e-11


@pytest.mark.parametrize("case", ["02-large-level"], indirect=True)
def test_large_level(case: Path) -> None:
    found = predictions(case)
    expected = LEVEL + 10 * ((20 + found["sequenceId"]) % 3)
    assert np.abs((found["when"] - expected).to_numpy()).max() < 0.1
    target = evaluation(case)["when"]
    assert target["metrics"]["model"]["rmse"]["value"] < 0.1
    assert {round(value, 3) for value in target["points"]["truth"]} == {LEVEL, LEVEL + 10, LEVEL + 20}


@pytest.mark.parametrize("case", ["11-constant-then-varying"], indirect=True)
def test_constant_then_varying(case: Path) -> None:
    rain = evaluation(case)["rain"]
    assert {round(value, 3) for value in rain["points"]["truth"]} == {0.0, 2.5, 7.0}
    assert rain["metrics"]["model"]["bias"]["value"] < 0
    (log,) = (case / "logs").glob("*.jsonl")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    logged = [line["metrics"]["rain"] for line in lines if line["event"] == "validation"]
    assert 2 < logged[-1]["mae"] < 4
    assert logged[-1]["mae"] == pytest.approx(rain["metrics"]["model"]["mae"]["value"], rel=1e-4)
