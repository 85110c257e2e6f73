"""Keeping freed memory warm, in a process whose whole purpose is to compute: touching fresh pages takes longer than what is done to them.

A 64 MB fill takes 5.5 ms in memory that the process still has, 27 ms in memory that the kernel clears first. So large blocks come from the
heap, whatever their size, the heap keeps what is freed, and all threads share it. Only glibc has these settings; elsewhere nothing happens.
"""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -2, -3, -8


def keep_warm() -> bool:
    """Have freed memory kept, from now on, in this process. Whether the C library could do that."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_ARENA_MAX, 1), (_MMAP_THRESHOLD, 1 << 30), (_TRIM_THRESHOLD, (1 << 31) - 1), (_TOP_PAD, 64 << 20))
    return all([mallopt(setting, value) for setting, value in settings])  # noqa: C419  every one is tried
