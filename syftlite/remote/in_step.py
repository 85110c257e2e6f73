"""InStep, Told: the members of a group are told of one computation at a time, whichever of a program's threads and groups it is of.

A node carries out what one connection says in its order, and in a computation each member waits for the others. Two that heard of two
computations in different orders would wait for each other for ever: so whoever tells one member tells all, before another tells any.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from syftlite.remote.worker import BaseWorker


class Told:
    """All members are told of something by one thread at a time, under ``lock``; if that is cut off, by Ctrl-C too, ``broken()``."""

    def __init__(self, lock: AbstractContextManager[Any], broken: Callable[[], None]) -> None:
        self._lock, self._broken = lock, broken

    def __enter__(self) -> None:
        self._lock.__enter__()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is not None:
                self._broken()
        finally:
            self._lock.__exit__(kind, error, trace)


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
