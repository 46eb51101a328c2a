import dataclasses
import itertools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml

from seqjax.config.base import validate
from seqjax.config.optimization import NamedSpec
from seqjax.config.schema import Schema
from seqjax.config.train import TrainConfig
from seqjax.interop.names import from_sequifier, to_sequifier
from seqjax.model import functional
from seqjax.optim.optimizers import build_optimizer
from seqjax.training.feed import ResidentFeed, StreamedFeed
from seqjax.training.objective import Target, build_targets
from seqjax.training.placement import to_host
from seqjax.training.step import Constants, Recipe, build_step, empty_table, forward, new_state
from seqjax.windows.order import Order
from seqjax.windows.windows import listed, taken
from tests.architectures import architectures
from tests.batches import batch_of
from tests.training.conftest import FAST_TO_COMPILE, report

KEY = jax.random.key(5, impl="rbg")


def run(
    case,
    recipe,
    order,
    *,
    feed: type[ResidentFeed | StreamedFeed] = ResidentFeed,
    cuts=None,
    rate=0.01,
    accumulation=1,
):
    """Trains over an order; returns the state and the mean losses."""
    source = case.feed(feed)
    fold, placed = source.fold(build_step(recipe)), source.place(order, accumulation=accumulation)
    n_updates = -(-len(order) // accumulation)
    constants = Constants(jnp.full(n_updates, rate), KEY)
    state, table = case.state(recipe), empty_table(case.targets)
    borders = [0, *(cuts or []), n_updates]
    for low, high in itertools.pairwise(borders):
        state, table = fold((state, table), constants, placed, low, high)
    return to_host(state), report(table, case.targets, 0, n_updates).losses


def assert_close(one, other, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), one, other)


def test_accumulated_batches_are_one_large_batch(case):
    order = case.order(4)
    # SGD moves by the gradient itself, and three epochs let a wrong one be seen.
    large, _ = run(case, case.recipe(optimizer="SGD"), order, rate=0.3, accumulation=3)
    parts, _ = run(case, case.recipe(accumulation=3, optimizer="SGD"), order, rate=0.3, accumulation=3)
    assert_close(large.params, parts.params, rtol=1e-5, atol=1e-6)
    assert large.step == 2


def test_a_streamed_feed_gives_the_same_numbers(case):
    resident = run(case, case.recipe(dropout=0.1), case.order(4))
    streamed = run(case, case.recipe(dropout=0.1), case.order(4), feed=StreamedFeed)
    assert_close(resident[0].params, streamed[0].params, rtol=1e-5, atol=1e-6)
    assert resident[1].total == pytest.approx(streamed[1].total, rel=1e-5)


def test_dispatches_of_any_size_give_the_same_numbers(case):
    whole, _ = run(case, case.recipe(dropout=0.2), case.order(4))
    parts, _ = run(case, case.recipe(dropout=0.2), case.order(4), cuts=[1, 2, 5])
    jax.tree.map(np.testing.assert_array_equal, whole, parts)


def test_an_order_of_any_bounds_is_compiled_once(case, caplog):
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        run(case, case.recipe(), case.order(4), cuts=[1, 2, 5])
    compiled = [record.message for record in caplog.records if "Compiling jit(loop)" in record.message]
    assert len(compiled) == 1


def test_dropout_changes_with_the_step_and_not_with_the_run(case):
    recipe, order = case.recipe(dropout=0.4, optimizer="SGD"), Order(16, 8, shuffle=False)
    case = dataclasses.replace(case, windows=taken(case.windows, np.tile(np.arange(8), 2)))
    first, losses = run(case, recipe, order, rate=0.0)
    _, again = run(case, recipe, order, rate=0.0)
    _, single = run(case, recipe, Order(8, 8, shuffle=False), rate=0.0)
    assert losses == again
    # Without learning, two updates on one batch differ in nothing but their dropout.
    assert losses.total != pytest.approx(single.total, rel=1e-6)
    assert first.step == 2


def test_the_gradient_is_clipped_by_its_global_norm(case):
    order = Order(8, 8)
    free, _ = run(case, case.recipe(optimizer="SGD"), order, rate=1.0)
    clipped, _ = run(case, case.recipe(optimizer="SGD", clip=0.01), order, rate=1.0)
    steps = [
        jax.tree.map(lambda a, b: np.asarray(b) - a, state.params, case.params) for state in (free, clipped)
    ]
    norms = [np.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(step))) for step in steps]
    assert norms[0] > 0.1
    assert norms[1] == pytest.approx(0.01, rel=1e-3)
    scale = 0.01 / (norms[0] + 1e-6)
    assert_close(jax.tree.map(lambda leaf: leaf * scale, steps[0]), steps[1], rtol=1e-3, atol=1e-6)


