"""Reading: what is accepted, and one clear error for everything that is not."""

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqjax.errors import DataError
from tests.tables import read_table

HEADER = "sequenceId,itemPosition,item,price\n"


def _csv(folder: Path, text: str, name: str = "t.csv") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def _parquet(folder: Path, name: str = "t.parquet", **columns: Any) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame({"sequenceId": [1, 1], "itemPosition": [0, 1], **columns}).write_parquet(path)
    return path


def test_roles_by_type(tmp_path: Path) -> None:
    columns = {
        "text": ["a", None],
        "cat": pl.Series(["a", "b"], dtype=pl.Categorical),
        "enum": pl.Series(["a", "b"], dtype=pl.Enum(["a", "b"])),
        "bool": [True, False],
        "int": pl.Series([1, None], dtype=pl.Int16),
        "uint": pl.Series([1, 2**64 - 1], dtype=pl.UInt64),
        "f32": pl.Series([1, 2], dtype=pl.Float32),
        "f64": [1.0, 2.0],
    }
    table = read_table(_parquet(tmp_path, **columns), "parquet")
    assert table.kinds == dict.fromkeys(list(columns)[:6], "categorical") | dict.fromkeys(
        ("f32", "f64"), "real"
    )


def test_types_come_from_the_whole_file_and_dates_stay_text(tmp_path: Path) -> None:
    rows = "".join(f"1,{i},2024-01-01,{i}\n" for i in range(200))
    table = read_table(_csv(tmp_path, HEADER + rows + "1,200,2024-01-02,0.5\n"), "csv")
    assert table.kinds == {"item": "categorical", "price": "real"}
    assert table.features["item"][0] == "2024-01-01"


def test_rows_are_sorted(tmp_path: Path) -> None:
    table = read_table(_csv(tmp_path, HEADER + "2,5,c,3\n1,9,b,2\n2,-1,d,4\n1,3,a,1\n"), "csv")
    assert table.sequence_id.tolist() == [1, 1, 2, 2]
    assert table.item_position.tolist() == [3, 9, -1, 5]
    assert table.features["item"].to_list() == ["a", "b", "d", "c"]


def test_selected_columns_come_in_their_order_and_others_do_not_matter(tmp_path: Path) -> None:
    path = _csv(tmp_path, "z,sequenceId,b,itemPosition,a,\nNaN,1,x,0,3,\n,1,y,1,4,\n")
    table = read_table(path, "csv", selected_columns=["a", "b"])
    assert table.features.columns == ["a", "b"]


def test_max_rows_counts_in_file_order(tmp_path: Path) -> None:
    _csv(tmp_path, HEADER + "1,2,c,1\n1,1,b,1\n", "a/1.csv")
    _csv(tmp_path, HEADER + "1,0,a,1\n1,3,d,1\n", "b/1.csv")
    _csv(tmp_path, HEADER + "broken", "c/1.csv")
    table = read_table(tmp_path, "csv", max_rows=3)
    assert table.features["item"].to_list() == ["a", "b", "c"]
    assert len(read_table(tmp_path / "a", "csv", max_rows=0).item_position) == 2


