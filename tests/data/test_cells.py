"""The type of a csv column follows from its cells alone, and no text is lost on the way to it."""

import itertools

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqjax.data.columns import numbers_of
from seqjax.data.staging import Counts, look, settled, typed

TYPES = {
    "Int64": ["0", "7", "-3", "02", "-0", "9223372036854775807"],
    "Int128": ["9223372036854775808", "-99999999999999999999"],
    "Float64": ["0.5", "1.", ".5", "-1e5", "1E-3", "+0.5", "inf", "-inf", "NaN", "1.50"],
    "Boolean": ["true", "False", "TRUE"],
    "String": ["", "x", "+5", " 5", "1_000", "nan", "Infinity", "1.e5", "--5", "2024-01-01", "1" * 60, "5%"],
}
CELLS = [(cell, name) for name, cells in TYPES.items() for cell in cells]


def _types(cells: list[str | None]) -> str:
    return str(settled(look(pl.Series("a", cells, pl.String))[0]))


@pytest.mark.parametrize(("cell", "name"), CELLS)
def test_a_cell_by_itself(cell: str, name: str) -> None:
    assert _types([cell]) == _types([None, cell, cell]) == name


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations_with_replacement(TYPES, 2)))
def test_cells_of_two_types(one: str, other: str) -> None:
    expected = "String"
    if one == other:
        expected = one
    elif not {"Boolean", "String"} & {one, other}:
        expected = "Float64" if "Float64" in (one, other) else "Int128"
    for first, second in itertools.product(TYPES[one], TYPES[other]):
        assert _types([first, second]) == expected


def test_a_column_without_cells_is_text() -> None:
    assert _types([None, None]) == str(settled(Counts())) == "String"


@given(st.lists(st.sampled_from([None, *(cell for cell, _ in CELLS)]), min_size=1, max_size=4))
def test_what_waits_for_its_type_keeps_its_text(cells: list[str | None]) -> None:
    text = pl.Series("a", cells, pl.String)
    counts, waiting = look(text)
    assert typed(waiting, pl.String()).to_list() == cells
    assert sum(vars(counts).values()) == len(cells) - text.null_count()
    assert typed(waiting, settled(counts)).null_count() == text.null_count()


def test_how_a_map_writes_numbers() -> None:
    assert numbers_of({"7": 2, "-1": 3}) == "whole"
    assert numbers_of({"7.0": 2, "0.5": 3}) == "decimal"
    assert numbers_of({"01": 2}) is None
    assert numbers_of({"a": 2, "7": 3}) is None
