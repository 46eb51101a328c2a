"""The devices of onnxruntime."""

import pytest

from seqjax.errors import ConfigError
from seqjax.interop.onnx_session import providers

CUDA = ["CUDAExecutionProvider", "CPUExecutionProvider"]
CPU = ["CPUExecutionProvider"]


@pytest.mark.parametrize(
    ("device", "available", "expected"),
    [
        ("cpu", CUDA, CPU),
        ("auto", CPU, CPU),
        ("auto", CUDA, [("CUDAExecutionProvider", {"device_id": 0}), *CPU]),
        ("cuda:1", CUDA, [("CUDAExecutionProvider", {"device_id": 1}), *CPU]),
    ],
)
def test_devices(device: str, available: list[str], expected: list) -> None:
    assert providers(device, available) == expected


@pytest.mark.parametrize("device", ["mps", "cpu:1", "cuda:x", "gpu"])
def test_unknown_devices_are_refused(device: str) -> None:
    with pytest.raises(ConfigError, match=f"device: must be auto, cpu, cuda or cuda:N .found '{device}'."):
        providers(device, CUDA)


def test_cuda_must_be_there() -> None:
    with pytest.raises(ConfigError, match=r"device: onnxruntime has no CUDA here .*set device: cpu"):
        providers("cuda", CPU)
