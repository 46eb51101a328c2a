"""Which rows are in order, and which are twins."""

import numpy as np
import pytest

from seqjax.data.order import ascending, refuse_twins, sorted_order
from seqjax.errors import DataError


def test_order_is_that_of_pairs() -> None:
    keys = np.array([1, 1, 2, 2, 1]), np.array([0, 3, 3, 1, 9])
    assert ascending(*keys).tolist() == [True, True, False, False]
    assert sorted_order(*keys).tolist() == [0, 1, 4, 3, 2]  # type: ignore
    assert sorted_order(np.array([-1, 2]), np.array([5, -5])) is None
    assert sorted_order(np.array([2, 2]), np.array([5, 5])) is not None


def test_twins_are_named() -> None:
    refuse_twins(np.array([1, 1, 2]), np.array([0, 1, 1]), str)
    with pytest.raises(DataError, match=r"sequenceId 1 has itemPosition 4 twice: in row 1 and in row 2\."):
        refuse_twins(np.array([1, 1, 1]), np.array([0, 4, 4]), lambda row: f"row {row}")
