"""Custody: where a shared tensor may be put together again, and by whom besides the session that shared it.

    located      what was shared where it is (a pointer's `share`) is located there: its first `get` reveals nothing
    reveal_to    users of the holders who may find it by its tags, compute with it and open it (`share(..., reveal_to=["ben"])`)

What is made of shared tensors has the custody of all of them: it is located where one of them is, and for those whom each names. Under its
tags a share says of what it is one, so that another session can put the tensor together: `find_shared`.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from syftlite._torch import aten
from syftlite.errors import Misuse
from syftlite.ops.encoding import fits
from syftlite.wire import messages as m

if TYPE_CHECKING:
    from syftlite.remote.group import Group, Shares
    from syftlite.remote.pointer import PointerTensor


class Custody(NamedTuple):
    """Of one shared tensor."""

    located: Any = None
    reveal_to: frozenset[str] | None = frozenset()
    """None: of what is public."""


class Held:
    """The custody of a tensor and of its views: what is written to one is part of the others."""

    __slots__ = ("custody", "lent", "true_at", "writes")

    def __init__(self, custody: Custody) -> None:
        self.custody = custody
        self.lent: frozenset[str] = frozenset()
        """Users that its holders show it to."""
        self.writes = 0
        self.true_at = -1

    @property
    def truths(self) -> bool:
        """Whether it is known to be a comparison: 1 or 0 everywhere."""
        return self.true_at == self.writes

    def note_truths(self) -> None:
        """Note that it is one, until it is written to."""
        self.true_at = self.writes

    def narrow(self, custody: Custody) -> None:
        """What has ``custody`` is about to be written to it. Raises `Misuse` if users find it for whom that is not."""
        beyond = set() if custody.reveal_to is None else self.lent - custody.reveal_to
        if beyond:
            raise Misuse(
                f"this tensor is tagged for {', '.join(sorted(beyond))}, and what would be written to it is not for them: compute a new "
                "one, as x + y does, or share that with the same reveal_to"
            )
        self.custody = custody
        self.writes += 1


_PUT = {
    aten.copy_.default: 1, aten.fill_.Scalar: 1, aten.fill_.Tensor: 1, aten.index_put_.default: 2, aten.masked_fill_.Scalar: 2,
    aten.masked_fill_.Tensor: 2,
}  # fmt: skip
"""Operators that put values in the place of others, and which operand those are."""


def writes_truths(func: Any, args: tuple[Any, ...]) -> bool:
    """Whether ``func`` leaves a comparison one."""
    added = func is aten.index_put_.default and any(args[3:])
    return func is aten.zero_.default or (func in _PUT and not added and is_truth(args[_PUT[func]]))


def is_truth(value: Any) -> bool:
    """Whether all of ``value``, shared or public, is known to be 0 or 1."""
    held = getattr(value, "held", None)
    if isinstance(held, Held):
        return held.truths
    if isinstance(value, torch.Tensor):
        return type(value) is torch.Tensor and bool(((value == 0) | (value == 1)).all())
    return value in (0, 1)


@cache
def is_write(func: Any) -> bool:
    """Whether the ATen operator ``func`` writes to an operand."""
    return bool(func._schema.is_mutable)


@cache
def is_view(func: Any) -> bool:
    """Whether what the ATen operator ``func`` gives lies in its first operand's memory, which it does not write to."""
    aliases = [returned.alias_info for returned in func._schema.returns]
    return any(alias is not None and not alias.is_write for alias in aliases)


OWN = Custody()
"""Of a value that was shared from here, by nobody else to be opened."""
KNOWN = Custody(reveal_to=None)
"""Of what everybody may know."""


def for_users(reveal_to: Any) -> Custody:
    """Custody of a value that the users of these names may open too."""
    names = (reveal_to,) if isinstance(reveal_to, str) else reveal_to
    if not isinstance(names, Collection) or not all(isinstance(name, str) and name for name in names):
        raise Misuse(f'reveal_to names users of the holders, such as reveal_to=["ben"], and this is {reveal_to!r}')
    return OWN._replace(reveal_to=frozenset(names)) if names else OWN


def joined(operands: Iterable[Any], together: Custody = KNOWN) -> Custody:
    """Of what is made of ``operands``, some of which have custody, and of what had ``together``."""
    for operand in operands:
        custody = getattr(operand, "custody", KNOWN)
        if custody is not together and custody is not KNOWN:
            together = custody if together is KNOWN else _both(together, custody)
    return together


def _both(one: Custody, other: Custody) -> Custody:
    if one.reveal_to is None or other.reveal_to is None:
        named = other.reveal_to if one.reveal_to is None else one.reveal_to
    else:
        named = one.reveal_to & other.reveal_to
    return Custody(one.located or other.located, named)


# -- for other sessions to find


def label(shares: Shares, held: Held, tags: Sequence[str], scheme: Mapping[str, int] | None) -> None:
    """Label the shares of a tensor, and have its holders show them to whom they may be shown."""
    known = _mark(shares[0], len(shares))
    name = secrets.token_hex(16) if known is None else known.name
    read = "" if scheme is None else f":{scheme['base']}:{scheme['precision_fractional']}"
    for place, share in enumerate(shares):
        share.tag(*tags, f"share-of:{name}:{place}:{len(shares)}{read}")
    readers = held.custody.reveal_to or frozenset()
    for share in shares if readers else ():
        share.location.ask(m.LEND, share.id_at_location, sorted(readers))
    held.lent = readers


def without_marks(tags: Iterable[str]) -> set[str]:
    """Those of ``tags`` that are for people."""
    return {tag for tag in tags if not _MARK.fullmatch(tag)}


def found(group: Group, tags: Sequence[str]) -> list[tuple[Shares, dict[str, int] | None]]:
    """The shares of each tensor with ``tags`` that the holders of ``group`` show, and base and precision of one in fixed precision."""
    named: dict[str, dict[int, tuple[PointerTensor, Mark]]] = {}
    for index, holder in enumerate(group.holders):
        for pointer in holder.search(*tags):
            mark = _mark(pointer, len(group.places))
            if mark is not None and group.places[mark.place][0] == index:
                named.setdefault(mark.name, {})[mark.place] = pointer, mark
    complete = [[at[place] for place in range(len(group.places))] for at in named.values() if len(at) == len(group.places)]
    alike = [each for each in complete if len({(pointer.shape, pointer.dtype, mark.scheme) for pointer, mark in each}) == 1]
    return [
        (tuple(pointer for pointer, _ in each), dict(zip(("base", "precision_fractional"), scheme, strict=True)) if scheme else None)
        for each in alike
        for scheme in (each[0][1].scheme,)
    ]


class Mark(NamedTuple):
    """The tag of a share that is not for people: of which tensor it is one, and which; base and precision of one in fixed precision."""

    name: str
    place: int
    scheme: tuple[int, int] | None


_MARK = re.compile(r"share-of:([0-9a-f]{32}):(\d{1,3}):(\d{1,3})(?::(\d{1,10}):(\d{1,2}))?", re.ASCII)


def _mark(pointer: PointerTensor, places: int) -> Mark | None:
    """That of the share that ``pointer`` is at, one of ``places``."""
    for tag in sorted(pointer.tags, key=len, reverse=True):  # one with base and precision says more
        read = _MARK.fullmatch(tag)
        if read is not None and int(read[2]) < int(read[3]) == places:
            scheme = (int(read[4]), int(read[5])) if read[4] else None
            return Mark(read[1], int(read[2]), scheme) if scheme is None or fits(*scheme) else None
    return None
