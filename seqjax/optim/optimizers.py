"""Optimizers under torch's names, as optax transformations: one builder a name in `BUILDERS`.

A transformation turns gradients into a *direction*; the step subtracts `learning_rate * direction`. The rate
stays outside, a plain traced number a step, and scales decoupled weight decay as torch does. Where optax
has torch's rule it is used; the other rules are here. A test holds each row to torch's trajectory.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from seqjax.config.optimization import (
    SGD,
    AdaBelief,
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    AdEMAMix,
    Lamb,
    Lion,
    NAdam,
    NamedSpec,
    RAdam,
    RMSprop,
    Yogi,
    optimizer_settings,
)

Scalar: TypeAlias = Float[Array, ""]
Params: TypeAlias = optax.Params


def build_optimizer(spec: NamedSpec) -> optax.GradientTransformation:
    """The transformation that an `optimizer` section asks for.

    Returns:
      A transformation of gradients into descent directions; parameters move by minus the learning rate times
      them. `update` needs the parameters.
    """
    settings = optimizer_settings(spec)
    return BUILDERS[spec.name](settings)


def _adam(settings: Adam) -> optax.GradientTransformation:
    b1, b2 = settings.betas
    return optax.chain(_l2(settings.weight_decay), optax.scale_by_adam(b1, b2, settings.eps))


def _adamw(settings: AdamW) -> optax.GradientTransformation:
    b1, b2 = settings.betas
    return optax.chain(optax.scale_by_adam(b1, b2, settings.eps), _l2(settings.weight_decay))


def _sgd(settings: SGD) -> optax.GradientTransformation:
    momentum = optax.trace(settings.momentum, settings.nesterov) if settings.momentum else optax.identity()
    return optax.chain(_l2(settings.weight_decay), momentum)


def _rmsprop(settings: RMSprop) -> optax.GradientTransformation:
    scale = optax.scale_by_stddev if settings.centered else optax.scale_by_rms
    return optax.chain(
        _l2(settings.weight_decay),
        scale(settings.alpha, settings.eps, eps_in_sqrt=False),
        optax.trace(settings.momentum) if settings.momentum else optax.identity(),
    )


def _adagrad(settings: Adagrad) -> optax.GradientTransformation:
    return optax.chain(
        _l2(settings.weight_decay),
        _scale_by_sum_of_squares(settings.initial_accumulator_value, settings.eps),
        optax.scale_by_schedule(lambda step: 1 / (1 + step * settings.lr_decay))
        if settings.lr_decay
        else optax.identity(),
    )


def _adadelta(settings: Adadelta) -> optax.GradientTransformation:
    return optax.chain(_l2(settings.weight_decay), optax.scale_by_adadelta(settings.rho, settings.eps))


def _adamax(settings: Adamax) -> optax.GradientTransformation:
    b1, b2 = settings.betas
    return optax.chain(_l2(settings.weight_decay), optax.scale_by_adamax(b1, b2, settings.eps))


def _radam(settings: RAdam) -> optax.GradientTransformation:
    b1, b2 = settings.betas
    return _with_decay(
        optax.scale_by_radam(b1, b2, settings.eps),
        settings.weight_decay,
        decoupled=settings.decoupled_weight_decay,
    )


def _nadam(settings: NAdam) -> optax.GradientTransformation:
    return _with_decay(
        _scale_by_nadam(settings), settings.weight_decay, decoupled=settings.decoupled_weight_decay
    )


def _ademamix(settings: AdEMAMix) -> optax.GradientTransformation:
    return optax.chain(_scale_by_ademamix(settings), _l2(settings.weight_decay))


def _lion(settings: Lion) -> optax.GradientTransformation:
    b1, b2 = settings.betas
    return optax.chain(optax.scale_by_lion(b1, b2), _l2(settings.weight_decay))


def _yogi(settings: Yogi) -> optax.GradientTransformation:
    b1, b2 = settings.betas
    rule = optax.scale_by_yogi(b1, b2, settings.eps, initial_accumulator_value=settings.initial_accumulator)
    return optax.chain(_l2(settings.weight_decay), rule)


def _adabelief(settings: AdaBelief) -> optax.GradientTransformation:
    b1, b2 = settings.betas
    rule = optax.scale_by_belief(b1, b2, eps=settings.eps, eps_root=settings.eps)
    return optax.chain(rule, _l2(settings.weight_decay))


def _lamb(settings: Lamb) -> optax.GradientTransformation:
    b1, b2 = settings.betas
    return optax.chain(
        optax.scale_by_adam(b1, b2, settings.eps), _l2(settings.weight_decay), optax.scale_by_trust_ratio()
    )


def _l2(coefficient: float) -> optax.GradientTransformation:
    """Adds `coefficient` times the parameters: an L2 term before a rule, decoupled decay after it."""
    return optax.add_decayed_weights(coefficient) if coefficient else optax.identity()


def _with_decay(
    rule: optax.GradientTransformation, coefficient: float, *, decoupled: bool
) -> optax.GradientTransformation:
    return optax.chain(rule, _l2(coefficient)) if decoupled else optax.chain(_l2(coefficient), rule)


def _transformation(
    init: Callable[[Params], Any], rule: Callable[[Params, Any], tuple[Params, Any]]
) -> optax.GradientTransformation:
    """Optax's form of a rule that does not look at the parameters."""

    def update(
        updates: optax.Updates, state: optax.OptState, params: Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        del params
        return rule(updates, state)

    return optax.GradientTransformation(lambda params: init(params), update)


class SumOfSquaresState(NamedTuple):
    """State of Adagrad."""

    total: Params


def _scale_by_sum_of_squares(initial: float, eps: float) -> optax.GradientTransformation:
    """Divides by `sqrt(sum of squares) + eps`; optax's own puts eps inside the root."""

    def init(params: Params) -> SumOfSquaresState:
        return SumOfSquaresState(jax.tree.map(lambda p: jnp.full_like(p, initial), params))

    def update(grads: Params, state: SumOfSquaresState) -> tuple[Params, SumOfSquaresState]:
        total = jax.tree.map(lambda s, g: s + g * g, state.total, grads)
        return jax.tree.map(lambda g, s: g / (jnp.sqrt(s) + eps), grads, total), SumOfSquaresState(total)

    return _transformation(init, update)


class NAdamState(NamedTuple):
    """State of NAdam: steps done, product of the momenta so far, the two means."""

    steps: Int[Array, ""]
    product: Scalar
    mean: Params
    square: Params


def _scale_by_nadam(settings: NAdam) -> optax.GradientTransformation:
    b1, b2 = settings.betas

    def momentum(step: Scalar) -> Scalar:
        return b1 * (1 - 0.5 * 0.96 ** (step * settings.momentum_decay))

    def init(params: Params) -> NAdamState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return NAdamState(jnp.zeros((), jnp.int32), jnp.ones((), _dtype(params)), zeros, zeros)

    def update(grads: Params, state: NAdamState) -> tuple[Params, NAdamState]:
        steps = state.steps + 1
        step = steps.astype(state.product.dtype)
        now, following = momentum(step), momentum(step + 1)
        product = state.product * now
        mean, square = _ema(state.mean, grads, b1), _ema_of_squares(state.square, grads, b2)
        correction = 1 - b2**step
        by_gradient, by_mean = (1 - now) / (1 - product), following / (1 - product * following)
        directions = jax.tree.map(
            lambda g, m, v: (by_gradient * g + by_mean * m) / (jnp.sqrt(v / correction) + settings.eps),
            grads,
            mean,
            square,
        )
        return directions, NAdamState(steps, product, mean, square)

    return _transformation(init, update)


class AdEMAMixState(NamedTuple):
    """State of AdEMAMix: steps done, the fast mean, the mean square, the slow mean."""

    steps: Int[Array, ""]
    fast: Params
    square: Params
    slow: Params


def _scale_by_ademamix(settings: AdEMAMix) -> optax.GradientTransformation:
    b1, b2, _ = settings.betas

    def init(params: Params) -> AdEMAMixState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return AdEMAMixState(jnp.zeros((), jnp.int32), zeros, zeros, zeros)

    def update(grads: Params, state: AdEMAMixState) -> tuple[Params, AdEMAMixState]:
        steps = state.steps + 1
        step = steps.astype(_dtype(grads))
        alpha, b3 = _ademamix_warm_up(settings, step)
        fast, slow = _ema(state.fast, grads, b1), _ema(state.slow, grads, b3)
        square = _ema_of_squares(state.square, grads, b2)
        root = jnp.sqrt(1 - b2**step)
        # The slow mean is divided by the fast mean's bias correction too: that is sequifier's rule.
        directions = jax.tree.map(
            lambda m1, m2, v: (m1 + alpha * m2) / (jnp.sqrt(v) / root + settings.eps) / (1 - b1**step),
            fast,
            slow,
            square,
        )
        return directions, AdEMAMixState(steps, fast, square, slow)

    return _transformation(init, update)


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


def _ema(mean: Params, grads: Params, decay: float | Scalar) -> Params:
    return jax.tree.map(lambda m, g: decay * m + (1 - decay) * g, mean, grads)


def _ema_of_squares(mean: Params, grads: Params, decay: float) -> Params:
    return jax.tree.map(lambda m, g: decay * m + (1 - decay) * g * g, mean, grads)


def _dtype(tree: Params) -> jnp.dtype:
    return jnp.result_type(*jax.tree.leaves(tree))


BUILDERS: Mapping[str, Callable[[Any], optax.GradientTransformation]] = {
    "Adam": _adam,
    "AdamW": _adamw,
    "SGD": _sgd,
    "AdEMAMix": _ademamix,
    "RMSprop": _rmsprop,
    "Adagrad": _adagrad,
    "Adadelta": _adadelta,
    "Adamax": _adamax,
    "NAdam": _nadam,
    "RAdam": _radam,
    "Lion": _lion,
    "Yogi": _yogi,
    "AdaBelief": _adabelief,
    "Lamb": _lamb,
}
