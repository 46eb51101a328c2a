"""From columns to vectors: an encoder for each input column, and a table of positions beside each.

    categorical     weight[id] * sqrt(E)
    real            (weight * value + bias) * sqrt(E)
    real, one wide  value * sqrt(E), without parameters

E is the width of all columns together (`initial_embedding_dim`); the factor is applied by the transformer,
which then adds the learned positions, unscaled.
"""

from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from seqjax.config.model import LayerType
from seqjax.model.linear import Layer, dense, parameter, small_normal, uniform


class Table(Layer):
    """A vector for each id of a categorical column, or for each position."""

    layer_type: ClassVar[LayerType] = "embedding"

    def __init__(self, rows: int, width: int, *, rng: np.random.Generator) -> None:
        self.weight = parameter(small_normal(rng, (rows, width)))

    def __call__(self, ids: Int[Array, "*batch"]) -> Float[Array, "*batch E"]:
        """The vectors of `ids`; an id beyond the table gives NaN."""
        return jnp.take(self.weight[...], ids, axis=0)


class RealEncoder(Layer):
    """A linear map from a real value to a vector."""

    layer_type: ClassVar[LayerType] = "embedding"

    def __init__(self, width: int, *, rng: np.random.Generator) -> None:
        draw = uniform(1)
        self.weight = parameter(draw(rng, (width, 1)))
        self.bias = parameter(draw(rng, (width,)))

    def __call__(self, values_BT: Float[Array, "B T"]) -> Float[Array, "B T E"]:
        """The float32 vectors of `values_BT`, standardised numbers: a narrower format would round them."""
        weight, bias = (leaf[...].astype(jnp.float32) for leaf in (self.weight, self.bias))
        return dense(_as_vectors(values_BT), weight, bias)


class DirectEncoder(nnx.Module):
    """Takes a real value for its own vector, one wide."""

    def __call__(self, values_BT: Float[Array, "B T"]) -> Float[Array, "B T 1"]:
        """`values_BT`, standardised numbers, with one more axis."""
        return _as_vectors(values_BT)


Encoder = Table | RealEncoder | DirectEncoder


def make_encoder(n_classes: int | None, width: int, *, rng: np.random.Generator) -> Encoder:
    """The encoder of one input column.

    Args:
      n_classes: Number of classes of a categorical column; None is a real column.
      width: Width of the column's vectors.
      rng: Where initial values come from.
    """
    if n_classes is not None:
        return Table(n_classes, width, rng=rng)
    return DirectEncoder() if width == 1 else RealEncoder(width, rng=rng)


def _as_vectors(values_BT: Float[Array, "B T"]) -> Float[Array, "B T 1"]:
    return jnp.reshape(values_BT, (*values_BT.shape, 1))
