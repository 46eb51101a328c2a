"""The feed-forward layers against their formulas."""

import math
from typing import Literal

import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.model.dropout import keep_all
from seqjax.model.layers import FeedForward, GatedFeedForward, make_feedforward

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 3, 5)).astype(np.float32)


def apply(linear, x: np.ndarray) -> np.ndarray:
    return x @ np.asarray(linear.weight[...]).T + np.asarray(linear.bias[...])


def test_swiglu() -> None:
    layer = GatedFeedForward(5, 7, rng=RNG)
    gate = apply(layer.w1, X)
    expected = apply(layer.w3, gate / (1 + np.exp(-gate)) * apply(layer.w2, X))
    np.testing.assert_allclose(layer(jnp.asarray(X), keep_all), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "function"),
    [("relu", lambda x: max(x, 0)), ("gelu", lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2)],
)
def test_two_layers(name: Literal["gelu", "relu"], function) -> None:
    layer = FeedForward(5, 7, name, rng=RNG)
    hidden = np.vectorize(function, otypes=[float])(apply(layer.linear1, X))
    np.testing.assert_allclose(layer(jnp.asarray(X), keep_all), apply(layer.linear2, hidden), atol=1e-6)


@pytest.mark.parametrize("name", ["swiglu", "gelu", "relu"])
def test_dropout_acts_on_the_hidden_layer(name: Literal["swiglu", "gelu", "relu"]) -> None:
    layer = make_feedforward(name, 5, 7, rng=RNG)
    found = layer(jnp.asarray(X), jnp.zeros_like)
    outward = layer.w3 if isinstance(layer, GatedFeedForward) else layer.linear2
    np.testing.assert_allclose(found, apply(outward, np.zeros((2, 3, 7), np.float32)), atol=1e-7)
