"""Optimizers under torch's names: one builder a name in `BUILDERS`.

Where optax has torch's rule it is used; the other rules are in the other files of this folder. A test holds
each row to a trajectory of torch, or to the published formula.

Every hyperparameter that is a number may be a traced value: a builder does arithmetic with it, and looks at
it only to leave out what does nothing (`is_off`). What a state consists of is decided by the settings that an
optimizer was built with; `Optimizer.with_values` changes numbers and never that.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import jax
import optax
import optax.contrib
from flax.traverse_util import flatten_dict, unflatten_dict

from seqjax.config.optimization import NamedSpec, optimizer_settings
from seqjax.config.optimizers import (
    QHM,
    SGD,
    Adagrad,
    Adam,
    Adan,
    Lars,
    Moments,
    OptimizerSettings,
    QHAdam,
    RMSprop,
    Signum,
    Yogi,
)
from seqjax.optim.rated_rules import asgd, madgrad, rprop
from seqjax.optim.rule import Number, Params, Path, Rule, State, decayed, is_off, widened
from seqjax.optim.rules import (
    adafactor,
    dampened_momentum,
    muon,
    quasi_hyperbolic_momentum,
    scale_by_ademamix,
    scale_by_amsgrad,
    scale_by_diffgrad,
    scale_by_lars,
    scale_by_nadam,
    scale_by_novograd,
    scale_by_qhadam,
    scale_by_sum_of_squares,
    schedule_free_adamw,
)


@dataclass(frozen=True)
class Optimizer:
    """An optimizer by name, with its checked keyword arguments, for all parameters or some of them."""

    name: str
    settings: OptimizerSettings
    frozen: frozenset[Path] = frozenset()
    """Parameters that never move; there is no state for them."""
    linear: frozenset[Path] | None = None
    """The parameters of linear layers, whose matrices some rules treat apart; None is every matrix."""

    @property
    def rule(self) -> Rule:
        """The rule of the parameters that are not frozen."""
        return BUILDERS[self.name].rule(self.settings, self.linear)

    def init(self, params: Params) -> State:
        """The state before the first update, in float32 (or wider, where the parameters are)."""
        return self.rule.init(widened(self.moving(params)))

    def moving(self, params: Params) -> Params:
        """The parameters (or what belongs to them, such as gradients) that are not frozen."""
        if not self.frozen:
            return params
        flat = flatten_dict(params)
        return unflatten_dict({path: leaf for path, leaf in flat.items() if path not in self.frozen})

    def joined(self, params: Params, moving: Params) -> Params:
        """All parameters, of which those that are not frozen are replaced."""
        return unflatten_dict(flatten_dict(params) | flatten_dict(moving)) if self.frozen else moving

    def with_values(self, values: Mapping[str, Number | tuple[Number, ...]]) -> "Optimizer":
        """The same optimizer with other values of some keyword arguments, which may be traced.

        Args:
          values: By the names of the keyword arguments, such as weight_decay or betas. A `momentum`,
            `dampening` or `lr_decay` of 0 must stay so, and one that is not 0 too: the state depends on it.
        """
        return replace(self, settings=self.settings.model_copy(update=dict(values)))

    def with_momentum(self, momentum: Number) -> "Optimizer":
        """The same optimizer with another momentum, or first of its betas; it must have either."""
        betas = getattr(self.settings, "betas", None)
        return self.with_values(
            {"momentum": momentum} if betas is None else {"betas": (momentum, *betas[1:])}
        )


def build_optimizer(
    spec: NamedSpec, *, frozen: frozenset[Path] = frozenset(), linear: frozenset[Path] | None = None
) -> Optimizer:
    """The optimizer that an `optimizer` section asks for.

    Args:
      spec: Name and keyword arguments.
      frozen: The parameters that never move, by the keys that lead to them.
      linear: The parameters of linear layers; None is every matrix.
    """
    return Optimizer(spec.name, optimizer_settings(spec), frozen, linear)


def _adam(settings: Adam) -> optax.GradientTransformation:
    if settings.amsgrad:
        return scale_by_amsgrad(settings.betas, settings.eps)
    return optax.scale_by_adam(*settings.betas, settings.eps)


def _sgd(settings: SGD) -> optax.GradientTransformation:
    if is_off(settings.dampening) or is_off(settings.momentum):
        return _momentum(settings.momentum, nesterov=settings.nesterov)
    return dampened_momentum(settings.momentum, settings.dampening)


def _lars(settings: Lars) -> optax.GradientTransformation:
    return optax.chain(scale_by_lars(settings), _sgd(settings))


def _rmsprop(settings: RMSprop) -> optax.GradientTransformation:
    scale = optax.scale_by_stddev if settings.centered else optax.scale_by_rms
    scaled = scale(settings.alpha, settings.eps, eps_in_sqrt=False)
    return optax.chain(scaled, _momentum(settings.momentum))


def _adagrad(settings: Adagrad) -> optax.GradientTransformation:
    scaled = scale_by_sum_of_squares(settings.initial_accumulator_value, settings.eps)
    if is_off(settings.lr_decay):
        return scaled
    return optax.chain(scaled, optax.scale_by_schedule(lambda step: 1 / (1 + step * settings.lr_decay)))


def _yogi(settings: Yogi) -> optax.GradientTransformation:
    initial = settings.initial_accumulator
    return optax.scale_by_yogi(*settings.betas, settings.eps, initial_accumulator_value=initial)


def _adabelief(settings: Moments) -> optax.GradientTransformation:
    return optax.scale_by_belief(*settings.betas, eps=settings.eps, eps_root=settings.eps)


def _lamb(settings: Moments) -> optax.GradientTransformation:
    return optax.chain(
        optax.scale_by_adam(*settings.betas, settings.eps),
        decayed(settings.weight_decay),
        optax.scale_by_trust_ratio(),
    )


def _with_decay(
    direction: optax.GradientTransformation, settings: OptimizerSettings, *, last: bool
) -> optax.GradientTransformation:
    """Weight decay as a term of the direction, or else of the gradient."""
    decay = decayed(settings.weight_decay)
    return optax.chain(direction, decay) if last else optax.chain(decay, direction)


def _qhadam(settings: QHAdam) -> optax.GradientTransformation:
    return _with_decay(scale_by_qhadam(settings), settings, last=settings.decouple_weight_decay)


def _qhm(settings: QHM) -> optax.GradientTransformation:
    is_last = settings.weight_decay_type == "direct"
    return _with_decay(quasi_hyperbolic_momentum(settings), settings, last=is_last)


def _adan(settings: Adan) -> optax.GradientTransformation:
    return optax.scale_by_adan(*settings.betas, settings.eps)


def _adopt(settings: Moments) -> optax.GradientTransformation:
    return optax.contrib.scale_by_adopt(*settings.betas, settings.eps)


def _signum(settings: Signum) -> optax.GradientTransformation:
    return optax.chain(optax.ema(settings.momentum, debias=False), optax.scale_by_sign())


def _momentum(decay: Number, *, nesterov: bool = False) -> optax.GradientTransformation:
    return optax.identity() if is_off(decay) else optax.trace(decay, nesterov)


def directed(transformation: optax.GradientTransformation) -> Rule:
    """The rule that moves parameters by minus the learning rate times what a transformation returns."""

    def update(grads: Params, state: State, params: Params, learning_rate: Number) -> tuple[Params, State]:
        directions, state = transformation.update(grads, state, params)
        moved = jax.tree.map(lambda p, d: p - (learning_rate * d).astype(p.dtype), params, directions)
        return moved, state

    return Rule(transformation.init, update)


class Builder(NamedTuple):
    """Builds an optimizer from its settings."""

    direction: Callable[..., optax.GradientTransformation | Rule]
    """Makes the transformation of gradients, or a whole rule."""
    decay: Literal["coupled", "decoupled", "own"]
    """Place of weight decay: a term of the gradient (unless `decoupled_weight_decay` is there and says
    otherwise), of the direction, or a matter of the rule itself."""
    by_layer: bool = False
    """True if `direction` takes the parameters of linear layers, or None, as well."""

    def rule(self, settings: OptimizerSettings, linear: frozenset[Path] | None = None) -> Rule:
        """The rule with some settings."""
        direction = self.direction(settings, linear) if self.by_layer else self.direction(settings)
        if isinstance(direction, Rule):
            return direction
        if self.decay == "own":
            return directed(direction)
        is_last = self.decay == "decoupled" or getattr(settings, "decoupled_weight_decay", False)
        return directed(_with_decay(direction, settings, last=is_last))


BUILDERS: Mapping[str, Builder] = {
    "Adam": Builder(_adam, "coupled"),
    "AdamW": Builder(_adam, "decoupled"),
    "SGD": Builder(_sgd, "coupled"),
    "AdEMAMix": Builder(scale_by_ademamix, "decoupled"),
    "RMSprop": Builder(_rmsprop, "coupled"),
    "Adagrad": Builder(_adagrad, "coupled"),
    "Adadelta": Builder(lambda settings: optax.scale_by_adadelta(settings.rho, settings.eps), "coupled"),
    "Adamax": Builder(lambda settings: optax.scale_by_adamax(*settings.betas, eps=settings.eps), "coupled"),
    "NAdam": Builder(scale_by_nadam, "coupled"),
    "RAdam": Builder(lambda settings: optax.scale_by_radam(*settings.betas, eps=settings.eps), "coupled"),
    "Lion": Builder(lambda settings: optax.scale_by_lion(*settings.betas), "decoupled"),
    "Yogi": Builder(_yogi, "coupled"),
    "AdaBelief": Builder(_adabelief, "decoupled"),
    "Lamb": Builder(_lamb, "own"),
    "Lars": Builder(_lars, "own"),
    "NovoGrad": Builder(scale_by_novograd, "own"),
    "Adafactor": Builder(adafactor, "own"),
    "Muon": Builder(muon, "own", by_layer=True),
    "AdamWScheduleFree": Builder(schedule_free_adamw, "own"),
    "QHAdam": Builder(_qhadam, "own"),
    "QHM": Builder(_qhm, "own"),
    "ASGD": Builder(asgd, "own"),
    "Rprop": Builder(rprop, "own"),
    "DiffGrad": Builder(scale_by_diffgrad, "coupled"),
    "MADGRAD": Builder(madgrad, "own"),
    "Adan": Builder(_adan, "decoupled"),
    "ADOPT": Builder(_adopt, "decoupled"),
    "Signum": Builder(_signum, "decoupled"),
    "LARS": Builder(_lars, "own"),
}
