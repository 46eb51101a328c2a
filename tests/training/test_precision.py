import dataclasses
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.config.model import LayerType
from seqjax.config.optimization import NamedSpec
from seqjax.errors import TrainingError
from seqjax.model.functional import layer_types
from seqjax.optim.optimizers import build_optimizer
from seqjax.training.placement import to_host
from seqjax.training.precision import (
    FIRST_SCALE,
    GROWTH_INTERVAL,
    LossScale,
    Precision,
    build_precision,
    next_scale,
    rounded,
)
from seqjax.training.step import Constants, Recipe, build_step, empty_table, forward, new_state
from tests.training.conftest import report


@dataclasses.dataclass(frozen=True)
class Machine:
    """What is asked of a device."""

    platform: str
    compute_capability: str = "0"

    def memory_stats(self):
        """Nothing."""


CPU, HOPPER, TURING = Machine("cpu"), Machine("gpu", "9.0"), Machine("gpu", "7.5")
KEY = jax.random.key(0)
LAYERS = get_args(LayerType)


def names(formats):
    return {kind: jnp.dtype(dtype).name for kind, dtype in formats.items()}


def test_autocast_computes_in_bfloat16_where_the_device_has_it():
    autocast = {
        name: build_precision(None, autocast=True, device=device)
        for name, device in (("cpu", CPU), ("hopper", HOPPER), ("turing", TURING))
    }
    assert autocast["cpu"] == autocast["turing"] == Precision()
    assert names(autocast["hopper"].computed) == dict.fromkeys(("linear", "embedding", "decoder"), "bfloat16")
    assert not autocast["hopper"].kept
    assert build_precision(None, autocast=False, device=HOPPER) == Precision()


def test_layers_that_are_named_keep_to_their_format():
    found = build_precision({"linear": "float16", "embedding": "float32"}, autocast=True, device=HOPPER)
    assert names(found.kept) == {"linear": "float16", "embedding": "float32", "decoder": "float16"}
    assert names(found.computed) == {"linear": "float16", "embedding": "float32", "decoder": "float16"}
    assert found.is_scaled
    assert found.between == jnp.float32
    assert not build_precision({"linear": "bfloat16"}, autocast=True, device=CPU).is_scaled


def test_float8_is_kept_where_the_hardware_has_it():
    found = build_precision({"linear": "float8_e4m3fn"}, autocast=False, device=HOPPER)
    assert names(found.kept)["linear"] == "float8_e4m3fn"
    assert names(found.computed)["linear"] == "bfloat16"
    with pytest.raises(TrainingError, match=r"linear: float8_e5m2, but .* has no float8; .* Use bfloat16"):
        build_precision({"linear": "float8_e5m2"}, autocast=True, device=CPU)


@pytest.mark.parametrize("name", ["bfloat16", "float16", "float8_e4m3fn", "float8_e5m2"])
def test_rounding_goes_to_a_neighbour_and_keeps_the_mean(name):
    dtype, rng = jnp.dtype(name), np.random.default_rng(0)
    sizes = (0.3 + rng.random(24)) * np.logspace(-2.5, 1.5, 24)
    values = (sizes * rng.choice([-1, 1], 24)).astype(np.float32)
    wide = np.repeat(values[:, None], 4000, axis=1)
    found = np.asarray(rounded(jnp.asarray(wide), jnp.zeros(wide.shape, dtype), KEY), np.float32)
    for value, drawn in zip(values, found, strict=True):
        low, high = drawn.min(), drawn.max()
        assert low <= value <= high
        nearest = float(np.float32(value).astype(dtype))
        assert nearest in (low, high)
        assert len(np.unique(drawn)) <= 2
        deviation = (high - low) / 2 / np.sqrt(len(drawn))
        assert abs(drawn.mean(dtype=np.float64) - value) <= 5 * deviation + 1e-12


def test_rounding_keeps_what_needs_none_and_stops_at_the_largest():
    exact = jnp.asarray([0.0, -0.5, 1.25, 96.0], jnp.bfloat16)
    found = rounded(exact.astype(jnp.float32), exact, KEY)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found, exact)
    large = rounded(jnp.asarray([1e6, -1e6, jnp.nan]), jnp.zeros(3, jnp.float16), KEY)
    np.testing.assert_array_equal(np.asarray(large, np.float32), [65504, -65504, np.nan])
    same = jnp.ones(3)
    assert rounded(same, same, KEY) is same


