"""Labels: what the owner's side knows of a value's origin. They live with the value; a pointer carries none.

    PUBLIC < PRIVATE          a result's class is the strictest of its operands'
    sources                   the union of its operands' datasets

There is one join for every route: results, views, in-place writes, plans and gradients are all operators.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple


class Class(IntEnum):
    """How closely a value is held; a higher class is stricter."""

    PUBLIC = 0
    PRIVATE = 3


class Label(NamedTuple):
    """A value's class and the datasets that it derives from."""

    level: Class
    sources: frozenset[str]

    @property
    def private(self) -> bool:
        """Whether the value may leave only by the owner's approval."""
        return self.level is not Class.PUBLIC


PUBLIC = Label(Class.PUBLIC, frozenset())


def private(source: str) -> Label:
    """The label of dataset ``source``'s own rows."""
    return Label(Class.PRIVATE, frozenset({source}))


def join(labels: Iterable[Label]) -> Label:
    """The strictest of ``labels``: class by maximum, sources by union."""
    level, sources = Class.PUBLIC, frozenset[str]()
    for label in labels:
        level, sources = max(level, label.level), sources | label.sources
    return Label(level, sources)
