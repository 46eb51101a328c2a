"""Continuing with kept keys and values against computing whole windows again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.model.functional import merge
from tests.architectures import Architecture, architectures, random_batch
from tests.models import random_model

ROTARY = [architecture for architecture in architectures() if architecture.spec.positional_encoding == "rope"]
STEPS = 9


def stream(architecture: Architecture, padding: np.ndarray) -> tuple[dict[str, jax.Array], jax.Array]:
    """Left-padded windows of L items, with STEPS more items behind each."""
    schema, length = architecture.schema, architecture.schema.seq_length
    whole = architecture._replace(schema=schema.model_copy(update={"seq_length": length + STEPS}))
    drawn = random_batch(whole, len(padding), seed=1).inputs
    valid = np.arange(length + STEPS) >= padding[:, None]
    return {name: jnp.asarray(np.where(valid, drawn[name], 0)) for name in drawn}, jnp.asarray(valid)


def continued(
    architecture: Architecture, padding: np.ndarray
) -> tuple[list[dict[str, jax.Array]], list[dict[str, jax.Array]]]:
    """The outputs at the window's end and after each further item: with a cache, and of the whole window."""
    graphdef, params = random_model(architecture.schema, architecture.spec, seed=2)
    columns, valid = stream(architecture, padding)
    length = architecture.schema.seq_length

    def window(first: int, count: int = length) -> tuple[dict[str, jax.Array], jax.Array]:
        shown = slice(first, first + count)
        return {name: values[:, shown] for name, values in columns.items()}, valid[:, shown]

    call = jax.jit(lambda inputs, valid: merge(graphdef, params)(inputs, valid, last=1))
    proceed = jax.jit(lambda item, cache: merge(graphdef, params).proceed(item, cache))
    raw, cache = jax.jit(lambda inputs, valid: merge(graphdef, params).remember(inputs, valid))(*window(0))
    rolling = [raw]
    for step in range(STEPS):
        raw, cache = proceed(window(length + step, 1)[0], cache)
        rolling.append(raw)
    return rolling, [call(*window(step)) for step in range(STEPS + 1)]


@pytest.mark.parametrize("architecture", ROTARY, ids=lambda architecture: architecture.id)
def test_a_cache_gives_what_the_whole_window_gives_until_it_is_full(architecture: Architecture) -> None:
    padding = np.array([0, 3, architecture.schema.seq_length - 1])
    rolling, exact = continued(architecture, padding)
    for step, (found, expected) in enumerate(zip(rolling, exact, strict=True)):
        # Padding that is attended to counts as items: such windows are full from the beginning.
        same = padding >= step if architecture.spec.mask_padding else np.full(3, step == 0)
        for name in architecture.schema.targets:
            far = np.abs(np.asarray(found[name]) - np.asarray(expected[name])).max(axis=(1, 2))
            assert (far[same] < 1e-4).all(), (step, name)
    last = {name: np.abs(rolling[-1][name] - exact[-1][name]).max() for name in architecture.schema.targets}
    assert max(last.values()) > 1e-3, "a full window should differ, or this test compares nothing"


def test_one_layer_stays_exact() -> None:
    """What the first layer keeps depends on its own item alone, so nothing that left the window is in it."""
    architecture = next(each for each in ROTARY if each.spec.mask_padding)
    shallow = architecture._replace(spec=architecture.spec.model_copy(update={"num_layers": 1}))
    for found, expected in zip(*continued(shallow, np.array([0, 2])), strict=True):
        for name in shallow.schema.targets:
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-4)


def test_a_cache_keeps_its_types_where_layers_are_of_lower_precision() -> None:
    """So that it can be carried through a scan."""
    architecture = ROTARY[0]
    graphdef, params = random_model(architecture.schema, architecture.spec, seed=2)
    params = {
        part: jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), tree) if part == "layers" else tree
        for part, tree in params.items()
    }
    drawn = random_batch(architecture, 2, seed=0)
    inputs = {name: jnp.asarray(values) for name, values in drawn.inputs.items()}
    item = {name: values[:, -1:] for name, values in inputs.items()}
    with jax.numpy_dtype_promotion("standard"):
        raw, cache = merge(graphdef, params).remember(inputs, jnp.asarray(drawn.valid_mask))
        again, further = merge(graphdef, params).proceed(item, cache)
    assert cache.layers[0].key_BGSK.dtype == jnp.bfloat16
    types = [[leaf.dtype for leaf in jax.tree.leaves(each)] for each in (cache, further)]
    assert types[0] == types[1]
    assert {values.dtype for values in (raw | again).values()} == {jnp.dtype(jnp.float32)}


def test_learned_positions_are_refused() -> None:
    architecture = next(each for each in architectures() if each.spec.positional_encoding == "learned")
    graphdef, params = random_model(architecture.schema, architecture.spec, seed=2)
    drawn = random_batch(architecture, 2, seed=0)
    with pytest.raises(ValueError, match="rotary"):
        merge(graphdef, params).remember(
            {name: jnp.asarray(values) for name, values in drawn.inputs.items()},
            jnp.asarray(drawn.valid_mask),
        )
