"""The messages of served models (desk.py, streams.py): a sharing group's member becomes a desk of its node, which outlives the session.

    SERVE     at each holder: the group's links, shares of weights and programs become the model's; at the provider: what to deal
    ADMIT, WATCH, RETIRE      its owner: how many queries are taken, what has been served, the end
    ATTACH, QUERY             any client: a channel, and shares of inputs for shares of outputs
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from syftlite.engine.desk import Desk, Follower, ModelForm, Served
from syftlite.engine.errands import Errands, Provision
from syftlite.engine.groups import FixedWeight
from syftlite.engine.holder import Holder
from syftlite.engine.leader import Leader
from syftlite.engine.pending import Pending
from syftlite.engine.plans import Program
from syftlite.engine.provider import Provider
from syftlite.engine.rounds import Link, LinkedDriver, Meeting, Pushing
from syftlite.engine.session import Role, Session
from syftlite.engine.streams import Ahead, Dealing, Near, Need, Stream, plans
from syftlite.errors import (
    IdNotUniqueError,
    Misuse,
    NotOwnerError,
    ObjectNotFoundError,
    ProtocolError,
    SendNotPermittedError,
    SharingAbortedError,
    rebuild,
)
from syftlite.mpc.kernel import WeightSpec
from syftlite.mpc.party import Party
from syftlite.mpc.replicated import Replica
from syftlite.policy.labels import Class
from syftlite.wire import messages as m
from syftlite.wire.errands import DEAL, pack
from syftlite.wire.messages import Message

if TYPE_CHECKING:
    from syftlite.engine.engine import Engine

MAX_MODELS = 256


class Serving:
    """Handlers of the messages about served models at ``engine``."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.models: dict[str, tuple[str, Leader | Follower | Provision]] = {}
        """By name: its owner, and what this node is to it."""
        self._failed: dict[tuple[str, str], Exception] = {}
        self._lock = threading.Lock()
        self.handlers: dict[int, Callable[..., Message | Pending | None]] = {
            m.SERVE: self._serve,
            m.ADMIT: self._admit,
            m.WATCH: self._watch,
            m.RETIRE: self._retire,
            m.ATTACH: self._attach,
            m.QUERY: self._query,
        }

    def left(self, session: Session) -> None:
        """A connection is gone."""
        if session.channels:
            for _, place in list(self.models.values()):
                place.leave(session)

    # -- becoming a model

    def _serve(
        self,
        session: Session,
        group: int,
        model: str,
        streams: Sequence[Any],
        state: Sequence[int],
        form: Any,
        peers: Sequence[Any],
        clients: Sequence[str] | None,
    ) -> None:
        who = session.principal.name
        try:
            self._make_room(session, model)
            member = session.members.get(group)
            if not isinstance(member, (Holder, Provider)):
                raise SharingAbortedError((member and member.broken) or f"this session is in no sharing group {group}")
            member.check()
            served = Served(model, ModelForm(*form), None if clients is None else frozenset(clients), self.engine.gate.permit)
            del session.members[group]
            try:
                place: Leader | Follower | Provision
                if isinstance(member, Provider):
                    place = self._provide(session, member, served, streams, state)
                else:
                    place = self._hold(session, member, served, streams, state, peers)
            except BaseException as error:
                member.leave(f"{self.engine.name} cannot serve {model!r}: {error}")
                raise
            with self._lock:
                owner, _ = self.models.setdefault(model, (who, place))
                if owner == who:
                    self.models[model] = (who, place)
            if owner != who:  # another was as quick
                place.stop("its name is taken")
                raise _taken(self.engine.name, model, owner)
            self.engine.journal.append("serves", {"model": model, "by": who})
        except ProtocolError:
            raise
        except Exception as error:
            with self._lock:
                while len(self._failed) >= MAX_MODELS:
                    self._failed.pop(next(iter(self._failed)))
                self._failed[who, model] = error

    def _make_room(self, session: Session, model: str) -> None:
        with self._lock:
            self._failed.pop((session.principal.name, model), None)
            owner, place = self.models.get(model, ("", None))
            if place is None and len(self.models) >= MAX_MODELS:
                raise Misuse(f"{self.engine.name} serves {MAX_MODELS} models: retire one first")
        if place is not None:
            if owner != session.principal.name:
                raise _taken(self.engine.name, model, owner)
            place.stop("its owner serves it anew")

    def _provide(self, session: Session, member: Provider, served: Served, streams: Sequence[Any], state: Sequence[int]) -> Provision:
        weights: list[WeightSpec] = []
        for number in state:
            fixed = _taken_weight(session, number)
            assert isinstance(fixed.weight, WeightSpec)
            weights.append(fixed.weight)
        dealings = {}
        for rows, plan, _, _ in streams:
            dealings[rows] = Dealing(member.dealer.fork("rows", rows), plans(_program(session, plan), weights))
        provision = Provision(dealings, member.leave)
        if isinstance(member.sink, Pushing):
            member.sink.link.peer = served.form.members[-2]
            provision.deal_for(member.sink.link)
        else:
            _met(member).models[served.name] = {served.form.members[-1]: provision}
        return provision

    def _hold(
        self, session: Session, member: Holder, served: Served, streams: Sequence[Any], state: Sequence[int], peers: Sequence[Any]
    ) -> Leader | Follower:
        if member.given is not None:
            raise Misuse("a served model's provider is a worker that stays: name one that is a node, crypto_provider=carol")
        party, form = _additive(member), served.form
        if len(form.members) != party.holders + 1 or not streams or max(rows for rows, *_ in streams) != form.rows:
            raise ProtocolError("SERVE: the form names other members or rows than there are")
        own = self.engine.open_session(session.principal)
        try:
            return self._desk(session, own, member, served, streams, state, peers)
        except BaseException:
            self.engine.close_session(own)
            raise

    def _desk(
        self,
        session: Session,
        own: Session,
        member: Holder,
        served: Served,
        streams: Sequence[Any],
        state: Sequence[int],
        peers: Sequence[Any],
    ) -> Leader | Follower:
        party, driver, form = _additive(member), member.driver, served.form
        kept = self._moved(session, own, state)
        ahead = self._ahead(party.last, driver, streams, form)
        made = {}
        for rows, plan, constants, _ in streams:
            corrections = None if not party.last else ahead.corrections(rows) if ahead else Near(_dealing(driver, served.name, form, rows))
            operands = [*kept, *self._moved(session, own, constants)]
            made[rows] = Stream(rows, _program(session, plan), operands, own, party.fork("rows", rows, corrections=corrections), driver)
        desk: Leader | Follower
        if party.first:
            desk = Leader(served, made, driver, ahead, at_once=isinstance(driver, Meeting))
            self._lead(desk, driver, peers)
        else:
            desk = Follower(served, party.index, made, driver, ahead)
            self._follow(desk, driver, peers)
        desk.partners.append(lambda why: self.engine.close_session(own))
        if not isinstance(driver, Meeting):  # there is nobody else's time to use
            desk.stock.start()
        if ahead is not None:
            ahead.failed = desk.stop
            ahead.start()
        return desk

    def _moved(self, session: Session, own: Session, numbers: Sequence[int]) -> list[int]:
        """Objects and weights of ``session`` that are the model's ``own`` from now on; their ids there. 0 stays 0."""
        ids = []
        for number in numbers:
            if not number:
                ids.append(0)
                continue
            ids.append(own.prefix << 32 | 2 + len(own.objects) + len(own.weights))
            if number in session.weights and session.weights[number].mark is None:
                own.weights[ids[-1]] = fixed = _taken_weight(session, number)
                own.used += fixed.nbytes
                continue
            _, cell = session.look_up(number)
            if cell.label.level is not Class.PUBLIC:
                raise SendNotPermittedError("a weight derives from PRIVATE data: it takes part in no model without its owner's permit")
            if cell.mark is not None and cell.mark.poison is not None:
                raise rebuild(cell.mark.poison.code, cell.mark.poison.text)
            tensor, cell = session.take_over(number)
            own.put(ids[-1], tensor, cell.mark)
            cell.let_go()
        return ids

    def _ahead(self, last: bool, driver: Any, streams: Sequence[Any], form: ModelForm) -> Ahead | None:
        if not last or not isinstance(driver, LinkedDriver) or driver.corrections is None:
            return None
        link: Any = driver.others[0]
        link.peer = form.members[-1]
        return Ahead({rows: Need(*need) for rows, _, _, need in streams}, lambda rows: link.tell(pack(DEAL, rows)), driver.corrections)

    def _lead(self, desk: Leader, driver: Any, peers: Sequence[Any]) -> None:
        if isinstance(driver, Meeting):
            for index, name in enumerate(desk.form.members[1:-1], 1):
                follower = driver.models[desk.name].get(name)
                if not isinstance(follower, Follower):
                    raise SharingAbortedError(f"{name} does not serve {desk.name!r} yet")
                desk.others[index], follower.leader = follower, desk
                desk.partners.append(follower.stop)
                follower.partners.append(desk.stop)
            return
        ways = {index: Errands(link) for index, link in self._linked(desk, driver, peers).items()}
        if set(ways) != set(range(1, len(desk.form.members) - 1)):
            raise ProtocolError("SERVE: holder 0 has a link for errands to each other holder")
        desk.others.update(ways)
        for index, way in ways.items():
            way.carry_out(desk, index)

    def _follow(self, desk: Follower, driver: Any, peers: Sequence[Any]) -> None:
        if isinstance(driver, Meeting):
            driver.models.setdefault(desk.name, {})[desk.form.members[desk.index]] = desk
            return
        (link,) = self._linked(desk, driver, peers).values()
        desk.leader = way = Errands(link)
        way.carry_out(desk, 0)

    def _linked(self, desk: Desk, driver: LinkedDriver, peers: Sequence[Any]) -> dict[int, Link]:
        """Links for errands, by the other holder's index; all links of the model know who is at the other end."""
        names = desk.form.members
        for other, link in zip([i for i in range(len(names) - 1) if i != desk.index], driver.links, strict=True):
            link.peer = names[other]
        links: dict[int, Link] = {}
        for other, uri, port, ticket in peers:
            link = self.engine.peers.dial(uri, port, ticket) if uri else self.engine.peers.accept(ticket)
            link.peer = names[other] if other < len(names) else link.peer
            links[other] = link
            desk.partners.append(link.close)
        return links

    # -- its owner

    def _of(self, session: Session, model: str) -> Leader | Follower | Provision:
        who = session.principal
        failed = self._failed.get((who.name, model))
        if failed is not None:
            raise failed
        owner, place = self.models.get(model, ("", None))
        if place is None:
            raise ObjectNotFoundError(f"{self.engine.name} has no model {model!r}: its owner serves it first")
        if owner != who.name and who.role is not Role.OWNER:
            raise NotOwnerError(f"model {model!r} is {owner}'s")
        return place

    def _admit(self, session: Session, request: int, model: str, count: int | None) -> Message:
        place = self._of(session, model)
        if isinstance(place, Leader):
            place.admit_more(count)
        return (m.DONE, request)

    def _watch(self, session: Session, request: int, model: str, seen: int | None) -> Message | Pending:
        place = self._of(session, model)
        if isinstance(place, Leader):
            return place.count.watch(request, seen)
        return (m.PROGRESS, request, place.broken or "serving", 0, ())

    def _retire(self, session: Session, request: int, model: str) -> Message:
        place = self._of(session, model)
        place.stop("its owner retired it")
        with self._lock:
            self.models.pop(model, None)
        self.engine.journal.append("retired", {"model": model, "by": session.principal.name})
        return (m.DONE, request)

    # -- its clients

    def _attach(self, session: Session, request: int, model: str, channel: str) -> Message:
        _, place = self.models.get(model, ("", None))
        if place is None or isinstance(place, Provision) or not place.is_for(session.principal):
            who = session.principal.name
            raise ObjectNotFoundError(f"{self.engine.name} serves no model {model!r}: see that its owner serves it, to {who}")
        place.attach(session, channel)
        session.channels[channel] = place
        return (m.MODEL, request, place.index, tuple(place.form))

    def _query(self, session: Session, request: int, channel: str, number: int, share: int) -> Pending:
        desk = session.channels.get(channel)
        if desk is None:
            raise Misuse("this connection has no such channel: attach first")
        return desk.take(session, request, channel, number, share)


