"""Prepared id maps: used whole, or refused with the reason."""

from pathlib import Path

import pytest

from seqjax.data.fitting import precomputed_maps
from seqjax.errors import DataError

COLUMNS = ["item", "price"]


def _folder(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.json").write_text(text, encoding="utf-8")
    return folder


def test_maps_of_the_columns_are_read_and_others_left(tmp_path: Path) -> None:
    folder = _folder(tmp_path, item='{"é": 2, "b": 9}', other="not even JSON")
    assert precomputed_maps(folder, COLUMNS, {}, ["item"]) == {"item": {"é": 2, "b": 9}}
    assert precomputed_maps(tmp_path / "none", COLUMNS, {}, None) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("{}", "holds no values"),
        ("[2, 3]", "holds no values"),
        ('{"a": 1}', "'a' has the id 1"),
        ('{"a": 2, "b": "3"}', "'b' has the id '3'"),
        ('{"a": 2, "b": true}', "'b' has the id True"),
        ('{"a": 2, "b": 2.0}', "'b' has the id 2.0"),
        ('{"a": 2, "b": 99999999999}', "'b' has the id 99999999999"),
        ('{"a": 2, "b": 3, "c": 2}', "'a' and 'c' have the same id, 2"),
    ],
)
def test_no_id_map(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        precomputed_maps(_folder(tmp_path, item=text), COLUMNS, {}, None)
    assert "item.json" in str(error.value)


def test_required_maps_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"item\.json does not exist"):
        precomputed_maps(tmp_path, COLUMNS, {}, ["item"])
    with pytest.raises(DataError, match=r"no column 'itm' is read\. Did you mean 'item'"):
        precomputed_maps(tmp_path, COLUMNS, {}, ["itm"])


def test_a_real_column_has_no_map(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'price', a real column"):
        precomputed_maps(_folder(tmp_path, price='{"1.0": 2}'), COLUMNS, {"price": "real"}, None)
