"""Writes torch's zip files (`.pt`) without torch, such that `torch.load(..., weights_only=True)` takes them.

The counterpart of `torch_files.py`: a zip of uncompressed entries, `archive/data.pkl` (a pickle of protocol 2
that is put together here, instruction by instruction) and `archive/data/<key>` (the bytes of each storage,
little-endian and on a multiple of 64 bytes, so that they can be mapped into memory). The same value gives the
same bytes: times are fixed, and the root folder has the same name in every file.

Arrays that are views of one array share its storage, as torch's tensors do; of a view, all that it is a view
of is stored.
"""

import struct
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from seqjax.interop.torch_files import MAX_DEPTH, STORAGES
from seqjax.interop.unpickle import Value

ROOT = "archive"
ALIGNMENT = 64
_EARLIEST = (1980, 1, 1, 0, 0, 0)
_HEADER_BYTES = 30
_ZIP64_BYTES = 20
_CHUNK = 1 << 24
_PADDING_TAG = 0x4246
"""Two letters that mark the filling of a zip header; readers skip what they do not know."""

_TYPES = {dtype: name for name, dtype in STORAGES.items()}

Array = Shaped[np.ndarray, "..."]


def write_torch_file(path: Path, value: Value) -> None:
    """Writes `value` so that torch, and `read_torch_file`, give it back.

    Args:
      path: The file to create.
      value: Nested dicts (keys str or int), ordered dicts, tuples and lists of strings, numbers, booleans,
        None, and numpy arrays of booleans, integers (uint8, int8 to int64) or floats (16 to 64 bits, or
        `ml_dtypes.bfloat16`), which become tensors.

    Raises:
      TypeError: The value holds anything else.
    """
    pickler = _Pickler()
    pickler.add(value)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        _add(archive, "data.pkl", [bytes(pickler.code) + b"."])
        _add(archive, "byteorder", [b"little"])
        for key, storage in enumerate(pickler.storages):
            _add(archive, f"data/{key}", _chunks(storage))
        _add(archive, "version", [b"3\n"])


class _Pickler:
    """The instructions that make a value, and the storages that they refer to."""

    def __init__(self) -> None:
        self.code = bytearray(b"\x80\x02")
        self.storages: list[Array] = []
        self._keys: dict[int, int] = {}

    def add(self, value: Value, depth: int = 0) -> None:
        """Appends the instructions that make `value`."""
        if depth > MAX_DEPTH:
            raise TypeError(f"values are nested over {MAX_DEPTH} deep.")
        match value:
            case None:
                self.code += b"N"
            case bool():
                self.code += b"\x88" if value else b"\x89"
            case np.ndarray():
                self._add_tensor(value)
            case dict():
                self.code += _EMPTY_RECORD if type(value) is OrderedDict else b"}"
                self._add_items(value, depth)
            case list() if type(value) is list:
                self.code += b"]("
                self._add_all(value, depth)
                self.code += b"e"
            case tuple() if type(value) is tuple:
                self.code += b"("
                self._add_all(value, depth)
                self.code += b"t"
            case _:
                self.code += _literal(value)

    def _add_all(self, values: Iterable[Value], depth: int) -> None:
        for value in values:
            self.add(value, depth + 1)

    def _add_items(self, values: Mapping[Value, Value], depth: int) -> None:
        self.code += b"("
        for key, value in values.items():
            if type(key) not in {str, int}:
                raise TypeError(f"a key must be str or int, not {type(key).__name__}.")
            self.code += _literal(key)
            self.add(value, depth + 1)
        self.code += b"u"

    def _add_tensor(self, array: Array) -> None:
        storage, offset, strides = _storage_of(array)
        key = self._keys.setdefault(id(storage), len(self.storages))
        if key == len(self.storages):
            self.storages.append(storage)
        identifier = _literal("storage") + _name(_TYPES[storage.dtype]) + _literal(str(key)) + _literal("cpu")
        self.code += _name("torch._utils _rebuild_tensor_v2") + b"(("
        self.code += identifier + _literal(storage.size) + b"tQ"
        self.code += _literal(offset) + _integers(array.shape) + _integers(strides)
        self.code += b"\x89" + _EMPTY_RECORD + b"tR"


def _storage_of(array: Array) -> tuple[Array, int, tuple[int, ...]]:
    """The array whose elements `array` shows, and the first of them and the strides, in elements."""
    dtype = array.dtype.newbyteorder("<") if array.dtype.byteorder == ">" else array.dtype
    if dtype not in _TYPES:
        raise TypeError(f"torch files have no arrays of {array.dtype}.")
    owner = array
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    steps = [stride // dtype.itemsize for stride in array.strides]
    exact = all(step * dtype.itemsize == stride for step, stride in zip(steps, array.strides, strict=True))
    if (
        owner.dtype == dtype
        and owner.flags.c_contiguous
        and array.size
        and exact
        and min(steps, default=0) >= 0
    ):
        first = array.__array_interface__["data"][0] - owner.__array_interface__["data"][0]
        return owner, first // dtype.itemsize, tuple(steps)
    # Not np.ascontiguousarray, which makes a scalar an array of one element.
    copy = np.array(array, dtype, order="C")
    return copy, 0, tuple(stride // dtype.itemsize for stride in copy.strides)


def _literal(value: Value) -> bytes:
    """The instruction that makes a string or a number."""
    if type(value) is str:
        data = value.encode("utf-8", "surrogatepass")
        return b"X" + struct.pack("<I", len(data)) + data
    if type(value) is float:
        return b"G" + struct.pack(">d", value)
    if type(value) is int and -(1 << 31) <= value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    if type(value) is int and -(1 << 63) <= value < 1 << 63:
        return b"\x8a\x08" + struct.pack("<q", value)
    raise TypeError(f"torch files cannot hold {value!r:.80} ({type(value).__name__}).")


def _integers(values: Iterable[int]) -> bytes:
    return b"(" + b"".join(map(_literal, values)) + b"t"


def _name(name: str) -> bytes:
    module, attribute = name.split(" ")
    return f"c{module}\n{attribute}\n".encode("ascii")


_EMPTY_RECORD = _name("collections OrderedDict") + b")R"


def _chunks(storage: Array) -> Iterable[bytes]:
    raw = storage.reshape(-1).view(np.uint8)
    return (raw[first : first + _CHUNK].tobytes() for first in range(0, raw.size, _CHUNK))


def _add(archive: zipfile.ZipFile, name: str, parts: Iterable[bytes]) -> None:
    """Adds an entry whose content begins on a multiple of `ALIGNMENT`."""
    info = zipfile.ZipInfo(f"{ROOT}/{name}", _EARLIEST)
    info.create_system = 0
    begin = archive.start_dir + _HEADER_BYTES + len(info.filename) + _ZIP64_BYTES + 4
    filling = -begin % ALIGNMENT
    info.extra = struct.pack("<HH", _PADDING_TAG, filling) + bytes(filling)
    # A header of fixed size, since the size of what follows decides it otherwise.
    with archive.open(info, "w", force_zip64=True) as entry:
        for part in parts:
            entry.write(part)
