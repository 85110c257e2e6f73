"""The client's end of a simulated link: a transport like the one over a socket, but that its waiting lets virtual time pass."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

import torch

from syftlite.errors import (
    AuthenticationError,
    ConnectionLostError,
    ProtocolError,
    ProtocolVersionError,
    SyftliteError,
    code_of,
)
from syftlite.ops.table import VERSION
from syftlite.testing.links import Link
from syftlite.transports.base import Progress, Site, Transport
from syftlite.wire import messages as m
from syftlite.wire.connection import Connection, State
from syftlite.wire.messages import Message

if TYPE_CHECKING:
    from syftlite.testing.simulator import Simulator

TICK = 0.001
"""Seconds after which what is queued is sent."""
BATCH = 16
REFUSALS = frozenset({code_of(AuthenticationError()), code_of(ProtocolVersionError())})


def brief(message: Message) -> Message:
    """``message`` without a tensor, its lists as tuples, so that what was sent and what came compare equal."""
    return tuple(message[:2]) if message[0] == m.PUT else _tuples(message)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, (list, tuple)) else value


class SimulatedTransport(Transport):
    """A scientist's session over ``link``, with ``timeout`` virtual seconds to wait for an answer.

    ``sent`` lists its messages, tensors left out: what the node has done is at all times the beginning of that list.
    """

    def __init__(self, simulator: Simulator, link: Link, token: str, timeout: float) -> None:
        super().__init__()
        self.simulator, self.link, self.timeout = simulator, link, timeout
        self.worker = link.name
        self.sent: list[Message] = []
        self._timeline = simulator.timeline
        self._connection = Connection(worker=False, reserve=lambda nbytes: None)
        self._queue: list[tuple[Message, Site]] = []
        self._ticking = False
        self._requests = count(1)
        self._answers: dict[int, Message] = {}
        self._lost: ConnectionLostError | None = None
        link.client = self
        greeting = self._shake((m.HELLO, m.PROTOCOLS, VERSION, str(torch.__version__)), m.GREETING)
        self.worker = greeting[2]
        welcome = self._shake((m.AUTH, "token", token), m.WELCOME)
        _, self.prefix, self.principal, self.role, _ = welcome
        self._connection.state, self._connection.session = State.OPEN, self.prefix

    def _shake(self, message: Message, expected: int) -> Message:
        self._send([message])
        answer = self.finish(0)
        if answer[0] != expected:
            raise ConnectionLostError(self.simulator.tagged(f"{self.worker} answered {answer[0]} where the handshake has {expected}"))
        return answer

    # -- out

    def cast(self, message: Message, site: Site = None) -> None:
        """Queue ``message``: it goes with `BATCH` others, or with the first that waits, or a millisecond later."""
        if self._lost is not None:
            raise self._lost
        self._queue.append((message, site))
        if len(self._queue) >= BATCH:
            self.flush()
        elif not self._ticking:
            self._ticking = True
            self._timeline.after(TICK, self._tick)

    def _tick(self) -> None:
        self._ticking = False
        if self._lost is None:
            self.flush()

    def flush(self) -> None:
        """Send what is queued."""
        batch = []
        for message, site in self._queue:
            self.place(len(self.sent), site)
            self.sent.append(brief(message))
            batch.append(message)
        self._queue.clear()
        for drop in self.ends(len(self.drops)):
            self.sent.append(brief(drop))
            batch.append(drop)
        self._send(batch)

    def _send(self, batch: list[Message]) -> None:
        for frame in self._connection.frames(batch):
            self.link.send(b"".join(frame), to_node=True)

    def put(
        self, number: int, tensor: torch.Tensor, tags: tuple[str, ...], description: str, progress: Progress | None = None
    ) -> None:
        """Send ``tensor``."""
        tensor = tensor.detach().clone(memory_format=torch.contiguous_format)
        self.cast((m.PUT, number, tensor, tags, description))
        if progress is not None:
            progress(tensor.numel() * tensor.element_size())

    def begin(self, kind: int, *fields: Any) -> int:
        """Send the question."""
        request = next(self._requests)
        if self._lost is None:
            self._queue.append(((kind, request, *fields), None))
            self.flush()
        return request

    def finish(self, request: int, within: float | None = None) -> Message:
        """Let time pass until it is answered, the link is lost, or ``timeout`` is over."""
        deadline = self._timeline.now + (self.timeout if within is None else within)
        self._timeline.run_until(lambda: request in self._answers or self._lost is not None, deadline)
        answer = self._answers.pop(request, None)
        if answer is None:
            raise self._fail(f"{self.worker} gave no answer within {self.timeout:g} s")
        try:
            return self.unwrap(answer)
        except SyftliteError as error:
            error.args = (self.simulator.tagged(error),)
            raise

    # -- in

    def take(self, frame: bytes) -> None:
        """A frame came."""
        if self._lost is not None:
            return
        try:
            for answer in self._connection.receive(frame):
                self._deliver(answer)
        except ProtocolError as error:
            self._fail(f"{self.worker} broke the protocol: {error}")

    def _deliver(self, answer: Message) -> None:
        if answer[0] in (m.GREETING, m.WELCOME):
            self._answers[0] = answer
        elif answer[0] == m.ERROR and answer[1] == 0:
            if answer[2] in REFUSALS:  # these are no fault of the link, and keep their class
                self._answers[0] = answer
            self._fail(f"{self.worker} ended the session: {answer[3]}")
        else:
            self._answers[answer[1]] = answer

    def lost(self, cause: str) -> None:
        """The link is gone."""
        self._fail(f"the connection to {self.worker} broke: {cause}")

    def _fail(self, text: str) -> ConnectionLostError:
        if self._lost is None:
            self._timeline.note(f"{self.link.name} is lost: {text}")
            self._lost = ConnectionLostError(self.simulator.tagged(f"{text}. Pointers of this session are lost with it: connect again"))
            self._queue.clear()
            self.link.cut("the client gave up")
        return self._lost

    def close(self) -> None:
        """Send what is queued and end the session."""
        if self._lost is None:
            self.flush()
            self.link.finish("the client closed the connection", to_node=True)
            self._lost = ConnectionLostError(self.simulator.tagged(f"this connection to {self.worker} was closed"))
