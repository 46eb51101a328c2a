"""Folders of torch files: what is in them, how padding is told, and what is refused."""

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seqjax.config.schema import ColumnKind
from seqjax.data.formats import load_windows
from seqjax.data.splits import sequences
from seqjax.data.torch_shards import leading_zeros, read_files, write
from seqjax.errors import DataError
from seqjax.interop.torch_files import read_torch_file, write_torch_file
from seqjax.windows.windows import Windows, cut, joined

KINDS: dict[str, ColumnKind] = {"item": "categorical", "price": "real"}


def _windows(lengths: tuple[int, ...] = (9, 2, 1, 6)) -> Windows:
    n = sum(lengths)
    columns = {"item": (np.arange(n) % 5).astype(np.int8), "price": np.linspace(-1, 1, n).astype(np.float32)}
    ids = np.repeat(np.arange(len(lengths)) * 3 - 2, lengths)
    return cut(sequences(ids), columns, 7 + np.arange(n), seq_length=3, stride=2)


def _read(folder: Path, kinds: Mapping[str, ColumnKind]) -> Windows:
    return joined(list(read_files(folder, kinds)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "x-split0", _windows(), stem="x-split0", sequences_per_file=3)
    return tmp_path / "x-split0"


def _index(folder: Path, **changes: Any) -> dict[str, Any]:
    path = folder / "metadata.json"
    values = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))
    return values


def test_what_a_folder_holds(folder: Path) -> None:
    names = ["x-split0-0-0.pt", "x-split0-0-1.pt"]
    assert sorted(path.name for path in folder.iterdir()) == ["metadata.json", *names]
    assert _index(folder) == {
        "total_samples": 8,
        "batch_files": [{"path": names[0], "samples": 6}, {"path": names[1], "samples": 2}],
        "padding": {names[0]: [[4, 2], [5, 3]]},
    }
    inputs, targets, *keys = read_torch_file(folder / names[0])
    assert list(inputs) == list(targets) == ["item", "price"]
    assert inputs["item"].dtype == np.int64
    assert inputs["price"].dtype == np.float32
    assert inputs["item"][[0, 4, 5]].tolist() == [[0, 1, 2], [0, 0, 4], [0, 0, 0]]
    assert targets["item"][[0, 4, 5]].tolist() == [[1, 2, 3], [0, 4, 0], [0, 0, 1]]
    assert [key.tolist() for key in keys] == [
        [-2, -2, -2, -2, 1, 4],
        [0, 1, 2, 3, 0, 0],
        [7, 8, 10, 12, 14, 15],
    ]
    assert all(key.dtype == np.int64 for key in keys)


@pytest.mark.parametrize(("count", "last"), [(7, "7"), (8, "08"), (12, "12")])
def test_numbers_of_files_are_as_wide_as_sequifiers(tmp_path: Path, count: int, last: str) -> None:
    write(tmp_path / "x", _windows((3,) * (count + 1)), stem="x", sequences_per_file=1)
    names = sorted(path.name for path in tmp_path.glob("x/*.pt"))
    assert names[-1] == f"x-0-{last}.pt"
    assert len(names) == count + 1


def test_an_item_of_zeros_is_no_padding_in_our_files(folder: Path) -> None:
    # The first item of the second sequence has id 4, and that of the third, its only one, is the newest.
    windows = _windows()
    np.asarray(windows.columns["item"])[9:11] = 0
    np.asarray(windows.columns["price"])[9:11] = 0
    ours = folder.with_name("zeros")
    write(ours, windows, stem="zeros", sequences_per_file=9)
    assert _read(ours, KINDS).length().tolist() == windows.length().tolist()
    _index(ours, padding=None)
    assert _read(ours, KINDS).length().tolist() == [4, 4, 4, 4, 1, 1, 4, 4]


