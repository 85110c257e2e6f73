"""Workers as their users see them.

    BaseWorker
    |-- VirtualWorker            an engine in this process
    |   `-- LocalWorker          "me": knows the other workers, owns the pointers
    |-- WebsocketClientWorker    a node somewhere else, over a websocket
    `-- WebsocketServerWorker    this process as a node (remote/node.py)
"""

from __future__ import annotations

import secrets
import ssl
import weakref
from collections import deque
from itertools import count
from typing import Any, Iterable
from urllib.parse import urlsplit

import torch

from syftlite import _torch
from syftlite.engine.engine import Engine
from syftlite.engine.session import Principal, Role
from syftlite.errors import ConfigurationError, IdNotUniqueError, WorkerNotFoundError
from syftlite.ops.dtypes import DTYPES
from syftlite.ops.spec import Spec
from syftlite.remote.factories import Factories
from syftlite.remote.pointer import Handle, PointerTensor
from syftlite.storage.tokens import discover
from syftlite.transports.base import Transport
from syftlite.transports.client import SocketTransport
from syftlite.transports.memory import MemoryTransport, SerializingTransport
from syftlite.wire import messages as m
from syftlite.wire.messages import Message


class BaseWorker:
    """What can hold tensors: the face of a session at an engine, wherever that is."""

    id: str
    drops: deque[int]

    def __init__(self, id: str, transport: Transport) -> None:
        self.id = id
        self.transport = transport
        # The path of every operation: bound once, so that a pointer op pays no attribute chains.
        self.drops = transport.drops
        self.next_id = count((transport.prefix << 32) + 1).__next__
        self.put = transport.put
        self.cards: dict[int, tuple[frozenset[str], str]] = {}
        self._modes: list[Factories] = []
        local_worker().add_worker(self)
        from syftlite.remote.methods import install

        install()

    def cast(self, message: Message, site: Any = None) -> None:
        """Send a message that needs no answer."""
        self.transport.cast(message, site)

    def ask(self, kind: int, *fields: Any) -> Message:
        """Send a message and wait for its answer."""
        return self.transport.ask(kind, *fields)

    @property
    def local_worker(self) -> LocalWorker:
        """The worker of this process, "me"."""
        return local_worker()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} id:{self.id} #objects:{self.objects_count()}>"

    # -- data

    def send(self, tensor: torch.Tensor) -> PointerTensor:
        """A pointer to a copy of ``tensor`` here."""
        from syftlite.remote.transfer import send

        return send(tensor, self)

    def load_data(self, data: Iterable[torch.Tensor]) -> None:
        """Store tensors here, with the tags and descriptions that they carry, for as long as this session lasts."""
        for tensor in data:
            self.send(tensor)._handle.borrowed = True  # nobody's pointer holds it: it stays

    def describe(self, number: int, tags: Iterable[str] | None = None, description: str | None = None) -> None:
        """Set what `search` shows of object ``number``."""
        old_tags, old_description = self.cards.get(number, (frozenset(), ""))
        card = (old_tags | frozenset(tags or ()), old_description if description is None else description)
        self.cards[number] = card
        self.cast((m.DESCRIBE, number, tuple(sorted(card[0])), card[1]))

    def search(self, *query: Any) -> list[PointerTensor]:
        """Pointers to all objects that carry every tag of ``query`` (or have that id). They are borrowed: they own nothing."""
        tags = [str(q) for part in query for q in (part if isinstance(part, (list, tuple, set)) else (part,))]
        return [self._pointer(row) for row in self._pages(m.FIND, tags)]

    def _pages(self, kind: int, *fields: Any) -> list[Any]:
        rows: list[Any] = []
        while True:
            _, _, total, page = self.ask(kind, *fields, len(rows))
            rows += page
            if len(rows) >= total or not page:
                return rows

    def _pointer(self, row: Any) -> PointerTensor:
        number, spec, tags, description, _, _ = row
        self.cards[number] = (frozenset(tags), description)
        return PointerTensor(Handle(self, number, Spec.make(spec[1], tuple(spec[2]), spec[3], DTYPES[spec[0]]), borrowed=True))

    def list_objects(self) -> list[tuple[int, str, tuple[str, ...]]]:
        """(id, shape and dtype, tags) of what this session can name here."""
        return [(row[0], str(Spec.contiguous(row[1][1], DTYPES[row[1][0]])), tuple(row[2])) for row in self._pages(m.LIST)]

    def objects_count(self) -> int:
        """How many objects this session can name here."""
        total: int = self.ask(m.LIST, 0)[2]
        return total

    tensors_count = objects_count

    def clear_objects(self) -> BaseWorker:
        """Delete all objects of this session here."""
        self.ask(m.CLEAR)
        return self

    # -- other workers

    def add_worker(self, worker: BaseWorker) -> BaseWorker:
        """Make ``worker`` known by its id. Knowing is weak: it does not keep a worker alive."""
        return local_worker().add_worker(worker)

    def add_workers(self, workers: Iterable[BaseWorker]) -> BaseWorker:
        """Make ``workers`` known."""
        for worker in workers:
            self.add_worker(worker)
        return self

    def get_worker(self, id: str | BaseWorker) -> BaseWorker:
        """The worker of that id. Raises `WorkerNotFoundError`."""
        return local_worker().get_worker(id)

    # -- where tensors land

    def __enter__(self) -> BaseWorker:
        mode = Factories(self)
        mode.__enter__()  # type: ignore[no-untyped-call]
        self._modes.append(mode)
        return self

    def __exit__(self, *exception: Any) -> None:
        self._modes.pop().__exit__(*exception)  # type: ignore[no-untyped-call]

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """`x.to(worker)` and `module.to(worker)`."""
        worker = next((a for a in args if isinstance(a, BaseWorker)), None)
        if worker is not None and func is _torch.parse_to:
            return worker, None, False, None
        if worker is not None and func is torch.Tensor.to:
            tensor = args[0]
            return tensor.move(worker) if isinstance(tensor, PointerTensor) else worker.send(tensor)
        return NotImplemented

    def close(self) -> None:
        """End the session; its objects go."""
        self.transport.close()


