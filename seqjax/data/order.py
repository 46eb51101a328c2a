"""The order of rows that every step relies on: ascending (sequenceId, itemPosition), and no pair twice."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Int64

from seqjax.errors import DataError


def ascending(
    sequence_id: Int64[np.ndarray, "N"], item_position: Int64[np.ndarray, "N"]
) -> Bool[np.ndarray, "N-1"]:
    """Whether each row but the first comes strictly after the one before it."""
    same = sequence_id[1:] == sequence_id[:-1]
    return (sequence_id[1:] > sequence_id[:-1]) | (same & (item_position[1:] > item_position[:-1]))


def sorted_order(
    sequence_id: Int64[np.ndarray, "N"], item_position: Int64[np.ndarray, "N"]
) -> Int64[np.ndarray, "N"] | None:
    """The numbers of the rows in order; null if they are in order, without twins, as they are."""
    if ascending(sequence_id, item_position).all():
        return None
    return np.lexsort((item_position, sequence_id))


def refuse_twins(
    sequence_id: Int64[np.ndarray, "N"], item_position: Int64[np.ndarray, "N"], name: Callable[[int], str]
) -> None:
    """Raises a `DataError` if two neighbours have the same keys.

    Args:
      sequence_id: The sequence of each row.
      item_position: The position of each row in its sequence.
      name: What to call a row.
    """
    twins = (sequence_id[1:] == sequence_id[:-1]) & (item_position[1:] == item_position[:-1])
    if twins.any():
        place = int(np.argmax(twins))
        raise DataError(
            f"sequenceId {sequence_id[place]} has itemPosition {item_position[place]} twice: in "
            f"{name(place)} and in {name(place + 1)}. Each item needs a position of its own."
        )
