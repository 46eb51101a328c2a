"""Opening an ONNX file in onnxruntime, on the device that a configuration names, and what else it says."""

import os
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING

from seqjax.errors import ArtifactError, ConfigError, Problem

if TYPE_CHECKING:
    import onnxruntime

DEVICES = ("auto", "cpu", "cuda")
_ERRORS_ONLY = 3
_CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"


def open_session(
    path: Path, *, device: str = "cpu", dropout_seed: int | None = None
) -> "onnxruntime.InferenceSession":
    """Loads an ONNX file.

    Args:
      path: The file.
      device: auto, cpu, cuda or cuda:N.
      dropout_seed: Seed of what the graph draws at random; None where Dropout nodes, which drop then, are to
        be removed.

    Raises:
      ArtifactError: The file is missing or is not an ONNX model that onnxruntime runs.
      ConfigError: The device is not there.
    """
    import onnxruntime

    chosen = providers(device, onnxruntime.get_available_providers())
    if not path.is_file():
        raise ArtifactError(f"{path}: there is no such file.")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    kept = []
    if dropout_seed is not None:
        onnxruntime.set_seed(dropout_seed)
        kept = ["EliminateDropout"]
    try:
        return onnxruntime.InferenceSession(path, options, providers=chosen, disabled_optimizers=kept)
    except Exception as error:  # onnxruntime has no common class for a file that it cannot load.
        reason = str(error).strip().splitlines()[0]
        raise ArtifactError(f"{path}: onnxruntime cannot load it as a model ({reason}).") from error


# Wire types of protocol buffers, and the fields of a ModelProto and its StringStringEntryProtos.
_VARINT, _EIGHT_BYTES, _DELIMITED, _FOUR_BYTES = 0, 1, 2, 5
_METADATA, _KEY, _VALUE = 14, 1, 2
_TOO_LARGE = 1 << 31


def stored_metadata(path: Path) -> dict[str, str]:
    """The metadata entries of an ONNX file, which is not loaded: its other parts are skipped.

    Raises:
      ArtifactError: The file is not an ONNX model.
    """
    entries: dict[str, str] = {}
    with path.open("rb") as file:
        for text in _delimited(file, path, _METADATA):
            entry = {}
            for field in (_KEY, _VALUE):
                entry[field] = next(_delimited(BytesIO(text), path, field), b"")
            entries[entry[_KEY].decode()] = entry[_VALUE].decode()
    return entries


def _delimited(file: IO[bytes], path: Path, wanted: int) -> Iterator[bytes]:
    """The contents of a field of bytes, each time that it occurs in a message."""
    while (tag := _varint(file)) is not None:
        field, wire = tag >> 3, tag & 7
        if wire == _DELIMITED:
            size = _varint(file) or 0
            if size >= _TOO_LARGE:
                raise ArtifactError(f"{path}: it is not an ONNX model.")
            if field == wanted:
                yield file.read(size)
            else:
                file.seek(size, os.SEEK_CUR)
        elif wire == _VARINT:
            _varint(file)
        elif wire in (_FOUR_BYTES, _EIGHT_BYTES):
            file.seek(4 if wire == _FOUR_BYTES else 8, os.SEEK_CUR)
        else:
            raise ArtifactError(f"{path}: it is not an ONNX model.")


def _varint(file: IO[bytes]) -> int | None:
    """The next number of seven bits a byte, the lowest first; None at the end."""
    value = shift = 0
    while byte := file.read(1):
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
        shift += 7
    return None


def providers(device: str, available: list[str]) -> list[str | tuple[str, dict[str, int]]]:
    """The onnxruntime providers of a device, the preferred first.

    Args:
      device: auto, cpu, cuda or cuda:N.
      available: The providers that this onnxruntime was built with.
    """
    kind, _, number = device.partition(":")
    if kind not in DEVICES or (number and (kind != "cuda" or not number.isdecimal())):
        raise _device_error(f"must be auto, cpu, cuda or cuda:N (found {device!r}); use cpu for any other.")
    if kind == "cuda" and _CUDA not in available:
        raise _device_error(
            f"onnxruntime has no CUDA here (found {device!r}, available: {', '.join(available)}). "
            "Install onnxruntime-gpu in place of onnxruntime, or set device: cpu."
        )
    if kind == "cpu" or _CUDA not in available:
        return [_CPU]
    return [(_CUDA, {"device_id": int(number or 0)}), _CPU]


def _device_error(message: str) -> ConfigError:
    return ConfigError("The configuration of inference", [Problem("device", message)])
