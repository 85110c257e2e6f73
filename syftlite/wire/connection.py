"""A connection without I/O: frames in, checked messages out; messages in, frames out.

    state        a worker accepts     leaves it by
    GREETING     HELLO                answering GREETING
    AUTHENTIC    AUTH                 answering WELCOME, perhaps after a CHALLENGE
    OPEN         all but the two      close
    CLOSED       nothing

Before OPEN a frame is at most BEFORE_AUTH bytes and one message. Every message has a sequence number; a gap, a repetition or a foreign
session in a head is a `ProtocolError`: a link that loses or reorders frames ends the connection and never runs a message twice or out
of order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import Enum, auto
from typing import Any

import torch

from syftlite.errors import FrameTooLargeError, ProtocolError, QuotaExceededError, SyftliteError
from syftlite.wire import codec, messages
from syftlite.wire.codec import BEFORE_AUTH, INLINE, MAX_FRAME, MAX_HEAD, PIECE, Buffer, Head
from syftlite.wire.fields import MAX_ID, MAX_ITEMS
from syftlite.wire.messages import AUTH, CHALLENGE, CHUNK, ERROR, GREETING, HELLO, OP, PUT, VALUES, WELCOME, Form, Message

Frame = tuple[Buffer, ...]
"""Buffers that together are one websocket message."""

MAX_STREAMS = 64
"""That a client may have open at once. A worker's answer may have as many as it has values."""


class State(Enum):
    """How far a connection has come."""

    GREETING = auto()
    AUTHENTIC = auto()
    OPEN = auto()
    CLOSED = auto()


def _refuse_everything(nbytes: int) -> None:
    raise ProtocolError("no stream may open before the session does")


class _Stream:
    """A large tensor on its way in. A refused one takes no memory: its bytes are dropped, and its message carries the refusal."""

    __slots__ = ("filled", "raw", "refusal", "total")

    def __init__(self, total: int, raw: torch.Tensor | None, refusal: SyftliteError | None) -> None:
        self.total, self.raw, self.refusal, self.filled = total, raw, refusal, 0


