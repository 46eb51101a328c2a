"""Torch files are read as torch reads them, and a hostile one is an `ArtifactError`, whatever it tries.

Files are put together here from single pickle instructions, since a hostile file is what no pickler writes.
"""

import contextlib
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from seqjax.errors import ArtifactError
from seqjax.interop import torch_files
from seqjax.interop.torch_files import STORAGES, read_torch_file

START, STOP, MARK, CALL, BUILD = b"\x80\x02", b".", b"(", b"R", b"b"
NONE, TRUE, FALSE, DICT, LIST = b"N", b"\x88", b"\x89", b"}", b"]"


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    data = pickle.encode_long(value)
    return b"\x8a" + bytes([len(data)]) + data


def values(*parts: bytes) -> bytes:
    return MARK + b"".join(parts) + b"t"


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + values(*arguments) + CALL


def mapping(**items: bytes) -> bytes:
    return DICT + MARK + b"".join(text(key) + item for key, item in items.items()) + b"u"


def numbers(sizes: tuple[int, ...]) -> bytes:
    return values(*map(number, sizes))


def storage(key: str = "0", count: int = 6, kind: str = "FloatStorage") -> bytes:
    return values(text("storage"), name("torch", kind), text(key), text("cpu"), number(count)) + b"Q"


RECORD = call(name("collections", "OrderedDict"))
SIX = {"0": np.arange(6, dtype=np.float32).tobytes()}


def tensor(
    shape: tuple[int, ...] = (2, 3),
    strides: tuple[int, ...] = (3, 1),
    offset: int = 0,
    source: bytes | None = None,
) -> bytes:
    rebuild = name("torch._utils", "_rebuild_tensor_v2")
    return call(rebuild, source or storage(), number(offset), numbers(shape), numbers(strides), FALSE, RECORD)


def write(
    path: Path,
    body: bytes,
    storages: Mapping[str, bytes] = SIX,
    *,
    compression: int = zipfile.ZIP_STORED,
    stop: bytes = STOP,
) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("model/data.pkl", START + body + stop)
        archive.writestr("model/byteorder", "little")
        for key, data in storages.items():
            archive.writestr(f"model/data/{key}", data)
        archive.writestr("model/version", "3\n")
    return path


def read(path: Path, body: bytes, storages: Mapping[str, bytes] = SIX):
    return read_torch_file(write(path / "model.pt", body, storages))


def test_tensors_are_views_of_their_storage(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        mapping(
            plain=tensor(),
            transposed=tensor((3, 2), (1, 3)),
            offset=tensor((2,), (2,), offset=1),
            windows=tensor((5, 2), (1, 1)),
            scalar=tensor((), (), offset=4),
            empty=tensor((0, 7), (7, 1)),
            single=tensor((1,), (1 << 61,)),
        ),
    )
    expected = np.arange(6, dtype=np.float32)
    np.testing.assert_array_equal(found["plain"], expected.reshape(2, 3))
    np.testing.assert_array_equal(found["transposed"], expected.reshape(2, 3).T)
    np.testing.assert_array_equal(found["offset"], [1, 3])
    np.testing.assert_array_equal(found["windows"], [[0, 1], [1, 2], [2, 3], [3, 4], [4, 5]])
    assert found["scalar"] == 4
    assert found["scalar"].shape == ()
    assert found["empty"].shape == (0, 7)
    assert found["single"] == 0
    assert not any(array.flags.writeable for array in found.values() if array.size)


@pytest.mark.parametrize("kind", STORAGES)
def test_every_dtype(tmp_path: Path, kind: str) -> None:
    data = np.array([0, 1, 3], STORAGES[kind])
    source = storage("7", 3, kind.removeprefix("torch "))
    found = read(tmp_path, tensor((3,), (1,), source=source), {"7": data.tobytes()})
    assert found.dtype == data.dtype
    np.testing.assert_array_equal(found, data)


def test_bfloat16_is_that_of_jax(tmp_path: Path) -> None:
    data = np.array([1.5, -2.0], ml_dtypes.bfloat16)
    found = read(
        tmp_path, tensor((2,), (1,), source=storage("0", 2, "BFloat16Storage")), {"0": data.tobytes()}
    )
    assert found.astype(np.float32).tolist() == [1.5, -2.0]


