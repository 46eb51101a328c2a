"""Which class is taken for which, among the commonest ones; all others are one row and one column."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int64, Integer

MOST_TRACKED = 1024


class Commonest(NamedTuple):
    """The confusion of the k commonest classes."""

    classes: Int64[np.ndarray, "k"]
    """Their ids, the commonest first."""
    counts: Int64[np.ndarray, "k1 k1"]
    """Items by true class (rows) and predicted class (columns); the last of each is every other class."""


class Confusion:
    """Counts pairs of true and predicted class."""

    def __init__(self, n_classes: int, likely: Integer[np.ndarray, "n"] | None = None) -> None:
        """Settles which classes are told apart.

        Args:
          n_classes: Number of classes, C. Up to 1024 are told apart.
          likely: Some true ids; where there are more classes, those that are commonest here are told apart.
        """
        tracked = np.arange(n_classes)
        if n_classes > MOST_TRACKED:
            seen = np.bincount(np.zeros(0, np.int64) if likely is None else likely, minlength=n_classes)
            tracked = np.sort(np.argsort(-seen, kind="stable")[:MOST_TRACKED])
        self._tracked = tracked
        self._place = np.full(n_classes, len(tracked))
        self._place[tracked] = np.arange(len(tracked))
        self._counts = np.zeros((len(tracked) + 1, len(tracked) + 1), np.int64)
        self.true_counts = np.zeros(n_classes, np.int64)
        """(C,) Items of each true class."""
        self.chosen_counts = np.zeros(n_classes, np.int64)
        """(C,) Items for which each class was predicted."""

    def add(self, truth: Integer[np.ndarray, "N"], chosen: Integer[np.ndarray, "N"]) -> None:
        """Adds items: what came, and what was predicted."""
        np.add.at(self._counts, (self._place[truth], self._place[chosen]), 1)
        np.add.at(self.true_counts, truth, 1)
        np.add.at(self.chosen_counts, chosen, 1)

    def commonest(self, most: int) -> Commonest:
        """The confusion of at most `most` true classes that occur."""
        occurring = np.flatnonzero(self.true_counts[self._tracked])
        order = np.argsort(-self.true_counts[self._tracked][occurring], kind="stable")
        chosen = occurring[order][:most]
        rest = np.setdiff1d(np.arange(len(self._counts)), chosen)
        rows = np.concatenate([self._counts[chosen], self._counts[rest].sum(axis=0, keepdims=True)])
        counts = np.concatenate([rows[:, chosen], rows[:, rest].sum(axis=1, keepdims=True)], axis=1)
        return Commonest(self._tracked[chosen], counts)
