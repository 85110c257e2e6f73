"""Private answers: queries with noise, and plans mapped over rows, charged to the accounts of the datasets that they are about.

    rows and policy    what is asked about has rows, each of one privacy unit alone; every dataset's policy lets private answers go
    reserve            the cost fits every account, durably charged (dp/ledger.py)
    compute, commit    the noised result is kept, so that the same request, sent again, costs nothing and brings the same
    answer             the result is an object of the session, of class DP: it may leave, and what is made of it too

The noise, the clip, the sample and the account are the owner's. What a request costs depends on what it says, never on a value, and
nothing but the noised result tells of a row: not the time of a refusal, nor an error (mapping.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy
import torch

from syftlite.dp import accountant
from syftlite.dp.ledger import Account, Cost, Standing
from syftlite.dp.mechanisms import KINDS, Query
from syftlite.dp.noise import variation
from syftlite.engine import provenance
from syftlite.engine.accounts import accounts_of
from syftlite.engine.answers import spec_of
from syftlite.engine.executor import Poisoned
from syftlite.engine.mapping import Gone, Mapped, check, run
from syftlite.engine.marks import Mark
from syftlite.engine.plans import Program, Step
from syftlite.engine.session import Principal, Role, Session, Still, Stored
from syftlite.errors import (
    ConfigurationError,
    GetNotPermittedError,
    PlanError,
    ProtocolError,
    RemoteError,
    SyftliteError,
    code_of,
    rebuild,
)
from syftlite.ops.dtypes import DTYPES, NUMBER_OF
from syftlite.policy.labels import NONE, Class, Label
from syftlite.policy.lineage import Frame, Index, axis_of
from syftlite.wire import messages as m
from syftlite.wire.fields import MAX_TEXT
from syftlite.wire.messages import Message

if TYPE_CHECKING:
    from syftlite.engine.engine import Engine


ROOM = 48
"""Bytes that a question takes for each row while it is answered."""


class Measuring:
    """Handlers of the messages about private answers at ``engine``, whose ledger keeps their accounts."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.ledger = engine, engine.ledger
        self.handlers: dict[int, Callable[..., Message | None]] = {
            m.MEASURE: self._measure,
            m.MAP: self._map,
            m.BUDGET: self._budget,
        }

    # -- messages

    def _measure(self, session: Session, request: int, number: int, asked: Sequence[Any], key: str, out: int) -> Message:
        kind, epsilon, delta, bounds, grid = asked
        if kind >= len(KINDS):
            raise ConfigurationError(f"this node knows no private question {kind}: it may be older than you are")
        limits = None if bounds is None else (float(bounds[0]), float(bounds[1]))
        query = Query(KINDS[kind], float(epsilon), None if delta is None else float(delta), limits, tuple(map(float, grid)))
        session.claim(out)
        stored = session.look_up(number)
        values, units = self._rows(session, [stored])
        cost = Cost(query.cost(), query.variation())
        told = [number_free(asked), spec_of(values[0])[:2], sorted(stored[1].label.sources)]
        question = json.dumps([*told, self._made(session, [number])])
        query.check(values[0])
        session.reserve(ROOM * values[0].numel())
        return self._answer(session, request, [out], stored[1].label.sources, key, question, cost, lambda: [query.run(values[0], units)])

    def _map(
        self, session: Session, request: int, plan: int, operands: Sequence[int], over: int, wrt: Sequence[int],
        terms: Sequence[float], key: str, outs: Sequence[int],
    ) -> Message:  # fmt: skip
        program = session.programs.get(plan)
        if program is None or not program.complete or program.kernels or len(operands) != program.arity:
            raise ProtocolError("MAP names a plan that is not there, or other operands than it has")
        if not 0 < over <= len(operands) or any(not over <= place < len(operands) for place in wrt) or len(set(wrt)) != len(wrt):
            raise ProtocolError("MAP maps over the first operands, and differentiates by some of the others")
        for out in outs:
            session.claim(out)
        stored = [session.look_up(number) for number in operands]
        rows, units = self._rows(session, stored[:over])
        clip, noise, rate = map(float, terms)
        event = accountant.gaussian(noise, rate)
        if rate < 1 and units > 1:
            raise ConfigurationError("several rows belong to one unit, so a sample of rows is none of units: leave the batch size out")
        if not 0 < clip < float("inf") or len({len(r) for r in rows}) != 1:
            raise ConfigurationError("the clip is a number above 0, and rows are equally many in each operand")
        mapped = Mapped(program, [*rows, *self._others(stored[over:])], over, wrt, clip, noise, rate, units)
        session.reserve(8 * len(rows[0]) + sum(tensor.numel() * tensor.element_size() for tensor in mapped.operands))
        sources = frozenset[str]().union(*(cell.label.sources for _, cell in stored[:over]))
        shapes = check(session, mapped, lambda operator: self.engine.policies.compute(session.principal, sources, operator))
        if len(outs) != len(shapes):
            raise ProtocolError(f"MAP names {len(outs)} results, the plan gives {len(shapes)}")
        cost = Cost((event,), variation(sum(shape.numel() for shape in shapes)))
        told = [list(terms), list(map(list, shapes)), over, list(wrt), sorted(sources)]
        if not wrt:  # a step of training has a key of its own, and parameters by the million
            told += [_digest(program, mapped.operands[over:]), self._made(session, operands[:over])]
        question = json.dumps(told)
        return self._answer(session, request, outs, sources, key, question, cost, lambda: run(session, mapped, shapes))

    def _budget(self, session: Session, request: int, number: int) -> Message:
        _, cell = session.look_up(number)
        return _measured(request, (), self.ledger.standings(self._accounts(session.principal, cell.label.sources)))

    # -- the order of things

    def _answer(
        self, session: Session, request: int, outs: Sequence[int], sources: frozenset[str], key: str, question: str, cost: Cost,
        compute: Callable[[], list[torch.Tensor]],
    ) -> Message:  # fmt: skip
        who = session.principal
        accounts = self._accounts(who, sources)
        name = _key(who, key)
        kept = None
        if accounts:
            kept = self.ledger.reserve(name, question, accounts, cost)
        if kept is None:
            try:
                self._count(who, sources)
                results = compute()
                if accounts:
                    self.ledger.commit(name, _packed(results))
            except (Gone, Untimely):  # what was not told may be drawn again
                self.ledger.abandon(name)
                raise
            except Exception as error:  # noise may have decided that: it is the answer, and is not drawn again under this charge
                if accounts:
                    self.ledger.commit(name, _refused(error))
                raise
            except BaseException:
                self.ledger.abandon(name)
                raise
        else:
            results = _unpacked(kept)
        record = {"principal": who.name, "sources": sorted(sources), "question": question, "again": kept is not None}
        self.engine.journal.append("measured", record)
        mark = Mark(Label(Class.DP, sources), None) if sources else None
        for out, result in zip(outs, results, strict=True):
            session.reserve(result.numel() * result.element_size())
            session.put(out, self.engine.arrive(result), mark)
        return _measured(request, [spec_of(result) for result in results], self.ledger.standings(accounts))

    def _count(self, who: Principal, sources: Iterable[str]) -> None:
        """An answer about ``sources`` is a release. Raises `Untimely` where others have used up their rate since it was looked at."""
        if who.role is not Role.OWNER and not self.engine.policies.timely(who, sources, count=True):
            raise Untimely(self.engine.policies.refusal(sources))

    def _made(self, session: Session, numbers: Sequence[int]) -> str:
        """A digest of how the rows that are asked about were made: about another column it is another question. By what was done alone:
        whether values are the same would tell of them."""
        steps = session.trail.steps if session.trail is not None else ()
        lines = provenance.program(steps, numbers, {number: name for name, number in self.engine.names.copy().items()})
        return blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()

    def _accounts(self, who: Principal, sources: frozenset[str]) -> list[Account]:
        """The accounts that a release of ``sources`` must fit. Raises `GetNotPermittedError` where a policy has no way for it."""
        policies, owner = self.engine.policies, who.role is Role.OWNER
        if not owner and (not policies.open(who, sources) or not policies.timely(who, sources, count=False)):
            raise GetNotPermittedError(policies.refusal(sources))
        accounts: list[Account] = []
        for source, policy in policies.of(sources).items():
            for part in policy.parts():
                if part.dp is None:
                    if not part.free and not owner:
                        raise GetNotPermittedError(policies.refusal(sources))
                    continue
                accounts += accounts_of(source, who.name, part)
        return accounts

    def _rows(self, session: Session, asked: Sequence[Stored]) -> tuple[list[torch.Tensor], int]:
        """The values of ``stored``, side by side, in main memory, and at how many places one privacy unit has a row in any of them."""
        along, values = dict[Index, None](), []
        _afford(session, asked)
        still = Still(asked)
        for (tensor, cell), (value, _) in zip(asked, still.stored, strict=True):
            label = cell.label
            if tensor is None or value is None or cell.poisoned:
                if not label.private and cell.mark is not None and cell.mark.poison is not None:
                    raise Poisoned(cell.mark.poison)
                raise _no_rows()
            if label.private:
                axis = axis_of(label.rows, tensor)
                if label.shared or axis is None or axis.axis != 0 or label.selections != NONE or len(tensor) < 1:
                    raise _no_rows()
                if not self.engine.policies.watched(axis.along.frame):
                    raise _no_rows()
                along[axis.along] = None
            elif tensor.dim() == 0 or len(tensor) == 0:
                raise _no_rows()
            values.append(self.engine.leave(value).detach())
        still.check()
        return values, _most(along)

    def _others(self, stored: Sequence[Stored]) -> list[torch.Tensor]:
        values = []
        for tensor, cell in stored:
            if cell.label.private or tensor is None or cell.poisoned:
                raise PlanError("what a plan over rows is given besides its rows is public, or a private answer: get it released first")
            values.append(self.engine.leave(tensor).detach())
        return values


