"""`infer` on known engines: what is written, and what is refused."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from seqjax.artifacts.card import ModelCard
from seqjax.commands.infer import infer
from seqjax.config.base import validate
from seqjax.config.infer import InferConfig
from seqjax.config.metadata import Statistics
from seqjax.config.schema import ColumnKind
from seqjax.data import sorting, torch_shards
from seqjax.data.formats import load_windows
from seqjax.errors import ArtifactError, ConfigError, DataError
from seqjax.inference import model as opening
from tests.engines import FakeEngine, fake_card

PRICE = Statistics(mean=100.0, std=10.0)
ITEMS = {"apple": 2, "fig": 3}
MIXED: dict[str, ColumnKind] = {"price": "real", "item": "categorical"}
METADATA = {
    "n_classes": {"item": 4},
    "id_maps": {"item": ITEMS},
    "split_paths": [f"data/x-split{split}.csv" for split in range(3)],
    "column_types": {"item": "Int64", "price": "Float64"},
    "selected_columns_statistics": {"price": {"std": 10.0, "mean": 100.0}},
    "seq_length": 3,
    "write_format": "csv",
    "padding": "null",
}
DATA = """sequenceId,subsequenceId,startItemPosition,inputCol,3,2,1,0
5,0,10,item,2,3,2,3
5,0,10,price,0.5,-0.5,1.0,0.0
5,1,11,item,3,2,3,3
5,1,11,price,-0.5,1.0,0.0,0.25
8,0,-1,item,,,3,2
8,0,-1,price,,,2.0,0.0
"""
MODEL = "sequifier-demo-best-3"


def repeat(inputs, valid_mask):
    """Predicts the newest item again, with probability 0.7, and half of the newest price."""
    ids = inputs["item"][:, -1:, None]
    return {
        "item": np.log(np.where(np.arange(4) == ids, 0.7, 0.1)),
        "price": inputs["price"][:, -1:, None] / 2,
    }


def hidden(inputs, valid_mask):
    return {
        "embedding": np.stack([inputs["price"][:, -1:], valid_mask[:, -1:], valid_mask[:, :1]] * 2, axis=-1)[
            ..., :4
        ]
    }


GENERATIVE = fake_card({"item": ITEMS}, {"price": PRICE}, MIXED)


class Project:
    """A project with data, metadata and one model, whose engine is made up."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        for folder in ("data", "models", "configs/metadata_configs"):
            (root / folder).mkdir(parents=True)
        self.write_metadata({})
        (root / "data" / "x-split2.csv").write_text(DATA)
        self._engines: dict[str, FakeEngine] = {}
        monkeypatch.setattr(opening, "open_engine", lambda path, describe, **kind: self._engines[path.stem])
        self.add_model(MODEL, GENERATIVE, repeat)

    def add_model(self, name: str, card: ModelCard, compute) -> None:
        (self.root / "models" / f"{name}.onnx").touch()
        self._engines[name] = FakeEngine(card, compute)

    def write_metadata(self, changes: dict) -> None:
        (self.root / "configs" / "metadata_configs" / "x.json").write_text(
            json.dumps({**METADATA, **changes})
        )

    def config(self, **changes) -> InferConfig:
        values = {
            "project_root": str(self.root),
            "model_path": f"models/{MODEL}.onnx",
            "model_type": "generative",
            "metadata_config_path": "configs/metadata_configs/x.json",
            "inference_batch_size": 2,
        }
        return validate(InferConfig, {**values, **changes}, "infer.yaml")

    def infer(self, **changes) -> list[str]:
        return [path.relative_to(self.root).as_posix() for path in infer(self.config(**changes))]

    def table(self, name: str) -> pl.DataFrame:
        path = self.root / "outputs" / name
        return pl.read_csv(path) if path.suffix == ".csv" else pl.read_parquet(path)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    return Project(tmp_path, monkeypatch)


