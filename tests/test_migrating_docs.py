"""What docs/migrating.md says of defaults and keys is so."""

import re
from pathlib import Path

from seqjax.config.base import ConfigModel
from seqjax.config.evaluate import EvaluateConfig
from seqjax.config.infer import InferConfig
from seqjax.config.model import ModelSpec
from seqjax.config.preprocess import PreprocessConfig
from seqjax.config.train import TrainConfig, TrainingSpec

TEXT = (Path(__file__).parents[1] / "docs" / "migrating.md").read_text()
MODELS: tuple[type[ConfigModel], ...] = (
    PreprocessConfig,
    TrainConfig,
    ModelSpec,
    TrainingSpec,
    InferConfig,
    EvaluateConfig,
)
DEFAULTS = {
    (PreprocessConfig, "fit_on"): "train",
    (PreprocessConfig, "missing_real"): "error",
    (ModelSpec, "mask_padding"): True,
    (TrainingSpec, "gradient_clip"): 0.5,
    (TrainingSpec, "layer_autocast"): True,
    (InferConfig, "forecast_from"): "held_out",
}


def test_every_key_that_is_named_exists() -> None:
    keys = {name for model in MODELS for name in model.model_fields}
    named = {word.partition(":")[0] for word in re.findall(r"`([a-z_]+(?:: [\w.]+)?)`", TEXT)}
    assert {name for name in named if "_" in name} - keys == {"valid_mask"}


def test_defaults_are_as_they_are_said_to_be() -> None:
    for (model, name), default in DEFAULTS.items():
        assert model.model_fields[name].default == default, name


def test_keys_without_effect_say_so_themselves() -> None:
    section = TEXT.split("## Keys without effect")[1].split("## ")[0]
    for name in re.findall(r"`([a-z_]+)`", section):
        models = [model for model in (TrainConfig, TrainingSpec, InferConfig) if name in model.model_fields]
        assert any("no effect" in (model.model_fields[name].description or "") for model in models), name
