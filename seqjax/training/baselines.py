"""Baselines on the device: they return the outputs of a model, so that the same objective judges them.

Log-probabilities are logits. Where no item precedes, all of them say the marginal.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num

from seqjax.training.objective import Outputs
from seqjax.windows.windows import Batch, valid_mask


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
