"""The leader of a served model: the desk of holder 0, which decides which queries run, and together with which.

    pairing     a query is ready once every holder has its share, of as many rows      HAVE, REFUSE, GONE, FORGET
    batches     which of those that are ready run next                                 batches.py; ORDER
    count       how many are taken, and what the owner is told of them                 count.py
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence
from functools import partial

from syftlite._threads import ENDED, Daemon
from syftlite.engine.batches import Batches, Key
from syftlite.engine.count import Count
from syftlite.engine.desk import Desk
from syftlite.engine.groups import Driver
from syftlite.engine.queries import Query, Served, ToFollower
from syftlite.engine.streams import Ahead, Stream
from syftlite.errors import Misuse, RemoteError, SharingAbortedError, code_of


class Leader(Desk):
    """The desk of holder 0: it decides which queries run, and together with which. ``at_once``: whoever completes a query runs it (all
    holders are in this process); otherwise a thread of the desk's own does."""

    def __init__(self, served: Served, streams: dict[int, Stream], driver: Driver, ahead: Ahead | None, at_once: bool) -> None:
        super().__init__(served, 0, streams, driver, ahead)
        self.others: dict[int, ToFollower] = {}
        """The other holders, by index."""
        self.at_once = at_once
        self.count = Count(served.name, self.lock, lambda: self.broken, lambda: bool(self.waiting))
        self.ready = Batches(streams)
        self._had: dict[Key, dict[int, int]] = {}  # by query: the rows that each other holder has of it
        self._telling = threading.Lock()
        """Held from a decision until all others are told, so that they hear of them in order: nothing that is ordered was forgotten."""
        self._changed = threading.Condition(self.lock)
        self._running = threading.Lock()
        if not at_once:
            Daemon(self._serve, f"model {served.name}", partial(self.stop, ENDED))

    # -- what is served

    def admit(self, query: Query) -> None:
        """Raise `ModelStoppedError` if no query is taken now."""
        query.allowance = self.count.take()

    def admit_more(self, count: int | None) -> None:
        """Take ``count`` more queries; None for any number, 0 to take none."""
        with self.lock:
            self.must_work()
        self.count.take_more(count)

    def answered(self, keys: Sequence[Key], queries: Sequence[Query]) -> None:
        """Write the batch down."""
        now, rows = time.monotonic(), sum(q.rows for q in queries)
        with self.lock:
            self.ready.ran(keys, now)
        self.count.write([(q.session.principal.name, q.rows, now - q.since) for q in queries], rows)

    def ended(self) -> None:
        """Tell whoever watches, and the thread."""
        with self._changed:
            self._changed.notify_all()
        self.count.tell()

    # -- pairing

    def came(self, key: Key, query: Query) -> None:
        """This holder has its share."""
        self._pair(key)

    def have(self, holder: int, key: Key, rows: int) -> None:
        """Another holder has its share. One that was refused or answered here before is refused there."""
        with self.lock:
            place = self.channels.get(key[0])
            late = place is not None and key not in self.waiting and key[1] <= place.last
            if not late:
                self._had.setdefault(key, {})[holder] = rows
        if late:
            self.others[holder].refuse(key, code_of(Misuse()), f"model {self.name!r} did not take this query at {self.form.members[0]}")
        else:
            self._pair(key)

    def _pair(self, key: Key) -> None:
        with self.lock:
            query, had = self.waiting.get(key), self._had.get(key, {})
            if query is None or len(had) < len(self.others):
                return
            del self._had[key]
            same = all(rows == query.rows for rows in had.values())
            runs = same and not query.abandoned  # it may be abandoned as soon as the lock is free, and is run then
            if runs:
                query.since = time.monotonic()
                self.ready.add(key, query.rows)
                self._changed.notify_all()
            else:
                del self.waiting[key]
                if key[0] in self.channels:
                    self.channels[key[0]].waiting -= 1
        if not runs:
            self.count.give_back([query])
            error = Misuse(f"the holders have {query.rows} and {sorted(had.values())} rows of this query: send each its share of one input")
            query.fail(error)
            for holder in had:
                self.others[holder].refuse(key, code_of(error), str(error))
        elif self.at_once:
            self._run_ready()

    def left(self, channel: str) -> None:
        """A client is gone from here: what is ready is run, what waits for another holder's share is not."""
        with self.lock:
            ready = self.ready.of(channel)
            gone = [key for key in self.waiting if key[0] == channel and key not in ready]
            told = [(key, self._had.pop(key)) for key in gone if key in self._had]
            queries = [self.waiting.pop(key) for key in gone]
        self.count.give_back(queries)
        for query in queries:
            query.fail(RemoteError("the client is gone"))
        for key, holders in told:
            for holder in holders:
                with contextlib.suppress(SharingAbortedError):
                    self.others[holder].refuse(key, code_of(RemoteError()), f"its client is gone from {self.form.members[0]}")
        with self.lock:
            self.closing.discard(channel)
        self.count.tell()

    def gone(self, holder: int, channel: str) -> None:
        """A client is gone from another holder, which keeps its shares until it hears that none will be ordered any more."""
        with self._telling:
            with self.lock:
                for key in [key for key in self._had if key[0] == channel]:
                    del self._had[key]
                queries = [self.waiting.pop(key) for key in self.ready.drop(channel)]
                if channel in self.channels:
                    self.channels[channel].waiting -= len(queries)
            self.count.give_back(queries)
            for query in queries:
                query.fail(SharingAbortedError(f"this client's connection to {self.form.members[holder]} is gone: connect again"))
            for post in self.others.values():
                post.forget(channel)
        self.count.tell()

    # -- batches

    def _conduct(self) -> bool:
        """Run a batch of what is ready; whether there was one."""
        with self._telling:
            with self.lock:
                if not self.ready or self.broken is not None:
                    return False
                batch = self.batch(*self.ready.next())
            self.count.began(len(batch.keys))
            try:
                rest = [post.order(batch.rows, batch.keys) for post in self.others.values()]
            except SharingAbortedError as error:
                self.failed(batch.queries, error)
                return False
        try:
            self.run(batch)
        finally:  # where this part was broken off the others end, too
            for run in rest:
                run()
        return True

    def _run_ready(self) -> None:
        """Run what is ready, on this thread; what another thread is running meanwhile it runs, too."""
        while self.ready and self.broken is None and self._running.acquire(blocking=False):
            try:
                while self._conduct():
                    pass
            finally:
                self._running.release()

    def _serve(self) -> None:
        """The desk's own thread."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self.ready or self.broken is not None)
                self._changed.wait_for(self._enough, self.ready.patience(time.monotonic()))
                if self.broken is not None:
                    return
            try:
                self._conduct()
            except Exception as error:
                self.stop(str(error))

    def _enough(self) -> bool:
        """Whether nobody is worth waiting for."""
        return self.broken is not None or self.ready.enough(self.channels)
