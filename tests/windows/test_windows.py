"""Gathering, cropping and positions of hand-made windows."""

import dataclasses

import numpy as np
import pytest

from seqjax.data.splits import sequences
from seqjax.errors import DataError
from seqjax.windows.index import CONSECUTIVE
from seqjax.windows.spliced import spliced
from seqjax.windows.windows import Windows, cut, listed, orders_of_files, taken


@pytest.fixture
def windows() -> Windows:
    """L = 3: a full window of rows 0-3, one of rows 2-5, and a short one of rows 6-7."""
    return listed(
        {"item": np.arange(2, 10, dtype=np.int8), "price": np.arange(8, dtype=np.float32) / 2},
        start=np.array([0, 2, 6]),
        length=np.array([4, 4, 2]),
        sequence_id=np.array([1, 1, 5]),
        subsequence_id=np.array([0, 1, 0]),
        start_item_position=np.array([10, 14, 98]),
        item_position=np.array([10, 12, 14, 16, 18, 20, 100, 103]),
        seq_length=3,
    )


def test_gather(windows: Windows) -> None:
    batch = windows.gather(np.array([2, 0, -1]))
    assert batch.columns["item"].tolist() == [[0, 0, 8, 9], [2, 3, 4, 5], [0, 0, 0, 0]]
    assert batch.columns["price"].tolist() == [[0, 0, 3, 3.5], [0, 0.5, 1, 1.5], [0, 0, 0, 0]]
    assert batch.padding.tolist() == [2, 0, 4]
    assert (batch.columns["item"].dtype, batch.columns["price"].dtype) == (np.int32, np.float32)
    assert list(windows.gather(np.array([0]), ["price"]).columns) == ["price"]


def test_gather_leaves_the_rows_alone(windows: Windows) -> None:
    np.asarray(windows.columns["price"]).flags.writeable = False
    windows.gather(np.array([2]))
    assert np.asarray(windows.columns["item"]).tolist() == list(range(2, 10))


def test_crop_keeps_the_newest_slots(windows: Windows) -> None:
    cropped = windows.crop(1)
    assert cropped.gather(np.array([0, 1, 2])).columns["item"].tolist() == [[4, 5], [6, 7], [8, 9]]
    assert cropped.length().tolist() == [2, 2, 2]
    assert cropped.start_item_position().tolist() == [14, 18, 100]
    short = windows.crop(2)
    assert short.gather(np.array([2])).padding.tolist() == [1]
    assert short.start_item_position().tolist() == [12, 16, 99]


def test_crop_cannot_lengthen(windows: Windows) -> None:
    with pytest.raises(DataError, match="seq_length 3, which is less than the 4 asked for"):
        windows.crop(4)


def test_positions_are_the_rows_own_and_count_back_into_the_padding(windows: Windows) -> None:
    positions = windows.positions(np.array([0, 2]), np.arange(4))
    assert positions.tolist() == [[10, 12, 14, 16], [98, 99, 100, 103]]


def test_positions_count_on_where_the_format_keeps_none(windows: Windows) -> None:
    at = np.full(3, CONSECUTIVE)
    without = dataclasses.replace(windows, runs=dataclasses.replace(windows.runs, positions_at=at))
    assert without.positions(np.array([1, 2]), np.array([0, 3])).tolist() == [[14, 17], [98, 101]]


def test_in_ram_copies_what_is_elsewhere(windows: Windows) -> None:
    mapped = dataclasses.replace(windows, columns={"item": np.asarray(windows.columns["item"])[:]})
    copied = mapped.in_ram()
    for name, column in mapped.columns.items():
        assert np.array_equal(np.asarray(copied.columns[name]), np.asarray(column))
        assert not np.shares_memory(np.asarray(copied.columns[name]), np.asarray(column))
    assert list(windows.in_ram(["price"]).columns) == ["price"]
    assert copied.in_ram().columns["item"] is copied.columns["item"]


@pytest.mark.parametrize(
    ("sequences", "files"),
    [(1, [[3, 1], [4, 0], [2]]), (2, [[3, 1, 4, 0], [2]]), (3, [[3, 1, 4, 0, 2]]), (9, [[3, 1, 4, 0, 2]])],
)
def test_files_hold_whole_sequences(windows: Windows, sequences: int, files: list[list[int]]) -> None:
    of_files = listed(
        windows.columns,
        start=np.zeros(5, np.int64),
        length=np.ones(5, np.int64),
        seq_length=3,
        sequence_id=np.array([5, 1, 9, 1, 5]),
        subsequence_id=np.array([1, 1, 0, 0, 0]),
    )
    found = orders_of_files(of_files, sequences)
    assert [order.tolist() for order in found] == files


@pytest.mark.parametrize("parts", [1, 4])
def test_every_batch_is_what_its_rows_say(parts: int) -> None:
    """Short windows at the beginning of the rows, or of a part, cannot be cut as runs; all others are."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 7, 40)
    ends = np.cumsum(lengths)
    values = rng.integers(2, 99, ends[-1]).astype(np.int8)
    cuts = ends[np.arange(1, parts) * 10 - 1]
    columns = {"item": spliced([part.copy() for part in np.split(values, cuts)])}
    windows = listed(columns, start=ends - lengths, length=lengths, seq_length=5)
    expected = [[0] * (6 - n) + values[end - n : end].tolist() for n, end in zip(lengths, ends, strict=True)]
    for size in (1, 3, 40):
        indices = rng.permutation(40)[:size]
        assert windows.gather(indices).columns["item"].tolist() == [expected[index] for index in indices]
    assert windows.gather(np.array([7, -1])).columns["item"].tolist() == [expected[7], [0] * 6]


def test_listed_windows_are_what_the_list_says(windows: Windows) -> None:
    assert windows.start().tolist() == [0, 2, 6]
    assert windows.length().tolist() == [4, 4, 2]
    assert [key.tolist() for key in windows.keys(np.arange(3))] == [[1, 1, 5], [0, 1, 0], [10, 14, 98]]
    assert len(windows.runs) == len(windows) == 3


def test_some_windows_of_all(windows: Windows) -> None:
    """In any order, listed or cut out of runs."""
    rows = np.arange(20)
    runs = cut(sequences(rows // 15), {"item": rows}, rows + rows // 5, seq_length=3, stride=2)
    for whole in (windows, runs, runs.crop(2)):
        numbers = np.array([2, 0, 2, len(whole) - 1])
        some, slots = taken(whole, numbers), np.arange(whole.seq_length + 1)
        assert len(some) == 4
        assert [key.tolist() for key in some.keys(np.arange(4))] == [
            key.tolist() for key in whole.keys(numbers)
        ]
        expected, found = whole.gather(numbers), some.gather(np.arange(4))
        assert found.columns["item"].tolist() == expected.columns["item"].tolist()
        real = slots >= expected.padding[:, None]
        assert (some.positions(np.arange(4), slots) == whole.positions(numbers, slots))[real].all()
