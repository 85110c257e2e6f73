"""Where the engine writes what must outlive it, and how it tells the time. `storage/` gives the durable ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

from syftlite.errors import SendNotPermittedError

Clock = Callable[[], float]
"""Seconds since the epoch, as `time.time`."""


class Journal(Protocol):
    """An append-only record. `append` returns only when the record is as durable as the journal promises."""

    def append(self, event: str, record: dict[str, Any]) -> None:
        """Record ``event``; ``record`` holds str, int, float, bool and lists of them."""


class Dataset(NamedTuple):
    """A dataset as storage returns it."""

    name: str
    tensor: Any
    tags: tuple[str, ...]
    description: str
    private: bool


class Datasets(Protocol):
    """Durable storage of an owner's datasets."""

    def load_all(self) -> Iterable[Dataset]:
        """What was stored before."""

    def save(self, name: str, tensor: Any, tags: list[str], description: str, private: bool) -> None:
        """Store the dataset durably; raises IdNotUniqueError if ``name`` is taken."""


class Peers(Protocol):
    """Links to other workers."""

    def deliver(self, uri: str, ticket: str, number: int, tensor: Any) -> None:
        """Hand ``tensor`` to the worker at ``uri``; returns when it has it. Raises `SendNotPermittedError` where the owner allows none."""


class NoPeers:
    """Links of a worker that calls nobody."""

    def deliver(self, uri: str, ticket: str, number: int, tensor: Any) -> None:
        """Refuse."""
        raise SendNotPermittedError("this worker calls no other: get() the value and send() it")


class MemoryJournal:
    """A journal that lives as long as the process: for virtual workers and tests."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def append(self, event: str, record: dict[str, Any]) -> None:
        """Record ``event`` in memory."""
        self.events.append((event, record))


class NoDatasets:
    """Storage of a worker that keeps nothing on disk: a dataset lives as long as the worker."""

    def load_all(self) -> Iterable[Dataset]:
        """Nothing."""
        return ()

    def save(self, name: str, tensor: Any, tags: list[str], description: str, private: bool) -> None:
        """Accept the dataset; the engine holds it."""
