"""Dropout whose rate is a traced value, so that the members of a population can differ in it.

A forward pass has many dropout sites; each draws from its own key, the pass's key folded with the site's
number. The number counts up while the pass is traced, so a `Dropout` serves one forward pass and is then
thrown away. A layer is given a `Drop`, any function from an array to one of its shape, and does not know
whether it drops at all.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

Drop = Callable[[Float[Array, "..."]], Float[Array, "..."]]


class Dropout:
    """Zeroes each element with probability `rate` and scales the others by 1 / (1 - rate).

    Args:
      rate: Probability in [0, 1); a number or a traced scalar. At 0 every value passes unchanged.
      key: The key of this forward pass; `jax.random.key(seed, impl="rbg")` makes the cheapest draws.
    """

    def __init__(self, rate: float | Float[Array, ""], key: Key[Array, ""]) -> None:
        self._rate = rate
        self._key = key
        self._sites = 0

    def __call__(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Drops elements of `x` at the next site."""
        key = jax.random.fold_in(self._key, self._sites)
        self._sites += 1
        keep_rate = 1 - jnp.asarray(self._rate, jnp.float32)
        keep = jax.random.bernoulli(key, keep_rate, x.shape)
        return jnp.where(keep, x / keep_rate.astype(x.dtype), jnp.zeros_like(x))


def keep_all(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The `Drop` of a forward pass without dropout."""
    return x
