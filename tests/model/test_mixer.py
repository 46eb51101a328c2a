"""A second mixer, of a few lines, goes through everything that attention goes through."""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seqjax.artifacts.model_files import write_onnx
from seqjax.config.model import ModelSpec
from seqjax.config.schema import Schema
from seqjax.interop.names import from_sequifier, parameters, to_sequifier
from seqjax.model import functional
from seqjax.model.functional import layer_types, merge
from seqjax.model.layers import Linear
from seqjax.model.mixer import Context
from seqjax.model.transformer import MIXERS, continuation_problem
from tests.batches import batch_of
from tests.models import card_of, random_model

LENGTH, PADDING = 7, np.array([0, 2, 5, 6])


class Sums(NamedTuple):
    """The memory of a running mean."""

    total_BD: jax.Array
    count_B1: jax.Array


class RunningMean(nnx.Module):
    """The mean of the projected items so far; padding does not count."""

    name = "mean"
    no_memory = None

    def __init__(self, dim, *, rng):
        self.values = Linear(dim, dim, rng=rng)

    @classmethod
    def from_spec(cls, spec, *, rng):
        """Of the model's width."""
        return cls(spec.dim_model, rng=rng)

    def __call__(self, x_BTD, context, *, drop, last=None):
        """The means at the last positions."""
        mean_BTD = drop(self.prefix(x_BTD, context)[0])
        return mean_BTD if last is None else mean_BTD[:, x_BTD.shape[1] - last :]

    def prefix(self, x_BTD, context):
        """All means, and the sums at the end."""
        valid_BT1 = jnp.ones_like(x_BTD[..., :1]) if context.valid_BT is None else context.valid_BT[..., None]
        weight_BT1 = valid_BT1.astype(jnp.float32)
        total_BTD = jax.lax.cumsum(weight_BT1 * self.values(x_BTD), axis=1)
        count_BT1 = jax.lax.cumsum(weight_BT1, axis=1)
        return total_BTD / jnp.maximum(count_BT1, 1.0), Sums(total_BTD[:, -1], count_BT1[:, -1])

    def step(self, x_B1D, memory, context):
        """One more item."""
        del context
        sums = Sums(memory.total_BD + self.values(x_B1D)[:, 0], memory.count_B1 + 1)
        return (sums.total_BD / sums.count_B1)[:, None], sums


class Forgetful(RunningMean):
    """One that cannot be continued."""

    no_memory = "this mean has no memory. Use exact."


class Hybrid(ModelSpec):
    """Attention below, a mean above."""

    @property
    def mixers(self):
        """By layer."""
        return ("attention", "running_mean")


SCHEMA = Schema(
    n_classes={"item": 5},
    categorical_inputs=("item",),
    real_inputs=("price",),
    targets={"item": "categorical", "price": "real"},
    seq_length=LENGTH,
)
SPEC = Hybrid(
    initial_embedding_dim=8,
    feature_embedding_dims={"item": 5, "price": 3},
    dim_model=8,
    n_head=2,
    dim_feedforward=12,
    num_layers=2,
    positional_encoding="rope",
)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MIXERS, "running_mean", RunningMean)


def windows(slots: int) -> tuple[dict[str, jax.Array], jax.Array]:
    rng = np.random.default_rng(0)
    valid = np.arange(slots) >= PADDING[:, None]
    item = np.where(valid, rng.integers(1, 5, valid.shape), 0).astype(np.int32)
    price = np.where(valid, rng.normal(size=valid.shape), 0).astype(np.float32)
    return {"item": jnp.asarray(item), "price": jnp.asarray(price)}, jnp.asarray(valid)


def loss(params: functional.Params, graphdef: functional.GraphDef) -> jax.Array:
    inputs, valid = windows(LENGTH)
    raw = merge(graphdef, params)(inputs, valid, last=1)
    return jnp.square(raw["price"] - 1).mean() - jax.nn.log_softmax(raw["item"])[..., 3].mean()


def test_it_trains() -> None:
    graphdef, params = functional.init(SCHEMA, SPEC, seed=0)
    before, grads = jax.value_and_grad(loss)(params, graphdef)
    assert float(jnp.abs(grads["layers"]["1"]["mean"]["values"]["weight"]).max()) > 0
    moved = jax.tree.map(lambda leaf, grad: leaf - 0.05 * grad, params, grads)
    assert loss(moved, graphdef) < before


def test_a_memory_gives_what_the_whole_window_gives() -> None:
    graphdef, params = random_model(SCHEMA, SPEC, seed=1)
    model, (columns, valid) = merge(graphdef, params), windows(LENGTH + 3)

    def shown(end: int) -> dict[str, jax.Array]:
        return {name: values[:, :end] for name, values in columns.items()}

    raw, cache = model.remember(shown(LENGTH), valid[:, :LENGTH])
    exact = model(shown(LENGTH + 3), valid)
    for step in range(4):
        for name, values in raw.items():
            # Attention's ring is full once an item leaves it, which padding puts off.
            rows = step <= PADDING
            expected = exact[name][:, LENGTH - 1 + step]
            np.testing.assert_allclose(values[rows, 0], expected[rows], atol=1e-5)
        if step < 3:
            item = {name: values[:, LENGTH + step][:, None] for name, values in columns.items()}
            raw, cache = model.proceed(item, cache)


def test_it_exports(tmp_path: Path) -> None:
    graphdef, params = random_model(SCHEMA, SPEC, seed=1)
    slots, _ = windows(LENGTH + 1)
    sample = batch_of({name: np.asarray(values) for name, values in slots.items()}, PADDING.astype(np.int32))
    difference = write_onnx(
        tmp_path / "x.onnx", params=params, graphdef=graphdef, card=card_of(SCHEMA, SPEC), sample=sample
    )
    assert difference < 1e-5


def test_its_parameters_have_names_and_kinds() -> None:
    graphdef, params = functional.init(SCHEMA, SPEC, seed=0)
    names = {row.name: row.path for row in parameters(params, SCHEMA)}
    assert names["layers.1.mean.values.weight"] == ("layers", "1", "mean", "values", "weight")
    assert layer_types(graphdef)[names["layers.1.mean.values.bias"]] == "linear"
    written = to_sequifier(params, SCHEMA, SPEC)
    assert [name for name in written if "inv_freq" in name] == ["layers.0.attn.rope.inv_freq"]
    back = from_sequifier(written, params, SCHEMA)
    jax.tree.map(np.testing.assert_array_equal, back, params)


def test_a_mixer_without_a_memory_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MIXERS, "running_mean", Forgetful)
    graphdef, params = functional.init(SCHEMA, SPEC, seed=0)
    assert continuation_problem(SPEC) == Forgetful.no_memory
    with pytest.raises(ValueError, match="this mean has no memory"):
        merge(graphdef, params).remember(*windows(LENGTH))


def test_what_layers_share_is_made_once() -> None:
    context = Context(np.arange(3))
    assert context.shared(_zeros, 1) is context.shared(_zeros, 1)
    assert context.shared(_zeros, 2).shape == (3, 2)


def _zeros(context: Context, width: int) -> np.ndarray:
    return np.zeros((context.length, width))
