"""What every architecture promises: shapes, causality, blindness to padding, gradients, dropout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.typing import DTypeLike

from seqjax.config.base import validate
from seqjax.config.model import ModelSpec
from seqjax.model.dropout import Dropout
from seqjax.model.functional import abstract, init, merge
from seqjax.model.layers import DirectEncoder, Encoder
from tests.architectures import Architecture, architectures, random_batch

ALL = pytest.mark.parametrize("architecture", architectures(), ids=lambda architecture: architecture.id)
MASKED = pytest.mark.parametrize(
    "architecture",
    [architecture for architecture in architectures() if architecture.spec.mask_padding],
    ids=lambda architecture: architecture.id,
)
BATCH = 3


class Given(DirectEncoder):
    """In place of an encoder: embeddings that do not depend on the column."""

    def __init__(self, embedded_BTE: jax.Array) -> None:
        self.embedded_BTE = embedded_BTE

    def __call__(self, values_BT: jax.Array) -> jax.Array:
        return self.embedded_BTE


class CountingDropout(Dropout):
    """Keeps everything, and counts the sites."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, x: jax.Array) -> jax.Array:
        self.shapes.append(x.shape)
        return x

    def softmax(self, scores: jax.Array, dtype: DTypeLike) -> jax.Array:
        return self(jax.nn.softmax(scores, axis=-1).astype(dtype))


def strange_params(architecture: Architecture):
    """Parameters that are all different from 0 and 1, so that each of them matters."""
    graphdef, params = init(architecture.schema, architecture.spec, seed=5)
    rng = np.random.default_rng(6)
    return graphdef, jax.tree.map(
        lambda leaf: leaf + jnp.asarray(0.3 * rng.normal(size=leaf.shape), leaf.dtype), params
    )


def on_device(architecture: Architecture, batch: int, seed: int) -> tuple[dict[str, jax.Array], jax.Array]:
    """The inputs and the mask of a random batch."""
    drawn = random_batch(architecture, batch, seed)
    return {name: jnp.asarray(values) for name, values in drawn.inputs.items()}, jnp.asarray(drawn.valid_mask)


def dropout_key(seed: int) -> jax.Array:
    return jax.random.key(seed, impl="rbg")


@ALL
def test_outputs_of_the_last_positions_are_those_of_all(architecture: Architecture) -> None:
    graphdef, params = strange_params(architecture)
    schema, spec = architecture.schema, architecture.spec
    inputs, valid = on_device(architecture, BATCH, seed=0)
    last = spec.prediction_length

    @jax.jit
    def forward(params, inputs, valid):
        model = merge(graphdef, params)
        return model(inputs, valid), model.predict(inputs, valid)

    raw, predicted = forward(params, inputs, valid if spec.mask_padding else None)
    assert set(raw) == set(predicted) == set(schema.targets)
    for name, kind in schema.targets.items():
        assert raw[name].shape == (BATCH, schema.seq_length, schema.head_width(name))
        assert raw[name].dtype == jnp.float32
        newest = raw[name][:, -last:]
        expected = jax.nn.log_softmax(newest, axis=-1) if kind == "categorical" else newest
        np.testing.assert_allclose(predicted[name], expected, atol=5e-6)


@ALL
def test_hidden_states_have_the_width_of_the_model(architecture: Architecture) -> None:
    graphdef, params = abstract(architecture.schema, architecture.spec)
    batch = random_batch(architecture, BATCH, seed=0)
    hidden, embedded = jax.eval_shape(
        lambda params, *batch: (
            merge(graphdef, params).hidden(*batch),
            merge(graphdef, params).embed(*batch),
        ),
        params,
        batch.inputs,
        batch.valid_mask,
    )
    assert hidden.shape == (BATCH, architecture.schema.seq_length, architecture.spec.dim_model)
    assert embedded.shape == (BATCH, architecture.spec.prediction_length, architecture.spec.dim_model)


