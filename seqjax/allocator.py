"""Telling glibc to keep the memory that training frees, because it asks for the same amount again every step.

XLA on a CPU allocates and frees its scratch memory (100 MB to 1 GB) in every step. By default glibc hands
such blocks back to the kernel at once, and a third of a small model's step goes into page faults. The options
must be set before numpy or jax allocate; memory once taken is then kept until the process ends.
"""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8


def keep_freed_memory() -> bool:
    """Makes this process keep freed memory, where its C library is glibc; returns whether it does."""
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return False
    options = {_M_ARENA_MAX: 1, _M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1, _M_TOP_PAD: 256 << 20}
    accepted = [libc.mallopt(option, value) == 1 for option, value in options.items()]
    return all(accepted)
