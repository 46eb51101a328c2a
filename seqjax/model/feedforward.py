"""The feed-forward layer of a block: gated (swiglu), or two layers with gelu or relu between them."""

from functools import partial
from typing import Literal

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from seqjax.model.dropout import Drop
from seqjax.model.linear import Linear

ACTIVATIONS = {"gelu": partial(jax.nn.gelu, approximate=False), "relu": jax.nn.relu}


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
