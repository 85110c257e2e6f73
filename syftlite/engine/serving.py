"""The messages of served models (desk.py, streams.py): a sharing group's member becomes a desk of its node, which outlives the session.

    SERVE     at each holder: the group's links, shares of weights and programs become the model's; at the provider: what to deal
    ADMIT, WATCH, RETIRE      its owner: how many queries are taken, what has been served, the end
    ATTACH, QUERY             any client: a channel, and shares of inputs for shares of outputs
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from syftlite.engine.errands import Provision
from syftlite.engine.follower import Follower
from syftlite.engine.founding import Founding
from syftlite.engine.holder import Holder
from syftlite.engine.leader import Leader
from syftlite.engine.pending import Pending
from syftlite.engine.provider import Provider
from syftlite.engine.queries import ModelForm, Served
from syftlite.engine.session import Role, Session
from syftlite.errors import IdNotUniqueError, Misuse, NotOwnerError, ObjectNotFoundError, ProtocolError, SharingAbortedError
from syftlite.wire import messages as m
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
                founding = Founding(self.engine, session, served, streams, state, peers)
                place = founding.provision(member) if isinstance(member, Provider) else founding.desk(member)
            except BaseException as error:
                member.leave(f"{self.engine.name} cannot serve {model!r}: {error}")
                raise
            with self._lock:
                owner, before = self.models.get(model, (who, None))
                if owner == who:
                    self.models[model] = (who, place)
            if owner != who:  # another was as quick
                place.stop("its name is taken")
                raise _taken(self.engine.name, model, owner)
            if before is not None:
                before.stop("its owner serves it anew")
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
            if self.models.get(model, ("", None))[1] is place:  # it may be served anew
                del self.models[model]
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


def _taken(node: str, model: str, owner: str) -> IdNotUniqueError:
    return IdNotUniqueError(f"{node} has a model {model!r} of {owner}'s: choose another name")
