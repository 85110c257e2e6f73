"""InStep: the members of a group are told of one computation at a time, whichever of a program's threads and groups it is of.

A node carries out what one connection says in its order, and in a computation each member waits for the others. Two that heard of two
computations in different orders would wait for each other for ever: so whoever tells one member tells all, before another tells any.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from syftlite.remote.worker import BaseWorker


class InStep:
    """A lock of these workers, which a thread may take again: that of each, all threads' in the same order."""

    def __init__(self, workers: Iterable[BaseWorker]) -> None:
        self._locks: list[threading.RLock] = [worker.conducted for worker in sorted(workers, key=id)]

    def __enter__(self) -> None:
        taken = 0
        try:
            for lock in self._locks:
                lock.acquire()
                taken += 1
        except BaseException:
            for lock in self._locks[:taken]:
                lock.release()
            raise

    def __exit__(self, *exception: object) -> None:
        for lock in self._locks:
            lock.release()
