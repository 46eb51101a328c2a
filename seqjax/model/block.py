"""One transformer layer: attention and feed-forward, each added to what it reads.

The norm comes before each of them (`norm_first`), or after each addition.
"""

import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from seqjax.config.model import ModelSpec
from seqjax.model.attention import Attention
from seqjax.model.dropout import Drop
from seqjax.model.feedforward import make_feedforward
from seqjax.model.norm import make_norm
from seqjax.model.position import Rotation


class Block(nnx.Module):
    """A transformer layer of the kind that a `ModelSpec` describes."""

    def __init__(self, spec: ModelSpec, *, rng: np.random.Generator) -> None:
        self.norm_first = spec.norm_first
        self.norm1 = make_norm(spec.normalization, spec.dim_model)
        self.norm2 = make_norm(spec.normalization, spec.dim_model)
        self.attn = Attention(spec.dim_model, spec.n_head, spec.kv_heads, rng=rng)
        self.ff = make_feedforward(spec.activation_fn, spec.dim_model, spec.dim_feedforward, rng=rng)

    def __call__(
        self,
        x_BSD: Float[Array, "B S D"],
        bias: Float[Array, "b 1 S S"],
        rope: Rotation | None,
        *,
        drop: Drop,
        last: int | None = None,
    ) -> Float[Array, "B T D"]:
        """The layer's output at the last positions.

        Args:
          x_BSD: Output of the layer before.
          bias: From `attention_bias`.
          rope: Rotation of the S positions, or None.
          drop: Dropout, or `keep_all`.
          last: T, how many trailing positions to compute; None is all S.
        """
        x_BTD = x_BSD if last is None else x_BSD[:, x_BSD.shape[1] - last :]
        return self.add(x_BTD, self.attn(self.attended(x_BSD), bias, rope, drop=drop, last=last), drop)

    def attended(self, x_BSD: Float[Array, "B S D"]) -> Float[Array, "B S D"]:
        """What attention reads of the layer's input."""
        return self.norm1(x_BSD) if self.norm_first else x_BSD

    def add(
        self, x_BTD: Float[Array, "B T D"], mixed_BTD: Float[Array, "B T D"], drop: Drop
    ) -> Float[Array, "B T D"]:
        """The layer's output, from its input and what attention makes of that."""
        if self.norm_first:
            x_BTD = x_BTD + drop(mixed_BTD)
            return x_BTD + drop(self.ff(self.norm2(x_BTD), drop))
        x_BTD = self.norm1(x_BTD + drop(mixed_BTD))
        return self.norm2(x_BTD + drop(self.ff(x_BTD, drop)))
