"""Losses and metrics over all windows of a data set, of anything that returns a model's outputs.

Scores, which metrics (`seqjax.metrics`) are means of, are added up like losses, over positions that all weigh
the same: those that inference uses, the newest of each window, or all. The mean loss of all is told beside
that of the newest, since what a model says in the middle of a window nobody reads.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from seqjax.config.schema import HeadName, Schema
from seqjax.metrics import JUDGED_BY, METRICS, PREDICTED, SCORES
from seqjax.model.distributions import DISTRIBUTIONS, without_unknown
from seqjax.training.feed import Feed, Step
from seqjax.training.objective import (
    Losses,
    Outputs,
    Sums,
    Target,
    added,
    loss_sums,
    loss_weights,
    mean,
    mean_losses,
    no_sums,
    with_numbers,
    without_smoothing,
)
from seqjax.training.placement import Placement, Tree
from seqjax.windows.order import Order
from seqjax.windows.windows import Batch, newest, target_mask, targets_of

Predict = Callable[[Tree, Batch], Outputs]
"""(parameters, batch) -> logits (B, L, C) or values (B, L, 1) of each target."""

BEST_OF_EACH = "best of each target"
"""Name of what the baselines that are best for each target come to together."""
_BATCHES_PER_DISPATCH = 64


@dataclass(frozen=True)
class Measured:
    """The metrics of one target."""

    head: HeadName
    metrics: tuple[str, ...]
    """Rows of `seqjax.metrics.METRICS`."""
    unit: float = 1.0
    """`Statistics.unit` of a real target, which turns metrics of standardised values into the table's."""

    @property
    def scores(self) -> tuple[str, ...]:
        """The scores that the metrics are means of."""
        rows = METRICS[self.head]
        return tuple(dict.fromkeys(score for name in self.metrics for score in rows[name].scores))


MetricSums: TypeAlias = dict[str, dict[str, Sums]]  # By target and score.


def measured_targets(schema: Schema, units: Mapping[str, float]) -> dict[str, Measured]:
    """All metrics that say something, of each target.

    Args:
      schema: The targets, and how many classes they have.
      units: `Statistics.unit` of real targets; one that is missing is measured in standard deviations.
    """
    measured = {}
    for name in schema.targets:
        head, classes = schema.head(name), schema.n_classes.get(name, 1)
        rows = {key: row for key, row in METRICS[head].items() if row.in_training and classes > row.classes}
        first = sorted(rows, key=lambda key: rows[key].classes)
        measured[name] = Measured(head, tuple(first), units.get(name, 1.0))
    return measured


@dataclass(frozen=True)
class Shared:
    """Items that all runs of a search predict, and the metric of each target that compares them."""

    newest: int
    """Number of the newest positions of a window."""
    min_history: int
    """Items that come before such an item in its window."""
    metrics: Mapping[str, tuple[HeadName, str]]
    """Of each target: a head, and a row of its metrics that those of all runs have."""

    @property
    def measured(self) -> dict[str, Measured]:
        """The metrics, in standard deviations of real targets."""
        return {name: Measured(head, (metric,)) for name, (head, metric) in self.metrics.items()}

    def __str__(self) -> str:
        names = (f"the {METRICS[head][key].label} of {name}" for name, (head, key) in self.metrics.items())
        real = any(head != "categorical" for head, _ in self.metrics.values())
        unit = " (in standard deviations)" if real else ""
        places = "item" if self.newest == 1 else f"{self.newest} items"
        return f"{' + '.join(names)}{unit}, over the newest {places} of each validation window"

    def items(self, batch: Batch) -> Batch:
        """The same windows, with these items alone as targets."""
        xp = batch.first_target.__array_namespace__()
        first = xp.maximum(batch.first_target, batch.padding + self.min_history)
        return newest(batch._replace(first_target=first), self.newest)


def metric_of_all(heads: Collection[HeadName]) -> tuple[HeadName, str]:
    """A metric that models with any of these heads have, and one of the heads.

    Values and densities are compared as values, as `evaluate` compares them.
    """
    head = min(heads)
    return head, JUDGED_BY[head] if len(heads) == 1 else "rmse"


class Evaluation(NamedTuple):
    """Sums over a data set."""

    losses: Losses
    """Mean losses over the positions that are judged."""
    shares: dict[str, Float[np.ndarray, "C"]]
    """Share of each class among the predicted classes, by column."""
    metrics: Mapping[str, Mapping[str, float]] = MappingProxyType({})
    """Metrics of predictions, by target and row of `seqjax.metrics.METRICS`."""
    everywhere: Losses | None = None
    """Mean losses over all positions, where others are judged."""
    score: float | None = None
    """Of a run that is compared with others: the sum of one metric of each target over `Shared` items."""


class Found(NamedTuple):
    """Sums over some batches."""

    sums: dict[str, Sums]
    metrics: MetricSums
    counts: dict[str, Int[Array, "C"]]
    everywhere: dict[str, Sums]
    """Sums of losses over all positions; empty where all are judged."""
    shared: MetricSums
    """Sums over items that others predict too; empty where the run is compared with none."""


