"""Reads and writes torch's zip files (`.pt`) without torch, and without running anything that a file says.

A torch file is a zip of uncompressed entries: `<root>/data.pkl`, a pickle of the object, and
`<root>/data/<key>`, the raw little-endian bytes of each storage. `unpickle.py` interprets the pickle; here
is the zip around it, and what the allowed names mean.

On reading, sizes are checked before memory is taken: entries are stored uncompressed and fit into the file
together, a tensor's strides stay inside its storage, and what comes out is counted, so that a small file
cannot become a large object. Whatever does not fit is an `ArtifactError`.

What is written, `torch.load(..., weights_only=True)` takes: a pickle of protocol 2 that is put together here,
instruction by instruction, and storages on multiples of 64 bytes, so that they can be mapped into memory. The
same value gives the same bytes: times are fixed, and the root folder has the same name in every file. Arrays
that are views of one array share its storage, as torch's tensors do; of a view, all that it is a view of is
stored.
"""

import math
import re
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np
from jaxtyping import Shaped

from seqjax.errors import ArtifactError
from seqjax.interop.unpickle import Function, PickleError, Record, Stateful, Value, unpickle

MAX_ENTRIES = 1_000_000
MAX_PICKLE_BYTES = 1 << 28
MAX_VALUES = 5_000_000
MAX_DEPTH = 32
MAX_EXPANSION = 64
"""Multiple of the file's size that its tensors may take: views may overlap, as windows of one array do."""

STORAGES = {
    "torch BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "torch BoolStorage": np.dtype(np.bool_),
    "torch ByteStorage": np.dtype(np.uint8),
    "torch CharStorage": np.dtype(np.int8),
    "torch DoubleStorage": np.dtype(np.float64),
    "torch FloatStorage": np.dtype(np.float32),
    "torch HalfStorage": np.dtype(np.float16),
    "torch IntStorage": np.dtype(np.int32),
    "torch LongStorage": np.dtype(np.int64),
    "torch ShortStorage": np.dtype(np.int16),
}


