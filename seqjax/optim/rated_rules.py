"""Update rules that take the learning rate themselves, rather than a direction that it multiplies."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from jaxtyping import Array, Int

from seqjax.config.optimizers import ASGD, MADGRAD, Rprop
from seqjax.optim.rule import Number, Params, Rule, State, decayed


def asgd(settings: ASGD) -> Rule:
    """Gradient descent whose rate falls with the steps, as torch computes it."""
    decay = decayed(settings.weight_decay)

    def init(params: Params) -> Int[Array, ""]:
        return jnp.zeros((), jnp.int32)

    def update(
        grads: Params, state: Int[Array, ""], params: Params, learning_rate: Number
    ) -> tuple[Params, Int[Array, ""]]:
        grads, _ = decay.update(grads, decay.init(params), params)
        rate = learning_rate / (1 + settings.lambd * learning_rate * state) ** settings.alpha
        moved = jax.tree.map(
            lambda p, g: (p * (1 - settings.lambd * rate) - rate * g).astype(p.dtype), params, grads
        )
        return moved, state + 1

    return Rule(init, update)


class RpropState(NamedTuple):
    """State of Rprop: steps done, the last gradients (0 where one turned), and the size of each step."""

    steps: Int[Array, ""]
    last: Params
    sizes: Params


def rprop(settings: Rprop) -> Rule:
    """Steps whose sizes begin with the learning rate and follow the signs of gradients, as in torch.

    Optax's own is told the rate when it is built, and so cannot be given one that is traced.
    """
    (down, up), (least, largest) = settings.etas, settings.step_sizes

    def init(params: Params) -> RpropState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return RpropState(jnp.zeros((), jnp.int32), zeros, zeros)

    def update(
        grads: Params, state: RpropState, params: Params, learning_rate: Number
    ) -> tuple[Params, RpropState]:
        turns = jax.tree.map(lambda g, last: jnp.sign(g * last), grads, state.last)
        sizes = jax.tree.map(
            lambda size, turn: jnp.clip(
                jnp.where(state.steps == 0, learning_rate, size).astype(size.dtype)
                * jnp.where(turn > 0, up, jnp.where(turn < 0, down, 1.0)).astype(size.dtype),
                least,
                largest,
            ),
            state.sizes,
            turns,
        )
        kept = jax.tree.map(lambda g, turn: jnp.where(turn < 0, jnp.zeros_like(g), g), grads, turns)
        moved = jax.tree.map(lambda p, g, s: (p - jnp.sign(g) * s).astype(p.dtype), params, kept, sizes)
        return moved, RpropState(state.steps + 1, kept, sizes)

    return Rule(init, update)


def madgrad(settings: MADGRAD) -> Rule:
    """MADGRAD, as optax computes it."""
    decay = decayed(settings.weight_decay)

    def rule(learning_rate: Number) -> optax.GradientTransformation:
        return optax.contrib.scale_by_madgrad(learning_rate, settings.momentum, settings.eps)

    def update(grads: Params, state: State, params: Params, learning_rate: Number) -> tuple[Params, State]:
        grads, _ = decay.update(grads, decay.init(params), params)
        steps, state = rule(learning_rate).update(grads, state, params)
        return jax.tree.map(lambda p, d: p + d.astype(p.dtype), params, steps), state

    return Rule(rule(0.0).init, update)
