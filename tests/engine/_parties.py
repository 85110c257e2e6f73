"""Sharing groups without sockets to the world: engines of real nodes, their links through a relay that sees and may change every message.

    Scene       alice and bob hold, carol provides; each message of the client's is carried out on a thread of its member
    Wires       what a node's `PeerLinks` is: tickets, and links over socket pairs with a `Relay` between
    Relay       parses what passes and asks `Wires.meddle` what to do with it
"""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch

from syftlite.engine.engine import Engine
from syftlite.engine.journal import Parcels
from syftlite.engine.session import Cell, Role, Session
from syftlite.errors import SharingAbortedError
from syftlite.mpc.dealer import Dealer
from syftlite.mpc.kernels import NUMBERS
from syftlite.randomness import random_like
from syftlite.testing.peer import Peer
from syftlite.transports.links import BUFFERS, HEADER, STOP, StreamLink, ready
from syftlite.wire import messages as m

PATIENCE = 30.0
"""Seconds after which something hangs."""
_groups = itertools.count(1)


class Passing(NamedTuple):
    """A message on a link: ``index`` counts those of ``sender`` to ``receiver`` in this epoch."""

    sender: str
    receiver: str
    index: int
    header: bytes
    payload: bytes


Meddle = Callable[[Passing], "Sequence[bytes] | None"]
"""What passes on instead of a message; None: nothing, and the link is cut."""


def honest(passing: Passing) -> Sequence[bytes]:
    """Let everything pass."""
    return passing.header, passing.payload


class Wires:
    """Links of the node ``name`` to the others of ``scene``."""

    in_process = False

    def __init__(self, scene: Scene, name: str) -> None:
        self.scene, self.name = scene, name

    def invite(self) -> tuple[str, int]:
        ticket = os.urandom(16).hex()
        self.scene.tickets[ticket] = (self.name, queue.SimpleQueue())
        return ticket, 1

    def dial(self, uri: str, port: int, ticket: str) -> StreamLink:
        host, waiting = self.scene.tickets[ticket]
        (mine, here), (there, theirs) = _pair(), _pair()
        secret = os.urandom(32)
        Relay(self.scene, (self.name, here), (host, there))
        ends = StreamLink(ready(mine), secret), StreamLink(ready(theirs), secret)
        known = self.scene.identities
        for link, own, member in zip(ends, (self.name, host), (host, self.name), strict=True):
            link.own, link.member = known.get(own), known.get(member)
        waiting.put(ends[1])
        return ends[0]

    def accept(self, ticket: str) -> StreamLink:
        try:
            link: StreamLink = self.scene.tickets[ticket][1].get(timeout=PATIENCE)
            return link
        except queue.Empty:
            raise SharingAbortedError("nobody came") from None

    def deliver(self, uri: str, ticket: str, parcels: Parcels, tags: tuple[str, ...] = ()) -> None:
        raise AssertionError("nothing is delivered here")


def _pair() -> tuple[socket.socket, socket.socket]:
    ends = socket.socketpair()
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFERS)
    return ends


class Relay:
    """Carries messages between two ends, one thread a direction."""

    def __init__(self, scene: Scene, one: tuple[str, socket.socket], other: tuple[str, socket.socket]) -> None:
        self.scene, self._ended = scene, 0
        self._lock = threading.Lock()
        for (name, source), (to, target) in ((one, other), (other, one)):
            threading.Thread(target=self._carry, args=(name, source, to, target), daemon=True, name="relay").start()

    def _carry(self, sender: str, source: socket.socket, receiver: str, target: socket.socket) -> None:
        out: Sequence[bytes] | None = ()
        with contextlib.suppress(OSError, ValueError):
            for index in itertools.count():
                header = _read(source, HEADER.size)
                nbytes, tag = HEADER.unpack(header)
                payload = _read(source, int.from_bytes(tag, "little") if nbytes == STOP else nbytes)
                passing = Passing(sender, receiver, index, header, payload)
                if nbytes != STOP:
                    self.scene.passed.append(passing)
                out = honest(passing) if nbytes == STOP else self.scene.meddle(passing)
                if out is None:
                    break
                target.sendall(b"".join(out))
        for end, way in ((source, socket.SHUT_RD), (target, socket.SHUT_WR)):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR if out is None else way)
        self._end(source, target)

    def _end(self, *ends: socket.socket) -> None:
        """The second direction to end closes both sockets."""
        with self._lock:
            self._ended += 1
            if self._ended == 2:
                for end in ends:
                    end.close()


