"""The desk of a served model at one holder: clients' queries come in, batches go through a stream, answers go out to whoever asked.

    client --QUERY share--> desk of holder 0 ----.                                 Leader     pairs what has come everywhere, orders batches
    client --QUERY share--> desk of holder 1 --HAVE--> holder 0 --ORDER--> all     Follower   tells what has come, runs what is ordered

A query is known by its client's channel, 128 bits that the client drew and told each holder over a connection of its own, and a number that
counts up in the channel. Its answer goes down the connection that brought it. No desk has more than its own shares, and nobody conducts:
holder 0 decides which queries run together, which every holder binds into the run (streams.py), and nothing else.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from syftlite.engine.groups import Driver, Run
from syftlite.engine.pending import Pending
from syftlite.engine.session import Cell, Session
from syftlite.engine.stock import Stock
from syftlite.engine.streams import Ahead, Stream
from syftlite.errors import Misuse, ModelStoppedError, QuotaExceededError, RemoteError, SharingAbortedError, SyftliteError, code_of
from syftlite.wire import messages as m
from syftlite.wire.errands import pack
from syftlite.wire.messages import Message

MAX_WAITING = 64
"""Queries of one channel that may wait for their answers."""
MAX_CHANNELS = 4096
LINGER = 0.002
"""Seconds after a batch in which its clients are likely to ask again: a next one that is not full waits for them."""
LINES = 64
"""Of the last queries served, that PROGRESS tells."""
Key = tuple[str, int]
"""A query: its channel, and its number there."""


class ModelForm(NamedTuple):
    """What everybody may know of a model, as MODEL tells it."""

    members: tuple[str, ...]
    """Names of the holders, in their order, then of the provider."""
    shape: tuple[int, ...]
    """Of one row of a query's share."""
    inputs: tuple[tuple[tuple[int, ...], int], ...]
    """What a client makes a row of: each input's shape, and below what number its whole numbers are, or 0 for reals."""
    output: tuple[int, ...]
    base: int
    precision: int
    whole: bool
    """Whether the output is whole numbers, such as labels, and not at the scale base ** precision."""
    rows: int
    """That one query may have."""
    last: tuple[tuple[str, tuple[tuple[str, int], ...]], ...]


class Query:
    """A query at one holder."""

    def __init__(self, session: Session, request: int, rows: int, share: Tensor, cell: Cell) -> None:
        self.session, self.request, self.rows, self.share, self.cell = session, request, rows, share, cell
        self.answer = Pending()
        self.since = time.monotonic()
        self.abandoned = False

    def settle(self, answer: Message) -> None:
        """Answer it; its share is on nobody's account any more."""
        self.cell.let_go()
        self.answer.settle(answer)

    def fail(self, error: Exception) -> None:
        """Answer that there is no answer."""
        self.settle((m.ERROR, self.request, code_of(error), str(error)[: m.MAX_TEXT], 0, 0))


class Channel:
    """One client at this holder: the connection that it came by, and the last number that it used."""

    def __init__(self, session: Session) -> None:
        self.session, self.last, self.waiting = session, 0, 0


class ToLeader(Protocol):
    """What holder 0 is told: over a link, or the desk itself in this process."""

    def have(self, holder: int, key: Key, rows: int) -> None:
        """``holder`` has its share of a query."""

    def gone(self, holder: int, channel: str) -> None:
        """The client is gone from ``holder``."""


class ToFollower(Protocol):
    """What any other holder is told."""

    def order(self, rows: int, keys: Sequence[Key]) -> None:
        """Run these queries as one batch."""

    def refuse(self, key: Key, code: int, text: str) -> None:
        """This one is not run."""

    def forget(self, channel: str) -> None:
        """Nothing more of this channel will be ordered."""


