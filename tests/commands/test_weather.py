"""Hourly weather, as it comes, goes from csv to forecasts that name stations and hours."""

import datetime as dt
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import seqjax
from seqjax.cli import main

pytestmark = pytest.mark.usefixtures("compile_once")

HOURS = 260
STATIONS = {"EWR": -5, "JFK": -5, "LGA": -5}
KEYS = ["origin", "time_hour"]
TRAINING = """
project_root: .
metadata_config_path: configs/metadata_configs/weather.json
model_name: weather
seq_length: 12
target_columns: [temp, sky]
target_column_types: {temp: real, sky: categorical}
inference_batch_size: 64
export_generative_model: true
export_embedding_model: true
model_spec:
  initial_embedding_dim: 8
  feature_embedding_dims: {temp: 4, sky: 4}
  dim_model: 8
  n_head: 2
  dim_feedforward: 8
  num_layers: 1
  prediction_length: 1
  positional_encoding: rope
training_spec:
  device: cpu
  epochs: 2
  save_interval_epochs: 2
  batch_size: 32
  learning_rate: 0.01
  criterion: {temp: MSELoss, sky: CrossEntropyLoss}
  optimizer: {name: AdamW}
  scheduler: {name: StepLR, step_size: 2}
"""


def hour(number: int) -> dt.datetime:
    return dt.datetime(2013, 1, 1, 6, tzinfo=dt.UTC) + dt.timedelta(hours=number)


def weather() -> pl.DataFrame:
    """Three stations, hour by hour in UTC; a few hours are not there, and a few values."""
    rng = np.random.default_rng(0)
    rows = []
    for station in STATIONS:
        gone = set(rng.choice(HOURS - 2, 12, replace=False).tolist())
        for number in range(HOURS):
            temp = 10 + 8 * np.sin(number / 24 * 2 * np.pi) + rng.normal()
            if number not in gone:
                cell = None if rng.random() < 0.05 else round(float(temp), 2)
                rows.append((hour(number).strftime("%Y-%m-%dT%H:%M:%SZ"), station, cell, sky(temp)))
    columns = ["time_hour", "origin", "temp", "sky"]
    # By the hour, as such tables come: stations alternate.
    return pl.DataFrame(rows, schema=columns, orient="row").sort("time_hour")


def sky(temp: float) -> str:
    return "clear" if temp > 12 else "clouds" if temp > 6 else "rain"


def seqjax_says(*words: str) -> None:
    assert main(list(words)) == 0


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("weather")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        seqjax_says("make", "p")
        patch.chdir("p")
        weather().write_csv("data/weather.csv")
        options = ["--data-path", "data/weather.csv", "--id", "origin", "--time", "time_hour"]
        options += ["--missing-real", "mean", "--seq-length", "12", "--stride-by-split", "4", "1", "1"]
        seqjax_says("preprocess", *options)
        Path("configs/train.yaml").write_text(TRAINING)
        seqjax_says("train")
    return root / "p"


