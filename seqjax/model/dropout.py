"""Dropout whose rate is a traced value, so that the members of a population can differ in it.

A forward pass has many dropout sites; each draws from its own key, the pass's key folded with the site's
number. The number counts up while the pass is traced, so a `Dropout` serves one forward pass and is then
thrown away. A layer is given a `Drop`, any function from an array to one of its shape, and does not know
whether it drops at all.

An element's draw is a hash of its place and of the site's key. Element-wise arithmetic on integers is fused
into what produces and consumes the values, and vectorised; the generators of jax.random are neither on a CPU,
where they took over half of a small model's step (1,300 against 3,000 windows per CPU second).
"""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Key, UInt32

Drop = Callable[[Float[Array, "..."]], Float[Array, "..."]]


class Dropout:
    """Zeroes each element with probability `rate` and scales the others by 1 / (1 - rate).

    Args:
      rate: Probability in [0, 1); a number or a traced scalar. At 0 every value passes unchanged.
      key: The key of this forward pass.
    """

    def __init__(self, rate: float | Float[Array, ""], key: Key[Array, ""]) -> None:
        self._rate = rate
        self._key = key
        self._sites = 0

    def __call__(self, x: Float[Array, "*rows columns"]) -> Float[Array, "*rows columns"]:
        """Drops elements of `x` at the next site."""
        return _dropped(x, *self._draw(x.shape))

    def softmax(
        self, scores: Float[Array, "*rows columns"], dtype: DTypeLike
    ) -> Float[Array, "*rows columns"]:
        """Drops elements of the softmax of `scores` over the last axis, at the next site.

        The gradient is made of the result, so that it needs no second draw.

        Args:
          scores: What to take the softmax of.
          dtype: The format of the result.
        """
        return _dropped_softmax(scores, *self._draw(scores.shape), dtype)

    def _draw(self, shape: tuple[int, ...]) -> tuple[Bool[Array, "*shape"], Float[Array, ""]]:
        """The mask of the elements that the next site keeps, and their factor."""
        key = jax.random.fold_in(self._key, self._sites)
        self._sites += 1
        # In the widest format there is: a factor that is compiled in is to equal one that is computed.
        rate = jnp.asarray(self._rate, float)
        border = (rate.astype(jnp.float32) * 2.0**32).astype(jnp.uint32)
        return random_words(key, shape) >= border, 1 / (1 - rate)


def keep_all(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The `Drop` of a forward pass without dropout."""
    return x


def _dropped(
    x: Float[Array, "*shape"], keep: Bool[Array, "*shape"], factor: Float[Array, ""]
) -> Float[Array, "*shape"]:
    return jnp.where(keep, x * factor.astype(x.dtype), jnp.zeros_like(x))


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _dropped_softmax(
    scores: Float[Array, "*shape"], keep: Bool[Array, "*shape"], factor: Float[Array, ""], dtype: DTypeLike
) -> Float[Array, "*shape"]:
    return _dropped(jax.nn.softmax(scores, axis=-1).astype(dtype), keep, factor)


def _dropped_softmax_forward(
    scores: Float[Array, "*shape"], keep: Bool[Array, "*shape"], factor: Float[Array, ""], dtype: DTypeLike
) -> tuple[Float[Array, "*shape"], tuple[Float[Array, "*shape"], Float[Array, "*shape"]]]:
    weights = jax.nn.softmax(scores, axis=-1)
    dropped = _dropped(weights.astype(dtype), keep, factor)
    return dropped, (weights, dropped)


def _dropped_softmax_backward(
    dtype: DTypeLike,
    kept: tuple[Float[Array, "*shape"], Float[Array, "*shape"]],
    grads: Float[Array, "*shape"],
) -> tuple[Float[Array, "*shape"], None, None]:
    del dtype
    weights, dropped = kept
    product = (grads * dropped).astype(weights.dtype)
    return product - weights * product.sum(-1, keepdims=True), None, None


_dropped_softmax.defvjp(_dropped_softmax_forward, _dropped_softmax_backward)


def random_words(key: Key[Array, ""], shape: tuple[int, ...]) -> UInt32[Array, "*shape"]:
    """Uniform 32-bit words: a hash of each element's row, column and two words of the key.

    Args:
      key: A key of any implementation.
      shape: (..., columns). A row has a start and an odd step of its own, both well mixed, and counts up by
        its step; what it counts is mixed once more. So an element costs one multiplication.
    """
    first, second = jax.random.key_data(key)[:2]
    offset, salt = _mixed(first + _mixed(~second)), _mixed(second + _mixed(~first))
    *lead, columns = shape
    start = _mixed(jax.lax.iota(jnp.uint32, math.prod(lead)) * jnp.uint32(0x9E3779B9) + offset)
    step = _mixed(start ^ salt) | jnp.uint32(1)
    column = jax.lax.iota(jnp.uint32, columns).reshape(*(1 for _ in lead), columns)
    count = start.reshape(*lead, 1) + step.reshape(*lead, 1) * column
    return (count ^ (count >> 16)) * jnp.uint32(0x21F0AAAD)


def _mixed(words: UInt32[Array, "*shape"]) -> UInt32[Array, "*shape"]:
    """Words in which every bit depends on every bit: a one-to-one map made of shifts and odd factors."""
    words = (words ^ (words >> 16)) * jnp.uint32(0x21F0AAAD)
    words = (words ^ (words >> 15)) * jnp.uint32(0x735A2D97)
    return words ^ (words >> 15)
