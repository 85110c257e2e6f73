"""What desks of a served model have in common: its form, the queries and the clients that they keep, and what they tell each other."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

from syftlite.engine.batches import Key
from syftlite.engine.pending import Pending
from syftlite.engine.session import Cell, Principal, Session
from syftlite.errors import code_of
from syftlite.policy.labels import Label
from syftlite.wire import messages as m
from syftlite.wire.fields import MAX_TEXT
from syftlite.wire.messages import Message


class ModelForm(NamedTuple):
    """What everybody may know of a model, as MODEL tells it."""

    members: tuple[str, ...]
    """Names of the holders, in their order, then of the provider."""
    shape: tuple[int, ...]
    """Of one row of a query's share."""
    inputs: tuple[tuple[tuple[int, ...], int], ...]
    """What a client makes a row of: each input's shape, and below what number its whole numbers are, or 0 for reals."""
    output: tuple[int, ...]
    base: int
    precision: int
    whole: bool
    """Whether the output is whole numbers, such as labels, and not at the scale base ** precision."""
    rows: int
    """That one query may have."""
    last: tuple[tuple[str, tuple[tuple[str, int], ...]], ...]


class Served(NamedTuple):
    """What a desk serves, to whom."""

    name: str
    form: ModelForm
    clients: frozenset[str] | None
    """Principals who may ask; None: whoever may ask anything of this node."""
    permit: Callable[[Principal, Label], None]
    """Raises unless something with that label may leave to that principal: the node's gate."""


class Query:
    """A query at one holder."""

    def __init__(self, session: Session, request: int, rows: int, share: Tensor, cell: Cell) -> None:
        self.session, self.request, self.rows, self.share, self.cell = session, request, rows, share, cell
        self.answer = Pending()
        self.since = time.monotonic()
        self.abandoned = False
        self.allowance = 0
        """Which of the owner's allowances it takes from (count.py)."""

    def settle(self, answer: Message) -> None:
        """Answer it; its share is on nobody's account any more."""
        self.cell.let_go()
        self.answer.settle(answer)

    def fail(self, error: Exception) -> None:
        """Answer that there is no answer."""
        self.settle((m.ERROR, self.request, code_of(error), str(error)[: MAX_TEXT], 0, 0))


class Batch(NamedTuple):
    """Queries that run together, which wait no more."""

    rows: int
    """Of the stream that they go through: at least as many as they have."""
    keys: Sequence[Key]
    queries: list[Query]


class Channel:
    """One client at this holder: the connection that it came by, and the last number that it used."""

    def __init__(self, session: Session) -> None:
        self.session, self.last, self.waiting = session, 0, 0


class ToLeader(Protocol):
    """What holder 0 is told: over a link, or the desk itself in this process."""

    def have(self, holder: int, key: Key, rows: int) -> None:
        """``holder`` has its share of a query."""

    def gone(self, holder: int, channel: str) -> None:
        """The client is gone from ``holder``."""


class ToFollower(Protocol):
    """What any other holder is told."""

    def order(self, rows: int, keys: Sequence[Key]) -> Callable[[], None]:
        """Run these queries as one batch. Returns what the leader's thread still does for it, once its own part has begun."""

    def refuse(self, key: Key, code: int, text: str) -> None:
        """This one is not run."""

    def forget(self, channel: str) -> None:
        """Nothing more of this channel will be ordered."""