@ALL
def test_every_parameter_has_a_finite_gradient(architecture: Architecture) -> None:
    graphdef, params = strange_params(architecture)
    batch = on_device(architecture, BATCH, seed=1)

    @jax.jit
    @jax.grad
    def gradient(params):
        outputs = merge(graphdef, params)(*batch)
        return sum(jnp.sum(jnp.sin(values)) for values in outputs.values())

    for path, leaf in jax.tree_util.tree_flatten_with_path(gradient(params))[0]:
        assert np.isfinite(leaf).all(), path
        assert np.any(leaf != 0), path


@ALL
def test_a_position_sees_itself_and_real_items_before_it(architecture: Architecture) -> None:
    graphdef, params = strange_params(architecture)
    schema, spec = architecture.schema, architecture.spec
    inputs, valid = on_device(architecture, BATCH, seed=2)
    dims = schema.embedding_dims(spec.initial_embedding_dim, spec.feature_embedding_dims)
    length = schema.seq_length
    rng = np.random.default_rng(3)
    embedded = [jnp.asarray(rng.normal(size=(BATCH, length, width)), jnp.float32) for width in dims.values()]
    probe = jnp.asarray(rng.normal(size=(BATCH, spec.dim_model)), jnp.float32)

    @jax.jit
    def gradients(embedded):
        """How each position of each embedding acts on position t, for every t."""

        def output(embedded, t):
            model = merge(graphdef, params)
            encoders: list[Encoder] = [Given(each) for each in embedded]
            model.encoder = nnx.List(encoders)
            return jnp.sum(jnp.take(model.hidden(inputs, valid), t, axis=1) * probe)

        return jax.vmap(jax.grad(output), in_axes=(None, 0))(embedded, jnp.arange(length))

    real = np.asarray(valid) if spec.mask_padding else np.ones((BATCH, length), bool)
    earlier = np.tril(np.ones((length, length), bool))[:, None] & real[None]
    seen = earlier | np.eye(length, dtype=bool)[:, None]
    for gradient in gradients(embedded):
        acts = np.any(np.asarray(gradient) != 0, axis=-1)
        np.testing.assert_array_equal(acts, np.broadcast_to(seen, acts.shape))


@MASKED
def test_a_padded_window_equals_a_cropped_one(architecture: Architecture) -> None:
    graphdef, params = strange_params(architecture)
    length = architecture.schema.seq_length
    padding = 2
    batch = random_batch(architecture, 1, seed=4)
    rubbish = {
        name: np.where(np.arange(length) < padding, values[:, ::-1], values)
        for name, values in batch.inputs.items()
    }
    valid = jnp.arange(length)[None] >= padding
    positions = jnp.arange(padding, length)
    cropped = {name: values[:, padding:] for name, values in batch.inputs.items()}

    @jax.jit
    def outputs(params, inputs, valid, positions=None):
        return merge(graphdef, params)(inputs, valid, positions=positions)

    padded = outputs(params, rubbish, valid)
    alone = outputs(params, cropped, valid[:, padding:], positions)
    for name, values in alone.items():
        np.testing.assert_allclose(padded[name][:, padding:], values, atol=5e-6)


def test_rotary_models_do_not_depend_on_where_a_window_begins() -> None:
    architecture = next(each for each in architectures() if each.spec.positional_encoding == "rope")
    graphdef, params = strange_params(architecture)
    inputs, valid = on_device(architecture, 2, seed=4)

    @jax.jit
    def hidden(positions):
        return merge(graphdef, params).hidden(inputs, valid, positions=positions)

    here, there = (hidden(jnp.arange(valid.shape[1]) + start) for start in (0, 9))
    np.testing.assert_allclose(here, there, atol=2e-5)


def test_masked_models_ask_for_the_mask() -> None:
    architecture = next(each for each in architectures() if each.spec.mask_padding)
    model = merge(*init(architecture.schema, architecture.spec, seed=0))
    with pytest.raises(ValueError, match="mask_padding"):
        model(on_device(architecture, 1, seed=0)[0])


