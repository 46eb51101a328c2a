"""Update rules of torch that optax does not have, or has in another form."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from seqjax.config.optimization import AdEMAMix, NAdam
from seqjax.optim.rule import Params, Scalar, dtype_of, ema, ema_of_squares, transformation


class SumOfSquaresState(NamedTuple):
    """State of Adagrad."""

    total: Params


def scale_by_sum_of_squares(initial: float, eps: float) -> optax.GradientTransformation:
    """Divides by `sqrt(sum of squares) + eps`; optax's own puts eps inside the root."""

    def init(params: Params) -> SumOfSquaresState:
        return SumOfSquaresState(jax.tree.map(lambda p: jnp.full_like(p, initial), params))

    def update(grads: Params, state: SumOfSquaresState, params: Params) -> tuple[Params, SumOfSquaresState]:
        del params
        total = jax.tree.map(lambda s, g: s + g * g, state.total, grads)
        return jax.tree.map(lambda g, s: g / (jnp.sqrt(s) + eps), grads, total), SumOfSquaresState(total)

    return transformation(init, update)


class NAdamState(NamedTuple):
    """State of NAdam: steps done, product of the momenta so far, the two means."""

    steps: Int[Array, ""]
    product: Scalar
    mean: Params
    square: Params


def scale_by_nadam(settings: NAdam) -> optax.GradientTransformation:
    """Adam with Nesterov momentum that warms up, as torch computes it."""
    b1, b2 = settings.betas

    def momentum(step: Scalar) -> Scalar:
        return b1 * (1 - 0.5 * 0.96 ** (step * settings.momentum_decay))

    def init(params: Params) -> NAdamState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return NAdamState(jnp.zeros((), jnp.int32), jnp.ones((), dtype_of(params)), zeros, zeros)

    def update(grads: Params, state: NAdamState, params: Params) -> tuple[Params, NAdamState]:
        del params
        steps = state.steps + 1
        step = steps.astype(state.product.dtype)
        now, following = momentum(step), momentum(step + 1)
        product = state.product * now
        mean, square = ema(state.mean, grads, b1), ema_of_squares(state.square, grads, b2)
        correction = 1 - b2**step
        by_gradient, by_mean = (1 - now) / (1 - product), following / (1 - product * following)
        directions = jax.tree.map(
            lambda g, m, v: (by_gradient * g + by_mean * m) / (jnp.sqrt(v / correction) + settings.eps),
            grads,
            mean,
            square,
        )
        return directions, NAdamState(steps, product, mean, square)

    return transformation(init, update)


class AdEMAMixState(NamedTuple):
    """State of AdEMAMix: steps done, the fast mean, the mean square, the slow mean."""

    steps: Int[Array, ""]
    fast: Params
    square: Params
    slow: Params


def scale_by_ademamix(settings: AdEMAMix) -> optax.GradientTransformation:
    """Adam with a second, slower mean of the gradient, as sequifier computes it."""
    b1, b2, _ = settings.betas

    def init(params: Params) -> AdEMAMixState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return AdEMAMixState(jnp.zeros((), jnp.int32), zeros, zeros, zeros)

    def update(grads: Params, state: AdEMAMixState, params: Params) -> tuple[Params, AdEMAMixState]:
        del params
        steps = state.steps + 1
        step = steps.astype(dtype_of(grads))
        alpha, b3 = _ademamix_warm_up(settings, step)
        fast, slow = ema(state.fast, grads, b1), ema(state.slow, grads, b3)
        square = ema_of_squares(state.square, grads, b2)
        root = jnp.sqrt(1 - b2**step)
        # The slow mean is divided by the fast mean's bias correction too: that is sequifier's rule.
        directions = jax.tree.map(
            lambda m1, m2, v: (m1 + alpha * m2) / (jnp.sqrt(v) / root + settings.eps) / (1 - b1**step),
            fast,
            slow,
            square,
        )
        return directions, AdEMAMixState(steps, fast, square, slow)

    return transformation(init, update)


def _ademamix_warm_up(settings: AdEMAMix, step: Scalar) -> tuple[Scalar, Scalar]:
    """Weight and decay of the slow mean at a step, counted from 1.

    The weight grows in a straight line; the decay so that the half-life does.
    """
    b1, _, b3 = settings.betas
    if settings.T_alpha_beta3 is None:
        return jnp.full_like(step, settings.alpha), jnp.full_like(step, b3)
    share = jnp.minimum(step / settings.T_alpha_beta3, 1.0)
    fast, slow = jnp.log(jnp.asarray(b1, step.dtype)), jnp.log(jnp.asarray(b3, step.dtype))
    decay = jnp.exp(fast * slow / ((1 - share) * slow + share * fast))
    return share * settings.alpha, jnp.minimum(decay, b3)
