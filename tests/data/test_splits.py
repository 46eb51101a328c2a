"""Every row lies in exactly one split, where the cumulated ratios say."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqjax.data.splits import Between, ByValue, Pieces, Splitting, Within, borders, parts, sequences
from seqjax.errors import DataError
from seqjax.windows.index import Slices


def _parts(splitting: Splitting, pieces: Pieces) -> list[Slices]:
    return parts(pieces, splitting.cuts(pieces))


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
    split = _parts(Within(ratios), Pieces(sequences(sequence_id)))
    assert len(split) == len(ratios)
    rows = np.concatenate([part.rows() for part in split])
    assert sorted(rows.tolist()) == list(range(sum(lengths)))
    for part in split:
        assert (part.length > 0).all()
        np.testing.assert_array_equal(sequence_id[part.rows()], np.repeat(part.sequence_id, part.length))
    exact = np.array(lengths)[:, None] * np.cumsum(ratios)
    border = borders(np.array(lengths), ratios)[:, 1:]
    accident = np.abs(exact - np.rint(exact)) < 1e-9
    np.testing.assert_array_equal(border[~accident], exact.astype(np.int64)[~accident])


def test_no_rows_give_no_slices() -> None:
    assert len(sequences(np.empty(0, np.int64))) == 0


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.integers(0, 5), st.data())
def test_dealt_sequences_stay_whole(lengths: list[int], seed: int, data: st.DataObject) -> None:
    n = len(lengths)
    whole = sequences(np.repeat(np.arange(n), lengths))
    dealt = Between.drawn(n, [0.5, 0.3, 0.2], seed)
    assert (
        np.bincount(dealt.split, minlength=3).tolist()
        == np.diff(borders(np.array([n]), [0.5, 0.3, 0.2])[0]).tolist()
    )
    split = _parts(dealt, Pieces(whole))
    for number, part in enumerate(split):
        assert part.sequence_id.tolist() == np.flatnonzero(dealt.split == number).tolist()
        assert part.length.tolist() == [lengths[i] for i in part.sequence_id.tolist()]
    cut = data.draw(st.integers(0, n))
    later = Slices(whole.sequence_id[cut:], whole.start[cut:], whole.length[cut:])
    for part, rest in zip(split, _parts(dealt, Pieces(later, cut)), strict=True):
        assert rest.sequence_id.tolist() == part.sequence_id[part.sequence_id >= cut].tolist()


@settings(deadline=None, max_examples=100)
@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=9), min_size=1, max_size=9))
def test_rows_lie_in_the_split_that_their_value_says(values: list[list[int]]) -> None:
    part = np.concatenate([np.sort(np.array(rows, np.int16)) for rows in values])
    whole = sequences(np.repeat(np.arange(len(values)), list(map(len, values))))
    split = _parts(ByValue(4, "time"), Pieces(whole, split=part))
    for number, found in enumerate(split):
        assert found.rows().tolist() == np.flatnonzero(part == number).tolist()
        assert (found.length > 0).all()


def test_going_back_is_refused() -> None:
    part = np.array([0, 1, 0, 1, 0], np.int16)
    with pytest.raises(
        DataError, match=r"'time' never to go back .* item 3 of sequence 8 .* in split 0, .* in split 1"
    ):
        ByValue(2, "time").cuts(Pieces(sequences(np.array([7, 7, 8, 8, 8])), split=part))
