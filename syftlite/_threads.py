"""Daemon threads: none keeps a program from ending, and each is told of the end, and waited for, before the interpreter goes.

Torch gives the interpreter's lock away, even to free a tensor, and aborts the process ("terminate called without an active exception") if
there is no interpreter any more when it wants the lock back. So no thread may be inside torch then.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import threading
import time
from collections.abc import Callable, Sequence

ENDED = "its program ended"
"""What others are told."""
GRACE, FAREWELL = 0.5, 3.0
"""Seconds that the interpreter's end waits for all of them: until they are interrupted, and then. Who hangs longer is hardly in torch."""


class Daemon(threading.Thread):
    """A thread that does ``work`` from now on, until nothing is left or ``end``, which the main thread calls, has it stop soon."""

    def __init__(self, work: Callable[[], object], name: str, end: Callable[[], object]) -> None:
        super().__init__(target=work, name=name, daemon=True)
        self.end = end
        self.start()

    def interrupt(self) -> None:
        """Have it raise `SystemExit` at its next step in Python, whatever it does: a client's training may take minutes more."""
        if self.ident is not None and self.is_alive():
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.ident), ctypes.py_object(SystemExit))


@atexit.register
def farewell() -> None:
    """End all of them. In a fork's child there are none."""
    threads = [thread for thread in threading.enumerate() if isinstance(thread, Daemon)]
    for thread in threads:
        with contextlib.suppress(Exception):
            thread.end()
    _join(threads, GRACE)
    for thread in threads:
        thread.interrupt()
    _join(threads, FAREWELL)


def _join(threads: Sequence[threading.Thread], seconds: float) -> None:
    until = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
