"""The messages of sharing groups: how a session becomes a member, and what a member is asked to do (holder.py, provider.py).

    INVITE group                        -> INVITATION ticket, port     another member may link to this one, once
    JOIN group, index, peers            dial some, wait for the others, agree on keys; JOINED tells how it went
    REPLICATE group, index, peers       the same for one of three who need no provider (mpc/replicated.py)
    COMPUTE | DEAL | REVEAL | CORRECT   in the session's order, like everything else
    SPLIT | SPREAD id, places           a value of this worker's, shared among holders: each is sent its own share, directly
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from syftlite.engine.groups import SHARED, Member, keys_of
from syftlite.engine.holder import Holder
from syftlite.engine.marks import Mark, Poison
from syftlite.engine.provider import Provider
from syftlite.engine.rounds import Given, Link, LinkedDriver, Meeting, Pushing, meeting
from syftlite.engine.session import Role, Session
from syftlite.errors import Misuse, ProtocolError, SendNotPermittedError, SharingAbortedError, code_of
from syftlite.mpc.dealer import Dealer
from syftlite.mpc.party import Party
from syftlite.mpc.replicated import HOLDERS, THIRD, Replica, Third, dealer_of
from syftlite.policy.labels import PUBLIC, blind
from syftlite.randomness import SECRET_BYTES, derive, random_like
from syftlite.wire import messages as m
from syftlite.wire.fields import MAX_HOLDERS
from syftlite.wire.messages import Message

if TYPE_CHECKING:
    from syftlite.engine.engine import Engine

MAX_GROUPS = 64
"""Groups that one session may be in."""
SHARE = ("share",)
"""The tag under which a share is delivered."""


class Sharing:
    """Handlers of the messages about sharing at ``engine``."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.handlers: dict[int, Callable[..., Message | None]] = {
            m.INVITE: self._invite,
            m.JOIN: self._join,
            m.REPLICATE: self._replicate,
            m.JOINED: self._joined,
            m.LEAVE: self._leave,
            m.COMPUTE: self._compute,
            m.DEAL: self._deal,
            m.CORRECT: self._correct,
            m.REVEAL: self._reveal,
            m.SPLIT: partial(self._split, 1),
            m.SPREAD: partial(self._split, 2),
            m.REPLAY: self._replay,
        }

    # -- joining

    def _invite(self, session: Session, request: int, group: int) -> Message:
        ticket, port = self.engine.peers.invite()
        return (m.INVITATION, request, ticket, port)

    def _join(
        self, session: Session, group: int, index: int, holders: int, place: str | None, key: str | None, peers: Sequence[Any]
    ) -> None:
        if not 2 <= holders <= MAX_HOLDERS or index > holders:
            raise ProtocolError(f"JOIN: there is no member {index} of {holders} holders and a provider")
        if place is not None:
            self._enter(session, group, lambda: self._meet(place, index, holders))
        else:
            self._enter(session, group, lambda: self._link(session, index, holders, key, peers))

    def _replicate(self, session: Session, group: int, index: int, place: str | None, peers: Sequence[Any]) -> None:
        if index >= HOLDERS:
            raise ProtocolError(f"REPLICATE: there is no member {index} of three holders")
        if place is not None:
            self._enter(session, group, lambda: self._meet_replicated(place, index))
        else:
            self._enter(session, group, lambda: self._link_replicated(session, index, peers))

    def _enter(self, session: Session, group: int, become: Callable[[], Member]) -> None:
        """Have ``session`` be in ``group`` what it becomes; if it fails, broken."""
        if group in session.members:
            raise ProtocolError(f"group {group} is joined already")
        try:
            if len(session.members) >= MAX_GROUPS:
                raise Misuse(f"a session is in at most {MAX_GROUPS} sharing groups: let some of their tensors go")
            member = become()
        except Exception as error:
            member = Member(lambda why: None)
            member.broken = str(error)
        session.members[group] = member

    def _meet(self, place: str, index: int, holders: int) -> Member:
        met = self._met(place, holders)
        if index == holders:
            return Provider(met.dealer, met.ask_for, met.close)
        return Holder(Party(index, holders, met.keys[index], met.corrections if index == holders - 1 else None), met)

    def _meet_replicated(self, place: str, index: int) -> Member:
        met = self._met(place, THIRD, replicated=True)
        secrets = met.keys[index].peers
        if index == THIRD:
            return Holder(Third(secrets, met.dealer, met.ask_for), LinkedDriver([], [met]))
        return Holder(Replica(index, secrets, met.corrections if index == THIRD - 1 else None), met)

    def _met(self, place: str, holders: int, replicated: bool = False) -> Meeting:
        if not self.engine.peers.in_process:
            raise Misuse(f"{self.engine.name} is a node: its group's members link to each other")
        return meeting(place, holders, replicated)

    def _links(self, peers: Sequence[Any], index: int, members: int, protocol: str) -> tuple[dict[int, Link], dict[int, bytes]]:
        """A link to each of ``members`` members but this one, and a secret with each. It depends on who of the two is which member of what,
        so that a conductor that tells the two ends of a link different things makes them agree on nothing: no mask covers two messages."""
        links: dict[int, Link] = {}
        secrets: dict[int, bytes] = {}
        try:
            for peer, uri, port, ticket in peers:
                links[peer] = link = self.engine.peers.dial(uri, port, ticket) if uri else self.engine.peers.accept(ticket)
                dialler, acceptor = (index, peer) if uri else (peer, index)
                secrets[peer] = derive(link.secret, protocol, members, "dialler", dialler, "acceptor", acceptor, length=SECRET_BYTES)
            if set(links) != set(range(members)) - {index}:
                raise Misuse(f"member {index} of {members} has links to {sorted(links)}")
        except BaseException as error:
            for link in links.values():
                link.close(f"{self.engine.name} could not join: {error}")
            raise
        return links, secrets

    def _link(self, session: Session, index: int, holders: int, key: str | None, peers: Sequence[Any]) -> Member:
        if key is not None and index == holders:
            raise Misuse("JOIN: the client's own key is for a holder whose provider it is, and here another member provides")
        links, secrets = self._links(peers, index, holders + (key is None), "additive")
        if index == holders:
            driver = LinkedDriver(list(links.values()))
            return Provider(dealer := Dealer([secrets[i] for i in range(holders)]), Pushing(dealer, links[holders - 1]), driver.close)
        if key is not None:
            secrets[holders] = bytes.fromhex(key)
        provider = links.pop(holders, None)
        given = Given() if provider is None else None
        pushed = provider.corrections(self.engine.max_bytes, session.room) if provider is not None and index == holders - 1 else None
        driver = LinkedDriver([links[i] for i in sorted(links)], [provider] if provider is not None else [], pushed)
        members = {i: link.member for i, link in links.items()} | {holders: None if provider is None else provider.member}
        party = Party(index, holders, keys_of(holders, index, secrets), given or pushed)
        return Holder(party, driver, given=given, members=members, own=next(iter(links.values())).own)

    def _link_replicated(self, session: Session, index: int, peers: Sequence[Any]) -> Member:
        links, secrets = self._links(peers, index, HOLDERS, "replicated")
        if index == THIRD:
            dealer = dealer_of(secrets)
            return Holder(Third(secrets, dealer, Pushing(dealer, links[THIRD - 1])), LinkedDriver([], list(links.values())))
        pushed = links[THIRD].corrections(self.engine.max_bytes, session.room) if index == THIRD - 1 else None
        driver = LinkedDriver([links[1 - index]], [links[THIRD]], pushed)
        return Holder(Replica(index, secrets, pushed), driver, members={i: link.member for i, link in links.items()}, own=links[THIRD].own)

    def _joined(self, session: Session, request: int, group: int) -> Message:
        _member(session, group).check()
        return (m.DONE, request)

    def _leave(self, session: Session, group: int) -> None:
        member = session.members.pop(group, None)
        if member is not None:
            member.leave("the client has ended the group")
            if isinstance(member, Holder) and member.given is not None:
                member.given.forget()

    # -- taking part

    def _compute(
        self, session: Session, group: int, kernel: int, operands: Sequence[int], static: dict[str, Any] | None, outs: Sequence[int]
    ) -> None:
        holder = _holder_or_poison(session, group, outs)
        if holder is not None:
            holder.compute(session, kernel, operands, static or {}, outs)

    def _deal(
        self, session: Session, group: int, kernel: int, operands: Sequence[Any], static: dict[str, Any] | None, outs: Sequence[int]
    ) -> None:
        member = _member(session, group)
        if not isinstance(member, Provider):
            raise SharingAbortedError(member.broken or f"{self.engine.name} is a holder in group {group}, not its provider")
        member.deal(session, kernel, operands, static or {}, outs)

    def _replay(self, session: Session, group: int, plan: int, operands: Sequence[int], base: int, outs: Sequence[int]) -> None:
        member, program = session.members.get(group), session.programs.get(plan)
        if program is None:
            raise ProtocolError(f"there is no plan {plan}")
        if isinstance(member, Provider):
            member.replay(session, program, operands, base)
        else:
            holder = _holder_or_poison(session, group, outs)
            if holder is not None:
                holder.replay(session, program, operands, base, outs)

    def _correct(self, session: Session, group: int, number: int, correction: int) -> None:
        given = _holder(session, group).given
        if given is None:
            raise Misuse("this group's corrections come from its provider, not from the client")
        tensor, cell = session.look_up(correction)
        if tensor is None or cell.mark is not None or tensor.dtype != torch.uint8:
            raise Misuse("a correction is bytes that the client sent for it, never a share nor what derives from PRIVATE data")
        given.keep(number, lambda: session.take_over(correction))

    def _reveal(self, session: Session, group: int, number: int, out: int) -> None:
        holder = _holder_or_poison(session, group, (out,))
        if holder is not None:
            holder.reveal(session, number, out)

    # -- sharing what is here

    def _split(self, width: int, session: Session, request: int, number: int, places: Sequence[Any]) -> Message:
        """``places``: (uri, ticket, id) of each share, ``width`` a holder: of as many components as there are holders, holder i has those
        from the i-th on. No uri: this very session is the holder."""
        value, mark = self._to_share(session, number, sum(not uri for uri, _, _ in places), width)
        holders = len(places) // width
        if len(places) % width or holders < 2 or (width > 1 and holders != HOLDERS):
            raise Misuse(f"a value is not shared in {len(places)} places: one for each of two holders or more, or two for each of three")
        if value.dtype != torch.int64:
            raise Misuse(f"only ring elements (int64) are shared, not {value.dtype}: fix_precision() first")
        session.reserve(value.numel() * 8 * (len(places) + 1))
        shares = [random_like(tuple(value.shape)) for _ in range(1, holders)]
        last = value.clone(memory_format=torch.contiguous_format)
        for share in shares:
            last -= share
        shares.append(last)
        for place, (uri, ticket, to) in enumerate(places):
            share = shares[(place // width + place % width) % holders]
            if uri:
                self.engine.peers.deliver(uri, ticket, [(to, share)], SHARE)
            else:  # in memory of its own: what is written to one object of a session, and its label, is of no other
                session.put(session.claim(to), share.clone() if place % width else share, mark)
        return (m.DONE, request)

    def _to_share(self, session: Session, number: int, here: int, width: int) -> tuple[torch.Tensor, Mark]:
        """What is to be shared, and the mark of the share that stays here (``here`` of them do).

        A share of PRIVATE data keeps its label. Without it the others are random numbers, so they may go to anybody; it takes part only in
        groups that the policy names, and reaches nobody but through this node's gate.
        """
        tensor, cell = session.look_up(number)
        label, policies = cell.label, self.engine.policies
        kept = label.private and not label.shared and session.principal.role is not Role.OWNER
        if not kept or policies.free(session.principal, label) or not policies.shared(label.sources):
            (value,) = self.engine.gate.release(session.principal, [(number, (tensor, cell))])
            return value, Mark(SHARED)
        if width > 1:
            raise SendNotPermittedError(
                f"PRIVATE data of {self.engine.name} is not shared by three with two components each: two others could rebuild it, and "
                "their nodes know nothing of its policy. Share it with a crypto_provider"
            )
        if here != 1 or tensor is None:
            raise SendNotPermittedError(
                f"PRIVATE data of {self.engine.name} is shared with {self.engine.name} among the holders: it is its share that stays"
            )
        told = {"principal": session.principal.name, "sources": sorted(label.sources)}
        self.engine.journal.append("shared", told)
        assert cell.mark is not None
        poison = cell.mark.poison
        return tensor if poison is None else torch.zeros(tensor.shape, dtype=tensor.dtype), Mark(blind(label)._replace(shared=True), poison)


def _member(session: Session, group: int) -> Member:
    member = session.members.get(group)
    if member is None:
        raise SharingAbortedError(f"this session is in no sharing group {group}")
    return member


def _holder(session: Session, group: int) -> Holder:
    member = _member(session, group)
    if not isinstance(member, Holder):
        raise SharingAbortedError(member.broken or f"this session is the provider of group {group}, and holds no shares")
    return member


def _holder_or_poison(session: Session, group: int, outs: Sequence[int]) -> Holder | None:
    """The holder that this session is in ``group``; if it is none, whoever reads ``outs`` is told so."""
    try:
        return _holder(session, group)
    except SharingAbortedError as error:
        mark = Mark(PUBLIC, Poison(code_of(error), str(error), 0, session.executed))
        for out in outs:
            session.put(session.claim(out), torch.empty(0), mark)
        return None
