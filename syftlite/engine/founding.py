"""How a sharing group's members become a served model: its desks at the holders, and a provision at the provider.

The group's links, shares of weights and programs become the model's, under keys of its own; the session keeps the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from syftlite.engine.desk import Desk
from syftlite.engine.errands import Errands, Provision
from syftlite.engine.follower import Follower
from syftlite.engine.groups import FixedWeight
from syftlite.engine.holder import Holder
from syftlite.engine.leader import Leader
from syftlite.engine.plans import Program
from syftlite.engine.provider import Provider
from syftlite.engine.queries import ModelForm, Served
from syftlite.engine.rounds import Link, LinkedDriver, Meeting, Pushing
from syftlite.engine.session import Session
from syftlite.engine.streams import Ahead, Dealing, Near, Need, Stream, plans
from syftlite.errors import Misuse, ObjectNotFoundError, ProtocolError, SendNotPermittedError, SharingAbortedError, rebuild
from syftlite.mpc.kernel import WeightSpec
from syftlite.mpc.party import Party
from syftlite.mpc.replicated import Replica
from syftlite.policy.labels import Class
from syftlite.wire.errands import DEAL, pack

if TYPE_CHECKING:
    from syftlite.engine.engine import Engine


class Founding:
    """Makes a member of ``session``'s group part of the model ``served``. ``streams``: (rows, plan, constants, what of it is dealt) each;
    ``state``: what the plans begin with; ``peers``: (other holder, uri, port, ticket) of each link for errands."""

    def __init__(
        self, engine: Engine, session: Session, served: Served, streams: Sequence[Any], state: Sequence[int], peers: Sequence[Any]
    ) -> None:
        self.engine, self.session, self.served = engine, session, served
        self.streams, self.state, self.peers = streams, state, peers

    def provision(self, member: Provider) -> Provision:
        """What the provider becomes."""
        weights: list[WeightSpec] = []
        for number in self.state:
            fixed = _taken_weight(self.session, number)
            assert isinstance(fixed.weight, WeightSpec)
            weights.append(fixed.weight)
        dealings = {}
        for rows, plan, _, _ in self.streams:
            dealings[rows] = Dealing(member.dealer.fork("rows", rows), plans(_program(self.session, plan), weights))
        provision = Provision(dealings, member.leave)
        if isinstance(member.sink, Pushing):
            member.sink.link.peer = self.served.form.members[-2]
            provision.deal_for(member.sink.link)
        else:
            _met(member).models[self.served.name] = {self.served.form.members[-1]: provision}
        return provision

    def desk(self, member: Holder) -> Leader | Follower:
        """What a holder becomes, in a session of its own."""
        if member.given is not None:
            raise Misuse("a served model's provider is a worker that stays: name one that is a node, crypto_provider=carol")
        party, form = _additive(member), self.served.form
        if len(form.members) != party.holders + 1 or not self.streams or max(rows for rows, *_ in self.streams) != form.rows:
            raise ProtocolError("SERVE: the form names other members or rows than there are")
        own = self.engine.open_session(self.session.principal)
        try:
            return self._desk(own, member)
        except BaseException:
            self.engine.close_session(own)
            raise

    def _desk(self, own: Session, member: Holder) -> Leader | Follower:
        party, driver = _additive(member), member.driver
        ahead = self._ahead(party.last, driver)
        made = self._made(own, party, driver, ahead)
        desk: Leader | Follower
        if party.first:
            desk = Leader(self.served, made, driver, ahead, at_once=isinstance(driver, Meeting))
        else:
            desk = Follower(self.served, party.index, made, driver, ahead)
        try:
            self._lead(desk, driver) if isinstance(desk, Leader) else self._follow(desk, driver)
        except BaseException as error:  # its thread and its links end
            desk.stop(str(error))
            raise
        desk.partners.append(lambda why: self.engine.close_session(own))
        if not isinstance(driver, Meeting):  # there is nobody else's time to use
            desk.stock.start()
        if ahead is not None:
            ahead.failed = desk.stop
            ahead.start()
        return desk

    def _made(self, own: Session, party: Party, driver: Any, ahead: Ahead | None) -> dict[int, Stream]:
        """The model's program for each number of rows, with its operands, and keys of its own."""
        made, kept = {}, self._moved(own, self.state)
        for rows, plan, constants, _ in self.streams:
            corrections = None
            if party.last:
                corrections = ahead.corrections(rows) if ahead else Near(_dealing(driver, self.served.name, self.served.form, rows))
            forked = party.fork("rows", rows, corrections=corrections)
            made[rows] = Stream(rows, _program(self.session, plan), [*kept, *self._moved(own, constants)], own, forked, driver)
        return made

    def _moved(self, own: Session, numbers: Sequence[int]) -> list[int]:
        """Objects and weights of the session that are the model's ``own`` from now on; their ids there. 0 stays 0."""
        session, ids = self.session, []
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

    def _ahead(self, last: bool, driver: Any) -> Ahead | None:
        if not last or not isinstance(driver, LinkedDriver) or driver.corrections is None:
            return None
        link: Any = driver.others[0]
        link.peer = self.served.form.members[-1]
        return Ahead({rows: Need(*need) for rows, _, _, need in self.streams}, lambda rows: link.tell(pack(DEAL, rows)), driver.corrections)

    def _lead(self, desk: Leader, driver: Any) -> None:
        if isinstance(driver, Meeting):
            for index, name in enumerate(desk.form.members[1:-1], 1):
                follower = driver.models[desk.name].get(name)
                if not isinstance(follower, Follower):
                    raise SharingAbortedError(f"{name} does not serve {desk.name!r} yet")
                desk.others[index], follower.leader = follower, desk
                desk.partners.append(follower.stop)
                follower.partners.append(desk.stop)
            return
        ways = {index: Errands(link) for index, link in self._linked(desk, driver).items()}
        if set(ways) != set(range(1, len(desk.form.members) - 1)):
            raise ProtocolError("SERVE: holder 0 has a link for errands to each other holder")
        desk.others.update(ways)
        for index, way in ways.items():
            way.carry_out(desk, index)

    def _follow(self, desk: Follower, driver: Any) -> None:
        if isinstance(driver, Meeting):
            driver.models.setdefault(desk.name, {})[desk.form.members[desk.index]] = desk
            return
        (link,) = self._linked(desk, driver).values()
        desk.leader = way = Errands(link)
        way.carry_out(desk, 0)

    def _linked(self, desk: Desk, driver: LinkedDriver) -> dict[int, Link]:
        """Links for errands, by the other holder's index; all links of the model know who is at the other end."""
        names = desk.form.members
        for other, link in zip([i for i in range(len(names) - 1) if i != desk.index], driver.links, strict=True):
            link.peer = names[other]
        links: dict[int, Link] = {}
        for other, uri, port, ticket in self.peers:
            link = self.engine.peers.dial(uri, port, ticket) if uri else self.engine.peers.accept(ticket)
            link.peer = names[other] if other < len(names) else link.peer
            links[other] = link
            desk.partners.append(link.close)
        return links


def _program(session: Session, number: int) -> Program:
    program = session.programs.get(number)
    if program is None:
        raise ProtocolError(f"there is no plan {number}")
    return program


def _additive(member: Holder) -> Party:
    if not isinstance(member.party, Party) or isinstance(member.party, Replica):
        raise Misuse("a model's holders have no replicated shares: serve(..., protocol='aby3') has one of three deal for the others")
    return member.party


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
