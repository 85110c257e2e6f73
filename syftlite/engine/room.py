"""Room for what a provider sends before it is used: so much a session, however many groups it is in."""

from __future__ import annotations

import threading

READ_AHEAD = 256 << 20
"""Bytes of corrections that wait in memory before they are used, of all groups of a session."""


class Room:
    """At most ``most`` bytes of all who keep some here, besides what somebody waits for. ``lock``: held for whatever is done to it;
    ``changed``: told of what makes room, or need."""

    def __init__(self, most: int = READ_AHEAD) -> None:
        self.most = most
        self.held = 0
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)

    def fits(self, nbytes: int) -> bool:
        """Whether ``nbytes`` more do."""
        return self.held + nbytes <= self.most
