"""Causal self-attention: multi-head, grouped-query and multi-query in one.

There are G key/value heads for H query heads, and query head h reads key/value head h // (H / G). The query
heads of one key/value head are laid end to end along the time axis, so that they are one product with its
keys and nothing is repeated. G = H is multi-head attention, G = 1 multi-query.

What a position may see is an additive bias: 0 or minus infinity. Every position sees at least itself, so that
the softmax of a padded position stays finite.

Shapes leave the batch open as -1: an exported graph then needs no arithmetic to find it.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from seqjax.model.dropout import Drop, Dropout
from seqjax.model.linear import Linear
from seqjax.model.position import Rotation, rotate


def attention_bias(length: int, valid_BS: Bool[Array, "B S"] | None) -> Float[Array, "b 1 T S"]:
    """0 where position t may see position s, minus infinity elsewhere.

    t sees s if s <= t and s holds a real item; it sees itself in any case.

    Args:
      length: T = S, the number of positions.
      valid_BS: Which positions hold a real item; None lets padding be seen, and b is then 1.
    """
    causal_TS = np.tril(np.ones((length, length), np.bool_))
    if valid_BS is None:
        return jnp.asarray(np.where(causal_TS, 0, -np.inf)[None, None].astype(np.float32))
    itself_TS = np.eye(length, dtype=np.bool_)
    seen_B1TS = (valid_BS[:, None, None, :] & causal_TS[None, None]) | itself_TS[None, None]
    return jnp.where(seen_B1TS, jnp.float32(0), jnp.float32(-np.inf))


class KeysValues(NamedTuple):
    """What the positions of a window offer to those that attend to them."""

    key_BGSK: Float[Array, "B G S K"]
    """Keys, rotated where positions are rotary."""
    value_BGSK: Float[Array, "B G S K"]
    """Values."""


class Attention(nnx.Module):
    """Self-attention with `n_head` query heads and `kv_heads` key/value heads, without biases."""

    def __init__(self, dim: int, n_head: int, kv_heads: int, *, rng: np.random.Generator) -> None:
        self.n_head = n_head
        self.kv_heads = kv_heads
        width = dim // n_head
        self.wq = Linear(dim, n_head * width, use_bias=False, rng=rng)
        self.wk = Linear(dim, kv_heads * width, use_bias=False, rng=rng)
        self.wv = Linear(dim, kv_heads * width, use_bias=False, rng=rng)
        self.wo = Linear(n_head * width, dim, use_bias=False, rng=rng)

    def __call__(
        self,
        x_BSD: Float[Array, "B S D"],
        bias: Float[Array, "b 1 S S"],
        rope: Rotation | None,
        *,
        drop: Drop,
        last: int | None = None,
    ) -> Float[Array, "B T D"]:
        """Attends from the last positions to all.

        Args:
          x_BSD: What is attended to.
          bias: From `attention_bias`.
          rope: Rotation of the S positions, or None.
          drop: Dropout of the attention weights.
          last: T, how many trailing positions to attend from; None is all S.
        """
        first = 0 if last is None else x_BSD.shape[1] - last
        own = None if rope is None else Rotation(rope.cos_TK[first:], rope.sin_TK[first:])
        offered = self.keys_values(x_BSD, rope)
        return self.attend(x_BSD[:, first:], offered, bias[:, :, first:], own, drop=drop)

    def keys_values(self, x_BSD: Float[Array, "B S D"], rope: Rotation | None) -> KeysValues:
        """The keys and values of S positions, whose rotation is `rope`."""
        key, value = (_split_heads(project(x_BSD), self.kv_heads) for project in (self.wk, self.wv))
        return KeysValues(key if rope is None else rotate(key, rope), value)

    def attend(
        self,
        x_BTD: Float[Array, "B T D"],
        offered: KeysValues,
        bias: Float[Array, "b 1 T S"],
        rope: Rotation | None,
        *,
        drop: Drop,
    ) -> Float[Array, "B T D"]:
        """Attends from T positions, whose rotation is `rope`, to S positions.

        Args:
          x_BTD: What attends.
          offered: From `keys_values`, of these or of other positions.
          bias: 0 where a position may be seen, minus infinity elsewhere.
          rope: Rotation of the T positions, or None.
          drop: Dropout of the attention weights.
        """
        query = _split_heads(self.wq(x_BTD), self.n_head)
        if rope is not None:
            query = rotate(query, rope)
        mixed_BHTK = _attend(query, *offered, bias, drop)
        mixed_BTHK = jnp.transpose(mixed_BHTK, (0, 2, 1, 3))
        _, time, heads, width = mixed_BTHK.shape
        return self.wo(jnp.reshape(mixed_BTHK, (-1, time, heads * width)))


def _split_heads(x: Float[Array, "B T HK"], heads: int) -> Float[Array, "B {heads} T K"]:
    _, time, width = x.shape
    return jnp.transpose(jnp.reshape(x, (-1, time, heads, width // heads)), (0, 2, 1, 3))


def _attend(
    q_BHTK: Float[Array, "B H T K"],
    k_BGSK: Float[Array, "B G S K"],
    v_BGSK: Float[Array, "B G S K"],
    bias: Float[Array, "b 1 T S"],
    drop: Drop,
) -> Float[Array, "B H T K"]:
    _, heads, time, width = q_BHTK.shape
    groups, keys = k_BGSK.shape[1:3]
    rows = heads // groups * time
    scaled = jnp.reshape(q_BHTK * (1 / math.sqrt(width)), (-1, groups, rows, width))
    scores = jnp.matmul(scaled, jnp.transpose(k_BGSK, (0, 1, 3, 2)))
    scores_BHTS = jnp.reshape(scores, (-1, heads, time, keys)).astype(jnp.float32) + bias
    if isinstance(drop, Dropout):
        weights_BHTS = drop.softmax(scores_BHTS, v_BGSK.dtype)
    else:
        weights_BHTS = drop(jax.nn.softmax(scores_BHTS, axis=-1).astype(v_BGSK.dtype))
    mixed = jnp.matmul(jnp.reshape(weights_BHTS, (-1, groups, rows, keys)), v_BGSK)
    return jnp.reshape(mixed, (-1, heads, time, width))
