"""Chunks hold whole sequences, end where the rows alone say, and come in order from any input."""

import itertools
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqjax.data import sorting as module
from seqjax.data import table_files
from seqjax.data.sorting import OrderedRows, ascending, chunks
from seqjax.data.table_files import FrameFile
from seqjax.data.tables import ITEM, SEQUENCE, CutOffs, Selection, TableReader
from seqjax.errors import DataError


def _frame(ids: list[int], positions: list[int] | None = None) -> pl.DataFrame:
    places = list(range(len(ids))) if positions is None else positions
    columns = {
        "sequenceId": ids,
        "itemPosition": places,
        "row": [f"{i}-{p}" for i, p in zip(ids, places, strict=True)],
    }
    wide = pl.Series("wide", [2**70] * len(ids), dtype=pl.Int128)
    return pl.DataFrame(columns, schema_overrides={"row": pl.String}).with_columns(wide)


def _ordered(frame: pl.DataFrame, folder: Path) -> OrderedRows:
    chosen = Selection(["row", "wide"], cut_offs=CutOffs("sequenceId", [3]))
    return OrderedRows(TableReader(FrameFile(frame), chosen), folder)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=20), st.integers(1, 20), st.data())
def test_chunks_depend_on_rows_alone(lengths: list[int], rows: int, data: st.DataObject) -> None:
    ids = np.repeat(np.arange(len(lengths)), lengths).tolist()
    frame = _frame(ids)
    cuts = sorted(data.draw(st.lists(st.integers(1, len(ids)), max_size=6)))
    pieces = [frame[begin:end] for begin, end in itertools.pairwise([0, *cuts, len(ids)]) if end > begin]
    found = list(chunks(pieces, rows))
    expected = list(chunks([frame], rows))
    assert [chunk["sequenceId"].to_list() for chunk in found] == [c["sequenceId"].to_list() for c in expected]
    assert pl.concat(found).equals(frame)
    for chunk, after in itertools.pairwise(found):
        assert len(chunk) >= rows
        assert chunk["sequenceId"][-1] != after["sequenceId"][0]
        assert len(chunk) - lengths[chunk["sequenceId"][-1]] < rows


@pytest.mark.parametrize("rows_per_piece", [1, 2, 3, 100])
@pytest.mark.parametrize(
    ("ids", "positions", "in_order"),
    [
        ([1, 1, 2, 3], [3, 4, 0, 0], True),
        ([1, 2, 1, 3], [0, 1, 2, 3], False),
        ([1, 1, 1, 1], [0, 2, 1, 3], False),
    ],
)
def test_rows_are_sorted_where_they_must_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_per_piece: int, ids, positions, in_order: bool
) -> None:
    monkeypatch.setattr(table_files, "ROWS_PER_PIECE", rows_per_piece)
    rows = _ordered(_frame(ids, positions), tmp_path / "sorted")
    assert bool(list((tmp_path / "sorted").glob("*.sorted"))) == (not in_order)
    assert rows.n_sequences == len(set(ids))
    (table,) = rows.chunks()
    assert ascending(pl.Series(table.sequence_id), pl.Series(table.item_position)).all()


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.tuples(st.integers(-5, 5), st.integers(0, 30)), min_size=1, max_size=60, unique=True),
    st.integers(1, 20),
)
def test_sorting_on_disk(
    tmp_path_factory: pytest.TempPathFactory, keys: list[tuple[int, int]], rows_per_piece: int
) -> None:
    frame = _frame([i for i, _ in keys], [p for _, p in keys])
    folder = tmp_path_factory.mktemp("sort") / "sorted"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ROWS_PER_BUCKET", 10)
        patch.setattr(module, "ROWS_PER_CHUNK", 4)
        patch.setattr(table_files, "ROWS_PER_PIECE", rows_per_piece)
        rows = _ordered(frame, folder)
        again = _ordered(frame, folder)
        tables = list(rows.chunks())
        assert [table.frame.rows() for table in again.chunks()] == [table.frame.rows() for table in tables]
    assert rows.n_sequences == len({i for i, _ in keys})
    found = pl.concat([table.frame for table in tables])
    assert found.select(SEQUENCE, ITEM).rows() == sorted(keys)
    assert found["row"].to_list() == [f"{i}-{p}" for i, p in sorted(keys)]
    assert tables[0].features.schema == frame.select("row", "wide").schema
    for table in tables:
        assert table.split is not None
        assert table.split.tolist() == (table.sequence_id >= 3).tolist()


@pytest.mark.parametrize(
    ("ids", "positions"), [([5, 1, 9, 5], [4, 1, 1, 4]), ([1, 5, 5, 5], [4, 4, 4, 4]), ([5, 5], [4, 4])]
)
def test_twins_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ids, positions) -> None:
    monkeypatch.setattr(table_files, "ROWS_PER_PIECE", 2)
    first, second = [
        number for number, pair in enumerate(zip(ids, positions, strict=True), 1) if pair == (5, 4)
    ][:2]
    message = f"sequenceId 5 has itemPosition 4 twice: in row {first} of the table and in row {second} of"
    with pytest.raises(DataError, match=message):
        _ordered(_frame(ids, positions), tmp_path / "sorted")


def test_a_table_that_changes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    _frame([1, 2]).drop("wide").write_parquet(path)
    rows = OrderedRows(TableReader(table_files.ParquetFiles([path]), Selection(["row"])), tmp_path / "sorted")
    _frame([2, 1]).drop("wide").write_parquet(path)
    with pytest.raises(DataError, match=r"t\.parquet changed while it was read"):
        list(rows.chunks())


def test_order_is_that_of_pairs() -> None:
    keys = pl.Series([1, 1, 2, 2, 1]), pl.Series([0, 3, 3, 1, 9])
    assert ascending(*keys).tolist() == [True, True, False, False]
