"""Small runs on two columns, for the tests of everything that trains several at once."""

import copy
from dataclasses import replace
from typing import Any, get_args

import jax
import numpy as np

from seqjax.config.base import validate
from seqjax.config.model import LayerType
from seqjax.config.optimization import CRITERIA
from seqjax.config.schema import Schema
from seqjax.config.train import TrainConfig
from seqjax.model import functional
from seqjax.model.functional import layer_types
from seqjax.training.feed import ResidentFeed
from seqjax.training.loop import Member
from seqjax.training.precision import Precision
from seqjax.training.setup import Run, prepare
from seqjax.training.shapes import values_of
from seqjax.training.step import forward
from seqjax.windows.windows import Windows, listed
from tests.training.conftest import FAST_TO_COMPILE

LENGTH, BATCH, COUNT = 6, 4, 21
SCHEMA = Schema(
    n_classes={"item": 5},
    categorical_inputs=("item",),
    real_inputs=("value",),
    targets={"item": "categorical", "value": "real"},
    seq_length=LENGTH,
)
DOUBLE = dict.fromkeys(get_args(LayerType), np.float64)
CONFIG: dict[str, Any] = {
    "project_root": ".",
    "metadata_config_path": "none.json",
    "model_name": "member",
    "input_columns": ["item", "value"],
    "target_columns": ["item", "value"],
    "target_column_types": {"item": "categorical", "value": "real"},
    "seq_length": LENGTH,
    "inference_batch_size": 1,
    "export_generative_model": False,
    "export_embedding_model": False,
    "seed": 3,
    "model_spec": {
        "initial_embedding_dim": 8,
        "feature_embedding_dims": {"item": 6, "value": 2},
        "dim_model": 8,
        "n_head": 2,
        "dim_feedforward": 8,
        "num_layers": 1,
    },
    "training_spec": {
        "device": "cpu",
        "epochs": 17,
        "save_interval_epochs": 1,
        "batch_size": BATCH,
        "learning_rate": 0.003,
        "criterion": {"item": "CrossEntropyLoss", "value": "MSELoss"},
        "optimizer": {"name": "AdamW", "weight_decay": 0.02},
        "log_interval": 3,
    },
}


def config(training: dict[str, Any] | None = None, **top: object) -> TrainConfig:
    """A run with changes at its top and in its training."""
    values: dict[str, Any] = copy.deepcopy(CONFIG) | top
    values["training_spec"] |= training or {}
    return validate(TrainConfig, values, "a member")


def splits() -> tuple[Windows, Windows]:
    """Random windows."""
    rng = np.random.default_rng(0)
    columns = {
        "item": rng.integers(1, 5, 60).astype(np.int8),
        "value": rng.normal(size=60).astype(np.float32),
    }
    start, length = rng.integers(0, 60 - LENGTH - 1, COUNT), rng.integers(1, LENGTH + 2, COUNT)
    windows = listed(columns, start=start, length=length, seq_length=LENGTH)
    return windows, windows


def schema_of(settings: TrainConfig) -> Schema:
    """The columns, with the heads that the criteria ask for."""
    criteria = settings.training_spec.criterion
    return SCHEMA.model_copy(update={"heads": {name: CRITERIA[criteria[name]] for name in SCHEMA.targets}})


def solo(settings: TrainConfig, *, like: Run | None = None):
    """A run, its first parameters; in double precision throughout where jax has that."""
    schema = schema_of(settings)
    graphdef, params = functional.init(schema, settings.model_spec, seed=settings.seed)
    run = prepare(settings, schema, graphdef, splits(), jax.devices("cpu")[0], like=like)
    if not jax.config.read("jax_enable_x64"):
        return run, params
    double = Precision(DOUBLE, DOUBLE, layer_types(graphdef))
    recipe = replace(run.recipe, apply=forward(graphdef, schema.inputs, double))
    return replace(run, recipe=recipe, precision=double), params


def quick(settings: TrainConfig) -> Run:
    """A run whose data on the device goes through programs that are quickly compiled."""
    feed = ResidentFeed(splits()[0], tuple(SCHEMA.columns), compiler_options=FAST_TO_COMPILE)
    return replace(solo(settings)[0], training=feed, validation=feed)


def members(configs: list[TrainConfig]) -> tuple[Run, list[Member]]:
    """The first run of a population, and all of them."""
    first = solo(configs[0], like=quick(configs[0]))[0]
    result = []
    for settings, values in zip(configs, values_of(configs, schema_of(configs[0])), strict=True):
        run, params = solo(settings, like=first)
        spec = settings.training_spec
        patience = spec.early_stopping_epochs
        result.append(Member(run, run.begin(params), spec.epochs, patience=patience, values=values))
    return first, result
