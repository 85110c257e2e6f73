"""The engine: one worker's sessions and the meaning of every message. Pure and synchronous: its transport decides when it runs."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import count

import torch

from syftlite.dp.ledger import Ledger
from syftlite.engine import executor, programs
from syftlite.engine.access import kinds_of, refusal
from syftlite.engine.admission import Deferred
from syftlite.engine.aggregation import Aggregation
from syftlite.engine.answers import failure
from syftlite.engine.arrivals import Arrivals
from syftlite.engine.catalogue import Catalogue
from syftlite.engine.deliveries import Deliveries
from syftlite.engine.device import device_of
from syftlite.engine.executor import Poisoned
from syftlite.engine.gate import Gate, only_owner, speaker
from syftlite.engine.governing import Governing
from syftlite.engine.journal import Clock, Datasets, History, Journal, MemoryHistory, MemoryJournal, NoDatasets, NoPeers, Peers
from syftlite.engine.kinds import RELEASING, SLOW, WAITS_FOR_DEVICE
from syftlite.engine.marks import Mark
from syftlite.engine.measuring import Measuring
from syftlite.engine.objects import Objects
from syftlite.engine.pending import Pending
from syftlite.engine.policies import Policies
from syftlite.engine.releases import Releases
from syftlite.engine.requests import Release, Store
from syftlite.engine.serving import Serving
from syftlite.engine.session import DEFAULT_MAX_BYTES, Card, Principal, Role, Session, Stored
from syftlite.engine.sharing import Sharing
from syftlite.errors import (
    IdNotUniqueError,
    ProtocolError,
    RemoteError,
)
from syftlite.ops.dtypes import number_of
from syftlite.policy.columns import columns_in
from syftlite.policy.rules import Policy, from_json
from syftlite.secagg.identity import Identity
from syftlite.wire import messages as m
from syftlite.wire.messages import Message


class Engine:
    """Worker ``name``: what it stores, who may see it, and the answer to each message.

    Messages must have been checked (`wire.messages.check`); what depends on the session is checked here. ``journal``, ``datasets``,
    ``clock`` and ``bits`` (random ones, for sessions' ids) are its only contact with the world. ``device``: where its tensors are kept, as
    torch names it; None for main memory. ``identity``: its key in secure aggregation, ``aggregates_with``: the keys of those that PRIVATE
    data may be added with (engine/aggregation.py).
    """

    def __init__(
        self,
        name: str,
        *,
        journal: Journal | None = None,
        datasets: Datasets | None = None,
        peers: Peers | None = None,
        clock: Clock = time.time,
        bits: Callable[[int], int] = secrets.randbits,
        max_bytes: int = DEFAULT_MAX_BYTES,
        device: str | None = None,
        history: History | None = None,
        policies: Mapping[str, Policy] | None = None,
        identity: Identity | None = None,
        aggregates_with: Mapping[str, bytes] | None = None,
        registered: Mapping[str, bytes] | None = None,
        requests: Store | None = None,
        secret: bytes | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        self.name = name
        self.identity = identity if identity is not None else Identity()
        self.aggregates_with = aggregates_with
        self.ledger = ledger if ledger is not None else Ledger()
        self.device = device_of(device)
        self._slow = SLOW if self.device is None else SLOW | WAITS_FOR_DEVICE
        self.max_bytes = max_bytes
        self.journal = journal if journal is not None else MemoryJournal()
        self.datasets = datasets if datasets is not None else NoDatasets()
        self.peers = peers if peers is not None else NoPeers()
        self.policies = Policies(name, history if history is not None else MemoryHistory(), clock, policies, registered)
        self.gate = Gate(name, self.journal, clock, self.policies, requests, secret)
        self.arrivals = Arrivals(clock)
        self.deliveries = Deliveries(self)
        self.serving = Serving(self)
        self.bits = bits
        self.sessions: dict[int, Session] = {}
        self.lock = threading.RLock()  # sessions, vault and names; a session's own objects belong to its lane
        self._moving = threading.RLock()  # a value to the vault, or while it is looked for what a closed one protected
        self.vault = self.open_session(Principal(name, Role.OWNER))
        self.vault.steady = True
        self.names: dict[str, int] = {}
        self._storing: set[str] = set()
        self._vault_ids = count((self.vault.prefix << 32) + 1)
        self._releases = Releases(self)
        self._handlers: dict[int, Callable[..., Message | Pending | None]] = {
            m.STORE: self._store,
            **Objects(self).handlers,
            **programs.HANDLERS,
            **Governing(self).handlers,
            **Catalogue(self).handlers,
            **self._releases.handlers,
            **self.deliveries.handlers,
            **Sharing(self).handlers,
            **self.serving.handlers,
            **Aggregation(self).handlers,
            **Measuring(self).handlers,
        }
        for dataset in self.datasets.load_all():
            policy = self._stated(dataset.name, dataset.tensor, dataset.description)
            if policy is None and dataset.policy:
                policy = from_json(dataset.name, dataset.policy)
            self.load(dataset.name, dataset.tensor, dataset.tags, dataset.description, private=dataset.private, policy=policy)

    # -- sessions

    def open_session(self, principal: Principal, scope: frozenset[str] | None = None) -> Session:
        """A new, empty namespace for ``principal``, who may do within ``scope`` what its role may (access.py)."""
        with self.lock:
            while (prefix := self.bits(31) | 1) in self.sessions:
                pass
            session = self.sessions[prefix] = Session(prefix, principal, self.max_bytes)
            session.policies, session.reclaim = self.policies, self.arrivals.expire
            session.kinds = kinds_of(principal.role, scope)
            session.device = None if self.device is None else self.device.torch
            return session

    def close_session(self, session: Session) -> None:
        """Forget the session and all that it holds."""
        try:
            self.account(session)
        finally:  # also where the journal cannot be written
            self._forget(session)

    def _forget(self, session: Session) -> None:
        self.arrivals.forget(session)
        if session.delivers is not None:
            self.arrivals.abandon(session.delivers.values())
        with self.lock:
            self.sessions.pop(session.prefix, None)
        for number in list(session.objects):  # nobody waits for the lock meanwhile: there may be a million
            session.drop(number)
        if session.protected:
            with self._moving:  # a value of these that is on its way to another name is there, or is not
                self.policies.forget(set(session.protected) - self._sources())
        for member in session.members.values():
            member.leave("the client is gone")
        self.serving.left(session)

    def _sources(self) -> set[str]:
        """The datasets that anything here was made of."""
        cells = (cell for session in list(self.sessions.values()) for _, cell in session.stored().values())
        return {source for cell in cells if cell.mark is not None for source in cell.mark.sources}

    # -- messages

    def account(self, session: Session) -> None:
        """Put what ``session`` did with labelled data since the last time into the audit trail: after each frame, and before a release."""
        trail = session.trail
        if trail is not None and trail.touched:
            session.unsettled.settle()
            self.journal.note("frame", trail.record(session.principal.name, session.prefix))

    def handle(self, session: Session, message: Message) -> Message | Pending | None:
        """Carry out one message and return its answer, if it has one.

        Raises `Deferred` (only while ``session.quick``, and then nothing has happened) and `ProtocolError`, which ends the connection.
        """
        kind = message[0]
        answer: Message | Pending | None
        try:
            if session.delivers is not None:
                answer = self.deliveries.take(session.delivers, message)
            elif kind not in session.kinds:
                answer = self._refuse(session, message)
            elif kind == m.OP:
                _, number, args, kwargs, outs = message
                executor.run(session, number, args, kwargs, outs)
                answer = None
            elif session.quick and kind in self._slow:
                raise Deferred
            else:
                if kind in RELEASING:
                    self.account(session)
                answer = self._handlers[kind](session, *message[1:])
        except (Deferred, ProtocolError):
            raise
        except Exception as error:
            answer = failure(message, error)
        session.executed += 1
        return answer

    def _refuse(self, session: Session, message: Message) -> Message | None:
        """Answer a message that its sender may not send; one that has no answer ends the connection."""
        error = refusal(session, message[0])
        if message[0] not in m.ANSWERED:
            raise ProtocolError(str(error)) from error
        return failure(message, error)

    def arrive(self, tensor: torch.Tensor) -> torch.Tensor:
        """``tensor`` where this worker keeps its own."""
        return tensor if self.device is None else self.device.arrive(tensor)

    def leave(self, tensor: torch.Tensor) -> torch.Tensor:
        """``tensor`` in main memory. Raises `Misuse` for one of a dtype that does not travel."""
        number_of(tensor.dtype)
        return tensor if self.device is None else self.device.leave(tensor)

    def file_for(self, session: Session, user: str, numbers: Sequence[int], reason: str) -> Release:
        """File ``user``'s request for objects of ``session``, whose principal speaks for ``user``. Raises `GetNotPermittedError`."""
        return self._releases.file(session, speaker(session, user), numbers, reason)

    # -- datasets

    def _store(
        self, session: Session, request: int, number: int, name: str, tags: Sequence[str], description: str, private: bool
    ) -> Message:
        only_owner(session.principal)
        tensor, cell = session.look_up(number)
        if cell.mark is not None and cell.mark.poison is not None:
            raise Poisoned(cell.mark.poison)
        if tensor is None:
            raise RemoteError("the upload failed: send it again")
        if cell.label.shared:
            self.gate.permit(session.principal, cell.label)
        private = private or cell.label.private
        inherited = self.policies.inherited(cell.label.sources) if cell.label.private else None
        policy = inherited or self._stated(name, tensor, description)
        if policy is not None:
            self.policies.must_have_unit(name, tensor, policy)  # what a node could not load again is not stored
        with self.lock:
            self._unused(name)
            self._storing.add(name)  # the lock is not held while the disk works: nobody else waits for it
        try:
            kept = () if inherited is None else (json.dumps(inherited.tables()),)
            self.datasets.save(name, self.leave(tensor), list(tags), description, private, *kept)
            self.journal.append("stored", {"dataset": name, "private": private, "by": session.principal.name})
        finally:
            self._storing.discard(name)
        self.load(name, tensor, tags, description, private=private, policy=policy)
        return (m.DONE, request)

    def _stated(self, name: str, tensor: torch.Tensor, description: str) -> Policy | None:
        return self.policies.stated(name, columns_in(description, tensor.shape[-1] if tensor.dim() > 1 else 0))

    def _unused(self, name: str) -> None:
        if name in self.names or name in self._storing:
            raise IdNotUniqueError(f"{self.name} already has a dataset {name!r}: choose another name")

    def load(
        self,
        name: str,
        tensor: torch.Tensor,
        tags: Sequence[str] = (),
        description: str = "",
        *,
        private: bool = False,
        policy: Policy | None = None,
    ) -> int:
        """Make an owned copy of ``tensor`` a dataset, found by its tags; ``private``: PRIVATE, under ``policy``. Returns its id."""
        with self._moving, self.lock:
            self._unused(name)
            number = next(self._vault_ids)
            kept = self.arrive(tensor.detach().clone(memory_format=torch.contiguous_format))
            policy = policy or self._stated(name, tensor, description)
            mark = Mark(self.policies.admit(name, kept, policy), None) if private or policy is not None else None
            self.vault.put(number, kept, mark)
            self.vault.describe(number, Card(tuple(tags), description))
            self.names[name] = number
            return number

    @property
    def objects(self) -> dict[int, Stored]:
        """Everything stored, by id, over all sessions."""
        return {number: stored for session in list(self.sessions.values()) for number, stored in session.stored().items()}
