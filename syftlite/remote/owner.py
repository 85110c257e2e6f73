"""What an owner does at its own node: offer datasets, and decide what may leave. Everyone else is refused (`NotOwnerError`)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from syftlite.errors import NotOwnerError, ObjectNotFoundError, TensorsNotCollocatedError
from syftlite.ops.dtypes import DTYPES, number_of
from syftlite.remote.asking import ReleaseRequest
from syftlite.remote.handle import RemoteTensor, consumed
from syftlite.remote.mock import Range, columns_of, twin
from syftlite.remote.transfer import must_be_plain
from syftlite.transports.base import Progress
from syftlite.wire.fields import MAX_TEXT
from syftlite.wire.messages import DECIDE, FIND, INSPECT, LIST, PENDING, POLICY, STORE, must_be_sendable

if TYPE_CHECKING:
    from collections import deque

    from syftlite.policy.rules import Policy
    from syftlite.transports.base import Transport


class Listed(NamedTuple):
    """An object as a worker lists it. ``private``: nothing made of it leaves without approval. ``borrowed``: it belongs to the owner."""

    id: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    tags: tuple[str, ...]
    description: str
    private: bool
    borrowed: bool


class PendingRequest(NamedTuple):
    """A release request as the owner sees it: who asks, why, for ``what``. ``state`` is pending, approved, denied,
    released or expired;
    ``filed_at`` is in seconds since the epoch, by the node's clock."""

    id: str
    principal: str
    reason: str
    what: tuple[str, ...]
    state: str
    filed_at: float


class Inspected(NamedTuple):
    """A request as its owner looks at it. ``program``: lines that made the values, as far as the session's trail tells; ``expires_at`` in
    seconds since the epoch; ``votes``: who approved, of ``quorum``; ``values``: what would leave, if asked for."""

    request: PendingRequest
    program: tuple[str, ...]
    expires_at: float
    quorum: int
    votes: tuple[str, ...]
    values: tuple[torch.Tensor, ...]


