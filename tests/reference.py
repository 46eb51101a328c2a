"""The reference models of sequifier: their columns, their architecture, and where their files lie."""

import json
from pathlib import Path
from typing import NamedTuple

import yaml

from seqjax.config.base import validate
from seqjax.config.model import ModelSpec
from seqjax.config.schema import Schema

FORWARD_CASES = ("A", "B", "C", "D", "A_rand", "B_rand", "C_rand", "D_rand")
PROJECT_CASES = {"K": "shop", "L": "shop", "M": "clicks", "N": "sensors"}
"""Each case of the project, and its data set."""


class ReferenceCase(NamedTuple):
    """A model that sequifier made."""

    schema: Schema
    spec: ModelSpec
    weights: Path
    """Its exported .pt file."""
    outputs: Path
    """The .npz of inputs (`in__<column>`) and what sequifier computed from them, position-major."""


def reference_case(shared: Path, name: str) -> ReferenceCase:
    """The case of this name, under the folder of the `shared` fixture."""
    golden = shared / "golden"
    return (
        _forward_case(golden / "forward", name)
        if name in FORWARD_CASES
        else _project_case(golden / "project", name)
    )


def _forward_case(folder: Path, name: str) -> ReferenceCase:
    case = json.loads((folder / f"{name}.json").read_text())
    schema = Schema(
        n_classes=case["n_classes"],
        categorical_inputs=tuple(case["categorical_columns"]),
        real_inputs=tuple(case["real_columns"]),
        targets=case["target_column_types"],
        seq_length=case["seq_length"],
    )
    return ReferenceCase(schema, _spec(case, name), folder / f"{name}.pt", folder / f"{name}.npz")


def _project_case(folder: Path, name: str) -> ReferenceCase:
    configs = folder / "configs"
    train = yaml.safe_load((configs / f"train_{name}.yaml").read_text())
    metadata = json.loads((configs / "metadata_configs" / f"{PROJECT_CASES[name]}.json").read_text())
    types = {name: kind for name, kind in metadata["column_types"].items() if name in train["input_columns"]}
    schema = Schema(
        n_classes=metadata["n_classes"],
        categorical_inputs=tuple(name for name, kind in types.items() if "int" in kind.lower()),
        real_inputs=tuple(name for name, kind in types.items() if "float" in kind.lower()),
        targets=train["target_column_types"],
        seq_length=train["seq_length"],
    )
    weights = folder / "models" / f"sequifier-{name}-best-1.pt"
    return ReferenceCase(schema, _spec(train, name), weights, folder / "forward" / f"{name}.npz")


def _spec(case: dict, name: str) -> ModelSpec:
    # Sequifier attends to padding.
    return validate(ModelSpec, {**case["model_spec"], "mask_padding": False}, name)
