"""Window starts against their definition, and windows against the rows they were cut from."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqjax.data.splits import sequences
from seqjax.errors import DataError
from seqjax.windows.index import Slices, check_exact, runs_of
from seqjax.windows.windows import cut


def _starts(n: int, seq_length: int, stride: int) -> list[int]:
    """The definition: numpy's linspace from the first start to the last."""
    last = max(n - (seq_length + 1), 0)
    number = len(np.arange(0, last + stride, stride))
    return np.unique(np.linspace(0, last, num=number, dtype=int)).tolist()


def _all_starts(lengths: np.ndarray, seq_length: int, stride: int) -> list[list[int]]:
    first = np.cumsum(lengths) - lengths
    slices = Slices(np.arange(len(lengths)), first, lengths)
    runs, _ = runs_of(slices, np.arange(lengths.sum()), seq_length=seq_length, stride=stride)
    place = runs.places(np.arange(runs.n_windows))
    return [part.tolist() for part in np.split(place.offset, np.flatnonzero(np.diff(place.run)) + 1)]


@pytest.mark.parametrize("seq_length", [1, 4, 13, 48])
def test_starts_are_those_of_linspace(seq_length: int) -> None:
    lengths = np.concatenate([np.arange(1, 90), np.array([997, 1000, 4999])])
    for stride in [*range(1, 30), 48, 97]:
        expected = [_starts(n, seq_length, stride) for n in lengths.tolist()]
        assert _all_starts(lengths, seq_length, stride) == expected


@settings(deadline=None, max_examples=300)
@given(st.integers(1, 10**6), st.integers(1, 100), st.integers(1, 5000))
def test_starts_are_those_of_linspace_for_long_slices(n: int, seq_length: int, stride: int) -> None:
    assert _all_starts(np.array([n]), seq_length, stride) == [_starts(n, seq_length, stride)]


def test_starts_are_those_of_the_stride_where_it_fits() -> None:
    assert _all_starts(np.array([5 + 12]), 4, 3) == [[0, 3, 6, 9, 12]]


def test_exact_mode_names_the_first_sequence_that_does_not_fit() -> None:
    slices = Slices(np.array([4, 7, 9]), np.array([0, 11, 14]), np.array([11, 3, 12]))
    check_exact(slices, seq_length=4, stride=1, split=0)
    message = r"stride, 3, in split 2; sequence 9 has 12 rows there, 1 too many"
    with pytest.raises(DataError, match=message):
        check_exact(slices, seq_length=4, stride=3, split=2)


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=8),
    st.integers(1, 12),
    st.integers(1, 14),
    st.integers(-(2**40), 2**40),
)
def test_windows_invert_to_the_rows(lengths: list[int], seq_length: int, stride: int, first: int) -> None:
    n = sum(lengths)
    sequence_id = np.repeat(np.arange(len(lengths)), lengths)
    value = np.arange(1, n + 1, dtype=np.int32)
    position = first + 10 * np.arange(n)
    slices = sequences(sequence_id)
    windows = cut(
        slices, {"value": value}, position, seq_length=seq_length, stride=min(stride, seq_length + 1)
    )
    slots = np.arange(seq_length + 1)
    batch = windows.gather(np.arange(len(windows)))
    real = slots >= batch.padding[:, None]
    seen = batch.columns["value"]
    assert (seen[~real] == 0).all()
    assert set(seen[real].tolist()) == set(value.tolist())
    assert (np.diff(seen, axis=1)[real[:, :-1]] == 1).all()
    np.testing.assert_array_equal(
        sequence_id[seen[real] - 1], np.repeat(windows.sequence_id(), windows.length())
    )
    np.testing.assert_array_equal(
        windows.positions(np.arange(len(windows)), slots)[real], position[seen[real] - 1]
    )
    first_real = position[seen[np.arange(len(windows)), batch.padding] - 1]
    np.testing.assert_array_equal(windows.start_item_position(), first_real - batch.padding)
    for sequence, length in enumerate(lengths):
        mine = windows.sequence_id() == sequence
        assert windows.subsequence_id()[mine].tolist() == list(range(mine.sum()))
        assert (batch.padding[mine] > 0).any() == (length < seq_length + 1)
