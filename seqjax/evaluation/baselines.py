"""Baselines in numpy: log-probabilities (N, C) or raw outputs (N, W) for N items, given the item before each.

The same rules as `seqjax.training.baselines`, item by item. Where no item precedes, all say the marginal.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Int, Num

Parameters = Mapping[str, Float[np.ndarray, "..."]]
"""One baseline of one target, as `seqjax.baselines.fit_baselines` returns it."""


def baseline_log_probs(
    parameters: Parameters, last: Int[np.ndarray, "N"], known: Bool[np.ndarray, "N"]
) -> Float[np.ndarray, "N C"]:
    """What a baseline says about a categorical target.

    Args:
      parameters: The baseline.
      last: The class before each item.
      known: Whether there is one.
    """
    marginal = parameters["marginal"]
    if "transitions" in parameters:
        after = parameters["transitions"][last]
    elif "repeat" in parameters:
        after = _repeated(float(parameters["repeat"]), marginal.astype(np.float64), last)
    else:
        return np.broadcast_to(marginal, (len(last), len(marginal)))
    return np.where(known[:, None], after, marginal)


def baseline_outputs(
    parameters: Parameters, last: Num[np.ndarray, "N"], known: Bool[np.ndarray, "N"]
) -> Float[np.ndarray, "N W"]:
    """The raw outputs of a head that says what a baseline says about a real target."""
    marginal = np.broadcast_to(parameters["marginal"], (len(last), len(parameters["marginal"])))
    if "slope" not in parameters:
        return marginal
    line = parameters["intercept"] + parameters["slope"] * last[:, None]
    return np.where(known[:, None], line, marginal)


def _repeated(
    repeat: float, log_marginal: Float[np.ndarray, "C"], last: Int[np.ndarray, "N"]
) -> Float[np.ndarray, "N C"]:
    """The last class at the rate `repeat`; the rest is shared as the marginal shares it among the others."""
    rest = np.log1p(-repeat) - np.log1p(-np.exp(log_marginal[last]))
    log_probs = rest[:, None] + log_marginal
    log_probs[np.arange(len(last)), last] = np.log(repeat)
    return log_probs
