"""What may be written under `optimizer`, `scheduler` and `criterion`: names, keyword arguments, defaults.

One small model a name, with torch's names and torch's defaults; `seqjax/optim` holds one builder a name. They
are apart so that a misspelt argument is reported without importing jax.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import ConfigDict, Field, ValidationInfo, field_validator

from seqjax.config.base import ConfigModel, Problems, suggestion, validate
from seqjax.errors import ConfigError, Problem

NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Decay = Annotated[float, Field(ge=0, lt=1)]
PositiveCount = Annotated[int, Field(gt=0)]

CATEGORICAL_CRITERIA = ("CrossEntropyLoss", "NLLLoss")
REAL_CRITERIA = ("MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss")


class NamedSpec(ConfigModel):
    """Something chosen by name, with the keyword arguments of that name."""

    model_config = ConfigDict(extra="allow")

    name: str
    """Which one."""

    @classmethod
    def of(cls, name: str, **arguments: object) -> Self:
        """A spec from keyword arguments."""
        return cls.model_validate({"name": name, **arguments})

    @property
    def arguments(self) -> dict[str, Any]:
        """The keyword arguments: every key but `name`."""
        return dict(self.model_extra or {})


class OptimizerSettings(ConfigModel):
    """What every torch optimizer accepts; none of it changes a result."""

    foreach: bool | None = None
    """Has no effect: about torch's kernels."""
    fused: bool | None = None
    """Has no effect: about torch's kernels."""
    capturable: bool = False
    """Has no effect: about torch's kernels."""
    differentiable: bool = False
    """Has no effect: about torch's kernels."""
    maximize: Literal[False] = False
    """A loss is minimized."""


class Adam(OptimizerSettings):
    """Adam, with weight decay as an L2 term in the gradient."""

    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Decay of the mean and of the mean square of the gradient."""
    eps: NonNegative = 1e-8
    """Added to the root of the mean square."""
    weight_decay: NonNegative = 0.0
    """L2 coefficient."""
    amsgrad: Literal[False] = False
    """AMSGrad does not exist here."""


class AdamW(Adam):
    """Adam with decoupled weight decay."""

    weight_decay: NonNegative = 0.01
    """Share of a parameter that is taken off per unit of learning rate."""


class SGD(OptimizerSettings):
    """Gradient descent with momentum."""

    momentum: Decay = 0.0
    """Decay of the sum of gradients."""
    dampening: Literal[0] = 0
    """Only 0 exists here."""
    weight_decay: NonNegative = 0.0
    """L2 coefficient."""
    nesterov: bool = False
    """Look ahead by one step of momentum."""

    @field_validator("dampening", mode="before")
    @classmethod
    def _zero_is_zero(cls, dampening: object) -> object:
        return 0 if dampening == 0 else dampening

    @field_validator("nesterov")
    @classmethod
    def _nesterov_needs_momentum(cls, nesterov: bool, info: ValidationInfo) -> bool:
        if nesterov and info.data.get("momentum") == 0:
            raise ValueError("true needs momentum above 0.")
        return nesterov


class RMSprop(OptimizerSettings):
    """Gradient over the root of its mean square."""

    alpha: Decay = 0.99
    """Decay of the mean square."""
    eps: NonNegative = 1e-8
    """Added to the root."""
    weight_decay: NonNegative = 0.0
    """L2 coefficient."""
    momentum: Decay = 0.0
    """Decay of the sum of steps."""
    centered: bool = False
    """Divide by the standard deviation instead."""


class Adagrad(OptimizerSettings):
    """Gradient over the root of the sum of its squares."""

    lr_decay: NonNegative = 0.0
    """The learning rate is divided by 1 + steps * lr_decay."""
    weight_decay: NonNegative = 0.0
    """L2 coefficient."""
    initial_accumulator_value: NonNegative = 0.0
    """Start of the sum of squares."""
    eps: NonNegative = 1e-10
    """Added to the root."""


class Adadelta(OptimizerSettings):
    """Steps whose size follows the mean square of earlier steps."""

    rho: Decay = 0.9
    """Decay of both mean squares."""
    eps: NonNegative = 1e-6
    """Added inside both roots."""
    weight_decay: NonNegative = 0.0
    """L2 coefficient."""


class Adamax(OptimizerSettings):
    """Adam with the largest recent gradient in place of the mean square."""

    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Decay of the mean and of the largest gradient."""
    eps: NonNegative = 1e-8
    """Added to the gradient's size."""
    weight_decay: NonNegative = 0.0
    """L2 coefficient."""


class NAdam(OptimizerSettings):
    """Adam with Nesterov momentum, whose momentum warms up."""

    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Decay of the mean and of the mean square of the gradient."""
    eps: NonNegative = 1e-8
    """Added to the root of the mean square."""
    weight_decay: NonNegative = 0.0
    """Weight decay: an L2 term, or decoupled."""
    momentum_decay: NonNegative = 4e-3
    """Rate of the momentum's warm-up."""
    decoupled_weight_decay: bool = False
    """Decay parameters as AdamW does."""


