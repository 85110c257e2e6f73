"""AGGREGATE: this worker as a client of secure aggregation (secagg/). One message a stage; what is masked leaves, the vector does not.

    stage 0 identity    1 advertise    2 share    3 mask    4 confirm    5 unmask

The server is whoever conducts: the session's client. `round` is the client's number of the round in its session. What the vector is made
of need not be PUBLIC: a masked vector leaves where the gate admits it to a sum of so many registered clients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from syftlite.dp.accountant import gaussian
from syftlite.dp.ledger import Account, Cost
from syftlite.dp.noise import variation
from syftlite.engine.accounts import accounts_of
from syftlite.engine.executor import Poisoned
from syftlite.engine.session import Principal, Role, Session
from syftlite.errors import AggregationError, GetNotPermittedError, QuotaExceededError, SendNotPermittedError
from syftlite.policy.labels import Label, join
from syftlite.secagg import packing
from syftlite.secagg.client import Client
from syftlite.secagg.terms import Terms
from syftlite.wire import messages as m
from syftlite.wire.messages import Message

if TYPE_CHECKING:
    from syftlite.engine.engine import Engine

IDENTITY, ADVERTISE, SHARE, MASK, CONFIRM, UNMASK = range(6)
MAX_ROUNDS = 64
"""Unfinished rounds of one session."""
TERMS_ROOM = 8
"""Bytes that terms take while a round is under way, for each of theirs as they travel."""


class Aggregation:
    """The handler at ``engine``, which knows the public keys of those that its owner adds PRIVATE data with (`aggregates_with`). What is
    not PRIVATE is added with whomever the conductor names."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.handlers: dict[int, Callable[..., Message | None]] = {m.AGGREGATE: self._aggregate}

    def _aggregate(
        self, session: Session, request: int, stage: int, round: int, payload: int | None, vector: Sequence[int], weight: int | None
    ) -> Message:
        given = b"" if payload is None else _bytes_of(session, payload)
        if stage == IDENTITY:
            return _answer(request, packing.pack(self.engine.identity.public))
        if stage == ADVERTISE:
            return _answer(request, packing.pack(self._enter(session, round, given).advertise()))
        entered = session.rounds.get(round)
        if entered is None:
            raise AggregationError(f"there is no round {round} here: it has ended, or failed; start another")
        client, held = entered
        try:
            if stage == SHARE:
                return _answer(request, packing.packed_map(client.share(packing.adverts(given))))
            if stage == MASK:
                return self._mask(session, request, client, packing.boxes(given), vector, weight)
            if stage == CONFIRM:
                return _answer(request, packing.pack(client.confirm(packing.places(given))))
            if stage == UNMASK:
                return _answer(request, packing.pack(client.unmask(packing.signatures(given))))
            raise AggregationError(f"there is no stage {stage}")
        finally:
            if client.done:
                del session.rounds[round]
                session.charge(-held)

    def _enter(self, session: Session, round: int, packed: bytes) -> Client:
        if len(session.rounds) >= MAX_ROUNDS or round in session.rounds:
            raise QuotaExceededError(f"{len(session.rounds)} rounds are under way, or round {round} is: finish them first")
        terms, held = Terms.unpack(packed), TERMS_ROOM * len(packed)
        session.reserve(held)
        client = Client(terms, terms.place(self.engine.name), self.engine.identity)
        session.rounds[round] = client, held
        session.charge(held)
        return client

    def _own(self, name: str) -> bytes | None:
        return self.engine.identity.public if name == self.engine.name else None

    def _mask(
        self, session: Session, request: int, client: Client, boxes: dict[int, bytes], vector: Sequence[int], weight: int | None
    ) -> Message:
        stored = [session.look_up(number) for number in vector]
        noised = client.terms.encoding.sigma > 0
        try:
            if all(tensor is not None for tensor, _ in stored):
                client.must_be_as_long(sum(tensor.numel() for tensor, _ in stored if tensor is not None))  # before any is copied
            self._admit(session, join(cell.label for _, cell in stored), client.terms)
            for tensor, cell in stored:  # only now: that a PRIVATE value failed is told to whom the sum may be
                if cell.mark is not None and cell.mark.poison is not None and not (noised and cell.label.private and tensor is not None):
                    raise Poisoned(cell.mark.poison)
        except BaseException:
            client.forget()
            raise
        session.reserve(client.terms.encoding.length(client.terms.values) * 24)  # float64, ring elements, what is sent
        # what failed on PRIVATE values has the shape that it would have had: it counts as nothing, and the noise covers that
        parts = [
            torch.zeros(tensor.numel()) if cell.poisoned else tensor.detach().reshape(-1) for tensor, cell in stored if tensor is not None
        ]
        flat = parts[0] if len(parts) == 1 and parts[0].is_floating_point() else torch.cat([part.double() for part in parts])
        rows = None if weight is None else _rows(session, weight)
        masked = client.mask(boxes, self.engine.leave(flat), rows)
        return (m.VALUES, request, [masked, torch.tensor(client.clipped, dtype=torch.float64)])

    def _admit(self, session: Session, label: Label, terms: Terms) -> None:
        """Raise unless a vector with ``label`` may be added under ``terms``. What that costs is charged."""
        if not label.private:
            return
        who, noise = session.principal, terms.noise_multiplier
        if self.engine.aggregates_with is None or label.shared:
            self.engine.gate.permit(who, label)
        else:
            self._only_with(self.engine.aggregates_with, terms)
            self._charge(who, label, terms)
        told = {"principal": who.name, "sources": sorted(label.sources), "minimum": terms.minimum} | ({"noise": noise} if noise else {})
        self.engine.gate.journal.append("aggregated", {**told, "clients": [name for name, _ in terms.members]})

    def _charge(self, who: Principal, label: Label, terms: Terms) -> None:
        noise, policies = terms.noise_multiplier, self.engine.gate.policies
        accounts = self._as_stated(who, label, noise)
        if accounts:
            key = f"{who.name}/sum/{self.engine.bits(128):x}"
            self.engine.ledger.reserve(key, f"noise {noise}", accounts, Cost((gaussian(noise / 2),), variation(terms.values)))
            self.engine.ledger.commit(key, b"")
        if who.role is not Role.OWNER and not policies.timely(who, label.sources, count=True):
            raise SendNotPermittedError(policies.refusal(label.sources))

    def _only_with(self, registered: Mapping[str, bytes], terms: Terms) -> None:
        strangers = [name for name, public in terms.members if registered.get(name, self._own(name)) != public]
        if strangers:
            raise SendNotPermittedError(
                f"{self.engine.name}'s owner has not registered {', '.join(strangers[:5])} with the keys that this round names: "
                "it adds PRIVATE data with registered workers only ([aggregates_with] in its settings)"
            )

    def _as_stated(self, who: Principal, label: Label, noise: float) -> list[Account]:
        """The accounts to charge. Raises unless the policies of ``label``'s datasets let something go to ``who``, and not by noise alone,
        or by noise that is there: whatever a unit's rows did to the vector, it changed by two clips at most."""
        policies, owner = self.engine.gate.policies, who.role is Role.OWNER
        if not owner and not (policies.open(who, label.sources) and policies.timely(who, label.sources, count=False)):
            raise SendNotPermittedError(policies.refusal(label.sources))
        accounts = [
            account
            for source, policy in policies.of(label.sources).items()
            for part in policy.parts()
            if not part.approve
            for account in accounts_of(source, who.name, part)
        ]
        if accounts and not noise:
            told = "in a sum with others' too: train with PrivateTraining, or have noise added with noise_multiplier="
            raise SendNotPermittedError(f"{policies.refusal(label.sources)}, {told}")
        return accounts


def _rows(session: Session, number: int) -> float:
    """A client's weight is counted here, not told: the rows of its data."""
    tensor, _ = session.look_up(number)
    if tensor is None or not tensor.dim() or not len(tensor):
        raise AggregationError("the weight of a client is the number of rows of its data: name a tensor with rows")
    return float(len(tensor))


def _bytes_of(session: Session, number: int) -> bytes:
    tensor, cell = session.look_up(number)
    if cell.label.private:  # answers, refusals too, tell of what a client was told
        raise GetNotPermittedError("what an aggregation tells a client is bytes that its conductor sent: this derives from PRIVATE data")
    if tensor is None or tensor.dtype != torch.uint8 or tensor.numel() > packing.MAX_BYTES:
        raise AggregationError("what an aggregation tells a client is a tensor of bytes")
    return tensor.reshape(-1).cpu().numpy().tobytes()


def _answer(request: int, packed: bytes) -> Message:
    values: list[Any] = [torch.frombuffer(bytearray(packed), dtype=torch.uint8)]
    return (m.VALUES, request, values)
