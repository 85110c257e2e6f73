"""Sessions and what they hold.

    Session --objects--> (tensor, Cell) --owner--> the Session that may write it
                                  `--mark--> label and poison, None for a public, healthy value
                         (None, Reference)         an object of another worker

A cell is shared by all that alias one storage: a PRIVATE write through a view marks the base too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from syftlite.engine.marks import Mark, Poison, Unsettled
from syftlite.engine.room import Room
from syftlite.engine.trail import GIVEN, Trail
from syftlite.errors import (
    ObjectNotFoundError,
    PointerMisuseError,
    ProtocolError,
    QuotaExceededError,
    SendNotPermittedError,
    code_of,
)
from syftlite.policy.labels import PUBLIC, Label

if TYPE_CHECKING:
    from syftlite.engine.arrivals import Expected
    from syftlite.engine.desk import Desk
    from syftlite.engine.groups import FixedWeight, Member
    from syftlite.engine.plans import Program
    from syftlite.engine.policies import Policies
    from syftlite.ops.spec import Spec
    from syftlite.secagg.client import Client

DEFAULT_MAX_BYTES = 8 << 30
DEFAULT_MAX_OBJECTS = 1_000_000


class Role(Enum):
    """What a principal may do, by the tables in access.py. The value is its name on the wire."""

    OWNER = "owner"
    SCIENTIST = "scientist"
    PEER = "peer"
    PROVIDER = "provider"
    AUDITOR = "auditor"


class Principal(NamedTuple):
    """Who a connection is, as its authentication said; never a field of a message."""

    name: str
    role: Role


FINDING = threading.RLock()
"""Held while a cell is found by another session, or closed to them; so while one that may be found goes."""


class Cell:
    """One storage: who owns it, its bytes on the owner's account, how many objects alias it, how often it was written."""

    __slots__ = ("closing", "found", "left", "mark", "nbytes", "owner", "places", "refs", "writes", "writing")

    def __init__(self, owner: Session, mark: Mark | None, nbytes: int) -> None:
        self.owner, self.mark, self.nbytes, self.refs, self.writes, self.writing = owner, mark, nbytes, 1, 0, False
        self.found = self.closing = False  # by another session; about to be labelled, so that none may find it: FINDING's
        self.left: tuple[int, Spec] | None = None  # what of it has left as an aggregate: as often written, and which view
        self.places = 0  # unless it was written since, all in it are places of a plane of so many elements, by the kernel that found them

    @property
    def label(self) -> Label:
        """The label of everything in this storage."""
        return PUBLIC if self.mark is None else self.mark.label

    @property
    def fickle(self) -> bool:
        """Whether its owner's lane may write to it while another session's looks at it."""
        return self.found and not self.owner.steady

    @property
    def poisoned(self) -> bool:
        """Whether what should be here never came."""
        return self.mark is not None and self.mark.poison is not None

    def let_go(self) -> None:
        """One of those that keep it does no longer; the last one gives its bytes back."""
        self.refs -= 1
        if not self.refs:
            self.owner.used -= self.nbytes


class Reference(Cell):
    """The place of a pointer to object ``target`` of the worker ``at``. There is no value here: whoever asks for it is told where it is.
    The client that keeps the chain sends operators there itself."""

    __slots__ = ("at", "target")

    def __init__(self, owner: Session, number: int, at: str, target: int) -> None:
        text = f"object {number} is a pointer to an object at {at}: operators on it run there, and its value is read there"
        poison = Poison(code_of(PointerMisuseError()), text, 0, 0)
        super().__init__(owner, Mark(PUBLIC, poison), REFERENCE_BYTES + len(text))
        self.at, self.target = at, target

    def __repr__(self) -> str:
        return f"<pointer to {self.at}:{self.target}>"


REFERENCE_BYTES = 256
"""What a reference takes of its session's quota, besides its text."""


class Card(NamedTuple):
    """What `search` shows of an object."""

    tags: tuple[str, ...]
    description: str

    @property
    def nbytes(self) -> int:
        """What it takes of its session's quota: a byte a character."""
        return sum(map(len, self.tags)) + len(self.description)


