"""Marks: what is known of a storage that is not simply public and healthy: its label, and why what should be there never came.

    operator on labelled values -> Mark(whose data: at once; its label: when somebody asks) -> settled

Making out a label costs more than a small operator does, and most values are never asked for. So the labels of small values wait until
something depends on them: somebody asks for the value, an operand is to be written, or the frame that brought the operator ends. What is no
longer there by then, and made nothing that is, needs none. Labels of large values are made out at once: nothing is kept alive for long.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from weakref import ref

import torch

from syftlite.errors import QuotaExceededError
from syftlite.ops.operator import Operator
from syftlite.policy.call import Given
from syftlite.policy.labels import Label, blind, join
from syftlite.policy.propagate import propagate

log = logging.getLogger("syftlite.engine")
SMALL = 32 << 10
"""Bytes of an operand's storage, or elements of the result, beyond which there is no waiting."""
MOST = 100
"""Marks that wait in a session."""

_lock = threading.RLock()  # a value may be asked for on one thread while its session goes on on another


class Poison(NamedTuple):
    """Why a promised value never came: the error's wire code and text, the operator's number, the failed message's number."""

    code: int
    text: str
    operator: int
    origin: int


Made = tuple[Operator, Sequence[Any], Mapping[str, Any] | None, Sequence[torch.Tensor], "Sequence[Mark]", Any]
"""How a value was made, for its label: the operator, its operands, those that have marks, these marks, and what it gave. Not a named
tuple, which takes six times as long to make, once an operator."""


def _label_of(made: Made) -> Label:
    """Its label, with what the checks of the values say."""
    operator, args, kwargs, marked, marks, out = made
    labels = {id(tensor): mark.label for tensor, mark in zip(marked, marks, strict=True)}
    try:
        outcome = propagate(operator, args, kwargs, labels, out)
        label = outcome.label
        if outcome.checks and not label.exposed:
            given = Given(operator, args, out)
            if any(check(given) for check in outcome.checks):
                label = label._replace(exposed=True)
    except Exception as error:  # what cannot be looked at is held to be exposed
        if not isinstance(error, QuotaExceededError):
            log.exception("no label for a result of %s", operator.name)
        label = blind(join(labels.values()))._replace(exposed=True)
    return label


class Mark:
    """What a reader must know of a storage. ``sources``: the datasets of its label. Without a label, ``made`` tells how to come by it."""

    __slots__ = ("__weakref__", "_label", "_made", "poison", "sources")

    def __init__(
        self, label: Label | None, poison: Poison | None = None, sources: frozenset[str] | None = None, made: Made | None = None
    ) -> None:
        self._label, self._made, self.poison = label, made, poison
        self.sources: frozenset[str] = label.sources if label is not None else sources or frozenset()

    @property
    def label(self) -> Label:
        """Its label; made out now if that has waited."""
        label = self._label
        return label if label is not None else self.settle()

    @property
    def plain(self) -> bool:
        """Whether it is known that neither rows nor equal elements are told: what is made of it alone has this very mark."""
        return self._label is not None and self._label.rows is None and not self._label.flat

    @property
    def settled(self) -> bool:
        """Whether its label is known."""
        return self._label is not None

    def settle(self) -> Label:
        """Make out its label, unless somebody has."""
        with _lock:
            if self._label is None:
                assert self._made is not None
                self._label, self._made = _label_of(self._made), None
            return self._label


class Unsettled:
    """The marks of one session that wait."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[ref[Mark]] = []

    def add(self, mark: Mark) -> None:
        """``mark`` is settled when `settle` is called, if it is still there then."""
        if len(self._waiting) >= MOST:
            self.settle()
        self._waiting.append(ref(mark))

    def settle(self) -> None:
        """Make out the labels of all that is still there."""
        waiting, self._waiting = self._waiting, []
        for waits in waiting:
            mark = waits()
            if mark is not None and not mark.settled:
                mark.settle()
