"""Chunks hold whole sequences, end where the rows alone say, and come in order from any input."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqjax.data import sorting as module
from seqjax.data.sorting import (
    _Order,
    ascending,
    chunks,
    refuse_twins,
    sort_on_disk,
    sorted_order,
    sorted_tables,
)
from seqjax.data.tables import CheckedPiece, Table, joined
from seqjax.errors import DataError


def _table(ids: list[int], positions: list[int] | None = None) -> Table:
    places = np.arange(len(ids)) if positions is None else np.array(positions, np.int64)
    features = pl.DataFrame(
        {"row": [f"{i}-{p}" for i, p in zip(ids, places.tolist(), strict=True)], "wide": [2**70] * len(ids)},
        schema={"row": pl.String, "wide": pl.Int128},
    )
    return Table(np.array(ids, np.int64), places, features, part=np.array(ids, np.int16) % 2)


def _pieces(table: Table, cuts: list[int]) -> Iterator[CheckedPiece]:
    for begin, end in zip([0, *cuts], [*cuts, len(table)], strict=True):
        if end > begin:
            yield CheckedPiece(Path("t.csv"), begin, table.rows(begin, end))


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=20), st.integers(1, 20), st.data())
def test_chunks_depend_on_rows_alone(lengths: list[int], rows: int, data: st.DataObject) -> None:
    ids = np.repeat(np.arange(len(lengths)), lengths).tolist()
    table = _table(ids)
    cuts = sorted(data.draw(st.lists(st.integers(1, len(ids)), max_size=6)))
    found = list(chunks((piece.table for piece in _pieces(table, cuts)), rows))
    expected = list(chunks([table], rows))
    assert [chunk.sequence_id.tolist() for chunk in found] == [c.sequence_id.tolist() for c in expected]
    assert joined(found).features.equals(table.features)
    for chunk, after in itertools.pairwise(found):
        assert len(chunk) >= rows
        assert chunk.sequence_id[-1] != after.sequence_id[0]
        assert len(chunk) - lengths[chunk.sequence_id[-1]] < rows


@pytest.mark.parametrize("cuts", [[], [1], [2], [1, 2, 3]])
def test_rows_out_of_order_are_noticed(cuts: list[int]) -> None:
    def in_order(table: Table) -> bool:
        order = _Order()
        return all(order.continues(piece) for piece in _pieces(table, cuts))

    assert in_order(_table([1, 1, 2, 3], [3, 4, 0, 0]))
    assert not in_order(_table([1, 2, 1, 3]))
    assert not in_order(_table([1, 1, 1, 1], [0, 2, 1, 3]))
    with pytest.raises(DataError, match=r"twice: in row 2 of t.csv and in row 3 of t.csv"):
        in_order(_table([1, 1, 1, 1], [0, 2, 2, 3]))


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.tuples(st.integers(-5, 5), st.integers(0, 30)), min_size=1, max_size=60, unique=True),
    st.data(),
)
def test_sorting_on_disk(
    tmp_path_factory: pytest.TempPathFactory, keys: list[tuple[int, int]], data: st.DataObject
) -> None:
    table = _table([i for i, _ in keys], [p for _, p in keys])
    cuts = sorted(data.draw(st.lists(st.integers(1, len(keys)), max_size=6)))
    folder = tmp_path_factory.mktemp("sort")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ROWS_PER_BUCKET", 10)
        patch.setattr(module, "ROWS_PER_CHUNK", 4)
        n_sequences = sort_on_disk(lambda: _pieces(table, cuts), _pieces(table, cuts), folder)
    assert n_sequences == len({i for i, _ in keys})
    found = joined(list(sorted_tables(folder, {})))
    assert list(zip(found.sequence_id.tolist(), found.item_position.tolist(), strict=True)) == sorted(keys)
    assert found.features["row"].to_list() == [f"{i}-{p}" for i, p in sorted(keys)]
    assert found.features.schema == table.features.schema
    assert found.part is not None
    assert found.part.tolist() == (found.sequence_id % 2).tolist()


def test_twins_far_apart_are_named(tmp_path: Path) -> None:
    table = _table([5, 1, 9, 5], [4, 1, 1, 4])
    with pytest.raises(DataError, match=r"sequenceId 5 .* twice: in row 1 of t.csv and in row 4 of t.csv"):
        sort_on_disk(lambda: _pieces(table, [2]), _pieces(table, [2]), tmp_path)


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
