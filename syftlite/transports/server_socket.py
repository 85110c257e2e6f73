"""One connection of a node: the `websockets` library's sans-I/O protocol on an asyncio transport, feeding a lane."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import threading
import time
from concurrent.futures import Executor

from websockets.frames import Frame as WebsocketFrame
from websockets.frames import Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from syftlite.engine.door import Door
from syftlite.transports.lanes import Lane
from syftlite.transports.socket import SPIN
from syftlite.wire.codec import BEFORE_AUTH, INLINE, MAX_FRAME
from syftlite.wire.connection import Frame

log = logging.getLogger("syftlite.server")
HANDSHAKE_SECONDS = 10.0
PING_SECONDS = 20.0
CLOSE_SECONDS = 5.0


class Linger:
    """Keeps the event loop looking for the next message instead of sleeping, where messages follow each other within `SPIN` seconds.

    A client that waits for each answer sends again 30 us later; to be woken for that takes as long as to serve it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._last = self._until = 0.0
        self._turning = False

    def touch(self) -> None:
        """A message was served."""
        now = time.monotonic()
        if now - self._last < SPIN:
            self._until = now + SPIN
            if not self._turning:
                self._turning = True
                self._loop.call_soon(self._turn)
        self._last = now

    def _turn(self) -> None:
        self._turning = time.monotonic() < self._until
        if self._turning:
            self._loop.call_soon(self._turn)


