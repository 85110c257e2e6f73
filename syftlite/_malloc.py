"""Keeping freed memory warm: touching fresh pages takes longer than what is done to them.

A 64 MB fill takes 5.5 ms in memory that the process still has, 27 ms in memory that the kernel clears first. So large blocks come from the
heap, and the heap keeps what is freed: all of it, and for all threads, in a process whose whole purpose is to compute; some of it in a
user's own. Only glibc has these settings; elsewhere nothing happens.
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -2, -3, -8
_OWN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
"""By these a user has said what to keep."""


@cache
def keep_warm() -> bool:
    """Have freed memory kept, from now on, in this process. Whether the C library could do that."""
    return _set((_ARENA_MAX, 1), (_MMAP_THRESHOLD, 1 << 30), (_TRIM_THRESHOLD, (1 << 31) - 1), (_TOP_PAD, 64 << 20))


@cache
def keep_some() -> bool:
    """Have up to 64 MB of freed memory kept, in blocks of up to 32: what glibc comes to by itself once a block of 32 MB was freed. Nothing
    where more is kept, or where the user has said what is. Whether it was done."""
    if keep_warm.cache_info().currsize or any(name in os.environ for name in _OWN):
        return False
    return _set((_MMAP_THRESHOLD, 32 << 20), (_TRIM_THRESHOLD, 64 << 20))


def _set(*settings: tuple[int, int]) -> bool:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform.startswith("linux") else None
    return mallopt is not None and all([mallopt(setting, value) for setting, value in settings])  # noqa: C419  every one is tried
