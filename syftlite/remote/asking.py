"""Asking the owner for what the gate keeps: requests to let values go, from filing to fetching."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from syftlite.errors import ApprovalRequiredError, GetNotPermittedError, PointerMisuseError, TensorsNotCollocatedError
from syftlite.remote.handle import RemoteTensor
from syftlite.wire.messages import STATUS, TAKE, must_be_sendable

if TYPE_CHECKING:
    from syftlite.remote.worker import BaseWorker


class ReleaseRequest:
    """A request to the owner to let values go. After approval `get` succeeds once: of the object itself, while it is as it was, or of this
    request, also in another session or process (`sy.request(worker, id)`) and after the node was started again. It can be awaited."""

    def __init__(self, worker: BaseWorker, number: str, state: str = "pending", note: str = "") -> None:
        self.worker, self.id, self.state, self.note = worker, number, state, note

    def refresh(self) -> str:
        """Ask the worker for the state: pending, approved, denied, released or expired."""
        _, _, _, self.state, self.note = self.worker.ask(STATUS, self.id)
        return self.state

    def wait(self, timeout: float = 3600.0, poll: float = 0.5) -> str:
        """Wait until the owner has decided, asking every ``poll`` seconds. Raises `GetNotPermittedError` if denied or after ``timeout``."""
        deadline = time.monotonic() + timeout
        while self.refresh() == "pending":
            if time.monotonic() >= deadline:
                raise GetNotPermittedError(f"{self.worker.id}'s owner has not decided on request {self.id} within {timeout} s")
            time.sleep(poll)
        return self._decided()

    def _decided(self) -> str:
        if self.state == "denied":
            raise GetNotPermittedError(f"{self.worker.id}'s owner denied request {self.id}" + (f": {self.note}" if self.note else ""))
        if self.state == "expired":
            raise GetNotPermittedError(f"request {self.id} at {self.worker.id} has expired: ask again")
        return self.state

    def __await__(self) -> Generator[Any, None, str]:
        """The state once the owner has decided, as `wait` gives it; other tasks go on meanwhile."""
        return self._until_decided().__await__()

    async def _until_decided(self, poll: float = 0.5) -> str:
        while self.refresh() == "pending":
            await asyncio.sleep(poll)
        return self._decided()

    def get(self) -> Any:
        """What was approved, as it was when the request was filed: a tensor, or a list of several. Once. Raises `GetNotPermittedError`."""
        values: list[torch.Tensor] = self.worker.ask(TAKE, self.id)[2]
        self.state = "released"
        return values[0] if len(values) == 1 else values

    def __repr__(self) -> str:
        note = f", note={self.note!r}" if self.note else ""
        return f"<ReleaseRequest {self.id} at {self.worker.id}: {self.state}{note}>"


def request(worker: BaseWorker, id: str) -> ReleaseRequest:
    """Your request ``id`` at ``worker``, filed in whichever session. Raises `RequestNotFoundError`."""
    must_be_sendable(STATUS, 1, id)
    _, _, number, state, note = worker.ask(STATUS, id)
    return ReleaseRequest(worker, number, state, note)


def request_release(pointers: Sequence[RemoteTensor], reason: str, user: str | None = None) -> ReleaseRequest:
    """File one request for all of ``pointers``, which share a worker, as ``user``."""
    if not reason:
        raise PointerMisuseError("a release request needs a reason: the owner decides by it")
    worker = pointers[0]._handle.worker
    if any(p._handle.worker is not worker for p in pointers):
        raise TensorsNotCollocatedError("one request asks one owner: request each worker's values separately")
    return ReleaseRequest(worker, *worker.file_request([p._handle.id for p in pointers], reason, user))


def approval_required(
    pointers: Sequence[RemoteTensor], reason: str, refusal: Exception, user: str | None = None
) -> ApprovalRequiredError:
    """The error that carries the request filed for ``pointers``, as ``user``, after ``refusal``."""
    request = request_release(pointers, reason, user)
    again = "get()" if user is None else f"get(user={user!r})"
    error = ApprovalRequiredError(
        f"{refusal}. Request {request.id} is filed; when the owner has run `syftlite approve {request.id}`, {again} again, "
        f"or, in another session, sy.request(worker, {request.id!r}).get()"
    )
    error.request = request
    return error
