"""Update rules of torch and torch_optimizer that optax does not have, or has in another form."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from seqjax.config.optimizers import (
    QHM,
    Adafactor,
    AdamWScheduleFree,
    AdEMAMix,
    Lars,
    Moments,
    Muon,
    NAdam,
    NovoGrad,
    QHAdam,
)
from seqjax.optim.rule import Number, Params, Path, Rule, Scalar, State, decayed, is_off


def transformation(
    init: Callable[[Params], State], rule: Callable[[Params, State, Params], tuple[Params, State]]
) -> optax.GradientTransformation:
    """Optax's form of `rule(gradients, state, parameters) -> (directions, new state)`."""

    def update(
        updates: optax.Updates, state: optax.OptState, params: Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        return rule(updates, state, params)

    return optax.GradientTransformation(lambda params: init(params), update)


def ema(mean: Params, values: Params, decay: Number) -> Params:
    """Exponential means that have seen one more value."""
    return jax.tree.map(lambda m, v: decay * m + (1 - decay) * v, mean, values)


def ema_of_squares(mean: Params, values: Params, decay: Number) -> Params:
    """Exponential means of squares that have seen one more value."""
    return jax.tree.map(lambda m, v: decay * m + (1 - decay) * v * v, mean, values)


def dtype_of(tree: Params) -> jnp.dtype:
    """The dtype that all leaves fit in."""
    return jnp.result_type(*jax.tree.leaves(tree))


class SumOfSquaresState(NamedTuple):
    """State of Adagrad."""

    total: Params


def scale_by_sum_of_squares(initial: Number, eps: Number) -> optax.GradientTransformation:
    """Divides by `sqrt(sum of squares) + eps`; optax's own puts eps inside the root."""

    def init(params: Params) -> SumOfSquaresState:
        return SumOfSquaresState(jax.tree.map(lambda p: jnp.full_like(p, initial), params))

    def update(grads: Params, state: SumOfSquaresState, params: Params) -> tuple[Params, SumOfSquaresState]:
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


def scale_by_ademamix(settings: AdEMAMix) -> optax.GradientTransformation:
    """Adam with a second, slower mean of the gradient, as sequifier computes it."""
    b1, b2, b3 = settings.betas
    warm_up = settings.T_alpha_beta3

    def step(count: ArrayLike) -> Scalar:
        return (jnp.asarray(count) + 1).astype(float)

    def warmed(count: ArrayLike) -> Scalar:
        return jnp.minimum(step(count) / (warm_up or 1), 1.0)

    def weight(count: ArrayLike) -> Scalar:
        # The slow mean is divided by the fast mean's bias correction too: that is sequifier's rule.
        return warmed(count) * settings.alpha / (1 - b1 ** step(count))

    def decay(count: ArrayLike) -> Scalar:
        """A decay whose half-life grows in a straight line."""
        share = warmed(count)
        fast, slow = jnp.log(jnp.asarray(b1, share.dtype)), jnp.log(jnp.asarray(b3, share.dtype))
        return jnp.minimum(jnp.exp(fast * slow / ((1 - share) * slow + share * fast)), b3)

    return optax.contrib.scale_by_ademamix(b1, b2, decay if warm_up else b3, weight, settings.eps)


class DampenedState(NamedTuple):
    """State of dampened momentum: steps done, the sum of gradients."""

    steps: Int[Array, ""]
    total: Params


def dampened_momentum(momentum: Number, dampening: Number) -> optax.GradientTransformation:
    """A decaying sum in which every gradient but the first counts `1 - dampening`, as torch has it."""

    def init(params: Params) -> DampenedState:
        return DampenedState(jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, params))

    def update(grads: Params, state: DampenedState, params: Params) -> tuple[Params, DampenedState]:
        share = jnp.where(state.steps == 0, 1.0, 1.0 - dampening)
        total = jax.tree.map(lambda t, g: momentum * t + share.astype(g.dtype) * g, state.total, grads)
        return total, DampenedState(state.steps + 1, total)

    return transformation(init, update)


