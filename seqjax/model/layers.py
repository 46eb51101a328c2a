"""The layers that hold parameters: dense maps, encoders, normalisations, feed-forward layers and heads.

Weights are (out, in), as torch keeps them. A layer computes in the dtype of its weight. Inputs are
flattened to two dimensions before the product: the same numbers, but the backward pass of a
three-dimensional product transposes whole activations on CPU, and a two-dimensional one exports as one
plain MatMul. Normalisations are computed in float32 at least.

Initial values are drawn by numpy: at once, and alike on every device, where a compiled draw for each shape
takes seconds.

Each input column has an encoder, and may have a table of learned positions:

    categorical     weight[id] * sqrt(E)
    real            (weight * value + bias) * sqrt(E)
    real, one wide  value * sqrt(E), without parameters

E is the width of all columns together (`initial_embedding_dim`); the factor is applied by the transformer,
which then adds the learned positions, unscaled.
"""

import math
from functools import partial
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from seqjax.config.model import LayerType
from seqjax.model.dropout import Drop

RMS_EPSILON = 1e-6
LAYER_EPSILON = 1e-5
ACTIVATIONS = {"gelu": partial(jax.nn.gelu, approximate=False), "relu": jax.nn.relu}


def small_normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Float[np.ndarray, "..."]:
    """Float32 draws from N(0, 0.02), for tables, heads and the joint layer."""
    return np.float32(0.02) * rng.standard_normal(shape, np.float32)


def uniform(rng: np.random.Generator, shape: tuple[int, ...], fan_in: int) -> Float[np.ndarray, "..."]:
    """Draws from U(-1/sqrt(fan_in), 1/sqrt(fan_in)), for every layer that is not named elsewhere."""
    bound = np.float32(1 / math.sqrt(fan_in))
    return bound * (np.float32(2) * rng.random(shape, np.float32) - np.float32(1))


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


