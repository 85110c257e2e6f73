"""What an owner does at its own node: offer datasets, and decide what may leave. Everyone else is refused (`NotOwnerError`)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from syftlite.errors import NotOwnerError
from syftlite.ops.dtypes import DTYPES, number_of
from syftlite.remote.transfer import ReleaseRequest
from syftlite.transports.base import Progress
from syftlite.wire.messages import DECIDE, FIND, LIST, PENDING, POLICY, STORE, must_be_sendable

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
    """A release request as the owner sees it: who asks, why, for ``what``. ``state`` is pending, approved, denied or released;
    ``filed_at`` is in seconds since the epoch, by the node's clock."""

    id: str
    principal: str
    reason: str
    what: tuple[str, ...]
    state: str
    filed_at: float


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
        """Upload a local ``tensor`` as dataset ``name``, which the node keeps (on disk, if it has one) when this returns.

        ``private``: nothing made of it leaves without approval. ``progress`` is called with the bytes sent so far.
        """
        self._as_owner("store datasets")
        number_of(tensor.dtype)
        number = self.next_id()
        must_be_sendable(STORE, 1, number, name, list(tags), description, private)
        try:
            self.put(number, tensor, (), "", progress)
            self.ask(STORE, number, name, list(tags), description, private)
        finally:
            self.drops.append(number)

    def set_policy(self, dataset: str, policy: Policy) -> None:
        """Put the stored ``dataset``, and all that was made of it, under ``policy`` from now on."""
        self._as_owner("state policies")
        self.ask(POLICY, dataset, json.dumps(policy.tables()))

    def forgive(self, dataset: str) -> None:
        """Count the refusals about ``dataset`` that may have told something anew; what has left of it stays known."""
        self._as_owner("state policies")
        self.ask(POLICY, dataset, "")

    def requests(self) -> list[PendingRequest]:
        """All release requests since the node started: the undecided first, then by age."""
        self._as_owner("see requests")
        return [PendingRequest(row[0], row[1], row[2], tuple(row[3]), row[4], row[5]) for row in self._pages(PENDING)]

    def approve(self, request: str | ReleaseRequest | PendingRequest, note: str = "") -> None:
        """Let the values of ``request`` go, once, to who asked. Raises `RequestNotFoundError` unless it is pending."""
        self._decide(request, True, note)

    def deny(self, request: str | ReleaseRequest | PendingRequest, note: str = "") -> None:
        """Refuse ``request``; who asked is told ``note``. Raises `RequestNotFoundError` unless it is pending."""
        self._decide(request, False, note)

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
