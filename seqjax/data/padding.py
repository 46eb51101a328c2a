"""Padding where nothing but zeros marks it: sequifier's way, and torch's only one, which has no nulls."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Int64, Num


def leading_zeros(columns: Iterable[Num[np.ndarray, "W slots"]]) -> Int64[np.ndarray, "W"]:
    """Number of leading slots that are zero in every column; the newest slot always holds an item.

    Args:
      columns: The slots of each column of the data, not only of those that a model reads.
    """
    zero: Bool[np.ndarray, "W slots"] = np.logical_and.reduce([column == 0 for column in columns])
    zero[:, -1] = False
    return np.argmin(zero, axis=1).astype(np.int64)