class VirtualWorker(BaseWorker):
    """A worker in this process, for tests and teaching. Whoever calls it is its owner.

    ``serialize``: push every message through the codec, so that what a test covers is what a network carries. The same id twice gives
    the same worker.
    """

    engine: Engine

    def __new__(cls, hook: Any = None, id: str | None = None, *args: Any, **kwargs: Any) -> Any:
        name = hook if isinstance(hook, str) else id
        known = _workers.get(name) if name is not None else None
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
        **_: Any,
    ) -> None:
        if hasattr(self, "engine"):
            return
        name = hook if isinstance(hook, str) else id or f"worker-{secrets.token_hex(3)}"
        self.engine = engine or Engine(name)
        kind = SerializingTransport if serialize else MemoryTransport
        super().__init__(name, kind(self.engine, Principal("me", Role.OWNER)))
        self.load_data(data)

    def load(self, tensor: torch.Tensor, *tags: str, name: str | None = None, description: str = "", private: bool = False) -> None:
        """Store ``tensor`` as one of this worker's own datasets. ``private``: nothing made of it leaves without approval."""
        self.engine.load(name or f"dataset-{len(self.engine.names)}", tensor, tags, description, private=private)

    @property
    def _objects(self) -> dict[int, torch.Tensor | None]:
        self.transport.settle()  # type: ignore[attr-defined]
        return {number: tensor for number, (tensor, _) in self.engine.objects.items()}

    def objects_count(self) -> int:
        """How many objects are stored here, whoever owns them."""
        return len(self._objects)

    tensors_count = objects_count


