"""The messages of plans: PLAN stores a program, RUN replays it (plans.py), SCAN replays it for each row of something (scans.py)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from syftlite.engine.plans import Program, replay, weigh
from syftlite.engine.scans import scan
from syftlite.engine.session import Session
from syftlite.errors import ProtocolError
from syftlite.wire import messages as m


def _plan(session: Session, number: int, arity: int, code: Sequence[Any], results: Sequence[int] | None) -> None:
    program, nbytes = session.programs.get(number), weigh(code)
    session.reserve(nbytes)
    if program is None:
        program = session.programs[session.claim(number)] = Program(arity)
    program.extend(arity, code)
    program.nbytes += nbytes
    session.used += nbytes
    if results is not None:
        program.finish(results)


def _run(session: Session, number: int, operands: Sequence[int], base: int, outs: Sequence[int]) -> None:
    replay(session, _program(session, number), operands, base, outs)


def _scan(session: Session, number: int, operands: Sequence[int], over: Sequence[int], base: int, outs: Sequence[int]) -> None:
    scan(session, _program(session, number), operands, over, base, outs)


def _program(session: Session, number: int) -> Program:
    program = session.programs.get(number)
    if program is None:
        raise ProtocolError(f"there is no plan {number}")
    return program


HANDLERS: Mapping[int, Callable[..., None]] = MappingProxyType({m.PLAN: _plan, m.RUN: _run, m.SCAN: _scan})
"""They need nothing of an engine but the session."""
