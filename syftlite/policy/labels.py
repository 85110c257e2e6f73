"""Labels: what the owner's side knows of a value's origin. They live with the value; a pointer carries none.

    PUBLIC < DP < AGG < PRIVATE    a result's class is the strictest of its operands', but for reductions over a unit axis
    sources                        the datasets that it derives from; their policies are in a registry, so a stricter one holds at once
    shared                         a share of a secret, or made of one: it leaves re-randomised, or not at all
    rows                           lineage.py: which axis runs over the rows of a dataset, None once that is lost
    selections                     which rows went into sums that it was made of, as groups that a release is checked by
    exposed                        a sum in its making was nearly one row's value, or lost what the rest of the rows added
    flat                           an aggregate, all of whose elements are equal whatever the data: no row of others is weighted apart by it

`join` is what any operator may be trusted with; `propagate` knows more of reviewed ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple

from syftlite.policy.lineage import Rows, Selection


class Class(IntEnum):
    """How closely a value is held; a higher class is stricter."""

    PUBLIC = 0
    DP = 1
    AGG = 2
    PRIVATE = 3


NONE: frozenset[Selection] = frozenset()


class Label(NamedTuple):
    """What is known of a value's origin; see the module."""

    level: Class
    sources: frozenset[str]
    shared: bool = False
    rows: Rows | None = None
    selections: frozenset[Selection] = NONE
    exposed: bool = False
    flat: bool = False

    @property
    def private(self) -> bool:
        """Whether the value may not simply leave. What a differentially private mechanism made may."""
        return self.level > Class.DP or self.shared


PUBLIC = Label(Class.PUBLIC, frozenset())


def private(source: str, rows: Rows | None = None) -> Label:
    """The label of dataset ``source``'s own rows."""
    return Label(Class.PRIVATE, frozenset({source}), rows=rows)


def join(labels: Iterable[Label]) -> Label:
    """The strictest of ``labels``: class by maximum, the rest by union; rows are lost unless all that have some agree."""
    level, sources, shared, rows, selections, exposed = Class.PUBLIC, frozenset[str](), False, None, NONE, False
    blind = False
    for label in labels:
        level, sources, shared = max(level, label.level), sources | label.sources, shared or label.shared
        selections, exposed = selections | label.selections, exposed or label.exposed
        if label.level is Class.PRIVATE:
            blind = blind or label.rows is None or rows not in (None, label.rows)
            rows = label.rows
    return Label(level, sources, shared, None if blind else rows, selections, exposed)


def blind(label: Label) -> Label:
    """``label`` without its rows: nothing made of it is an aggregate any more."""
    return label if label.rows is None else label._replace(rows=None)