def test_predictions_and_probabilities_of_the_last_split(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="seqjax"):
        written = project.infer(output_probabilities=True)
    assert written == [
        f"outputs/predictions/{MODEL}-predictions.csv",
        f"outputs/probabilities/{MODEL}-item-probabilities.csv",
    ]
    expected = pl.DataFrame(
        {
            "sequenceId": [5, 5, 8],
            "itemPosition": [13, 14, 2],
            "price": [105.0, 100.0, 110.0],
            "item": ["apple", "fig", "fig"],
        }
    )
    assert_frame_equal(project.table(f"predictions/{MODEL}-predictions.csv"), expected)
    rows = [[0.1, 0.1, 0.7, 0.1], [0.1, 0.1, 0.1, 0.7], [0.1, 0.1, 0.1, 0.7]]
    probabilities = pl.DataFrame(rows, schema=["unknown", "other", "apple", "fig"], orient="row")
    assert_frame_equal(project.table(f"probabilities/{MODEL}-item-probabilities.csv"), probabilities)
    for path in written:
        assert f"wrote {project.root / path} (3 rows)" in caplog.messages


def test_parquet_ids_and_a_choice_of_targets(project: Project) -> None:
    written = project.infer(
        write_format="parquet",
        map_to_id=False,
        target_columns=["item"],
        target_column_types={"item": "categorical"},
    )
    assert written == [f"outputs/predictions/{MODEL}-predictions.parquet"]
    found = project.table(f"predictions/{MODEL}-predictions.parquet")
    assert found.schema == {"sequenceId": pl.Int64, "itemPosition": pl.Int64, "item": pl.Int64}
    assert found["item"].to_list() == [2, 3, 3]


def test_targets_are_bound_by_name_in_the_order_asked_for(project: Project) -> None:
    project.infer(target_columns=["item", "price"], write_format="parquet")
    found = project.table(f"predictions/{MODEL}-predictions.parquet")
    assert found.schema == {
        "sequenceId": pl.Int64,
        "itemPosition": pl.Int64,
        "item": pl.String,
        "price": pl.Float64,
    }


def test_only_the_model_and_data_are_needed(project: Project) -> None:
    project.infer(metadata_config_path=None, data_path="data/x-split2.csv", model_path=MODEL)
    assert project.table(f"predictions/{MODEL}-predictions.csv")["item"].to_list() == ["apple", "fig", "fig"]
    with pytest.raises(ConfigError, match="data_path: is required where metadata_config_path is null"):
        project.infer(metadata_config_path=None)


def test_zero_padding_of_older_files(project: Project) -> None:
    project.write_metadata({"padding": "zero", "write_format": None})
    path = project.root / "data" / "x-split2.csv"
    path.write_text(DATA.replace("item,,,3", "item,0,0,3").replace("price,,,2.0", "price,0.0,0.0,2.0"))
    project.infer()
    assert project.table(f"predictions/{MODEL}-predictions.csv")["itemPosition"].to_list() == [13, 14, 2]


def test_autoregression_continues_the_last_window(project: Project) -> None:
    project.infer(autoregression=True, autoregression_extra_steps=2, target_columns=["price"])
    expected = pl.DataFrame(
        {
            "sequenceId": [5, 5, 5, 5, 8, 8, 8],
            "itemPosition": [13, 14, 15, 16, 2, 3, 4],
            "price": [105.0, 100.0, 100.0, 100.0, 110.0, 105.0, 102.5],
        }
    )
    assert_frame_equal(project.table(f"predictions/{MODEL}-predictions.csv"), expected)


def test_sampling_is_seeded_and_leaves_probabilities_alone(project: Project) -> None:
    def run(**changes) -> tuple[list[str], list[float]]:
        project.infer(
            sample_from_distribution_columns=["item"],
            output_probabilities=True,
            autoregression=True,
            autoregression_extra_steps=60,
            **changes,
        )
        rows = project.table(f"predictions/{MODEL}-predictions.csv")
        return rows["item"].to_list(), project.table(f"probabilities/{MODEL}-item-probabilities.csv")[
            "fig"
        ].to_list()

    items, probabilities = run(seed=1)
    assert (items, probabilities) == run(seed=1, inference_batch_size=1)
    assert items != run(seed=2)[0]
    assert set(items) == {"other", "apple", "fig"}
    assert set(np.round(probabilities, 6)) == {0.1, 0.7}