def test_what_a_checkpoint_holds(tmp_path: Path) -> None:
    dtype = call(name("numpy", "dtype"), text("f4"), FALSE, TRUE)
    state = values(number(3), text("<"), NONE, NONE, NONE, number(-1), number(-1), number(0))
    encoded = call(name("_codecs", "encode"), text(struct.pack("<f", 0.75).decode("latin1")), text("latin1"))
    parameter = call(name("torch._utils", "_rebuild_parameter"), tensor(), TRUE, RECORD)
    metadata = mapping(_metadata=RECORD)
    body = mapping(
        epoch=number(3),
        model_state_dict=RECORD + text("weight") + parameter + b"s" + metadata + BUILD,
        optimizer_state_dict=mapping(
            state=DICT + number(0) + mapping(step=tensor((), ())) + b"s",
            param_groups=LIST + mapping(lr=b"G" + struct.pack(">d", 0.1), betas=values(NONE, TRUE)) + b"a",
        ),
        loss=call(name("numpy._core.multiarray", "scalar"), dtype + state + BUILD, encoded),
        size=call(name("torch", "Size"), numbers((2, 3))),
    )
    found = read(tmp_path, body)
    assert found["epoch"] == 3
    assert list(found["model_state_dict"]) == ["weight"]
    assert type(found["model_state_dict"]) is dict
    assert found["optimizer_state_dict"]["param_groups"] == [{"lr": 0.1, "betas": (None, True)}]
    assert found["optimizer_state_dict"]["state"][0]["step"] == 0
    assert found["loss"] == np.float32(0.75)
    assert found["loss"].dtype == np.float32
    assert found["size"] == (2, 3)


def test_files_of_sequifier(shared: Path) -> None:
    model = read_torch_file(shared / "golden" / "forward" / "B.pt")
    assert set(model) == {"model_state_dict", "export_with_dropout"}
    weights = model["model_state_dict"]
    assert weights["layers.0.attn.wk.weight"].shape == (8, 16)
    np.testing.assert_allclose(weights["layers.0.attn.rope.inv_freq"], [1, 0.01], rtol=1e-6)
    shards = sorted((shared / "golden" / "project" / "data").glob("*_pt-split*/*.pt"))
    assert shards
    for shard in shards:
        columns = read_torch_file(shard)[0]
        assert {values.ndim for values in columns.values()} == {2}


