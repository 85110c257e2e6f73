"""What one session did with labelled data, while it is remembered: for the audit's frames, and for whoever decides on a request.

    touched, sources   since the last record: operators that met data, and of which datasets
    steps              the last `MAX_STEPS` messages since the first that met labelled data; engine/provenance.py prints them

It begins with the first labelled operand, so that a session without any pays for one comparison an operator.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from time import monotonic_ns
from typing import Any, NamedTuple

from syftlite.ops.table import TABLE

MAX_STEPS = 4096
GIVEN = 0
"""The number of a step that is no operator: what its ids stand for from now on was sent, or came by another message."""
MAX_NAMED = 20
"""Operators that a record names; the rest of them are counted together."""


class Step(NamedTuple):
    """An OP message, its ids those of the session; ``at``: when, among all sessions'."""

    number: int
    args: Any
    kwargs: Any
    outs: Any
    at: int = 0


class Trail:
    """What a session did. ``steps``: tuples of what a `Step` holds."""

    __slots__ = ("sources", "steps", "touched")

    def __init__(self) -> None:
        self.touched: list[int] = []
        self.sources: frozenset[str] = frozenset()
        self.steps: deque[tuple[int, Any, Any, Any, int]] = deque(maxlen=MAX_STEPS)

    def add(self, number: int, args: Any, kwargs: Any, outs: Any) -> None:
        """One step more."""
        self.steps.append((number, args, kwargs, outs, monotonic_ns()))

    def record(self, principal: str, session: int) -> dict[str, Any]:
        """What happened since the last record, for the audit; counting begins anew."""
        touched, self.touched, sources, self.sources = self.touched, [], self.sources, frozenset()
        operators = named(Counter(touched).items())
        return {"operators": operators, "principal": principal, "session": session, "sources": sorted(sources)}


def named(counts: Iterable[tuple[int, int]]) -> dict[str, int]:
    """Operators by their short names, the most frequent first."""
    rows = sorted(counts, key=lambda row: -row[1])
    shown: dict[str, int] = {}
    for number, count in rows[:MAX_NAMED]:
        operator = TABLE[number]
        name = operator.name.removeprefix("aten.") if operator is not None else str(number)
        shown[name] = count
    if len(rows) > MAX_NAMED:
        shown["others"] = sum(count for _, count in rows[MAX_NAMED:])
    return shown
