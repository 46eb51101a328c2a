"""How much memory a run takes, and what it looks like when there is too little."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import jax

_STATUS = Path("/proc/self/statm")


def memory_in_use(platform: str) -> int:
    """Bytes in use: on the fullest of this process's devices, or by the process where they do not say.

    Args:
      platform: Of the devices: cpu, gpu, ...
    """
    stats = [device.memory_stats() or {} for device in jax.local_devices(backend=platform)]
    return max((found.get("bytes_in_use", 0) for found in stats), default=0) or _process_memory()


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory is missing, the device's or the process's."""
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
