"""The door: one connection's way to the engine. Bytes in, work to do, frames out; the same behind a socket and in the simulator.

    receive(frame)  ->  inbox of checked messages     (the handshake is answered here)
    run(...)        ->  frames with the answers       (the lane decides on which thread)
    later           ->  the same for answers that come later
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import torch

from syftlite.engine.access import Admission
from syftlite.engine.admission import Deferred
from syftlite.engine.engine import Engine
from syftlite.engine.kinds import TOGETHER
from syftlite.engine.pending import Pending
from syftlite.engine.session import Principal, Session
from syftlite.errors import (
    AuthenticationError,
    ProtocolError,
    ProtocolVersionError,
    QuotaExceededError,
    RemoteError,
    SyftliteError,
    code_of,
)
from syftlite.ops.table import VERSION
from syftlite.wire import login
from syftlite.wire import messages as m
from syftlite.wire.connection import Connection, Frame, State
from syftlite.wire.fields import MAX_TEXT
from syftlite.wire.messages import Message
from syftlite.wire.signatures import signed_by

Authenticate = Callable[[str, str], Admission | Principal | None]
"""(scheme, secret) -> who it is, or None. Scheme "token", or "key": the secret is then a public key whose owner is there."""

log = logging.getLogger("syftlite.engine")
QUICK_MESSAGES = 8
"""More messages than this go to a pool thread, however small they are."""

MAX_ANSWERS = 256
"""Answers that may wait to be framed; more messages are carried out when these are on their way."""
LARGE = frozenset({m.VALUES, m.SPECS, m.FOUND, m.RELEASES, m.REPORT})
"""Answers that are framed before another message is carried out: VALUES since that message may change what was released, the others
so that a frame full of small questions cannot make a heap of large answers."""
WAITING = TOGETHER | {m.SHIP}
"""Messages that wait for another worker."""
SLICE = 0.25
"""Seconds after which a lane gives its pool thread back, once a message is done: others wait for it, or the program's end does."""
GRACE = 1 << 16
"""How far failed results, which are stored too, may exceed the session's number of objects before the connection ends."""


