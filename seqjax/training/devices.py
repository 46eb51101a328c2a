"""The device that a run computes on: what XLA is told about it, and how much of its memory is taken."""

import logging
import os
import sys
from collections.abc import Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, runtime_checkable

import jax

from seqjax.errors import TrainingError

logger = logging.getLogger(__name__)

_PLATFORMS = {"cpu": "cpu", "cuda": "cuda", "mps": "METAL"}
_REMEDIES = {
    "cuda": "install the CUDA build with pip install 'seqjax[cuda12]' on a machine with an Nvidia GPU",
    "mps": "install a jax plugin for Metal",
    "cpu": "unset JAX_PLATFORMS",
}
_DEVICE_SHARE = 0.25
_STATUS = Path("/proc/self/statm")


@runtime_checkable
class Device(Protocol):
    """The interface of a `jax.Device`, which has no type of its own."""

    @property
    def platform(self) -> str:
        """cpu, gpu, ..."""
        ...

    def memory_stats(self) -> Mapping[str, int] | None:
        """Bytes in use and bytes there are, where the device says so."""
        ...


def find_device(name: str) -> Device:
    """The device that `training_spec.device` names.

    Args:
      name: auto (an accelerator where there is one), cpu, cuda or mps, with the device's number after a
      colon.

    Raises:
      TrainingError: There is no such device.
    """
    kind, _, number = name.partition(":")
    try:
        found = jax.local_devices(backend=None if kind == "auto" else _PLATFORMS[kind])
        return found[int(number or 0)]
    except (RuntimeError, IndexError, ValueError):
        there = ", ".join(str(device) for device in jax.local_devices())
        raise TrainingError(
            f"training_spec.device: there is no {name} here; jax sees {there}. "
            f"Set device: auto or cpu, or {_REMEDIES.get(kind, 'choose one of these')}."
        ) from None


@lru_cache
def compiler_options(device: Device, *, deterministic: bool, has_dropout: bool) -> dict[str, bool | int]:
    """XLA's options for compiled training loops.

    On a CPU, LLVM's first level of optimization takes a third less time to compile than its third one, and
    steps are as fast: what is slow in them are products, which are compiled already.

    Args:
      device: Where they run.
      deterministic: `enforce_determinism`; a CPU is deterministic anyway.
      has_dropout: Whether training draws random numbers. Without, XLA's older code generator for a CPU, which
        jax has until 0.10, takes a quarter less time to compile a small model, whose steps then take a tenth
        less on two cores; larger models' take as long. With, its steps take a tenth more.
    """
    if device.platform == "cpu":
        version = tuple(int(part) for part in jax.__version__.split(".")[:2])
        wanted: dict[str, bool | int] = {"xla_backend_optimization_level": 1}
        if version >= (0, 11):
            wanted["xla_cpu_experimental_onednn_custom_call"] = True
        elif not has_dropout:
            wanted["xla_cpu_use_fusion_emitters"] = False
    else:
        wanted = {"xla_gpu_deterministic_ops": True} if deterministic else {}
    return wanted if not wanted or _accepted(wanted, device) else {}


def _accepted(options: dict[str, bool | int], device: Device) -> bool:
    """Tells whether this version of XLA knows the options; it refuses unknown ones when it compiles."""
    try:
        with jax.default_device(device):
            jax.jit(lambda x: x + 1, compiler_options=options)(0.0).block_until_ready()
    except jax.errors.JaxRuntimeError as error:
        logger.warning(
            "[INFO] XLA does not know %s; training goes on without. (%s)", ", ".join(options), error
        )
        return False
    return True


def memory_limit(device: Device, *, load_in_full: bool, max_ram_gb: float) -> float | None:
    """The number of bytes of data that may live on a device; None is no limit.

    Args:
      device: The device; an accelerator gives a quarter of its memory.
      load_in_full: `load_full_data_to_ram`.
      max_ram_gb: The limit where it is false.
    """
    limits = [] if load_in_full else [max_ram_gb * 1e9]
    if device.platform != "cpu":
        total = (device.memory_stats() or {}).get("bytes_limit")
        limits += [_DEVICE_SHARE * total] if total else []
    return min(limits, default=None)


def memory_in_use(platform: str) -> int:
    """Bytes in use: on the fullest of this process's devices, or by the process where they do not say.

    Args:
      platform: Of the devices: cpu, gpu, ...
    """
    stats = [device.memory_stats() or {} for device in jax.local_devices(backend=platform)]
    return max((found.get("bytes_in_use", 0) for found in stats), default=0) or _process_memory()


def is_out_of_memory(error: Exception) -> bool:
    """Tells whether an error says that memory is missing, the device's or the process's."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def _process_memory() -> int:
    """Resident bytes of this process; where the system does not tell, the most there have been, or 0."""
    if _STATUS.exists():
        return int(_STATUS.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    if find_spec("resource") is None:
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