def scale_by_amsgrad(betas: tuple[Number, Number], eps: Number) -> optax.GradientTransformation:
    """Adam over the largest mean square so far, which is corrected for its start after the comparison."""
    b1, b2 = betas

    def update(grads: Params, state: State, params: Params) -> tuple[Params, State]:
        root = jnp.sqrt(1 - b2 ** (state.count + 1).astype(dtype_of(grads)))
        uncorrected = optax.scale_by_amsgrad(b1, b2, eps * root, bias_correction_nu=False)
        directions, state = uncorrected.update(grads, state, params)
        return optax.tree.scale(root, directions), state

    return transformation(optax.scale_by_amsgrad().init, update)


class MeansState(NamedTuple):
    """Steps done, and the exponential means of the gradient and of its square."""

    steps: Int[Array, ""]
    mean: Params
    square: Params


def scale_by_qhadam(settings: QHAdam) -> optax.GradientTransformation:
    """Weighted means of gradients and their bias-corrected exponential means, as torch_optimizer has it."""
    b1, b2 = settings.betas
    nu1, nu2 = settings.nus

    def init(params: Params) -> MeansState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return MeansState(jnp.zeros((), jnp.int32), zeros, zeros)

    def update(grads: Params, state: MeansState, params: Params) -> tuple[Params, MeansState]:
        steps = state.steps + 1
        step = steps.astype(dtype_of(grads))
        mean, square = ema(state.mean, grads, b1), ema_of_squares(state.square, grads, b2)
        one, two = 1 - b1**step, 1 - b2**step
        directions = jax.tree.map(
            lambda g, m, v: (
                (nu1 * m / one + (1 - nu1) * g) / (jnp.sqrt(nu2 * v / two + (1 - nu2) * g * g) + settings.eps)
            ),
            grads,
            mean,
            square,
        )
        return directions, MeansState(steps, mean, square)

    return transformation(init, update)


def quasi_hyperbolic_momentum(settings: QHM) -> optax.GradientTransformation:
    """A weighted mean of the gradient and its exponential mean, as torch_optimizer has it."""

    def init(params: Params) -> MomentumState:
        return MomentumState(jax.tree.map(jnp.zeros_like, params))

    def update(grads: Params, state: MomentumState, params: Params) -> tuple[Params, MomentumState]:
        mean = ema(state.momentum, grads, settings.momentum)
        return ema(grads, mean, 1 - settings.nu), MomentumState(mean)

    return transformation(init, update)


class DiffGradState(NamedTuple):
    """State of Adam, and the last gradient."""

    adam: State
    last: Params


def scale_by_diffgrad(settings: Moments) -> optax.GradientTransformation:
    """Adam times a sigmoid of the gradient's change, as torch_optimizer has it."""
    adam = optax.scale_by_adam(*settings.betas, settings.eps)

    def init(params: Params) -> DiffGradState:
        return DiffGradState(adam.init(params), jax.tree.map(jnp.zeros_like, params))

    def update(grads: Params, state: DiffGradState, params: Params) -> tuple[Params, DiffGradState]:
        directions, moved = adam.update(grads, state.adam, params)
        slowed = jax.tree.map(
            lambda d, g, last: d * jax.nn.sigmoid(jnp.abs(last - g)), directions, grads, state.last
        )
        return slowed, DiffGradState(moved, grads)

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


class FactoredState(NamedTuple):
    """Steps done, and mean squares: of rows and columns of what has two axes or more, else of all elements.

    What has fewer axes keeps its squares in `rows`, and a scalar in `columns`.
    """

    steps: Int[Array, ""]
    rows: Params
    columns: Params


