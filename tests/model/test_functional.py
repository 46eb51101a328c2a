"""A model's parameters are plain data, and the module comes back from them as it was."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.model.functional import abstract, init, merge, split
from tests.architectures import Architecture, architectures

ALL = pytest.mark.parametrize("architecture", architectures(), ids=lambda architecture: architecture.id)


def nodes(tree):
    yield tree
    if isinstance(tree, dict):
        for value in tree.values():
            yield from nodes(value)


@ALL
def test_parameters_are_plain_dicts_that_round_trip(architecture: Architecture) -> None:
    graphdef, params = init(architecture.schema, architecture.spec, seed=1)
    for node in nodes(params):
        assert type(node) is dict or isinstance(node, jax.Array)
        if type(node) is dict:
            assert all(type(key) is str for key in node)
    again_def, again = split(merge(graphdef, params))
    assert again_def == graphdef
    assert hash(again_def) == hash(graphdef)
    assert jax.tree.structure(again) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, again, params)


@ALL
def test_abstract_parameters_have_the_shapes_of_real_ones(architecture: Architecture) -> None:
    graphdef, params = init(architecture.schema, architecture.spec, seed=1)
    abstract_def, shapes = abstract(architecture.schema, architecture.spec)
    assert abstract_def == graphdef
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), params) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), shapes
    )
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(shapes))


def test_more_than_ten_layers_keep_their_order() -> None:
    architecture = architectures()[0]
    spec = architecture.spec.model_copy(update={"num_layers": 12})
    graphdef, params = init(architecture.schema, spec, seed=1)
    for index in range(12):
        params["layers"][str(index)]["norm1"]["weight"] = jnp.full((spec.dim_model,), float(index))

    @jax.jit
    def first_weights(params):
        return jnp.stack([layer.norm1.weight[0] for layer in merge(graphdef, params).layers])

    np.testing.assert_array_equal(first_weights(params), np.arange(12.0))


def test_seed_decides_the_parameters() -> None:
    architecture = architectures()[0]
    one, same, other = (init(architecture.schema, architecture.spec, seed=seed)[1] for seed in (1, 1, 2))
    jax.tree.map(np.testing.assert_array_equal, one, same)
    assert np.any(one["layers"]["0"]["attn"]["wq"]["weight"] != other["layers"]["0"]["attn"]["wq"]["weight"])
