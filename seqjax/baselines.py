"""What a model has to beat: three predictors that are counted rather than trained.

| | categorical target | real target |
|---|---|---|
| last value | the last class with the rate at which one repeats, else the marginal | the last value |
| marginal | the share of each class | the mean |
| first-order Markov | the share of each class after the last one | a straight line through the last value |

They are fitted on training windows with numpy alone. `predict_baseline` of `seqjax.training.baselines` (on a
device) and of `seqjax.evaluation.baselines` (in numpy) return what they say.
"""

import logging
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Num

from seqjax.config.schema import Schema
from seqjax.windows.windows import Windows

logger = logging.getLogger(__name__)

Fitted = dict[str, dict[str, Float[np.ndarray, "..."]]]
"""Parameters of one baseline, by target."""

_MAX_POSITIONS = 1_000_000
_MAX_CLASSES = 4096


class Pairs(NamedTuple):
    """Neighbouring items of a column: n real items, and the k of them that follow one."""

    items: Num[np.ndarray, "n"]
    last: Num[np.ndarray, "k"]
    following: Num[np.ndarray, "k"]


def fit_baselines(windows: Windows, schema: Schema) -> dict[str, Fitted]:
    """The parameters of each baseline that fits the data.

    Args:
      windows: Training data; at most about a million positions of it are looked at.
      schema: Its columns. First-order Markov is left out if a target has over 4096 classes.

    Returns:
      Parameters for `predict_baseline`, by the baselines' names.
    """
    pairs = _pairs(windows, tuple(schema.targets))
    fitted: dict[str, Fitted] = {"last value": {}, "marginal": {}}
    large = [
        name
        for name, classes in schema.n_classes.items()
        if classes > _MAX_CLASSES and name in schema.targets
    ]
    small = not large
    if small:
        fitted["first-order Markov"] = {}
    else:
        logger.info(
            "[INFO] No first-order Markov baseline: %s has more than %d classes.",
            ", ".join(large),
            _MAX_CLASSES,
        )
    for name, kind in schema.targets.items():
        if kind == "real":
            rows = _fit_real(pairs[name])
        else:
            rows = _fit_categorical(pairs[name], schema.n_classes[name], markov=small)
        for baseline in fitted:
            fitted[baseline][name] = rows[baseline]
    return fitted


def _pairs(windows: Windows, columns: tuple[str, ...]) -> dict[str, Pairs]:
    slots = windows.seq_length + 1
    count = min(len(windows), max(1, _MAX_POSITIONS // slots))
    batch = windows.gather(np.linspace(0, len(windows) - 1, count).astype(np.int64), columns)
    real = np.arange(slots) >= batch.padding[:, None]
    return {
        name: Pairs(values[real], values[:, :-1][real[:, :-1]], values[:, 1:][real[:, :-1]])
        for name, values in batch.columns.items()
    }


def _fit_categorical(
    pairs: Pairs, n_classes: int, *, markov: bool
) -> dict[str, dict[str, Float[np.ndarray, "..."]]]:
    counts = np.bincount(pairs.items, minlength=n_classes) + 1.0  # No class is impossible.
    marginal = counts / counts.sum()
    log_marginal = np.log(marginal).astype(np.float32)
    repeat = ((pairs.last == pairs.following).sum() + 1.0) / (len(pairs.last) + 2.0)
    rows = {
        "last value": {"marginal": log_marginal, "repeat": np.asarray(repeat, np.float32)},
        "marginal": {"marginal": log_marginal},
    }
    if markov:
        transitions = _transitions(pairs, marginal)
        rows["first-order Markov"] = {"marginal": log_marginal, "transitions": transitions}
    return rows


def _transitions(pairs: Pairs, marginal: Float[np.ndarray, "C"]) -> Float[np.ndarray, "C C"]:
    """Log-probabilities of the next class (columns) after each class (rows), smoothed towards the marginal.

    The weight of the marginal is the number of different classes that followed (Witten and Bell).
    """
    n_classes = len(marginal)
    flat = pairs.last.astype(np.int64) * n_classes + pairs.following
    counts = np.bincount(flat, minlength=n_classes**2).reshape(n_classes, n_classes)
    kinds = np.maximum((counts > 0).sum(axis=1, keepdims=True), 1)
    shares = (counts + kinds * marginal) / (counts.sum(axis=1, keepdims=True) + kinds)
    return np.log(shares).astype(np.float32)


def _fit_real(pairs: Pairs) -> dict[str, dict[str, Float[np.ndarray, "..."]]]:
    mean = np.asarray(pairs.items.mean(dtype=np.float64), np.float32)
    slope, intercept = _line(pairs.last.astype(np.float64), pairs.following.astype(np.float64))
    one, zero = np.asarray(1.0, np.float32), np.asarray(0.0, np.float32)
    return {
        "last value": {"marginal": mean, "slope": one, "intercept": zero},
        "marginal": {"marginal": mean[None]},
        "first-order Markov": {
            "marginal": mean,
            "slope": np.asarray(slope, np.float32),
            "intercept": np.asarray(intercept, np.float32),
        },
    }


def _line(x: Float[np.ndarray, "k"], y: Float[np.ndarray, "k"]) -> tuple[float, float]:
    """Slope and intercept of the least squares line."""
    if len(x) == 0:
        return 0.0, 0.0
    spread = x - x.mean()
    variance = float(spread @ spread)
    slope = float(spread @ y) / variance if variance > 0 else 0.0
    return slope, float(y.mean() - slope * x.mean())
