"""A dense layer maps the last axis, in the dtype of its weight."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.model.layers import Linear

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(2, 3), (2, 4, 3), (2, 4, 5, 3)])
def test_maps_the_last_axis(shape: tuple[int, ...]) -> None:
    layer = Linear(3, 7, rng=RNG)
    assert layer.bias is not None
    layer.bias.set_value(jnp.ones(7))
    x = RNG.normal(size=shape).astype(np.float32)
    expected = x @ np.asarray(layer.weight[...]).T + 1
    np.testing.assert_allclose(layer(jnp.asarray(x)), expected, atol=1e-6)


def test_multiplies_two_dimensions_only() -> None:
    layer = Linear(3, 7, rng=RNG, use_bias=False)
    program = jax.make_jaxpr(layer)(jnp.ones((2, 4, 3)))
    products = [equation for equation in program.eqns if equation.primitive.name == "dot_general"]
    assert [str(variable.aval) for variable in products[0].outvars] == ["float32[8,7]"]


def test_computes_in_the_dtype_of_the_weight() -> None:
    layer = Linear(3, 7, rng=RNG, use_bias=False)
    layer.weight.set_value(layer.weight[...].astype(jnp.bfloat16))
    assert layer(jnp.ones((2, 3))).dtype == jnp.bfloat16
