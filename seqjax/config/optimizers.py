"""Arguments of each optimizer that may be named, with its torch defaults; `optim` builds them."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, ValidationInfo, field_validator

from seqjax.config.base import ConfigModel, ShareBelowOne


class OptimizerSettings(ConfigModel):
    """Arguments of every optimizer. All but the first change nothing: they are about torch's kernels.

    Weight decay is the coefficient of an L2 term in the gradient; where an optimizer's decay is decoupled,
    the share of a parameter that is taken off per unit of learning rate.
    """

    weight_decay: NonNegativeFloat = 0.0
    foreach: bool | None = None
    fused: bool | None = None
    capturable: bool = False
    differentiable: bool = False
    maximize: Literal[False] = False


class Moments(OptimizerSettings):
    """Arguments of optimizers that divide a mean of the gradient by the root of (mostly) a mean square.

    The betas are the decays of the two means; eps is added to the root.
    """

    betas: tuple[ShareBelowOne, ShareBelowOne] = (0.9, 0.999)
    eps: NonNegativeFloat = 1e-8


class Adam(Moments):
    """Adam, with weight decay as an L2 term in the gradient."""

    amsgrad: bool = False
    """Divide by the largest mean square so far."""


class AdamW(Adam):
    """Adam with decoupled weight decay."""

    weight_decay: NonNegativeFloat = 0.01


class SGD(OptimizerSettings):
    """Gradient descent with momentum."""

    momentum: ShareBelowOne = 0.0
    dampening: NonNegativeFloat = 0.0
    """Share of each gradient that momentum leaves out."""
    nesterov: bool = False

    @field_validator("nesterov")
    @classmethod
    def _nesterov_needs_momentum(cls, nesterov: bool, info: ValidationInfo) -> bool:
        if nesterov and (info.data.get("momentum") == 0 or info.data.get("dampening") != 0):
            raise ValueError("true needs momentum above 0, and no dampening.")
        return nesterov


class ASGD(OptimizerSettings):
    """Gradient descent whose rate falls, as in torch, whose average beside the parameters is not kept."""

    lambd: NonNegativeFloat = 1e-4
    """Decay of the parameters, and of the rate."""
    alpha: NonNegativeFloat = 0.75
    """Exponent of the rate's fall."""
    t0: NonNegativeFloat = 1e6
    """Has no effect: the step from which torch averages, which no one reads."""


class Rprop(OptimizerSettings):
    """Steps of a size of their own for each parameter, which the signs of gradients decide, as in torch."""

    weight_decay: Annotated[float, Field(ge=0, le=0)] = 0.0
    etas: tuple[Annotated[float, Field(gt=0, lt=1)], Annotated[float, Field(gt=1)]] = (0.5, 1.2)
    """Factors of a step's size: where the gradient turned, and where it did not."""
    step_sizes: tuple[NonNegativeFloat, NonNegativeFloat] = (1e-6, 50.0)
    """Least and largest size."""


class QHM(OptimizerSettings):
    """A weighted mean of the gradient and its exponential mean, as in torch_optimizer."""

    momentum: ShareBelowOne = 0.0
    """Decay of the mean."""
    nu: NonNegativeFloat = 0.7
    """Weight of the mean."""
    weight_decay_type: Literal["grad", "direct"] = "grad"
    """grad is an L2 term, direct decoupled decay."""


class RMSprop(OptimizerSettings):
    """Gradient over the root of its mean square."""

    alpha: ShareBelowOne = 0.99
    eps: NonNegativeFloat = 1e-8
    momentum: ShareBelowOne = 0.0
    centered: bool = False
    """Divide by the standard deviation instead."""


class Adagrad(OptimizerSettings):
    """Gradient over the root of the sum of its squares."""

    lr_decay: NonNegativeFloat = 0.0
    """The learning rate is divided by 1 + steps * lr_decay."""
    initial_accumulator_value: NonNegativeFloat = 0.0
    eps: NonNegativeFloat = 1e-10


class Adadelta(OptimizerSettings):
    """Steps whose size follows the mean square of earlier steps."""

    rho: ShareBelowOne = 0.9
    eps: NonNegativeFloat = 1e-6
    """Added inside both roots."""


class Adamax(Moments):
    """Adam with the largest recent gradient in place of the mean square; decay is an L2 term."""


class NAdam(Moments):
    """Adam with Nesterov momentum, whose momentum warms up."""

    momentum_decay: NonNegativeFloat = 4e-3
    """Rate of the momentum's warm-up."""
    decoupled_weight_decay: bool = False


class RAdam(Moments):
    """Adam that waits until its mean square can be trusted."""

    decoupled_weight_decay: bool = False


class QHAdam(Moments):
    """Adam of weighted means of gradients and their exponential means, as in torch_optimizer."""

    nus: tuple[NonNegativeFloat, NonNegativeFloat] = (1.0, 1.0)
    """Weights of the mean and of the mean square; with 1 and 1 it is Adam."""
    decouple_weight_decay: bool = False


class DiffGrad(Moments):
    """Adam whose steps are smaller where the gradient hardly changes, as in torch_optimizer."""


class MADGRAD(OptimizerSettings):
    """Momentumized, adaptive, dual averaged gradient, as optax and torch_optimizer compute it."""

    momentum: ShareBelowOne = 0.9
    eps: NonNegativeFloat = 1e-6


class Adan(OptimizerSettings):
    """Adam with Nesterov momentum of the gradient's differences, as optax computes it; decay is decoupled."""

    betas: tuple[ShareBelowOne, ShareBelowOne, ShareBelowOne] = (0.98, 0.92, 0.99)
    """Decay of the means of gradients, of their differences, and of the square."""
    eps: NonNegativeFloat = 1e-8


