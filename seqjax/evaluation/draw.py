"""A random sample of a stream of unknown length: the rows with the smallest of as many random numbers."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Shaped


class RandomRows:
    """At most `size` rows out of all that were added, each equally likely to be kept."""

    def __init__(self, size: int, seed: int) -> None:
        self._size = size
        self._rng = np.random.default_rng(seed)
        self._priority = np.zeros(0)
        self._rows: dict[str, np.ndarray] = {}

    def add(self, rows: Mapping[str, Shaped[np.ndarray, "N ..."]]) -> None:
        """Adds N rows of the same named arrays each time."""
        count = len(next(iter(rows.values())))
        priority = self._rng.random(count)
        if len(self._priority) == self._size:
            new = np.flatnonzero(priority < self._priority.max(initial=0))
        else:
            new = np.arange(count)
        if not len(new):
            return
        priority = np.concatenate([self._priority, priority[new]])
        kept = np.sort(np.argsort(priority, kind="stable")[: self._size])
        self._priority = priority[kept]
        held = self._rows or {name: values[:0] for name, values in rows.items()}
        self._rows = {name: np.concatenate([held[name], values[new]])[kept] for name, values in rows.items()}

    def rows(self) -> dict[str, Shaped[np.ndarray, "N ..."]]:
        """The rows that were kept, in the order in which they came; empty if none was added."""
        return dict(self._rows)
