"""What must hold on an accelerator; skipped where there is none.

Run them on such a machine with `python -m pytest tests/training/test_accelerator.py`.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.training.devices import compiler_options, find_device, memory_limit
from seqjax.training.feed import ResidentFeed, StreamedFeed
from seqjax.training.placement import to_host
from seqjax.training.precision import build_precision
from seqjax.training.step import Constants, build_step, empty_table, forward
from seqjax.windows.order import Order
from seqjax.windows.windows import taken
from tests.training.conftest import report

UPDATES = 20


@pytest.fixture(scope="module", autouse=True)
def accelerator():
    """The first accelerator."""
    try:
        device = find_device("auto")
    except RuntimeError:
        pytest.skip("jax finds no device")
    if device.platform == "cpu":
        pytest.skip("there is no accelerator here")
    return device


def trained(case, recipe, device, *, kind=ResidentFeed, options=None):
    """The state and the report after some updates on a device."""
    with jax.default_device(device):
        windows = taken(case.windows, np.arange(4 * UPDATES) % len(case.windows))
        feed = kind(windows, case.columns, compiler_options=options)
        order = Order(4 * UPDATES, 4)
        constants = Constants(jnp.full(UPDATES, 0.01), jax.random.key(0))
        carry = case.state(recipe), empty_table(case.targets)
        state, table = feed.fold(build_step(recipe))(carry, constants, feed.place(order), 0, UPDATES)
        return to_host(state), report(table, case.targets, 0, UPDATES)


def loss(case, report):
    """The mean training loss of the first target."""
    return report.losses.by_target[case.targets[0].name]


@pytest.mark.parametrize("kind", [ResidentFeed, StreamedFeed])
def test_the_loss_is_the_cpu_s(case, accelerator, kind):
    recipe = case.recipe(clip=0.5)
    with jax.default_matmul_precision("highest"):
        _, there = trained(case, recipe, accelerator, kind=kind)
        _, here = trained(case, recipe, jax.devices("cpu")[0], kind=kind)
    assert there.first_bad == here.first_bad == -1
    assert loss(case, there) == pytest.approx(loss(case, here), rel=1e-4)


def test_dropout_draws_the_same_bits_everywhere(case, accelerator):
    recipe = case.recipe(dropout=0.3)
    with jax.default_matmul_precision("highest"):
        _, there = trained(case, recipe, accelerator)
        _, here = trained(case, recipe, jax.devices("cpu")[0])
    assert loss(case, there) == pytest.approx(loss(case, here), rel=1e-3)


def test_autocast_computes_in_bfloat16_beside_float32_parameters(case, accelerator):
    precision = build_precision(None, autocast=True, device=accelerator)
    recipe = case.recipe()
    narrow = dataclasses.replace(recipe, apply=forward(case.graphdef, case.schema.inputs, precision))
    state, report = trained(case, narrow, accelerator)
    _, wide = trained(case, recipe, accelerator)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {np.dtype(np.float32)}
    assert loss(case, report) != loss(case, wide)
    assert loss(case, report) == pytest.approx(loss(case, wide), rel=2e-2)


def test_enforced_determinism_repeats_to_the_bit(case, accelerator):
    options = compiler_options(accelerator, deterministic=True, has_dropout=True)
    recipe = case.recipe(dropout=0.1, clip=0.5)
    runs = [trained(case, recipe, accelerator, options=options) for _ in range(2)]
    jax.tree.map(np.testing.assert_array_equal, *runs)


def test_data_may_take_a_part_of_the_device(accelerator):
    limit = memory_limit(accelerator, load_in_full=True, max_ram_gb=1.0)
    assert limit is None or 0 < limit < (accelerator.memory_stats() or {})["bytes_limit"]