class RAdam(OptimizerSettings):
    """Adam that waits until its mean square can be trusted."""

    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Decay of the mean and of the mean square of the gradient."""
    eps: NonNegative = 1e-8
    """Added to the root of the mean square."""
    weight_decay: NonNegative = 0.0
    """Weight decay: an L2 term, or decoupled."""
    decoupled_weight_decay: bool = False
    """Decay parameters as AdamW does."""


class AdEMAMix(OptimizerSettings):
    """Adam with a second, much slower mean of the gradient; weight decay is decoupled."""

    betas: tuple[Decay, Decay, Decay] = (0.9, 0.999, 0.9999)
    """Decay of the fast mean, of the mean square and of the slow mean."""
    eps: NonNegative = 1e-8
    """Added to the root of the mean square."""
    weight_decay: NonNegative = 0.0
    """Share of a parameter that is taken off per unit of learning rate."""
    alpha: NonNegative = 5.0
    """Weight of the slow mean."""
    T_alpha_beta3: PositiveCount | None = None
    """Steps over which alpha and the slow decay warm up; null uses them from the start."""


class Lion(OptimizerSettings):
    """The sign of a mean of the gradient; weight decay is decoupled."""

    betas: tuple[Decay, Decay] = (0.9, 0.99)
    """Weight of the mean in a step, and decay of the mean."""
    weight_decay: NonNegative = 0.0
    """Share of a parameter that is taken off per unit of learning rate."""


class Yogi(OptimizerSettings):
    """Adam whose mean square moves by no more than the square of the gradient."""

    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Decay of the mean, and rate of the mean square."""
    eps: NonNegative = 1e-3
    """Added to the root of the mean square."""
    initial_accumulator: NonNegative = 1e-6
    """Start of the mean square and of the mean."""
    weight_decay: NonNegative = 0.0
    """L2 coefficient."""


class AdaBelief(OptimizerSettings):
    """Adam with the variance of the gradient around its mean, as optax computes it; decay is decoupled."""

    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Decay of the mean and of the variance."""
    eps: NonNegative = 1e-16
    """Added to the variance, and to its root."""
    weight_decay: NonNegative = 0.0
    """Share of a parameter that is taken off per unit of learning rate."""


class Lamb(OptimizerSettings):
    """AdamW whose step in each tensor is as long as the tensor is, as optax computes it."""

    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Decay of the mean and of the mean square of the gradient."""
    eps: NonNegative = 1e-6
    """Added to the root of the mean square."""
    weight_decay: NonNegative = 0.0
    """Share of a parameter that is added to the step before it is scaled."""


class SchedulerSettings(ConfigModel):
    """What every torch scheduler accepts."""

    last_epoch: Literal[-1] = -1
    """A schedule starts at its start; `continue_training` resumes it."""
    verbose: bool | Literal["deprecated"] = False
    """Has no effect: the log holds every learning rate."""


class StepLR(SchedulerSettings):
    """Multiplies the learning rate by gamma every step_size steps."""

    step_size: PositiveCount
    """Steps between changes."""
    gamma: Positive = 0.1
    """Factor."""


class MultiStepLR(SchedulerSettings):
    """Multiplies the learning rate by gamma at each milestone."""

    milestones: list[Annotated[int, Field(ge=0)]]
    """Steps at which it changes."""
    gamma: Positive = 0.1
    """Factor."""


class ExponentialLR(SchedulerSettings):
    """Multiplies the learning rate by gamma at every step."""

    gamma: Positive
    """Factor."""


class ConstantLR(SchedulerSettings):
    """Starts at a fraction of the learning rate, and ends it after total_iters steps."""

    factor: Annotated[float, Field(ge=0, le=1)] = 1.0 / 3
    """Fraction."""
    total_iters: Annotated[int, Field(ge=0)] = 5
    """Steps at that fraction."""