def read_torch_file(path: Path) -> Value:
    """The content of a file written by `torch.save`.

    Returns:
      The object, usually a dict: dicts, lists, tuples, strings, numbers, and a read-only numpy array for
      each tensor (bfloat16 as `ml_dtypes.bfloat16`). Ordered dicts become dicts, and dict keys are strings
      or integers.

    Raises:
      ArtifactError: If the file is missing, damaged, or holds anything but plain values and tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            reader = _Reader(archive, path.stat().st_size)
            return reader.plain(unpickle(reader.pickle(), names=reader.names(), persistent=reader.storage))
    except PickleError as error:
        raise ArtifactError(f"{path}: {error}. Only files of tensors and plain values can be read.") from None
    except FileNotFoundError:
        raise ArtifactError(f"{path}: there is no such file.") from None
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError, struct.error) as error:
        raise ArtifactError(
            f"{path}: is no torch file, or a damaged one ({error}). Files of torch before version 1.6 "
            "have another format: load and save them with a newer torch."
        ) from None


class _Storage(NamedTuple):
    """The elements that tensors are views of."""

    values: np.ndarray


class _Dtype(Stateful):
    """A numpy dtype; its state says that it is little-endian and has no fields."""

    def __init__(self, dtype: np.dtype) -> None:
        self.dtype = dtype

    def set_state(self, state: Value) -> None:
        """Checks `state`, as numpy writes it: (version, byte order, subdtype, names, fields, ...)."""
        plain = type(state) is tuple and len(state) in {8, 9}
        if not plain or state[1] not in {"<", "|", "="} or any(part is not None for part in state[2:5]):
            raise PickleError("the pickle has a numpy dtype that is not a plain little-endian one")


class _Reader:
    """The entries of one file, and the meaning of the names in its pickle."""

    def __init__(self, archive: zipfile.ZipFile, file_bytes: int) -> None:
        self._archive = archive
        self._budget = MAX_EXPANSION * file_bytes
        self._values = 0
        self._storages: dict[str, bytes] = {}
        self._entries = _checked_entries(archive, file_bytes)
        pickles = [name for name in self._entries if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise PickleError(f"the archive has {len(pickles)} entries data.pkl instead of one")
        self._root = pickles[0].removesuffix("data.pkl")
        if (
            self._entries.get(f"{self._root}byteorder")
            and archive.read(f"{self._root}byteorder") != b"little"
        ):
            raise PickleError("the archive is not little-endian")

    def pickle(self) -> bytes:
        """The pickle of the object."""
        name = f"{self._root}data.pkl"
        if self._entries[name] > MAX_PICKLE_BYTES:
            raise PickleError(f"data.pkl has {self._entries[name]} bytes, more than {MAX_PICKLE_BYTES}")
        return self._archive.read(name)

    def names(self) -> dict[str, Value]:
        """The meaning of each allowed name in the pickle."""
        return {
            **STORAGES,
            "collections OrderedDict": Function(_record),
            "torch Size": Function(_size),
            "torch._utils _rebuild_tensor_v2": Function(self._tensor),
            "torch._utils _rebuild_parameter": Function(_parameter),
            "numpy dtype": Function(_dtype),
            "numpy.core.multiarray scalar": Function(_scalar),
            "numpy._core.multiarray scalar": Function(_scalar),
            "_codecs encode": Function(_encode),
        }

    def storage(self, identifier: Value) -> _Storage:
        """The storage that a persistent id ("storage", type, key, device, number of elements) stands for."""
        if type(identifier) is not tuple or len(identifier) != 5 or identifier[0] != "storage":
            raise PickleError("the pickle refers to something outside that is no storage")
        _, dtype, key, _, count = identifier
        if not isinstance(dtype, np.dtype) or type(key) is not str or not _is_natural(count):
            raise PickleError("the pickle describes a storage wrongly")
        name = f"{self._root}data/{key}"
        if name not in self._entries:
            raise PickleError(f"the archive has no entry data/{key}, which a tensor needs")
        if count * dtype.itemsize > self._entries[name]:
            raise PickleError(f"data/{key} has {self._entries[name]} bytes, too few for {count} of {dtype}")
        if key not in self._storages:
            self._storages[key] = self._archive.read(name)
        return _Storage(np.frombuffer(self._storages[key], dtype, count))

    def _tensor(self, storage: Value, offset: Value, shape: Value, strides: Value, *_: Value) -> np.ndarray:
        tuples = type(shape) is tuple and type(strides) is tuple and len(shape) == len(strides) <= MAX_DEPTH
        if not tuples or not all(map(_is_natural, (offset, *shape, *strides))):
            raise PickleError("the pickle describes a tensor wrongly")
        if not isinstance(storage, _Storage):
            raise PickleError("the pickle makes a tensor of something that is no storage")
        values, dtype = storage.values, storage.values.dtype
        self._budget -= math.prod(shape) * dtype.itemsize
        if self._budget < 0:
            raise PickleError(f"the tensors take more than {MAX_EXPANSION} times the size of the file")
        if 0 in shape:
            return np.empty(shape, dtype)
        end = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        if end >= values.size:
            raise PickleError(f"a tensor reaches to element {end} of a storage of {values.size}")
        # A stride over a single element leads nowhere, and may be too large for numpy.
        steps = [step * dtype.itemsize if size > 1 else 0 for size, step in zip(shape, strides, strict=True)]
        view = np.lib.stride_tricks.as_strided(values[offset:], shape, steps, writeable=False)
        array = np.ascontiguousarray(view).reshape(shape)
        array.flags.writeable = False
        return array

    def plain(self, value: Value, depth: int = 0) -> Value:
        """Returns `value` with containers of its own, none inside itself, and nothing but plain values."""
        self._values += 1
        if depth > MAX_DEPTH or self._values > MAX_VALUES:
            raise PickleError(f"the values are nested over {MAX_DEPTH} deep, or more than {MAX_VALUES}")
        if isinstance(value, dict):
            return {key: self.plain(item, depth + 1) for key, item in value.items()}
        if type(value) in {list, tuple}:
            return type(value)(self.plain(item, depth + 1) for item in value)
        if type(value) in {type(None), bool, int, float, str} or isinstance(value, np.ndarray | np.generic):
            return value
        raise PickleError(f"the pickle holds a bare {type(value).__name__.lstrip('_').lower()}")


def _checked_entries(archive: zipfile.ZipFile, file_bytes: int) -> dict[str, int]:
    """The size of each entry by its name."""
    entries = archive.infolist()
    sizes = {entry.filename: entry.file_size for entry in entries}
    if len(entries) > MAX_ENTRIES or len(sizes) != len(entries):
        raise PickleError(f"the archive has more than {MAX_ENTRIES} entries, or two of one name")
    for entry in entries:
        stored = entry.compress_type == zipfile.ZIP_STORED and entry.compress_size == entry.file_size
        if not stored or entry.flag_bits & 1:
            raise PickleError(f"the entry {entry.filename} is compressed or encrypted; torch writes neither")
    if sum(sizes.values()) > file_bytes:
        raise PickleError("the entries of the archive are larger than the file")
    return sizes


def _is_natural(value: Value) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


def _record(items: Value = ()) -> Record:
    sequence = type(items) in {list, tuple}
    pairs = sequence and all(type(item) in {list, tuple} and len(item) == 2 for item in items)
    if not pairs or any(type(key) not in {str, int} for key, _ in items):
        raise PickleError("the pickle makes a mapping of something that is no list of pairs")
    return Record(items)


def _size(numbers: Value) -> tuple[int, ...]:
    if type(numbers) not in {list, tuple} or not all(map(_is_natural, numbers)):
        raise PickleError("the pickle has a torch.Size that is no list of sizes")
    return tuple(numbers)


def _parameter(data: Value, *_: Value) -> np.ndarray:
    if not isinstance(data, np.ndarray):
        raise PickleError("the pickle makes a parameter of something that is no tensor")
    return data


def _dtype(code: Value, *_: Value) -> _Dtype:
    if type(code) is not str or not re.fullmatch(r"b1|[iu][1248]|f[248]", code):
        raise PickleError(f"the pickle has the numpy dtype {code!r}, which is not allowed")
    return _Dtype(np.dtype(code))


def _scalar(dtype: Value, data: Value) -> np.generic:
    if not isinstance(dtype, _Dtype) or type(data) is not bytes or len(data) != dtype.dtype.itemsize:
        raise PickleError("the pickle has a numpy number of the wrong size")
    return np.frombuffer(data, dtype.dtype)[0]


def _encode(text: Value, encoding: Value) -> bytes:
    if type(text) is not str or encoding != "latin1":
        raise PickleError("the pickle encodes something other than text as latin1")
    return text.encode("latin1")


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
    whole = owner.dtype == dtype and owner.flags.c_contiguous and array.size
    if whole and exact and min(steps, default=0) >= 0:
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
