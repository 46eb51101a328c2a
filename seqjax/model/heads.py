"""From vectors to distributions: one linear head for each target."""

from collections.abc import Mapping
from typing import ClassVar

import jax
import numpy as np
from jaxtyping import Array, Float

from seqjax.config.model import LayerType
from seqjax.config.schema import ColumnKind
from seqjax.model.linear import Linear, small_normal, zeros


class Head(Linear):
    """A linear map to the numbers that a target's distribution is made of, which knows nothing at first."""

    layer_type: ClassVar[LayerType] = "decoder"

    def __init__(self, dim: int, width: int, *, rng: np.random.Generator) -> None:
        super().__init__(dim, width, rng=rng, weight_init=small_normal, bias_init=zeros)


def predictions(
    raw: Mapping[str, Float[Array, "B P _"]], kinds: Mapping[str, ColumnKind]
) -> dict[str, Float[Array, "B P _"]]:
    """What a generative model returns: log-probabilities of categorical targets, real values as they are.

    Args:
      raw: Each target's logits (B, P, C), or standardised values (B, P, 1).
      kinds: Each target's kind.
    """
    return {
        name: jax.nn.log_softmax(values, axis=-1) if kinds[name] == "categorical" else values
        for name, values in raw.items()
    }
