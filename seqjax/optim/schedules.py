"""Learning-rate schedules under torch's names: one formula a name in `FORMULAS`, run on the host.

Torch computes most of them by recurrence. A formula of the step, and of the validation losses so far where a
schedule listens to them, has no state and resumes anywhere. Two schedules move momentum too (`MOMENTA`).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seqjax.config.optimization import NamedSpec, scheduler_settings
from seqjax.config.schedulers import (
    CosineAnnealingWarmRestarts,
    CyclicLR,
    LinearLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SchedulerSettings,
    WarmupCosine,
)


@dataclass(frozen=True)
class Schedule:
    """A learning rate, and maybe a momentum, by step: a number of epochs or of batches, from 0."""

    name: str
    settings: SchedulerSettings
    learning_rate: float
    """The optimizer's, which most schedules start from."""

    def __call__(self, step: int, losses: Sequence[float] = ()) -> float:
        """The learning rate of a step.

        Args:
          step: The step.
          losses: Validation loss after each epoch so far.
        """
        if isinstance(self.settings, ReduceLROnPlateau):
            return _plateau(self.settings, self.learning_rate, losses)
        return FORMULAS[self.name](self.settings, self.learning_rate, step)

    @property
    def momentum(self) -> Callable[[int], float] | None:
        """The momentum of a step, if the schedule moves it."""
        if not getattr(self.settings, "cycle_momentum", False):
            return None
        formula = MOMENTA[self.name]
        return lambda step: formula(self.settings, step)


def build_schedule(spec: NamedSpec, learning_rate: float, *, total_steps: int | None = None) -> Schedule:
    """The schedule that a `scheduler` section asks for.

    Args:
      spec: Name and keyword arguments.
      learning_rate: The optimizer's.
      total_steps: Steps of the whole training, for a schedule that leaves its own open.
    """
    settings = scheduler_settings(spec)
    if isinstance(settings, WarmupCosine) and settings.total_steps is None:
        settings = settings.model_copy(update={"total_steps": total_steps})
    return Schedule(spec.name, settings, learning_rate)


def _linear(settings: LinearLR, base: float, step: int) -> float:
    share = min(step / settings.total_iters, 1.0)
    return base * (settings.start_factor + (settings.end_factor - settings.start_factor) * share)


def _cosine_restarts(settings: CosineAnnealingWarmRestarts, base: float, step: int) -> float:
    length = settings.T_0
    if settings.T_mult == 1:
        step %= length
    while step >= length:
        step, length = step - length, length * settings.T_mult
    return _half_cosine(base, settings.eta_min, step / length)


def _one_cycle(settings: OneCycleLR, base: float, step: int) -> float:
    del base  # OneCycleLR replaces the optimizer's learning rate.
    low = settings.max_lr / settings.div_factor
    return _along_cycle(settings, step, low, settings.max_lr, low / settings.final_div_factor)


def _one_cycle_momentum(settings: OneCycleLR, step: int) -> float:
    return _along_cycle(settings, step, settings.max_momentum, settings.base_momentum, settings.max_momentum)


def _along_cycle(settings: OneCycleLR, step: int, start: float, top: float, end: float) -> float:
    """A value that goes from `start` to `top` and to `end` (by way of `start`, in three phases)."""
    peak, last = settings.pct_start * settings.steps - 1, settings.steps - 1
    phases = [(peak, start, top)]
    if settings.three_phase:
        phases.append((2 * peak, top, start))
    phases.append((last, phases[-1][2], end))
    anneal = _half_cosine if settings.anneal_strategy == "cos" else _straight
    begin = 0.0
    for finish, before, after in phases:
        if step <= finish or finish == last:
            return anneal(before, after, (step - begin) / (finish - begin) if finish != begin else 1.0)
        begin = finish
    raise AssertionError("the last phase ends every search")


def _cyclic(settings: CyclicLR, base: float, step: int) -> float:
    del base  # CyclicLR brings its own lowest learning rate.
    return settings.base_lr + (settings.max_lr - settings.base_lr) * _cycle_height(settings, step)


def _cyclic_momentum(settings: CyclicLR, step: int) -> float:
    span = settings.max_momentum - settings.base_momentum
    return settings.max_momentum - span * _cycle_height(settings, step)


def _cycle_height(settings: CyclicLR, step: int) -> float:
    """The height in a cycle, from 0 to 1, shrunk as its mode says."""
    down = settings.step_size_down or settings.step_size_up
    length = settings.step_size_up + down
    cycle, place = divmod(step, length)
    height = place / settings.step_size_up if place <= settings.step_size_up else (length - place) / down
    factor = {"triangular": 1.0, "triangular2": 0.5**cycle, "exp_range": settings.gamma**step}[settings.mode]
    return height * factor


def _warmup_cosine(settings: WarmupCosine, base: float, step: int) -> float:
    total = settings.total_steps or 1
    warmup = round(settings.warmup_ratio * total)
    if step < warmup:
        return base * (step + 1) / warmup
    share = (step - warmup) / (total - warmup) if total > warmup else 1.0
    return _half_cosine(base, settings.eta_min, min(share, 1.0))


def _plateau(settings: ReduceLROnPlateau, base: float, losses: Sequence[float]) -> float:
    rate, bad, cooling = base, 0, 0
    best = math.inf if settings.mode == "min" else -math.inf
    for loss in losses:
        best, bad = (loss, 0) if _is_better(settings, loss, best) else (best, bad + 1)
        if cooling:
            cooling, bad = cooling - 1, 0
        if bad > settings.patience:
            lower = max(rate * settings.factor, settings.min_lr)
            rate = lower if rate - lower > settings.eps else rate
            cooling, bad = settings.cooldown, 0
    return rate


def _is_better(settings: ReduceLROnPlateau, loss: float, best: float) -> bool:
    margin = settings.threshold if settings.mode == "max" else -settings.threshold
    bound = best * (1 + margin) if settings.threshold_mode == "rel" else best + margin
    return loss > bound if settings.mode == "max" else loss < bound


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def _straight(start: float, end: float, share: float) -> float:
    return start + (end - start) * share


FORMULAS: Mapping[str, Callable[[Any, float, int], float]] = {
    "StepLR": lambda own, base, step: base * own.gamma ** (step // own.step_size),
    "MultiStepLR": lambda own, base, step: base * own.gamma ** sum(at <= step for at in own.milestones),
    "ExponentialLR": lambda own, base, step: base * own.gamma**step,
    "ConstantLR": lambda own, base, step: base * (own.factor if step < own.total_iters else 1.0),
    "LinearLR": _linear,
    "CosineAnnealingLR": lambda own, base, step: _half_cosine(base, own.eta_min, step / own.T_max),
    "CosineAnnealingWarmRestarts": _cosine_restarts,
    "PolynomialLR": lambda own, base, step: base * max(1 - step / own.total_iters, 0.0) ** own.power,
    "OneCycleLR": _one_cycle,
    "CyclicLR": _cyclic,
    "WarmupCosine": _warmup_cosine,
}
MOMENTA: Mapping[str, Callable[[Any, int], float]] = {
    "OneCycleLR": _one_cycle_momentum,
    "CyclicLR": _cyclic_momentum,
}
