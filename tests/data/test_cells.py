"""What a csv cell is follows from its text, and no text is lost on the way to the type of its column."""

import itertools

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqjax.data.cells import (
    MISSING_VALUES,
    Cell,
    Reading,
    is_number,
    look,
    numbers_in,
    reading,
    settled,
    typed,
)

CELLS: dict[Cell, list[str]] = {
    Cell.MISSING: [*MISSING_VALUES, " ", "\t", " NA ", "nan "],
    Cell.BOOLEAN: ["true", "false", "True", "FALSE", "tRuE", " true "],
    Cell.WHOLE: ["0", "7", "-3", "-0", " 7", "7 ", "\t12", "9223372036854775807", "-9223372036854775808"],
    Cell.WIDE: ["9223372036854775808", "-99999999999999999999", "9" * 38],
    Cell.LONG: ["9" * 39, "-" + "1" * 60],
    Cell.DECIMAL: [
        *("0.5", "1.", ".5", "-1e5", "1E-3", "+0.5", "1.50", "00.5", "-012.25", "1e400", "5E+05", " 2.5 "),
        *("inf", "-inf", "Infinity", "-INFINITY", "+inf", "Inf", "NAN", "-nan", "Nan"),
    ],
    Cell.CODE: ["007", "00", "-01", "0123", "000000000000000000000000000000000000000000007"],
    Cell.SIGNED: ["+5", "+0", "+49", "+007"],
    Cell.SPELLED: [
        *("1,234", "1,234.50", "-1,234,567", "1,23,456", "1'234", "1 234.5", "1\u00a0234", "1_000", "1_0"),
        *("12,5", "-0,5", "1.234,56", "1.234.567", "1 234,5", ",5", "3,14e5"),
        *("$5", "-$5", "$-5", "$1,234.50", "5 €", "€ 5", "5%", "12.5 %", "(5.00)", "(1,234)", "5-", "−5"),
        *("٣", "७", "１２", "1٣", "٣٫٥"),
    ],
    Cell.TEXT: [
        *("x", "-", "?", ".", "+", "n/a", "none", "NULL", "#NAME?", "<NA>", "nil", "yes", "T", "truee", "é"),
        *("1e", "e5", "1.e", "--5", "+-1", "1.0.0", "0x10", "1d5", "1.5f", "5a", "A1", "1 2", "½", "1/2"),
        *("2024-01-01", "01.02.2024", "12:30", "12:30:05.5", "1,2,3", "1-2", "10.0.0.1", "0171 234567"),
    ],
}
"""The written table: each cell by itself."""
PAIRS = [(cell, text) for cell, texts in CELLS.items() for text in texts]
TYPES = {Cell.BOOLEAN: "Boolean", Cell.WHOLE: "Int64", Cell.WIDE: "Int128", Cell.DECIMAL: "Float64"}
"""The type of a column of such cells alone; of all others, it is text."""


def _cells(*texts: str | None) -> pl.Series:
    return pl.Series("a", texts, pl.String)


@pytest.mark.parametrize(("cell", "text"), PAIRS)
def test_a_cell_by_itself(cell: Cell, text: str) -> None:
    for cells in (_cells(text), _cells(None, text, text, "x", "0.5", "a b", "007")):
        counts = look(cells, Reading()).counts
        assert counts[cell] >= cells.eq(text).sum(), counts
    assert str(settled(look(_cells(text, None), Reading()).counts)) == TYPES.get(cell, "String")


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(CELLS, 2)))
def test_cells_of_two_kinds(one: Cell, other: Cell) -> None:
    """Text where one is text; else the wider of two types of numbers."""
    pair = {one, other} - {Cell.MISSING}
    expected = "String"
    if len(pair) == 1:
        expected = TYPES.get(pair.pop(), "String")
    elif pair <= {Cell.WHOLE, Cell.WIDE}:
        expected = "Int128"
    elif Cell.DECIMAL in pair and pair <= {Cell.DECIMAL, Cell.WHOLE, Cell.WIDE, Cell.LONG, Cell.SIGNED}:
        expected = "Float64"
    for first, second in itertools.product(CELLS[one], CELLS[other]):
        assert str(settled(look(_cells(first, second), Reading()).counts)) == expected, (first, second)


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("12,5", Cell.DECIMAL),
        (",5", Cell.DECIMAL),
        ("-1,5e3", Cell.DECIMAL),
        ("7", Cell.WHOLE),
        ("007", Cell.CODE),
        ("1.5", Cell.SPELLED),
        ("1.234", Cell.SPELLED),
        ("1.234,56", Cell.SPELLED),
        ("1 234,5", Cell.SPELLED),
        ("nan", Cell.MISSING),
        ("a,b", Cell.TEXT),
    ],
)
def test_a_decimal_comma(text: str, cell: Cell) -> None:
    how = Reading(decimal=",")
    assert set(look(_cells(text), how).counts) == {cell}
    if cell in (Cell.DECIMAL, Cell.WHOLE):
        looked = look(_cells(text), how)
        value = typed(looked.cells, settled(looked.counts), how)[0]
        assert value == float(text.replace(",", "."))


