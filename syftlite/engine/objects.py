"""A session's objects: what is put, dropped, asked and got. Questions and gets pass the gate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from syftlite.engine import executor
from syftlite.engine.admission import Deferred
from syftlite.engine.answers import afford, must_fit, spec_of
from syftlite.engine.gate import speaker
from syftlite.engine.marks import Mark, Poison
from syftlite.engine.session import Card, Session
from syftlite.errors import ProtocolError, SyftliteError, code_of
from syftlite.policy.labels import PUBLIC, Label
from syftlite.wire import codec
from syftlite.wire import messages as m
from syftlite.wire.fields import MAX_ID
from syftlite.wire.messages import Message

if TYPE_CHECKING:
    from syftlite.engine.engine import Engine

FEW = 30
"""Values whose descriptions fit a head whatever their shapes; with more it is tried before anything is done."""


class Objects:
    """The handlers at ``engine``."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.handlers: dict[int, Callable[..., Message | None]] = {
            m.PUT: self._put,
            m.DROP: self._drop,
            m.ASK: self._ask,
            m.GET: self._get,
            m.SYNC: self._sync,
        }

    def _put(
        self, session: Session, number: int, tensor: torch.Tensor | SyftliteError, tags: Sequence[str], description: str
    ) -> None:
        session.claim(number)
        card = Card(tuple(tags), description)
        try:
            if isinstance(tensor, SyftliteError):  # its bytes were turned away as they came
                raise tensor
            session.reserve(tensor.numel() * tensor.element_size() + card.nbytes)
            tensor = self.engine.arrive(tensor)
        except SyftliteError as error:
            poison = Poison(code_of(error), str(error), 0, session.executed)
            session.put(number, torch.empty(0), Mark(PUBLIC, poison))
            return
        session.put(number, tensor)
        if tags or description:
            session.describe(number, card)

    def _drop(self, session: Session, numbers: Sequence[int]) -> None:
        for number in numbers:
            session.drop(number)
        self.engine.arrivals.give_up(session, numbers)

    def _ask(self, session: Session, request: int, number: int, args: Any, kwargs: Any, outs: Any) -> Message:
        def permit(label: Label) -> None:
            if session.quick and label.private:
                raise Deferred
            self.engine.gate.permit(session.principal, label)

        out, label = executor.evaluate(session, number, args, kwargs, permit)
        if not isinstance(out, (torch.Tensor, tuple)):
            if isinstance(out, complex):
                raise TypeError("a complex number has no form on the wire: get() the tensor")
            return (m.SPECS, request, (out,))
        results = (out,) if isinstance(out, torch.Tensor) else out
        if len(results) > FEW:
            must_fit((m.SPECS, request, [spec_of(value) for value in results]))
        claimed = [session.claim(o) for o in outs or ()]
        if len(claimed) != len(results):
            raise ProtocolError(f"ASK names {len(claimed)} results, the operator gave {len(results)}")
        for out_id, value in zip(claimed, results, strict=True):
            session.put(out_id, value, Mark(label, None) if label.private else None)
        return (m.SPECS, request, tuple(spec_of(value) for value in results))

    def _get(self, session: Session, request: int, numbers: Sequence[int], take: bool, user: str | None) -> Message:
        stored = [session.look_up(number) for number in numbers]
        if session.quick and any(cell.mark is not None and cell.label.private for _, cell in stored):
            raise Deferred
        afford(session, stored)
        if len(stored) > FEW:
            must_fit((m.VALUES, request, [codec.describe(t, MAX_ID) for t, _ in stored if t is not None]))
        values = self.engine.gate.release(speaker(session, user), list(zip(numbers, stored, strict=True)))
        values = [self.engine.leave(value) for value in values]
        if take:
            for number, (_, cell) in zip(numbers, stored, strict=True):
                if cell.owner is session:
                    session.drop(number)
        return (m.VALUES, request, values)

    def _sync(self, session: Session, request: int) -> Message:
        return (m.DONE, request)