class LocalWorker(VirtualWorker):
    """The worker of this process: knows the others, and owns the pointers."""

    def add_worker(self, worker: BaseWorker) -> BaseWorker:
        """Make ``worker`` known. Raises `IdNotUniqueError` if another has its id."""
        if _workers.setdefault(worker.id, worker) is not worker:
            raise IdNotUniqueError(f"another worker is already known as {worker.id}: choose another id, or close() and forget that one")
        return worker

    def get_worker(self, id: str | BaseWorker) -> BaseWorker:
        """The worker of that id. Raises `WorkerNotFoundError`, naming those that are known."""
        if isinstance(id, BaseWorker):
            return id
        worker = _workers.get(id)
        if worker is None:
            raise WorkerNotFoundError(f"no worker is known as {id!r}; known: {', '.join(sorted(_workers)) or 'none'}")
        return worker


_workers: weakref.WeakValueDictionary[str, BaseWorker] = weakref.WeakValueDictionary()
_local: list[LocalWorker] = []


def local_worker() -> LocalWorker:
    """The worker of this process, made when first asked for."""
    if not _local:
        me = LocalWorker.__new__(LocalWorker)
        _local.append(me)
        me.__init__(id="me")  # type: ignore[misc]
    return _local[0]


def connect(uri: str, token: str | None = None, *, timeout: float = 60.0, ca: str | None = None) -> WebsocketClientWorker:
    """The node at ``uri``, such as "wss://hospital.example:8777"; options as of `WebsocketClientWorker`."""
    parsed = urlsplit(uri)
    if parsed.scheme not in ("ws", "wss") or not parsed.hostname:
        raise ConfigurationError(f"{uri!r} is no node's address: it looks like wss://host:8777")
    secure = parsed.scheme == "wss"
    return WebsocketClientWorker(host=parsed.hostname, port=parsed.port or 8777, secure=secure, token=token, timeout=timeout, ca=ca)


class WebsocketClientWorker(BaseWorker):
    """A node at ``host``:``port``. ``token`` may be left out on loopback, where the node's token file is found.

    ``timeout`` (s): how long the node may give no sign of life. ``ca`` names a certificate file to trust instead of the system's.
    """

    def __init__(
        self,
        hook: Any = None,
        host: str = "127.0.0.1",
        port: int = 8777,
        secure: bool = False,
        id: str | None = None,
        token: str | None = None,
        timeout: float = 60.0,
        *,
        ca: str | None = None,
        role: str = "scientist",
        **_: Any,
    ) -> None:
        address = f"[{host}]" if ":" in host else host
        tls = None
        if secure:
            tls = ssl.create_default_context(cafile=ca)
            tls.minimum_version = ssl.TLSVersion.TLSv1_3
        transport = SocketTransport(
            f"{'wss' if secure else 'ws'}://{address}:{port}", token or discover(host, port, role), tls=tls, timeout=timeout
        )
        self.host, self.port, self.secure = host, port, secure
        if id is not None and id != transport.worker:
            transport.close()
            raise ConfigurationError(f"the node at {host}:{port} is {transport.worker!r}, not {id!r}: check the port, or leave out id")
        try:
            super().__init__(transport.worker, transport)
        except IdNotUniqueError:
            transport.close()
            raise

    @property
    def principal(self) -> str:
        """Who the node takes us for."""
        return self.transport.principal

    def __repr__(self) -> str:
        transport = self.transport
        assert isinstance(transport, SocketTransport)
        state = "connected" if transport.open else "closed"
        return f"<{type(self).__name__} id:{self.id} at {self.host}:{self.port}, {state} as {transport.principal} ({transport.role})>"

    def objects_count_remote(self) -> int:
        """How many objects this session can name there."""
        return self.objects_count()

    def list_objects_remote(self) -> list[tuple[int, str, tuple[str, ...]]]:
        """(id, shape and dtype, tags) of what this session can name there."""
        return self.list_objects()

    def clear_objects_remote(self) -> BaseWorker:
        """Delete all objects of this session there."""
        return self.clear_objects()

    def close(self) -> None:
        """End the session; its objects go, and its id may be used again."""
        super().close()
        if _workers.get(self.id) is self:
            del _workers[self.id]
