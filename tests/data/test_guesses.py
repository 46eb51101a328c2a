"""Columns that are nearly of numbers are refused with their rows, and choices are told."""

import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqjax.data.tables import Table
from seqjax.errors import DataError
from tests.tables import read_table


def _read(folder: Path, cells: list[str], **chosen: Any) -> Table:
    rows = "".join(f'1,{row},"{cell}"\n' for row, cell in enumerate(cells))
    (folder / "t.csv").write_text("sequenceId,itemPosition,x\n" + rows, encoding="utf-8")
    return read_table(folder / "t.csv", "csv", **chosen)


def _values(folder: Path, cells: list[str], **chosen: Any) -> list:
    return _read(folder, cells, **chosen).features["x"].to_list()


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["1.5", "1,234.50"], r"row 2 holds '1,234\.50'\. It is a number, .* column_roles: {x: text}\."),
        (["1.5", "2", "12,5", "3"], r'row 3 holds .12,5.\. .* or say decimal: ","\.'),
        (["1 000", "2 000"], r"row 1 holds '1 000' \(2 of 2 cells are alike, first in rows 1, 2\)"),
        (["10 %", "", "20 %"], r"row 1 holds '10 %' \(2 of 2 cells"),
        (["$5", "7"], r"row 1 holds '\$5'"),
        (["+1", "-1"], r"row 1 holds '\+1'\. .* plus signs"),
        (["٣", "4"], r"row 1 holds '٣'"),
        (["10.5", "11.5", "n/a", "12"], r"row 3 holds 'n/a', but .* numbers\. .* missing_values: \['n/a'\]"),
        (["10.5", "true", "12.5"], r"row 2 holds 'true', but most"),
        (["10.5", "?", "?", "1.5"], r"row 2 holds '\?' \(2 of 4 cells are alike, first in rows 2, 3\)"),
        (["0.5", "1.5", "007"], r"row 3 holds '007', but most"),
    ],
)
def test_numbers_that_are_not_written_like_numbers(tmp_path: Path, cells: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        _read(tmp_path, cells)
    assert str(error.value).startswith(f"{tmp_path / 't.csv'}: column 'x', row ")
    assert _values(tmp_path, cells, roles={"x": "text"}) == [cell or None for cell in cells]


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["007", "7", "0123", "123"], ["007", "7", "0123", "123"]),
        (["1.10", "1.9", "2.0-beta", "a", "b"], ["1.10", "1.9", "2.0-beta", "a", "b"]),
        (["36", "38", "M", "L"], ["36", "38", "M", "L"]),
        (["1", "nan", "3"], [1, None, 3]),
        (["1.0", "NA", "null", "2.5"], [1.0, None, None, 2.5]),
        (["true", "None", "FALSE"], [True, None, False]),
        ([" 1", " 2", "10"], [1, 2, 10]),
        (["1", "+2", "0.5"], [1.0, 2.0, 0.5]),
        (["00.5", "12.5"], [0.5, 12.5]),
        (["-0", "0"], [0, 0]),
        (["2024-01-01", "2024-01-02"], ["2024-01-01", "2024-01-02"]),
        (["9" * 40, "1"], ["9" * 40, "1"]),
        (["9" * 40, "0.5"], [1e40, 0.5]),
        (["true", "1"], ["true", "1"]),
        (["", "NA"], [None, None]),
    ],
)
def test_columns_that_are_clear(tmp_path: Path, cells: list[str], values: list) -> None:
    assert _values(tmp_path, cells, missing_real="mean") == values


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["nan", "7", "+5", "1e3", "007", " 2 "], [None, 7, 5, 1000, 7, 2]),
        (["True", "false"], [1, 0]),
        (["", "NA"], [None, None]),
    ],
)
def test_a_real_column_takes_every_number(tmp_path: Path, cells: list[str], values: list) -> None:
    assert _values(tmp_path, cells, roles={"x": "real"}, missing_real="mean") == values


@pytest.mark.parametrize("cell", ["x", "1,000", "NULL", "5%", "1_0", "٣", "true"])
def test_a_real_column_takes_nothing_else(tmp_path: Path, cell: str) -> None:
    with pytest.raises(DataError, match=rf"row 2 holds '{cell}'.* missing_values: \['{cell}'\]"):
        _read(tmp_path, ["1", cell, "0.5"], roles={"x": "real"}, missing_real="mean")


def test_what_the_user_says_is_missing(tmp_path: Path) -> None:
    cells = ["10.5", "-999", "-999.0", "-", "nan", "11.5"]
    values = _values(tmp_path, cells, missing_values=["-999", "-"], missing_real="mean")
    assert values == [10.5, None, None, None, None, 11.5]


CHOICES = {
    "missing texts": (["NA", "DE", "NA"], "2 cells .'NA'. are taken for missing values.* {x: text}"),
    "zeros": (["12", "007", "3"], "'x' is text, since some numbers begin with a zero .row 2: '007'."),
    "a few words": (["7"] * 30 + ["n/a"], "row 31 holds 'n/a'; so its values are text, its numbers too"),
}


@pytest.mark.parametrize("case", CHOICES)
def test_choices_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture, case: str) -> None:
    caplog.set_level(logging.INFO)
    cells, message = CHOICES[case]
    _read(tmp_path, cells)
    assert len(caplog.messages) == 1
    assert caplog.records[0].message.find(message.split(".")[0].split("{")[0]) >= 0
    caplog.clear()
    _read(tmp_path, cells, roles={"x": "text"})
    assert not caplog.messages


@given(
    st.lists(st.integers(-999, 999) | st.floats(-1e6, 1e6, width=32), min_size=1, max_size=20),
    st.lists(st.sampled_from(["NA", "nan", "NaN", "null", "None", "N/A", "#N/A", ""]), max_size=10),
    st.randoms(),
)
def test_numbers_stay_numbers_beside_missing_values(
    tmp_path_factory: pytest.TempPathFactory, numbers: list, missing: list[str], chance
) -> None:
    cells = [*map(str, numbers), *missing]
    chance.shuffle(cells)
    values = _values(tmp_path_factory.mktemp("t"), cells, missing_real="mean")
    as_numbers = [None if cell in missing else float(cell) for cell in cells]
    assert values == as_numbers
