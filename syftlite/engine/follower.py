"""A follower of a served model: the desk of any holder but the first. It tells what has come, and runs what is ordered."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import partial

from syftlite.engine.batches import Key
from syftlite.engine.desk import Desk
from syftlite.engine.queries import Query, ToLeader
from syftlite.errors import RemoteError, SharingAbortedError, code_of
from syftlite.wire import messages as m


class Follower(Desk):
    """A desk that runs what ``leader`` orders."""

    leader: ToLeader

    def came(self, key: Key, query: Query) -> None:
        """Tell the leader."""
        self.leader.have(self.index, key, query.rows)

    def left(self, channel: str) -> None:
        """Tell the leader; what it has ordered by then is still run."""
        with contextlib.suppress(SharingAbortedError):
            self.leader.gone(self.index, channel)

    def order(self, rows: int, keys: Sequence[Key]) -> Callable[[], None]:
        """The leader's order. Returns what runs it."""
        return partial(self.run, self.batch(rows, keys))

    def refuse(self, key: Key, code: int, text: str) -> None:
        """The leader does not run this one."""
        self._drop([key], (code, text))

    def forget(self, channel: str) -> None:
        """Nothing more of this channel will be ordered."""
        with self.lock:
            keys = [key for key in self.waiting if key[0] == channel]
            self.closing.discard(channel)
        self._drop(keys, (code_of(RemoteError()), "the client is gone"))

    def _drop(self, keys: Sequence[Key], error: tuple[int, str]) -> None:
        with self.lock:
            dropped = [self.waiting.pop(key) for key in keys if key in self.waiting]
            for channel, _ in keys:
                if channel in self.channels:
                    self.channels[channel].waiting -= 1
        for query in dropped:
            query.settle((m.ERROR, query.request, *error, 0, 0))