class Desk:
    """What both kinds do."""

    def __init__(self, name: str, index: int, form: ModelForm, streams: dict[int, Stream], driver: Driver, ahead: Ahead | None) -> None:
        self.name, self.index, self.form, self.streams, self.driver, self.ahead = name, index, form, streams, driver, ahead
        self.stock = Stock(streams.values())
        self.channels: dict[str, Channel] = {}
        self.waiting: dict[Key, Query] = {}
        self.broken: str | None = None
        self.lock = threading.RLock()
        """Never held while another desk is told something."""
        self.partners: list[Callable[[str], None]] = []
        """Tell the other desks why this one stopped."""

    # -- clients

    def attach(self, session: Session, channel: str) -> None:
        """A client comes. Raises `Misuse` if its channel is not its own."""
        with self.lock:
            self.must_work()
            if channel in self.channels or len(self.channels) >= MAX_CHANNELS:
                raise Misuse(f"channel taken, or {MAX_CHANNELS:,} clients are here: draw another, or come later")
            self.channels[channel] = Channel(session)

    def take(self, session: Session, request: int, channel: str, number: int, share: int) -> Pending:
        """A query comes: ``share`` is the id of its object in ``session``, which goes. Its answer will be VALUES, or ERROR."""
        with self.lock:
            self.must_work()
            place = self.channels.get(channel)
            if place is None or place.session is not session:
                raise Misuse("this connection has no such channel: attach first")
            if number <= place.last:
                raise Misuse(f"query {number} comes after {place.last}: numbers of a channel count up")
            query = self._query(session, request, share)
            if place.waiting >= MAX_WAITING:
                raise QuotaExceededError(f"{place.waiting} queries of this client wait for their answers: read some first")
            self.admit()
            place.last, place.waiting = number, place.waiting + 1
            query.cell.refs += 1
            self.waiting[channel, number] = query
            session.drop(share)
        self.came((channel, number), query)
        return query.answer

    def _query(self, session: Session, request: int, share: int) -> Query:
        tensor, cell = session.look_up(share)
        shape = self.form.shape
        if tensor is None or cell.mark is not None or tensor.dtype != torch.int64:
            raise Misuse("a query is a share of an input: int64, sent by the client itself")
        if tensor.dim() < 1 or tuple(tensor.shape[1:]) != shape or not 1 <= tensor.shape[0] <= self.form.rows:
            raise Misuse(f"a query has 1 to {self.form.rows} rows of shape {shape}, not shape {tuple(tensor.shape)}")
        return Query(session, request, tensor.shape[0], tensor.contiguous(), cell)

    def leave(self, session: Session) -> None:
        """A client's connection is gone: what it asked is answered to nobody."""
        with self.lock:
            gone = [name for name, channel in self.channels.items() if channel.session is session]
            for name in gone:
                del self.channels[name]
            for key, query in self.waiting.items():
                query.abandoned = query.abandoned or key[0] in gone
        for name in gone:
            self.left(name)

    def admit(self) -> None:
        """Raise if no query is taken now."""

    def came(self, key: Key, query: Query) -> None:
        """A query's share is here."""

    def left(self, channel: str) -> None:
        """A client is gone from here."""

    def must_work(self) -> None:
        """Raise `SharingAbortedError` if the model has stopped for good."""
        if self.broken is not None:
            raise SharingAbortedError(self.broken)

    # -- runs

    def run(self, rows: int, keys: Sequence[Key]) -> None:
        """Run ``keys`` as one batch of ``rows``; this thread waits for the other holders."""
        with self.lock:
            self.must_work()
            stream = self.streams.get(rows)
            queries = [self.waiting.pop(key, None) for key in keys]
            here = [q for q in queries if q is not None]
            if stream is None or len(here) < len(queries) or sum(q.rows for q in here) > rows:
                raise SharingAbortedError("a batch was ordered that this holder does not have")
            for channel, _ in keys:
                if channel in self.channels:
                    self.channels[channel].waiting -= 1
        batch = torch.cat([q.share for q in here])
        if len(batch) < rows:
            batch = torch.cat([batch, batch.new_zeros(rows - len(batch), *batch.shape[1:])])
        digest = stream.digest(pack(*keys, *(q.rows for q in here)))
        run = Run(stream.holder, stream.run(batch), digest)
        run.finish = lambda out: self._answer(keys, here, out)
        run.fail = lambda error: self._failed(here, error)
        self.stock.begin()
        if self.ahead is not None:
            self.ahead.begin(rows)
        try:
            self.driver.drive(run)
        finally:
            if self.ahead is not None:
                self.ahead.end()
            self.stock.end()

    def _answer(self, keys: Sequence[Key], queries: Sequence[Query], out: Tensor) -> None:
        for query, share in zip(queries, out.split([*(q.rows for q in queries), len(out) - sum(q.rows for q in queries)]), strict=False):
            query.settle((m.VALUES, query.request, [share.clone()]))
        self.answered(keys, queries)

    def answered(self, keys: Sequence[Key], queries: Sequence[Query]) -> None:
        """A batch is done."""

    def _failed(self, queries: Sequence[Query], error: Exception) -> None:
        self.stop(str(error) if isinstance(error, SyftliteError) else f"{type(error).__name__}: {error}")
        for query in queries:
            query.fail(SharingAbortedError(self.broken or ""))

    # -- the end

    def stop(self, why: str) -> None:
        """End the model here and tell the other members; whoever waits learns ``why``, and what to do."""
        with self.lock:
            if self.broken is not None:
                return
            self.broken = f"model {self.name!r} stopped: {why}. {self._remedy(why)}"
            waiting, self.waiting = list(self.waiting.values()), {}
        self.stock.stop()
        if self.ahead is not None:
            self.ahead.stop()
        self.driver.close(why)
        for tell in self.partners:
            tell(why)
        for query in waiting:
            query.fail(SharingAbortedError(self.broken))
        self.ended()

    def ended(self) -> None:
        """The model has stopped for good."""

    def _remedy(self, why: str) -> str:
        others = [name for i, name in enumerate(self.form.members) if i != self.index and name in why]
        if not others:
            return "Have its owner serve it again"
        commands = " and ".join(f"`syftlite worker start --id {name}`" for name in others)
        return f"Start {' and '.join(others)} again if need be ({commands}), then have the model's owner serve it again"


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

    def order(self, rows: int, keys: Sequence[Key]) -> None:
        """The leader's order."""
        self.run(rows, keys)

    def refuse(self, key: Key, code: int, text: str) -> None:
        """The leader does not run this one."""
        self._drop([key], (code, text))

    def forget(self, channel: str) -> None:
        """Nothing more of this channel will be ordered."""
        with self.lock:
            keys = [key for key in self.waiting if key[0] == channel]
        self._drop(keys, (code_of(RemoteError()), "the client is gone"))

    def _drop(self, keys: Sequence[Key], error: tuple[int, str]) -> None:
        with self.lock:
            dropped = [self.waiting.pop(key) for key in keys if key in self.waiting]
            for channel, _ in keys:
                if channel in self.channels:
                    self.channels[channel].waiting -= 1
        for query in dropped:
            query.settle((m.ERROR, query.request, *error, 0, 0))


