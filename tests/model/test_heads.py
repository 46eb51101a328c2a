"""Categorical targets become log-probabilities, real ones stay values."""

import jax.numpy as jnp
import numpy as np

from seqjax.model.layers import Head
from seqjax.model.transformer import stated


def test_only_categorical_targets_are_normalised() -> None:
    raw = {"a": jnp.asarray([[[1.0, 2.0, 4.0]]]), "b": jnp.asarray([[[3.0]]])}
    found = stated(raw, {"a": "categorical", "b": "point"})
    np.testing.assert_allclose(np.exp(found["a"]).sum(), 1, rtol=1e-6)
    np.testing.assert_allclose(np.diff(found["a"][0, 0]), [1, 2], rtol=1e-5)
    assert found["b"] is raw["b"]


def test_a_new_head_knows_nothing_of_its_bias() -> None:
    head = Head(64, 50, rng=np.random.default_rng(0))
    assert head.weight.shape == (50, 64)
    assert head.bias is not None
    assert not np.any(head.bias[...])
