"""A small search and the metadata of its data, for the tests of everything that reads one."""

import copy
from typing import Any

from seqjax.config.base import validate
from seqjax.config.hyperparameter_search import HyperparameterSearchConfig
from seqjax.config.metadata import Metadata

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
SEARCH: dict[str, Any] = {
    "project_root": ".",
    "metadata_config_path": "m.json",
    "hp_search_name": "demo",
    "model_config_write_path": "configs/hp_search/",
    "search_strategy": "grid",
    "engine": "sequential",
    "override_input": True,
    "export_generative_model": True,
    "export_embedding_model": False,
    "inference_batch_size": 4,
    "input_columns": [["item"]],
    "target_columns": ["item"],
    "target_column_types": {"item": "categorical"},
    "seq_length": [4],
    "model_hyperparameter_sampling": {
        "dim_model": [4],
        "n_head": [1],
        "initial_embedding_dim": [4],
        "joint_embedding_dim": [None],
        "num_layers": [1],
        "dim_feedforward": [4],
        "activation_fn": ["relu"],
        "normalization": ["rmsnorm"],
        "norm_first": [True],
        "positional_encoding": ["learned"],
        "rope_theta": [10000.0],
        "attention_type": ["mha"],
        "n_kv_heads": [None],
    },
    "training_hyperparameter_sampling": {
        "device": "cpu",
        "learning_rate": [0.01],
        "epochs": [2],
        "batch_size": [4],
        "accumulation_steps": [1],
        "criterion": {"item": "CrossEntropyLoss"},
        "save_interval_epochs": 1,
    },
}


def values(model=None, training=None, **top) -> dict[str, Any]:
    """The small search with changes at its top and in its two sections."""
    changed = copy.deepcopy(SEARCH) | top
    changed["model_hyperparameter_sampling"] |= model or {}
    changed["training_hyperparameter_sampling"] |= training or {}
    return changed


def search(model=None, training=None, **top) -> HyperparameterSearchConfig:
    """The same as a config."""
    return validate(HyperparameterSearchConfig, values(model, training, **top), "search.yaml")
