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
    """Arguments of every torch scheduler."""

    last_epoch: Literal[-1] = -1
    """A schedule starts at its start; `continue_training` resumes it."""
    verbose: bool | Literal["deprecated"] = False
    """Has no effect: the log holds every learning rate."""


class StepLR(SchedulerSettings):
    """Multiplies the learning rate by gamma every step_size steps."""

    step_size: PositiveInt
    gamma: PositiveFloat = 0.1


class MultiStepLR(SchedulerSettings):
    """Multiplies the learning rate by gamma at each milestone, a number of steps."""

    milestones: list[NonNegativeInt]
    gamma: PositiveFloat = 0.1


class ExponentialLR(SchedulerSettings):
    """Multiplies the learning rate by gamma at every step."""

    gamma: PositiveFloat


class ConstantLR(SchedulerSettings):
    """Multiplies the learning rate by factor for total_iters steps."""

    factor: Share = 1.0 / 3
    total_iters: NonNegativeInt = 5


class LinearLR(SchedulerSettings):
    """Moves between two fractions of the learning rate in a straight line of total_iters steps."""

    start_factor: PositiveShare = 1.0 / 3
    end_factor: Share = 1.0
    total_iters: PositiveInt = 5


class CosineAnnealingLR(SchedulerSettings):
    """Half a cosine from the learning rate to eta_min over T_max steps (and back again after it)."""

    T_max: PositiveInt
    eta_min: NonNegativeFloat = 0.0


class CosineAnnealingWarmRestarts(SchedulerSettings):
    """Half a cosine to eta_min over T_0 steps, again and again, each T_mult times as long as the last."""

    T_0: PositiveInt
    T_mult: PositiveInt = 1
    eta_min: NonNegativeFloat = 0.0


class PolynomialLR(SchedulerSettings):
    """Goes to 0 over total_iters steps as (1 - step / total_iters) ** power."""

    total_iters: PositiveInt = 5
    power: PositiveFloat = 1.0


class OneCycleLR(SchedulerSettings):
    """From max_lr / div_factor up to max_lr, and down to that start / final_div_factor, in one cycle.

    The first pct_start of the steps go up. The optimizer's momentum (or the first of its betas) goes the
    other way, from max_momentum to base_momentum, unless cycle_momentum is false.
    """

    max_lr: PositiveFloat
    epochs: PositiveInt | None = None
    steps_per_epoch: PositiveInt | None = None
    total_steps: PositiveInt | None = None
    """Length of the cycle; null takes epochs * steps_per_epoch."""
    pct_start: Share = 0.3
    anneal_strategy: Literal["cos", "linear"] = "cos"
    cycle_momentum: bool = True
    base_momentum: ShareBelowOne = 0.85
    max_momentum: ShareBelowOne = 0.95
    div_factor: PositiveFloat = 25.0
    final_div_factor: PositiveFloat = 1e4
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
    """From base_lr up to max_lr and down, again and again; momentum moves as in `OneCycleLR`."""

    base_lr: NonNegativeFloat
    max_lr: PositiveFloat
    step_size_up: PositiveInt = 2000
    step_size_down: PositiveInt | None = None
    """Steps down; null takes step_size_up."""
    mode: Literal["triangular", "triangular2", "exp_range"] = "triangular"
    """Change of the height: it stays, halves each cycle, or shrinks by gamma each step."""
    gamma: PositiveFloat = 1.0
    cycle_momentum: bool = True
    base_momentum: ShareBelowOne = 0.8
    max_momentum: ShareBelowOne = 0.9


class WarmupCosine(SchedulerSettings):
    """Up to the learning rate in a straight line, then half a cosine down to eta_min, where it stays."""

    total_steps: PositiveInt | None = None
    """Steps in all; null takes those of the whole training."""
    warmup_ratio: ShareBelowOne = 0.1
    """Share of the steps that go up."""
    eta_min: NonNegativeFloat = 0.0


class ReduceLROnPlateau(SchedulerSettings):
    """Multiplies the learning rate by factor when the validation loss has stopped falling; steps by epoch.

    It puts up with `patience` epochs that do not beat the best loss by threshold, a share of it or (abs) a
    difference from it. For `cooldown` epochs after a reduction nothing counts.
    """

    mode: Literal["min", "max"] = "min"
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    patience: NonNegativeInt = 10
    threshold: NonNegativeFloat = 1e-4
    threshold_mode: Literal["rel", "abs"] = "rel"
    cooldown: NonNegativeInt = 0
    min_lr: NonNegativeFloat = 0.0
    eps: NonNegativeFloat = 1e-8
    """A reduction by no more than this is not made."""


SCHEDULERS = {row.__name__: row for row in SchedulerSettings.__subclasses__()}
"""All of them, in the order of this file."""