@dataclass(frozen=True)
class Evaluator:
    """A model or baseline, and the losses and metrics that evaluate it."""

    predict: Predict
    targets: tuple[Target, ...]
    share_columns: Mapping[str, int] = field(default_factory=dict)
    """Number of classes of each target whose predicted classes are counted."""
    measured: Mapping[str, Measured] = field(default_factory=dict)
    newest: int | None = None
    """Number of the newest positions of a window that are judged; None judges all."""
    shared: Shared | None = None
    """By what the run is compared with others; None is its loss."""

    def of_target(self, name: str) -> "Evaluator":
        """That of one target alone."""
        targets = tuple(target for target in self.targets if target.name == name)
        measured = {name: self.measured[name]} if name in self.measured else {}
        return replace(self, targets=targets, share_columns={}, measured=measured, shared=None)

    def empty(self) -> Found:
        """Sums over no batch."""
        return Found(
            no_sums(target.name for target in self.targets),
            no_metric_sums(self.measured),
            {name: jnp.zeros(width, jnp.int32) for name, width in self.share_columns.items()},
            no_sums(target.name for target in self.targets if self.newest is not None),
            no_metric_sums(self._compared),
        )

    @property
    def _compared(self) -> Mapping[str, Measured]:
        return {} if self.shared is None else self.shared.measured

    def counted(self, found: Found, outputs: Outputs, batch: Batch) -> Found:
        """The sums with those of what was predicted for one more batch."""
        judged = batch if self.newest is None else newest(batch, self.newest)
        counts = {
            name: count + _class_counts(outputs[name], target_mask(judged, name))
            for name, count in found.counts.items()
        }
        everywhere = {} if self.newest is None else loss_sums(self.targets, outputs, batch)
        return Found(
            added(found.sums, loss_sums(self.targets, outputs, judged)),
            added(found.metrics, metric_sums(self.measured, outputs, judged)),
            counts,
            added(found.everywhere, everywhere),
            found.shared
            if self.shared is None
            else added(found.shared, metric_sums(self._compared, outputs, self.shared.items(batch))),
        )

    def result(self, parts: Sequence[Found]) -> Evaluation:
        """The result of the sums of all batches; waits for the device."""
        parts, weights = jax.device_get(list(parts)), loss_weights(self.targets)
        shared = metric_values(self._compared, [part.shared for part in parts])
        scores = [value for row in shared.values() for value in row.values()]
        return Evaluation(
            mean_losses([part.sums for part in parts], weights),
            {name: _shares([part.counts[name] for part in parts]) for name in self.share_columns},
            metric_values(self.measured, [part.metrics for part in parts]),
            None if self.newest is None else mean_losses([part.everywhere for part in parts], weights),
            sum(scores) if scores else None,
        )


