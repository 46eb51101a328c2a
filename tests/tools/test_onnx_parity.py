"""A slice of the comparison of exported graphs with JAX over random architectures."""

import jax.numpy as jnp
import numpy as np
import pytest

from tools import onnx_parity
from tools.onnx_parity import FARTHER, TOLERANCE, Errors, compare
from tools.wide import in_float64


@pytest.mark.parametrize("magnified", [False, True])
def test_random_architectures_compute_what_jax_computes(magnified: bool) -> None:
    reported: list[tuple[int, Errors]] = []
    errors, failed = compare(
        4, 3, lambda number, found: reported.append((number, found)), magnified=magnified
    )
    assert len(errors) == 4
    assert failed == []
    assert 0 < max(found.between for found in errors) <= TOLERANCE
    assert reported == list(enumerate(errors, start=1))


def test_an_error_above_the_tolerance_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    far = Errors(2 * TOLERANCE, of_jax=1, of_graph=1e-9)
    monkeypatch.setattr(onnx_parity, "largest_errors", lambda case, folder: far)
    assert len(compare(2, 0, lambda number, found: None)[1]) == 2
    assert compare(2, 0, lambda number, found: None, magnified=True)[1] == []


def test_a_graph_may_be_about_as_far_from_float64_as_rounding_is() -> None:
    near, far = 1e-4 / FARTHER, 0.9e-4 / FARTHER
    assert Errors(TOLERANCE).is_rounding
    assert not Errors(2 * TOLERANCE).is_rounding
    assert Errors(1e-4, of_jax=near, of_graph=1e-4, of_rounding=0).is_rounding
    assert Errors(1e-4, of_jax=0, of_graph=1e-4, of_rounding=near).is_rounding
    assert not Errors(1e-4, of_jax=far, of_graph=1e-4, of_rounding=far).is_rounding


def test_a_function_in_float64() -> None:
    def norm(x: jnp.ndarray) -> list[jnp.ndarray]:
        centred = x.astype(jnp.float32) - jnp.mean(x, dtype=jnp.float32)
        return [jnp.where(x > 0, centred / jnp.sqrt(jnp.mean(centred * centred)), jnp.float32(0)), x > 0]

    x = np.array([1e4, 1e4 + 0.001953125, 1e4 + 0.0048828125, -1], np.float32)
    wide = x.astype(np.float64)
    centred = wide - wide.mean()
    expected = np.where(x > 0, centred / np.sqrt((centred**2).mean()), 0)
    found, positive = in_float64(norm, x)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-14)
    assert np.abs(np.asarray(norm(jnp.asarray(x))[0]) - expected).max() > 1e-9
    assert positive.tolist() == [True, True, True, False]
    (moved, _), (again, _) = (in_float64(norm, x, rounding=np.random.default_rng(seed)) for seed in (1, 2))
    for other in (expected, again):
        assert 1e-9 < np.abs(moved - other).max() < 1
