"""Labels: what the owner's side knows of a value's origin. They live with the value; a pointer carries none.

    PUBLIC < PRIVATE          a result's class is the strictest of its operands'
    sources                   the union of its operands' datasets
    shared                    a share of a secret, or made of one: it leaves re-randomised, or not at all

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
    """A value's class, the datasets that it derives from, and whether it is a share."""

    level: Class
    sources: frozenset[str]
    shared: bool = False

    @property
    def private(self) -> bool:
        """Whether the value may not simply leave."""
        return self.level is not Class.PUBLIC or self.shared


PUBLIC = Label(Class.PUBLIC, frozenset())


def private(source: str) -> Label:
    """The label of dataset ``source``'s own rows."""
    return Label(Class.PRIVATE, frozenset({source}))


def join(labels: Iterable[Label]) -> Label:
    """The strictest of ``labels``: class by maximum, sources by union, a share if any is one."""
    level, sources, shared = Class.PUBLIC, frozenset[str](), False
    for label in labels:
        level, sources, shared = max(level, label.level), sources | label.sources, shared or label.shared
    return Label(level, sources, shared)