def test_samples_of_continuations_and_what_they_say(project: Project) -> None:
    settings = {
        "autoregression": True,
        "autoregression_extra_steps": 1,
        "autoregression_samples": 50,
        "sample_from_distribution_columns": ["item"],
        "top_k": 2,
    }
    written = project.infer(**settings)
    assert written == [
        f"outputs/predictions/{MODEL}-predictions.csv",
        f"outputs/quantiles/{MODEL}-quantiles.csv",
        f"outputs/frequencies/{MODEL}-item-frequencies.csv",
    ]
    rows = project.table(f"predictions/{MODEL}-predictions.csv")
    assert rows.columns == ["sequenceId", "itemPosition", "sample", "price", "item"]
    assert rows["sample"].to_list() == [None, *(2 * [n for n in range(50) for _ in range(2)])]
    shares = project.table(f"frequencies/{MODEL}-item-frequencies.csv")
    assert shares.columns == ["sequenceId", "itemPosition", "unknown", "other", "apple", "fig"]
    assert shares["itemPosition"].to_list() == [14, 15, 2, 3]
    # Of the classes of probability 0.1 the first that may be drawn is the second one; 0.125 to 0.875.
    assert shares["unknown"].sum() == shares["apple"].sum() == 0
    assert 0.6 < shares["fig"][0] <= 1
    quantiles = project.table(f"quantiles/{MODEL}-quantiles.csv")
    assert quantiles["price_mean"].to_list() == [100.0, 100.0, 110.0, 105.0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 0.5}, "temperature: needs sample_from_distribution_columns"),
        ({"top_k": 1}, "top_k: needs sample_from_distribution_columns"),
        ({"top_p": 1.5, "sample_from_distribution_columns": ["item"]}, "top_p: must be at most 1"),
        (
            {"temperature": 0, "sample_from_distribution_columns": ["item"]},
            "temperature: must be greater than 0",
        ),
        ({"autoregression_samples": 3, "autoregression": True}, "samples: needs sample_from_distribution"),
        ({"autoregression_samples": 3, "autoregression": False}, "samples: needs autoregression: true"),
        ({"generation_cache": "rolling", "autoregression": False}, "cache: rolling needs autoregression"),
    ],
)
def test_keys_that_would_do_nothing_are_refused(project: Project, changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        project.config(**changes)


def test_a_rolling_cache_needs_rotary_positions_and_jax(project: Project) -> None:
    settings = {"autoregression": True, "autoregression_extra_steps": 1, "generation_cache": "rolling"}
    with pytest.raises(ConfigError, match="2 problems") as caught:
        project.infer(**settings)
    assert "rolling needs rotary positions; those of this model are learned" in str(caught.value)
    assert "rolling runs in JAX alone: name the .pt file of the model" in str(caught.value)


def test_embeddings_of_two_models(project: Project) -> None:
    names = ["sequifier-demo-best-embedding-3", "sequifier-demo-last-embedding-3"]
    for name in names:
        project.add_model(name, GENERATIVE.of_kind("embedding"), hidden)
    written = project.infer(
        model_type="embedding", model_path=[f"models/{name}" for name in names], map_to_id=False
    )
    assert written == [f"outputs/embeddings/{name}-embeddings.csv" for name in names]
    expected = pl.DataFrame(
        {
            "sequenceId": [5, 5, 8],
            "subsequenceId": [0, 1, 0],
            "itemPosition": [12, 13, 1],
            "0": [1.0, 0.0, 2.0],
            "1": [1.0, 1.0, 1.0],
            "2": [1.0, 1.0, 0.0],
            "3": [1.0, 0.0, 2.0],
        }
    )
    for name in names:
        assert_frame_equal(project.table(f"embeddings/{name}-embeddings.csv"), expected)


def test_every_contradiction_is_reported_at_once(project: Project) -> None:
    project.write_metadata(
        {
            "n_classes": {"item": 9},
            "id_maps": {"item": {"apple": 3, "fig": 2, "pear": 4}},
            "selected_columns_statistics": {"price": {"std": 10.0, "mean": 90.0}},
        }
    )
    with pytest.raises(ConfigError) as caught:
        project.infer(
            model_type="embedding",
            input_columns=["item"],
            column_types={"item": "Float64", "price": "Float32", "elsewhere": "Int64"},
            seq_length=8,
            prediction_length=2,
        )
    text = str(caught.value)
    assert f"compared with the model {MODEL}.onnx, has 8 problems" in text
    for line in (
        "model_type: the configuration says embedding, the model says generative.",
        "input_columns: the configuration says ['item'], the model says ['item', 'price'].",
        "column_types.item: the configuration says Float64 (real), the model says it is categorical.",
        "seq_length: the configuration says 8, the model says 3.",
        "prediction_length: the configuration says 2, the model says 1.",
        "metadata_config_path: the metadata has 9 classes of 'item', the model 4.",
        "the metadata has other ids of 'item' (3 differ: 'apple' is 3 there and 2 in the model",
        "the metadata standardises 'price' by mean 90 and std 10, the model by mean 100 and std 10.",
    ):
        assert line in text


def test_targets_that_the_model_does_not_have(project: Project) -> None:
    with pytest.raises(ConfigError) as caught:
        project.infer(
            target_columns=["itm", "price", "price"],
            target_column_types={"item": "real"},
            sample_from_distribution_columns=["price", "shop"],
        )
    text = str(caught.value)
    for line in (
        "target_columns.0: the model predicts no 'itm'. Did you mean 'item'?",
        "target_columns.2: names 'price' a second time.",
        "target_column_types.item: the configuration says real, the model says categorical.",
        "sample_from_distribution_columns.1: the model predicts no 'shop'.",
    ):
        assert line in text


def test_autoregression_needs_inputs_that_are_the_targets(project: Project) -> None:
    project.add_model("half", fake_card({"item": ITEMS}, {"price": PRICE}, {"item": "categorical"}), repeat)
    with pytest.raises(
        ConfigError, match=r"autoregression: needs every input .* does not predict \['price'\]"
    ):
        project.infer(model_path="half", autoregression=True, autoregression_extra_steps=1)
    project.add_model(
        "three", fake_card({"item": ITEMS}, {"price": PRICE}, MIXED, prediction_length=3), repeat
    )
    with pytest.raises(
        ConfigError, match="autoregression: needs a model with prediction_length 1; this one has 3"
    ):
        project.infer(model_path="three", autoregression=True, autoregression_extra_steps=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.splitlines(keepends=True)[0], r"x-split2\.csv"),
        (lambda text: "\n".join(line for line in text.split("\n") if ",price," not in line), "price"),
        (lambda text: text.replace("item,2,3,2,3", "item,2,9,2,3"), "holds id 9, but"),
        (
            lambda _: RAW.replace("sequenceId", "sequenceID"),
            r"neither a raw table.*It lacks 'sequenceId' \(Did you mean 'sequenceID'\?\)",
        ),
        (lambda _: RAW.replace(",", "^"), "neither a raw table.*It lacks 'sequenceId'"),
        (lambda _: RAW.replace("102.5", "dear"), r"'price' is of type String \(row 1 holds 'dear'\), but"),
    ],
    ids=["empty", "no such column", "unknown id", "misspelt key", "separator", "no number"],
)
def test_data_that_does_not_fit(project: Project, change, message: str) -> None:
    path = project.root / "data" / "x-split2.csv"
    path.write_text(change(DATA))
    with pytest.raises(DataError, match=message):
        project.infer()
    assert not (project.root / "outputs").exists()


