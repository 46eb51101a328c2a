"""Rotary positions turn pairs of halves, and products depend on distances alone."""

import jax.numpy as jnp
import numpy as np

from seqjax.model.attention import inverse_frequencies, rotate, rotation


def test_frequencies() -> None:
    np.testing.assert_allclose(inverse_frequencies(4, 100.0), [1, 0.1], rtol=1e-6)


def test_turns_each_pair_of_halves_by_its_angle() -> None:
    x = np.asarray([1, 2, 3, 4], np.float32)
    turned = np.asarray(rotate(jnp.asarray(x)[None, None, None], rotation(np.array([3]), 4, 100.0)))[0, 0, 0]
    for first, second, angle in [(0, 2, 3.0), (1, 3, 0.3)]:
        expected = (x[first] + 1j * x[second]) * np.exp(1j * angle)
        np.testing.assert_allclose(turned[first] + 1j * turned[second], expected, rtol=1e-5)


def test_products_depend_on_the_distance() -> None:
    rng = np.random.default_rng(0)
    q, k = (jnp.asarray(rng.normal(size=(1, 1, 1, 8)), jnp.float32) for _ in range(2))

    def product(at_q: int, at_k: int) -> float:
        turned = [rotate(x, rotation(jnp.asarray([at]), 8, 50.0)) for x, at in ((q, at_q), (k, at_k))]
        return float(jnp.sum(turned[0] * turned[1]))

    np.testing.assert_allclose(product(7, 4), product(23, 20), rtol=1e-4)
    assert abs(product(7, 4) - product(7, 5)) > 1e-3


def test_constant_and_traced_positions_agree() -> None:
    for constant, traced in zip(rotation(np.arange(5), 6, 1e4), rotation(jnp.arange(5), 6, 1e4), strict=True):
        np.testing.assert_allclose(constant, traced, atol=1e-6)
