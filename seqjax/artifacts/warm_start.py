"""Parameters of a trained model as the start of another.

They come from a torch file, ours or sequifier's, or from a checkpoint. Parameters are known by
sequifier's names, which call the parts of a column after it. So a model whose columns come in another order,
or that has other layers besides, can be a start as well.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jax.tree_util import tree_map_with_path

from seqjax.artifacts.atomic import check_manifest
from seqjax.artifacts.checkpoints import load_best, load_info
from seqjax.artifacts.model_files import read_pt
from seqjax.config.model import ModelSpec
from seqjax.config.schema import Schema
from seqjax.errors import ArtifactError
from seqjax.interop.names import EMBEDDING_PREFIX, FREQUENCIES, parameters, to_sequifier

_SHOWN = 8


@dataclass(frozen=True)
class WarmStart:
    """A model's parameters, and their names.

    Some are taken from the file; it lacks others, has them in another shape, or has some besides.
    """

    params: dict[str, Any]
    taken: tuple[str, ...]
    new: tuple[str, ...]
    misshapen: tuple[str, ...]
    unused: tuple[str, ...]

    def report(self) -> list[str]:
        """The parameters that were taken and those that were not, in words."""
        lines = [f"{len(self.taken)} of {len(self.taken) + len(self.new) + len(self.misshapen)} parameters"]
        for what, names in (
            ("not in the file", self.new),
            ("of another shape there", self.misshapen),
            ("only in the file", self.unused),
        ):
            if names:
                more = f", ... ({len(names)} in all)" if len(names) > _SHOWN else ""
                lines.append(f"{what}: {', '.join(names[:_SHOWN])}{more}")
        return lines


def warm_start(params: Mapping[str, Any], path: Path, schema: Schema, *, strict: bool) -> WarmStart:
    """New parameters, replaced by those of a file.

    Args:
      params: The new parameters, a nested dict of arrays.
      path: A .pt file, or the folder of a checkpoint, whose best parameters are taken.
      schema: Columns of the new model.
      strict: Whether the file must hold these parameters and no others.

    Raises:
      ArtifactError: The file cannot be read; or with `strict` its parameters differ, without it none fits.
    """
    found = _read(path)
    rows = {row.name: row for row in parameters(params, schema)}
    misshapen = [
        f"{name} ({np.shape(found[name])} there, {row.shape} here)"
        for name, row in rows.items()
        if name in found and np.shape(found[name]) != row.shape
    ]
    fitting = [row for name, row in rows.items() if name in found and np.shape(found[name]) == row.shape]
    result = WarmStart(
        _replaced(params, {row.path: found[row.name] for row in fitting}),
        tuple(row.name for row in fitting),
        tuple(name for name in rows if name not in found),
        tuple(misshapen),
        tuple(name for name in found if name not in rows and not name.endswith(FREQUENCIES)),
    )
    if not fitting or (strict and (result.new or result.misshapen or result.unused)):
        remedy = "Set warm_start_strict: false to take what fits by name, or name another file."
        raise ArtifactError(
            f"training_spec.warm_start: {path} does not hold the parameters of this model: "
            f"{'; '.join(result.report())}. {remedy if fitting else 'Name another file.'}"
        )
    return result


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


def _replaced(tree: Mapping[str, Any], values: Mapping[tuple[str, ...], Any]) -> dict[str, Any]:
    """The tree with other leaves at some paths, as float32 as those of a new model."""

    def replaced(path: tuple[Any, ...], leaf: Any) -> Any:  # noqa: ANN401
        value = values.get(tuple(entry.key for entry in path))
        return leaf if value is None else np.asarray(value).astype(np.float32)

    return tree_map_with_path(replaced, dict(tree))
