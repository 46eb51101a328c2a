"""What all processes of a run know after a dispatch, so that they do the same next.

A process has wishes: to stop, since a signal came; to save, since it is time; to send no more than so many
updates at once. They travel through the devices with what a dispatch found, and the strongest of each counts
for all. Nobody waits for them: like everything, they are read one dispatch late.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from seqjax.training.placement import Placement


class Wishes(NamedTuple):
    """What a process would like to happen."""

    signal: int = 0
    """The number of the signal that asks to stop; 0 if none came."""
    save: bool = False
    """Whether it is time to save."""


Control: TypeAlias = Callable[[], Wishes]
"""Says what is wished now."""


def no_wishes() -> Wishes:
    """Goes on."""
    return Wishes()


class Answer(NamedTuple):
    """What everybody knows."""

    first_bad: int
    """First update of the epoch whose loss or gradient was not finite; -1 if none."""
    wishes: Wishes
    size: int
    """How many updates to send at once."""


class Agreement:
    """Asks all processes of a run."""

    def __init__(self, placement: Placement) -> None:
        self._placement = placement

        def strongest(first_bad: Int[Array, ""], wishes: Int[Array, "n 3"]) -> Int[Array, "4"]:
            return jnp.concatenate([first_bad[None], wishes.max(axis=0)])

        self._strongest = jax.jit(strongest, out_shardings=placement.everywhere)

    def ask(self, first_bad: Int[Array, ""], wishes: Wishes, size: int) -> Int[Array, "4"]:
        """Sends the question; the answer is on its way."""
        own = np.asarray([[wishes.signal, wishes.save, -size]], np.int32)
        if self._placement.processes > 1:
            own = self._placement.joined(own.repeat(self._placement.own_size, axis=0))
        return self._strongest(first_bad, own)

    @staticmethod
    def read(answer: Int[Array, "4"]) -> Answer:
        """Waits for an answer."""
        first_bad, signal, save, size = np.asarray(answer).tolist()
        return Answer(first_bad, Wishes(signal, bool(save)), -size)