class LinearLR(SchedulerSettings):
    """Moves between two fractions of the learning rate in a straight line."""

    start_factor: Annotated[float, Field(gt=0, le=1)] = 1.0 / 3
    """Fraction at the start."""
    end_factor: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Fraction from total_iters on."""
    total_iters: PositiveCount = 5
    """Steps between the two."""


class CosineAnnealingLR(SchedulerSettings):
    """Half a cosine from the learning rate to eta_min over T_max steps (and back again after it)."""

    T_max: PositiveCount
    """Steps down."""
    eta_min: NonNegative = 0.0
    """Lowest learning rate."""


class CosineAnnealingWarmRestarts(SchedulerSettings):
    """Half a cosine to eta_min, again and again."""

    T_0: PositiveCount
    """Steps of the first descent."""
    T_mult: PositiveCount = 1
    """Factor by which each descent is longer than the one before."""
    eta_min: NonNegative = 0.0
    """Lowest learning rate."""


class PolynomialLR(SchedulerSettings):
    """Goes to 0 over total_iters steps as (1 - step / total_iters) ** power."""

    total_iters: PositiveCount = 5
    """Steps to 0."""
    power: Positive = 1.0
    """Exponent."""


class OneCycleLR(SchedulerSettings):
    """Up to max_lr and down to almost nothing in one cycle; momentum is not cycled."""

    max_lr: Positive
    """Highest learning rate."""
    epochs: PositiveCount | None = None
    """Length of the cycle, with steps_per_epoch."""
    steps_per_epoch: PositiveCount | None = None
    """Length of the cycle, with epochs."""
    total_steps: PositiveCount | None = None
    """Length of the cycle; null takes epochs * steps_per_epoch."""
    pct_start: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Share of the cycle that goes up."""
    anneal_strategy: Literal["cos", "linear"] = "cos"
    """Shape of both halves."""
    cycle_momentum: Literal[False] = False
    """Momentum stays as the optimizer has it."""
    base_momentum: float = 0.85
    """Has no effect: momentum is not cycled."""
    max_momentum: float = 0.95
    """Has no effect: momentum is not cycled."""
    div_factor: Positive = 25.0
    """The cycle starts at max_lr / div_factor."""
    final_div_factor: Positive = 1e4
    """It ends at its start / final_div_factor."""
    three_phase: bool = False
    """Go down to the start first, as long as up, and then on."""

    @field_validator("total_steps")
    @classmethod
    def _length_is_known(cls, total: int | None, info: ValidationInfo) -> int | None:
        if total is None and (info.data.get("epochs") is None or info.data.get("steps_per_epoch") is None):
            raise ValueError("is required (or both epochs and steps_per_epoch).")
        return total

    @property
    def steps(self) -> int:
        """Length of the cycle in steps."""
        return self.total_steps or (self.epochs or 1) * (self.steps_per_epoch or 1)


class CyclicLR(SchedulerSettings):
    """Between two learning rates, up and down, again and again."""

    base_lr: NonNegative
    """Lowest learning rate."""
    max_lr: Positive
    """Highest learning rate."""
    step_size_up: PositiveCount = 2000
    """Steps up."""
    step_size_down: PositiveCount | None = None
    """Steps down; null takes step_size_up."""
    mode: Literal["triangular", "triangular2", "exp_range"] = "triangular"
    """Whether the height stays, halves each cycle, or shrinks by gamma each step."""
    gamma: Positive = 1.0
    """Factor of exp_range."""
    cycle_momentum: Literal[False] = False
    """Momentum stays as the optimizer has it."""
    base_momentum: float = 0.8
    """Has no effect: momentum is not cycled."""
    max_momentum: float = 0.9
    """Has no effect: momentum is not cycled."""


class WarmupCosine(SchedulerSettings):
    """Up to the learning rate in a straight line, then half a cosine down to eta_min."""

    total_steps: PositiveCount
    """Steps in all."""
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the steps that go up."""
    eta_min: NonNegative = 0.0
    """Learning rate at the end, and after it."""


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
    )
}
SCHEDULERS: dict[str, type[SchedulerSettings]] = {
    row.__name__: row
    for row in (
        StepLR,
        MultiStepLR,
        ExponentialLR,
        ConstantLR,
        LinearLR,
        CosineAnnealingLR,
        CosineAnnealingWarmRestarts,
        PolynomialLR,
        OneCycleLR,
        CyclicLR,
        WarmupCosine,
    )
}


def optimizer_settings(spec: NamedSpec) -> OptimizerSettings:
    """The checked keyword arguments of an optimizer, defaults filled in; raises `Problems`."""
    return _settings(spec, OPTIMIZERS, "optimizer")


def scheduler_settings(spec: NamedSpec) -> SchedulerSettings:
    """The checked keyword arguments of a scheduler, defaults filled in; raises `Problems`."""
    return _settings(spec, SCHEDULERS, "scheduler")


def schedule_length(spec: NamedSpec) -> int | None:
    """For how many steps a schedule is defined, or None for one without an end."""
    settings = scheduler_settings(spec)
    return settings.steps if isinstance(settings, OneCycleLR) else None


Settings = TypeVar("Settings", bound=ConfigModel)


def _settings(spec: NamedSpec, table: Mapping[str, type[Settings]], what: str) -> Settings:
    if spec.name not in table:
        hint = suggestion(spec.name, list(table))
        known = "" if hint.startswith("Known") else f" Known: {', '.join(table)}."
        raise Problems([Problem("name", f"no {what} is called {spec.name!r}. {hint}{known}")])
    try:
        return validate(table[spec.name], spec.arguments, spec.name)
    except ConfigError as error:
        raise Problems(error.problems) from None
