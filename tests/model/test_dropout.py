"""Dropout keeps the right share, scales what it keeps, and draws anew at every site."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.model.dropout import Dropout, keep_all, random_words

X = jnp.ones((200, 300))


def key(seed: int = 0) -> jax.Array:
    return jax.random.key(seed)


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


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_dropped_softmax_has_the_values_and_the_gradient_of_its_two_parts(dtype: type) -> None:
    scores = jax.random.normal(key(4), (2, 3, 5, 16)).at[..., 11:].set(-jnp.inf)
    weigh = jax.random.normal(key(5), scores.shape)

    def at_once(scores: jax.Array) -> tuple[jax.Array, jax.Array]:
        found = Dropout(0.3, key()).softmax(scores, dtype)
        return (found.astype(jnp.float32) * weigh).sum(), found

    def in_turn(scores: jax.Array) -> tuple[jax.Array, jax.Array]:
        found = Dropout(0.3, key())(jax.nn.softmax(scores, axis=-1).astype(dtype))
        return (found.astype(jnp.float32) * weigh).sum(), found

    grads, found = jax.grad(at_once, has_aux=True)(scores)
    expected_grads, expected = jax.grad(in_turn, has_aux=True)(scores)
    np.testing.assert_array_equal(found.astype(np.float32), expected.astype(np.float32))
    assert found.dtype == dtype
    np.testing.assert_allclose(grads, expected_grads, atol=1e-6 if dtype == jnp.float32 else 1e-2)


def test_members_of_a_population_draw_as_each_would_alone() -> None:
    rates, keys = jnp.asarray([0.1, 0.5, 0.5]), jax.random.split(key(3), 3)
    members = jax.vmap(lambda rate, key: Dropout(rate, key)(X))(rates, keys)
    for member, rate, own in zip(members, rates, keys, strict=True):
        np.testing.assert_array_equal(member, Dropout(rate, own)(X))


@pytest.mark.parametrize("shape", [(1 << 17,), (4, 512, 512), (2, 4, 8, 128, 128), (1 << 17, 8)])
def test_words_are_uniform_and_independent(shape: tuple[int, ...]) -> None:
    words, others = (np.asarray(random_words(key(seed), shape)) for seed in (1, 2))
    bits = (words[..., None] >> np.arange(32, dtype=np.uint32)) & 1
    n = words.size
    assert np.abs(bits.reshape(n, 32).mean(axis=0) - 0.5).max() < 5 * 0.5 / n**0.5
    counts = np.bincount((words >> 24).ravel(), minlength=256)
    statistic = ((counts - n / 256) ** 2 / (n / 256)).sum()  # Chi-squared with 255 degrees of freedom.
    assert 255 - 5 * 510**0.5 < statistic < 255 + 5 * 510**0.5
    uniform = words / 2**32 - 0.5
    neighbours = [others / 2**32 - 0.5, *(np.roll(uniform, 1, axis) for axis in range(len(shape)))]
    for neighbour in neighbours:
        assert abs((uniform * neighbour).mean() * 12) < 5 / n**0.5


def test_words_of_successive_steps_and_sites_do_not_repeat_with_a_shift() -> None:
    base = key(9)
    words = [
        np.asarray(random_words(jax.random.fold_in(jax.random.fold_in(base, step), site), (64, 256)))
        for step in range(8)
        for site in range(8)
    ]
    assert len(np.unique(np.concatenate([each.ravel() for each in words]))) > 0.999 * 64 * 64 * 256
