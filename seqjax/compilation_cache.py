"""Telling jax to keep what it compiles on disk, because compiling takes longer than training a small model.

The folder lies in the user's cache directory, by kind of machine, since what is compiled for one processor
may not run on another and home directories are shared. Jax reads the variables when it is imported.
"""

import hashlib
import os
import platform
import tempfile
from pathlib import Path

_VARIABLE = "JAX_COMPILATION_CACHE_DIR"
_LEAST = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
_LEAST_SECONDS = 0.1  # By default a second: most programs of inference take less, and are several.


def keep_compilations() -> Path | None:
    """Names the folder of compiled programs to jax, unless the user did or none can be written.

    Returns:
      The folder that was named; None if jax is left as it was.
    """
    if _VARIABLE in os.environ:
        return None
    try:
        folder = _user_cache() / "seqjax" / "compiled" / _machine()
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, RuntimeError):  # Without a home there is no place; a run does not need one.
        return None
    os.environ[_VARIABLE] = str(folder)
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