def test_every_column_of_the_file_tells_padding(folder: Path) -> None:
    _index(folder, padding=None)
    expected = _windows()
    only_item = _read(folder, {"item": "categorical"})
    assert only_item.length().tolist() == expected.length().tolist()
    assert list(only_item.columns) == ["item"]


def test_files_that_are_not_listed_are_named(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    index = _index(folder)
    _index(folder, total_samples=6, batch_files=index["batch_files"][:1])
    with caplog.at_level(logging.WARNING):
        assert len(_read(folder, KINDS)) == 6
    assert "x-split0-0-1.pt is not listed" in caplog.text


def test_an_empty_folder_of_sequifier_holds_no_windows(folder: Path) -> None:
    for path in folder.glob("*.pt"):
        path.unlink()
    (folder / "metadata.json").write_text('{"total_samples": 0, "batch_files": []}')
    with pytest.raises(DataError, match="holds no windows"):
        _read(folder, KINDS)


INDEXES: dict[str, tuple[dict[str, Any], str]] = {
    "total": ({"total_samples": 9}, "total_samples, 9, is not the sum of its samples, 8"),
    "negative": ({"total_samples": -1}, "total_samples: must be at least 0"),
    "twice": ({"batch_files": [{"path": "x-split0-0-0.pt", "samples": 4}] * 2}, "lists a file twice"),
    "count": (
        {"batch_files": [{"path": "x-split0-0-0.pt", "samples": 8}]},
        r"0-0\.pt holds 6 windows, but metadata\.json says 8",
    ),
    "missing": ({"batch_files": [{"path": "y.pt", "samples": 8}]}, r"y\.pt is missing"),
    "outside": ({"batch_files": [{"path": "../y.pt", "samples": 8}]}, r"batch_files\.0\.path: must be text"),
    "no files": ({"batch_files": None}, "batch_files: is required"),
    "window": ({"padding": {"x-split0-0-0.pt": [[6, 1]]}}, "1 slots of window 6 are padded"),
    "slots": ({"padding": {"x-split0-0-0.pt": [[1, 4]]}}, "4 slots of window 1 are padded"),
    "context": ({"context": {"x-split0-0-0.pt": [[4, 2]]}}, "2 slots of window 4 are context"),
}


@pytest.mark.parametrize(("changes", "message"), INDEXES.values(), ids=INDEXES.keys())
def test_wrong_indexes_are_refused(folder: Path, changes: dict[str, Any], message: str) -> None:
    _index(folder, **changes)
    with pytest.raises(DataError, match=message):
        _read(folder, KINDS)


@pytest.mark.parametrize("text", ["", "[]", "{", "\udcff", "[" * 100_000])
def test_what_is_no_index_is_refused(folder: Path, text: str) -> None:
    (folder / "metadata.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=r"metadata\.json"):
        _read(folder, KINDS)


Content = list[Any]


def _four(content: Content) -> None:
    content.pop()


def _second_column(content: Content) -> None:
    content[0]["other"] = content[0]["item"]


def _shifted(content: Content) -> None:
    content[1]["item"] = content[1]["item"] + 1


def _infinite(content: Content) -> None:
    content[0]["price"] = np.full((6, 3), np.inf, np.float32)
    content[1]["price"] = np.full((6, 3), np.inf, np.float32)


def _negative(content: Content) -> None:
    for part in (0, 1):
        content[part]["item"] = content[part]["item"] - 3


def _text(content: Content) -> None:
    content[0]["item"] = "item"


def _flat(content: Content) -> None:
    for part in (0, 1):
        content[part] = {name: values.reshape(-1) for name, values in content[part].items()}


def _short_keys(content: Content) -> None:
    content[2] = content[2][:-1]


def _real_keys(content: Content) -> None:
    content[3] = content[3].astype(np.float32)


def _numbered(content: Content) -> None:
    for part in (0, 1):
        content[part] = dict(enumerate(content[part].values()))


CONTENTS: dict[str, tuple[Callable[[Content], None], str]] = {
    "four": (_four, "which are five"),
    "columns": (_second_column, "of the same columns"),
    "numbers as names": (_numbered, "of the same columns"),
    "not shifted": (_shifted, "targets of column 'item' are not its inputs"),
    "infinite": (_infinite, "column 'price' holds an infinity"),
    "negative": (_negative, "holds -3, which is no id"),
    "text": (_text, "do not belong together"),
    "flat": (_flat, "of the same columns"),
    "short keys": (_short_keys, "do not belong together"),
    "real keys": (_real_keys, "do not belong together"),
}


@pytest.mark.parametrize(("change", "message"), CONTENTS.values(), ids=CONTENTS.keys())
def test_wrong_files_are_refused(folder: Path, change: Callable[[Content], None], message: str) -> None:
    path = folder / "x-split0-0-0.pt"
    content = list(read_torch_file(path))
    change(content)
    write_torch_file(path, tuple(content))
    with pytest.raises(DataError, match=rf"x-split0-0-0\.pt.*({message})"):
        _read(folder, KINDS)


def test_damaged_files_are_refused(folder: Path) -> None:
    path = folder / "x-split0-0-1.pt"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"x-split0-0-1\.pt.*Run preprocess again"):
        _read(folder, KINDS)


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        ({"itemm": "categorical"}, "no column 'itemm' \\(columns: item, price\\)"),
        ({"item": "real"}, "column 'item' is of type int64, but expected to be real"),
        ({"price": "categorical"}, "column 'price' is of type float32, but expected to be categorical"),
    ],
)
def test_columns_must_be_there_and_of_their_kind(
    folder: Path, kinds: dict[str, ColumnKind], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        _read(folder, kinds)


def test_files_of_different_runs_are_refused(folder: Path) -> None:
    other = cut(sequences(np.zeros(5, np.int64)), {"item": np.arange(5), "price": np.zeros(5, np.float32)},
                np.arange(5), seq_length=4, stride=1)  # fmt: skip
    write(folder.with_name("y"), other, stem="y", sequences_per_file=1)
    (folder.with_name("y") / "y-0-0.pt").rename(folder / "y.pt")
    index = _index(folder)
    _index(folder, total_samples=9, batch_files=[*index["batch_files"], {"path": "y.pt", "samples": 1}])
    with pytest.raises(DataError, match="seq_length 3 and of 4"):
        _read(folder, KINDS)


def test_torch_and_its_loader_take_the_files(folder: Path) -> None:
    torch = pytest.importorskip("torch")
    files = sorted(folder.glob("*.pt"))
    loaded = [torch.load(path, weights_only=True) for path in files]
    together = torch.cat([inputs["item"] for inputs, *_ in loaded])
    batch = _windows().gather(np.arange(8))
    np.testing.assert_array_equal(together.numpy(), batch.columns["item"][:, :-1])
    np.testing.assert_array_equal(
        torch.cat([part[1]["price"] for part in loaded]), batch.columns["price"][:, 1:]
    )
    assert [part[2].dtype for part in loaded] == [torch.int64] * 2


def test_columns_of_several_files_are_in_one_piece(tmp_path: Path) -> None:
    write(tmp_path / "x", _windows(), stem="x", sequences_per_file=1)
    found = load_windows(tmp_path / "x", "pt", column_kinds=KINDS)
    assert len(list((tmp_path / "x").glob("*.pt"))) > 1
    assert all(isinstance(column, np.ndarray) for column in found.columns.values())


def test_slots_are_padded_as_long_as_every_column_is_zero() -> None:
    ids = np.array([[0, 0, 3, 0], [0, 2, 0, 0], [0, 0, 0, 0], [0, 0, 0, 5]])
    values = np.array(
        [[0.0, 0.5, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    )
    assert leading_zeros([ids]).tolist() == [2, 1, 3, 3]
    assert leading_zeros([ids, values]).tolist() == [1, 1, 3, 3]
    assert leading_zeros([ids[:0], values[:0]]).tolist() == []
