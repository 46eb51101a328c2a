"""Small searches and the projects they run in, for the tools that measure and check searches.

A search has one combination, to which whoever uses it adds lists.
"""

import copy
import os
import sys
from pathlib import Path
from typing import Any

import polars as pl
import yaml

_SEARCH: dict[str, Any] = {
    "project_root": ".",
    "metadata_config_path": "configs/metadata_configs/t.json",
    "model_config_write_path": "configs/hp_search",
    "search_strategy": "grid",
    "override_input": True,
    "export_generative_model": False,
    "export_embedding_model": False,
    "inference_batch_size": 4,
    "input_columns": [["item"]],
    "target_columns": ["item"],
    "target_column_types": {"item": "categorical"},
    "seq_length": [8],
    "model_hyperparameter_sampling": {
        "dim_model": [8],
        "n_head": [1],
        "initial_embedding_dim": [8],
        "joint_embedding_dim": [None],
        "num_layers": [1],
        "dim_feedforward": [8],
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
        "batch_size": [8],
        "accumulation_steps": [1],
        "criterion": {"item": "CrossEntropyLoss"},
        "save_interval_epochs": 1,
    },
}


def search(
    name: str,
    model: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
    **top: Any,  # noqa: ANN401 (keys of a search)
) -> dict[str, Any]:
    """The keys of a search.

    Args:
      name: Of the search.
      model: Changes in the section of models.
      training: Changes in the section of training.
      top: Changes beside the sections.
    """
    values: dict[str, Any] = copy.deepcopy(_SEARCH) | {"hp_search_name": name} | top
    values["model_hyperparameter_sampling"] |= model or {}
    values["training_hyperparameter_sampling"] |= training or {}
    return values


def project(root: Path, table: pl.DataFrame, **changes: Any) -> None:  # noqa: ANN401 (keys of preprocess)
    """Writes a table as data/t.csv and preprocesses it.

    Args:
      root: The folder of the project.
      table: In the format that preprocess reads.
      changes: Keys of preprocess.
    """
    import seqjax

    (root / "data").mkdir(parents=True, exist_ok=True)
    table.write_csv(root / "data/t.csv")
    seqjax.preprocess({"project_root": str(root), "data_path": "data/t.csv", **changes})


def command(root: Path, config: dict[str, Any]) -> list[str]:
    """The command line of a search, whose configuration is written into the project.

    Args:
      root: The folder of the project, in which the command has to be run, with `environment()`.
      config: The search.
    """
    path = root / "configs/search.yaml"
    path.write_text(yaml.safe_dump(config))
    return [sys.executable, "-m", "seqjax", "hyperparameter-search", "--config-path", str(path)]


def environment() -> dict[str, str]:
    """Variables with which a process finds this seqjax."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
