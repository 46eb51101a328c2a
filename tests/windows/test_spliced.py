"""Parts that are read as one column, wherever they lie."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqjax.windows.spliced import Spliced, consecutive, parts_of, spliced

LENGTHS = st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(any)


@settings(deadline=None, max_examples=60)
@given(LENGTHS, st.sampled_from(["i1", "i2", "i4", "i8", "f4"]), st.randoms(use_true_random=False))
def test_lines_of_a_part_are_those_of_the_whole(lengths: list[int], dtype: str, random) -> None:
    whole = np.arange(sum(lengths)).astype(dtype)
    parts = [part.copy() for part in np.split(whole, np.cumsum(lengths)[:-1])]
    column = spliced(parts)
    assert (len(column), column.nbytes, column.dtype) == (len(whole), whole.nbytes, whole.dtype)
    assert np.array_equal(np.asarray(column), whole)
    assert np.array_equal(np.concatenate(parts_of(column)), whole)
    some = [number for number, length in enumerate(lengths) if length]
    for _ in range(5):
        part = random.choice(some)
        begin = sum(lengths[:part])
        rows = np.array([[begin + random.randrange(lengths[part]) for _ in range(4)] for _ in range(3)])
        assert np.array_equal(column.take(rows), whole.take(rows))


def test_the_order_of_addresses_does_not_matter() -> None:
    memory = np.arange(100, dtype=np.int16)
    column = Spliced([memory[60:70], memory[5:10], memory[80:]])
    assert column.take(np.array([[9, 0], [12, 14], [15, 34]])).tolist() == [[69, 60], [7, 9], [80, 99]]


def test_a_part_between_elements_or_of_a_smaller_type_is_copied() -> None:
    unaligned = np.frombuffer(bytes(1) + np.arange(3, dtype=np.int32).tobytes(), np.int32, offset=1)
    column = Spliced([np.arange(10, 13, dtype=np.int8), unaligned])
    assert column.dtype == np.int32
    assert column.take(np.array([[0, 2], [3, 5]])).tolist() == [[10, 12], [0, 2]]


def test_one_part_stays_an_array() -> None:
    only = np.arange(3)
    assert spliced([only[:0], only]) is only
    assert len(spliced([only[:0], only[:0]])) == 0


def test_parts_are_one_array_only_as_a_copy() -> None:
    column = Spliced([np.arange(3), np.arange(2)])
    assert np.asarray(column, np.float32).dtype == np.float32
    with pytest.raises(ValueError, match="without a copy"):
        np.asarray(column, copy=False)


@settings(deadline=None, max_examples=60)
@given(LENGTHS, st.integers(1, 7), st.sampled_from(["i1", "i8", "f4"]))
def test_runs_are_rows_that_follow_each_other_in_one_part(lengths: list[int], n: int, dtype: str) -> None:
    whole = np.arange(sum(lengths)).astype(dtype)
    column = spliced([part.copy() for part in np.split(whole, np.cumsum(lengths)[:-1])])
    part = np.repeat(np.arange(len(lengths)), lengths)
    for last in range(len(whole)):
        begin = last - n + 1
        found = consecutive(column, np.array([begin]), n)
        if begin < 0 or part[begin] != part[last]:
            assert found is None
        else:
            assert found is not None
            assert found.tolist() == [whole[begin : last + 1].tolist()]


def test_runs_are_of_their_own() -> None:
    column = np.arange(10)
    found = consecutive(column, np.array([3, 0, 3]), 4)
    assert found is not None
    found[0] = 0
    assert found.tolist() == [[0, 0, 0, 0], [0, 1, 2, 3], [3, 4, 5, 6]]
    assert column.tolist() == list(range(10))
    assert consecutive(column[::2], np.array([0]), 2) is None
    assert consecutive(column, np.array([-1, 3]), 4) is None