@pytest.fixture
def here(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(project)
    yield project
    for file in Path("outputs").rglob("*.csv"):
        file.unlink()


def infer(*words: str) -> None:
    seqjax_says("infer", "--model-path", "best", "--data-path", "data/weather.csv", *words)


def result(kind: str, name: str = "*") -> pl.DataFrame:
    (file,) = Path("outputs", kind).glob(f"{name}.csv")
    return pl.read_csv(file)


@pytest.mark.usefixtures("here")
def test_the_hour_after_the_last_of_each_station() -> None:
    infer("--forecast-from", "latest", "--missing-real", "mean")
    found = result("predictions")
    assert found.columns == [*KEYS, "temp", "sky"]
    assert found.select(KEYS).rows() == [(station, "2013-01-12T02:00:00Z") for station in STATIONS]


@pytest.mark.usefixtures("here")
def test_a_day_ahead_for_each_station() -> None:
    infer("--forecast-from", "latest", "--autoregression", "true", "--autoregression-extra-steps", "23")
    found = result("predictions")
    hours = [hour(HOURS + step).strftime("%Y-%m-%dT%H:%M:%SZ") for step in range(24)]
    assert found.select(KEYS).rows() == [(station, time) for station in STATIONS for time in hours]
    assert found["temp"].is_between(-30, 50).all()
    assert set(found["sky"]) <= {"clear", "clouds", "rain"}


@pytest.mark.usefixtures("here")
def test_every_held_out_hour_is_a_row_of_the_table() -> None:
    infer("--stride", "1", "--output-probabilities", "true")
    table, found, shares = weather(), result("predictions"), result("probabilities")
    assert shares.select(KEYS).equals(found.select(KEYS))
    assert shares.columns == [*KEYS, "unknown", "other", "clear", "clouds", "rain"]
    most_likely = [shares.columns[2:][row.index(max(row))] for row in shares.drop(KEYS).rows()]
    assert found["sky"].to_list() == most_likely
    later = table.join(table.group_by("origin").agg(pl.col("time_hour").min()), on=KEYS, how="anti")
    assert found.join(later, on=KEYS).height == len(found) == len(later)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("split", [0, 1, 2])
def test_splits_know_stations_and_hours(split: int) -> None:
    seqjax_says("infer", "--model-path", "best", "--data-path", f"data/weather-split{split}.parquet")
    found = result("predictions")
    assert found.join(weather(), on=KEYS).height == len(found) > 0
    assert set(found["origin"]) == set(STATIONS)


@pytest.mark.usefixtures("here")
def test_embeddings_samples_and_summaries_name_them_too() -> None:
    sampled = [
        "--autoregression",
        "true",
        "--autoregression-extra-steps",
        "1",
        "--autoregression-samples",
        "3",
    ]
    infer("--forecast-from", "latest", *sampled, "--sample-from-distribution-columns", "sky")
    hours = ["2013-01-12T02:00:00Z", "2013-01-12T03:00:00Z"]
    expected = [(station, time) for station in STATIONS for time in hours]
    assert result("quantiles").select(KEYS).rows() == expected
    assert result("frequencies").select(KEYS).rows() == expected
    infer("--model-type", "embedding")
    found = result("embeddings")
    assert found.columns[:3] == ["origin", "subsequenceId", "time_hour"]
    # Embeddings are of the item that was seen last, the one before the newest.
    assert set(found["time_hour"]) == {"2013-01-12T00:00:00Z"}


def test_the_same_from_python(project: Path) -> None:
    model = seqjax.load_model("best", project_root=project)
    assert (model.card.keys.id_column, model.card.keys.time_column) == tuple(KEYS)
    hours = pl.col("time_hour").str.to_datetime("%Y-%m-%dT%H:%M:%S%#z", time_zone="UTC")
    for time in (pl.col("time_hour"), hours, hours.dt.convert_time_zone("America/New_York")):
        frame = weather().with_columns(time).sample(fraction=1, shuffle=True, seed=3)
        found = model.generate(frame, steps=2, forecast_from="latest")
        assert found.select(KEYS).schema == frame.select(KEYS).schema
        last = frame["time_hour"].max()
        if isinstance(last, dt.datetime):
            expected = [last + dt.timedelta(hours=1), last + dt.timedelta(hours=2)] * 3
            assert found["time_hour"].to_list() == expected
        assert found["origin"].to_list() == [station for station in STATIONS for _ in range(2)]
        shares = model.probabilities(frame)["sky"]
        assert shares.columns[:2] == KEYS
        assert shares["time_hour"].to_list() == [last] * 3
    path = model.predict(project / "data" / "weather.csv")
    assert path["time_hour"].to_list() == ["2013-01-12T01:00:00Z"] * 3


@pytest.mark.usefixtures("here")
def test_the_report_shows_stations_and_hours() -> None:
    seqjax_says("evaluate", "--model-path", "best", "--data-path", "data/weather-split2.parquet")
    (file,) = Path("outputs/evaluations").glob("*.json")
    examples = json.loads(file.read_text())["models"][0]["examples"]
    known = set(weather().select(KEYS).rows())
    assert {(example["sequence_id"], example["item_position"]) for example in examples} <= known
    page = file.with_suffix(".html").read_text()
    assert f"Sequence {examples[0]['sequence_id']}, item {examples[0]['item_position']}" in page


@pytest.mark.usefixtures("here")
def test_results_that_take_the_place_of_others_are_said(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("seqjax").propagate = True
    infer()
    assert "in place of" not in caplog.text
    infer("--forecast-from", "latest", "--output-name", "tomorrow")
    assert "in place of" not in caplog.text
    assert {file.name for file in Path("outputs/predictions").iterdir()} == {
        "sequifier-weather-best-2-predictions.csv",
        "tomorrow-predictions.csv",
    }
    infer("--forecast-from", "latest")
    assert "in place of those of" in caplog.text
    assert "output_name" in caplog.text
