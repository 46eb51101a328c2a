import ast
import re

import pytest

from seqjax.config.base import validate
from seqjax.config.model import ModelSpec
from seqjax.config.train import TrainConfig, TrainingSpec
from seqjax.errors import ConfigError
from tests.config.test_resolve import CONFIG


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_name": "my-embedding"}, "must not contain 'embedding'"),
        ({"model_name": "m" * 201}, "model_name: must have at most 200 bytes"),
        (
            {"column_types": {"item": "int64", "price": "banana"}},
            "column_types.price: no stored column has the type 'banana'. Known: Int8, UInt8, Int16,",
        ),
        ({"column_types": {"price": "Flaot64"}}, "has the type 'Flaot64'. Did you mean 'Float64'?"),
        ({"embedding_layers": []}, "embedding_layers: must be a list of 1 or more"),
        ({"embedding_layers": [-9]}, "embedding_layers must be from"),
        (
            {"target_column_types": {"item": "categorical"}},
            "target_column_types: must name the target_columns",
        ),
    ],
)
def test_what_cannot_be_done_is_refused(changes, message):
    with pytest.raises(ConfigError) as error:
        validate(TrainConfig, CONFIG | changes, "train.yaml")
    assert message in str(error.value)


def test_everything_that_does_not_fit_the_model_is_reported_at_once():
    spec = CONFIG["model_spec"] | {"feature_embedding_dims": {"other": 8}, "prediction_length": 99}
    changes = {"embedding_layers": [-9, 0, 9], "input_columns": ["item"], "model_spec": spec}
    with pytest.raises(ConfigError) as error:
        validate(TrainConfig, CONFIG | changes, "train.yaml")
    assert [problem.key for problem in error.value.problems] == [
        "model_spec.feature_embedding_dims",
        "model_spec.num_layers",
        "model_spec.prediction_length",
    ]
    assert "(found [-9, 9])" in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"criterion": {"item": "MSELoss", "price": "MSELoss"}},
            "'MSELoss' is no loss of a categorical target",
        ),
        ({"criterion": {"item": "CrossEntropyLos", "price": "MSELoss"}}, "Did you mean 'CrossEntropyLoss'?"),
        (
            {"criterion": {"item": "CrossEntropyLoss"}},
            "training_spec.criterion: must name the target_columns",
        ),
        ({"loss_weights": {"item": 1.0}}, "training_spec.loss_weights: must name the target_columns"),
        ({"class_weights": {"price": [1.0]}}, "training_spec.class_weights: must name categorical targets"),
        ({"class_share_log_columns": ["price"]}, "must name categorical targets ['item']"),
        (
            {"label_smoothing": {"price": 0.1}},
            "label_smoothing: must name targets with CrossEntropyLoss or NLLLoss ['item'] (found ['price'])",
        ),
        ({"huber_delta": {"price": 2.0}}, "huber_delta: must name targets with HuberLoss []"),
        ({"label_smoothing": 1.0}, "label_smoothing: must be less than 1"),
        ({"device": "tpu9"}, "training_spec.device: must be auto, cpu, cuda or mps"),
    ],
)
def test_training_keys_fit_the_targets(changes, message):
    training = CONFIG["training_spec"] | changes
    with pytest.raises(ConfigError) as error:
        validate(TrainConfig, CONFIG | {"training_spec": training}, "train.yaml")
    assert message in str(error.value)


# What the documents say in words.
WORDS = {"All": None, "data/*split0*": None, "data/*split1*": None, "StepLR...": "StepLR", "null": None}
# An omitted read_format is the metadata's, which is parquet where it says none.
ASIDE = {"read_format": None}


def documented_keys(shared):
    """Key, whether it is mandatory, and default, as the tables of sequifier's documents have it."""
    text = (shared / "seeds" / "sequifier-docs-1.1.0.3.md").read_text()
    tables = text.split("The `sequifier train` command initializes")[1].split("## Key Trade-offs")[0]
    row = r"^\| `(\w+)` ?\| `[^|]*` ?\| (\*\*Yes\*\*|No) \| ([^|]*)\|"
    for key, mandatory, default in re.findall(row, tables, flags=re.MULTILINE):
        yield key, mandatory != "No", default.strip().strip("`")


def test_every_documented_key_is_there_with_its_default(shared):
    models = (TrainConfig, TrainingSpec, ModelSpec)
    fields = {name: field for model in models for name, field in model.model_fields.items()}
    documented = list(documented_keys(shared))
    assert len(documented) == 55
    for key, mandatory, default in documented:
        assert fields[key].is_required() == mandatory, key
        if not mandatory:
            ours = fields[key].default
            assert getattr(ours, "name", ours) == ASIDE.get(key, read(default)), key


def read(default):
    """What a default of the documents is in Python."""
    if default in WORDS:
        return WORDS[default]
    if default.lower() in ("true", "false"):
        return default.lower() == "true"
    try:
        value = ast.literal_eval(default)
    except (SyntaxError, ValueError):
        return default
    return value["name"] if isinstance(value, dict) else tuple(value) if isinstance(value, list) else value


def test_documented_defaults_are_real():
    spec = validate(TrainConfig, CONFIG, "train.yaml").training_spec
    assert (spec.optimizer.name, spec.scheduler.name) == ("Adam", "StepLR")
    assert spec.scheduler.arguments == {"step_size": 1, "gamma": 1.0}
    assert (spec.gradient_clip, spec.log_interval, spec.continue_training) == (0.5, 10, True)
