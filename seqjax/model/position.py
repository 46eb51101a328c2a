"""Rotary positions: queries and keys are turned by an angle that grows with their position.

Pairs are the two halves of a head (component i with i + K/2), not neighbours. The learned alternative is a
table beside each column's encoder: see `embedding.py`.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


class Rotation(NamedTuple):
    """Cosine and sine of every position's angles, each half of a head alike."""

    cos_TK: Float[Array, "T K"]
    sin_TK: Float[Array, "T K"]


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


def rotate(x_BHTK: Float[Array, "B H T K"], by: Rotation) -> Float[Array, "B H T K"]:
    """Turns each position's pairs by that position's angles, in float32."""
    wide_BHTK = x_BHTK.astype(jnp.float32)
    first, second = jnp.split(wide_BHTK, 2, axis=-1)
    turned_BHTK = jnp.concatenate([-second, first], axis=-1)
    cos, sin = (part[None, None] for part in by)
    return (wide_BHTK * cos + turned_BHTK * sin).astype(x_BHTK.dtype)
