"""Parameters of a trained model as the start of another.

They come from a torch file, ours or sequifier's, or from a checkpoint. Parameters are known by
sequifier's names, which call the parts of a column after it. So a model whose columns come in another order,
or that has other layers besides, can be a start as well.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from seqjax.artifacts.atomic import check_manifest
from seqjax.artifacts.checkpoints import load_best, load_info
from seqjax.artifacts.model_files import read_pt
from seqjax.config.model import ModelSpec
from seqjax.config.schema import Schema
from seqjax.errors import ArtifactError
from seqjax.interop.names import EMBEDDING_PREFIX, FREQUENCIES, parameters, to_sequifier

_SHOWN = 8


def warm_start(
    params: Mapping[str, Any], path: Path, schema: Schema, *, strict: bool
) -> tuple[dict[str, Any], list[str]]:
    """New parameters, replaced by those of a file.

    Args:
      params: The new parameters, a nested dict of arrays.
      path: A .pt file, or the folder of a checkpoint, whose best parameters are taken.
      schema: Columns of the new model.
      strict: Whether the file must hold these parameters and no others.

    Returns:
      The parameters; and lines about which were taken, which were not, and which the file has besides.

    Raises:
      ArtifactError: The file cannot be read; or with `strict` its parameters differ, without it none fits.
    """
    stored = _read(path)
    rows = {row.name: row for row in parameters(params, schema)}
    fitting = [row for name, row in rows.items() if name in stored and np.shape(stored[name]) == row.shape]
    differing = {
        "not in the file": [name for name in rows if name not in stored],
        "of another shape there": [
            f"{name} ({np.shape(stored[name])} there, {row.shape} here)"
            for name, row in rows.items()
            if name in stored and np.shape(stored[name]) != row.shape
        ],
        "only in the file": [name for name in stored if name not in rows and not name.endswith(FREQUENCIES)],
    }
    lines = [f"{len(fitting)} of {len(rows)} parameters"]
    for relation, names in differing.items():
        if names:
            more = f", ... ({len(names)} in all)" if len(names) > _SHOWN else ""
            lines.append(f"{relation}: {', '.join(names[:_SHOWN])}{more}")
    if not fitting or (strict and any(differing.values())):
        remedy = "Set warm_start_strict: false to take what fits by name, or name another file."
        raise ArtifactError(
            f"training_spec.warm_start: {path} does not hold the parameters of this model: "
            f"{'; '.join(lines)}. {remedy if fitting else 'Name another file.'}"
        )
    # As float32, as those of a new model.
    taken = {row.path: np.asarray(stored[row.name]).astype(np.float32) for row in fitting}
    return unflatten_dict(flatten_dict(dict(params)) | taken), lines


def _read(path: Path) -> dict[str, Any]:
    """The parameters in a file, by sequifier's names."""
    if path.is_dir():
        check_manifest(path)
        info = load_info(path)
        schema, spec = Schema(**info["schema"]), ModelSpec(**info["config"]["model_spec"])
        return to_sequifier(load_best(path), schema, spec)
    if path.suffix == ".onnx":
        raise ArtifactError(
            f"training_spec.warm_start: {path} is a graph, which does not name its parameters. Name a .pt "
            "file (export_pt: true writes one) or a checkpoint of the run, checkpoints/[NAME]/epoch-[N]."
        )
    found = read_pt(path).parameters
    return {name.removeprefix(EMBEDDING_PREFIX): value for name, value in found.items()}