def test_a_column_without_cells_is_text_unless_it_is_known_to_be_real() -> None:
    counts = look(_cells(None, "", "NA"), Reading()).counts
    assert str(settled(counts)) == "String"
    assert str(settled(counts, "real")) == "Float64"


def test_a_role_rules_over_the_cells() -> None:
    numbers = look(_cells("7", "007", "+5", "0.5", "1" * 50, " 8 "), Reading("real"))
    assert str(settled(numbers.counts, "real")) == "Float64"
    assert typed(numbers.cells, pl.Float64(), Reading("real")).to_list() == [7, 7, 5, 0.5, float("1" * 50), 8]
    assert str(settled(look(_cells("7", "1,000"), Reading("real")).counts, "real")) == "String"
    assert str(settled(look(_cells("7", "8"), reading("text")).counts, "text")) == "String"
    assert str(settled(look(_cells("007", "+8"), Reading("key")).counts, "key")) == "Int64"
    assert typed(_cells("007", "+8"), pl.Int64(), Reading("key")).to_list() == [7, 8]


def test_what_means_a_missing_value() -> None:
    """A map rules, then what the user says, then the usual texts; a column of text has only empty cells."""
    cells = _cells("NA", "-999", "-999.0", "?", "7", "", "nan", "None", None)
    usual = [None, "-999", "-999.0", "?", "7", None, None, None, None]
    assert look(cells, reading("guess")).cells.to_list() == usual
    further = reading("guess", further=["?", "-999"])
    assert look(cells, further).cells.to_list() == [None, None, None, None, 7, None, None, None, None]
    as_written = ["NA", "-999", "-999.0", "?", "7", None, "nan", "None", None]
    assert look(cells, reading("text")).cells.to_list() == as_written
    known = reading("guess", known=["NA", "7", "nan"])
    assert look(cells, known).cells.to_list() == ["NA", "-999", "-999.0", "?", "7", None, "nan", None, None]
    assert look(_cells("1", "-999", "-999"), further).cells.to_list() == [1, None, None]
    assert look(_cells("1.5", "-999.0", "NaN"), further).cells.to_list() == [1.5, None, None]


@given(st.lists(st.sampled_from([None, *(text for _, text in PAIRS)]), min_size=1, max_size=6))
def test_what_waits_for_its_type_keeps_its_text(texts: list[str | None]) -> None:
    looked = look(_cells(*texts), Reading())
    missing = {*CELLS[Cell.MISSING], None}
    kept = [None if text in missing else text for text in texts]
    assert typed(looked.cells, pl.String(), Reading()).to_list() == kept
    assert looked.counts.total() == len(texts) - texts.count(None)
    dtype = settled(looked.counts)
    assert typed(looked.cells, dtype, Reading()).null_count() == kept.count(None)


@given(st.lists(st.sampled_from([None, *(text for _, text in PAIRS)]), min_size=1, max_size=8), st.data())
def test_counts_do_not_depend_on_blocks(texts: list[str | None], data: st.DataObject) -> None:
    border = data.draw(st.integers(0, len(texts)))
    whole = look(_cells(*texts), Reading()).counts
    assert whole == sum(
        (look(_cells(*part), Reading()).counts for part in (texts[:border], texts[border:])), +whole - whole
    )


@given(st.floats(allow_nan=False) | st.integers(-(2**70), 2**70))
def test_numbers_as_programs_write_them(number: float) -> None:
    texts = [repr(number), str(number), f"{number:+}", f" {number}"]
    texts += [f"{number:.17e}", f"{number:.25g}"] if isinstance(number, float) else []
    assert all(map(is_number, texts))
    numbers, others = numbers_in(_cells(*texts), Reading("real"))
    assert not others.any()
    assert set(numbers.to_list()) == {float(number)}


@given(st.floats(-1e15, 1e15).filter(lambda number: abs(number) >= 1000))
def test_numbers_as_people_write_them_are_seen(number: float) -> None:
    for text in (f"{number:,.2f}", f"{number:_.2f}", f"{number:,.2f}".replace(",", " ")):
        assert set(look(_cells(text), Reading()).counts) == {Cell.SPELLED}, text


@given(st.text(max_size=12))
def test_any_text_is_something(text: str) -> None:
    for how in (Reading(), Reading(decimal=","), reading("text"), reading("guess", known=[text])):
        looked = look(_cells(text), how)
        assert looked.counts.total() == 1
        assert settled(looked.counts, how.role) is not None
    assert look(_cells(text), reading("guess", known=[text])).cells.to_list()[0] is not None
