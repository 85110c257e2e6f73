"""Daemon threads: none keeps a program from ending, and each is told of the end, and waited for, before the interpreter goes.

Torch gives the interpreter's lock away, even to free a tensor, and aborts the process ("terminate called without an active exception") if
there is no interpreter any more when it wants the lock back. So no thread may be inside torch then.
"""

from __future__ import annotations

import atexit
import contextlib
import threading
import time
from collections.abc import Callable

ENDED = "its program ended"
"""What others are told."""
FAREWELL = 3.0
"""Seconds that the interpreter's end waits for all of them. Whoever hangs for longer is hardly inside torch."""


class Daemon(threading.Thread):
    """A thread that does ``work`` from now on, until nothing is left or ``end``, which the main thread calls, has it stop soon."""

    def __init__(self, work: Callable[[], object], name: str, end: Callable[[], object]) -> None:
        super().__init__(target=work, name=name, daemon=True)
        self.end = end
        self.start()


@atexit.register
def farewell() -> None:
    """End all of them. In a fork's child there are none."""
    threads = [thread for thread in threading.enumerate() if isinstance(thread, Daemon)]
    for thread in threads:
        with contextlib.suppress(Exception):
            thread.end()
    until = time.monotonic() + FAREWELL
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
