"""A model in Python: frames in, frames out, and the results that `seqjax infer` writes."""

import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from polars.testing import assert_frame_equal

import seqjax
from seqjax.config.infer import InferConfig
from seqjax.config.metadata import Statistics
from seqjax.errors import ArtifactError, ConfigError, DataError
from seqjax.inference.model import Model, PredictOptions
from tests.engines import FakeEngine, fake_card

CARD = fake_card(
    {"item": {"apple": 2, "fig": 3}},
    {"price": Statistics(mean=100.0, std=10.0)},
    {"price": "real", "item": "categorical"},
)
TABLE = pl.DataFrame(
    {
        "sequenceId": [5, 5, 5, 5, 5, 8, 8],
        "itemPosition": [10, 11, 12, 13, 14, 1, 2],
        "item": ["apple", "fig", "apple", "fig", "fig", "fig", "apple"],
        "price": [105.0, 95, 110, 102.5, 100, 120, 100],
    }
)


def repeat(inputs, valid_mask):
    """Predicts the newest item again, and half of the newest price."""
    ids = inputs["item"][:, -1:, None]
    return {
        "item": np.log(np.where(np.arange(4) == ids, 0.7, 0.1)),
        "price": inputs["price"][:, -1:, None] / 2,
    }


@pytest.fixture
def model() -> Model:
    return Model(FakeEngine(CARD, repeat), "fake.onnx")


def test_predictions_of_a_frame(model: Model) -> None:
    expected = pl.DataFrame(
        {"sequenceId": [5, 8], "itemPosition": [14, 2], "price": [101.25, 110.0], "item": ["fig", "fig"]}
    )
    assert_frame_equal(model.predict(TABLE), expected)
    latest = model.predict(TABLE, forecast_from="latest", target_columns=["item"], map_to_id=False)
    assert latest.rows() == [(5, 15, 3), (8, 3, 2)]
    assert model.card is CARD
    assert repr(model) == "<Model fake.onnx: 3 items of item, price -> price, item>"


def test_unknown_is_predicted_if_it_is_asked_for() -> None:
    def at_a_loss(inputs, valid_mask):
        logs = np.log(np.full((len(valid_mask), 1, 4), [0.7, 0.1, 0.1, 0.1]))
        return repeat(inputs, valid_mask) | {"item": logs}

    unsure = Model(FakeEngine(CARD, at_a_loss), "fake.onnx")
    assert set(unsure.predict(TABLE, stride=1)["item"]) == {"other"}
    drawn = unsure.predict(TABLE, stride=1, sample_from_distribution_columns=["item"])
    assert "unknown" not in set(drawn["item"])
    assert set(unsure.predict(TABLE, stride=1, predict_unknown=True)["item"]) == {"unknown"}
    foreign = Model(FakeEngine(CARD.model_copy(update={"versions": {}}), at_a_loss), "sequifiers.onnx")
    assert set(foreign.predict(TABLE, stride=1)["item"]) == {"unknown"}


@pytest.mark.parametrize("write_format", ["csv", "parquet"])
def test_a_path_gives_what_a_frame_gives(model: Model, tmp_path: Path, write_format: str) -> None:
    path = tmp_path / f"table.{write_format}"
    getattr(TABLE, f"write_{write_format}")(path)
    assert_frame_equal(model.predict(str(path), stride=1), model.predict(TABLE, stride=1))


def test_probabilities_have_the_rows_of_predictions(model: Model) -> None:
    (table,) = model.probabilities(TABLE, stride=1).values()
    assert table.columns == ["sequenceId", "itemPosition", "unknown", "other", "apple", "fig"]
    assert table["fig"].to_list() == pytest.approx([0.1, 0.7, 0.1, 0.7, 0.7])


def test_sequences_go_on(model: Model) -> None:
    rows = model.generate(TABLE, steps=3, forecast_from="latest")
    assert rows["sequenceId"].to_list() == [5] * 3 + [8] * 3
    assert rows["itemPosition"].to_list() == [15, 16, 17, 3, 4, 5]
    assert rows["price"].to_list() == [100.0] * 6
    (once,) = model.generate(TABLE.head(5), steps=1, stride=1).rows()
    assert once == (5, 14, 101.25, "fig")


