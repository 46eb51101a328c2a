"""Parameters by sequifier's names, which are ours: the path in the tree, with columns called by their names.

`parameters` is the table: a row for each leaf of a tree, in the order of sequifier's files. What sequifier
has besides is the rotary frequencies of each layer. Parameters that sequifier does not know, of another mixer
for instance, come last in their layer, under the same kind of name.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from seqjax.config.model import ModelSpec
from seqjax.config.schema import Schema
from seqjax.errors import ArtifactError

EMBEDDING_PREFIX = "transformer_model."
"""Precedes every name in an exported embedding model."""
FREQUENCIES = ".attn.rope.inv_freq"
"""Ends the name of a layer's rotary frequencies, which are constants."""

_ORDER = (
    *("encoder", "joint_embedding_layer", "pos_encoder", "layers", "final_norm", "decoder"),
    *("norm1", "norm2", "attn", "ff"),
    *("wq", "wk", "wv", "wo", "w1", "w2", "w3", "linear1", "linear2"),
    *("weight", "bias"),
)
"""The names of modules and parameters in the order of sequifier's files."""


class Parameter(NamedTuple):
    """One parameter: its name, such as encoder.price.weight, its keys in the tree, and its shape."""

    name: str
    path: tuple[str, ...]
    shape: tuple[int, ...]


def parameters(params: Mapping[str, Any], schema: Schema) -> list[Parameter]:
    """Every parameter of a tree of arrays (or of shapes), in the order of sequifier's files."""
    # The input columns in the order of their parameters: real ones, then those of `n_classes`.
    columns = schema.real_inputs + tuple(n for n in schema.n_classes if n in schema.categorical_inputs)

    def place(row: Parameter) -> list[int]:
        if row.path[0] in ("encoder", "pos_encoder"):
            column = columns.index(schema.inputs[int(row.path[1])])
            return [_place(row.path[0]), column, *map(_place, row.path[2:])]
        return [*map(_place, row.path)]

    rows = [Parameter(schema.parameter_name(path), path, leaf.shape) for path, leaf in _leaves(params)]
    return sorted(rows, key=place)


def buffers(spec: ModelSpec) -> dict[str, Float[np.ndarray, "half"]]:
    """The arrays in sequifier's files besides parameters: the rotary frequencies of each layer, float32."""
    if spec.positional_encoding != "rope":
        return {}
    exponents = np.arange(0, spec.head_dim, 2, dtype=np.float32) / np.float32(spec.head_dim)
    frequencies = np.float32(1) / np.float32(spec.rope_theta) ** exponents
    layers = [index for index, mixer in enumerate(spec.mixers) if mixer == "attention"]
    return {f"layers.{index}{FREQUENCIES}": frequencies for index in layers}


def from_sequifier(state_dict: Mapping[str, Any], like: Mapping[str, Any], schema: Schema) -> dict[str, Any]:
    """The tree of the parameters in a `model_state_dict`, ours or sequifier's, as float32 numpy arrays.

    Args:
      state_dict: Arrays by name, of a generative or an embedding model.
      like: A tree of the model's parameters, or of their shapes.
      schema: The model's columns.

    Raises:
      ArtifactError: If a name is missing or unexpected, or an array does not have the shape that it must.
    """
    if state_dict and all(name.startswith(EMBEDDING_PREFIX) for name in state_dict):
        state_dict = {name.removeprefix(EMBEDDING_PREFIX): value for name, value in state_dict.items()}
    rows = parameters(like, schema)
    problems = list(_problems(state_dict, rows))
    if problems:
        raise ArtifactError(
            "The parameters in the file do not belong to this model:\n  "
            + "\n  ".join(problems)
            + "\nCheck that columns, seq_length and model_spec are those that the model was trained with."
        )
    tree: dict[str, Any] = {}
    for row in rows:
        branch = tree
        for key in row.path[:-1]:
            branch = branch.setdefault(key, {})
        branch[row.path[-1]] = np.asarray(state_dict[row.name]).astype(np.float32)
    return tree


def to_sequifier(
    params: Mapping[str, Any], schema: Schema, spec: ModelSpec, *, embedding: bool = False
) -> dict[str, np.ndarray]:
    """The `model_state_dict` that sequifier would write for a tree of parameters, in its order.

    Args:
      params: Nested dicts of arrays, such as `model.functional.init` returns.
      schema: The model's columns.
      spec: Its architecture.
      embedding: Whether to name them as in an exported embedding model.
    """
    leaves, frequencies = dict(_leaves(params)), buffers(spec)
    arrays: dict[str, np.ndarray] = {}
    for row in parameters(params, schema):
        arrays[row.name] = np.asarray(leaves[row.path])
        buffer = row.name.replace(".attn.wo.weight", FREQUENCIES)
        if buffer in frequencies:
            arrays[buffer] = frequencies[buffer]
    prefix = EMBEDDING_PREFIX if embedding else ""
    return {f"{prefix}{name}": array for name, array in arrays.items()}


def _leaves(tree: Mapping[str, Any], *at: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, *at, key)
        else:
            yield (*at, key), value


def _place(key: str) -> int:
    if key.isdecimal():
        return int(key)
    return _ORDER.index(key) if key in _ORDER else len(_ORDER)


def _problems(state_dict: Mapping[str, Any], rows: Sequence[Parameter]) -> Iterator[str]:
    shapes = {row.name: row.shape for row in rows}
    for name, shape in shapes.items():
        if name not in state_dict:
            yield f"missing: {name} {shape}"
            continue
        value = state_dict[name]
        if not isinstance(value, np.ndarray) or not _is_real(value.dtype):
            yield f"not an array of real numbers: {name} ({type(value).__name__})"
        elif value.shape != shape:
            yield f"wrong shape: {name} is {value.shape}, not {shape}"
    for name in state_dict:
        if name not in shapes and not name.endswith(FREQUENCIES):
            yield f"unexpected: {name} {getattr(state_dict[name], 'shape', '')}"


def _is_real(dtype: np.dtype) -> bool:
    return np.can_cast(dtype, np.float64, "safe") and dtype.kind not in "biu"
