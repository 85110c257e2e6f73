"""A scientist's session at a node over a websocket.

    cast -> queue -> (batch full | late | someone asks) -> frames -> socket
    ask  -> queue -> flush -> whoever waits first reads for all who wait

From one question to the next batches grow, from `FIRST` messages to `BATCH`, and late is later, from 1 ms to 16: a node that had nothing to
do begins soon, and one that has work is not disturbed for a few messages.

One daemon thread a client: it flushes what nobody flushed and, while nobody reads, answers pings. `__del__` only appends to `drops`.
After the connection breaks nothing is resent: every later use of this session raises `ConnectionLostError` with the cause.
"""

from __future__ import annotations

import contextlib
import os
import ssl
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator
from itertools import count
from typing import Any

import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from syftlite.errors import (
    ConnectionLostError,
    ForkedConnectionError,
    OperatorNotReviewedError,
    ProtocolError,
    SyftliteError,
)
from syftlite.ops.table import TABLE, VERSION
from syftlite.transports.base import MAX_SITES, Progress, Site, Transport
from syftlite.transports.greeting import greet
from syftlite.transports.interrupts import Held
from syftlite.transports.socket import WebsocketClient
from syftlite.transports.tender import Tender
from syftlite.transports.turns import Turns
from syftlite.wire import messages as m
from syftlite.wire.codec import INLINE, PIECE
from syftlite.wire.connection import MAX_STREAMS, Connection, Frame
from syftlite.wire.messages import Message

FIRST, BATCH = 16, 256
SIGNS = 3
"""How often within `timeout` a silent node is asked for a sign of life."""


