"""Causal self-attention: multi-head, grouped-query and multi-query in one, with or without rotary positions.

There are G key/value heads for H query heads, and query head h reads key/value head h // (H / G). The query
heads of one key/value head are laid end to end along the time axis, so that they are one product with its
keys and nothing is repeated. G = H is multi-head attention, G = 1 multi-query.

What a position may see is an additive bias: 0 or minus infinity. Every position sees at least itself, so that
the softmax of a padded position stays finite.

Rotary positions turn queries and keys by an angle that grows with their position. Pairs are the two halves of
a head (component i with i + K/2), not neighbours.

The memory is a ring of L slots: the item at position p is written into slot p mod L, over the one that is L
positions older, so each item sees the newest L, itself included. The order of the slots does not matter,
since keys carry their position in their rotation. What an item offers was computed from the items that it saw
then. As long as none of these has left the window, that is what computing the whole window again gives;
afterwards the two differ.

Shapes leave the batch open as -1: an exported graph then needs no arithmetic to find it.
"""

import math
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from seqjax.config.model import ModelSpec
from seqjax.model.dropout import Drop, Dropout, keep_all
from seqjax.model.layers import Linear, at_least_float32
from seqjax.model.mixer import Context


class Rotation(NamedTuple):
    """Cosine and sine of every position's angles, each half of a head alike."""

    cos_TK: Float[Array, "T K"]
    sin_TK: Float[Array, "T K"]

    def trailing(self, first: int) -> "Rotation":
        """The rotation of the positions from `first` on."""
        return Rotation(self.cos_TK[first:], self.sin_TK[first:])


def inverse_frequencies(width: int, theta: float) -> Float[np.ndarray, "half"]:
    """`theta^(-2i / width)` for i in 0 .. width/2 - 1, in radians per position."""
    exponents = np.arange(0, width, 2, dtype=np.float32) / np.float32(width)
    return np.float32(1) / np.float32(theta) ** exponents


def rotation(positions_T: Int[Array, "T"] | Int[np.ndarray, "T"], width: int, theta: float) -> Rotation:
    """The rotation of every position, for heads of `width` components.

    Args:
      positions_T: Positions; a numpy array makes the angles constants of the traced program.
      width: K, the even width of a head.
      theta: Base of the frequencies.
    """
    xp = np if isinstance(positions_T, np.ndarray) else jnp
    half_TK = positions_T[:, None].astype(np.float32) * inverse_frequencies(width, theta)[None]
    angle_TK = xp.concatenate([half_TK, half_TK], axis=-1)
    return Rotation(jnp.asarray(xp.cos(angle_TK)), jnp.asarray(xp.sin(angle_TK)))


def rotate(x_BHTK: Float[Array, "B H T K"], by: Rotation | None) -> Float[Array, "B H T K"]:
    """Turns each position's pairs by that position's angles, in float32; None turns nothing."""
    if by is None:
        return x_BHTK
    wide_BHTK = at_least_float32(x_BHTK)
    first, second = jnp.split(wide_BHTK, 2, axis=-1)
    turned_BHTK = jnp.concatenate([-second, first], axis=-1)
    cos, sin = (factor[None, None] for factor in by)
    return (wide_BHTK * cos + turned_BHTK * sin).astype(x_BHTK.dtype)


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


class Ring(NamedTuple):
    """Keys (rotated where positions are rotary) and values of the newest L items, in no order."""

    key_BGSK: Float[Array, "B G L K"]
    value_BGSK: Float[Array, "B G L K"]
    valid_BS: Bool[Array, "B L"]
    """True for slots that may be seen."""


