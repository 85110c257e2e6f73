"""Plans that others may fetch: a plan's bytes, kept at a worker as a tensor that a search finds.

    offset   size    what
    0        1       1: the plan's state is at the worker, and its bytes here are an outline    0: they hold the state's values
    1        4       n, how many tensors the state has at the worker, little endian
    5        8 n     their ids there
    ...      rest    the plan, as `storage/plans.py` has it

No message is needed for it that did not exist: an offer is an object with tags, so who may see it is decided as for any other. What a
session has sent is found by its principal's other sessions, and goes with it; what the owner published is a public dataset, for everyone.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from syftlite.errors import IdNotUniqueError, ObjectNotFoundError, PlanError
from syftlite.remote.handle import Handle
from syftlite.remote.pointer import PointerTensor
from syftlite.remote.transfer import read, upload
from syftlite.wire.messages import DESCRIBE

if TYPE_CHECKING:
    from syftlite.remote.worker import BaseWorker

TAG = "#plan"
_START = struct.Struct("<BI")


class Offer(NamedTuple):
    """What a worker keeps of a plan: its bytes, and its state's tensors if they are there."""

    raw: bytes
    state: list[PointerTensor] | None


def offer(worker: BaseWorker, plan_id: str, raw: bytes, state: Sequence[PointerTensor]) -> Handle:
    """Let other sessions fetch the plan of which ``raw`` is an outline, with its ``state``, as long as the handle lives."""
    ids = [tensor.id_at_location for tensor in state]
    for number, tensor in zip(ids, state, strict=True):  # what has a card is seen by the principal's other sessions
        tags, description = tensor._handle.card
        worker.cast((DESCRIBE, number, tuple(sorted(tags)), description or f"state of {plan_id}"))
    held = _START.pack(1, len(ids)) + struct.pack(f"<{len(ids)}q", *ids) + raw
    return upload(_bytes(held), worker, (TAG, plan_id), f"an offer of {plan_id}")._handle


def publish(worker: BaseWorker, plan_id: str, raw: bytes, tags: Sequence[str], name: str) -> None:
    """Make the plan in ``raw``, with its state's values, a public dataset. The owner only."""
    held = _bytes(_START.pack(0, 0) + raw)
    worker.store(held, TAG, plan_id, *tags, name=name, description=f"a plan, {name}: fetch_plan() fetches it")


def find(worker: BaseWorker, wanted: str) -> Offer:
    """The plan at ``worker`` of the id, or with the tag, ``wanted``. Raises `ObjectNotFoundError`."""
    found = worker.search(TAG, wanted)
    if not found:
        raise ObjectNotFoundError(
            f"{worker.id} has no plan {wanted!r} for this session: plan.send({worker.id}) lets the same principal's sessions fetch it, "
            "while the one that sent it is open; the owner's publish_plan() lets everyone"
        )
    if len(found) > 1:
        raise IdNotUniqueError(f"{len(found)} plans at {worker.id} are found by {wanted!r}: fetch one by its id")
    (value,) = read(found, take=False)
    raw = value.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    if len(raw) < _START.size or _START.unpack_from(raw)[1] > (len(raw) - _START.size) // 8:
        raise PlanError(f"what {worker.id} has as {wanted!r} is no plan")
    there, count = _START.unpack_from(raw)
    end = _START.size + 8 * count
    if not there:
        return Offer(raw[end:], None)
    return Offer(raw[end:], _state(worker, wanted, struct.unpack_from(f"<{count}q", raw, _START.size)))


def _state(worker: BaseWorker, wanted: str, ids: Sequence[int]) -> list[PointerTensor]:
    """Borrowed pointers to the objects ``ids``: one search finds all that this session may see."""
    seen = {pointer.id_at_location: pointer for pointer in worker.search()} if ids else {}
    if not all(number in seen for number in ids):
        raise ObjectNotFoundError(f"the state of {wanted!r} at {worker.id} is gone: send() the plan there again")
    return [seen[number] for number in ids]


def _bytes(raw: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8)


Fetcher = Callable[["BaseWorker", str, bool], Any]
_fetcher: list[Fetcher] = []


def fetched_by(fetcher: Fetcher) -> None:
    """Tell how an offer becomes a plan: plans are built above workers."""
    _fetcher.append(fetcher)


def fetch(worker: BaseWorker, plan_id: str, copy: bool) -> Any:
    """The plan of that id, or with that tag, at ``worker``."""
    return _fetcher[-1](worker, plan_id, copy)
