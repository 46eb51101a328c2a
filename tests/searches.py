"""A small search and the metadata of its data, for the tests of everything that reads one."""

from typing import Any

from seqjax.config.base import validate
from seqjax.config.hyperparameter_search import HyperparameterSearchConfig
from seqjax.config.metadata import Metadata
from tools import small_search

METADATA = Metadata.model_validate(
    {
        "n_classes": {"item": 5},
        "id_maps": {"item": {"a": 2, "b": 3, "c": 4}},
        "split_paths": ["data/d-split0.parquet", "data/d-split1.parquet"],
        "column_types": {"item": "Int64", "price": "Float64"},
        "selected_columns_statistics": {"price": {"std": 1.0, "mean": 0.0}},
        "seq_length": 5,
        "write_format": "parquet",
        "padding": "null",
    }
)
_MODEL = {"dim_model": [4], "initial_embedding_dim": [4], "dim_feedforward": [4]}
_TOP = {
    "metadata_config_path": "m.json",
    "engine": "sequential",
    "export_generative_model": True,
    "seq_length": [4],
}


def values(model=None, training=None, **top) -> dict[str, Any]:
    """A small search with changes at its top and in its two sections."""
    name = top.pop("hp_search_name", "demo")
    return small_search.search(
        name, _MODEL | (model or {}), {"batch_size": [4]} | (training or {}), **(_TOP | top)
    )


def search(model=None, training=None, **top) -> HyperparameterSearchConfig:
    """The same as a config."""
    return validate(HyperparameterSearchConfig, values(model, training, **top), "search.yaml")
