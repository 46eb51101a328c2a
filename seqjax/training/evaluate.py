"""Losses over all windows of a data set, of anything that returns a model's outputs: a model, a baseline."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from seqjax.training.batch import Batch, Tree, target_mask
from seqjax.training.feed import Feed
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
from seqjax.training.objective import Outputs, Target, loss_sums, loss_weights

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
    """How good predictions are, by target and row of `seqjax.training.metrics.METRICS`."""


class _Found(NamedTuple):
    sums: dict[str, Sums]
    metrics: MetricSums
    counts: dict[str, Int[Array, "C"]]


def build_evaluate(
    predict: Predict,
    targets: Sequence[Target],
    feed: Feed,
    order: Int[np.ndarray, "n B"],
    *,
    share_columns: Mapping[str, int] | None = None,
    measured: Mapping[str, Measured] | None = None,
) -> Callable[[Tree], Evaluation]:
    """A function of parameters that evaluates them; compiled once.

    Args:
      predict: What is evaluated.
      targets: What counts, and how.
      feed: The data.
      order: Which windows make up which batch; -1 for a row of padding.
      share_columns: Number of classes of each target whose predicted classes are counted.
      measured: The metrics of each target; null measures none.
    """
    classes, measured = share_columns or {}, measured or {}

    def step(found: _Found, batch: Batch, index: Int[Array, ""], params: Tree) -> _Found:
        del index
        outputs = predict(params, batch)
        mask_BT = target_mask(batch)
        counts = {name: count + _class_counts(outputs[name], mask_BT) for name, count in found.counts.items()}
        return _Found(
            added(found.sums, loss_sums(targets, outputs, batch)),
            added(found.metrics, metric_sums(measured, outputs, batch)),
            counts,
        )

    fold, placed, n_batches = feed.fold(step), feed.place(order), len(order)

    def evaluate(params: Tree) -> Evaluation:
        found = []
        for begin in range(0, n_batches, _BATCHES_PER_DISPATCH):
            empty = _Found(
                no_sums(target.name for target in targets),
                no_metric_sums(measured),
                {name: jnp.zeros(width, jnp.int32) for name, width in classes.items()},
            )
            found.append(fold(empty, params, placed, begin, min(begin + _BATCHES_PER_DISPATCH, n_batches)))
        losses = mean_losses([part.sums for part in found], loss_weights(targets))
        shares = {name: _shares([part.counts[name] for part in found]) for name in classes}
        return Evaluation(losses, shares, metric_values(measured, [part.metrics for part in found]))

    return evaluate


def _class_counts(logits_BTC: Float[Array, "B T C"], mask_BT: Array) -> Int[Array, "C"]:
    chosen_BT = jnp.argmax(logits_BTC, axis=-1)
    return jnp.zeros(logits_BTC.shape[-1], jnp.int32).at[chosen_BT].add(mask_BT.astype(jnp.int32))


def _shares(counts: Sequence[Int[Array, "C"]]) -> Float[np.ndarray, "C"]:
    total = np.sum(jax.device_get(list(counts)), axis=0, dtype=np.float64)
    return total / max(total.sum(), 1.0)
