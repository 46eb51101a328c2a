"""Models and cards to export in tests: random parameters that are large enough for every part to show."""

from pathlib import Path

import jax
import numpy as np

from seqjax.artifacts import model_files
from seqjax.artifacts.card import ModelCard
from seqjax.config.metadata import Statistics
from seqjax.config.model import ModelSpec
from seqjax.config.schema import Schema
from seqjax.interop.onnx_session import open_session
from seqjax.model import functional


def random_model(
    schema: Schema, spec: ModelSpec, *, seed: int
) -> tuple[functional.GraphDef, functional.Params]:
    """A model whose parameters are far from their initial values."""
    graphdef, params = functional.init(schema, spec, seed=seed)
    rng = np.random.default_rng(seed)
    moved = jax.tree.map(lambda leaf: leaf + rng.normal(0, 0.3, leaf.shape).astype(np.float32), params)
    return graphdef, moved


def card_of(schema: Schema, spec: ModelSpec) -> ModelCard:
    """A generative card with made-up maps and statistics."""
    return ModelCard(
        schema=schema,
        model_spec=spec,
        id_maps={
            name: {f"{name} {id_}": id_ for id_ in range(2, classes)}
            for name, classes in schema.n_classes.items()
        },
        statistics={
            name: Statistics(mean=100.0, std=10.0) for name, kind in schema.columns.items() if kind == "real"
        },
        column_types={
            name: "Int64" if kind == "categorical" else "Float64" for name, kind in schema.columns.items()
        },
        train_config={"model_name": "demo", "training_spec": {"learning_rate": 1e-3}},
        best_epoch=3,
        last_epoch=5,
        validation_loss=0.25,
    ).of_kind("generative")


def read_card(path: Path) -> ModelCard | None:
    """What an ONNX file says about itself; null if seqjax did not write it."""
    return model_files.card_of(open_session(path), path)
