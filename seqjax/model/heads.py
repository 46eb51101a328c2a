"""From vectors to distributions: one linear head for each target."""

from collections.abc import Mapping

import jax
import numpy as np
from jaxtyping import Array, Float

from seqjax.config.schema import ColumnKind
from seqjax.model.linear import Linear, small_normal, zeros


def make_head(dim: int, width: int, *, rng: np.random.Generator) -> Linear:
    """A head of `width` outputs: the classes of a categorical target, or one real value."""
    return Linear(dim, width, rng=rng, weight_init=small_normal, bias_init=zeros)


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