RAW = """itemPosition,sequenceId,item,note,price
13,5,fig,x,102.5
10,5,apple,x,105
11,5,fig,x,95
12,5,apple,x,110
14,5,fig,x,100
1,8,fig,x,120
2,8,apple,x,100
"""
"""The rows that DATA was made of."""


def test_a_raw_table_is_encoded_as_the_model_needs_it(project: Project) -> None:
    path = project.root / "data" / "table.csv"
    path.write_text(RAW)
    for changes, rows in (
        ({}, [[5, 14, "fig"], [8, 2, "fig"]]),
        ({"stride": 1}, [[5, 11, "apple"], [5, 12, "fig"], [5, 13, "apple"], [5, 14, "fig"], [8, 2, "fig"]]),
        ({"forecast_from": "latest"}, [[5, 15, "fig"], [8, 3, "apple"]]),
    ):
        project.infer(data_path="data/table.csv", metadata_config_path=None, **changes)
        found = project.table(f"predictions/{MODEL}-predictions.csv")
        assert found.select("sequenceId", "itemPosition", "item").rows() == [tuple(row) for row in rows]


def test_results_are_written_while_data_is_read(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a part of the data gave is on disk before the next part is computed."""
    monkeypatch.setattr(sorting, "ROWS_PER_CHUNK", 4)
    rows = [f"{position},{sequence},fig,x,100" for sequence in range(6) for position in range(4)]
    path = project.root / "data" / "table.csv"
    path.write_text("itemPosition,sequenceId,item,note,price\n" + "\n".join(rows) + "\n")
    written = []

    def watched(inputs, valid_mask):
        files = (project.root / "outputs").rglob("*.csv*")
        written.append(sum(len(file.read_text().splitlines()) for file in files))
        return repeat(inputs, valid_mask)

    project.add_model("watched", GENERATIVE, watched)
    project.infer(model_path="watched", data_path="data/table.csv")
    assert written == [0, 2, 3, 4, 5, 6]


def test_several_models_are_all_checked_before_the_first_runs(project: Project) -> None:
    short = fake_card({"item": ITEMS}, {"price": PRICE}, MIXED, prediction_length=2)
    project.add_model("other", short, repeat)
    with pytest.raises(ConfigError, match=r"compared with the model other\.onnx, has 1 problem"):
        project.infer(model_path=[MODEL, "other"], prediction_length=1)
    assert not (project.root / "outputs").exists()


@pytest.mark.parametrize(
    "others", [["kept/{model}.onnx"], ["models/{model}.pt"]], ids=["another folder", "another format"]
)
def test_models_that_would_write_the_same_files_are_refused(project: Project, others: list[str]) -> None:
    paths = [f"models/{MODEL}.onnx", *(path.format(model=MODEL) for path in others)]
    for path in paths[1:]:
        (project.root / path).parent.mkdir(exist_ok=True)
        shutil.copy(project.root / paths[0], project.root / path)
    with pytest.raises(ConfigError, match="would write the same files") as caught:
        project.infer(model_path=paths)
    assert all(path in str(caught.value) for path in paths)
    assert not (project.root / "outputs").exists()


def test_a_model_that_is_named_twice_runs_once(project: Project) -> None:
    written = project.infer(model_path=[MODEL, f"models/{MODEL}.onnx"])
    assert written == [f"outputs/predictions/{MODEL}-predictions.csv"]


def test_a_folder_of_raw_parquet(project: Project) -> None:
    folder = project.root / "data" / "tables"
    folder.mkdir()
    table = pl.read_csv(RAW.encode(), schema_overrides={"price": pl.Float64})
    table[:3].write_parquet(folder / "1.parquet")
    table[3:].write_parquet(folder / "2.parquet")
    project.infer(data_path="data/tables", autoregression=True, autoregression_extra_steps=1)
    found = project.table(f"predictions/{MODEL}-predictions.csv")
    assert found["itemPosition"].to_list() == [14, 15, 2, 3]


def test_the_newest_item_is_fed_where_asked_for(project: Project) -> None:
    project.infer(forecast_from="latest", autoregression=True, autoregression_extra_steps=2)
    expected = pl.DataFrame(
        {
            "sequenceId": [5, 5, 5, 5, 8, 8, 8],
            "itemPosition": [14, 15, 16, 17, 3, 4, 5],
            "price": [100.0, 101.25, 100.625, 100.3125, 100.0, 100.0, 100.0],
            "item": ["fig", "fig", "fig", "fig", "apple", "apple", "apple"],
        }
    )
    assert_frame_equal(project.table(f"predictions/{MODEL}-predictions.csv"), expected)
    name = "sequifier-demo-best-embedding-3"
    project.add_model(name, GENERATIVE.of_kind("embedding"), hidden)
    project.infer(model_path=name, model_type="embedding", forecast_from="latest")
    assert project.table(f"embeddings/{name}-embeddings.csv")["itemPosition"].to_list() == [13, 14, 2]


def test_windows_of_preprocessed_data_are_cut_already(project: Project) -> None:
    with pytest.raises(ConfigError, match=r"stride: is of raw tables, but .* is preprocessed"):
        project.infer(stride=1)


def test_windows_that_are_too_short(project: Project) -> None:
    project.add_model("long", fake_card({"item": ITEMS}, {"price": PRICE}, MIXED, seq_length=4), repeat)
    with pytest.raises(DataError, match="windows of seq_length 3, which is less than the 4"):
        project.infer(model_path="long")


def test_windows_that_are_longer_than_the_models(project: Project) -> None:
    project.add_model("short", fake_card({"item": ITEMS}, {"price": PRICE}, MIXED, seq_length=2), repeat)
    project.infer(model_path="short")
    found = project.table("predictions/short-predictions.csv")
    assert found["itemPosition"].to_list() == [13, 14, 2]
    assert found["item"].to_list() == ["apple", "fig", "fig"]


def test_missing_files(project: Project) -> None:
    with pytest.raises(ArtifactError, match=f"Did you mean 'models/{MODEL}.onnx'"):
        project.infer(model_path="models/sequifier-demo-best-4.onnx")
    with pytest.raises(DataError, match=r"nowhere\.csv does not exist"):
        project.infer(data_path="data/nowhere.csv")


def test_data_in_files_gives_results_in_files(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    """Draws go on from file to file, so that all of them together are those of one file."""
    whole = load_windows(
        project.root / "data" / "x-split2.csv", "csv", column_kinds={"item": "categorical", "price": "real"}
    )
    folder = project.root / "data" / "shards"
    torch_shards.write(folder, whole, stem="shards", sequences_per_file=1)
    changes = {"output_probabilities": True, "sample_from_distribution_columns": ["item"]}
    project.infer(**changes)
    stale = project.root / f"outputs/predictions/{MODEL}-predictions/{MODEL}-7-predictions.csv"
    stale.parent.mkdir()
    stale.touch()
    with caplog.at_level(logging.INFO, logger="seqjax"):
        written = project.infer(data_path="data/shards", **changes)
    kinds = {"predictions": f"{MODEL}-predictions", "probabilities": f"{MODEL}-item-probabilities"}
    assert written == [
        f"outputs/{kind}/{place}/{MODEL}-{number}-{kind}.csv"
        for number in (0, 1)
        for kind, place in kinds.items()
    ]
    assert not stale.exists()
    assert f"{MODEL}-predictions (2 files)" in caplog.text
    for kind, place in kinds.items():
        parts = [project.table(f"{kind}/{place}/{MODEL}-{number}-{kind}.csv") for number in (0, 1)]
        assert [len(part) for part in parts] == [2, 1]
        assert_frame_equal(pl.concat(parts), project.table(f"{kind}/{place}.csv"))


def test_embeddings_of_files(project: Project) -> None:
    project.add_model("sequifier-demo-best-embedding-3", GENERATIVE.of_kind("embedding"), hidden)
    whole = load_windows(
        project.root / "data" / "x-split2.csv", "csv", column_kinds={"item": "categorical", "price": "real"}
    )
    torch_shards.write(project.root / "data" / "shards", whole, stem="s", sequences_per_file=2)
    written = project.infer(
        data_path="data/shards",
        model_type="embedding",
        model_path="models/sequifier-demo-best-embedding-3.onnx",
        write_format="parquet",
    )
    name = "sequifier-demo-best-embedding-3"
    assert written == [f"outputs/embeddings/{name}-embeddings/{name}-0-embeddings.parquet"]
    assert project.table(written[0].removeprefix("outputs/"))["sequenceId"].to_list() == [5, 5, 8]


def test_an_empty_folder_of_files_is_refused(project: Project) -> None:
    folder = project.root / "data" / "shards"
    folder.mkdir()
    (folder / "metadata.json").write_text('{"total_samples": 0, "batch_files": []}')
    with pytest.raises(DataError, match="shards holds no windows"):
        project.infer(data_path="data/shards")
    assert not (project.root / "outputs").exists()