class CompiledEvaluator:
    """An evaluation of parameters, compiled once.

    Args:
      evaluator: What is evaluated, and by what.
      feed: The data.
      order: Its batches.
      placement: The devices.
      slots: Of so many runs, whose parameters, numbers and sums are stacked; None is a run by itself.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        feed: Feed,
        order: Order,
        placement: Placement,
        *,
        slots: int | None = None,
    ) -> None:
        def step(found: Found, batch: Batch, index: Int[Array, ""], constants: tuple[Tree, Tree]) -> Found:
            del index
            params, values = constants
            targets = without_smoothing(with_numbers(evaluator.targets, values.get("targets", {})))
            return replace(evaluator, targets=targets).counted(found, evaluator.predict(params, batch), batch)

        by_rows = slots is not None and placement.size > 1
        self._fold = feed.fold(step if slots is None else batched(step), by_rows=by_rows)
        self._placed = feed.place(order)
        copies = () if slots is None else (slots,)

        def empty() -> Found:
            return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, copies + leaf.shape), evaluator.empty())

        self._empty = jax.jit(empty, out_shardings=placement.rows if by_rows else placement.everywhere)
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


def evaluate_side_by_side(
    evaluator: Evaluator,
    feed: Feed,
    order: Order,
    params: Mapping[str, Mapping[str, Tree]],
    predict: Callable[[Tree, Batch], Mapping[str, Outputs]],
) -> dict[str, dict[str, Evaluation]]:
    """Evaluates several predictors of each target with one program and in one pass over the data.

    What they predict of a target is judged by one computation, which compiles as fast as that of one.

    Args:
      evaluator: What evaluates; its own predictor is left aside.
      feed: The data.
      order: Its batches.
      params: Parameters of the predictors, by target and name.
      predict: Their outputs, by target and name.

    Returns:
      The evaluation of each target alone, by target and name.
    """
    alone = {name: evaluator.of_target(name) for name in params}
    names = {target: list(rows) for target, rows in params.items()}  # Compiled programs sort them.

    def step(found: Tree, batch: Batch, index: Int[Array, ""], params: Tree) -> Tree:
        del index
        outputs = predict(params, batch)
        return {
            target: jax.vmap(
                lambda sums, own, one=one, target=target: one.counted(sums, {target: own}, batch)
            )(found[target], jnp.stack([outputs[target][name] for name in names[target]]))
            for target, one in alone.items()
        }

    nothing = {
        target: jax.tree.map(lambda sums, rows=rows: np.stack([sums] * len(rows)), alone[target].empty())
        for target, rows in params.items()
    }
    fold, placed = feed.fold(step), feed.place(order)
    fetched = jax.device_get([fold(nothing, params, placed, *bounds) for bounds in dispatches(len(order))])
    return {
        target: {
            name: alone[target].result(
                [jax.tree.map(lambda sums, at=at: sums[at], part[target]) for part in fetched]
            )
            for at, name in enumerate(rows)
        }
        for target, rows in params.items()
    }


def combined(parts: Sequence[Evaluation]) -> Evaluation:
    """The evaluation of several targets, each evaluated alone."""

    def losses(parts: Sequence[Losses]) -> Losses:
        both = zip(*((part.by_target, part.weights) for part in parts), strict=True)
        return Losses(*({name: value for values in rows for name, value in values.items()} for rows in both))

    everywhere = [part.everywhere for part in parts if part.everywhere is not None]
    metrics = {target: rows for part in parts for target, rows in part.metrics.items()}
    found = losses([part.losses for part in parts])
    return Evaluation(found, {}, metrics, losses(everywhere) if everywhere else None)


def batched(step: Step[Any], *, own_batches: bool = False) -> Step[Any]:
    """A step of all slots: carry and constants have a first axis of slots.

    Args:
      step: That of one.
      own_batches: Whether the rows of a batch are those of the slots, one after the other.
    """

    def all_of_them(carry: Tree, batch: Batch, index: Int[Array, ""], constants: Tree) -> Tree:
        if own_batches:
            slots = len(jax.tree.leaves(carry)[0])
            batch = jax.tree.map(lambda leaf: leaf.reshape(slots, -1, *leaf.shape[1:]), batch)
        each = jax.vmap(step, in_axes=(0, 0 if own_batches else None, None, 0))
        return each(carry, batch, index, constants)

    return all_of_them


def dispatches(n_batches: int) -> list[tuple[int, int]]:
    """The (first batch, end) of each dispatch of an evaluation."""
    return [
        (begin, min(begin + _BATCHES_PER_DISPATCH, n_batches))
        for begin in range(0, n_batches, _BATCHES_PER_DISPATCH)
    ]


def metric_sums(
    measured: Mapping[str, Measured], outputs: Mapping[str, Float[Array, "B T _"]], batch: Batch
) -> MetricSums:
    """Sums of what the metrics average, and numbers of positions.

    Args:
      measured: What is measured.
      outputs: Raw outputs of each target.
      batch: The truth.
    """
    sums: MetricSums = {}
    for name, target in measured.items():
        mask_BT = target_mask(batch, name)
        count = mask_BT.sum().astype(jnp.float32)
        row, truth_BT = DISTRIBUTIONS[target.head], targets_of(batch, name)
        parameters = row.parameters(outputs[name].astype(jnp.float32))
        ranked = without_unknown(parameters) if row.has_classes else parameters
        values = {
            score: SCORES[score](row, ranked if score in PREDICTED else parameters, truth_BT)
            for score in target.scores
        }
        sums[name] = {
            score: Sums(jnp.where(mask_BT, value, 0.0).sum(), count) for score, value in values.items()
        }
    return sums


def no_metric_sums(measured: Mapping[str, Measured]) -> MetricSums:
    """Sums of nothing."""
    return {name: no_sums(target.scores) for name, target in measured.items()}


def metric_values(
    measured: Mapping[str, Measured], parts: Sequence[MetricSums]
) -> dict[str, dict[str, float]]:
    """Adds up sums in float64 and makes the metrics of them.

    Args:
      measured: What was measured.
      parts: Sums from several dispatches.

    Returns:
      The metrics of each target, by name; those of no position are left out.
    """
    return {name: _values(target, [part[name] for part in parts]) for name, target in measured.items()}


def _values(target: Measured, parts: Sequence[Mapping[str, Sums]]) -> dict[str, float]:
    means = {score: mean([part[score] for part in parts]) for score in target.scores}
    if None in means.values():
        return {}
    rows, means = METRICS[target.head], {score: np.float64(value) for score, value in means.items()}
    with np.errstate(over="ignore", divide="ignore"):
        return {
            name: float(rows[name].in_units(rows[name].of(*map(means.get, rows[name].scores)), target.unit))
            for name in target.metrics
        }


def _class_counts(logits_BTC: Float[Array, "B T C"], mask_BT: Array) -> Int[Array, "C"]:
    chosen_BT = jnp.argmax(without_unknown(logits_BTC), axis=-1)
    return jnp.zeros(logits_BTC.shape[-1], jnp.int32).at[chosen_BT].add(mask_BT.astype(jnp.int32))


def _shares(counts: Sequence[Int[Array, "C"] | Int[np.ndarray, "C"]]) -> Float[np.ndarray, "C"]:
    total = np.sum(counts, axis=0, dtype=np.float64)
    return total / max(total.sum(), 1.0)
