"""Every row lies in exactly one split, where the cumulated ratios say."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqjax.data.splits import Within, borders, sequences


def _decimal(ratio: float) -> Fraction:
    return Fraction(str(ratio))


@pytest.mark.parametrize(
    ("ratios", "n", "sizes"),
    [
        ([0.7, 0.2, 0.1], 10, [7, 2, 1]),
        ([0.6, 0.3, 0.1], 10, [6, 3, 1]),
        ([0.8, 0.1, 0.1], 1, [0, 0, 1]),
        ([0.8, 0.1, 0.1], 9, [7, 1, 1]),
        ([1.0], 5, [5]),
        ([1 / 3, 1 / 3, 1 / 3], 9, [3, 3, 3]),
        ([0.7, 0.2, 0.1], 10**15, [7 * 10**14, 2 * 10**14, 10**14]),
    ],
)
def test_sizes(ratios: list[float], n: int, sizes: list[int]) -> None:
    assert np.diff(borders(np.array([n]), ratios)).tolist() == [sizes]


def test_borders_are_the_rounded_down_decimals_for_every_three_way_split_in_steps_of_a_twentieth() -> None:
    lengths = np.arange(1, 200)
    for first, second in itertools.product(range(1, 19), repeat=2):
        if first + second >= 20:
            continue
        ratios = [round(part * 0.05, 2) for part in (first, second, 20 - first - second)]
        cumulated = list(itertools.accumulate(map(_decimal, ratios)))
        expected = [[0, *(int(n * border) for border in cumulated)] for n in lengths.tolist()]
        np.testing.assert_array_equal(borders(lengths, ratios), expected)


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=20),
    st.lists(st.floats(0.01, 1.0), min_size=1, max_size=6),
)
def test_every_row_is_in_exactly_one_split(lengths: list[int], weights: list[float]) -> None:
    ratios = (np.array(weights) / sum(weights)).tolist()
    sequence_id = np.repeat(np.arange(len(lengths)) * 3 - 7, lengths)
    parts = Within(ratios).parts(sequences(sequence_id))
    assert len(parts) == len(ratios)
    rows = np.concatenate([part.rows() for part in parts])
    assert sorted(rows.tolist()) == list(range(sum(lengths)))
    for part in parts:
        assert (part.length > 0).all()
        np.testing.assert_array_equal(sequence_id[part.rows()], np.repeat(part.sequence_id, part.length))
    exact = np.array(lengths)[:, None] * np.cumsum(ratios)
    border = borders(np.array(lengths), ratios)[:, 1:]
    accident = np.abs(exact - np.rint(exact)) < 1e-9
    np.testing.assert_array_equal(border[~accident], exact.astype(np.int64)[~accident])


def test_no_rows_give_no_slices() -> None:
    assert len(sequences(np.empty(0, np.int64))) == 0
