"""Norms against their formulas, where their epsilons matter too."""

from typing import Literal

import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.model.layers import LayerNorm, RMSNorm, make_norm

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("size", [1e-4, 1.0, 1e3])
def test_formulas(size: float) -> None:
    x = (size * (1 + RNG.normal(size=(2, 3, 7)))).astype(np.float32)
    weight, bias = RNG.normal(size=(2, 7)).astype(np.float32)
    rms, layer = RMSNorm(7), LayerNorm(7)
    rms.weight[...] = layer.weight[...] = jnp.asarray(weight)
    layer.bias[...] = jnp.asarray(bias)
    wide = x.astype(np.float64)
    expected = weight * wide / np.sqrt(np.mean(wide**2, -1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(rms(jnp.asarray(x)), expected, rtol=1e-5)
    expected = (
        weight * (wide - wide.mean(-1, keepdims=True)) / np.sqrt(wide.var(-1, keepdims=True) + 1e-5) + bias
    )
    np.testing.assert_allclose(layer(jnp.asarray(x)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["rmsnorm", "layer_norm"])
def test_computes_in_float32_and_keeps_the_dtype(kind: Literal["rmsnorm", "layer_norm"]) -> None:
    x = jnp.asarray(1000 + RNG.normal(size=(2, 3, 64)), jnp.bfloat16)
    norm = make_norm(kind, 64)
    found = norm(x)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found, norm(x.astype(jnp.float32)).astype(jnp.bfloat16))
