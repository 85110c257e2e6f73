"""Where the engine writes what must outlive it, and how it tells the time. `storage/` gives the durable ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol

from syftlite.errors import SendNotPermittedError

Clock = Callable[[], float]
"""Seconds since the epoch, as `time.time`."""


class Journal(Protocol):
    """An append-only record. `append` returns only when the record is as durable as the journal promises."""

    def append(self, event: str, record: dict[str, Any]) -> None:
        """Record ``event``; ``record`` holds str, int, float, bool, and lists and maps of them."""

    def note(self, event: str, record: dict[str, Any]) -> None:
        """Record ``event``; it need not be durable before the next `append` is."""


class Dataset(NamedTuple):
    """A dataset as storage returns it."""

    name: str
    tensor: Any
    tags: tuple[str, ...]
    description: str
    private: bool
    policy: str = ""
    """That of what it was made of, as JSON of `Policy.tables`; "" where it was made of nothing PRIVATE."""


class Datasets(Protocol):
    """Durable storage of an owner's datasets."""

    def load_all(self) -> Iterable[Dataset]:
        """What was stored before."""

    def save(self, name: str, tensor: Any, tags: list[str], description: str, private: bool, policy: str = "") -> None:
        """Store the dataset durably; raises IdNotUniqueError if ``name`` is taken."""


class History(Protocol):
    """What has left of each dataset as aggregates, and when something left to whom: durable when `save` and `count` return."""

    def load(self, dataset: str) -> bytes | None:
        """What was saved last."""

    def save(self, changed: Mapping[str, bytes]) -> None:
        """Save what has changed, by dataset: all of it or nothing."""

    def times(self, dataset: str, principal: str) -> list[float]:
        """When something of ``dataset`` left to ``principal``, as counted, in order."""

    def count(self, dataset: str, principal: str, now: float, since: float, times: int = 1) -> None:
        """So many values leave ``now``; what left before ``since`` may be forgotten."""


class MemoryHistory:
    """A history that lives as long as the process."""

    def __init__(self) -> None:
        self._saved: dict[str, bytes] = {}
        self._times: dict[tuple[str, str], list[float]] = {}

    def load(self, dataset: str) -> bytes | None:
        """What was saved last."""
        return self._saved.get(dataset)

    def save(self, changed: Mapping[str, bytes]) -> None:
        """Keep what has changed."""
        self._saved.update(changed)

    def times(self, dataset: str, principal: str) -> list[float]:
        """When something left."""
        return self._times.get((dataset, principal), [])

    def count(self, dataset: str, principal: str, now: float, since: float, times: int = 1) -> None:
        """So many values leave."""
        self._times[(dataset, principal)] = [at for at in self.times(dataset, principal) if at > since] + [now] * times


Parcels = Iterable[tuple[int, Any]]
"""Tensors for another worker, each with its id there."""


class Peers(Protocol):
    """Links to other workers. Raises `SendNotPermittedError` where the owner allows none."""

    in_process: bool
    """Whether the worker lives in its client's process, and its peers too."""

    def deliver(self, uri: str, ticket: str, parcels: Parcels, tags: tuple[str, ...] = ()) -> None:
        """Hand ``parcels`` to the worker at ``uri``; returns when it has them."""

    def invite(self) -> tuple[str, int]:
        """A ticket for one link to this worker, and the port where links are accepted."""

    def dial(self, uri: str, port: int, ticket: str) -> Any:
        """A link to the worker at ``uri``, which invited with ``ticket``."""

    def accept(self, ticket: str) -> Any:
        """The link of whoever came with ``ticket``; waits for it."""


class NoPeers:
    """Links of a worker that calls nobody: one in its client's process."""

    in_process = True

    def deliver(self, uri: str, ticket: str, parcels: Parcels, tags: tuple[str, ...] = ()) -> None:
        """Refuse."""
        raise SendNotPermittedError("this worker calls no other: get() the value and send() it")

    def invite(self) -> tuple[str, int]:
        """Refuse."""
        raise SendNotPermittedError("this worker is in its client's process and accepts no links: share among workers of one kind")

    def dial(self, uri: str, port: int, ticket: str) -> Any:
        """Refuse."""
        self.invite()

    def accept(self, ticket: str) -> Any:
        """Refuse."""
        self.invite()


class MemoryJournal:
    """The last 10,000 records of this process: for virtual workers and tests."""

    def __init__(self) -> None:
        self.events: deque[tuple[str, dict[str, Any]]] = deque(maxlen=10_000)

    def append(self, event: str, record: dict[str, Any]) -> None:
        """Record ``event`` in memory."""
        self.events.append((event, record))

    def note(self, event: str, record: dict[str, Any]) -> None:
        """The same."""
        self.events.append((event, record))


class NoDatasets:
    """Storage of a worker that keeps nothing on disk: a dataset lives as long as the worker."""

    def load_all(self) -> Iterable[Dataset]:
        """Nothing."""
        return ()

    def save(self, name: str, tensor: Any, tags: list[str], description: str, private: bool, policy: str = "") -> None:
        """Accept the dataset; the engine holds it."""
