"""Normalisation over the last axis, computed in float32 whatever the dtype of the input."""

from typing import ClassVar, Literal

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from seqjax.config.model import LayerType
from seqjax.model.linear import Layer, parameter

RMS_EPSILON = 1e-6
LAYER_EPSILON = 1e-5


class RMSNorm(Layer):
    """`weight * x / sqrt(mean(x^2) + 1e-6)`."""

    layer_type: ClassVar[LayerType] = "norm"

    def __init__(self, width: int) -> None:
        self.weight = parameter(np.ones((width,), np.float32))

    def __call__(self, x_BTD: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Normalises the last axis."""
        wide_BTD = x_BTD.astype(jnp.float32)
        mean_square_BT1 = jnp.mean(wide_BTD * wide_BTD, axis=-1, keepdims=True)
        normal_BTD = wide_BTD / jnp.sqrt(mean_square_BT1 + RMS_EPSILON)
        return (_per_feature(self.weight) * normal_BTD).astype(x_BTD.dtype)


class LayerNorm(Layer):
    """`weight * (x - mean) / sqrt(variance + 1e-5) + bias`, with the biased variance."""

    layer_type: ClassVar[LayerType] = "norm"

    def __init__(self, width: int) -> None:
        self.weight = parameter(np.ones((width,), np.float32))
        self.bias = parameter(np.zeros((width,), np.float32))

    def __call__(self, x_BTD: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Normalises the last axis."""
        wide_BTD = x_BTD.astype(jnp.float32)
        centred_BTD = wide_BTD - jnp.mean(wide_BTD, axis=-1, keepdims=True)
        variance_BT1 = jnp.mean(centred_BTD * centred_BTD, axis=-1, keepdims=True)
        normal_BTD = centred_BTD / jnp.sqrt(variance_BT1 + LAYER_EPSILON)
        return (_per_feature(self.weight) * normal_BTD + _per_feature(self.bias)).astype(x_BTD.dtype)


Norm = RMSNorm | LayerNorm


def make_norm(kind: Literal["rmsnorm", "layer_norm"], width: int) -> Norm:
    """The normalisation that `model_spec.normalization` names."""
    return {"rmsnorm": RMSNorm, "layer_norm": LayerNorm}[kind](width)


def _per_feature(parameter: nnx.Param) -> Float[Array, "1 1 D"]:
    return parameter[...].astype(jnp.float32)[None, None]
