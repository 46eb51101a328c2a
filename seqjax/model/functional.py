"""The model as data and pure functions, which is what everything under `jax.jit` uses.

A model is a `GraphDef` (static, hashable) and its `Params`: nested plain dicts of arrays with string keys,
list places being "0", "1", ... Such a tree survives every checkpoint format, maps to files by name, and is
cheap to hand to a compiled function; the module comes into being inside the traced function:

    graphdef, params = init(schema, spec, seed=0)
    outputs = jax.jit(lambda params, inputs: merge(graphdef, params)(inputs))(params, inputs)
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx

from seqjax.config.model import LayerType, ModelSpec
from seqjax.config.schema import Schema
from seqjax.model.layers import Layer
from seqjax.model.transformer import Transformer

Params = dict[str, Any]
GraphDef = nnx.GraphDef[Transformer]


def init(schema: Schema, spec: ModelSpec, *, seed: int) -> tuple[GraphDef, Params]:
    """A new model; its float32 parameters depend on `seed` alone."""
    return split(Transformer(schema, spec, rng=np.random.default_rng(seed)))


def abstract(schema: Schema, spec: ModelSpec) -> tuple[GraphDef, Params]:
    """The result of `init` with shapes (`jax.ShapeDtypeStruct`) in place of arrays."""
    graphdef, params = init(schema, spec, seed=0)
    return graphdef, jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)


def split(model: Transformer) -> tuple[GraphDef, Params]:
    """The inverse of `merge`."""
    graphdef, state = nnx.split(model)
    return graphdef, _with_keys(nnx.to_pure_dict(state), str)


def layer_types(graphdef: GraphDef) -> dict[tuple[str, ...], LayerType]:
    """The `layer_type` of the module that each parameter belongs to, by the keys that lead to it."""
    model = nnx.merge(graphdef, [None] * graphdef.num_leaves)
    return {
        (*map(str, path), name): module.layer_type
        for path, module in nnx.iter_modules(model)
        if isinstance(module, Layer)
        for name, leaf in vars(module).items()
        if isinstance(leaf, nnx.Param)
    }


def merge(graphdef: GraphDef, params: Params) -> Transformer:
    """The module that has these parameters; cheap, and meant to be called inside a traced function.

    Args:
      graphdef: From `init` or `abstract`.
      params: A tree of the same structure as there.
    """
    # Flax matches leaves by sorted path: as strings, layer "10" would take the place of layer "2".
    return nnx.merge(graphdef, _with_keys(params, lambda key: int(key) if key.isdecimal() else key))


def _with_keys(tree: dict[Any, Any], key_of: Callable[[Any], Any]) -> dict[Any, Any]:
    """The same nested dicts, with other keys."""
    return {
        key_of(key): _with_keys(value, key_of) if isinstance(value, dict) else value
        for key, value in tree.items()
    }
