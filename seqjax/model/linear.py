"""The dense layer and the initial distributions of every weight.

Weights are (out, in), as torch keeps them. A layer computes in the dtype of its weight. Inputs are
flattened to two dimensions before the product: the same numbers, but the backward pass of a
three-dimensional product transposes whole activations on CPU, and a two-dimensional one exports as one
plain MatMul.

Initial values are drawn by numpy: at once, and alike on every device, where a compiled draw for each shape
takes seconds.
"""

import math
from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from seqjax.config.model import LayerType

Initializer = Callable[[np.random.Generator, tuple[int, ...]], Float[np.ndarray, "..."]]


def small_normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Float[np.ndarray, "..."]:
    """Float32 draws from N(0, 0.02), for tables, heads and the joint layer."""
    return np.float32(0.02) * rng.standard_normal(shape, np.float32)


def zeros(rng: np.random.Generator, shape: tuple[int, ...]) -> Float[np.ndarray, "..."]:
    """Float32 zeros; nothing is drawn."""
    del rng
    return np.zeros(shape, np.float32)


def uniform(fan_in: int) -> Initializer:
    """Draws from U(-1/sqrt(fan_in), 1/sqrt(fan_in)), for every layer that is not named elsewhere."""
    bound = np.float32(1 / math.sqrt(fan_in))

    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> Float[np.ndarray, "..."]:
        return bound * (np.float32(2) * rng.random(shape, np.float32) - np.float32(1))

    return draw


def parameter(values: Float[np.ndarray, "..."]) -> nnx.Param:
    """A trainable parameter with these initial values."""
    return nnx.Param(jax.device_put(values))


def dense(
    x: Float[Array, "B *more I"], weight_OI: Float[Array, "O I"], bias_O: Float[Array, "O"] | None
) -> Float[Array, "B *more O"]:
    """`x @ weight.T + bias` on the last axis, in the dtype of the weight."""
    x_NI = jnp.reshape(x, (-1, x.shape[-1])).astype(weight_OI.dtype)
    y_NO = jnp.matmul(x_NI, weight_OI.T)
    if bias_O is not None:
        y_NO = y_NO + bias_O[None]
    # The batch is left open as -1: an exported graph cannot find it among the axes of the flat product.
    return jnp.reshape(y_NO, (-1, *x.shape[1:-1], weight_OI.shape[0]))


class Layer(nnx.Module):
    """A module that holds parameters itself."""

    layer_type: ClassVar[LayerType]
    """What `layer_type_dtypes` and optimizers call it."""


class Linear(Layer):
    """A dense layer from `width_in` to `width_out`; where an initializer is None, `uniform(width_in)` is."""

    layer_type: ClassVar[LayerType] = "linear"

    def __init__(
        self,
        width_in: int,
        width_out: int,
        *,
        rng: np.random.Generator,
        use_bias: bool = True,
        weight_init: Initializer | None = None,
        bias_init: Initializer | None = None,
    ) -> None:
        draw = uniform(width_in)
        self.weight = parameter((weight_init or draw)(rng, (width_out, width_in)))
        self.bias = parameter((bias_init or draw)(rng, (width_out,))) if use_bias else None

    def __call__(self, x: Float[Array, "B *more I"]) -> Float[Array, "B *more O"]:
        """Maps the last axis."""
        return dense(x, self.weight[...], None if self.bias is None else self.bias[...])
