"""Keys and values that are kept as they were computed, so that one more item costs one position.

A ring of L slots a layer: the item at position p is written into slot p mod L, over the one that is L
positions older, so each item sees the newest L, itself included. The order of the slots does not matter,
since keys carry their position in their rotation. Learned positions belong to places in the window, which
every further item changes; only rotary models can be continued this way.

What an item offers was computed from the items that it saw then. As long as none of these has left the
window, that is what computing the whole window again gives; afterwards the two differ.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from seqjax.model.attention import KeysValues


class Cache(NamedTuple):
    """What B windows of length L remember."""

    layers: tuple[KeysValues, ...]
    """Each layer's keys and values, (B, G, L, K)."""
    valid_BL: Bool[Array, "B L"]
    """Which slots may be seen."""
    position: Int[Array, ""]
    """The position of the next item, counted from the windows' first slot."""


def written(ring: KeysValues, new: KeysValues, slot: Int[Array, ""]) -> KeysValues:
    """A ring in which a slot holds a new position's keys and values (B, G, 1, K)."""
    key, value = (
        jax.lax.dynamic_update_slice_in_dim(kept, one, slot, axis=2)
        for kept, one in zip(ring, new, strict=True)
    )
    return KeysValues(key, value)


def made_valid(valid_BL: Bool[Array, "B L"], slot: Int[Array, ""]) -> Bool[Array, "B L"]:
    """A mask in which a slot may be seen."""
    return jax.lax.dynamic_update_slice_in_dim(valid_BL, jnp.ones_like(valid_BL[:, :1]), slot, axis=1)


def slot_bias(valid_BL: Bool[Array, "B L"]) -> Float[Array, "B 1 1 L"]:
    """0 on slots that may be seen, minus infinity on others."""
    return jnp.where(valid_BL[:, None, None, :], jnp.float32(0), jnp.float32(-jnp.inf))