class OwnerMethods:
    """The methods of a worker's face that are its owner's, and `listing`, which is everyone's."""

    if TYPE_CHECKING:
        id: str
        transport: Transport
        drops: deque[int]
        next_id: Callable[[], int]
        put: Callable[..., None]
        ask: Callable[..., Any]
        _pages: Callable[..., list[Any]]

    def listing(self) -> list[Listed]:
        """The datasets that a search would find here, and this session's own objects."""
        self._pages(FIND, [])
        return [
            Listed(row[0], tuple(row[1][1]), DTYPES[row[1][0]], tuple(row[2]), row[3], row[4], row[5]) for row in self._pages(LIST)
        ]

    def store(
        self,
        tensor: torch.Tensor,
        *tags: str,
        name: str,
        description: str = "",
        private: bool = False,
        progress: Progress | None = None,
    ) -> None:
        """Keep ``tensor``, a local one or a pointer to one here, as dataset ``name``: the node has it (on disk, if it has one) when this
        returns.

        ``private``: nothing made of it leaves without approval; what was made of PRIVATE data stays under its policy anyhow. ``progress``
        is called with the bytes sent so far.
        """
        self._as_owner("store datasets")
        if isinstance(tensor, RemoteTensor):
            number = self._here(tensor)
            must_be_sendable(STORE, 1, number, name, list(tags), description, private)
            self.ask(STORE, number, name, list(tags), description, private)
            return
        must_be_plain(tensor)
        number_of(tensor.dtype)
        tensor = tensor.resolve_conj().resolve_neg()
        number = self.next_id()
        must_be_sendable(STORE, 1, number, name, list(tags), description, private)
        try:
            self.put(number, tensor, (), "", progress)
            self.ask(STORE, number, name, list(tags), description, private)
        finally:
            self.drops.append(number)

    def _here(self, pointer: RemoteTensor) -> int:
        """The id of what ``pointer`` is at, here."""
        handle = pointer._handle
        if handle.spec is None:
            raise consumed(handle)
        if handle.worker is not self:
            raise TensorsNotCollocatedError(f"the tensor is at {handle.worker.id}, and {self.id} stores its own: move() it here first")
        return handle.id

    def set_policy(self, dataset: str, policy: Policy) -> None:
        """Put the stored ``dataset``, and all that was made of it, under ``policy`` from now on."""
        self._as_owner("state policies")
        self.ask(POLICY, dataset, json.dumps(policy.tables()))

    def forgive(self, dataset: str) -> None:
        """Count the refusals about ``dataset`` that may have told something anew; what has left of it stays known."""
        self._as_owner("state policies")
        self.ask(POLICY, dataset, "")

    def requests(self) -> list[PendingRequest]:
        """Release requests, the undecided first, then by age: of an owner's or auditor's connection all, of another's its own, also those
        of its earlier sessions."""
        return [PendingRequest(row[0], row[1], row[2], tuple(row[3]), row[4], row[5]) for row in self._pages(PENDING)]

    def approve(self, request: str | ReleaseRequest | PendingRequest, note: str = "") -> None:
        """Let the values of ``request`` go, once, to who asked. Raises `RequestNotFoundError` unless it is pending."""
        self._decide(request, True, note)

    def deny(self, request: str | ReleaseRequest | PendingRequest, note: str = "") -> None:
        """Refuse ``request``; who asked is told ``note``. Raises `RequestNotFoundError` unless it is pending."""
        self._decide(request, False, note)

    def inspect(self, request: str | ReleaseRequest | PendingRequest, *, values: bool = False) -> Inspected:
        """What would leave by ``request``, and the program that made it; with ``values`` the values too. Owner only."""
        self._as_owner("inspect requests")
        number = request if isinstance(request, str) else request.id
        must_be_sendable(INSPECT, 1, number, False)
        _, _, row, program, expires, quorum, votes = self.ask(INSPECT, number, False)
        kept = tuple(self.ask(INSPECT, number, True)[2]) if values else ()
        asked = PendingRequest(row[0], row[1], row[2], tuple(row[3]), row[4], row[5])
        return Inspected(asked, tuple(program), expires, quorum, tuple(votes), kept)

    def publish_mock(
        self, name: str, ranges: Mapping[str, Range] | None = None, *, rows: int | None = None, seed: int = 0, description: str = ""
    ) -> Listed:
        """Offer a synthetic twin of dataset ``name`` (or with that tag) to everyone: same dtype, shape (but for ``rows``) and columns,
        values drawn from ``ranges`` {column: (lowest, highest) or a list of values; "*": of all others} and from nothing else. It is
        found by "#mock", and by each tag of the dataset with "-mock" behind it. Owner only."""
        self._as_owner("publish data")
        found = [item for item in self.listing() if item.borrowed and {name, f"#{name}"} & set(item.tags)]
        if len(found) != 1:
            raise ObjectNotFoundError(f"{len(found)} datasets of {self.id} are called or tagged {name!r}: `listing()` shows them")
        (item,) = found
        columns = columns_of(item.description, item.shape[-1] if len(item.shape) > 1 else 0)
        made = twin(item.shape, item.dtype, columns, ranges or {}, rows, seed)
        words = description or "; ".join(filter(None, [f"synthetic, like {name}: not one value is real", item.description]))
        tags = sorted({"#mock", *(f"{tag}-mock" for tag in item.tags)})
        self.store(made, *tags, name=f"{name.removeprefix('#')}-mock", description=words[:MAX_TEXT])
        return Listed(0, tuple(made.shape), made.dtype, tuple(tags), words, False, True)

    def _decide(self, request: str | ReleaseRequest | PendingRequest, approve: bool, note: str) -> None:
        self._as_owner("decide on requests")
        must_be_sendable(DECIDE, 1, request if isinstance(request, str) else request.id, approve, note)
        self.ask(DECIDE, request if isinstance(request, str) else request.id, approve, note)

    def _as_owner(self, what: str) -> None:
        if self.transport.role != "owner":  # the node refuses anyway: this spares an upload
            raise NotOwnerError(
                f"only {self.id}'s owner may {what}, and this connection is {self.transport.principal}, a {self.transport.role}: "
                "connect with the owner's token, or with role='owner' on the node's own machine"
            )