class ADOPT(Moments):
    """Adam that divides by the mean square before the newest gradient, as optax computes it."""

    betas: tuple[ShareBelowOne, ShareBelowOne] = (0.9, 0.9999)
    eps: NonNegativeFloat = 1e-6


class Signum(OptimizerSettings):
    """The sign of a mean of the gradient, as optax computes it; decay is decoupled."""

    momentum: ShareBelowOne = 0.9


class AdEMAMix(OptimizerSettings):
    """Adam with a second, much slower mean of the gradient; weight decay is decoupled."""

    betas: tuple[ShareBelowOne, ShareBelowOne, ShareBelowOne] = (0.9, 0.999, 0.9999)
    """Decay of the fast mean, of the mean square and of the slow mean."""
    eps: NonNegativeFloat = 1e-8
    alpha: NonNegativeFloat = 5.0
    """Weight of the slow mean."""
    T_alpha_beta3: PositiveInt | None = None
    """Steps over which alpha and the slow decay warm up; null uses them from the start."""


class Lion(OptimizerSettings):
    """The sign of a mean of the gradient; weight decay is decoupled."""

    betas: tuple[ShareBelowOne, ShareBelowOne] = (0.9, 0.99)
    """Weight of the mean in a step, and decay of the mean."""


class Yogi(Moments):
    """Adam whose mean square moves by no more than the square of the gradient; decay is an L2 term."""

    eps: NonNegativeFloat = 1e-3
    initial_accumulator: NonNegativeFloat = 1e-6


class AdaBelief(Moments):
    """Adam with the variance of the gradient around its mean, as optax computes it; decay is decoupled."""

    eps: NonNegativeFloat = 1e-16
    """Added to the variance, and to its root."""


class Lamb(Moments):
    """AdamW whose step in each tensor is as long as the tensor is, as optax computes it.

    The decay is added to the step before the step is scaled.
    """

    eps: NonNegativeFloat = 1e-6


class Lars(SGD):
    """SGD whose step in each tensor is trust_coefficient times as long as it, as in torch_optimizer.

    Without weight decay, steps are not scaled either.
    """

    trust_coefficient: NonNegativeFloat = 0.01
    eps: NonNegativeFloat = 1e-8


class NovoGrad(Adam):
    """Momentum of gradients that are divided by the norm of their tensor, as in torch_optimizer.

    The decay is added to the divided gradient.
    """

    betas: tuple[ShareBelowOne, ShareBelowOne] = (0.95, 0.0)
    """Decay of the sum of gradients and of the mean square norm."""
    grad_averaging: bool = False
    """Take a mean of gradients rather than a sum."""


class Adafactor(OptimizerSettings):
    """Adam without momentum whose mean square of a matrix is kept by row and column, as in torch."""

    beta2_decay: Annotated[float, Field(le=0)] = -0.8
    """Exponent of the step in the weight of a new square."""
    eps: tuple[NonNegativeFloat | None, NonNegativeFloat] = (None, 1e-3)
    """Least root of the mean square (null: of the number format), and least size of a tensor."""
    d: Annotated[float, Field(ge=1)] = 1.0
    """Largest root mean square of a step, relative to the learning rate."""


class Muon(OptimizerSettings):
    """Torch's Muon for matrices of layers and joint_embedding_layer.weight; AdamW for other parameters."""

    momentum: ShareBelowOne = 0.95
    nesterov: bool = True
    weight_decay: NonNegativeFloat = 0.1
    """Share of a matrix that is taken off per unit of learning rate."""
    ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315)
    ns_steps: Annotated[int, Field(gt=0, lt=100)] = 5
    eps: NonNegativeFloat = 1e-7
    """Least norm to divide by."""
    adjust_lr_fn: Literal["original", "match_rms_adamw"] | None = None
    """Scale of the rate: sqrt(max(1, rows / columns)) (null, original), or 0.2 sqrt(max(rows, columns)), with
    which one learning rate suits both parts."""
    adamw_betas: tuple[ShareBelowOne, ShareBelowOne] = (0.9, 0.999)
    adamw_eps: NonNegativeFloat = 1e-8
    adamw_weight_decay: NonNegativeFloat = 0.01
    """Share of the other parameters that is taken off per unit of learning rate."""
    adamw_lr_factor: NonNegativeFloat = 1.0
    """Learning rate of AdamW, relative to that of Muon."""


class AdamWScheduleFree(Moments):
    """AdamW that averages what it visits and needs no schedule; the average is evaluated and exported.

    The first of the betas is the share of the average in where gradients are taken.
    """

    warmup_steps: NonNegativeInt = 0
    """Updates over which the learning rate grows in a straight line."""
    r: NonNegativeFloat = 0.0
    """Exponent of the step in the weights of the average."""
    weight_lr_power: NonNegativeFloat = 2.0
    """Exponent of the learning rate in the weights of the average."""


OPTIMIZERS: dict[str, type[OptimizerSettings]] = {
    row.__name__: row
    for row in (
        Adam,
        AdamW,
        SGD,
        AdEMAMix,
        RMSprop,
        Adagrad,
        Adadelta,
        Adamax,
        NAdam,
        RAdam,
        Lion,
        Yogi,
        AdaBelief,
        Lamb,
        Lars,
        NovoGrad,
        Adafactor,
        Muon,
        AdamWScheduleFree,
        QHAdam,
        QHM,
        ASGD,
        Rprop,
        DiffGrad,
        MADGRAD,
        Adan,
        ADOPT,
        Signum,
    )
}
OPTIMIZERS["LARS"] = Lars  # Its name in torch_optimizer.