class SocketTransport(Transport):
    """Connects to ``uri``, authenticates with ``token`` (or, by ``scheme``, a ticket) or a private key, and carries messages. Raises what
    the handshake refuses, as its own class."""

    def __init__(
        self,
        uri: str,
        token: str | Ed25519PrivateKey,
        *,
        scheme: str = "token",
        tls: ssl.SSLContext | None = None,
        timeout: float = 60.0,
    ) -> None:
        super().__init__()
        self.uri: str = uri
        self.timeout, self.worker = timeout, uri
        self._socket = WebsocketClient(uri, tls=tls, timeout=timeout)
        self._connection = Connection(worker=False, reserve=lambda nbytes: None)
        self._queue: deque[tuple[Message, Site]] = deque()
        self._flushing = threading.Lock()
        self._uploading = threading.BoundedSemaphore(MAX_STREAMS)
        self.flushes = 0
        self._count = 0
        self._batch = FIRST
        self._requests = count(1)
        self._turns = Turns()
        self._lost: Exception | None = None
        self._tender = Tender(self)
        try:
            self.table = greet(self, self._connection, self._exchange, scheme, token, self._socket.fingerprint)
        except BaseException:
            self._socket.close()
            raise
        if self.table < VERSION:
            self.cast = self._cast_if_known  # type: ignore[method-assign]
        _live.add(self)
        self._tender.start()

    def _exchange(self, message: Message) -> Message:
        """Of the handshake."""
        for frame in self._connection.frames([message]):
            self._socket.send(frame)
        deadline = time.monotonic() + self.timeout
        while time.monotonic() < deadline:
            for frame_bytes in self._socket.receive(self.timeout):
                for answer in self._connection.receive(frame_bytes):
                    return answer
        raise ConnectionLostError(f"{self.uri} did not answer the handshake within {self.timeout} s")

    # -- out

    def cast(self, message: Message, site: Site = None) -> None:
        """Queue ``message``."""
        queue = self._queue
        queue.append((message, site))
        if len(queue) >= self._batch:
            self._batch = min(2 * self._batch, BATCH)
            self.flush()
        elif self._tender.dozing:
            self._tender.wake()

    def release(self, number: int) -> None:
        """Queue its end behind its last use, for `drops` go after all that is queued: a node would keep hundreds of results meanwhile."""
        self._queue.append(((m.DROP, (number,)), None))

    def hold(self, message: Message, site: Site = None) -> None:
        """Queue ``message``, and let the tender sleep: to wake it takes a tenth of a millisecond where cores are few."""
        self._queue.append((message, site))

    def _cast_if_known(self, message: Message, site: Site = None) -> None:
        if message[0] == m.OP and message[1] >= self.table:
            operator = TABLE[message[1]]
            raise OperatorNotReviewedError(
                f"{self.worker} runs an older syftlite, whose table has no {operator and operator.name} "
                f"(#{message[1]} of {self.table - 1}): upgrade the node"
            )
        SocketTransport.cast(self, message, site)

    def flush(self) -> None:
        """Send what is queued."""
        self.flushes += 1
        self._flush()

    def _flush(self) -> None:
        with self._flushing, Held():  # Ctrl-C comes when what is queued is on its way
            if self._lost is not None:
                raise self._lost.with_traceback(None)
            try:
                self._socket.send_all(self._connection.frames(self._taken()))
            except BaseException as error:  # also a message that cannot be written down: those behind it must not go without it
                raise self._broken(error, "a message was interrupted on its way") from None

    def _taken(self) -> list[Message]:
        """What is queued, and is so no more."""
        drops = len(self.drops)  # counted first: what was dropped by now was used in messages queued before
        batch: list[Message] = []
        queue, sites, position = self._queue, self.sites, self._count
        while queue:
            message, site = queue.popleft()
            if (at := position % MAX_SITES) < len(sites):
                sites[at] = site
            else:
                self.place(at, site)
            position += 1
            batch.append(message)
        ends = self.ends(drops) if drops else []
        self._count = position + len(ends)
        return batch + ends

    def put(
        self, number: int, tensor: torch.Tensor, tags: tuple[str, ...], description: str, progress: Progress | None = None
    ) -> None:
        """Send ``tensor``; a large one piece by piece, with other threads' messages, or Ctrl-C, between."""
        tensor = tensor.detach().cpu()
        size = tensor.numel() * tensor.element_size()
        self._drop()  # there may be no room for it before
        if size <= INLINE:
            self.cast((m.PUT, number, tensor.clone(memory_format=torch.contiguous_format), tags, description))
            return
        with self._uploading:
            self._upload(number, tensor, tags, description, progress)

    def _upload(self, number: int, tensor: torch.Tensor, tags: tuple[str, ...], description: str, progress: Progress | None) -> None:
        size = tensor.numel() * tensor.element_size()
        if self._queue:
            self.flush()
        with self._flushing:
            described, frames = self._connection.stream(tensor)
        sent, stored = 0, False
        try:
            with Held() as held:
                while self._send_next(frames, held):
                    sent = min(sent + PIECE, size)
                    if progress is not None:
                        progress(sent)
                self.cast((m.PUT, number, described, tags, description))
                stored = True
        except BaseException:
            if stored:  # and nobody will have its pointer
                self.drops.append(number)
            elif sent:
                self._give_up(described[2], size, sent)
            raise

    def _give_up(self, stream: int, total: int, sent: int) -> None:
        """Have the node forget a stream that stays unfinished, unless the connection is gone with it."""
        with Held(), self._flushing, contextlib.suppress(ConnectionLostError):
            if self._lost is None:
                self._socket.send(self._connection.give_up(stream, total, sent))

    def _send_next(self, frames: Iterator[Frame], held: Held) -> bool:
        """Send the next of ``frames``; whether there was one."""
        held.between()
        with self._flushing:
            if self._lost is not None:
                raise self._lost.with_traceback(None)
            try:
                frame = next(frames, None)
                if frame is not None:
                    self._socket.send(frame)
            except BaseException as error:
                raise self._broken(error, "an upload was interrupted within a piece") from None
        return frame is not None

    def _broken(self, error: BaseException, interrupted: str) -> BaseException:
        """What to raise for ``error`` on the way out: where whoever reads has met the end meanwhile, that."""
        if self._lost is not None and isinstance(error, Exception):
            return self._lost.with_traceback(None)
        self._fail(error if isinstance(error, Exception) else ConnectionLostError(interrupted))
        return error

    # -- in

    def begin(self, kind: int, *fields: Any) -> int:
        """Send the question."""
        request = next(self._requests)
        self._turns.ask(request)
        try:
            self.flushes += bool(self._queue)
            self._drop()  # before the question: what was dropped by now is not counted in its answer
            self._queue.append(((kind, request, *fields), None))
            self._flush()
            self._batch = FIRST
        except BaseException:
            self.forget(request)
            raise
        return request

    def _drop(self) -> None:
        """Queue what is to be forgotten."""
        if not self.drops:
            return
        with self._flushing:  # another thread may be flushing
            ends = self.ends(len(self.drops))
        self._queue.extend([(message, None) for message in ends])

    def finish(self, request: int, within: float | None = None) -> Message:
        """Wait for the answer."""
        try:
            return self.unwrap(self._await(request, within))
        finally:
            self.forget(request)

    def forget(self, request: int) -> None:
        """Whoever reads the answer drops it: after Ctrl-C, or a time limit."""
        self._turns.forget(request)

    def _await(self, request: int, within: float | None) -> Message:
        answers = self._turns.answers
        deadline = None if within is None else time.monotonic() + within
        try:
            leads = self._turns.lead(request, within)
        except TimeoutError:
            raise _late(self.worker, within) from None
        if leads:
            self._read_until(request, deadline, within)
        if request not in answers:
            assert self._lost is not None
            raise self._lost.with_traceback(None)
        return answers[request]

    def _read_until(self, request: int, deadline: float | None, within: float | None) -> None:
        """Read for all, until the answer to ``request`` is here."""
        answers, silences = self._turns.answers, 0
        try:
            with Held() as self._socket.held:
                while request not in answers:
                    self._socket.held.between()
                    if self._lost is not None:
                        raise self._lost.with_traceback(None)
                    left = _left(deadline)
                    if self._read(self.timeout / SIGNS if left is None else min(left, self.timeout / SIGNS)):
                        silences = 0
                        continue
                    if left is not None and left <= self.timeout / SIGNS:
                        raise _late(self.worker, within)
                    silences += 1
                    if silences >= SIGNS:
                        raise ConnectionLostError(f"{self.uri} gave no sign of life for {self.timeout} s")
                    self._socket.ping()
        except ConnectionLostError as error:
            raise self._fail(error) from None
        finally:
            self._turns.pass_on()

    def _read(self, wait: float) -> bool:
        """Take in what comes within ``wait`` seconds; the caller is the leader. Whether anything came."""
        before = self._socket.pulled
        frames = self._socket.receive(wait)
        for frame in frames:
            try:
                answers = self._connection.receive(frame)
            except ProtocolError as error:
                raise self._fail(ConnectionLostError(f"{self.uri} broke the protocol: {error}")) from error
            for answer in answers:
                self._deliver(answer)
        return bool(frames) or self._socket.pulled != before

    def _deliver(self, answer: Message) -> None:
        if answer[0] == m.ERROR and answer[1] == 0:
            try:
                self.unwrap(answer)
            except Exception as cause:
                raise self._fail(ConnectionLostError(f"{self.worker} ended the session: {cause}")) from cause
        self._turns.deliver(answer[1], answer)

    def poll(self) -> None:
        """Without waiting: answer pings and notice the end, unless somebody reads anyway."""
        if not self._turns.try_to_lead():
            return
        try:
            self._read(0)
        except ConnectionLostError as error:
            self._fail(error)
        finally:
            self._turns.pass_on()

    # -- end

    def _fail(self, error: Exception) -> Exception:
        """Make ``error`` the answer to every later use, each without the frames that met it before; returns the first such error."""
        if self._lost is None:
            self._lost = error if isinstance(error, ConnectionLostError) else ConnectionLostError(str(error))
            self._lost.args = (
                f"{self._lost.args[0]}. Pointers of this session are lost with it; connect again: what the owner stored is still there",
            )
            self._queue.clear()
            self._socket.shut()
            self.cast = self._refuse  # type: ignore[method-assign]
            self._turns.end()
        return self._lost

    def _refuse(self, message: Message, site: Site = None) -> None:
        assert self._lost is not None
        raise self._lost.with_traceback(None)

    @property
    def patience(self) -> int:
        """For how many ticks what is queued may wait."""
        return self._batch // FIRST

    @property
    def waiting(self) -> bool:
        """Whether something is queued."""
        return bool(self._queue or self.drops)

    @property
    def open(self) -> bool:
        """Whether the connection still stands, as far as is known."""
        return self._lost is None

    def close(self) -> None:
        """Send what is queued and end the session."""
        if self._lost is None:
            with contextlib.suppress(SyftliteError):
                self.flush()
            self._socket.say_goodbye()
            self._fail(ConnectionLostError(f"this connection to {self.worker} was closed"))
        self._tender.wake()
        self._socket.close()

    def __del__(self) -> None:
        if hasattr(self, "_socket"):
            self._socket.close()

    def forked(self) -> None:
        """In a fork's child: forget the connection, which the parent goes on using."""
        self._lost = ForkedConnectionError(f"the connection to {self.worker} belongs to the parent process: connect again in this one")
        self.cast = self._refuse  # type: ignore[method-assign]
        self._flushing = threading.Lock()
        self._uploading = threading.BoundedSemaphore(MAX_STREAMS)
        self._turns = Turns()
        self._socket.close()


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(deadline - time.monotonic(), 0.0)


def _late(worker: str, within: float | None) -> TimeoutError:
    return TimeoutError(f"{worker} did not answer within {within} s")


_live: weakref.WeakSet[SocketTransport] = weakref.WeakSet()


def _after_fork() -> None:
    for transport in list(_live):
        transport.forked()


os.register_at_fork(after_in_child=_after_fork)
