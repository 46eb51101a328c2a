"""The seam between a layer and what it does along time.

A mixer lets each position of a window read those before it. It does so in three ways that agree: for the
whole window; for a prefix, which leaves a memory; and for one more item, given that memory. A memory is any
tree of arrays whose shapes and dtypes stay as they are from item to item, so that a scan can carry it. A
mixer that has none says why in `no_memory`, and is trained and exported all the same.

To add one, write a class with this interface in a file of its own, and a row in
`seqjax.model.transformer.MIXERS`. Lengths are Python integers, except where an exported graph leaves the
batch open.
"""

from collections.abc import Callable, Hashable
from typing import Any, ClassVar, Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Array, Bool, Float, Int

from seqjax.config.model import ModelSpec
from seqjax.model.dropout import Drop

Memory: TypeAlias = Any
"""A tree of arrays whose first axis is the batch."""
Made = TypeVar("Made")


class Context:
    """The T positions of one pass, besides their vectors; alive while the pass is traced."""

    def __init__(
        self, positions_T: Int[Array, "T"] | Int[np.ndarray, "T"], valid_BT: Bool[Array, "B T"] | None = None
    ) -> None:
        """Describes the positions of a pass.

        Args:
          positions_T: The place of each item in time; a numpy array becomes a constant of the program.
          valid_BT: Which positions hold a real item rather than padding, at either end; None is all.
        """
        self.positions_T = positions_T
        self.valid_BT = valid_BT
        self._made: dict[Hashable, Any] = {}

    @property
    def length(self) -> int:
        """T."""
        return self.positions_T.shape[0]

    def shared(self, make: Callable[..., Made], *arguments: Hashable) -> Made:
        """Computes `make(context, *arguments)` once, for all layers that ask."""
        key = make, arguments
        if key not in self._made:
            self._made[key] = make(self, *arguments)
        return self._made[key]


@runtime_checkable
class Mixer(Protocol):
    """The part of a layer that works along time; an `nnx.Module`."""

    name: ClassVar[str]
    """The attribute of a layer that holds it, and so a part of its parameters' names."""
    no_memory: ClassVar[str | None]
    """The reason why a window cannot be continued from a memory, for users; None where it can."""

    @classmethod
    def from_spec(cls, spec: ModelSpec, *, rng: np.random.Generator) -> "Mixer":
        """A new mixer for vectors of width `spec.dim_model`, with initial values drawn from `rng`."""
        ...

    def __call__(
        self, x_BTD: Float[Array, "B T D"], context: Context, /, *, drop: Drop, last: int | None = None
    ) -> Float[Array, "B P D"]:
        """Mixes a whole window; position t reads positions 0 .. t.

        Args:
          x_BTD: The vectors of the window.
          context: Its positions.
          drop: Dropout inside the mixer, or `keep_all`.
          last: P, how many trailing positions to compute; None is all T.
        """
        ...

    def prefix(
        self, x_BTD: Float[Array, "B T D"], context: Context, /
    ) -> tuple[Float[Array, "B T D"], Memory]:
        """Mixes a whole window, and returns the memory of its items as well."""
        ...

    def step(
        self, x_B1D: Float[Array, "B 1 D"], memory: Memory, context: Context, /
    ) -> tuple[Float[Array, "B 1 D"], Memory]:
        """Mixes one more item into what a memory holds; the new memory is of the same shapes and dtypes."""
        ...
