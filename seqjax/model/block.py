"""One layer: a mixer along time and a feed-forward layer, each added to what it reads.

The norm comes before each of them (`norm_first`), or after each addition.
"""

from collections.abc import Mapping

import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from seqjax.config.model import ModelSpec
from seqjax.model.attention import Attention
from seqjax.model.dropout import Drop, keep_all
from seqjax.model.layers import make_feedforward, make_norm
from seqjax.model.mixer import Context, Memory, Mixer

MIXERS: Mapping[str, type[Mixer]] = {"attention": Attention}
"""Mixers by their names in `ModelSpec.mixers`."""


class Block(nnx.Module):
    """A layer of the kind that a `ModelSpec` describes."""

    def __init__(self, spec: ModelSpec, mixer: str, *, rng: np.random.Generator) -> None:
        """Draws initial values.

        Args:
          spec: Sizes and kinds.
          mixer: A name in `MIXERS`.
          rng: Where initial values come from.
        """
        self.norm_first = spec.norm_first
        self.norm1 = make_norm(spec.normalization, spec.dim_model)
        self.norm2 = make_norm(spec.normalization, spec.dim_model)
        self.mixer_name = MIXERS[mixer].name
        setattr(self, self.mixer_name, MIXERS[mixer].from_spec(spec, rng=rng))
        self.ff = make_feedforward(spec.activation_fn, spec.dim_model, spec.dim_feedforward, rng=rng)

    @property
    def mixer(self) -> Mixer:
        """The mixer of the layer."""
        return getattr(self, self.mixer_name)

    def __call__(
        self, x_BTD: Float[Array, "B T D"], context: Context, *, drop: Drop, last: int | None = None
    ) -> Float[Array, "B P D"]:
        """The layer's output at the last positions.

        Args:
          x_BTD: Output of the layer before.
          context: The window's positions.
          drop: Dropout, or `keep_all`.
          last: P, how many trailing positions to compute; None is all T.
        """
        x_BPD = x_BTD if last is None else x_BTD[:, x_BTD.shape[1] - last :]
        return self._added(x_BPD, self.mixer(self._read(x_BTD), context, drop=drop, last=last), drop)

    def prefix(self, x_BTD: Float[Array, "B T D"], context: Context) -> tuple[Float[Array, "B T D"], Memory]:
        """The layer's output at all positions, and its mixer's memory of them."""
        mixed_BTD, memory = self.mixer.prefix(self._read(x_BTD), context)
        return self._added(x_BTD, mixed_BTD, keep_all), memory

    def step(
        self, x_B1D: Float[Array, "B 1 D"], memory: Memory, context: Context
    ) -> tuple[Float[Array, "B 1 D"], Memory]:
        """The layer's output at one more item, and the memory with that item in it."""
        mixed_B1D, memory = self.mixer.step(self._read(x_B1D), memory, context)
        return self._added(x_B1D, mixed_B1D, keep_all), memory

    def _read(self, x_BTD: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """The mixer's input, from the layer's."""
        return self.norm1(x_BTD) if self.norm_first else x_BTD

    def _added(
        self, x_BTD: Float[Array, "B T D"], mixed_BTD: Float[Array, "B T D"], drop: Drop
    ) -> Float[Array, "B T D"]:
        """The layer's output, from its input and its mixer's output."""
        if self.norm_first:
            x_BTD = x_BTD + drop(mixed_BTD)
            return x_BTD + drop(self.ff(self.norm2(x_BTD), drop))
        x_BTD = self.norm1(x_BTD + drop(mixed_BTD))
        return self.norm2(x_BTD + drop(self.ff(x_BTD, drop)))