Stored = tuple[torch.Tensor | None, Cell]


class Still:
    """Values that stay what they are while it is decided what becomes of them: copies of those that another session may write to. `check`
    afterwards, whether the labels that were looked at meanwhile are theirs."""

    def __init__(self, stored: Sequence[Stored]) -> None:
        self._seen = [(cell, cell.writes, cell.writing) for _, cell in stored if cell.fickle]
        self.stored: list[Stored] = [(t if t is None or not cell.fickle else t.clone(), cell) for t, cell in stored]

    def check(self) -> None:
        """Raise `SendNotPermittedError` if one has been written to since."""
        if any(writing or cell.writing or cell.writes != writes for cell, writes, writing in self._seen):
            raise SendNotPermittedError("another session of yours writes to this object: ask again when it has")


class Session:
    """One client's namespace at one worker. Ids are its 31-bit prefix and a 32-bit counter that the client runs."""

    policies: Policies | None = None  # what its labelled operands may be used for
    device: torch.device | None = None  # where its tensors are; None for main memory
    trail: Trail | None = None  # from the first labelled operand on
    steady = False  # whether what lies here is never written: the owner's datasets
    delivers: Mapping[int, Expected] | None = None  # a peer's connection, which may deliver these, by id, and do nothing else

    def __init__(self, prefix: int, principal: Principal, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self.prefix = prefix
        self.principal = principal
        self.kinds: frozenset[int] = frozenset()  # messages that it may send
        self.objects: dict[int, Stored] = {}
        self.cards: dict[int, Card] = {}
        self.protected: list[str] = []  # what it put under policies of its own, by the names that these have
        self.lent: dict[int, frozenset[str]] = {}  # to users of these names, who find it too
        self.programs: dict[int, Program] = {}
        self.weights: dict[int, FixedWeight] = {}
        self.members: dict[int, Member] = {}  # by the client's numbers of its sharing groups
        self.room = Room()  # for what providers send ahead of its computations
        self.channels: dict[str, Desk] = {}  # of served models that this connection queries
        self.rounds: dict[int, tuple[Client, int]] = {}  # of secure aggregation, by the client's numbers; bytes that each takes
        self.unsettled = Unsettled()
        self.cleared: dict[int, frozenset[str]] = {}  # the operators that its policies let it run, and on which datasets' values last
        self.epoch: object = None  # ... in this epoch of them
        self.heavy = False  # set by an operator whose cost rule says that it takes long
        self.used = 0
        self.max_bytes = max_bytes
        self.reclaim: Callable[[], None] = lambda: None  # gives back what is held for nothing
        self.coming: Callable[[], int] = int  # bytes of uploads that have begun: none
        self.max_objects = DEFAULT_MAX_OBJECTS
        self.executed = 0
        self.gone = False  # its connection is: what runs need not go on
        self.quick = False  # set while the event loop's own thread executes: costly operators are deferred

    def trace(self, number: int, args: Any, kwargs: Any, outs: Any, mark: Mark | None) -> None:
        """Remember an operator's message; ``mark``: that of its operands, if any has one."""
        trail = self.trail
        if mark is not None and mark.sources:
            if trail is None:
                trail = self.trail = Trail()
            trail.touched.append(number)
            if mark.sources is not trail.sources and not mark.sources <= trail.sources:
                trail.sources |= mark.sources
        if trail is not None:
            trail.add(number, args, kwargs, outs)

    def stored(self) -> dict[int, Stored]:
        """What is stored now, for whoever looks from a thread that is not this session's: it may be stored to and dropped meanwhile."""
        return self.objects.copy()

    def look_up(self, number: int) -> Stored:
        """The object of that id. Raises `ObjectNotFoundError`, the same for every reason."""
        try:
            return self.objects[number]
        except (KeyError, TypeError):
            raise ObjectNotFoundError(
                f"object {number} is not there: it was taken by get(), deleted, or never yours; keep a copy with get_copy()"
            ) from None

    def claim(self, number: object, *, traced: bool = False) -> int:
        """``number`` as a fresh id of this session. A client that breaks this breaks the protocol. ``traced``: by an operator, whose step
        tells what it stands for."""
        if type(number) is not int or number >> 32 != self.prefix:
            raise ProtocolError(f"id {number} is not of session {self.prefix}")
        if number in self.objects or number in self.weights or number in self.programs:
            raise ProtocolError(f"id {number} is taken")
        if self.trail is not None and not traced:  # it may have stood for something else before
            self.trail.add(GIVEN, (), None, number)
        return number

    def reserve(self, nbytes: int) -> None:
        """Raise `QuotaExceededError` unless ``nbytes`` more fit."""
        if self.used + nbytes > self.max_bytes:
            self.reclaim()
        if self.used + nbytes > self.max_bytes:
            raise QuotaExceededError(
                f"{nbytes:,} more bytes do not fit: {self.used:,} of {self.max_bytes:,} are in use; "
                "delete pointers you no longer need, or ask the owner for a larger quota"
            )
        if len(self.objects) >= self.max_objects:
            raise QuotaExceededError(f"{self.max_objects:,} objects are stored: delete pointers you no longer need")

    def charge(self, nbytes: int) -> None:
        """Put ``nbytes`` on the account. Another session's thread may be giving back what it found here: what is added is a number by the
        time that the account is read, so that nothing comes between reading and writing it."""
        self.used += nbytes

    def put(self, number: int, tensor: torch.Tensor, mark: Mark | None = None) -> Cell:
        """Store a fresh ``tensor`` under ``number``."""
        nbytes = tensor.numel() * tensor.element_size()
        cell = Cell(self, mark, nbytes)
        self.objects[number] = (tensor, cell)
        self.used += nbytes
        return cell

    def refer(self, number: int, at: str, target: int) -> None:
        """Store a pointer to object ``target`` of worker ``at`` under ``number``."""
        cell = Reference(self, number, at, target)
        self.objects[number] = (None, cell)
        self.used += cell.nbytes

    def alias(self, number: int, tensor: torch.Tensor | None, cell: Cell) -> None:
        """Store ``tensor``, which lies in ``cell``'s storage, under ``number``."""
        cell.refs += 1
        self.objects[number] = (tensor, cell)

    def describe(self, number: int, card: Card) -> None:
        """Have ``number`` found by what ``card`` says."""
        old = self.cards.get(number)
        more = card.nbytes - (0 if old is None else old.nbytes)
        if not self.steady:
            self.reserve(max(more, 0))
        self.used += more
        self.cards[number] = card

    def drop(self, number: int) -> None:
        """Forget ``number``; nothing happens if it is not there."""
        if number in self.cards:
            with FINDING:
                self.charge(-self.cards.pop(number).nbytes)
                self.lent.pop(number, None)
                self.drop(number)
            return
        found = self.objects.pop(number, None)
        if found is not None:
            found[1].let_go()
            return
        kept = self.programs.pop(number, None) or self.weights.pop(number, None)
        if kept is not None:
            self.used -= kept.nbytes
            kept.forget()

    def take_over(self, number: int) -> tuple[torch.Tensor, Cell]:
        """The value of ``number``, which goes, in memory that no object of any session has: a copy where something else still names it.
        It stays on this account until its cell is let go. Whoever keeps a value beyond its object takes it over: what is written to the
        memory later, and its label, would otherwise be what was kept."""
        tensor, cell = self.look_up(number)
        if tensor is None:
            raise ObjectNotFoundError(f"there is no value of object {number} here")
        with FINDING:
            if cell.refs == 1:
                cell.refs += 1
                self.drop(number)
                return tensor, cell
        own = Cell(self, cell.mark, tensor.numel() * tensor.element_size())
        self.reserve(own.nbytes)
        copy = tensor.clone(memory_format=torch.contiguous_format)
        self.used += own.nbytes
        self.drop(number)
        return copy, own