def at_least_float32(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The same numbers, in float32 where their format is narrower."""
    return x if x.dtype.itemsize >= 4 else x.astype(jnp.float32)


class Layer(nnx.Module):
    """A module that holds parameters itself."""

    layer_type: ClassVar[LayerType]
    """Name in `layer_type_dtypes` and in the settings of optimizers."""


class Linear(Layer):
    """A dense layer from `width_in` to `width_out`; `small` draws `small_normal` weights, without biases."""

    layer_type: ClassVar[LayerType] = "linear"

    def __init__(
        self,
        width_in: int,
        width_out: int,
        *,
        rng: np.random.Generator,
        use_bias: bool = True,
        small: bool = False,
    ) -> None:
        shape = width_out, width_in
        self.weight = parameter(small_normal(rng, shape) if small else uniform(rng, shape, width_in))
        bias = np.zeros(width_out, np.float32) if small or not use_bias else uniform(rng, shape[:1], width_in)
        self.bias = parameter(bias) if use_bias else None

    def __call__(self, x: Float[Array, "B *more I"]) -> Float[Array, "B *more O"]:
        """Maps the last axis."""
        return dense(x, self.weight[...], None if self.bias is None else self.bias[...])


class Head(Linear):
    """A linear map to the numbers that a target's distribution is made of, which knows nothing at first."""

    layer_type: ClassVar[LayerType] = "decoder"

    def __init__(self, dim: int, width: int, *, rng: np.random.Generator) -> None:
        super().__init__(dim, width, rng=rng, small=True)


class Table(Layer):
    """A vector for each id of a categorical column, or for each position."""

    layer_type: ClassVar[LayerType] = "embedding"

    def __init__(self, rows: int, width: int, *, rng: np.random.Generator) -> None:
        self.weight = parameter(small_normal(rng, (rows, width)))

    def __call__(self, ids: Int[Array, "*batch"]) -> Float[Array, "*batch E"]:
        """The vectors of `ids`; an id beyond the table gives NaN."""
        return jnp.take(self.weight[...], ids, axis=0)


class RealEncoder(Layer):
    """A linear map from a real value to a vector.

    With `masked` a second input says that there is a value: 1, or 0 where it is missing (NaN) and 0 as well.
    """

    layer_type: ClassVar[LayerType] = "embedding"

    def __init__(self, width: int, *, masked: bool = False, rng: np.random.Generator) -> None:
        self.masked = masked
        self.weight = parameter(uniform(rng, (width, 1 + masked), 1))
        self.bias = parameter(uniform(rng, (width,), 1))

    def __call__(self, values_BT: Float[Array, "B T"]) -> Float[Array, "B T E"]:
        """The vectors of `values_BT`, standardised numbers, which a format under float32 would round."""
        weight, bias = (at_least_float32(leaf[...]) for leaf in (self.weight, self.bias))
        if not self.masked:
            return dense(_as_vectors(values_BT), weight, bias)
        present_BT = ~jnp.isnan(values_BT)
        both = jnp.where(present_BT, values_BT, 0), present_BT.astype(values_BT.dtype)
        return dense(jnp.concatenate([_as_vectors(part) for part in both], axis=-1), weight, bias)


class DirectEncoder(nnx.Module):
    """Takes a real value for its own vector, one wide."""

    def __call__(self, values_BT: Float[Array, "B T"]) -> Float[Array, "B T 1"]:
        """`values_BT`, standardised numbers, with one more axis."""
        return _as_vectors(values_BT)


Encoder = Table | RealEncoder | DirectEncoder


def make_encoder(
    n_classes: int | None, width: int, *, masked: bool = False, rng: np.random.Generator
) -> Encoder:
    """The encoder of one input column.

    Args:
      n_classes: Number of classes of a categorical column; None is a real column.
      width: Width of the column's vectors.
      masked: Whether values of a real column may be missing.
      rng: Where initial values come from.
    """
    if n_classes is not None:
        return Table(n_classes, width, rng=rng)
    return DirectEncoder() if width == 1 and not masked else RealEncoder(width, masked=masked, rng=rng)


def _as_vectors(values_BT: Float[Array, "B T"]) -> Float[Array, "B T 1"]:
    return jnp.reshape(values_BT, (*values_BT.shape, 1))


class RMSNorm(Layer):
    """`weight * x / sqrt(mean(x^2) + 1e-6)`."""

    layer_type: ClassVar[LayerType] = "norm"

    def __init__(self, width: int) -> None:
        self.weight = parameter(np.ones((width,), np.float32))

    def __call__(self, x_BTD: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Normalises the last axis."""
        wide_BTD = at_least_float32(x_BTD)
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
        wide_BTD = at_least_float32(x_BTD)
        centred_BTD = wide_BTD - jnp.mean(wide_BTD, axis=-1, keepdims=True)
        variance_BT1 = jnp.mean(centred_BTD * centred_BTD, axis=-1, keepdims=True)
        normal_BTD = centred_BTD / jnp.sqrt(variance_BT1 + LAYER_EPSILON)
        return (_per_feature(self.weight) * normal_BTD + _per_feature(self.bias)).astype(x_BTD.dtype)


Norm = RMSNorm | LayerNorm


def make_norm(kind: Literal["rmsnorm", "layer_norm"], width: int) -> Norm:
    """The normalisation that `model_spec.normalization` names."""
    return {"rmsnorm": RMSNorm, "layer_norm": LayerNorm}[kind](width)


def _per_feature(parameter: nnx.Param) -> Float[Array, "1 1 D"]:
    return at_least_float32(parameter[...])[None, None]


class GatedFeedForward(nnx.Module):
    """`w3(drop(silu(w1 x) * (w2 x)))`; the hidden width is exactly `hidden`."""

    def __init__(self, dim: int, hidden: int, *, rng: np.random.Generator) -> None:
        self.w1 = Linear(dim, hidden, rng=rng)
        self.w2 = Linear(dim, hidden, rng=rng)
        self.w3 = Linear(hidden, dim, rng=rng)

    def __call__(self, x_BTD: Float[Array, "B T D"], drop: Drop) -> Float[Array, "B T D"]:
        """Transforms each position by itself; `drop` acts on the hidden layer."""
        return self.w3(drop(jax.nn.silu(self.w1(x_BTD)) * self.w2(x_BTD)))


class FeedForward(nnx.Module):
    """`linear2(drop(activation(linear1 x)))`, with the exact (erf) gelu or relu."""

    def __init__(
        self, dim: int, hidden: int, activation: Literal["gelu", "relu"], *, rng: np.random.Generator
    ) -> None:
        self.activation = activation
        self.linear1 = Linear(dim, hidden, rng=rng)
        self.linear2 = Linear(hidden, dim, rng=rng)

    def __call__(self, x_BTD: Float[Array, "B T D"], drop: Drop) -> Float[Array, "B T D"]:
        """Transforms each position by itself; `drop` acts on the hidden layer."""
        return self.linear2(drop(ACTIVATIONS[self.activation](self.linear1(x_BTD))))


def make_feedforward(
    activation: Literal["swiglu", "gelu", "relu"], dim: int, hidden: int, *, rng: np.random.Generator
) -> GatedFeedForward | FeedForward:
    """The feed-forward layer that `model_spec.activation_fn` names."""
    if activation == "swiglu":
        return GatedFeedForward(dim, hidden, rng=rng)
    return FeedForward(dim, hidden, activation, rng=rng)
