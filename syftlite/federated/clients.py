"""Who takes part in a federation, and on how many threads they are waited for."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset

from syftlite.errors import ConfigurationError
from syftlite.federated.crew import Crew
from syftlite.federated.datasets import BaseDataset, FederatedDataset, as_dataset
from syftlite.remote import registry
from syftlite.remote.ray import RayWorker
from syftlite.remote.virtual import VirtualWorker
from syftlite.remote.worker import BaseWorker

Client = tuple[BaseWorker, torch.Tensor, torch.Tensor]
"""Its worker; its data and its targets, there."""
HERE = 8
"""Clients in this process that are at work at a time, at most."""
THERE = 256
"""... and clients elsewhere."""


def found(clients: Any, data: tuple[str, str] | None, engine: str | None) -> list[Client]:
    """The clients that `Federation` was given, as (worker, data, targets). Raises `ConfigurationError`."""
    if not isinstance(clients, FederatedDataset):
        clients = _listed(clients)
        if clients and all(isinstance(client, Dataset) and getattr(client, "location", None) is None for client in clients):
            clients, engine = _simulated(list(map(as_dataset, clients)), engine or "virtual"), None
    if engine is not None:
        raise ConfigurationError("engine= says where datasets that are here go: give a list of them, such as split_iid() makes")
    if isinstance(clients, FederatedDataset):
        members = [(part.location, *_rows(part)) for part in clients.datasets.values()]
    elif data is None:
        raise ConfigurationError("which data? Give a FederatedDataset, or workers and data=(a tag of the data, a tag of the targets)")
    elif not isinstance(data, (tuple, list)) or len(data) != 2 or not all(isinstance(tag, str) for tag in data):
        raise ConfigurationError(f"data is two tags, of the data and of the targets, such as ('#x', '#y'), not {data!r}")
    else:
        members = [(worker, _tagged(worker, data[0]), _tagged(worker, data[1])) for worker in map(registry.find, clients)]
    if not members:
        raise ConfigurationError("a federation needs clients, got none")
    times = Counter(worker.id for worker, _, _ in members)  # type: ignore[union-attr]
    if len(times) < len(members):
        twice = ", ".join(name for name, count in times.items() if count > 1)
        raise ConfigurationError(f"a worker is one client, and these are named more than once: {twice}")
    return members  # type: ignore[return-value]


def _listed(clients: Any) -> list[Any]:
    if not isinstance(clients, Iterable) or isinstance(clients, (str, torch.Tensor, Dataset)):
        told = "a FederatedDataset (dataset.federate(workers)), a list of workers, or a list of datasets that are here"
        raise ConfigurationError(f"clients are {told}, not {clients!r:.80}")
    return list(clients)


def _simulated(datasets: Sequence[BaseDataset], engine: str) -> FederatedDataset:
    """A client for each of ``datasets``, which stay as they are."""
    if engine == "virtual":
        workers: Sequence[BaseWorker] = [VirtualWorker(id=f"client-{number}") for number in range(len(datasets))]
    elif engine == "ray":
        workers = RayWorker.several(_free(len(datasets)))
    else:
        raise ConfigurationError(f'engine is "virtual" or "ray", not {engine!r}')
    return FederatedDataset([BaseDataset(*_rows(d)).send(worker) for d, worker in zip(datasets, workers, strict=True)])


def _rows(dataset: BaseDataset) -> tuple[torch.Tensor, torch.Tensor]:
    """All rows of ``dataset``, as its transform, if it has one, makes them."""
    return (dataset.data, dataset.targets) if dataset.transform is None else dataset.rows(slice(None))


def _free(count: int) -> list[str]:
    """So many names that no worker has: those of an earlier federation may be at work."""
    for run in itertools.count(1):
        names = [f"client-{number}" if run == 1 else f"client-{number}.{run}" for number in range(count)]
        if not any(name in registry.known for name in names):
            break
    return names


def _tagged(worker: BaseWorker, tag: str) -> torch.Tensor:
    tagged = worker.search(tag)
    if len(tagged) != 1:
        raise ConfigurationError(f"{worker.id} has {len(tagged)} tensors tagged {tag}: one is needed, so name a tag that only one has")
    return tagged[0]


def crew_of(clients: Sequence[Client]) -> Crew:
    """A thread for each client elsewhere, which only waits; for those in this process as many as have something to compute with."""
    here = sum(worker.transport.here for worker, _, _ in clients)
    there = min(len(clients) - here, THERE)
    return Crew(there + min(here, os.cpu_count() or 1), there + min(here, HERE))
