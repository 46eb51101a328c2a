"""Attention against a readable twin in numpy: one head, one query at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.model.attention import Attention, attention_bias
from seqjax.model.dropout import keep_all
from seqjax.model.mixer import Context

DIM, HEADS, LENGTH, BATCH = 12, 6, 5, 3


def twin(attention: Attention, x_BSD: np.ndarray, valid_BS: np.ndarray) -> np.ndarray:
    wq, wk, wv, wo = (
        np.asarray(linear.weight[...]) for linear in (attention.wq, attention.wk, attention.wv, attention.wo)
    )
    width = DIM // HEADS
    mixed = np.zeros((BATCH, LENGTH, DIM))
    for b in range(BATCH):
        for head in range(HEADS):
            shared = head // (HEADS // attention.kv_heads)
            q, k, v = (
                x_BSD[b] @ weight[index * width : (index + 1) * width].T
                for weight, index in ((wq, head), (wk, shared), (wv, shared))
            )
            for t in range(LENGTH):
                seen = [s for s in range(t + 1) if valid_BS[b, s] or s == t]
                weights = np.exp(q[t] @ k[seen].T / np.sqrt(width))
                mixed[b, t, head * width : (head + 1) * width] = weights / weights.sum() @ v[seen]
    return mixed @ wo.T


@pytest.mark.parametrize("kv_heads", [1, 2, 3, 6])
@pytest.mark.parametrize("masked", [False, True])
def test_equals_its_twin(kv_heads: int, masked: bool) -> None:
    rng = np.random.default_rng(kv_heads)
    attention = Attention(DIM, HEADS, kv_heads, rng=rng)
    x = rng.normal(size=(BATCH, LENGTH, DIM)).astype(np.float32) * 3
    valid = np.arange(LENGTH) >= np.array([[0], [2], [LENGTH]])
    context = Context(np.arange(LENGTH), jnp.asarray(valid) if masked else None)
    found = attention(jnp.asarray(x), context, drop=keep_all)
    expected = twin(attention, x, valid if masked else np.ones_like(valid))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_last_positions_are_those_of_all() -> None:
    rng = np.random.default_rng(0)
    attention = Attention(DIM, HEADS, 2, rng=rng, rope_theta=100.0)
    x = jnp.asarray(rng.normal(size=(BATCH, LENGTH, DIM)), jnp.float32)
    context = Context(np.arange(LENGTH))
    whole = attention(x, context, drop=keep_all)
    np.testing.assert_allclose(attention(x, context, drop=keep_all, last=2), whole[:, -2:], atol=1e-6)


def test_bias_is_causal_and_shows_each_position_itself() -> None:
    valid = jnp.asarray([[False, True, True], [False, False, False]])
    low = -np.inf
    expected = [[[0, low, low], [low, 0, low], [low, 0, 0]], [[0, low, low], [low, 0, low], [low, low, 0]]]
    np.testing.assert_array_equal(attention_bias(3, valid)[:, 0], expected)
    np.testing.assert_array_equal(attention_bias(3, None)[:, 0], [[[0, low, low], [0, 0, low], [0, 0, 0]]])


def test_dropout_acts_on_the_weights() -> None:
    attention = Attention(DIM, HEADS, 2, rng=np.random.default_rng(0))
    shapes = []

    def drop(x: jax.Array) -> jax.Array:
        shapes.append(x.shape)
        np.testing.assert_allclose(jnp.sum(x, axis=-1), 1, rtol=1e-6)
        return x

    attention(jnp.ones((BATCH, LENGTH, DIM)), Context(np.arange(LENGTH)), drop=drop)
    assert shapes == [(BATCH, HEADS, LENGTH, LENGTH)]
