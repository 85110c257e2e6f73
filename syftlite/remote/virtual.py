"""Workers whose engine is in this process: for tests, for teaching, and the local worker itself."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Any

import torch

from syftlite._malloc import keep_some
from syftlite.engine.engine import Engine
from syftlite.engine.session import Principal, Reference, Role
from syftlite.errors import ConnectionLostError, IdNotUniqueError
from syftlite.policy.rules import Policy
from syftlite.remote import registry
from syftlite.remote.interop import as_tensor
from syftlite.remote.worker import BaseWorker
from syftlite.transports.memory import BATCH, MemoryTransport, SerializingTransport


class VirtualWorker(BaseWorker):
    """A worker in this process, for tests and teaching. Whoever calls it is its owner.

    ``serialize``: push every message through the codec, so that what a test covers is what a network carries. The same id twice gives
    the same worker. ``device``: where its tensors are kept, as torch names it; main memory if left out.
    """

    transport: MemoryTransport | SerializingTransport

    def __new__(cls, hook: Any = None, id: str | None = None, *args: Any, **kwargs: Any) -> Any:
        name = hook if isinstance(hook, str) else id
        known = registry.known.get(name) if name is not None else None
        if known is None:
            return super().__new__(cls)
        if type(known) is not cls:
            raise IdNotUniqueError(f"{name} is already a {type(known).__name__}: choose another id")
        return known

    def __init__(
        self,
        hook: Any = None,
        id: str | None = None,
        data: Iterable[torch.Tensor] = (),
        *,
        serialize: bool = False,
        engine: Engine | None = None,
        device: str | None = None,
        **_: Any,
    ) -> None:
        if hasattr(self, "_engine"):
            return
        keep_some()
        name = hook if isinstance(hook, str) else id or f"worker-{secrets.token_hex(3)}"
        owner = Principal("me", Role.OWNER)
        self._engine = engine or Engine(name, device=device)
        transport: MemoryTransport | SerializingTransport
        if serialize:
            transport = SerializingTransport(self._engine, owner)
        else:
            transport = MemoryTransport(self._engine, owner, BATCH if engine is None else 1)  # others may look at an engine that is given
        super().__init__(name, transport)
        self.cast = self.transport.cast  # type: ignore[method-assign]  # a session in this process does not break: no detour
        self.load_data(data)

    @property
    def engine(self) -> Engine:
        """What carries out this worker's messages: with nothing waiting, now and from now on, for others may look at it."""
        self.transport.batch = 1
        return self._settled

    @property
    def _settled(self) -> Engine:
        self.transport.settle()
        return self._engine

    def load(
        self, tensor: Any, *tags: str, name: str | None = None, description: str = "", private: bool = False, policy: Policy | None = None
    ) -> None:
        """Store ``tensor``, or what `send` takes, as one of this worker's own datasets. ``private``: nothing made of it leaves without
        approval; ``policy``: nothing leaves but as it says."""
        if not self.transport.open:
            raise ConnectionLostError(f"{self.id} was closed: make a worker of that id anew")
        name = name or f"dataset-{len(self._settled.names)}"
        self._settled.load(name, as_tensor(tensor), tags, description, private=private, policy=policy)

    def file_request(self, numbers: list[int], reason: str, user: str | None = None) -> tuple[str, str, str]:
        """The same; here ``user`` may be anybody."""
        if user in (None, self.transport.principal):
            return super().file_request(numbers, reason)
        filed = self._settled.file_for(self.transport.session, user, numbers, reason)
        return filed.id, filed.state, filed.note

    @property
    def _objects(self) -> dict[int, torch.Tensor | Reference | None]:
        return {number: cell if isinstance(cell, Reference) else tensor for number, (tensor, cell) in self._settled.objects.items()}

    def objects_count(self) -> int:
        """How many objects are stored here, whoever owns them."""
        return len(self._objects)

    tensors_count = objects_count


class LocalWorker(VirtualWorker):
    """The worker of this process, "me": it owns the pointers, and its caller is the principal of every virtual worker's session."""

    def close(self) -> None:
        """Delete what is here; the worker itself stays as long as the process."""
        self.clear_objects()


registry.made_by(lambda: LocalWorker(id="me"))