class Leader(Desk):
    """The desk of holder 0: it decides which queries run, and together with which. ``at_once``: whoever completes a query runs it (all
    holders are in this process); otherwise a thread of the desk's own does."""

    def __init__(self, name: str, form: ModelForm, streams: dict[int, Stream], driver: Driver, ahead: Ahead | None, at_once: bool) -> None:
        super().__init__(name, 0, form, streams, driver, ahead)
        self.others: dict[int, ToFollower] = {}
        """The other holders, by index."""
        self.at_once = at_once
        self.left_to_serve: int | None = 0
        self.served = 0
        self._running_now = 0  # queries of batches that were begun and are not written down
        self.lines: deque[str] = deque(maxlen=LINES)
        self._had: dict[Key, dict[int, int]] = {}  # by query: the rows that each other holder has of it
        self._ready: OrderedDict[str, deque[Key]] = OrderedDict()  # by channel, the one that waits longest first
        self._recent: frozenset[str] = frozenset()  # channels of the last batch
        self._last = 0.0  # when it ended
        self._watchers: list[tuple[Pending, int, int]] = []
        self._changed = threading.Condition(self.lock)
        self._running = threading.Lock()
        if not at_once:
            threading.Thread(target=self._serve, daemon=True, name=f"model {name}").start()

    # -- what is served

    def admit_more(self, count: int | None) -> None:
        """Take ``count`` more queries; None for any number, 0 to take none."""
        with self.lock:
            self.must_work()
            self.left_to_serve = count
        self._tell()

    def admit(self) -> None:
        """Raise `ModelStoppedError` if no query is taken now."""
        if self.left_to_serve == 0:
            raise ModelStoppedError(f"model {self.name!r} takes no queries now ({self.served} served): its owner may serve() it again")
        if self.left_to_serve is not None:
            self.left_to_serve -= 1

    @property
    def state(self) -> str:
        """serving, stopped, or why it ended."""
        return self.broken or ("stopped" if self.left_to_serve == 0 and not self.waiting and not self._running_now else "serving")

    def watch(self, request: int, seen: int | None) -> Pending:
        """PROGRESS, when more than ``seen`` have been served or the model is not serving; now, if that is None."""
        pending, seen = Pending(), -1 if seen is None else seen
        with self.lock:
            self._watchers = [w for w in self._watchers[-MAX_WAITING:] if w[0].wait(0) is None]
            self._watchers.append((pending, request, seen))
        self._tell()
        return pending

    def _tell(self) -> None:
        with self.lock:
            state, served, lines = self.state, self.served, list(self.lines)
            due = [w for w in self._watchers if served > w[2] or state != "serving"]
            self._watchers = [w for w in self._watchers if w not in due]
        for pending, request, seen in due:
            fresh = min(served - max(seen, 0), len(lines)) if seen < served else 0
            pending.settle((m.PROGRESS, request, state, served, tuple(lines[len(lines) - fresh :])))

    def answered(self, keys: Sequence[Key], queries: Sequence[Query]) -> None:
        """Write the batch down."""
        now, rows = time.monotonic(), sum(q.rows for q in queries)
        with self.lock:
            self._recent, self._last = frozenset(channel for channel, _ in keys), now
            self._running_now -= len(queries)
            for query in queries:
                self.served += 1
                together = f" in a batch of {rows}" if len(queries) > 1 else ""
                told = f"{query.rows} row{'' if query.rows == 1 else 's'}{together}, {(now - query.since) * 1e3:.1f} ms"
                self.lines.append(f"request {self.served}: {query.session.principal.name}, {told}")
        self._tell()

    def ended(self) -> None:
        """Tell whoever watches, and the thread."""
        with self._changed:
            self._changed.notify_all()
        self._tell()

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
            if same and not query.abandoned:
                query.since = time.monotonic()
                self._ready.setdefault(key[0], deque()).append(key)
                self._changed.notify_all()
            else:
                del self.waiting[key]
                if key[0] in self.channels:
                    self.channels[key[0]].waiting -= 1
        if not same or query.abandoned:
            self._give_back(1)
            error = Misuse(f"the holders have {query.rows} and {sorted(had.values())} rows of this query: send each its share of one input")
            query.fail(error)
            for holder in had:
                self.others[holder].refuse(key, code_of(error), str(error))
        elif self.at_once:
            self._run_ready()

    def _give_back(self, count: int) -> None:
        with self.lock:
            if self.left_to_serve is not None:
                self.left_to_serve += count

    def left(self, channel: str) -> None:
        """A client is gone from here: what is ready is run, what waits for another holder's share is not."""
        with self.lock:
            ready = set(self._ready.get(channel, ()))
            gone = [key for key in self.waiting if key[0] == channel and key not in ready]
            told = [(key, self._had.pop(key)) for key in gone if key in self._had]
            queries = [self.waiting.pop(key) for key in gone]
        self._give_back(len(queries))
        for query in queries:
            query.fail(RemoteError("the client is gone"))
        for key, holders in told:
            for holder in holders:
                with contextlib.suppress(SharingAbortedError):
                    self.others[holder].refuse(key, code_of(RemoteError()), f"its client is gone from {self.form.members[0]}")
        self._tell()

    def gone(self, holder: int, channel: str) -> None:
        """A client is gone from another holder, which keeps its shares until it hears that none will be ordered any more."""
        with self.lock:
            for key in [key for key in self._had if key[0] == channel]:
                del self._had[key]
            ready = self._ready.pop(channel, deque())
            queries = [self.waiting.pop(key) for key in ready if key in self.waiting]
            if channel in self.channels:
                self.channels[channel].waiting -= len(queries)
        self._give_back(len(queries))
        for query in queries:
            query.fail(SharingAbortedError(f"this client's connection to {self.form.members[holder]} is gone: connect again"))
        for post in self.others.values():
            post.forget(channel)
        self._tell()

    # -- batches

    def _gather(self) -> tuple[int, list[Key]]:
        """(rows of the stream, queries) of the next batch: one of each channel in turn, those first that waited longest, while they fit."""
        keys: list[Key] = []
        rows, most, open_ = 0, self.form.rows, list(self._ready)
        while open_:
            for channel in list(open_):
                queue = self._ready[channel]
                size = self.waiting[queue[0]].rows
                if rows + size > most:
                    open_.remove(channel)
                    continue
                keys.append(queue.popleft())
                rows += size
                if queue:
                    self._ready.move_to_end(channel)
                else:
                    del self._ready[channel]
                    open_.remove(channel)
        return min(r for r in self.streams if r >= rows), keys

    def _conduct(self, rows: int, keys: Sequence[Key]) -> None:
        with self.lock:
            self._running_now += len(keys)
        for post in self.others.values():
            if not self.at_once:
                post.order(rows, keys)
        self.run(rows, keys)
        if self.at_once:
            for post in self.others.values():
                post.order(rows, keys)

    def _run_ready(self) -> None:
        """Run what is ready, on this thread; what another thread is running meanwhile it runs, too."""
        while True:
            if not self._ready or not self._running.acquire(blocking=False):
                return
            try:
                while True:
                    with self.lock:
                        if not self._ready or self.broken is not None:
                            break
                        rows, keys = self._gather()
                    self._conduct(rows, keys)
            finally:
                self._running.release()

    def _serve(self) -> None:
        """The desk's own thread."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ready or self.broken is not None)
                self._changed.wait_for(self._enough, max(self._last + LINGER - time.monotonic(), 0.0))
                if self.broken is not None:
                    return
                if not self._ready:
                    continue
                rows, keys = self._gather()
            try:
                self._conduct(rows, keys)
            except Exception as error:
                self.stop(str(error))

    def _enough(self) -> bool:
        """Whether nobody is worth waiting for: the batch is full, or the clients of the last one are all here."""
        ready = sum(self.waiting[key].rows for queue in self._ready.values() for key in queue)
        expected = [c for c in self._recent if c in self.channels and c not in self._ready]
        return not expected or ready >= self.form.rows or self.broken is not None
