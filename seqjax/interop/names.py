"""Sequifier's parameter names beside the places in our parameter tree.

`parameters` is the table: a row for each parameter, in the order of sequifier's files, which is also the
order of its optimizer's state. Names and shapes follow from the schema and the spec alone. The
two sides differ in that sequifier names the parts of a column after it, where we count them.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from seqjax.config.model import ModelSpec
from seqjax.config.schema import Schema
from seqjax.errors import ArtifactError

EMBEDDING_PREFIX = "transformer_model."
"""What precedes every name in an exported embedding model."""


class Parameter(NamedTuple):
    """One parameter on both sides."""

    name: str
    """Sequifier's name, such as encoder.price.weight."""
    path: tuple[str, ...]
    """The keys that lead to it in our tree, such as ("encoder", "2", "weight")."""
    shape: tuple[int, ...]
    """Its shape, the same on both sides."""


def parameters(schema: Schema, spec: ModelSpec) -> list[Parameter]:
    """Every parameter of a model, in the order of sequifier's files."""
    rows = [*_encoder_rows(schema, spec), *_joint_rows(spec), *_position_rows(schema, spec)]
    for index in range(spec.num_layers):
        for part, shape in _layer_parts(spec).items():
            rows.append(_same_name(f"layers.{index}.{part}", shape))
    if spec.norm_first:
        rows += [_same_name(f"final_norm.{part}", shape) for part, shape in _norm_parts(spec).items()]
    for index, target in enumerate(schema.targets):
        width = schema.head_width(target)
        rows += _column_rows("decoder", target, index, {"weight": (width, spec.dim_model), "bias": (width,)})
    return rows


def buffers(spec: ModelSpec) -> dict[str, Float[np.ndarray, "half"]]:
    """What sequifier's files hold beside parameters: the rotary frequencies of each layer, float32."""
    if spec.positional_encoding != "rope":
        return {}
    exponents = np.arange(0, spec.head_dim, 2, dtype=np.float32) / np.float32(spec.head_dim)
    frequencies = np.float32(1) / np.float32(spec.rope_theta) ** exponents
    return {f"layers.{index}.attn.rope.inv_freq": frequencies for index in range(spec.num_layers)}


def from_sequifier(state_dict: Mapping[str, Any], schema: Schema, spec: ModelSpec) -> dict[str, Any]:
    """Our tree of the parameters in a `model_state_dict` of sequifier, as float32 numpy arrays.

    Args:
      state_dict: Arrays by name, of a generative or an embedding model.
      schema: The columns that the model was trained with.
      spec: Its architecture.

    Raises:
      ArtifactError: If a name is missing or unexpected, or an array does not have the shape that it must.
    """
    if state_dict and all(name.startswith(EMBEDDING_PREFIX) for name in state_dict):
        state_dict = {name.removeprefix(EMBEDDING_PREFIX): value for name, value in state_dict.items()}
    rows = parameters(schema, spec)
    problems = list(_problems(state_dict, rows, ignored=buffers(spec)))
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
    """The `model_state_dict` that sequifier would write for our tree of parameters, in its order.

    Args:
      params: Nested dicts of arrays, such as `model.functional.init` returns.
      schema: The model's columns.
      spec: Its architecture.
      embedding: Whether to name them as in an exported embedding model.
    """
    arrays: dict[str, np.ndarray] = {}
    frequencies = buffers(spec)
    for row in parameters(schema, spec):
        value: Any = params
        for key in row.path:
            value = value[key]
        arrays[row.name] = np.asarray(value)
        layer, found, _ = row.name.partition(".attn.wo.")
        if found and frequencies:
            arrays[f"{layer}.attn.rope.inv_freq"] = frequencies[f"{layer}.attn.rope.inv_freq"]
    prefix = EMBEDDING_PREFIX if embedding else ""
    return {f"{prefix}{name}": array for name, array in arrays.items()}


def _problems(
    state_dict: Mapping[str, Any], rows: list[Parameter], *, ignored: Mapping[str, Any]
) -> Iterator[str]:
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
        if name not in shapes and name not in ignored:
            yield f"unexpected: {name} {getattr(state_dict[name], 'shape', '')}"


def _is_real(dtype: np.dtype) -> bool:
    return np.can_cast(dtype, np.float64, "safe") and dtype.kind not in "biu"


def _same_name(name: str, shape: tuple[int, ...]) -> Parameter:
    return Parameter(name, tuple(name.split(".")), shape)


def _column_rows(
    part: str, column: str, index: int, shapes: Mapping[str, tuple[int, ...]]
) -> list[Parameter]:
    return [Parameter(f"{part}.{column}.{leaf}", (part, str(index), leaf), shapes[leaf]) for leaf in shapes]


def _file_order(schema: Schema) -> tuple[str, ...]:
    """The input columns in the order of their parts: real ones, then categorical ones as in `n_classes`."""
    return schema.real_inputs + tuple(name for name in schema.n_classes if name in schema.categorical_inputs)


def _encoder_rows(schema: Schema, spec: ModelSpec) -> list[Parameter]:
    dims = schema.embedding_dims(spec.initial_embedding_dim, spec.feature_embedding_dims)
    rows = []
    for name in _file_order(schema):
        index, width = schema.inputs.index(name), dims[name]
        if name in schema.categorical_inputs:
            rows += _column_rows("encoder", name, index, {"weight": (schema.n_classes[name], width)})
        elif width > 1:
            rows += _column_rows("encoder", name, index, {"weight": (width, 1), "bias": (width,)})
    return rows


def _joint_rows(spec: ModelSpec) -> list[Parameter]:
    width = spec.joint_embedding_dim
    if width is None:
        return []
    shapes = {"weight": (width, spec.initial_embedding_dim), "bias": (width,)}
    return [_same_name(f"joint_embedding_layer.{leaf}", shape) for leaf, shape in shapes.items()]


def _position_rows(schema: Schema, spec: ModelSpec) -> list[Parameter]:
    if spec.positional_encoding != "learned":
        return []
    dims = schema.embedding_dims(spec.initial_embedding_dim, spec.feature_embedding_dims)
    rows = []
    for name in _file_order(schema):
        shapes = {"weight": (schema.seq_length, dims[name])}
        rows += _column_rows("pos_encoder", name, schema.inputs.index(name), shapes)
    return rows


def _norm_parts(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    leaves = ("weight",) if spec.normalization == "rmsnorm" else ("weight", "bias")
    return dict.fromkeys(leaves, (spec.dim_model,))


def _layer_parts(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    dim, hidden = spec.dim_model, spec.dim_feedforward
    keys = spec.kv_heads * spec.head_dim
    parts = {
        f"{norm}.{leaf}": shape for norm in ("norm1", "norm2") for leaf, shape in _norm_parts(spec).items()
    }
    parts |= {f"attn.{name}.weight": (rows, dim) for name, rows in (("wq", dim), ("wk", keys), ("wv", keys))}
    parts["attn.wo.weight"] = (dim, dim)
    gated = spec.activation_fn == "swiglu"
    inward, outward = (("w1", "w2"), "w3") if gated else (("linear1",), "linear2")
    for name in inward:
        parts |= {f"ff.{name}.weight": (hidden, dim), f"ff.{name}.bias": (hidden,)}
    return {**parts, f"ff.{outward}.weight": (dim, hidden), f"ff.{outward}.bias": (dim,)}