def _program(session: Session, number: int) -> Program:
    program = session.programs.get(number)
    if program is None:
        raise ProtocolError(f"there is no plan {number}")
    return program


def _additive(member: Holder) -> Party:
    if not isinstance(member.party, Party) or isinstance(member.party, Replica):
        raise Misuse("a model's holders have no replicated shares: serve(..., protocol='aby3') has one of three deal for the others")
    return member.party


def _taken(node: str, model: str, owner: str) -> IdNotUniqueError:
    return IdNotUniqueError(f"{node} has a model {model!r} of {owner}'s: choose another name")


def _taken_weight(session: Session, number: int) -> FixedWeight:
    fixed = session.weights.pop(number, None)
    if fixed is None:
        raise ObjectNotFoundError(f"{number} is no fixed weight of this session")
    session.used -= fixed.nbytes
    return fixed


def _met(member: Provider) -> Meeting:
    """The meeting that an in-process provider deals for."""
    met = getattr(member.sink, "__self__", None)
    assert isinstance(met, Meeting)
    return met


def _dealing(driver: Any, model: str, form: ModelForm, rows: int) -> Callable[[], Dealing | None]:
    """How to find, in this process, who deals for ``rows``."""

    def find() -> Dealing | None:
        provision = driver.models.get(model, {}).get(form.members[-1])
        return provision.dealings.get(rows) if isinstance(provision, Provision) else None

    return find
