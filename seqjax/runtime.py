"""The machine, prepared before jax starts: cores, memory that is kept, compilations that are kept on disk.

XLA on a CPU allocates and frees its scratch memory (100 MB to 1 GB) in every step. By default glibc hands
such blocks back to the kernel at once, and a third of a small model's step goes into page faults. The options
must be set before numpy or jax allocate; memory once taken is then kept until the process ends.

Compiling takes longer than training a small model, so jax keeps what it compiles on disk: in the user's cache
directory, by kind of machine, since what is compiled for one processor may not run on another and home
directories are shared. Jax reads the variables when it is imported.
"""

import ctypes
import hashlib
import os
import platform
import sys
import tempfile
from pathlib import Path

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8

_CACHE = "JAX_COMPILATION_CACHE_DIR"
_LEAST = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
_LEAST_SECONDS = 0.1  # By default a second: most programs of inference take less, and are several.


def available_cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def keep_freed_memory() -> bool:
    """Makes this process keep freed memory, where its C library is glibc; returns True if it does."""
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return False
    options = {_M_ARENA_MAX: 1, _M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1, _M_TOP_PAD: 256 << 20}
    accepted = [libc.mallopt(option, value) == 1 for option, value in options.items()]
    return all(accepted)


def keep_compilations() -> Path | None:
    """Names the folder of compiled programs to jax, unless the user did or none can be written.

    Returns:
      The folder that was named; None if jax is left as it was.
    """
    if _CACHE in os.environ:
        return None
    try:
        folder = _user_cache() / "seqjax" / "compiled" / _machine()
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, RuntimeError):  # Without a home there is no place; a run does not need one.
        return None
    os.environ[_CACHE] = str(folder)
    os.environ.setdefault(_LEAST, str(_LEAST_SECONDS))
    return folder


def _user_cache() -> Path:
    given = os.environ.get("XDG_CACHE_HOME", "")
    return Path(given) if Path(given).is_absolute() else Path("~/.cache").expanduser()


def _machine() -> str:
    """A short name of the processor's abilities."""
    parts = [platform.system(), platform.machine(), platform.processor()]
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        parts += sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))})
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
