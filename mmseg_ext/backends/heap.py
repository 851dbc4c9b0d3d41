"""Memory that a process keeps for its next tensor instead of giving it back to the system."""

from __future__ import annotations

import ctypes
import platform
from functools import cache

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_NEVER = 2**31 - 1


@cache
def keep_freed_memory() -> None:
    """Let glibc reuse large blocks; the process then holds its peak until it ends.

    New blocks from the system are cleared page by page, which is a large part of a forward pass on a CPU. Without glibc
    nothing changes.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, _NEVER)