def test_column_names_are_taken_as_they_are(tmp_path: Path) -> None:
    names = ["a b", "c.d", "größe", "class", "items", 'q"u', "inputCol"]
    cells: dict[str, Any] = {name: ["x", "y"] for name in names}
    table = read_table(_parquet(tmp_path, **cells), "parquet")
    assert table.features.columns == names


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_result_does_not_depend_on_row_order_or_file_cut(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    texts = data.draw(
        st.sampled_from(
            [["1", "02", "x", ""], ["1", "1.5", "-2"], ["1", "99999999999999999999"], ["true", "1"]]
        )
    )
    cells = data.draw(st.lists(st.sampled_from(texts), min_size=2, max_size=12))
    rows = [f"{i % 3},{i},{cell},0.5\n" for i, cell in enumerate(cells)]
    whole = read_table(_csv(tmp_path_factory.mktemp("whole"), HEADER + "".join(rows)), "csv")
    shuffled = data.draw(st.permutations(rows))
    border = data.draw(st.integers(1, len(rows) - 1))
    folder = tmp_path_factory.mktemp("parts")
    _csv(folder, HEADER + "".join(shuffled[:border]), "a.csv")
    _csv(folder, HEADER + "".join(shuffled[border:]), "b.csv")
    parts = read_table(folder, "csv")
    assert parts.features.equals(whole.features)
    assert np.array_equal(parts.item_position, whole.item_position)


CSV_ERRORS = {
    "no header": ("", "cannot be read as csv"),
    "no rows": (HEADER, "holds no rows"),
    "no sequenceId": ("id,itemPosition,a\n1,2,3\n", "no column 'sequenceId' .columns: id, itemPosition, a"),
    "no itemPosition": ("sequenceId,position,a\n1,2,3\n", "no column 'itemPosition'"),
    "no features": ("sequenceId,itemPosition\n1,2\n", "no feature column"),
    "two of a name": ("sequenceId,itemPosition,a,a\n1,2,3,4\n", "2 columns named 'a'"),
    "no name": ("sequenceId,itemPosition,a,\n1,2,3,4\n", r"column without a name \(number 4\)"),
    "empty sequenceId": (HEADER + "1,0,a,1\n,1,a,1\n", "column 'sequenceId', row 2 is empty"),
    "empty itemPosition": (HEADER + "1,0,a,1\n1,,a,1\n", "column 'itemPosition', row 2 is empty"),
    "text sequenceId": (HEADER + "1,0,a,1\nB2,1,a,1\n", "column 'sequenceId' .* row 2 holds 'B2'"),
    "float sequenceId": (HEADER + "1,0,a,1\n1.5,1,a,1\n", "column 'sequenceId' .* row 2 holds 1.5"),
    "whole float": (HEADER + "1.0,0,a,1\n2.0,1,a,1\n", "'sequenceId' is of type Float64; row 1 holds 1.0"),
    "boolean": (HEADER + "true,0,a,1\n", "'sequenceId' is of type Boolean"),
    "too large": (HEADER + "1,0,a,1\n1,9223372036854775808,a,1\n", "row 2 holds 9223372036854775808"),
    "duplicate": (
        HEADER + "3,4,a,1\n1,0,a,1\n3,4,b,1\n",
        "sequenceId 3 has itemPosition 4 twice: in row 1 of .*row 3",
    ),
    "NaN": (HEADER + "1,0,a,1.5\n1,1,a,NaN\n", "column 'price', row 2 is empty; .* NaN and whatever else"),
    "infinity": (HEADER + "1,0,a,-inf\n1,1,a,1\n", "column 'price', row 1 holds -inf"),
    "empty real": (HEADER + "1,0,a,1.5\n1,1,a,\n", "column 'price', row 2 is empty"),
    "too many cells": (HEADER + "1,0,a,1\n1,1,a,1,7\n", "row 2 has 5 cells, and the header has 4. It begins"),
    "too few cells": (HEADER + '1,0,"a,b",1\n1,1\n', "row 2 has 2 cells, and the header has 4. .* '1,1'"),
    "cut off": (HEADER + "1,0,a,1\n1,1,a", "row 2 has 3 cells"),
    "blank line": (HEADER + "1,0,a,1\n\n1,1,a,1\n", "row 2 is a blank line"),
    "semicolons": (HEADER.replace(",", ";") + "1;0;a;1\n1;1;a\n", "row 2 has 3 cells, and the header has 4"),
    "blanks": (
        HEADER.replace(",", ", ") + "1, 0, a, 1\n",
        "no column 'itemPosition' .* the blanks around names",
    ),
}


@pytest.mark.parametrize("case", CSV_ERRORS)
def test_csv_errors(tmp_path: Path, case: str) -> None:
    text, message = CSV_ERRORS[case]
    path = _csv(tmp_path, text)
    with pytest.raises(DataError, match=message) as error:
        read_table(path, "csv")
    assert str(path) in str(error.value)
    assert str(error.value).endswith(".")


SEPARATORS = {"semicolon": ";", "tab": "\t", "bar": "|"}


@pytest.mark.parametrize("mark", SEPARATORS)
def test_cells_may_be_separated_by_other_marks(tmp_path: Path, mark: str) -> None:
    rows = [HEADER.strip().split(","), ["1", "0", '"a,b"', "1.5"], ["1", "1", '"c;d|e\tf"', "2.5"]]
    path = _csv(tmp_path, "".join(SEPARATORS[mark].join(row) + "\n" for row in rows))
    features = read_table(path, "csv").features
    assert features.rows() == [("a,b", 1.5), ("c;d|e\tf", 2.5)]


def test_decimal_commas_between_semicolons(tmp_path: Path) -> None:
    path = _csv(tmp_path, "sequenceId;itemPosition;item;price\n1;0;a;1,5\n1;1;b;-2\n1;2;b;NA\n")
    with pytest.raises(DataError, match=r"'price', row 1 holds '1,5'.*say decimal: \",\""):
        read_table(path, "csv")
    table = read_table(path, "csv", decimal=",", missing_real="mean")
    assert table.features["price"].to_list() == [1.5, -2.0, None]


def test_hidden_files_are_passed_over(tmp_path: Path) -> None:
    for name in ("a.csv", ".b.csv", ".ipynb_checkpoints/a-checkpoint.csv", "b/.c/d.csv"):
        _csv(tmp_path, HEADER + "1,0,a,1\n", name)
    assert len(read_table(tmp_path, "csv")) == 1
    assert len(read_table(tmp_path / "b" / ".c", "csv")) == 1


def _two_files(folder: Path, second: str) -> Path:
    _csv(folder, HEADER + "1,0,a,1\n", "a.csv")
    return _csv(folder, second, "b.csv").parent


OTHER_ERRORS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no such file": (lambda folder: read_table(folder / "no.csv", "csv"), "no.csv does not exist"),
    "no such files": (lambda folder: read_table(folder, "parquet"), r"holds no \.parquet file"),
    "not utf-8": (
        lambda folder: read_table(_bytes(folder, b"sequenceId,itemPosition,a\n1,2,\xff\n"), "csv"),
        "as csv: .* Write it as UTF-8, such as with 'iconv",
    ),
    "no parquet": (lambda folder: read_table(_csv(folder, HEADER), "parquet"), "cannot be read as parquet"),
    "date": (
        lambda folder: read_table(_parquet(folder, d=[datetime.date(2024, 1, 1)] * 2), "parquet"),
        r"column 'd' is of type Date, which is neither categorical .* make it a category \(column_roles\)",
    ),
    "list": (
        lambda folder: read_table(_parquet(folder, d=[[1], [2]]), "parquet"),
        "column 'd' is of type List",
    ),
    "list as key": (
        lambda folder: read_table(_parquet(folder, sequenceId=[[1], [2]], d=[1, 2]), "parquet"),
        "'sequenceId' is of type List",
    ),
    "unknown column": (
        lambda folder: read_table(_csv(folder, HEADER + "1,0,a,1\n"), "csv", selected_columns=["itm"]),
        "no column 'itm' .* Did you mean 'item'",
    ),
    "reserved column": (
        lambda folder: read_table(_csv(folder, HEADER + "1,0,a,1\n"), "csv", selected_columns=["sequenceId"]),
        "cannot be a feature",
    ),
    "column twice": (
        lambda folder: read_table(
            _csv(folder, HEADER + "1,0,a,1\n"), "csv", selected_columns=["item", "item"]
        ),
        "names a column twice",
    ),
    "other columns": (
        lambda folder: read_table(_two_files(folder, "sequenceId,itemPosition,item,cost\n1,1,a,1\n"), "csv"),
        r"b.csv has other columns than .*a.csv: it lacks \['price'\], and only it has \['cost'\]",
    ),
    "duplicate across files": (
        lambda folder: read_table(_two_files(folder, HEADER + "1,2,a,1\n1,0,a,1\n"), "csv"),
        r"twice: in row 1 of .*a.csv and in row 2 of .*b.csv",
    ),
    "key in the second file": (
        lambda folder: read_table(_two_files(folder, HEADER + "1,1,a,1\n1,x,a,1\n"), "csv"),
        "b.csv: column 'itemPosition' .* row 2 holds 'x'",
    ),
    "truncated parquet": (
        lambda folder: read_table(_truncated(_parquet(folder, d=[1.5, 2.5])), "parquet"),
        r"t\.parquet cannot be read as parquet: ",
    ),
    "integers of two widths": (
        lambda folder: read_table(
            (
                _parquet(folder, "a.parquet", d=pl.Series([1, 2], dtype=pl.Int32)),
                _parquet(folder, "b.parquet", d=pl.Series([1, 2], dtype=pl.Int64)),
            )[1].parent,
            "parquet",
        ),
        "b.parquet: column 'd' is of type Int64, but Int32 in .*a.parquet",
    ),
    "keys of two types": (
        lambda folder: read_table(_two_files(folder, HEADER + "1,1,a,1\n1.5,2,a,1\n"), "csv"),
        "b.csv: column 'sequenceId' is of type Float64; row 2 holds 1.5",
    ),
    "text that is not closed": (
        lambda folder: read_table(_csv(folder, HEADER + '1,0,"a,1\n1,1,b,2\n'), "csv"),
        r"t\.csv: row 1 has 3 cells, .* quotes must be closed\.",
    ),
    "null in the second file": (
        lambda folder: read_table(_two_files(folder, HEADER + "1,1,a,1.5\n1,2,a,\n"), "csv"),
        "b.csv: column 'price', row 2 is empty; a real column needs a finite number",
    ),
    "other types": (
        lambda folder: read_table(
            (_parquet(folder, "a.parquet", d=[1, 2]), _parquet(folder, "b.parquet", d=[1.5, 2.5]))[1].parent,
            "parquet",
        ),
        "b.parquet: column 'd' is of type Float64, but Int64 in .*a.parquet",
    ),
}


def _truncated(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-20])
    return path


def _bytes(folder: Path, content: bytes) -> Path:
    path = folder / "t.csv"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("case", OTHER_ERRORS)
def test_other_errors(tmp_path: Path, case: str) -> None:
    read, message = OTHER_ERRORS[case]
    with pytest.raises(DataError, match=message) as error:
        read(tmp_path)
    assert str(error.value).endswith((".", "?"))
