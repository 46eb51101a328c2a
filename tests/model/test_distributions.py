"""Every row against scipy, in numpy and in jax; losses and gradients that stay finite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import kstest, norm

from seqjax.config.optimization import CRITERIA
from seqjax.config.schema import HEADS, HeadName
from seqjax.model.distributions import DISTRIBUTIONS, Gaussian, SamplingRule
from seqjax.training.objective import loss

RNG = np.random.default_rng(0)
GAUSSIAN = Gaussian()
RAW = np.stack([RNG.normal(size=500), RNG.normal(size=500) * 4], axis=-1).astype(np.float32)


def test_every_head_has_a_row_and_a_loss() -> None:
    assert set(DISTRIBUTIONS) == set(HEADS) == set(CRITERIA.values())


def test_a_new_head_says_the_standard_normal() -> None:
    np.testing.assert_allclose(GAUSSIAN.parameters(np.zeros((1, 2), np.float32)), [[0, 1]], rtol=1e-6)


def test_the_density_is_that_of_scipy() -> None:
    truth = RNG.normal(size=500).astype(np.float32)
    parameters = GAUSSIAN.parameters(RAW)
    expected = norm.logpdf(truth, *parameters.astype(np.float64).T)
    np.testing.assert_allclose(GAUSSIAN.log_prob(parameters, truth), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("level", [2.0**-20, 0.01, 0.074, 0.076, 0.5, 0.924, 0.926, 0.99, 1 - 2.0**-20])
def test_quantiles_are_those_of_scipy(level: float) -> None:
    parameters = np.array([[1.0, 2.0]])
    found = GAUSSIAN.quantile(parameters, np.array([level]))
    np.testing.assert_allclose(found, norm.ppf(level, 1.0, 2.0), rtol=1e-6, atol=1e-6)


def test_draws_follow_the_distribution_and_its_temperature() -> None:
    parameters, uniform = np.tile([[3.0, 0.5]], (20_000, 1)), RNG.random(20_000, np.float32)
    for temperature in (1.0, 4.0):
        drawn = GAUSSIAN.draw(parameters, uniform, SamplingRule(temperature=temperature))
        assert kstest(drawn, norm(3.0, 0.5 * temperature**0.5).cdf).pvalue > 0.01
    ends = GAUSSIAN.draw(parameters[:2], np.array([0.0, np.nextafter(np.float32(1), np.float32(0))]))
    assert np.isfinite(ends).all()


@pytest.mark.parametrize("head", DISTRIBUTIONS)
def test_jax_computes_what_numpy_computes(head: HeadName) -> None:
    row = DISTRIBUTIONS[head]
    raw = RNG.normal(size=(64, HEADS[head].width or 5)).astype(np.float32)
    truth = (
        RNG.integers(0, 5, 64).astype(np.int32) if row.has_classes else RNG.normal(size=64).astype(np.float32)
    )
    uniform = RNG.random(64, np.float32)

    def everything(raw, truth, uniform):
        stated = row.stated(raw)
        found = [stated, row.point(stated), row.exported(stated)]
        return [*found, row.log_prob(stated, truth), row.draw(stated, uniform)] if row.is_drawn else found

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        by_jax = jax.jit(everything)(raw, truth, uniform)
    for found, expected in zip(by_jax, everything(raw, truth, uniform), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scale", [-60.0, 0.0, 60.0])
@pytest.mark.parametrize("truth", [-1e4, 0.0, 1e4, 1e9])
def test_loss_and_gradient_are_finite(scale: float, truth: float) -> None:
    raw = jnp.asarray([[[0.0, scale], [-60.0, scale]]])
    value, grads = jax.value_and_grad(
        lambda raw: loss("GaussianNLLLoss", raw, jnp.full((1, 2), truth, jnp.float32)).sum()
    )(raw)
    assert np.isfinite(value)
    assert np.isfinite(grads).all()


def test_narrow_outputs_are_computed_with_in_float32() -> None:
    parameters = GAUSSIAN.parameters(jnp.asarray(RAW, jnp.bfloat16))
    assert parameters.dtype == jnp.float32


def test_a_mixture_keeps_mean_and_variance() -> None:
    parts = np.array([[0.0, 1.0], [4.0, 2.0]])
    mixed = GAUSSIAN.mixed(GAUSSIAN.moments(parts).mean(axis=0))
    np.testing.assert_allclose(mixed, [2.0, np.sqrt((1 + 4) / 2 + 4)])


def test_raw_outputs_are_found_again() -> None:
    mean, scale = RNG.normal(size=20), RNG.uniform(0.01, 60, 20)
    np.testing.assert_allclose(
        GAUSSIAN.parameters(GAUSSIAN.raw(mean, scale)), np.stack([mean, scale], -1), rtol=1e-5
    )