class Connection:
    """One end. ``worker`` says which.

    ``reserve(nbytes)`` is called before memory for a stream is taken, with the bytes that all open streams then hold. It refuses by
    raising `QuotaExceededError`, and the PUT that names the stream comes with that error in its tensor's place.
    """

    def __init__(self, *, worker: bool, reserve: Callable[[int], None] = _refuse_everything) -> None:
        self.worker = worker
        self.state = State.GREETING
        self.session = 0
        self.sent = 0
        self.received = 0
        self.acknowledged = 0
        self.reserve = reserve
        self.arrived = 0
        """Bytes of all tensors that have come: those of a stream are here, or `opened`, at any moment."""
        self._streams: dict[int, _Stream] = {}
        self._opening = 0
        self._next_stream = 0

    @property
    def opened(self) -> int:
        """Bytes that the streams which are open hold, or which one that is about to open will."""
        return self._opening + sum(s.total for s in list(self._streams.values()) if s.raw is not None)

    # -- out

    def frames(self, batch: Sequence[Message]) -> Iterator[Frame]:
        """Frames that carry ``batch``, in order. Each takes its sequence numbers when drawn: draw and write under one lock."""
        light: list[Message] = []
        for message in batch:
            if message[0] == VALUES or (message[0] == PUT and isinstance(message[2], torch.Tensor)):
                if light:
                    yield from self._split(light)
                    light = []
                yield from self._with_tensors(message)
            else:
                light.append(message)
        if light:
            yield from self._split(light)

    def _head(self) -> Head:
        return Head(self.session, self.sent, self.received, 0)

    def _split(self, batch: Sequence[Message]) -> Iterator[Frame]:
        try:
            head = codec.pack(self._head(), batch)
        except FrameTooLargeError:
            if len(batch) == 1:
                raise
            half = len(batch) // 2
            yield from self._split(batch[:half])
            yield from self._split(batch[half:])
            return
        self.sent += len(batch)
        yield (head,)

    def _with_tensors(self, message: Message) -> Iterator[Frame]:
        tensors: Sequence[torch.Tensor] = [message[2]] if message[0] == PUT else message[2]
        described, inline, streams, room = [], [], [], INLINE
        for tensor in tensors:
            nbytes = tensor.numel() * tensor.element_size()
            if nbytes <= room:
                room -= nbytes
                described.append(codec.describe(tensor))
                inline.append(codec.buffer_of(tensor))
            else:
                self._next_stream += 1
                described.append(codec.describe(tensor, self._next_stream))
                streams.append((self._next_stream, tensor))
        field: Any = described[0] if message[0] == PUT else described
        batch = [(*message[:2], field, *message[3:])]
        if streams:
            codec.pack(Head(MAX_ID, MAX_ID, MAX_ID, 0), batch)  # what will not fit is refused before any piece is sent
        for stream, tensor in streams:
            yield from self._chunks(stream, codec.buffer_of(tensor))
        head = codec.pack(self._head(), batch)
        self.sent += 1
        yield (head, *inline)

    def stream(self, tensor: torch.Tensor) -> tuple[Any, Iterator[Frame]]:
        """The head's form of ``tensor``, to stand for it in a later message, and the frames to send before that, among any others."""
        self._next_stream += 1
        return codec.describe(tensor, self._next_stream), self._chunks(self._next_stream, codec.buffer_of(tensor))

    def give_up(self, stream: int, total: int, sent: int) -> Frame:
        """The frame by which a stream of which ``sent`` bytes have gone ends: its tensor does not come."""
        head = codec.pack(self._head(), [(CHUNK, stream, total, sent, 0)])
        self.sent += 1
        return (head,)

    def _chunks(self, stream: int, data: memoryview) -> Iterator[Frame]:
        for offset in range(0, len(data), PIECE):
            piece = data[offset : offset + PIECE]
            head = codec.pack(self._head(), [(CHUNK, stream, len(data), offset, len(piece))])
            self.sent += 1
            yield (head, piece)

    # -- in

    @property
    def forms(self) -> dict[int, Form]:
        """What may arrive in this state."""
        if not self.worker:
            return _FROM_WORKER if self.state is State.OPEN else _SHAKING
        if self.state is State.GREETING:
            return {HELLO: messages.FROM_CLIENT[HELLO]}
        if self.state is State.AUTHENTIC:
            return {AUTH: messages.FROM_CLIENT[AUTH]}
        return _IN_SESSION

    def receive(self, frame: bytes) -> list[Message]:
        """The messages of ``frame``, checked, their tensors owned copies. After a `ProtocolError` the connection is CLOSED."""
        if self.state is State.CLOSED:
            raise ProtocolError("the connection is closed")
        try:
            return self._receive(frame)
        except Exception:
            self.state = State.CLOSED
            self._streams.clear()
            raise

    def _receive(self, frame: bytes) -> list[Message]:
        limit = MAX_FRAME if self.state is State.OPEN or not self.worker else BEFORE_AUTH
        if len(frame) > limit:
            raise FrameTooLargeError(f"a frame of {len(frame)} bytes exceeds {limit}")
        head, batch, rest = codec.unpack(frame, min(limit, MAX_HEAD))
        if head.sequence != self.received:
            raise ProtocolError(f"expected message {self.received}, got {head.sequence}: frames were lost, repeated or reordered")
        if head.session != self.session:
            raise ProtocolError(f"the head names session {head.session}, this connection is session {self.session}")
        if not self.acknowledged <= head.acknowledged <= self.sent:
            raise ProtocolError(f"acknowledges message {head.acknowledged} of {self.sent}")
        self.acknowledged = head.acknowledged
        self.received += len(batch)
        if self.worker and self.state is not State.OPEN and len(batch) != 1:
            raise ProtocolError("before the session is open a frame carries one message")
        forms = self.forms
        done: list[Message] = []
        for message in batch:
            if type(message) is tuple and len(message) == 5 and message[0] == OP and type(message[0]) is int and OP in forms:
                done.append(message)  # the executor checks an operator's operands against its schema
                continue
            messages.check(message, forms)
            kind = message[0]
            if kind == CHUNK:
                rest = self._chunk(message, rest)
            elif kind == PUT:
                tensor, rest = self._tensor(message[2], rest)
                done.append((*message[:2], tensor, *message[3:]))
            elif kind == VALUES:
                tensors = []
                for described in message[2]:
                    tensor, rest = self._tensor(described, rest)
                    tensors.append(tensor)
                done.append((*message[:2], tensors))
            else:
                done.append(message)
        if rest:
            raise ProtocolError(f"{len(rest)} bytes of the frame belong to no tensor")
        return done

    def _chunk(self, message: Message, rest: memoryview) -> memoryview:
        _, stream, total, offset, length = message
        if not 0 <= length <= len(rest) or length > PIECE or (length == 0 and stream not in self._streams):
            raise ProtocolError(f"CHUNK says {length} bytes, the frame has {len(rest)}")
        if offset == 0:
            most = MAX_STREAMS if self.worker else MAX_ITEMS
            if stream == 0 or stream in self._streams or len(self._streams) >= most:
                raise ProtocolError(f"stream {stream} cannot open: 0, open already, or more than {most} at once")
            self._streams[stream] = self._open(total)
            self._opening = 0
        opened = self._streams.get(stream)
        if opened is None or offset != opened.filled or total != opened.total or offset + length > total:
            filled = opened.filled if opened else 0
            raise ProtocolError(f"stream {stream} is at {filled}; its next CHUNK must start there and stay within its total")
        if opened.raw is not None:
            opened.raw.numpy().data[offset : offset + length] = rest[:length]
        opened.filled += length
        if length == 0:
            del self._streams[stream]
        return rest[length:]

    def _open(self, total: int) -> _Stream:
        self._opening = total  # held before it is looked at: so does who takes of the same room in another thread
        try:
            self.reserve(self.opened)
            return _Stream(total, torch.empty(total, dtype=torch.uint8), None)
        except QuotaExceededError as refusal:
            return _Stream(total, None, refusal)
        except (RuntimeError, MemoryError) as error:  # torch's allocator raises RuntimeError
            if isinstance(error, SyftliteError):
                raise
            return _Stream(total, None, QuotaExceededError(f"there is no memory here for {total:,} bytes"))

    def _tensor(self, described: Sequence[Any], rest: memoryview) -> tuple[torch.Tensor | SyftliteError, memoryview]:
        dtype, shape, stream = described
        if type(stream) is not int:
            raise ProtocolError("a stream is a number")
        nbytes = codec.size_of(dtype, shape)
        if stream:
            opened = self._streams.get(stream)
            if opened is None or not opened.filled == opened.total == nbytes:
                raise ProtocolError(f"stream {stream} does not hold the {nbytes} bytes of a {tuple(shape)} tensor")
            self.arrived += 0 if opened.raw is None else nbytes
            del self._streams[stream]
            if opened.raw is None:
                assert opened.refusal is not None
                return opened.refusal, rest
            return codec.tensor_of(dtype, shape, opened.raw), rest
        if nbytes > len(rest):
            raise ProtocolError(f"a tensor of {nbytes} bytes, but the frame has {len(rest)} left")
        self.arrived += nbytes
        return codec.tensor_of(dtype, shape, bytearray(rest[:nbytes])), rest[nbytes:]


_IN_SESSION = {kind: form for kind, form in messages.FROM_CLIENT.items() if kind not in (HELLO, AUTH)}
_SHAKING = {kind: messages.FROM_WORKER[kind] for kind in (GREETING, WELCOME, CHALLENGE, ERROR)}
_FROM_WORKER = {kind: form for kind, form in messages.FROM_WORKER.items() if kind not in (GREETING, WELCOME, CHALLENGE)}
