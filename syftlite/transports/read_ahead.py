"""What a provider pushes down a link, by number, at the last holder.

Whoever waits for a correction reads the link, one at a time: to be woken by a thread that has read takes longer than to read, and where
cores are few that thread is woken on the provider's. A thread of its own reads when the kernel's buffer fills, so that a provider who is
ahead need not wait; as far as there is room.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from torch import Tensor

from syftlite._threads import ENDED, Daemon
from syftlite.engine.room import Room
from syftlite.errors import SharingAbortedError
from syftlite.transports.level import Level

if TYPE_CHECKING:
    from syftlite.transports.links import StreamLink

NAP = 0.005
"""Seconds after which the thread looks again whether somebody who reads has left the buffer full."""


class ReadAhead:
    """Corrections by number, each of at most ``limit`` bytes, of ``link``; kept as far as there is ``room``, and, while one is waited for,
    as far as there would be if nobody else kept any. One may take ``patience`` seconds."""

    def __init__(self, link: StreamLink, level: Level, limit: int, room: Room, patience: float) -> None:
        self._link, self._level, self._limit, self._room, self._patience = link, level, limit, room, patience
        self._kept: dict[int, Tensor] = {}
        self._coming: tuple[int, int] | None = None
        """(number, bytes) of what has been announced and not been read yet."""
        self._held = 0
        self._waiting = self._wanted = 0  # how many wait, and for at most how many bytes
        self._lock, self._changed = room.lock, room.changed
        self._reading = False
        self._failed: str | None = None
        Daemon(self._keep_up, "corrections", self._end)

    def _end(self) -> None:
        self._link.close(ENDED)
        self.close(ENDED)

    # -- the thread

    def _keep_up(self) -> None:
        while self._failed is None:
            if self._coming is None:
                try:
                    self._level.wait()
                except OSError as error:
                    self.close(str(error), keep=True)
                    return
            if self._reading:  # by whoever waits for it
                time.sleep(NAP)
            elif self._has_turn(None, self._patience):
                self._read(NAP)

    # -- reading

    def _has_turn(self, number: int | None, seconds: float) -> bool:
        """Whether the caller is the one who reads now, having waited for what stands against it, or for ``number`` to come meanwhile."""
        with self._lock:
            if self._reading or not self._fits():
                self._changed.wait_for(lambda: self._settled(number) or not (self._reading or not self._fits()), seconds)
            if self._settled(number) or self._reading or not self._fits():
                return False
            self._reading = True
            return True

    def _settled(self, number: int | None) -> bool:
        return number in self._kept or self._failed is not None

    def _fits(self) -> bool:
        """Whether there is room for what is announced. While somebody waits there is; for one of more than all the room, only if it is as
        large as what is waited for."""
        if self._coming is None:
            return True
        _, nbytes = self._coming
        urgent = self._waiting > 0 and self._held < self._room.most and nbytes <= max(self._room.most, self._wanted)
        return urgent or self._room.fits(nbytes)

    def _read(self, seconds: float) -> None:
        """Read what is announced, or, within ``seconds``, what is to come, and read that if there is room."""
        data = None
        try:
            self._level.lower()
            self._coming = self._coming or self._link.announced(self._limit, seconds)
            if self._coming is not None and self._coming[0] in self._kept:
                raise SharingAbortedError(f"the provider deals correlation {self._coming[0]} twice")
            if self._admitted():
                data = self._link.body(self._coming[1])  # type: ignore[index]
            self._level.lift()
        except BaseException as error:  # a part of it may have been read
            self.close(str(error) or type(error).__name__, keep=True)
            if not isinstance(error, Exception):
                raise
        finally:
            with self._lock:
                if data is not None and self._coming is not None and self._failed is None:
                    self._kept[self._coming[0]], self._coming = data, None
                self._reading = False
                self._changed.notify_all()

    def _admitted(self) -> bool:
        """Take the room for what is announced, if there is any."""
        with self._lock:
            if self._coming is None or self._failed is not None or not self._fits():
                return False
            self._hold(self._coming[1])
            return True

    def _hold(self, nbytes: int) -> None:
        self._held += nbytes
        self._room.held += nbytes

    # -- taking

    def _wait_for(self, number: int, seconds: float, nbytes: int = 0) -> bool:
        """Whether correlation ``number``'s, or the end, came within ``seconds``; until then this link's are urgent."""
        until = time.monotonic() + seconds
        with self._lock:
            self._waiting += 1
            self._wanted = max(self._wanted, nbytes)
        try:
            while not self._settled(number):
                left = until - time.monotonic()
                if self._has_turn(number, max(left, 0)):
                    self._read(max(left, NAP))
                if left <= 0:
                    break
            return self._settled(number)
        finally:
            with self._lock:
                self._waiting -= 1
                self._wanted = self._wanted if self._waiting else 0

    def here(self, number: int, seconds: float) -> bool:
        """Whether correlation ``number``'s comes within ``seconds``. Raises `SharingAbortedError` once the provider is gone."""
        came = self._wait_for(number, seconds)
        if self._failed is not None:
            raise SharingAbortedError(f"the provider is gone: {self._failed}")
        return came

    def __call__(self, number: int, nbytes: int) -> Tensor:
        """Correlation ``number``'s, when it is there. Raises `SharingAbortedError`."""
        if number not in self._kept and not self._wait_for(number, self._patience, nbytes):
            raise SharingAbortedError(f"the provider dealt nothing within {self._patience:.0f} s")
        with self._lock:
            correction = self._kept.pop(number, None)
            if correction is None:
                raise SharingAbortedError(f"the provider is gone: {self._failed}")
            self._hold(-correction.nbytes)
            self._changed.notify_all()
            return correction

    def close(self, why: str, keep: bool = False) -> None:
        """None comes any more: let go of those that are here, unless ``keep``, and of the thread that waits for room."""
        with self._lock:
            self._failed = self._failed or why
            if not keep:
                self._kept.clear()
            self._hold(sum(map(len, self._kept.values())) - self._held)
            self._changed.notify_all()