class Door:
    """One connection at worker ``engine``. ``closing`` is set when the connection must end, after its last frames. ``channel``: what
    binds a login to it (wire/login.py). ``credential``: by which its session came, "" for none that could be revoked."""

    def __init__(self, engine: Engine, authenticate: Authenticate, channel: bytes = b"") -> None:
        self.engine = engine
        self.authenticate, self.channel = authenticate, channel
        self.credential = ""
        self._versions: tuple[Sequence[int], int] = ((), 0)
        self._claimed: tuple[bytes, str, str] | None = None  # a public key and two nonces, until the proof comes
        self.connection = Connection(worker=True, reserve=self._reserve)
        self.session: Session | None = None
        self.inbox: deque[Message] = deque()
        self.outbox: list[Message] = []
        self.closing: str | None = None
        self.later: Callable[[Message], None] = self.post
        """What is done with an answer that comes later, on the thread of whoever has it."""
        self._carried_out = 0  # bytes of tensors, counted by the thread that runs

    @property
    def waiting(self) -> int:
        """Bytes of the tensors in the inbox."""
        return self.connection.arrived - self._carried_out

    def _reserve(self, nbytes: int) -> None:
        if self.session is None:
            raise ProtocolError("no stream may open before the session does")
        delivered = self.session.delivers is not None  # what a peer has delivered is kept for the session that expects it
        self.session.reserve(nbytes + (self.connection.arrived if delivered else self.waiting))

    def receive(self, frame: bytes) -> None:
        """Take one frame in. Never raises: what breaks the protocol is answered with ERROR and closes."""
        if self.closing is not None:
            return
        try:
            for message in self.connection.receive(frame):
                if self.connection.state is State.OPEN:
                    self.inbox.append(message)
                else:
                    self._shake(message)
        except Exception as error:
            self._close(error)

    def _shake(self, message: Message) -> None:
        connection = self.connection
        if self.session is not None:
            raise ProtocolError("wait for WELCOME")
        if message[0] == m.HELLO:
            shared = [p for p in m.PROTOCOLS if p in message[1]]
            if not shared:
                raise ProtocolVersionError(f"this node speaks protocol {m.PROTOCOLS}, you offered {message[1]}: upgrade the older side")
            connection.state, self._versions = State.AUTHENTIC, (message[1], shared[0])
            self.outbox.append((m.GREETING, shared[0], self.engine.name, VERSION, str(torch.__version__)))
            return
        _, scheme, secret = message
        if scheme == "key" and self._claimed is None:
            self._challenge(secret)
            return
        self.session = self._admit(scheme, secret)
        self.session.coming = lambda: self.connection.opened + self.waiting
        principal = self.session.principal
        self.outbox.append((m.WELCOME, self.session.prefix, principal.name, principal.role.value, self.session.max_bytes))

    def _admit(self, scheme: str, secret: str) -> Session:
        if scheme == "ticket":
            expected = self.engine.arrivals.redeem(secret)
            if expected is None:
                raise AuthenticationError("the ticket is unknown, used or expired: the client asks the receiver for another")
            return self.engine.deliveries.open(expected)
        if scheme == "proof":
            scheme, secret = "key", self._proven(secret)
        elif scheme == "key":
            raise AuthenticationError("a key is claimed once a connection, and then proven")
        found = self._who(scheme, secret)
        if found is None:
            what = "key" if scheme == "key" else "token"
            remedy = "`syftlite user key add`" if scheme == "key" else "`syftlite token new`"
            raise AuthenticationError(f"the {what} is unknown, revoked or expired: ask the owner ({remedy})")
        principal, scope, self.credential = found if isinstance(found, Admission) else Admission(found)
        self.engine.journal.note("connected", {"principal": principal.name, "role": principal.role.value, "scheme": scheme})
        return self.engine.open_session(principal, scope)

    def _challenge(self, secret: str) -> None:
        claimed = login.parse(secret)
        if claimed is None:
            raise AuthenticationError("a key login is PUBLIC:NONCE, 64 hexadecimal digits each")
        nonce = login.nonce()
        self._claimed = (*claimed, nonce)
        self.outbox.append((m.CHALLENGE, nonce))

    def _proven(self, signature: str) -> str:
        """The key whose owner signed this very login. Unknown keys and wrong signatures answer alike."""
        if self._claimed is None:
            raise AuthenticationError("a proof answers a challenge, and there was none: claim a key first")
        public, theirs, ours = self._claimed
        signed = login.transcript(self.engine.name, self.channel, theirs, ours, public, *self._versions)
        raw = login.unhex(signature, 64)
        return public.hex() if raw is not None and signed_by(public, raw, signed) else ""

    def _who(self, scheme: str, secret: str) -> Admission | Principal | None:
        try:
            return self.authenticate(scheme, secret)
        except Exception:  # what is wrong with the owner's files is no stranger's business
            log.exception("cannot authenticate anyone")
            raise RemoteError("this node cannot authenticate anyone at present: its owner's log has the details") from None

    def _close(self, error: Exception) -> None:
        if not isinstance(error, SyftliteError):
            log.exception("internal error", exc_info=error)
            error = RemoteError("an internal error of the node; its log has the details")
        told = (m.ERROR, 0, code_of(error), str(error)[:MAX_TEXT], 0, 0)
        self.outbox.append(told)  # at once, for a lane's thread may be taking what is there
        self.closing = type(error).__name__

    def run_quick(self) -> bool:
        """Carry out messages that take microseconds, on the event loop's thread. Whether anything was done."""
        waiting = len(self.inbox)
        if waiting > QUICK_MESSAGES:
            return False
        self.run(quick=True)
        return len(self.inbox) < waiting

    @property
    def waits(self) -> bool:
        """Whether the next message waits for another worker: it must not hold a thread of a bounded pool."""
        return bool(self.inbox) and self.inbox[0][0] in WAITING

    def run(self, *, quick: bool = False, pooled: bool = False) -> None:
        """Carry out the inbox. ``quick``: stop, leaving the rest in the inbox, at the first operator that takes long. ``pooled``: stop
        at a message that waits for another worker, and after `SLICE`."""
        session, handle, inbox, outbox = self.session, self.engine.handle, self.inbox, self.outbox
        if session is None:
            return
        session.quick = quick
        until = time.monotonic() + SLICE
        try:
            while inbox and self.closing is None:
                message = inbox[0]
                if pooled and message[0] in WAITING:
                    break
                answer = handle(session, message)
                inbox.popleft()
                if message[0] == m.PUT:
                    self._carried_out += _nbytes(message[2])
                if isinstance(answer, Pending):
                    answer.then(self.later)
                elif answer is not None:
                    outbox.append(answer)
                    if answer[0] in LARGE or len(outbox) >= MAX_ANSWERS:
                        break
                if pooled and time.monotonic() >= until:
                    break
            if not inbox or self.closing is not None:
                self.engine.account(session)
            if len(session.objects) > session.max_objects + GRACE:
                raise QuotaExceededError(f"more than {session.max_objects:,} objects are stored: delete pointers you no longer need")
        except Deferred:
            return
        except Exception as error:
            self._close(error)

    def frames(self) -> Iterator[Frame]:
        """Frames with the answers so far. Draw and write them in order."""
        answers, self.outbox = self.outbox, []
        try:
            yield from self.connection.frames(answers)
        except Exception as error:  # an answer that cannot be sent: no later one may stand in its place
            self._close(error)
        if self.session is not None and self.connection.state is State.AUTHENTIC:
            self.connection.state, self.connection.session = State.OPEN, self.session.prefix

    def post(self, answer: Message) -> None:
        """An answer that comes later: on the thread that calls `frames`."""
        if self.closing is None:
            self.outbox.append(answer)

    def revoke(self) -> None:
        """Carry out nothing more: by what this connection came is good no more."""
        self.closing = self.closing or "revoked"
        if self.session is not None:
            self.engine.journal.append("cut off", {"principal": self.session.principal.name})

    def interrupt(self) -> None:
        """The connection is gone: a program stops at its next step, and whoever waits for this session's peers need not wait on."""
        if self.session is not None:
            self.session.gone = True
            for member in list(self.session.members.values()):
                member.leave("the client is gone")

    def leave(self) -> None:
        """The connection is gone: so is its session."""
        self.closing = self.closing or "gone"
        self.inbox.clear()
        session, self.session = self.session, None
        if session is not None:
            session.coming = int
            self.engine.close_session(session)


def _nbytes(tensor: object) -> int:
    return tensor.numel() * tensor.element_size() if isinstance(tensor, torch.Tensor) else 0