def adafactor(settings: Adafactor) -> Rule:
    """Adafactor, whose steps are relative to the size of each tensor, and to at most 1 / sqrt(step).

    Optax's `scale_by_factored_rms` adds its eps to every square, where torch takes it for the least square.
    So the squares are kept here, and the steps that follow are optax's.
    """
    scaled = optax.chain(
        _scale_by_factored_rms(settings),
        optax.clip_by_block_rms(settings.d),
        optax.scale_by_param_block_rms(settings.eps[1]),
    )

    def update(grads: Params, state: State, params: Params, learning_rate: Number) -> tuple[Params, State]:
        directions, state = scaled.update(grads, state, params)
        rate = jnp.minimum(learning_rate, 1 / jnp.sqrt(state[0].steps.astype(dtype_of(params))))
        kept = 1 - learning_rate * settings.weight_decay
        moved = jax.tree.map(lambda p, d: (p * kept - rate * d).astype(p.dtype), params, directions)
        return moved, state

    return Rule(scaled.init, update)


def _scale_by_factored_rms(settings: Adafactor) -> optax.GradientTransformation:
    def init(params: Params) -> FactoredState:
        rows = jax.tree.map(lambda p: jnp.zeros_like(_over(p, -1)), params)
        # An array without elements could not be saved, hence a scalar.
        columns = jax.tree.map(
            lambda p: jnp.zeros_like(_over(p, -2)) if p.ndim > 1 else jnp.zeros(()), params
        )
        return FactoredState(jnp.zeros((), jnp.int32), rows, columns)

    def update(grads: Params, state: FactoredState, params: Params) -> tuple[Params, FactoredState]:
        steps = state.steps + 1
        share = steps.astype(dtype_of(grads)) ** settings.beta2_decay
        rows = jax.tree.map(lambda r, g: r + share * (_over(g * g, -1) - r), state.rows, grads)
        columns = jax.tree.map(
            lambda c, g: c + share * (_over(g * g, -2) - c) if g.ndim > 1 else c, state.columns, grads
        )
        return jax.tree.map(direction, grads, rows, columns), FactoredState(steps, rows, columns)

    def direction(
        grad: Float[Array, "*shape"], row: Float[Array, "..."], column: Float[Array, "..."]
    ) -> Float[Array, "*shape"]:
        least = settings.eps[0]
        least = float(jnp.finfo(grad.dtype).eps) if least is None else least
        square = row * column / jnp.maximum(row.mean(-2, keepdims=True), least) if grad.ndim > 1 else row
        return grad / jnp.sqrt(jnp.maximum(square, least * least))

    return transformation(init, update)


def _over(squares: Float[Array, "..."], axis: int) -> Float[Array, "..."]:
    """Means over an axis of what has two axes or more; vectors and scalars as they are."""
    return squares.mean(axis, keepdims=True) if squares.ndim > 1 else squares


class ScheduleFreeState(NamedTuple):
    """Steps done, what AdamW visits, the mean square, the largest learning rate and the sum of weights."""

    steps: Int[Array, ""]
    visited: Params
    square: Params
    highest: Scalar
    weights: Scalar


