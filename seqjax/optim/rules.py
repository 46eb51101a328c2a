"""Update rules of torch and torch_optimizer that optax does not have, or has in another form."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from seqjax.config.optimizers import AdEMAMix, Lars, NAdam, NovoGrad
from seqjax.optim.rule import (
    Number,
    Params,
    Scalar,
    dtype_of,
    ema,
    ema_of_squares,
    is_off,
    transformation,
)


class SumOfSquaresState(NamedTuple):
    """State of Adagrad."""

    total: Params


def scale_by_sum_of_squares(initial: Number, eps: Number) -> optax.GradientTransformation:
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


class DampenedState(NamedTuple):
    """State of dampened momentum: steps done, the sum of gradients."""

    steps: Int[Array, ""]
    total: Params


def dampened_momentum(momentum: Number, dampening: Number) -> optax.GradientTransformation:
    """A decaying sum in which every gradient but the first counts `1 - dampening`, as torch has it."""

    def init(params: Params) -> DampenedState:
        return DampenedState(jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, params))

    def update(grads: Params, state: DampenedState, params: Params) -> tuple[Params, DampenedState]:
        del params
        share = jnp.where(state.steps == 0, 1.0, 1.0 - dampening)
        total = jax.tree.map(lambda t, g: momentum * t + share.astype(g.dtype) * g, state.total, grads)
        return total, DampenedState(state.steps + 1, total)

    return transformation(init, update)


class AMSGradState(NamedTuple):
    """State of AMSGrad: steps done, the two means, the largest mean square so far."""

    steps: Int[Array, ""]
    mean: Params
    square: Params
    largest: Params


def scale_by_amsgrad(betas: tuple[Number, Number], eps: Number) -> optax.GradientTransformation:
    """Adam over the largest mean square so far, which is corrected for its start after the comparison."""
    b1, b2 = betas

    def init(params: Params) -> AMSGradState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return AMSGradState(jnp.zeros((), jnp.int32), zeros, zeros, zeros)

    def update(grads: Params, state: AMSGradState, params: Params) -> tuple[Params, AMSGradState]:
        del params
        steps = state.steps + 1
        step = steps.astype(dtype_of(grads))
        mean, square = ema(state.mean, grads, b1), ema_of_squares(state.square, grads, b2)
        largest = jax.tree.map(jnp.maximum, state.largest, square)
        root = jnp.sqrt(1 - b2**step)
        directions = jax.tree.map(lambda m, v: m / (1 - b1**step) / (jnp.sqrt(v) / root + eps), mean, largest)
        return directions, AMSGradState(steps, mean, square, largest)

    return transformation(init, update)


class NovoGradState(NamedTuple):
    """State of NovoGrad: the sum of gradients, the mean square norm of each tensor, the largest so far."""

    total: Params
    square: Params
    largest: Params


def scale_by_novograd(settings: NovoGrad) -> optax.GradientTransformation:
    """Momentum of gradients that are divided by the norm of their tensor, as torch_optimizer has it."""
    b1, b2 = settings.betas

    def init(params: Params) -> NovoGradState:
        scalars = jax.tree.map(lambda p: jnp.zeros((), p.dtype), params)
        return NovoGradState(jax.tree.map(jnp.zeros_like, params), scalars, scalars)

    def update(grads: Params, state: NovoGradState, params: Params) -> tuple[Params, NovoGradState]:
        norms = jax.tree.map(lambda g: jnp.sum(g * g), grads)
        square = jax.tree.map(lambda v, n: jnp.where(v == 0, n, b2 * v + (1 - b2) * n), state.square, norms)
        largest = jax.tree.map(jnp.maximum, state.largest, square)
        share = 1 - b1 if settings.grad_averaging else 1.0
        total = jax.tree.map(
            lambda m, g, v, p: (
                b1 * m + share * (g / (jnp.sqrt(v) + settings.eps) + settings.weight_decay * p)
            ),
            state.total,
            grads,
            largest if settings.amsgrad else square,
            params,
        )
        return total, NovoGradState(total, square, largest)

    return transformation(init, update)


def scale_by_lars(settings: Lars) -> optax.GradientTransformation:
    """Decayed gradients, each tensor's as long as a share of the tensor; but as they are without decay."""

    def scaled(grad: Array, param: Array) -> Array:
        size, length = jnp.linalg.norm(param), jnp.linalg.norm(grad)
        factor = settings.trust_coefficient * size / (length + settings.weight_decay * size + settings.eps)
        decays = (settings.weight_decay != 0) & (size > 0) & (length > 0)
        return jnp.where(decays, factor * (grad + settings.weight_decay * param), grad)

    def update(grads: Params, state: optax.EmptyState, params: Params) -> tuple[Params, optax.EmptyState]:
        return jax.tree.map(scaled, grads, params), state

    off = is_off(settings.weight_decay)
    return optax.identity() if off else transformation(lambda params: optax.EmptyState(), update)
