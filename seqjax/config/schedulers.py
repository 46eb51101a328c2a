"""Arguments of each scheduler that may be named, with its torch defaults; `optim` has the formulas."""

from typing import Annotated, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
)

from seqjax.config.base import ConfigModel, PositiveShare, Share, ShareBelowOne


class SchedulerSettings(ConfigModel):
    """What every torch scheduler accepts."""

    last_epoch: Literal[-1] = -1
    """A schedule starts at its start; `continue_training` resumes it."""
    verbose: bool | Literal["deprecated"] = False
    """Has no effect: the log holds every learning rate."""


class StepLR(SchedulerSettings):
    """Multiplies the learning rate by gamma every step_size steps."""

    step_size: PositiveInt
    """Steps between changes."""
    gamma: PositiveFloat = 0.1
    """Factor."""


class MultiStepLR(SchedulerSettings):
    """Multiplies the learning rate by gamma at each milestone."""

    milestones: list[NonNegativeInt]
    """Steps at which it changes."""
    gamma: PositiveFloat = 0.1
    """Factor."""


class ExponentialLR(SchedulerSettings):
    """Multiplies the learning rate by gamma at every step."""

    gamma: PositiveFloat
    """Factor."""


class ConstantLR(SchedulerSettings):
    """Starts at a fraction of the learning rate, and ends it after total_iters steps."""

    factor: Share = 1.0 / 3
    """Fraction."""
    total_iters: NonNegativeInt = 5
    """Steps at that fraction."""


class LinearLR(SchedulerSettings):
    """Moves between two fractions of the learning rate in a straight line."""

    start_factor: PositiveShare = 1.0 / 3
    """Fraction at the start."""
    end_factor: Share = 1.0
    """Fraction from total_iters on."""
    total_iters: PositiveInt = 5
    """Steps between the two."""


class CosineAnnealingLR(SchedulerSettings):
    """Half a cosine from the learning rate to eta_min over T_max steps (and back again after it)."""

    T_max: PositiveInt
    """Steps down."""
    eta_min: NonNegativeFloat = 0.0
    """Lowest learning rate."""


class CosineAnnealingWarmRestarts(SchedulerSettings):
    """Half a cosine to eta_min, again and again."""

    T_0: PositiveInt
    """Steps of the first descent."""
    T_mult: PositiveInt = 1
    """Factor by which each descent is longer than the one before."""
    eta_min: NonNegativeFloat = 0.0
    """Lowest learning rate."""


class PolynomialLR(SchedulerSettings):
    """Goes to 0 over total_iters steps as (1 - step / total_iters) ** power."""

    total_iters: PositiveInt = 5
    """Steps to 0."""
    power: PositiveFloat = 1.0
    """Exponent."""


class OneCycleLR(SchedulerSettings):
    """Up to max_lr and down to almost nothing in one cycle."""

    max_lr: PositiveFloat
    """Highest learning rate."""
    epochs: PositiveInt | None = None
    """Length of the cycle, with steps_per_epoch."""
    steps_per_epoch: PositiveInt | None = None
    """Length of the cycle, with epochs."""
    total_steps: PositiveInt | None = None
    """Length of the cycle; null takes epochs * steps_per_epoch."""
    pct_start: Share = 0.3
    """Share of the cycle that goes up."""
    anneal_strategy: Literal["cos", "linear"] = "cos"
    """Shape of both halves."""
    cycle_momentum: bool = True
    """Move the optimizer's momentum (or the first of its betas) the other way."""
    base_momentum: ShareBelowOne = 0.85
    """Momentum at the highest learning rate."""
    max_momentum: ShareBelowOne = 0.95
    """Momentum at the lowest learning rates."""
    div_factor: PositiveFloat = 25.0
    """The cycle starts at max_lr / div_factor."""
    final_div_factor: PositiveFloat = 1e4
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

    base_lr: NonNegativeFloat
    """Lowest learning rate."""
    max_lr: PositiveFloat
    """Highest learning rate."""
    step_size_up: PositiveInt = 2000
    """Steps up."""
    step_size_down: PositiveInt | None = None
    """Steps down; null takes step_size_up."""
    mode: Literal["triangular", "triangular2", "exp_range"] = "triangular"
    """Whether the height stays, halves each cycle, or shrinks by gamma each step."""
    gamma: PositiveFloat = 1.0
    """Factor of exp_range."""
    cycle_momentum: bool = True
    """Move the optimizer's momentum (or the first of its betas) the other way."""
    base_momentum: ShareBelowOne = 0.8
    """Momentum at the highest learning rate."""
    max_momentum: ShareBelowOne = 0.9
    """Momentum at the lowest learning rate."""


class WarmupCosine(SchedulerSettings):
    """Up to the learning rate in a straight line, then half a cosine down to eta_min."""

    total_steps: PositiveInt | None = None
    """Steps in all; null takes those of the whole training."""
    warmup_ratio: ShareBelowOne = 0.1
    """Share of the steps that go up."""
    eta_min: NonNegativeFloat = 0.0
    """Learning rate at the end, and after it."""


class ReduceLROnPlateau(SchedulerSettings):
    """Multiplies the learning rate by factor when the validation loss has stopped falling; steps by epoch."""

    mode: Literal["min", "max"] = "min"
    """Whether lower or higher is better; of a loss, lower is."""
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Factor."""
    patience: NonNegativeInt = 10
    """Epochs without improvement that are put up with."""
    threshold: NonNegativeFloat = 1e-4
    """By how much the best must be beaten."""
    threshold_mode: Literal["rel", "abs"] = "rel"
    """Whether threshold is a share of the best, or a difference from it."""
    cooldown: NonNegativeInt = 0
    """Epochs after a reduction that count for nothing."""
    min_lr: NonNegativeFloat = 0.0
    """Lowest learning rate."""
    eps: NonNegativeFloat = 1e-8
    """A reduction by no more than this is not made."""


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
        ReduceLROnPlateau,
    )
}