def test_a_value_that_is_not_finite_is_reported_with_its_update(case):
    recipe = case.recipe()
    bad = jax.tree.map(jnp.array, case.params) | {
        "decoder": jax.tree.map(lambda leaf: leaf * jnp.inf, case.params["decoder"])
    }
    source, order = case.feed(), case.order(4)
    fold = source.fold(build_step(recipe))
    carry = new_state(bad, recipe.optimizer), empty_table(case.targets)
    _, table = fold(carry, Constants(jnp.zeros(len(order)), KEY), source.place(order), 2, 5)
    assert report(table, case.targets, 2, 5).first_bad == 2


@pytest.mark.parametrize("architecture", architectures(), ids=lambda architecture: architecture.id)
def test_every_architecture_trains_a_step(architecture):
    schema, rng = architecture.schema, np.random.default_rng(0)
    columns = {
        name: rng.integers(0, schema.n_classes[name], 40).astype(np.int16)
        if kind == "categorical"
        else rng.normal(size=40).astype(np.float32)
        for name, kind in schema.columns.items()
    }
    slots = schema.seq_length + 1
    length = np.asarray([slots, 1, 3, slots])
    windows = listed(columns, start=np.arange(4), length=length, seq_length=schema.seq_length)
    graphdef, params = functional.init(schema, architecture.spec, seed=0)
    before = to_host(params)
    criteria = {"categorical": "CrossEntropyLoss", "real": "MSELoss"}
    targets = tuple(Target(name, criteria[kind]) for name, kind in schema.targets.items())
    recipe = Recipe(
        forward(graphdef, schema.inputs), targets, build_optimizer(NamedSpec.of("Adam")), 1, 0.5, 0.1
    )
    source = ResidentFeed(windows, tuple(schema.columns), compiler_options=FAST_TO_COMPILE)
    fold, order = source.fold(build_step(recipe)), source.place(Order(4, 5, shuffle=False))
    carry = new_state(params, recipe.optimizer), empty_table(targets)
    state, table = fold(carry, Constants(jnp.full(1, 1e-2), KEY), order, 0, 1)
    found = report(table, targets, 0, 1)
    assert found.first_bad == -1
    assert np.isfinite(found.losses.total)
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), before, to_host(state.params))
    assert all(jax.tree.leaves(moved)), moved


def test_weights_follow_those_of_sequifier(shared):
    """Two epochs of an AdamW run that sequifier made, fed the same windows in the same order."""
    folder = shared / "golden/forward"
    golden = np.load(folder / "train_fixture_TR1.npz")
    values = yaml.safe_load((folder / "train_fixture_TR1.yaml").read_text())
    values["model_spec"]["mask_padding"] = False
    config = validate(TrainConfig, values, "train_fixture_TR1.yaml")
    schema = Schema(
        n_classes={"cat1": 6, "cat2": 5},
        categorical_inputs=("cat1", "cat2"),
        real_inputs=("val",),
        targets=config.target_column_types,
        seq_length=8,
    )
    windows, slots = _sequifier_windows(golden), 9
    assert windows.seq_length == slots - 1
    graphdef, shapes = functional.abstract(schema, config.model_spec)
    params = from_sequifier(_weights(golden, "init__"), shapes, schema)
    spec = config.training_spec
    targets = build_targets(schema, spec)
    recipe = Recipe(
        forward(graphdef, schema.inputs), targets, build_optimizer(spec.optimizer), 1, spec.gradient_clip
    )
    batches = len(golden["perm"]) // 32  # sequifier drops the rest
    source = ResidentFeed(taken(windows, golden["perm"][: batches * 32]), tuple(schema.columns))
    fold, placed = source.fold(build_step(recipe)), source.place(Order(batches * 32, 32, shuffle=False))
    state = new_state(jax.tree.map(jnp.asarray, params), recipe.optimizer)
    for epoch in (1, 2):
        rates = jnp.full(batches, spec.learning_rate * 0.9 ** (epoch - 1))
        state, _ = fold((state, empty_table(targets)), Constants(rates, KEY), placed, 0, batches)
        found = to_sequifier(to_host(state.params), schema, config.model_spec)
        for name, expected in _weights(golden, f"epoch{epoch}__").items():
            np.testing.assert_allclose(
                found[name], expected, atol=1e-5, err_msg=f"{name} after epoch {epoch}"
            )