def _read(source: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = source.recv(count - len(data))
        if not part:
            raise ValueError("the end")
        data += part
    return data


class Scene:
    """A client and the nodes of its group. ``meddle`` may be replaced at any time."""

    def __init__(self, names: Sequence[str] = ("alice", "bob", "carol"), role: Role = Role.SCIENTIST, **engine: Any) -> None:
        self.tickets: dict[str, tuple[str, queue.SimpleQueue[StreamLink]]] = {}
        self.passed: list[Passing] = []
        self.identities: dict[str, bytes] = {}
        """Which key a node has proved to have, for those that have one."""
        self.meddle: Meddle = honest
        self.names, self.holders = names, names[:-1]
        self.engines = {name: Engine(name, peers=Wires(self, name), **engine) for name in names}
        self.peers = {name: Peer(self.engines[name], "ann", role) for name in names}
        self.pool = {name: ThreadPoolExecutor(1, f"{name} lane") for name in names}
        self.counters = {name: itertools.count(1) for name in names}
        self.group = 0

    # -- messages

    def say(self, **batches: Any) -> dict[str, list[Any]]:
        """Let each member carry out a message, or a list of them, at the same time; their answers."""
        futures = {}
        for name, batch in batches.items():
            batch = [batch] if type(batch) is tuple else batch
            futures[name] = self.pool[name].submit(self.peers[name].say, *batch)
        return {name: future.result(PATIENCE) for name, future in futures.items()}

    def ask(self, name: str, *message: Any) -> Any:
        """The one answer of a member."""
        (answer,) = self.say(**{name: message})[name]
        return answer

    def id(self, name: str) -> int:
        """A fresh id at ``name``."""
        return self.peers[name].id(next(self.counters[name]))

    def put(self, name: str, tensor: torch.Tensor) -> int:
        """The id of a copy of ``tensor`` at ``name``."""
        number = self.id(name)
        self.say(**{name: (m.PUT, number, tensor, (), "")})
        return number

    # -- as a client does

    def join(self) -> list[Any]:
        """Join a new group; the answers to JOINED."""
        self.group = next(_groups)
        return self.joined(self.join_messages())

    def join_messages(self) -> dict[str, Any]:
        """A JOIN for each member, invitations given."""
        peers: dict[str, list[Any]] = {name: [] for name in self.names}
        for low, host in enumerate(self.names):
            for high in range(low + 1, len(self.names)):
                _, _, ticket, port = self.ask(host, m.INVITE, 1, self.group)
                peers[host].append((high, "", 0, ticket))
                peers[self.names[high]].append((low, f"ws://{host}", port, ticket))
        holders = len(self.holders)
        return {name: (m.JOIN, self.group, i, holders, None, None, tuple(peers[name])) for i, name in enumerate(self.names)}

    def joined(self, joins: dict[str, Any]) -> list[Any]:
        """Join as these messages say."""
        answers = self.say(**{name: [join, (m.JOINED, 1, self.group)] for name, join in joins.items()})
        return [answers[name][0] for name in joins]

    def share(self, x: torch.Tensor) -> tuple[int, ...]:
        """Ids of the shares of ``x``."""
        shares = [random_like(tuple(x.shape)) for _ in self.holders[1:]]
        shares.append(x - sum(shares))
        return tuple(self.put(name, share) for name, share in zip(self.holders, shares, strict=True))

    def compute(self, kernel: str, *operands: tuple[int, ...], **static: Any) -> tuple[int, ...]:
        """Ids of the result's shares, healthy or not."""
        outs = tuple(self.id(name) for name in self.holders)
        self.say(**self.told(kernel, operands, static, outs))
        return outs

    def told(self, kernel: str, operands: Sequence[tuple[int, ...]], static: dict[str, Any], outs: Sequence[int]) -> dict[str, Any]:
        """What each member is told for a kernel of one result."""
        number = NUMBERS[kernel]
        first = self.engines[self.holders[0]].objects
        shapes = tuple(tuple(first[o[0]][0].shape) for o in operands)
        batches: dict[str, Any] = {self.names[-1]: (m.DEAL, self.group, number, shapes, static, (self.id(self.names[-1]),))}
        for i, name in enumerate(self.holders):
            batches[name] = (m.COMPUTE, self.group, number, tuple(o[i] for o in operands), static, (outs[i],))
        return batches

    def reveal(self, shares: Sequence[int]) -> list[Any]:
        """The answer of each holder: VALUES of its re-randomised share, or ERROR."""
        outs = [self.id(name) for name in self.holders]
        batches = {
            name: [(m.REVEAL, self.group, share, out), (m.GET, 1, (out,), True, None)]
            for name, share, out in zip(self.holders, shares, outs, strict=True)
        }
        answers = self.say(**batches)
        return [answers[name][0] for name in self.holders]

    def value(self, shares: Sequence[int]) -> torch.Tensor:
        """The value; AssertionError if a holder does not give its share."""
        answers = self.reveal(shares)
        assert [a[0] for a in answers] == [m.VALUES] * len(answers), answers
        return torch.stack([a[2][0] for a in answers]).sum(0)

    def broken(self, name: str) -> str | None:
        """Why ``name``'s membership has ended; None while it has not."""
        return self.peers[name].door.session.members[self.group].broken

    def close(self) -> None:
        for peer in self.peers.values():
            peer.leave()
        for pool in self.pool.values():
            pool.shutdown(wait=False)


@contextlib.contextmanager
def scene(*args: Any, **kwargs: Any) -> Iterator[Scene]:
    """A `Scene` that has joined, closed at the end."""
    made = Scene(*args, **kwargs)
    try:
        assert [a[0] for a in made.join()] == [m.DONE] * len(made.names)
        yield made
    finally:
        made.close()


def kernel_to(
    parties: Scene, name: str, out: int, *, kernel: str = "mul", operands: Any = None, static: dict[str, Any] | None = None
) -> dict[str, Any]:
    """What tells ``name`` of a kernel."""
    return {name: (m.COMPUTE, parties.group, NUMBERS[kernel], operands, {"f": 0} if static is None else static, (out,))}


def local(parties: Scene) -> Dealer:
    """Join alice and bob with the client as their provider; its dealer."""
    parties.names = parties.names[:2]
    parties.group += 5000
    parties.holders = ("alice",)
    seeds = [bytes([i]) * 32 for i in (1, 2)]
    joins = parties.join_messages()
    parties.holders = ("alice", "bob")
    keyed = {name: (*join[:3], 2, None, seed.hex(), join[6]) for (name, join), seed in zip(joins.items(), seeds, strict=True)}
    assert [a[0] for a in parties.joined(keyed)] == [m.DONE] * 2
    return Dealer(seeds)


def as_it_is(session: Session, number: int) -> tuple[torch.Tensor | None, Cell]:
    """`Session.take_over` as it must not be: the memory stays what other names have, too."""
    tensor, cell = session.look_up(number)
    cell.refs += 1
    session.drop(number)
    return tensor, cell
