"""The yardstick trains, and the benchmark's arithmetic is what it says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tools import bench_gpu
from tools.plain_step import Shape, build_step, init

CLASSES = {"kind": 5}
SHAPE = Shape(dim=16, layers=1, heads=2, feedforward=16, length=8, batch=4)


def batch(seed):
    rng = np.random.default_rng(seed)
    slots = (SHAPE.batch, SHAPE.length + 1)
    return {
        "kind": jnp.asarray(rng.integers(2, 5, slots), jnp.int32),
        "size": jnp.asarray(rng.normal(size=slots), jnp.float32),
    }


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_plain_step_learns(dtype):
    start, step = build_step(SHAPE, CLASSES, "size", learning_rate=1e-2, dtype=jnp.dtype(dtype))
    state = start(init(SHAPE, CLASSES, 0))
    data = batch(0)
    losses = []
    for _ in range(30):
        state, loss = step(state, data)
        losses.append(float(loss))
    assert losses[-1] < 0.7 * losses[0]
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {np.dtype(np.float32)}


def test_the_three_models_have_the_parameters_that_are_stated():
    counts = []
    for shape in bench_gpu.SHAPES.values():
        params = jax.eval_shape(lambda shape=shape: init(Shape(**shape), bench_gpu.bench_train.N_CLASSES, 0))
        counts.append(sum(leaf.size for leaf in jax.tree.leaves(params)))
    assert counts == pytest.approx([0.1e6, 3e6, 100e6], rel=0.2)


def test_flops_are_those_of_the_matrix_products():
    shape = {"dim": 2, "layers": 1, "heads": 1, "feedforward": 3, "length": 4, "batch": 1}
    blocks = 4 * 2 * 2 + 3 * 2 * 3
    heads = 2 * (22 + 9 + 1)
    assert bench_gpu.flops_per_window(shape) == 4 * (6 * (blocks + heads) + 12 * 4 * 2)


def test_a_known_device_has_a_peak():
    assert bench_gpu.peak("NVIDIA H100 80GB HBM3") == 989e12
    assert bench_gpu.peak("cpu") is None
