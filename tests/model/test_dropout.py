"""Dropout keeps the right share, scales what it keeps, and draws anew at every site."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.model.dropout import Dropout, keep_all

X = jnp.ones((200, 300))


def key(seed: int = 0) -> jax.Array:
    return jax.random.key(seed, impl="rbg")


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_share_and_scale(rate: float) -> None:
    kept = np.asarray(jax.jit(lambda rate: Dropout(rate, key())(X))(rate))
    np.testing.assert_allclose(np.unique(kept), [0, 1 / (1 - rate)], rtol=1e-6)
    deviation = (rate * (1 - rate) / X.size) ** 0.5
    assert np.mean(kept != 0) == pytest.approx(1 - rate, abs=5 * deviation)


def test_sites_and_passes_draw_independently() -> None:
    dropout = Dropout(0.5, key())
    first, second = dropout(X), dropout(X)
    agree = np.mean((first != 0) == (second != 0))
    assert agree == pytest.approx(0.5, abs=0.02)
    again, other = Dropout(0.5, key())(X), Dropout(0.5, key(1))(X)
    np.testing.assert_array_equal(first, again)
    assert np.mean((first != 0) == (other != 0)) == pytest.approx(0.5, abs=0.02)


def test_keeps_the_dtype() -> None:
    assert Dropout(0.5, key())(X.astype(jnp.bfloat16)).dtype == jnp.bfloat16


def test_keep_all_keeps_all() -> None:
    assert keep_all(X) is X
