"""Opening an ONNX file in onnxruntime, on the device that a configuration names."""

from pathlib import Path
from typing import TYPE_CHECKING

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