class Untimely(GetNotPermittedError):
    """Refused by a rate alone: it may be asked again later, under the same charge."""


def _afford(session: Session, stored: Sequence[Stored]) -> None:
    session.reserve(sum(tensor.numel() * tensor.element_size() for tensor, cell in stored if tensor is not None and cell.fickle))


def _most(along: Iterable[Index]) -> int:
    """At how many places the rows of one privacy unit are, at most, where these run side by side: each in an order of its own, a unit is at
    other places in each."""
    frames: dict[Frame, list[Index]] = {}
    for index in along:
        frames.setdefault(index.frame, []).append(index)
    most = 1
    for indices in frames.values():
        units = indices[0].units
        if len(indices) > 1:
            length = max(map(len, indices))
            places = [index.units * length + numpy.arange(len(index)) for index in indices]
            units = numpy.unique(numpy.concatenate(places)) // length
        most = max(most, int(numpy.bincount(units).max()))
    return most


def _key(who: Principal, key: str) -> str:
    """What a request is kept by: of this principal alone, whatever its name."""
    return f"{who.name.replace('%', '%25').replace('/', '%2F')}/{key}"


def number_free(asked: Sequence[Any]) -> list[Any]:
    """A query without ids, for telling whether a request is the same."""
    return [list(part) if isinstance(part, (list, tuple)) else part for part in asked]


