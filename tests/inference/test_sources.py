"""Parts of windows hold whole sequences."""

import itertools

import numpy as np
import pytest

from seqjax.inference.inputs import in_parts
from seqjax.windows.windows import Windows, joined, taken
from tests.engines import windows_of
from tests.tables import assert_same_windows

LENGTHS = {0: 9, 2: 11, 3: 1, 9: 4, 11: 6, 40: 2}


@pytest.fixture
def windows() -> Windows:
    sequences = {
        number: {"item": [number % 7] * count, "price": [0.5] * count} for number, count in LENGTHS.items()
    }
    return windows_of(sequences, {number: list(range(count)) for number, count in LENGTHS.items()})


@pytest.mark.parametrize("most", [1, 3, 5, 1000])
def test_parts_of_windows_are_whole_sequences(windows: Windows, most: int) -> None:
    parts = list(in_parts(windows, most))
    assert_same_windows(joined(parts), windows)
    for part in parts:
        assert len(part) <= most or len(set(part.sequence_id().tolist())) == 1
    for one, other in itertools.pairwise(parts):
        assert one.sequence_id()[-1] != other.sequence_id()[0]
        assert len(one) + (other.sequence_id() == other.sequence_id()[0]).sum() > most


def test_windows_of_a_sequence_that_lie_apart_are_one_part(windows: Windows) -> None:
    order = np.argsort(windows.subsequence_id(), kind="stable")
    (whole,) = in_parts(taken(windows, order), 1)
    assert len(whole) == len(windows)
