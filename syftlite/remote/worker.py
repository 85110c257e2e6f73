"""Workers as their users see them.

    BaseWorker
    |-- VirtualWorker                an engine in this process        (virtual.py)
    |   |-- LocalWorker              "me": owns the pointers
    |   `-- WebsocketServerWorker    this process as a node           (node.py)
    |-- WebsocketClientWorker        a node over a websocket          (client.py)
    `-- RayWorker                    an engine in an actor of Ray     (ray.py)
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from functools import partialmethod
from itertools import count
from typing import TYPE_CHECKING, Any, NoReturn

import torch

from syftlite import _torch
from syftlite.errors import GetNotPermittedError, PointerMisuseError
from syftlite.ops.dtypes import DTYPES
from syftlite.ops.spec import Spec
from syftlite.remote import chain, offers, registry, transfer
from syftlite.remote.factories import Factories
from syftlite.remote.functions import Remote
from syftlite.remote.handle import Handle, RemoteTensor
from syftlite.remote.interop import as_tensor
from syftlite.remote.methods import install
from syftlite.remote.owner import OwnerMethods
from syftlite.remote.pointer import PointerTensor, wrapped
from syftlite.storage import plans as files
from syftlite.transports.base import Transport
from syftlite.wire import messages as m
from syftlite.wire.messages import Message

if TYPE_CHECKING:
    from syftlite.remote.virtual import LocalWorker


class BaseWorker(OwnerMethods):
    """What can hold tensors: the face of a session at an engine, wherever that is."""

    id: str
    drops: deque[int]
    records = False
    """Whether what it is told is written down, to be done later."""
    takes_constants = False
    """Whether a tensor that is here may meet one that is there: in a recording it becomes part of the program."""

    cut: set[int] | None = None
    """Where what is written down will be differentiated there: the ids of what `detach` made of what has gradients."""

    def constant(self, tensor: torch.Tensor) -> torch.Tensor:
        """What stands for ``tensor`` there: itself."""
        return tensor

    def __init__(self, id: str, transport: Transport) -> None:
        self.id = id
        self.transport = transport
        # The path of every operation: bound once, so that a pointer op pays no attribute chains.
        self.drops, self.release = transport.drops, transport.release
        self.next_id = count((transport.prefix << 32) + 1).__next__
        self.put = transport.put
        self.ask = transport.ask
        self._reserved = (transport.prefix << 32) + (1 << 31)
        self._reserving = threading.Lock()
        self.conducted = threading.RLock()
        """Held while it is told what the other members of a group must be told too (in_step.py)."""
        self._modes: list[Factories] = []
        install()
        registry.add(self)

    def cast(self, message: Message, site: Any = None) -> None:
        """Send a message that needs no answer."""
        self.transport.cast(message, site)

    def hold(self, message: Message, site: Any = None) -> None:
        """The same, for whoever is about to flush or to ask."""
        self.transport.hold(message, site)

    @property
    def local_worker(self) -> LocalWorker:
        """The worker of this process, "me"."""
        return registry.local_worker()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} id:{self.id} #objects:{self.objects_count()}>"

    def __deepcopy__(self, memo: Any) -> BaseWorker:
        return self  # a copy of what names a worker names that one

    __copy__ = partialmethod(__deepcopy__, None)

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise PointerMisuseError(f"worker {self.id} is of this process and cannot be pickled: make it, or connect to it, in the other one")

    # -- data

    def send(self, tensor: Any) -> PointerTensor:
        """A pointer to a copy of ``tensor`` here: of torch's, or an array, a frame of numbers, anything with DLPack (interop.py)."""
        if isinstance(tensor, PointerTensor):
            return self.refer(tensor)
        return transfer.send(as_tensor(tensor), self)  # type: ignore[return-value]

    def pointer(self, handle: Handle) -> RemoteTensor:
        """The tensor that stands for ``handle`` in this process."""
        return wrapped(handle)

    def refer(self, pointer: PointerTensor) -> PointerTensor:
        """A pointer to ``pointer``, which this worker keeps a reference of; what `PointerTensor.send` does."""
        return chain.refer(pointer, self)

    def load_data(self, data: Iterable[Any]) -> None:
        """Store tensors (or what `send` takes) here, with the tags and descriptions that they carry, for as long as this session lasts."""
        for tensor in data:
            self.send(tensor)._handle.borrowed = True  # nobody's pointer holds it: it stays

    def search(self, *query: Any) -> list[PointerTensor]:
        """Pointers to all objects that carry every tag of ``query`` (or have that id). They are borrowed: they own nothing."""
        tags = [str(q) for part in query for q in (part if isinstance(part, (list, tuple, set)) else (part,))]
        return [self._pointer(row) for row in self._pages(m.FIND, tags)]

    def _pages(self, kind: int, *fields: Any) -> list[Any]:
        rows: list[Any] = []
        while True:
            m.must_be_sendable(kind, 1, *fields, len(rows))
            _, _, total, page = self.ask(kind, *fields, len(rows))
            rows += page
            if len(rows) >= total or not page:
                return rows

    def _pointer(self, row: Any) -> PointerTensor:
        number, spec, tags, description, _, _ = row
        handle = Handle(self, number, Spec.make(spec[1], tuple(spec[2]), spec[3], DTYPES[spec[0]]), borrowed=True)
        handle.card = (frozenset(tags), description)
        return wrapped(handle)

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

    def file_request(self, numbers: list[int], reason: str, user: str | None = None) -> tuple[str, str, str]:
        """Ask the owner to release objects: (id, state, note) of the request. Raises `GetNotPermittedError` where ``user`` is another."""
        if user not in (None, self.transport.principal):
            raise GetNotPermittedError(f"this connection is {self.transport.principal}, not {user}: connect with {user}'s token")
        m.must_be_sendable(m.FILE, 1, numbers, reason)
        _, _, number, state, note = self.ask(m.FILE, numbers, reason)
        return number, state, note

    def reserve_ids(self, number: int) -> int:
        """Set aside ``number`` ids; they follow the one returned. Replays number what they make in them."""
        with self._reserving:
            base = self._reserved
            self._reserved += number
            return base

    # -- other workers

    def add_worker(self, worker: BaseWorker) -> BaseWorker:
        """Make ``worker`` known by its id. Knowing is weak: it does not keep a worker alive."""
        return registry.add(worker)

    def add_workers(self, workers: Iterable[BaseWorker]) -> BaseWorker:
        """Make ``workers`` known."""
        for worker in workers:
            self.add_worker(worker)
        return self

    def get_worker(self, id: str | BaseWorker) -> BaseWorker:
        """The worker of that id. Raises `WorkerNotFoundError`."""
        return registry.find(id)

    # -- plans

    def fetch_plan(self, plan_id: str, location: str | BaseWorker | None = None, copy: bool = False) -> Any:
        """The plan of that id, or with that tag, that another session of yours sent here or the owner published; ``location``: a worker
        to ask instead. Its state stays there, borrowed; with ``copy`` it is one's own.

        Called with pointers it runs where they are, with local tensors at the local worker. Raises `ObjectNotFoundError`.
        """
        return offers.fetch(self if location is None else registry.find(location), plan_id, copy)

    def publish_plan(self, plan: Any, *tags: str, name: str = "") -> None:
        """Offer ``plan``, with its state's values, to everyone who connects, as a dataset that `fetch_plan` knows. The owner only."""
        offers.publish(self, plan.id, files.dumps(plan.stored()), tags, name or plan.id)

    # -- where tensors land

    @property
    def remote(self) -> Remote:
        """torch, run for this worker: `bob.remote.torch.zeros(3)` is `torch.zeros(3)` inside `with bob:`."""
        return Remote(self)

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
        """End the session: its objects go, and its id may be used again."""
        self.transport.close()
        registry.forget(self)