DOUBLED_THIRTY_TIMES = b"".join(
    b"q" + bytes([i]) + b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(30)
)
HOSTILE: dict[str, bytes] = {
    "runs a command": call(name("posix", "system"), text("touch hacked")),
    "runs os.system": call(name("os", "system"), text("touch hacked")),
    "evaluates": call(name("builtins", "eval"), text("1 + 1")),
    "evaluates in python 2": call(name("__builtin__", "eval"), text("1 + 1")),
    "fetches an attribute": call(name("builtins", "getattr"), RECORD, text("clear")),
    "names a submodule": call(name("collections OrderedDict", "fromkeys"), values()),
    "calls a dtype": call(name("torch", "FloatStorage"), number(1 << 40)),
    "calls text": call(text("os.system"), text("touch hacked")),
    "calls with a list": name("collections", "OrderedDict") + LIST + CALL,
    "calls with too few arguments": call(name("torch._utils", "_rebuild_tensor_v2"), storage()),
    "instance instruction": MARK + text("touch hacked") + b"ios\nsystem\n",
    "object instruction": MARK + name("os", "system") + text("touch hacked") + b"o",
    "new-object instruction": name("collections", "OrderedDict") + b")\x81",
    "extension registry": b"\x82\x01",
    "name from the stack": text("os") + text("system") + b"\x93",
    "protocol 4": b"\x80\x04" + NONE,
    "integer as text": b"I1\n",
    "huge tensor": tensor((1 << 40,), (1,)),
    "huge empty strides": tensor((1 << 40,), (0,)),
    "overflowing tensor": tensor((1 << 61, 1 << 61), (1, 1)),
    "large views of a small storage": values(*[tensor((1 << 16,), (0,))] * 100),
    "tensor beyond its storage": tensor((2, 3), (4, 1)),
    "offset beyond its storage": tensor((1,), (1,), offset=6),
    "negative offset": tensor((1,), (1,), offset=-1),
    "negative stride": tensor((2,), (-1,), offset=1),
    "negative size": tensor((-1,), (1,)),
    "more sizes than strides": tensor((2, 3), (1,)),
    "hundred axes": tensor((1,) * 100, (1,) * 100),
    "missing storage": tensor(source=storage("1")),
    "path as storage": tensor(source=storage("../data.pkl")),
    "storage that is too small": tensor(source=storage("0", 7)),
    "storage of unknown kind": tensor(source=storage(kind="QInt8Storage")),
    "storage of negative size": tensor(source=storage("0", -1)),
    "storage that is text": tensor(source=text("0")),
    "storage alone": storage(),
    "dtype alone": name("torch", "FloatStorage"),
    "function alone": name("collections", "OrderedDict"),
    "persistent id that is no tuple": number(0) + b"Q",
    "persistent id of another kind": values(text("file"), NONE, text("0"), NONE, number(1)) + b"Q",
    "dict that holds itself": DICT + b"q\x00" + text("me") + b"h\x00s",
    "list that holds itself": LIST + b"q\x00h\x00a",
    "record that holds itself": RECORD + b"q\x00" + text("me") + b"h\x00s",
    "a billion values": values() + DOUBLED_THIRTY_TIMES,
    "hundred thousand lists": LIST * 100_000 + b"a" * 99_999,
    "recalls what was not stored": b"h\x05",
    "stores what is not there": b"q\x05",
    "stores a mark": MARK + b"q\x05" + b"t",
    "takes from an empty stack": CALL,
    "takes a mark": MARK + number(1) + CALL,
    "closes what was not opened": b"t",
    "two values": number(1) + number(2),
    "no value": b"",
    "open mark": MARK,
    "sets items of a number": number(1) + text("a") + number(2) + b"s",
    "sets items of a tensor": tensor() + number(0) + number(2) + b"s",
    "odd number of items": DICT + MARK + text("a") + b"u",
    "key that is a list": DICT + LIST + number(1) + b"s",
    "appends to a number": number(1) + number(2) + b"a",
    "state for a plain dict": DICT + mapping(__class__=NONE) + BUILD,
    "state that is no dict": RECORD + text("state") + BUILD,
    "state for a tensor": tensor() + mapping(dtype=text("O")) + BUILD,
    "record of text": call(name("collections", "OrderedDict"), text("ab")),
    "record of numbers": call(name("collections", "OrderedDict"), LIST + number(1) + b"a"),
    "record with a list as key": call(name("collections", "OrderedDict"), LIST + values(LIST, NONE) + b"a"),
    "objects as numbers": call(name("numpy", "dtype"), text("O8"), FALSE, TRUE),
    "dtype with fields": call(name("numpy", "dtype"), text("f4,O"), FALSE, TRUE),
    "number of the wrong size": call(
        name("numpy.core.multiarray", "scalar"),
        call(name("numpy", "dtype"), text("f8"), FALSE, TRUE),
        text("abc"),
    ),
    "encodes with another codec": call(name("_codecs", "encode"), text("ab"), text("zlib")),
    "bytes alone": call(name("_codecs", "encode"), text("ab"), text("latin1")),
    "parameter of text": call(name("torch._utils", "_rebuild_parameter"), text("a"), TRUE, RECORD),
    "size of text": call(name("torch", "Size"), text("ab")),
    "text that is no text": b"X\x02\x00\x00\x00\xff\xff",
    "text longer than the file": b"X\xff\xff\xff\xff",
    "unknown instruction": b"\xff",
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_pickles_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: bytes) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArtifactError, match=r"model\.pt"):
        read(tmp_path, body)
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