class Attention(nnx.Module):
    """Self-attention with `n_head` query heads and `kv_heads` key/value heads, without biases."""

    name: ClassVar[str] = "attn"
    no_memory: ClassVar[str | None] = None

    def __init__(
        self,
        dim: int,
        n_head: int,
        kv_heads: int,
        *,
        rng: np.random.Generator,
        rope_theta: float | None = None,
    ) -> None:
        """Draws initial values.

        Args:
          dim: D, the width of the vectors.
          n_head: H, the number of query heads.
          kv_heads: G, the number of key/value heads; divides `n_head`.
          rng: Where initial values come from.
          rope_theta: Base of the frequencies of rotary positions; None rotates nothing.
        """
        self.n_head = n_head
        self.kv_heads = kv_heads
        self.width = dim // n_head
        self.rope_theta = rope_theta
        self.wq = Linear(dim, n_head * self.width, use_bias=False, rng=rng)
        self.wk = Linear(dim, kv_heads * self.width, use_bias=False, rng=rng)
        self.wv = Linear(dim, kv_heads * self.width, use_bias=False, rng=rng)
        self.wo = Linear(n_head * self.width, dim, use_bias=False, rng=rng)

    @classmethod
    def from_spec(cls, spec: ModelSpec, *, rng: np.random.Generator) -> "Attention":
        """Attention as `model_spec` describes it."""
        theta = spec.rope_theta if spec.positional_encoding == "rope" else None
        return cls(spec.dim_model, spec.n_head, spec.kv_heads, rng=rng, rope_theta=theta)

    def __call__(
        self, x_BSD: Float[Array, "B S D"], context: Context, *, drop: Drop, last: int | None = None
    ) -> Float[Array, "B T D"]:
        """Attends from the last positions to all; `drop` acts on the weights. See `Mixer`."""
        first = 0 if last is None else x_BSD.shape[1] - last
        rope, bias = self._rotation(context), context.shared(_window_bias)
        own = None if rope is None else rope.trailing(first)
        key, value = self._keys_values(x_BSD, rope)
        query = self._queries(x_BSD[:, first:], own)
        return self._joined(_attend(query, key, value, bias[:, :, first:], drop))

    def prefix(self, x_BLD: Float[Array, "B L D"], context: Context) -> tuple[Float[Array, "B L D"], Ring]:
        """Attends within a window, whose length becomes that of the ring. See `Mixer`."""
        rope, bias = self._rotation(context), context.shared(_window_bias)
        key, value = self._keys_values(x_BLD, rope)
        mixed = _attend(self._queries(x_BLD, rope), key, value, bias, keep_all)
        valid = context.valid_BT
        return self._joined(mixed), Ring(
            key, value, jnp.ones(x_BLD.shape[:2], jnp.bool_) if valid is None else valid
        )

    def step(
        self, x_B1D: Float[Array, "B 1 D"], memory: Ring, context: Context
    ) -> tuple[Float[Array, "B 1 D"], Ring]:
        """Attends from one more item to the newest L, itself included. See `Mixer`."""
        rope, slot = self._rotation(context), context.positions_T[0] % memory.valid_BS.shape[1]
        key, value = self._keys_values(x_B1D, rope)
        write = jax.lax.dynamic_update_slice_in_dim
        ring = Ring(
            write(memory.key_BGSK, key, slot, axis=2),
            write(memory.value_BGSK, value, slot, axis=2),
            write(memory.valid_BS, jnp.ones_like(memory.valid_BS[:, :1]), slot, axis=1),
        )
        bias = jnp.where(ring.valid_BS[:, None, None, :], jnp.float32(0), jnp.float32(-jnp.inf))
        mixed = _attend(self._queries(x_B1D, rope), ring.key_BGSK, ring.value_BGSK, bias, keep_all)
        return self._joined(mixed), ring

    def _rotation(self, context: Context) -> Rotation | None:
        return None if self.rope_theta is None else context.shared(_rotation, self.width, self.rope_theta)

    def _queries(self, x_BTD: Float[Array, "B T D"], rope: Rotation | None) -> Float[Array, "B H T K"]:
        return rotate(_split_heads(self.wq(x_BTD), self.n_head), rope)

    def _keys_values(
        self, x_BSD: Float[Array, "B S D"], rope: Rotation | None
    ) -> tuple[Float[Array, "B G S K"], Float[Array, "B G S K"]]:
        key, value = (_split_heads(project(x_BSD), self.kv_heads) for project in (self.wk, self.wv))
        return rotate(key, rope), value

    def _joined(self, mixed_BHTK: Float[Array, "B H T K"]) -> Float[Array, "B T D"]:
        mixed_BTHK = jnp.transpose(mixed_BHTK, (0, 2, 1, 3))
        _, time, heads, width = mixed_BTHK.shape
        return self.wo(jnp.reshape(mixed_BTHK, (-1, time, heads * width)))


def _window_bias(context: Context) -> Float[Array, "b 1 T T"]:
    return attention_bias(context.length, context.valid_BT)


def _rotation(context: Context, width: int, theta: float) -> Rotation:
    return rotation(context.positions_T, width, theta)


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
    scores_BHTS = at_least_float32(jnp.reshape(scores, (-1, heads, time, keys))) + bias
    if isinstance(drop, Dropout):
        weights_BHTS = drop.softmax(scores_BHTS, v_BGSK.dtype)
    else:
        weights_BHTS = drop(jax.nn.softmax(scores_BHTS, axis=-1).astype(v_BGSK.dtype))
    mixed = jnp.matmul(jnp.reshape(weights_BHTS, (-1, groups, rows, keys)), v_BGSK)
    return jnp.reshape(mixed, (-1, heads, time, width))
