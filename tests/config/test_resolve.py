import copy
import json

import pytest

from seqjax.config.base import validate
from seqjax.config.metadata import Metadata
from seqjax.config.resolve import load_metadata, resolve_schema
from seqjax.config.train import TrainConfig
from seqjax.errors import ConfigError, DataError

METADATA = {
    "n_classes": {"item": 6, "shop": 5},
    "id_maps": {"item": {"a": 2}, "shop": {"x": 2}},
    "split_paths": ["data/d-split0.parquet"],
    "column_types": {"price": "Float64", "item": "Int64", "shop": "Int64", "volume": "Float64"},
    "selected_columns_statistics": {"price": {"std": 1.0, "mean": 0.0}, "volume": {"std": 1.0, "mean": 0.0}},
    "seq_length": 8,
}
CONFIG = {
    "project_root": ".",
    "metadata_config_path": "m.json",
    "model_name": "m",
    "input_columns": ["volume", "shop", "item", "price"],
    "target_columns": ["price", "item"],
    "target_column_types": {"item": "categorical", "price": "real"},
    "seq_length": 8,
    "inference_batch_size": 4,
    "export_generative_model": True,
    "export_embedding_model": False,
    "model_spec": {
        "initial_embedding_dim": 8,
        "feature_embedding_dims": {"item": 3, "shop": 2, "price": 2, "volume": 1},
        "dim_model": 8,
        "n_head": 2,
        "dim_feedforward": 8,
        "num_layers": 1,
    },
    "training_spec": {
        "device": "cpu",
        "epochs": 1,
        "save_interval_epochs": 1,
        "batch_size": 2,
        "learning_rate": 0.1,
        "criterion": {"item": "CrossEntropyLoss", "price": "MSELoss"},
    },
}


def resolve(**changes):
    values = copy.deepcopy(CONFIG)
    for key, value in changes.items():
        section = key.split("__")
        place = values
        for part in section[:-1]:
            place = place[part]
        place[section[-1]] = value
    return resolve_schema(
        validate(TrainConfig, values, "train.yaml"), validate(Metadata, METADATA, "metadata")
    )


def refusal(**changes):
    with pytest.raises(ConfigError) as error:
        resolve(**changes)
    return {problem.key: problem.message for problem in error.value.problems}


def test_inputs_are_in_the_order_of_the_metadata_and_targets_in_their_own():
    schema = resolve()
    assert schema.inputs == ("item", "shop", "price", "volume")
    assert list(schema.targets) == ["price", "item"]
    assert schema.n_classes == {"item": 6, "shop": 5}


def test_all_columns_are_inputs_by_default():
    assert resolve(input_columns=None).inputs == ("item", "shop", "price", "volume")


def test_a_target_need_not_be_an_input():
    schema = resolve(input_columns=["shop"], model_spec__feature_embedding_dims=None)
    assert schema.inputs == ("shop",)
    assert schema.n_classes == {"shop": 5, "item": 6}
    assert list(schema.columns) == ["shop", "price", "item"]


def test_the_configuration_may_say_what_the_metadata_says():
    types = {"item": "Int64", "price": "Float32"}
    schema = resolve(
        column_types=types,
        n_classes={"item": 9},
        input_columns=None,
        model_spec__feature_embedding_dims={"item": 6, "price": 2},
    )
    assert schema.inputs == ("item", "price")
    assert schema.n_classes == {"item": 9}


def test_types_name_every_column_that_is_used():
    found = refusal(
        column_types={"item": "Int64"},
        input_columns=["item", "shop", "itm"],
        model_spec__feature_embedding_dims=None,
    )
    missing = ": give its type there too, or leave column_types out."
    assert found == {
        "input_columns.1": f"column_types does not name 'shop'{missing}",
        "input_columns.2": "the data has no column 'itm'. Did you mean 'item'?",
        "target_columns.0": f"column_types does not name 'price'{missing}",
    }


def test_every_problem_is_reported_at_once():
    found = refusal(
        input_columns=["itm", "shop", "item", "shop"],
        model_spec__feature_embedding_dims=None,
        model_spec__initial_embedding_dim=1,
        model_spec__dim_model=1,
        model_spec__n_head=1,
        target_column_types={"item": "categorical", "price": "real"},
        training_spec__class_weights={"item": [1.0, 2.0]},
        seq_length=9,
    )
    assert found["input_columns.0"] == "the data has no column 'itm'. Did you mean 'item'?"
    assert found["input_columns.3"] == "names 'shop' a second time."
    assert "at least the number of input columns, 2" in found["model_spec.initial_embedding_dim"]
    assert "each of the 6 classes" in found["training_spec.class_weights.item"]
    assert found["seq_length"] == "must be at most that of the preprocessed data, 8 (found 9)."


def test_a_target_has_the_kind_of_its_data():
    found = refusal(
        target_columns=["shop"],
        target_column_types={"shop": "real"},
        training_spec__criterion={"shop": "MSELoss"},
    )
    assert found == {"target_column_types.shop": "must be categorical, as the data is (found real)."}


def test_widths_that_are_left_out_are_shared_out():
    schema = resolve(model_spec__feature_embedding_dims=None)
    dims = schema.embedding_dims(8, None)
    assert sum(dims.values()) == 8
    assert min(dims.values()) >= 1
    wide = schema.model_copy(update={"n_classes": {"item": 10_000, "shop": 3}}).embedding_dims(64, None)
    assert sum(wide.values()) == 64
    assert wide["item"] > 3 * wide["shop"]
    assert wide["shop"] >= wide["price"]
    assert abs(wide["price"] - wide["volume"]) <= 1


def test_weights_of_all_classes_are_explained():
    found = refusal(training_spec__class_weights={"item": [1.0] * 9})
    assert "fit_on" not in found["training_spec.class_weights.item"]
    values = validate(TrainConfig, copy.deepcopy(CONFIG) | {"seq_length": 8}, "train.yaml")
    spec = values.training_spec.model_copy(update={"class_weights": {"item": [1.0] * 9}})
    metadata = validate(Metadata, METADATA | {"fit_on": "train"}, "metadata")
    with pytest.raises(ConfigError, match="fit_on: all"):
        resolve_schema(values.model_copy(update={"training_spec": spec}), metadata)


def test_widths_name_the_columns_of_the_data():
    found = refusal(input_columns=None, model_spec__feature_embedding_dims={"item": 4, "price": 4})
    assert "must name the columns of the data" in found["model_spec.feature_embedding_dims"]


def test_real_columns_share_what_is_enough_for_all():
    small = {"initial_embedding_dim": 1, "dim_model": 1, "n_head": 1, "dim_feedforward": 2, "num_layers": 1}
    found = refusal(input_columns=["price", "volume"], model_spec=small)
    assert "at least the number of input columns, 2" in found["model_spec.initial_embedding_dim"]


def test_no_inputs_are_no_model():
    assert (
        "must name a column"
        in refusal(input_columns=[], model_spec__feature_embedding_dims=None)["input_columns"]
    )


def test_metadata_is_read(tmp_path):
    path = tmp_path / "m.json"
    path.write_text(json.dumps(METADATA))
    assert load_metadata(path).kind("item") == "categorical"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "does not exist. Run 'seqjax preprocess' first"),
        ("{", "is no JSON file"),
        ("[]", "must be a JSON object"),
        ('{"n_classes": {}}', "id_maps: is required."),
        (json.dumps(METADATA | {"n_clases": {}}), "Did you mean 'n_classes'?"),
    ],
)
def test_metadata_that_cannot_be_used_is_explained(tmp_path, text, message):
    path = tmp_path / "m.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError) as error:
        load_metadata(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)