class ServerSocket(asyncio.Protocol):
    """One connection: the `websockets` library's sans-I/O protocol on an asyncio transport, feeding a lane."""

    def __init__(
        self, door: Door, pool: Executor, closing: Executor, loop: asyncio.AbstractEventLoop, registry: set[ServerSocket]
    ) -> None:
        self.blocked = False
        self._wire = threading.RLock()  # the protocol, and what is written: lanes answer on their own threads
        self._owed = b""  # what the socket did not take from them
        self._secure = True
        self._linger = Linger(loop)
        self._loop, self._registry = loop, registry
        self._protocol = ServerProtocol(origins=[None], max_size=BEFORE_AUTH)
        self._fragments = bytearray()  # a list would grow by each empty one
        self._ignoring = False
        self._admitted = False
        self._door = door
        self._lane = Lane(door, self, pool, closing, loop)
        self._timer: asyncio.TimerHandle | None = None
        self.since = 0.0

    # -- asyncio calls these

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A peer connected."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._registry.add(self)
        self.since = self._loop.time()
        _keep_alive(transport)
        self._secure = transport.get_extra_info("sslcontext") is not None or os.name != "posix"
        if not self._secure:
            transport.set_write_buffer_limits(high=0)  # blocked while anything waits, which `write_here` must not overtake
        self._timer = self._loop.call_later(HANDSHAKE_SECONDS, self._late)

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        protocol = self._protocol
        with self._wire:
            protocol.receive_data(data)
            events = protocol.events_received()
        for event in events:
            if isinstance(event, WebsocketFrame):
                if event.opcode is Opcode.BINARY or (event.opcode is Opcode.CONT and not self._ignoring):
                    self._take(event)
                elif event.opcode is Opcode.TEXT or event.opcode is Opcode.CONT:
                    self._ignoring = not event.fin
            elif isinstance(event, Request):
                with self._wire:
                    protocol.send_response(protocol.accept(event))
        if not self._admitted and self._door.session is not None:
            self._admitted = True
            _allow(protocol, MAX_FRAME)
        self._flush()
        if self._lane.idle:
            self._linger.touch()

    def _take(self, frame: WebsocketFrame) -> None:
        if frame.fin and not self._fragments:
            self._lane.feed(frame.data)  # type: ignore[arg-type]
            return
        self._fragments += frame.data
        if frame.fin:
            whole, self._fragments = bytes(self._fragments), bytearray()
            self._lane.feed(whole)

    def eof_received(self) -> None:
        """The peer will send no more."""
        with self._wire:
            self._protocol.receive_eof()
            self._flush()

    def pause_writing(self) -> None:
        """The peer reads too slowly: answers wait."""
        self.blocked = True

    def resume_writing(self) -> None:
        """There is room again."""
        self.blocked = False
        self._lane.advance()

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone."""
        self._registry.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        with self._wire:
            self.blocked = True  # and the socket is closed when this returns
        self._lane.leave()

    # -- the lane calls these

    def write(self, frame: Frame) -> None:
        """Write one websocket message."""
        with self._wire:
            self._frame(frame)
            self._flush()

    def write_here(self, frame: Frame) -> bool:
        """Write it on the thread that calls, if nothing waits to be written; whether it was. What the socket does not take is left to the
        event loop."""
        with self._wire:
            if self._secure or self.blocked or self._owed or self._protocol.state is not State.OPEN or self._transport.is_closing():
                return False
            self._frame(frame)
            data = b"".join(self._protocol.data_to_send())
            sent = 0
            with contextlib.suppress(OSError):  # the event loop meets it
                sent = os.write(self._transport.get_extra_info("socket").fileno(), data)  # which stays open while it is not blocked
            if sent < len(data):
                self._owed = data[sent:]
                with contextlib.suppress(RuntimeError):  # it has ended
                    self._loop.call_soon_threadsafe(self._flush)
            return True

    def _frame(self, frame: Frame) -> None:
        protocol = self._protocol
        if protocol.state is not State.OPEN:
            return
        if len(frame) == 1:
            protocol.send_binary(frame[0])
        elif sum(map(len, frame)) <= INLINE:
            protocol.send_binary(b"".join(frame))
        else:
            protocol.send_binary(frame[0], fin=False)
            for part in frame[1:]:
                protocol.send_continuation(part, fin=part is frame[-1])

    def read_on(self, yes: bool) -> None:
        """Read, or stop reading."""
        if not self._transport.is_closing():
            (self._transport.resume_reading if yes else self._transport.pause_reading)()

    def end(self, reason: str, code: int = 1008) -> None:
        """Close after what is written."""
        with self._wire:
            if self._protocol.state is State.OPEN:
                self._protocol.send_close(code, reason)
                self._flush()
        self._loop.call_later(CLOSE_SECONDS, self._transport.abort)

    def go_away(self) -> None:
        """The node shuts down: say so, write what is written, and close."""
        self.end("the node is shutting down", code=1001)
        self._transport.close()

    @property
    def credential(self) -> str:
        """By which it came; "" for none that could be revoked."""
        return self._door.credential if self._door.session is not None else ""

    def revoke(self) -> None:
        """What it came by is good no more: carry out nothing further, say so and close."""
        self._door.revoke()
        self.end("your token or key was revoked or has expired")
        self._transport.close()

    @property
    def stranger(self) -> bool:
        """Whether it has not said yet who it is."""
        return self._door.session is None

    def abort(self) -> None:
        """Close now."""
        self._transport.abort()

    # -- timers

    def _late(self) -> None:
        if self._door.session is None:
            log.info("a connection did not authenticate within %s s", HANDSHAKE_SECONDS)
            self._transport.abort()
            return
        self._ping()

    def _ping(self) -> None:
        if self._protocol.state is State.OPEN:
            with self._wire:
                self._protocol.send_ping(b"")
                self._flush()
            self._timer = self._loop.call_later(PING_SECONDS, self._ping)

    def _flush(self) -> None:
        transport = self._transport
        with self._wire:
            owed, self._owed = self._owed, b""
            if owed:
                transport.write(owed)
            for data in self._protocol.data_to_send():
                if data:
                    transport.write(data)
                elif transport.can_write_eof() and not transport.is_closing():
                    transport.write_eof()  # closed with bytes unread, TCP would drop what this end has just said: the peer closes first
                    self._loop.call_later(CLOSE_SECONDS, transport.abort)
                else:
                    transport.close()


def _allow(protocol: ServerProtocol, nbytes: int) -> None:
    """Take messages of up to ``nbytes`` from now on. The attribute has had two names."""
    setattr(protocol, "max_message_size" if hasattr(protocol, "max_message_size") else "max_size", nbytes)


def _keep_alive(transport: asyncio.Transport) -> None:
    """Let the kernel find peers that vanished: a lane may be busy for long, so silence proves nothing here."""
    raw: socket.socket | None = transport.get_extra_info("socket")
    if raw is None:
        return
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):
            raw.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
