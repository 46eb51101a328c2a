"""How much each setting of a search matters: the share of the losses' variance that it explains by itself.

Runs are put into classes by a setting's value (numbers of many values by quarters), and losses are replaced
by their ranks, so that one run that went astray does not decide. The share is that of the variance between
classes, less what chance alone would give (omega squared), and at least 0. Shares of settings that work
together do not add up to 1.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

_CLASSES = 4
_MANY = 6


def importance(rows: Sequence[Mapping[str, Any]], settings: Sequence[str], loss: str) -> dict[str, float]:
    """The share that each setting explains, the largest first.

    Args:
      rows: Runs, as the summary has them.
      settings: The columns that were varied.
      loss: The column of the loss; runs without one are left out.

    Returns:
      Shares from 0 to 1; empty if there are too few runs to say anything.
    """
    found = [row for row in rows if row[loss] is not None]
    if len(found) < 3:
        return {}
    ranks = _ranks(np.asarray([row[loss] for row in found], np.float64))
    shares = {name: _explained(_classes([row[name] for row in found]), ranks) for name in settings}
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def _ranks(values: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """Places from 0; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts + 1) / 2)[inverse]


def _classes(values: Sequence[Any]) -> Int[np.ndarray, "n"]:
    """A number for each class of values."""
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    if numbers and len(set(values)) > _MANY:
        array = np.asarray(values, np.float64)
        borders = np.quantile(array, np.arange(1, _CLASSES) / _CLASSES)
        return np.searchsorted(borders, array, side="right")
    texts = [json.dumps(value, sort_keys=True) for value in values]
    return np.unique(texts, return_inverse=True)[1]


def _explained(classes: Int[np.ndarray, "n"], values: Float[np.ndarray, "n"]) -> float:
    count, kinds = len(values), len(np.unique(classes))
    total = float(((values - values.mean()) ** 2).sum())
    if kinds < 2 or kinds >= count or total == 0:
        return 0.0
    within = sum(
        float(((values[classes == kind] - values[classes == kind].mean()) ** 2).sum())
        for kind in np.unique(classes)
    )
    noise = within / (count - kinds)
    return max(0.0, (total - within - (kinds - 1) * noise) / (total + noise))