def test_a_scale_is_halved_and_doubled():
    scale = LossScale(jnp.float32(8), jnp.int32(5))
    after = next_scale(scale, jnp.bool_(False))
    assert (after.scale, after.good) == (4, 0)
    assert next_scale(scale, jnp.bool_(True)) == (8, 6)
    almost = LossScale(jnp.float32(8), jnp.int32(GROWTH_INTERVAL - 1))
    assert next_scale(almost, jnp.bool_(True)) == (16, 0)
    assert next_scale(LossScale(jnp.float32(1), jnp.int32(0)), jnp.bool_(False)).scale == 1


class Trainer:
    """Runs of one precision, compiled once."""

    def __init__(self, case, precision):
        self.case = case
        layers = layer_types(case.graphdef)
        self.precision = dataclasses.replace(precision, layers=layers)
        apply = forward(case.graphdef, case.schema.inputs, self.precision)
        self.recipe = Recipe(apply, case.targets, build_optimizer(NamedSpec.of("AdamW")), clip=0.5)
        self.feed, self.order = case.feed(), case.order(4)
        self.fold = self.feed.fold(build_step(self.recipe))

    def start(self):
        """The state before the first update."""
        kept = self.precision.keep(self.case.params)
        return new_state(kept, self.recipe.optimizer, is_scaled=self.precision.is_scaled)

    def __call__(self, state, epochs):
        """The state after some epochs of batches of 4, and what was found in the last one."""
        constants, placed = Constants(jnp.full(len(self.order), 0.005), KEY), self.feed.place(self.order)
        state = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), state)
        table = empty_table(self.case.targets)
        for _ in range(epochs):
            state, table = self.fold((state, table), constants, placed, 0, len(self.order))
        return to_host(state), report(table, self.case.targets, 0, len(self.order))

    def loss(self, report):
        """The mean loss of a report."""
        return report.losses.total


@pytest.fixture(scope="module")
def half(case):
    """Everything in float16."""
    return Trainer(case, build_precision(dict.fromkeys(LAYERS, "float16"), autocast=True, device=CPU))


@pytest.fixture(scope="module")
def brain(case):
    """Everything in bfloat16."""
    return Trainer(case, build_precision(dict.fromkeys(LAYERS, "bfloat16"), autocast=True, device=CPU))


@pytest.fixture(scope="module")
def float32_loss(case):
    trainer = Trainer(case, Precision())
    return trainer.loss(trainer(trainer.start(), 6)[1])


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_narrow_formats_reach_nearly_the_loss_of_float32(half, brain, float32_loss, name):
    trainer = {"bfloat16": brain, "float16": half}[name]
    state, first = trainer(trainer.start(), 1)
    state, report = trainer(state, 5)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(state.params)} == {name}
    assert all(leaf.dtype in (jnp.float32, jnp.int32) for leaf in jax.tree.leaves(state.opt_state))
    assert (first.first_bad, report.first_bad) == (-1, -1)
    assert trainer.loss(report) == pytest.approx(float32_loss, rel=0.03)
    assert trainer.loss(report) < 0.9 * trainer.loss(first)


@pytest.mark.parametrize("kind", LAYERS)
def test_each_type_of_layer_has_its_own_format(case, kind):
    precision = build_precision(
        {kind: "bfloat16"}, autocast=False, device=CPU, layers=layer_types(case.graphdef)
    )
    kept = jax.tree_util.tree_flatten_with_path(precision.keep(case.params))[0]
    narrow = {path[0].key for path, leaf in kept if leaf.dtype == jnp.bfloat16}
    parts = {
        "linear": {"layers", "decoder"},
        "embedding": {"encoder", "pos_encoder"},
        "norm": {"layers", "final_norm"},
        "decoder": {"decoder"},
    }
    assert narrow == parts[kind]


def test_an_overflow_skips_the_update_halves_the_scale_and_is_counted(half):
    begin = half.start()
    assert begin.loss_scale.scale == FIRST_SCALE
    high = begin._replace(loss_scale=LossScale(jnp.float32(2.0**40), jnp.int32(0)))
    state, report = half(high, 1)
    assert (report.skipped, report.first_bad) == (6, -1)
    assert state.loss_scale.scale == 2.0**34
    jax.tree.map(
        np.testing.assert_array_equal, (state.params, state.opt_state), (begin.params, begin.opt_state)
    )
    state, report = half(high, 8)
    assert report.skipped == 0
    assert 1 < state.loss_scale.scale < 2.0**34


def test_a_loss_that_no_scale_mends_is_bad(half):
    params = jax.tree.map(lambda leaf: leaf * jnp.inf, half.start().params)
    low = LossScale(jnp.float32(4.0), jnp.int32(0))
    _, report = half(half.start()._replace(params=params, loss_scale=low), 1)
    assert (report.skipped, report.first_bad) == (2, 2)
