"""The desk of a served model at one holder: clients' queries come in, batches go through a stream, answers go out to whoever asked.

    client --QUERY share--> desk of holder 0 ----.                                 Leader     pairs what came, orders batches (leader.py)
    client --QUERY share--> desk of holder 1 --HAVE--> holder 0 --ORDER--> all     Follower   tells what came, runs orders (follower.py)

A query is known by its client's channel, 128 bits that the client drew and told each holder over a connection of its own, and a number that
counts up in the channel. Its answer goes down the connection that brought it, through the gate (gate.py). No desk has more than its own
shares, and nobody conducts: holder 0 decides which queries run together, which every holder binds into the run (streams.py), and no more.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import torch

from syftlite.engine.batches import Key
from syftlite.engine.groups import Driver, Run
from syftlite.engine.pending import Pending
from syftlite.engine.queries import Batch, Channel, Query, Served
from syftlite.engine.session import Principal, Session
from syftlite.engine.stock import Stock
from syftlite.engine.streams import Ahead, Released, Stream
from syftlite.errors import GetNotPermittedError, Misuse, QuotaExceededError, SharingAbortedError, SyftliteError
from syftlite.wire import messages as m
from syftlite.wire.errands import pack

MAX_WAITING = 64
"""Queries of one channel that may wait for their answers."""
MAX_CHANNELS, MAX_OWN = 4096, 64
"""Of all clients, and of one connection."""


class Desk:
    """What both kinds do."""

    def __init__(self, served: Served, index: int, streams: dict[int, Stream], driver: Driver, ahead: Ahead | None) -> None:
        self.name, self.form, self.clients, self.permit = served
        self.index, self.streams, self.driver, self.ahead = index, streams, driver, ahead
        self.stock = Stock(streams.values(), self.form.shape)
        self.channels: dict[str, Channel] = {}
        self.closing: set[str] = set()
        """Channels whose client is gone, until the leader orders nothing more of them and all know: till then nobody takes their names."""
        self.waiting: dict[Key, Query] = {}
        self.broken: str | None = None
        self.lock = threading.RLock()
        """Never held while another desk is told something."""
        self.partners: list[Callable[[str], None]] = []
        """Tell the other desks why this one stopped."""

    # -- clients

    def is_for(self, principal: Principal) -> bool:
        """Whether ``principal`` may know of the model."""
        return self.clients is None or principal.name in self.clients

    def attach(self, session: Session, channel: str) -> None:
        """A client comes. Raises `Misuse` if its channel is not its own."""
        with self.lock:
            self.must_work()
            if channel in self.channels or channel in self.closing or any(key[0] == channel for key in self.waiting):
                raise Misuse("channel taken: draw another")
            if sum(place.session is session for place in self.channels.values()) >= MAX_OWN:
                raise Misuse(f"this connection has {MAX_OWN} channels to model {self.name!r}: use them")
            if len(self.channels) + len(self.closing) >= MAX_CHANNELS:
                raise Misuse(f"{MAX_CHANNELS:,} clients are here: come later")
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
            rows = self._rows(session, share)
            if place.waiting >= MAX_WAITING:
                raise QuotaExceededError(f"{place.waiting} queries of this client wait for their answers: read some first")
            tensor, cell = session.take_over(share)
            query = Query(session, request, rows, tensor.contiguous(), cell)
            try:
                self.admit(query)
            except BaseException:
                cell.let_go()
                raise
            place.last, place.waiting = number, place.waiting + 1
            self.waiting[channel, number] = query
        self.came((channel, number), query)
        return query.answer

    def _rows(self, session: Session, share: int) -> int:
        """How many a query has. Raises `Misuse` for what is none."""
        tensor, cell = session.look_up(share)
        shape = self.form.shape
        if tensor is None or cell.mark is not None or tensor.dtype != torch.int64:
            raise Misuse("a query is a share of an input: int64, sent by the client itself")
        if tensor.dim() < 1 or tuple(tensor.shape[1:]) != shape or not 1 <= tensor.shape[0] <= self.form.rows:
            raise Misuse(f"a query has 1 to {self.form.rows} rows of shape {shape}, not shape {tuple(tensor.shape)}")
        return tensor.shape[0]

    def leave(self, session: Session) -> None:
        """A client's connection is gone: what it asked is answered to nobody."""
        with self.lock:
            gone = [name for name, channel in self.channels.items() if channel.session is session]
            for name in gone:
                del self.channels[name]
            self.closing.update(gone)
            for key, query in self.waiting.items():
                query.abandoned = query.abandoned or key[0] in gone
        for name in gone:
            self.left(name)

    def admit(self, query: Query) -> None:
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

    def batch(self, rows: int, keys: Sequence[Key]) -> Batch:
        """Take ``keys`` from what waits, to run as one batch of ``rows``: whatever becomes of their clients, it is run."""
        with self.lock:
            self.must_work()
            if rows not in self.streams or not keys or not self.waiting.keys() >= set(keys) or len(set(keys)) < len(keys):
                raise SharingAbortedError("a batch was ordered that this holder does not have")
            if sum(self.waiting[key].rows for key in keys) > rows:
                raise SharingAbortedError(f"a batch of more than its {rows} rows was ordered")
            for channel, _ in keys:
                if channel in self.channels:
                    self.channels[channel].waiting -= 1
            return Batch(rows, keys, [self.waiting.pop(key) for key in keys])

    def run(self, batch: Batch) -> None:
        """Run a batch; this thread waits for the other holders. Where it is broken off, by Ctrl-C too, nobody waits for its answers."""
        try:
            self._run(batch)
        except BaseException as error:
            self.failed(batch.queries, error)
            raise

    def _run(self, batch: Batch) -> None:
        rows, keys, queries = batch
        stream = self.streams[rows]
        share = torch.cat([q.share for q in queries])
        if len(share) < rows:
            share = torch.cat([share, share.new_zeros(rows - len(share), *share.shape[1:])])
        digest = stream.digest(pack(*keys, *(q.rows for q in queries)))
        run = Run(stream.holder, stream.run(share), digest)
        run.finish = lambda out: self._answer(keys, queries, out)
        run.fail = lambda error: self.failed(queries, error)
        self.stock.begin()
        if self.ahead is not None:
            self.ahead.use(rows)
        try:
            self.driver.drive(run)
        finally:
            if self.ahead is not None:
                self.ahead.end()
            self.stock.end()

    def _answer(self, keys: Sequence[Key], queries: Sequence[Query], out: Released) -> None:
        rows = [q.rows for q in queries]
        for query, share in zip(queries, out.share.split([*rows, len(out.share) - sum(rows)]), strict=False):
            try:
                self.permit(query.session.principal, out.label)
                query.settle((m.VALUES, query.request, [share.clone()]))
            except GetNotPermittedError as error:
                query.fail(error)
        self.answered(keys, queries)

    def answered(self, keys: Sequence[Key], queries: Sequence[Query]) -> None:
        """A batch is done."""

    def failed(self, queries: Sequence[Query], error: BaseException) -> None:
        """A batch of these cannot be run: the model ends."""
        told = [] if isinstance(error, SyftliteError) else [type(error).__name__]
        self.stop(": ".join(filter(None, [*told, str(error)])))
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