def schedule_free_adamw(settings: AdamWScheduleFree) -> Rule:
    """Schedule-free AdamW: an average of what AdamW visits; the learning rate should stay as it is.

    The parameters are the average x. AdamW moves z, and gradients are taken between the two, at
    y = b1 x + (1 - b1) z. What is evaluated and exported is the average, then, without anyone knowing of it.
    """
    b1, b2 = settings.betas

    def init(params: Params) -> ScheduleFreeState:
        zero = jnp.zeros((), dtype_of(params))
        return ScheduleFreeState(
            jnp.zeros((), jnp.int32), params, jax.tree.map(jnp.zeros_like, params), zero, zero
        )

    def point(params: Params, state: ScheduleFreeState) -> Params:
        return jax.tree.map(lambda x, z: b1 * x + (1 - b1) * z, params, state.visited)

    def update(
        grads: Params, state: ScheduleFreeState, params: Params, learning_rate: Number
    ) -> tuple[Params, ScheduleFreeState]:
        steps = state.steps + 1
        step = steps.astype(state.highest.dtype)
        rate = learning_rate * jnp.minimum(1.0, step / max(settings.warmup_steps, 1))
        rate = rate.astype(state.highest.dtype)
        highest = jnp.maximum(state.highest, rate)
        weight = step**settings.r * highest**settings.weight_lr_power
        weights = state.weights + weight
        share = weight / jnp.where(weights > 0, weights, 1.0)
        square = ema_of_squares(state.square, grads, b2)
        visited = jax.tree.map(
            lambda z, g, v, y: (
                z - rate * (g / (jnp.sqrt(v / (1 - b2**step)) + settings.eps) + settings.weight_decay * y)
            ),
            state.visited,
            grads,
            square,
            point(params, state),
        )
        averaged = jax.tree.map(lambda x, z: x + share * (z - x), params, visited)
        return averaged, ScheduleFreeState(steps, visited, square, highest, weights)

    return Rule(init, update, point)


class MomentumState(NamedTuple):
    """Exponential means of the gradients of matrices."""

    momentum: Params


def muon(settings: Muon, linear: frozenset[Path] | None) -> optax.GradientTransformation:
    """Muon, momentum of a matrix, made orthogonal; and AdamW for what is no hidden matrix.

    Optax's Muon moves by other numbers than torch's with `nesterov`, so the rule is here, and the split
    optax's. Hidden matrices are those of the layers and `joint_embedding_layer.weight`. Embeddings, heads,
    norms and biases move by AdamW, at the same learning rate times `adamw_lr_factor`.

    Args:
      settings: The keyword arguments.
      linear: The parameters of linear layers, whose matrices are hidden; None takes every matrix.
    """

    def kinds(params: Params) -> Params:
        return jax.tree_util.tree_map_with_path(partial(_kind, linear), params)

    hidden = optax.chain(_scale_by_orthogonal_momentum(settings), decayed(settings.weight_decay))
    adamw = optax.chain(
        optax.scale_by_adam(*settings.adamw_betas, settings.adamw_eps),
        decayed(settings.adamw_weight_decay),
        optax.scale(settings.adamw_lr_factor),
    )
    return optax.partition({"hidden": hidden, "others": adamw}, kinds)


def _scale_by_orthogonal_momentum(settings: Muon) -> optax.GradientTransformation:
    def init(params: Params) -> MomentumState:
        return MomentumState(jax.tree.map(jnp.zeros_like, params))

    def update(grads: Params, state: MomentumState, params: Params) -> tuple[Params, MomentumState]:
        momentum = ema(state.momentum, grads, settings.momentum)
        ahead = ema(grads, momentum, 1 - settings.momentum) if settings.nesterov else momentum
        directions = jax.tree.map(lambda m: _scale(settings, m.shape) * orthogonal(m, settings), ahead)
        return directions, MomentumState(momentum)

    return transformation(init, update)


def orthogonal(matrix: Float[Array, "rows columns"], settings: Muon) -> Float[Array, "rows columns"]:
    """A matrix with the same singular vectors whose singular values are near 1, by Newton-Schulz steps."""
    a, b, c = settings.ns_coefficients
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = wide / jnp.maximum(jnp.linalg.norm(wide), settings.eps)
    for _ in range(settings.ns_steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


def _scale(settings: Muon, shape: Sequence[int]) -> float:
    rows, columns = shape
    if settings.adjust_lr_fn == "match_rms_adamw":
        return 0.2 * math.sqrt(max(rows, columns))
    return math.sqrt(max(1, rows / columns))


def _kind(linear: frozenset[Path] | None, path: jax.tree_util.KeyPath, leaf: Array) -> str:
    is_linear = linear is None or tuple(str(key.key) for key in path) in linear
    return "hidden" if leaf.ndim == 2 and is_linear else "others"
