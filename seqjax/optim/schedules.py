"""Learning-rate schedules under torch's names: one closed formula a name in `FORMULAS`, run on the host.

Torch computes most of them by recurrence; a closed formula of the step resumes anywhere.
"""

import bisect
import math
from collections.abc import Callable, Mapping
from typing import Any

from seqjax.config.optimization import NamedSpec, scheduler_settings
from seqjax.config.schedulers import (
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    CyclicLR,
    ExponentialLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    PolynomialLR,
    StepLR,
    WarmupCosine,
)

Schedule = Callable[[int], float]


def build_schedule(spec: NamedSpec, learning_rate: float) -> Schedule:
    """The schedule that a `scheduler` section asks for.

    Args:
      spec: Name and keyword arguments.
      learning_rate: The optimizer's, which most schedules start from.

    Returns:
      The learning rate of a step, counted in epochs or batches from 0.
    """
    settings, formula = scheduler_settings(spec), FORMULAS[spec.name]
    return lambda step: formula(settings, learning_rate, step)


def _step(settings: StepLR, base: float, step: int) -> float:
    return base * settings.gamma ** (step // settings.step_size)


def _multi_step(settings: MultiStepLR, base: float, step: int) -> float:
    return base * settings.gamma ** bisect.bisect_right(sorted(settings.milestones), step)


def _exponential(settings: ExponentialLR, base: float, step: int) -> float:
    return base * settings.gamma**step


def _constant(settings: ConstantLR, base: float, step: int) -> float:
    return base * (settings.factor if step < settings.total_iters else 1.0)


def _linear(settings: LinearLR, base: float, step: int) -> float:
    share = min(step / settings.total_iters, 1.0)
    return base * (settings.start_factor + (settings.end_factor - settings.start_factor) * share)


def _cosine(settings: CosineAnnealingLR, base: float, step: int) -> float:
    return _half_cosine(base, settings.eta_min, step / settings.T_max)


def _cosine_restarts(settings: CosineAnnealingWarmRestarts, base: float, step: int) -> float:
    length = settings.T_0
    if settings.T_mult == 1:
        step %= length
    while step >= length:
        step, length = step - length, length * settings.T_mult
    return _half_cosine(base, settings.eta_min, step / length)


def _polynomial(settings: PolynomialLR, base: float, step: int) -> float:
    return base * (1 - min(step, settings.total_iters) / settings.total_iters) ** settings.power


def _one_cycle(settings: OneCycleLR, base: float, step: int) -> float:
    del base  # OneCycleLR replaces the optimizer's learning rate.
    low = settings.max_lr / settings.div_factor
    end = low / settings.final_div_factor
    top = settings.pct_start * settings.steps - 1
    last = settings.steps - 1
    phases = [(top, low, settings.max_lr)]
    if settings.three_phase:
        phases.append((2 * top + 1, settings.max_lr, low))
    phases.append((last, phases[-1][2], end))
    anneal = _half_cosine if settings.anneal_strategy == "cos" else _straight
    begin = 0.0
    for finish, start_rate, end_rate in phases:
        if step <= finish or finish == last:
            return anneal(start_rate, end_rate, (step - begin) / (finish - begin) if finish != begin else 1.0)
        begin = finish
    raise AssertionError("the last phase ends every search")


def _cyclic(settings: CyclicLR, base: float, step: int) -> float:
    del base  # CyclicLR brings its own lowest learning rate.
    down = settings.step_size_down or settings.step_size_up
    length = settings.step_size_up + down
    cycle, place = divmod(step, length)
    height = place / settings.step_size_up if place <= settings.step_size_up else (length - place) / down
    factor = {"triangular": 1.0, "triangular2": 0.5**cycle, "exp_range": settings.gamma**step}[settings.mode]
    return settings.base_lr + (settings.max_lr - settings.base_lr) * height * factor


def _warmup_cosine(settings: WarmupCosine, base: float, step: int) -> float:
    warmup = round(settings.warmup_ratio * settings.total_steps)
    if step < warmup:
        return base * (step + 1) / warmup
    share = (step - warmup) / (settings.total_steps - warmup) if settings.total_steps > warmup else 1.0
    return _half_cosine(base, settings.eta_min, min(share, 1.0))


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def _straight(start: float, end: float, share: float) -> float:
    return start + (end - start) * share


FORMULAS: Mapping[str, Callable[[Any, float, int], float]] = {
    "StepLR": _step,
    "MultiStepLR": _multi_step,
    "ExponentialLR": _exponential,
    "ConstantLR": _constant,
    "LinearLR": _linear,
    "CosineAnnealingLR": _cosine,
    "CosineAnnealingWarmRestarts": _cosine_restarts,
    "PolynomialLR": _polynomial,
    "OneCycleLR": _one_cycle,
    "CyclicLR": _cyclic,
    "WarmupCosine": _warmup_cosine,
}
