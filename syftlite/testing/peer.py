"""A client's end of a door without a socket, a pointer or time: messages or raw frames in, answers out."""

from __future__ import annotations

import torch

from syftlite.engine.door import Door
from syftlite.engine.engine import Engine
from syftlite.engine.session import Principal, Role
from syftlite.ops.table import BY_FUNC, VERSION
from syftlite.wire import messages as m
from syftlite.wire.connection import Connection, State
from syftlite.wire.messages import Message

SECRET = "right"


def number_of(overload: torch._ops.OpOverload) -> int:
    """The wire number of an ATen overload."""
    return BY_FUNC[overload].number


class Peer:
    """A connection to ``engine`` as ``name``, past the handshake unless ``shake`` is False.

    ``frames`` keeps every frame that came back. ``quick``: as on an event loop, what takes microseconds is tried there first.
    """

    def __init__(
        self, engine: Engine, name: str = "ann", role: Role = Role.SCIENTIST, *, shake: bool = True, quick: bool = False
    ) -> None:
        self.principal, self.quick = Principal(name, role), quick
        self.door = Door(engine, lambda scheme, secret: self.principal if secret == SECRET else None)
        self.connection = Connection(worker=False, reserve=lambda nbytes: None)
        self.frames: list[bytes] = []
        self.prefix = 0
        if shake:
            self.shake()

    def shake(self, secret: str = SECRET, scheme: str = "token") -> list[Message]:
        """Go through the handshake; the answers to its last step."""
        answers = self.say((m.HELLO, m.PROTOCOLS, VERSION, str(torch.__version__)))
        if answers[0][0] == m.GREETING:
            answers = self.say((m.AUTH, scheme, secret))
        if answers[0][0] == m.WELCOME:
            self.prefix = answers[0][1]
            self.connection.state, self.connection.session = State.OPEN, self.prefix
        return answers

    def id(self, count: int) -> int:
        """The session's id number ``count``."""
        return (self.prefix << 32) + count

    def say(self, *batch: Message) -> list[Message]:
        """Send messages; the answers."""
        return [answer for frame in self.connection.frames(batch) for answer in self.send(b"".join(frame))]

    def send(self, frame: bytes) -> list[Message]:
        """Let the door have any bytes, and carry out what they mean."""
        self.door.receive(frame)
        return self.settle()

    def settle(self) -> list[Message]:
        """Let the door carry out all that waits; the answers."""
        answers: list[Message] = []
        door = self.door
        while door.outbox or (door.inbox and door.closing is None):
            if not (self.quick and door.run_quick()):
                door.run()
            for frame in door.frames():
                self.frames.append(b"".join(frame))
                answers += self.connection.receive(self.frames[-1])
        return answers

    def leave(self) -> None:
        """Break the connection."""
        self.door.leave()
