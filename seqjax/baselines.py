"""Baselines that a model has to beat: three predictors that are counted rather than trained.

| | categorical target | real target |
|---|---|---|
| last value | the last class with the rate at which one repeats, else the marginal | the last value |
| marginal | the share of each class | the mean |
| first-order Markov | the share of each class after the last one | a straight line through the last value |

They are fitted on training windows with numpy alone, and predict on arrays of numpy and of jax alike: the
array says which. Where no item precedes, all of them predict the marginal.
"""

import logging
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Num

from seqjax.config.schema import Schema
from seqjax.model.distributions import DISTRIBUTIONS, Distribution
from seqjax.windows.windows import Batch, Windows, filled, inputs_of, present, valid_mask

logger = logging.getLogger(__name__)

Parameters = Mapping[str, Float[Any, "..."]]
"""A baseline of one target: arrays by name."""
Fitted = dict[str, Parameters]
"""Parameters of one baseline, by target."""

_MAX_POSITIONS = 1_000_000
_MAX_CLASSES = 4096


class Pairs(NamedTuple):
    """Neighbouring items of a column: n that have a value, and the k of them that follow another."""

    items: Num[np.ndarray, "n"]
    last: Num[np.ndarray, "k"]
    following: Num[np.ndarray, "k"]


def fit_baselines(windows: Windows, schema: Schema) -> dict[str, Fitted]:
    """The parameters of each baseline that fits the data.

    Args:
      windows: Training data; at most about a million positions of it are looked at.
      schema: Its columns. First-order Markov is left out if a target has over 4096 classes.

    Returns:
      Parameters for `predict_targets`, by the baselines' names.
    """
    pairs = _pairs(windows, tuple(schema.targets))
    fitted: dict[str, Fitted] = {"last value": {}, "marginal": {}}
    large = [name for name in schema.targets if schema.n_classes.get(name, 0) > _MAX_CLASSES]
    if large:
        text = "[INFO] No first-order Markov baseline: %s has more than %d classes."
        logger.info(text, ", ".join(large), _MAX_CLASSES)
    else:
        fitted["first-order Markov"] = {}
    for name, kind in schema.targets.items():
        if kind == "real":
            rows = _fit_real(pairs[name], DISTRIBUTIONS[schema.head(name)])
        else:
            rows = _fit_categorical(pairs[name], schema.n_classes[name], markov=not large)
        for baseline in fitted:
            fitted[baseline][name] = rows[baseline]
    return fitted


def predict_targets(fitted: Mapping[str, Parameters], batch: Batch) -> dict[str, Float[Any, "B T _"]]:
    """The outputs of a model, as a baseline says them, so that the same objective judges both.

    Args:
      fitted: The parameters of one baseline.
      batch: The windows; each target is predicted from its own last item.

    Returns:
      Log-probabilities (B, T, C), which are logits, or values (B, T, 1) of each target.
    """
    known, last = valid_mask(batch), inputs_of(batch, tuple(fitted), tuple(fitted))
    return {
        name: predict_baseline(parameters, filled(last[name]), known & present(last[name]))
        for name, parameters in fitted.items()
    }


def predict_baseline(
    parameters: Parameters, last: Num[Any, "*items"], known: Bool[Any, "*items"]
) -> Float[Any, "*items _"]:
    """The prediction of one target: log-probabilities of C classes, or one standardised value.

    Args:
      parameters: The baseline.
      last: The target before each item: ids, or standardised values.
      known: True where there is an item before.
    """
    xp = known.__array_namespace__()
    marginal = after = parameters["marginal"]
    if "slope" in parameters:
        after = parameters["intercept"] + parameters["slope"] * last[..., None]
    elif "transitions" in parameters:
        after = parameters["transitions"][last]
    elif "repeat" in parameters:
        same = last[..., None] == xp.arange(len(marginal))
        after = xp.where(same, parameters["repeat"], parameters["rest"][last][..., None] + marginal)
    return xp.where(known[..., None], after, marginal)


def _pairs(windows: Windows, columns: tuple[str, ...]) -> dict[str, Pairs]:
    slots = windows.seq_length + 1
    count = min(len(windows), max(1, _MAX_POSITIONS // slots))
    batch = windows.gather(np.linspace(0, len(windows) - 1, count).astype(np.int64), columns)
    pairs = {}
    for name, values in batch.columns.items():
        real = (np.arange(slots) >= batch.padding[:, None]) & present(values)
        both = real[:, :-1] & real[:, 1:]
        pairs[name] = Pairs(values[real], values[:, :-1][both], values[:, 1:][both])
    return pairs


def _fit_categorical(
    pairs: Pairs, n_classes: int, *, markov: bool
) -> dict[str, dict[str, Float[np.ndarray, "..."]]]:
    counts = np.bincount(pairs.items, minlength=n_classes) + 1.0  # No class is impossible.
    marginal = counts / counts.sum()
    log_marginal = np.log(marginal).astype(np.float32)
    repeat = ((pairs.last == pairs.following).sum() + 1.0) / (len(pairs.last) + 2.0)
    # What remains when the last class does not repeat is shared as the marginal shares it among the others.
    rest = np.log1p(-repeat) - np.log1p(-marginal)
    rows = {
        "last value": {
            "marginal": log_marginal,
            "repeat": np.asarray(np.log(repeat), np.float32),
            "rest": rest.astype(np.float32),
        },
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


def _fit_real(pairs: Pairs, predicted: Distribution) -> dict[str, dict[str, Float[np.ndarray, "W"]]]:
    items, last, following = (values.astype(np.float64) for values in pairs)

    def raw(value: float, scale: float) -> Float[np.ndarray, "W"]:
        return predicted.raw(np.asarray(value), np.asarray(scale)).astype(np.float32)

    def line(slope: float, intercept: float) -> dict[str, Float[np.ndarray, "W"]]:
        missed = following - slope * last - intercept
        scale = math.sqrt(np.square(missed).mean()) if len(missed) else 1.0
        factor = np.zeros_like(marginal)
        factor[0] = slope
        return {"marginal": marginal, "slope": factor, "intercept": raw(intercept, scale)}

    marginal = raw(items.mean(), items.std())
    slope, intercept = _line(last, following)
    return {
        "last value": line(1.0, 0.0),
        "marginal": {"marginal": marginal},
        "first-order Markov": line(slope, intercept),
    }


def _line(x: Float[np.ndarray, "k"], y: Float[np.ndarray, "k"]) -> tuple[float, float]:
    """Slope and intercept of the least squares line."""
    if len(x) == 0:
        return 0.0, 0.0
    spread = x - x.mean()
    variance = float(spread @ spread)
    slope = float(spread @ y) / variance if variance > 0 else 0.0
    return slope, float(y.mean() - slope * x.mean())
