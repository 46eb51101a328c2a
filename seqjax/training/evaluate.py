"""Losses over all windows of a data set, of anything that returns a model's outputs: a model, a baseline."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from seqjax.training.feed import Feed, Step
from seqjax.training.metrics import (
    Losses,
    Measured,
    MetricSums,
    Sums,
    added,
    mean_losses,
    metric_sums,
    metric_values,
    no_metric_sums,
    no_sums,
)
from seqjax.training.objective import (
    Outputs,
    Target,
    loss_sums,
    loss_weights,
    with_numbers,
    without_smoothing,
)
from seqjax.training.placement import Placement, Tree
from seqjax.windows.order import Order
from seqjax.windows.windows import Batch, target_mask

Predict = Callable[[Tree, Batch], Outputs]
"""(parameters, batch) -> logits (B, L, C) or values (B, L, 1) of each target."""

_BATCHES_PER_DISPATCH = 64


class Evaluation(NamedTuple):
    """What was found on a data set."""

    losses: Losses
    """Mean losses over all real positions."""
    shares: dict[str, Float[np.ndarray, "C"]]
    """Share of each class among the predicted classes, by column."""
    metrics: Mapping[str, Mapping[str, float]] = MappingProxyType({})
    """How good predictions are, by target and row of `seqjax.metrics.METRICS`."""


class Found(NamedTuple):
    """Sums over some batches."""

    sums: dict[str, Sums]
    metrics: MetricSums
    counts: dict[str, Int[Array, "C"]]


@dataclass(frozen=True)
class Evaluator:
    """What is evaluated, and by what."""

    predict: Predict
    targets: tuple[Target, ...]
    """What counts, and how."""
    share_columns: Mapping[str, int] = field(default_factory=dict)
    """Number of classes of each target whose predicted classes are counted."""
    measured: Mapping[str, Measured] = field(default_factory=dict)
    """The metrics of each target."""

    def empty(self) -> Found:
        """Sums over no batch."""
        return Found(
            no_sums(target.name for target in self.targets),
            no_metric_sums(self.measured),
            {name: jnp.zeros(width, jnp.int32) for name, width in self.share_columns.items()},
        )

    def step(self, found: Found, batch: Batch, index: Int[Array, ""], params: Tree) -> Found:
        """A step of a fold: the sums with those of one more batch."""
        del index
        return self.counted(found, self.predict(params, batch), batch)

    def counted(self, found: Found, outputs: Outputs, batch: Batch) -> Found:
        """The sums with those of what was predicted for one more batch."""
        mask_BT = target_mask(batch)
        counts = {name: count + _class_counts(outputs[name], mask_BT) for name, count in found.counts.items()}
        return Found(
            added(found.sums, loss_sums(self.targets, outputs, batch)),
            added(found.metrics, metric_sums(self.measured, outputs, batch)),
            counts,
        )

    def result(self, parts: Sequence[Found]) -> Evaluation:
        """What the sums of all batches amount to; waits for the device."""
        losses = mean_losses([part.sums for part in parts], loss_weights(self.targets))
        shares = {name: _shares([part.counts[name] for part in parts]) for name in self.share_columns}
        return Evaluation(losses, shares, metric_values(self.measured, [part.metrics for part in parts]))


class CompiledEvaluator:
    """An evaluation of parameters, compiled once.

    Args:
      evaluator: What is evaluated, and by what.
      feed: The data.
      order: Its batches.
      placement: The devices.
    """

    def __init__(self, evaluator: Evaluator, feed: Feed, order: Order, placement: Placement) -> None:
        self._fold = feed.fold(evaluation_step(evaluator))
        self._placed = feed.place(order)
        self._empty = jax.jit(evaluator.empty, out_shardings=placement.everywhere)
        self._dispatches = dispatches(len(order))

    def __call__(self, params: Tree, values: Tree) -> list[Found]:
        """Sums of each dispatch on the device, which `Evaluator.result` reads.

        Args:
          params: The parameters.
          values: Numbers that are used in place of the evaluator's: see `Constants.values`.
        """
        return [
            self._fold(self._empty(), (params, values), self._placed, *bounds) for bounds in self._dispatches
        ]

    def compile(self, params: Tree, values: Tree) -> None:
        """Compiles what is needed for parameters and numbers of these shapes."""
        self._fold(self._empty(), (params, values), self._placed, 0, 0)


def evaluation_step(evaluator: Evaluator) -> Step[Found]:
    """A step of an evaluation whose constants are (parameters, a run's own numbers)."""

    def step(found: Found, batch: Batch, index: Int[Array, ""], constants: tuple[Tree, Tree]) -> Found:
        params, values = constants
        targets = without_smoothing(with_numbers(evaluator.targets, values.get("targets", {})))
        return replace(evaluator, targets=targets).step(found, batch, index, params)

    return step


def evaluate_side_by_side(
    evaluator: Evaluator, feed: Feed, order: Order, params: Mapping[str, Tree]
) -> dict[str, Evaluation]:
    """Evaluates several sets of parameters with one program and in one pass over the data, by name.

    What they predict is judged by one computation, which takes as long to compile as that of one set.
    """

    def step(found: Found, batch: Batch, index: Int[Array, ""], params: Sequence[Tree]) -> Found:
        del index
        outputs = [evaluator.predict(own, batch) for own in params]
        stacked = jax.tree.map(lambda *arrays: jnp.stack(arrays), *outputs)
        return jax.vmap(lambda sums, own: evaluator.counted(sums, own, batch))(found, stacked)

    nothing = jax.tree.map(lambda sums: np.stack([sums] * len(params)), evaluator.empty())
    fold, placed = feed.fold(step), feed.place(order)
    parts = [fold(nothing, list(params.values()), placed, *bounds) for bounds in dispatches(len(order))]
    fetched = jax.device_get(parts)
    return {
        name: evaluator.result([jax.tree.map(lambda sums, at=at: sums[at], part) for part in fetched])
        for at, name in enumerate(params)
    }


def dispatches(n_batches: int) -> list[tuple[int, int]]:
    """The (first batch, end) of each dispatch of an evaluation."""
    return [
        (begin, min(begin + _BATCHES_PER_DISPATCH, n_batches))
        for begin in range(0, n_batches, _BATCHES_PER_DISPATCH)
    ]


def _class_counts(logits_BTC: Float[Array, "B T C"], mask_BT: Array) -> Int[Array, "C"]:
    chosen_BT = jnp.argmax(logits_BTC, axis=-1)
    return jnp.zeros(logits_BTC.shape[-1], jnp.int32).at[chosen_BT].add(mask_BT.astype(jnp.int32))


def _shares(counts: Sequence[Int[Array, "C"] | Int[np.ndarray, "C"]]) -> Float[np.ndarray, "C"]:
    total = np.sum(jax.device_get(list(counts)), axis=0, dtype=np.float64)
    return total / max(total.sum(), 1.0)
