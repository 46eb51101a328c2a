"""What is written is what our reader, and torch itself, give back."""

import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqjax.interop.torch_files import ALIGNMENT, MAX_DEPTH, STORAGES, read_torch_file, write_torch_file

BASE = np.arange(12, dtype=np.float32).reshape(3, 4)
TENSORS = {
    "plain": BASE,
    "view from the left": BASE[:, :-1],
    "view to the right": BASE[:, 1:],
    "transposed": BASE.T,
    "backwards": BASE[::-1],
    "in Fortran's order": np.asfortranarray(BASE + 1),
    "repeated": np.broadcast_to(BASE[0], (5, 4)),
    "part of a record": np.zeros(3, [("a", "<f4"), ("b", "<i8")])["a"],
    "big-endian": np.arange(3, dtype=">i4"),
    "scalar": np.array(7, np.int16),
    "empty": np.zeros((0, 4), np.float64),
    "bfloat16": np.arange(4).astype(ml_dtypes.bfloat16),
    "half": np.array([-0.5, np.inf, np.nan], np.float16),
    "truth": np.array([[True, False]]),
    "small": np.array([-128, 127], np.int8),
    "bytes": np.array([0, 255], np.uint8),
    "long": np.array([-(2**63), 2**63 - 1]),
}
PLAIN = (1, -5, 2**40, -(2**63), None, True, False, 1.5, float("inf"), "é\U0001f600", [1, (2,), ()], {}, [])


def same(found: Any, expected: np.ndarray) -> None:
    assert found.dtype == expected.dtype.newbyteorder("=")
    np.testing.assert_array_equal(found, expected, strict=expected.dtype.byteorder != ">")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    write_torch_file(path, {"tensors": TENSORS, "plain": PLAIN, "ordered": OrderedDict(b=1, a=2), 3: "three"})
    found = read_torch_file(path)
    assert list(found) == ["tensors", "plain", "ordered", 3]
    assert found["plain"] == PLAIN
    assert list(found["ordered"].items()) == [("b", 1), ("a", 2)]
    for name, expected in TENSORS.items():
        same(found["tensors"][name], expected)


@pytest.mark.parametrize("dtype", STORAGES.values(), ids=str)
def test_every_storage_of_the_reader_is_written(tmp_path: Path, dtype: np.dtype) -> None:
    expected = np.arange(6).astype(dtype).reshape(2, 3)
    write_torch_file(tmp_path / "x.pt", [expected])
    same(read_torch_file(tmp_path / "x.pt")[0], expected)


def test_entries_are_aligned_and_uncompressed(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    write_torch_file(path, TENSORS)
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        for entry in archive.infolist():
            name, extra = (int.from_bytes(data[entry.header_offset + at :][:2], "little") for at in (26, 28))
            begin = entry.header_offset + 30 + name + extra
            assert begin % ALIGNMENT == 0
            assert data[begin : begin + entry.file_size] == archive.read(entry)
            assert entry.compress_type == zipfile.ZIP_STORED
        names = archive.namelist()
        assert names[0] == "archive/data.pkl"
        assert archive.read("archive/version") == b"3\n"
        assert archive.read("archive/byteorder") == b"little"


def test_the_same_value_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.pt", "another name.pt"):
        write_torch_file(tmp_path / name, {"tensors": TENSORS, "plain": PLAIN})
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "another name.pt").read_bytes()


def test_views_of_one_array_share_its_storage(tmp_path: Path) -> None:
    windows = np.zeros((1000, 101), np.float32)
    write_torch_file(tmp_path / "x.pt", (windows[:, :-1], windows[:, 1:]))
    assert windows.nbytes < (tmp_path / "x.pt").stat().st_size < 1.01 * windows.nbytes


@pytest.mark.parametrize(
    "value",
    [
        np.float32(1),
        np.zeros(2, np.complex64),
        np.zeros(2, np.uint16),
        np.array(["a"]),
        object(),
        {1.5: 2},
        {(1, 2): 3},
        2**63,
        b"bytes",
        {1, 2},
    ],
    ids=lambda value: type(value).__name__,
)
def test_anything_else_is_refused(tmp_path: Path, value: object) -> None:
    with pytest.raises(TypeError):
        write_torch_file(tmp_path / "x.pt", {"value": value})
    assert not (tmp_path / "x.pt").exists()


def test_what_holds_itself_is_refused(tmp_path: Path) -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(TypeError, match=f"over {MAX_DEPTH} deep"):
        write_torch_file(tmp_path / "x.pt", value)


numbers = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)
texts = st.text(st.characters(exclude_categories=[]), max_size=9)
leaves = st.none() | st.booleans() | numbers | texts


def containers(inside: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    listed = st.lists(inside, max_size=3)
    return listed | listed.map(tuple) | st.dictionaries(texts | st.integers(-9, 9), inside, max_size=3)


@settings(max_examples=200, deadline=None)
@given(value=st.recursive(leaves, containers, max_leaves=20))
def test_any_plain_value_comes_back(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    path = tmp_path_factory.getbasetemp() / "plain.pt"
    write_torch_file(path, value)
    found = read_torch_file(path)
    assert found == value
    assert repr(found) == repr(value)


def test_torch_reads_it(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "x.pt"
    write_torch_file(path, {"tensors": TENSORS, "plain": PLAIN, "ordered": OrderedDict(b=1, a=2)})
    for mapped in (False, True):
        found = torch.load(path, weights_only=True, mmap=mapped)
        assert found["plain"] == PLAIN
        assert type(found["ordered"]) is OrderedDict
        assert list(found["ordered"].items()) == [("b", 1), ("a", 2)]
        for name, expected in TENSORS.items():
            tensor = found["tensors"][name]
            assert tensor.shape == expected.shape
            values = tensor.float().numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()
            np.testing.assert_array_equal(values, expected.astype(values.dtype))
            assert str(tensor.dtype) in {f"torch.{expected.dtype.name}", "torch.bool"}


def test_we_read_what_torch_writes_of_it(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    write_torch_file(tmp_path / "ours.pt", TENSORS)
    torch.save(torch.load(tmp_path / "ours.pt", weights_only=True), tmp_path / "torch.pt")
    found = read_torch_file(tmp_path / "torch.pt")
    for name, expected in TENSORS.items():
        same(found[name], expected)
