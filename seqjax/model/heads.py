"""From vectors to distributions: one linear head for each target."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from jaxtyping import Array, Float

from seqjax.config.model import LayerType
from seqjax.config.schema import HeadName
from seqjax.model.distributions import DISTRIBUTIONS
from seqjax.model.linear import Linear, small_normal, zeros


class Head(Linear):
    """A linear map to the numbers that a target's distribution is made of, which knows nothing at first."""

    layer_type: ClassVar[LayerType] = "decoder"

    def __init__(self, dim: int, width: int, *, rng: np.random.Generator) -> None:
        super().__init__(dim, width, rng=rng, weight_init=small_normal, bias_init=zeros)


def stated(
    raw: Mapping[str, Float[Array, "B P _"]], heads: Mapping[str, HeadName]
) -> dict[str, Float[Array, "B P _"]]:
    """The outputs of a generative model by target: see `seqjax.model.distributions`.

    Args:
      raw: Each target's raw outputs.
      heads: Each target's head.
    """
    return {name: DISTRIBUTIONS[heads[name]].stated(values) for name, values in raw.items()}