WATCHED = """
import sys
from pathlib import Path

from seqjax.errors import ArtifactError
from tests.interop.test_torch_files import HOSTILE, read

ACTS = ("compile", "exec", "import", "pickle.", "os.", "subprocess.", "socket.", "ctypes.", "shutil.")
HARMLESS = ("os.listdir", "os.scandir")
seen = []
sys.addaudithook(lambda event, _: seen.append(event))
for body in [*HOSTILE.values()] * 2:
    first = not seen
    try:
        read(Path(sys.argv[1]), body)
    except ArtifactError:
        acts = [event for event in seen if event.startswith(ACTS) and event not in HARMLESS]
        assert first or not acts, (acts, body)
    else:
        raise AssertionError(body)
    seen[:] = ["begun"]
"""


def test_reading_a_hostile_file_imports_and_runs_nothing(tmp_path: Path) -> None:
    """Python reports every import, every code object that is run, and every name that pickle looks up."""
    assert len(HOSTILE) >= 30
    command = [sys.executable, "-c", WATCHED, str(tmp_path)]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2])


def test_values_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_files, "MAX_VALUES", 100)
    assert len(read(tmp_path, values(*[NONE] * 99))) == 99
    with pytest.raises(ArtifactError, match="more than 100"):
        read(tmp_path, values(*[NONE] * 100))


def test_compressed_entries_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "bomb.pt", tensor(), {"0": bytes(1 << 24)}, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1 << 16
    with pytest.raises(ArtifactError, match="compressed"):
        read_torch_file(path)


def test_overlapping_entries_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "model.pt", tensor(), {str(key): bytes(1 << 12) for key in range(9)})
    data = bytearray(path.read_bytes())
    first = data.index(b"PK\x01\x02")
    while (first := data.find(b"PK\x01\x02", first + 4)) != -1:
        for at in (first + 20, first + 24):  # compressed and plain size in the directory
            data[at : at + 4] = struct.pack("<I", 1 << 14)
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match="larger than the file"):
        read_torch_file(path)


def test_two_entries_of_one_name_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "model.pt", tensor())
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("model/data/0", bytes(24))
    with pytest.raises(ArtifactError, match="two of one name"):
        read_torch_file(path)


def test_big_endian_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", START + NONE + STOP)
        archive.writestr("model/byteorder", "big")
    with pytest.raises(ArtifactError, match="little-endian"):
        read_torch_file(path)


@pytest.mark.parametrize(
    "data",
    [b"", b"PK", b"\x80\x02}q\x00.", b"PK\x05\x06" + bytes(18)],
    ids=["empty", "cut", "pickle", "no entries"],
)
def test_other_files_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match=r"model\.pt"):
        read_torch_file(path)


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such file"):
        read_torch_file(tmp_path / "model.pt")
    with pytest.raises(ArtifactError):
        read_torch_file(tmp_path)


def checkpoint(folder: Path) -> bytes:
    body = mapping(
        state=RECORD + text("weight") + tensor() + b"s", size=call(name("torch", "Size"), numbers((2,)))
    )
    return write(folder / "whole.pt", body).read_bytes()


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    data, path = checkpoint(tmp_path), tmp_path / "model.pt"
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        with pytest.raises(ArtifactError):
            read_torch_file(path)


def test_every_truncated_pickle_is_refused(tmp_path: Path) -> None:
    body = mapping(state=RECORD + text("weight") + tensor() + b"s")
    for length in range(len(body)):
        with pytest.raises(ArtifactError):
            read_torch_file(write(tmp_path / "model.pt", body[:length], stop=b""))


@settings(max_examples=300, deadline=None)
@given(changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=6))
def test_changed_files_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, changes) -> None:
    folder = tmp_path_factory.getbasetemp()
    data, path = bytearray(checkpoint(folder)), folder / "changed.pt"
    for at, value in changes:
        data[at % len(data)] = value
    path.write_bytes(data)
    with contextlib.suppress(ArtifactError):
        read_torch_file(path)


@settings(max_examples=300, deadline=None)
@example(changes=[(254, 92)])  # An escape that Python does not know, in a string.
@given(changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=3))
def test_changed_pickles_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, changes) -> None:
    body = bytearray(mapping(state=RECORD + text("weight") + tensor() + b"s", other=values(LIST, TRUE)))
    for at, value in changes:
        body[at % len(body)] = value
    with contextlib.suppress(ArtifactError):
        read(tmp_path_factory.getbasetemp(), bytes(body))