def test_embeddings() -> None:
    def hidden(inputs, valid_mask):
        return {"embedding": np.stack([inputs["price"][:, -1:]] * 4, axis=-1)}

    model = Model(FakeEngine(CARD.of_kind("embedding"), hidden), "fake.onnx")
    table = model.embed(TABLE)
    assert table.columns == ["sequenceId", "subsequenceId", "itemPosition", "0", "1", "2", "3"]
    assert table["itemPosition"].to_list() == [13, 1]
    with pytest.raises(ConfigError, match="model_type: the configuration says generative"):
        model.predict(TABLE)


def test_mistakes_are_explained(model: Model) -> None:
    with pytest.raises(ConfigError, match=r"forecast_frm: unknown key\. Did you mean 'forecast_from'"):
        model.predict(TABLE, forecast_frm="latest")  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match=r"predicts no 'itm'\. Did you mean 'item'"):
        model.predict(TABLE, target_columns=["itm"])
    with pytest.raises(ConfigError, match="steps: must be a whole number of at least 1"):
        model.generate(TABLE, steps=0)
    with pytest.raises(ConfigError, match="target_columns: names no column"):
        model.predict(TABLE, target_columns=[])
    with pytest.raises(DataError, match="the table has no column 'price'"):
        model.predict(TABLE.drop("price"))
    with pytest.raises(ArtifactError, match="no such model file"):
        seqjax.load_model("models/none.onnx")


UNCHECKED = """
from seqjax.errors import ConfigError
from tests.inference.test_model import CARD, TABLE, FakeEngine, Model

model = Model(FakeEngine(CARD, lambda *_: {}), "fake.onnx")
for call in (lambda: model.predict(TABLE.lazy()), lambda: model.generate(TABLE, steps="3")):
    try:
        call()
    except ConfigError as error:
        print(error)
"""


def test_values_of_other_types_are_explained() -> None:
    """In a process of its own, where no type checker speaks first."""
    command = [sys.executable, "-c", UNCHECKED]
    root = Path(__file__).parents[2]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root).stdout
    assert "table: must be a table of polars, pandas or pyarrow" in printed
    assert "(found a LazyFrame: convert or collect it)" in printed
    assert "steps: must be a whole number of at least 1 (found '3')" in printed


def test_options_are_keys_of_infer() -> None:
    keys = get_type_hints(InferConfig)
    for name, kind in get_type_hints(PredictOptions).items():
        assert kind == keys[name], name


def test_frames_come_back_in_kind(model: Model) -> None:
    expected = model.predict(TABLE)
    arrow = model.predict(TABLE.to_arrow())
    assert isinstance(arrow, pa.Table)
    assert_frame_equal(pl.DataFrame(arrow), expected)
    assert isinstance(model.predict(TABLE.to_arrow().to_batches()[0]), pa.RecordBatch)
    assert_frame_equal(model.predict(Foreign(TABLE)), expected)
    assert isinstance(model.predict(Capsule(TABLE)), Capsule)
    categories = TABLE.with_columns(pl.col("item").cast(pl.Categorical))
    assert_frame_equal(model.predict(categories), expected)


def test_pandas_comes_back_as_pandas(model: Model) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    found = model.predict(TABLE.to_pandas())
    assert isinstance(found, pandas.DataFrame)
    assert_frame_equal(pl.from_pandas(found), model.predict(TABLE))


class Foreign:
    """A frame with the interchange protocol alone."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self.__dataframe__ = frame.to_arrow().__dataframe__


class Capsule:
    """A frame with Arrow's C interface alone, which can be made of Arrow data."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self.__arrow_c_stream__ = frame.__arrow_c_stream__

    @classmethod
    def from_arrow(cls, table: pa.Table) -> "Capsule":
        return cls(pl.DataFrame(table))


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("predict", {"write_format": "parquet"}),
        ("predict", {"output_probabilities": True}),
        ("predict", {"generation_cache": "rolling"}),
        ("predict", {"num_workers": 2}),
        ("predict", {"read_format": "csv"}),
        ("predict", {"infer_with_dropout": True}),
        ("predict", {"distributed": True}),
        ("predict", {"dropout_samples": 3}),
        ("probabilities", {"temperature": 2.0}),
        ("probabilities", {"map_to_id": False}),
        ("embed", {"target_columns": ["item"]}),
    ],
)
def test_an_option_that_cannot_act_is_refused(model: Model, method: str, options: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        getattr(model, method)(TABLE, **options)
