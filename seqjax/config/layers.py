"""Kinds of layers, as `layer_type_dtypes` names them."""

from collections.abc import Sequence
from typing import Literal

LayerType = Literal["linear", "embedding", "norm", "decoder"]
DTypeName = Literal["float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"]

_PARTS: dict[str, LayerType] = {
    "encoder": "embedding",
    "pos_encoder": "embedding",
    "joint_embedding_layer": "linear",
    "final_norm": "norm",
    "norm1": "norm",
    "norm2": "norm",
    "attn": "linear",
    "ff": "linear",
    "decoder": "decoder",
}


def layer_type(path: Sequence[str]) -> LayerType:
    """The kind of layer that a parameter belongs to.

    Args:
      path: The keys that lead to it in the tree of parameters, such as layers, 0, attn, wq, weight.
    """
    return _PARTS[path[2] if path[0] == "layers" else path[0]]