@ALL
def test_dropout_sites(architecture: Architecture) -> None:
    graphdef, params = abstract(architecture.schema, architecture.spec)
    batch = random_batch(architecture, BATCH, seed=0)
    dropout = CountingDropout()
    jax.eval_shape(
        lambda params, inputs, valid: merge(graphdef, params)(inputs, valid, dropout=dropout),
        params,
        batch.inputs,
        batch.valid_mask,
    )
    spec, length = architecture.spec, architecture.schema.seq_length
    columns = architecture.schema.embedding_dims(spec.initial_embedding_dim, spec.feature_embedding_dims)
    layer = [
        (BATCH, spec.n_head, length, length),
        (BATCH, length, spec.dim_model),
        (BATCH, length, spec.dim_feedforward),
        (BATCH, length, spec.dim_model),
    ]
    assert dropout.shapes == [(BATCH, length, width) for width in columns.values()] + layer * spec.num_layers


@pytest.mark.parametrize("architecture", architectures()[::5], ids=lambda architecture: architecture.id)
def test_dropout_rates_differ_under_vmap(architecture: Architecture) -> None:
    graphdef, params = strange_params(architecture)
    batch = on_device(architecture, BATCH, seed=0)

    @jax.jit
    def outputs(rates, keys):
        def member(rate, key):
            return merge(graphdef, params)(*batch, dropout=Dropout(rate, key))

        return jax.vmap(member)(rates, keys), merge(graphdef, params)(*batch)

    members, undropped = outputs(jnp.asarray([0.0, 0.5, 0.5]), jax.random.split(dropout_key(7), 3))
    for name, values in undropped.items():
        np.testing.assert_allclose(members[name][0], values, atol=5e-6)
        assert np.abs(members[name][1] - values).max() > 1e-2
        assert np.abs(members[name][1] - members[name][2]).max() > 1e-2


def test_dropout_at_rate_zero_changes_nothing_at_all() -> None:
    architecture = architectures()[8]
    graphdef, params = strange_params(architecture)
    batch = on_device(architecture, BATCH, seed=0)

    @jax.jit
    def hidden(rate, key):
        model = merge(graphdef, params)
        dropped = model.hidden(*batch, dropout=Dropout(rate, key))
        return dropped, model.hidden(*batch)

    dropped, undropped = hidden(0.0, dropout_key(1))
    np.testing.assert_allclose(dropped, undropped, atol=1e-6)


def test_initial_values_are_distributed_as_in_sequifier() -> None:
    mixed = next(each for each in architectures() if "mixed" in each.id)
    values = {
        "initial_embedding_dim": 96,
        "joint_embedding_dim": 128,
        "dim_model": 128,
        "dim_feedforward": 130,
    }
    values |= {"n_head": 8, "num_layers": 1, "normalization": "layer_norm"}
    dims = {"item": 32, "shop.id": 32, "price": 32}
    spec = validate(ModelSpec, {**values, "feature_embedding_dims": dims}, "test")
    schema = mixed.schema.model_copy(update={"seq_length": 50, "n_classes": {"item": 100, "shop.id": 90}})
    _, params = init(schema, spec, seed=0)
    layer = params["layers"]["0"]
    tables = [params["encoder"]["0"], params["encoder"]["1"], *params["pos_encoder"].values()]
    for table in [*tables, params["joint_embedding_layer"], params["decoder"]["0"]]:
        assert np.std(table["weight"]) == pytest.approx(0.02, rel=0.1)
        assert abs(np.mean(table["weight"])) < 0.002
    dense = [(layer["attn"][name], 128) for name in ("wq", "wk", "wv", "wo")]
    dense += [(layer["ff"]["w1"], 128), (layer["ff"]["w2"], 128), (layer["ff"]["w3"], 130)]
    for linear, fan_in in [*dense, (params["encoder"]["2"], 1)]:
        for leaf in linear.values():
            assert np.abs(leaf).max() <= fan_in**-0.5
            assert np.std(leaf) == pytest.approx((3 * fan_in) ** -0.5, rel=0.05 if leaf.size > 1000 else 0.3)
    for zeros in [
        params["joint_embedding_layer"],
        params["decoder"]["0"],
        layer["norm1"],
        params["final_norm"],
    ]:
        assert not np.any(zeros["bias"])
    for norm in [layer["norm1"], layer["norm2"], params["final_norm"]]:
        assert np.all(norm["weight"] == 1)