def _digest(program: Program, others: Sequence[torch.Tensor]) -> str:
    """Of what is mapped over rows, and what it is given besides them."""
    code = [(step.operator.number, step.args, step.kwargs, step.outs) for step in program.steps if isinstance(step, Step)]
    found = blake2b(repr([code, program.results]).encode(), digest_size=16)
    for value in others:
        found.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _no_rows() -> GetNotPermittedError:
    return GetNotPermittedError(
        "a private answer is about rows: its operand's first axis must run over rows of the owner's dataset, each computed from that row "
        "alone. Ask before rows are summed, sorted, shuffled or mixed"
    )


def _measured(request: int, specs: Sequence[Any], standings: Sequence[Standing]) -> Message:
    rows = tuple((*s.account, s.spent) for s in standings)
    return (m.MEASURED, request, tuple(specs), rows)


def _packed(results: Sequence[torch.Tensor]) -> bytes:
    head = json.dumps([[NUMBER_OF[r.dtype], list(r.shape)] for r in results]).encode()
    return b"\n".join([head, b"".join(r.contiguous().numpy().tobytes() for r in results)])


def _refused(error: Exception) -> bytes:
    known = error if isinstance(error, SyftliteError) else RemoteError("it could not be answered: ask the owner, whose log has the details")
    return json.dumps({"code": code_of(known), "text": str(known)[: MAX_TEXT]}).encode()


def _unpacked(kept: bytes) -> list[torch.Tensor]:
    head, _, body = kept.partition(b"\n")
    results, at, told = [], 0, json.loads(head)
    if type(told) is dict:
        raise rebuild(told["code"], told["text"])
    for number, shape in told:
        dtype = DTYPES[number]
        size = dtype.itemsize * torch.Size(shape).numel()
        results.append(torch.frombuffer(bytearray(body[at : at + size]), dtype=dtype).view(shape))
        at += size
    return results