def test_a_population_differs_in_traced_values_and_each_member_trains_as_it_would_alone(case):
    recipe, batch = (
        case.recipe(dropout=0.1, clip=0.5),
        case.windows.gather(case.order(8).batch(0), case.columns),
    )
    batch = batch_of(jax.tree.map(jnp.asarray, {**batch.columns}), jnp.asarray(batch.padding))
    members = [
        {
            "dropout": jnp.float32(dropout),
            "clip": jnp.float32(clip),
            "targets": {
                "item": {
                    "loss_weight": jnp.float32(0.7 + dropout),
                    "class_weights": jnp.asarray(case.targets[0].class_weights) + dropout,
                    "label_smoothing": jnp.float32(dropout),
                },
                "value": {"loss_weight": jnp.float32(1.3)},
            },
            "optimizer": {"weight_decay": jnp.float32(decay), "betas": (jnp.float32(0.9), jnp.float32(b2))},
        }
        for dropout, clip, decay, b2 in [(0.0, 0.5, 0.0, 0.999), (0.3, 1e-3, 0.1, 0.9)]
    ]
    rates, keys = jnp.asarray([[1e-2], [3e-3]]), jax.random.split(KEY, 2)
    constants = [Constants(rates[i], keys[i], members[i]) for i in range(2)]
    step = build_step(recipe)

    def one(state, constants):
        carry = state, jnp.asarray(empty_table(case.targets))
        return step(step(carry, batch, jnp.int32(0), constants), batch, jnp.int32(0), constants)

    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *constants)
    states = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), case.state(recipe))
    together = jax.jit(jax.vmap(one))(states, stacked)
    for index in range(2):
        alone = jax.jit(one)(case.state(recipe), constants[index])
        member = jax.tree.map(lambda leaf, index=index: leaf[index], together)
        assert_close(alone[0].params, member[0].params, rtol=1e-4, atol=1e-6)
        assert_close(alone[1], member[1], rtol=1e-5)
    first, second = together[0].params["decoder"]["0"]["bias"]
    assert not np.allclose(first, second)


def test_traced_values_are_those_that_are_compiled_in(case):
    order, constants = case.order(4), Constants(jnp.full(6, 0.01), KEY)
    traced = {
        "dropout": jnp.float32(0.2),
        "clip": jnp.float32(0.3),
        "targets": {"item": {"label_smoothing": jnp.float32(0.1)}},
        "optimizer": {"weight_decay": jnp.float32(0.3)},
    }
    fixed = dataclasses.replace(
        case.recipe(dropout=0.2, clip=0.3),
        targets=(dataclasses.replace(case.targets[0], label_smoothing=0.1), case.targets[1]),
        optimizer=build_optimizer(NamedSpec.of("AdamW", weight_decay=0.3)),
    )
    found = []
    for recipe, values in ((fixed, None), (case.recipe(), traced)):
        feed = case.feed()
        fold, carry = feed.fold(build_step(recipe)), (case.state(recipe), empty_table(case.targets))
        found.append(fold(carry, constants._replace(values=values), feed.place(order), 0, 6))
    assert_close(found[0][0].params, found[1][0].params, rtol=1e-4, atol=1e-5)
    assert_close(found[0][1], found[1][1], rtol=1e-5)


def _weights(golden, prefix):
    return {name.removeprefix(prefix): golden[name] for name in golden if name.startswith(prefix)}


def _sequifier_windows(golden):
    """Sequifier's loss leaves out what its first target says is padding: leading zeros of `cat1`."""
    columns = {name: golden[f"win__{name}"] for name in ("cat1", "cat2", "val")}
    count, slots = columns["cat1"].shape
    first = (columns["cat1"] != 0).argmax(axis=1)
    # A first real item in slot 0 is an input only; one in slot k is the target of slot k - 1.
    length = slots - first
    flat = {
        name: values.reshape(-1).astype(np.float32 if name == "val" else np.int8)
        for name, values in columns.items()
    }
    return listed(flat, start=np.arange(count) * slots + first, length=length, seq_length=slots - 1)
