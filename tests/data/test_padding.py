"""Padding that only zeros tell."""

import numpy as np

from seqjax.data.padding import leading_zeros


def test_slots_are_padded_as_long_as_every_column_is_zero() -> None:
    ids = np.array([[0, 0, 3, 0], [0, 2, 0, 0], [0, 0, 0, 0], [0, 0, 0, 5]])
    values = np.array(
        [[0.0, 0.5, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    )
    assert leading_zeros([ids]).tolist() == [2, 1, 3, 3]
    assert leading_zeros([ids, values]).tolist() == [1, 1, 3, 3]
    assert leading_zeros([ids[:0], values[:0]]).tolist() == []
