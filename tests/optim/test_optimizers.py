import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.config.optimization import OPTIMIZERS, NamedSpec
from seqjax.optim.optimizers import BUILDERS, build_optimizer


def trajectory(spec, x0, gradient, learning_rate, steps):
    optimizer = build_optimizer(spec)
    x = {"x": jnp.asarray(x0)}
    state = optimizer.init(x)
    path = []
    for _ in range(steps):
        x, state = optimizer.rule.update({"x": gradient(x["x"])}, state, x, learning_rate)
        path.append(np.asarray(x["x"]))
    return np.stack(path)


def test_every_name_that_may_be_written_is_built():
    assert list(OPTIMIZERS) == list(BUILDERS)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_update_keeps_structure_shapes_and_dtypes(name):
    params = {"w": jnp.ones((2, 3)), "b": {"0": jnp.zeros(4)}}
    optimizer = build_optimizer(NamedSpec.of(name))
    state = optimizer.init(params)
    moved, after = jax.jit(optimizer.rule.update)(jax.tree.map(jnp.ones_like, params), state, params, 0.1)
    same = jax.tree.map(
        lambda a, b: a.shape == b.shape and a.dtype == b.dtype, (moved, after), (params, state)
    )
    assert all(jax.tree.leaves(same))


def test_trajectories_are_those_of_torch(shared):
    cases = json.loads((shared / "golden/project/optimizers.json").read_text())
    assert len(cases) >= 10
    with jax.enable_x64(True):
        for case in cases:
            hessian, b = jnp.asarray(case["H"]), jnp.asarray(case["b"])
            path = trajectory(
                NamedSpec.of(case["name"], **case["kwargs"]),
                np.asarray(case["x0"]),
                lambda x, hessian=hessian, b=b: hessian @ x - b,
                case["learning_rate"],
                len(case["xs"]),
            )
            np.testing.assert_allclose(
                path, case["xs"], rtol=1e-6, atol=1e-6, err_msg=f"{case['name']} {case['kwargs']}"
            )


def ademamix_by_hand(x, gradient, learning_rate, steps, *, betas, alpha, warm_up, decay):
    b1, b2, b3 = betas
    fast, square, slow = np.zeros_like(x), np.zeros_like(x), np.zeros_like(x)
    path = []
    for t in range(1, steps + 1):
        g = gradient(x)
        a_t, b3_t = alpha, b3
        if warm_up is not None:
            a_t = min(t * alpha / warm_up, alpha)
            share = t / warm_up
            with np.errstate(all="ignore"):
                b3_t = min(
                    np.exp(np.log(b1) * np.log(b3) / ((1 - share) * np.log(b3) + share * np.log(b1))), b3
                )
        fast = b1 * fast + (1 - b1) * g
        square = b2 * square + (1 - b2) * g * g
        slow = b3_t * slow + (1 - b3_t) * g
        x = x * (1 - learning_rate * decay)
        x = x - learning_rate / (1 - b1**t) * (fast + a_t * slow) / (
            np.sqrt(square) / np.sqrt(1 - b2**t) + 1e-8
        )
        path.append(x)
    return np.stack(path)


@pytest.mark.parametrize("warm_up", [None, 12])
def test_ademamix_follows_its_formula(warm_up):
    x0, target = np.array([1.0, -2.0, 0.3]), np.array([0.2, 0.1, 3.0])
    settings = {"betas": (0.9, 0.99, 0.999), "alpha": 4.0}
    spec = NamedSpec.of("AdEMAMix", weight_decay=0.05, T_alpha_beta3=warm_up, **settings)
    expected = ademamix_by_hand(x0, lambda x: x - target, 0.03, 20, warm_up=warm_up, decay=0.05, **settings)
    with jax.enable_x64(True):
        path = trajectory(spec, x0, lambda x: x - jnp.asarray(target), 0.03, 20)
    # Beyond the warm-up the formula's share passes 1; the least with b3 makes that the same as staying at 1.
    np.testing.assert_allclose(path, expected, rtol=1e-9)


def test_decoupled_decay_scales_with_the_learning_rate():
    x = {"x": jnp.ones(3)}
    optimizer = build_optimizer(NamedSpec.of("AdamW", weight_decay=0.1))
    moved, _ = optimizer.rule.update({"x": jnp.zeros(3)}, optimizer.init(x), x, 0.5)
    np.testing.assert_allclose(moved["x"], 1 - 0.5 * 0.1, rtol=1e-6)


def test_nesterov_is_the_look_ahead_of_torch():
    spec = NamedSpec.of("SGD", momentum=0.5, nesterov=True)
    path = trajectory(spec, np.array([1.0]), jnp.ones_like, 1.0, 2)
    # buffer 1, then 1.5; the step is gradient + 0.5 * buffer
    np.testing.assert_allclose(path[:, 0], [1 - 1.5, 1 - 1.5 - 1.75], rtol=1e-6)


def test_adagrad_learning_rate_decays():
    path = trajectory(NamedSpec.of("Adagrad", lr_decay=1.0), np.array([0.0]), jnp.ones_like, 1.0, 2)
    np.testing.assert_allclose(path[:, 0], [-1.0, -1.0 - 0.5 / np.sqrt(2)], rtol=1e-6)


def by_hand(name, x, gradient, steps, learning_rate):
    """The published rules of Lion, Yogi, AdaBelief and Lamb, with weight decay 0.1."""
    mean, square = np.zeros_like(x), np.zeros_like(x)
    if name == "Yogi":
        mean, square = np.full_like(x, 1e-6), np.full_like(x, 1e-6)
    path = []
    for t in range(1, steps + 1):
        g = gradient(x) + (0.1 * x if name == "Yogi" else 0)
        if name == "Lion":
            direction = np.sign(0.9 * mean + 0.1 * g) + 0.1 * x
            mean = 0.99 * mean + 0.01 * g
        else:
            mean = 0.9 * mean + 0.1 * g
            if name == "Yogi":
                square = square - 0.001 * np.sign(square - g * g) * g * g
            elif name == "AdaBelief":
                square = 0.999 * square + 0.001 * (g - mean) ** 2 + 1e-16
            else:
                square = 0.999 * square + 0.001 * g * g
            eps = {"Yogi": 1e-3, "AdaBelief": 1e-16, "Lamb": 1e-6}[name]
            direction = mean / (1 - 0.9**t) / (np.sqrt(square / (1 - 0.999**t)) + eps)
            direction = direction + (0 if name == "Yogi" else 0.1 * x)
            if name == "Lamb":
                direction = direction * np.linalg.norm(x) / np.linalg.norm(direction)
        x = x - learning_rate * direction
        path.append(x)
    return np.stack(path)


@pytest.mark.parametrize("name", ["Lion", "Yogi", "AdaBelief", "Lamb"])
def test_rules_without_a_torch_trajectory_are_the_published_ones(name):
    rng = np.random.default_rng(0)
    hessian, b, x0 = np.diag([1.0, 3.0, 0.2]), rng.normal(size=3), rng.normal(size=3)
    with jax.enable_x64(True):
        spec = NamedSpec.of(name, weight_decay=0.1)
        path = trajectory(spec, x0, lambda x: hessian @ x - b, 0.01, 40)
    expected = by_hand(name, x0, lambda x: hessian @ x - b, 40, 0.01)
    np.testing.assert_allclose(path, expected, rtol=1e-7, atol=1e-9)
