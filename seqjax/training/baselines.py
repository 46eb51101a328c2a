"""What a model has to beat: three predictors that are counted rather than trained.

| | categorical target | real target |
|---|---|---|
| last value | the last class with the rate at which one repeats, else the marginal | the last value |
| marginal | the share of each class | the mean |
| first-order Markov | the share of each class after the last one | a straight line through the last value |

They are fitted on training windows with numpy, and return the outputs of a model (log-probabilities are
logits), so that the same objective with the same masks judges them. Where no item precedes, all three say
the marginal.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num

from seqjax.config.schema import Schema
from seqjax.training.batch import Batch, WindowSource, valid_mask
from seqjax.training.objective import Outputs

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


def fit_baselines(windows: WindowSource, schema: Schema) -> dict[str, Fitted]:
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
        for baseline, parameters in rows.items():
            fitted[baseline][name] = parameters
    return fitted


def predict_baseline(fitted: Mapping[str, Mapping[str, Array]], batch: Batch) -> Outputs:
    """A baseline's logits (B, L, C) or values (B, L, 1) of each target.

    Args:
      fitted: The parameters of one baseline.
      batch: The windows; each target is predicted from its own last item.
    """
    known_BT = valid_mask(batch)
    return {
        target: _rule(parameters)(parameters, batch.columns[target][:, :-1], known_BT)
        for target, parameters in fitted.items()
    }


Rule = Callable[[Mapping[str, Array], Num[Array, "B T"], Bool[Array, "B T"]], Float[Array, "B T _"]]


def _rule(parameters: Mapping[str, Any]) -> Rule:
    if "transitions" in parameters:
        return _transition
    return _repeat if "repeat" in parameters else _constant_or_line


def _repeat(
    parameters: Mapping[str, Array], last_BT: Int[Array, "B T"], known_BT: Bool[Array, "B T"]
) -> Float[Array, "B T C"]:
    marginal_C = parameters["marginal"]
    # What remains when the last class does not repeat is shared as the marginal shares it among the others.
    rest_BT = jnp.log1p(-parameters["repeat"]) - jnp.log1p(-jnp.exp(marginal_C[last_BT]))
    other_BTC = rest_BT[..., None] + marginal_C
    same_BTC = last_BT[..., None] == jnp.arange(marginal_C.shape[0])
    return jnp.where(
        known_BT[..., None], jnp.where(same_BTC, jnp.log(parameters["repeat"]), other_BTC), marginal_C
    )


def _transition(
    parameters: Mapping[str, Array], last_BT: Int[Array, "B T"], known_BT: Bool[Array, "B T"]
) -> Float[Array, "B T C"]:
    return jnp.where(known_BT[..., None], parameters["transitions"][last_BT], parameters["marginal"])


def _constant_or_line(
    parameters: Mapping[str, Array], last_BT: Num[Array, "B T"], known_BT: Bool[Array, "B T"]
) -> Float[Array, "B T _"]:
    if "slope" not in parameters:
        return jnp.broadcast_to(parameters["marginal"], (*last_BT.shape, *parameters["marginal"].shape))
    line_BT = parameters["intercept"] + parameters["slope"] * last_BT
    return jnp.where(known_BT, line_BT, parameters["marginal"])[..., None]


def _pairs(windows: WindowSource, columns: tuple[str, ...]) -> dict[str, Pairs]:
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
