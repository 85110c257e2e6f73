"""Who knows whom: the workers of this process by id, weakly, and the one local worker."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from syftlite.errors import IdNotUniqueError, WorkerNotFoundError

if TYPE_CHECKING:
    from syftlite.remote.virtual import LocalWorker
    from syftlite.remote.worker import BaseWorker

known: weakref.WeakValueDictionary[str, BaseWorker] = weakref.WeakValueDictionary()
_local: list[LocalWorker] = []
_maker: list[Callable[[], LocalWorker]] = []
_making = threading.RLock()


def add(worker: BaseWorker) -> BaseWorker:
    """Make ``worker`` known, in place of one whose session has ended. Raises `IdNotUniqueError` if another has its id."""
    taken = known.get(worker.id)
    if taken is not None and not taken.transport.open:
        forget(taken)
    if known.setdefault(worker.id, worker) is not worker:
        raise IdNotUniqueError(f"another worker is already known as {worker.id}: choose another id, or close() that one")
    return worker


def find(id: Any) -> BaseWorker:
    """The worker of that id (a worker is its own). Raises `WorkerNotFoundError`, naming those that are known."""
    worker = known.get(id) if isinstance(id, str) else id
    if isinstance(worker, (list, tuple)):
        raise WorkerNotFoundError(f"a worker, or its id, is asked for, not a {type(worker).__name__}: name them one by one, or with a *")
    if worker is None or not hasattr(worker, "transport"):
        raise WorkerNotFoundError(f"no worker is known as {id!r}; known: {', '.join(sorted(known)) or 'none'}")
    return worker


def forget(worker: BaseWorker) -> None:
    """Free ``worker``'s id."""
    if known.get(worker.id) is worker:
        del known[worker.id]


def made_by(maker: Callable[[], LocalWorker]) -> None:
    """Tell how the local worker is made."""
    _maker.append(maker)


def local_worker() -> LocalWorker:
    """The worker of this process, "me", made when first asked for."""
    if not _local:
        with _making:
            if not _local:
                _local.append(_maker[-1]())
    return _local[0]
