"""Datasets that travel.

    BaseDataset(data, targets)       rows here, or, after send(worker), there
    .federate([bob, alice])          split over workers, every row at exactly one of them
    -> FederatedDataset              {"bob": BaseDataset at bob, "alice": BaseDataset at alice}
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from syftlite.errors import ConfigurationError, GetNotPermittedError, PointerMisuseError, WorkerNotFoundError
from syftlite.remote import registry
from syftlite.remote.asking import approval_required
from syftlite.remote.interop import as_tensor
from syftlite.remote.pointer import PointerTensor
from syftlite.remote.transfer import read
from syftlite.remote.worker import BaseWorker

Transform = Callable[[torch.Tensor], torch.Tensor]


class BaseDataset(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Rows ``data`` (n, ...) and ``targets`` (n, ...), tensors or arrays: both here, or both at one worker. ``transform`` is applied to a
    row when it is taken."""

    def __init__(self, data: torch.Tensor, targets: torch.Tensor, transform: Transform | None = None, **_: Any) -> None:
        data, targets = as_tensor(data), as_tensor(targets)
        if transform is not None and not callable(transform):
            raise ConfigurationError(f"transform is a function of a row, not {transform!r}")
        if not data.dim() or not targets.dim() or len(data) != len(targets):
            raise ConfigurationError(f"data of shape {list(data.shape)} and targets of shape {list(targets.shape)} have no rows in common")
        if _place(data) is not _place(targets):
            raise ConfigurationError("data and targets are at different places: send() both to one worker")
        self.data, self.targets, self.transform = data, targets, transform
        self.tags: set[str] = set()
        self.description = ""

    @property
    def location(self) -> BaseWorker | None:
        """The worker that holds the rows; None if they are here."""
        return _place(self.data)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: Any) -> tuple[torch.Tensor, torch.Tensor]:
        row = self.data[index]
        return (row if self.transform is None else self.transform(row)), self.targets[index]

    def rows(self, indices: torch.Tensor | slice) -> tuple[torch.Tensor, torch.Tensor]:
        """The rows of ``indices``, stacked. At a worker this is a few messages and waits for none."""
        if isinstance(indices, slice):
            data, targets = self.data[indices], self.targets[indices]
        else:
            data, targets = self.data.index_select(0, indices), self.targets.index_select(0, indices)
        if self.transform is not None:
            data = torch.stack([self.transform(row) for row in data]) if len(data) else data
        return data, targets

    def send(self, worker: BaseWorker | str) -> BaseDataset:
        """Move the rows to ``worker``, with their labels. Returns itself; the tensors it was made of stay as they are."""
        target = registry.find(worker)
        self.data, self.targets = (_at(t, target) for t in (self.data, self.targets))
        self._label()
        return self

    def get(self, user: str | None = None, reason: str = "") -> BaseDataset:
        """Bring the rows back: one round trip. Returns itself. ``user`` and ``reason`` are as of a pointer's `get`."""
        data, targets = self.data, self.targets
        if not isinstance(data, PointerTensor) or not isinstance(targets, PointerTensor):
            raise PointerMisuseError("this dataset is here already: get() is for one that was sent")
        if data.requires_grad or targets.requires_grad:
            self.data, self.targets = data.get(user, reason), targets.get(user, reason)
            return self
        try:
            self.data, self.targets = read([data, targets], user=user, take=True)
        except GetNotPermittedError as refusal:
            if not reason:
                raise
            raise approval_required([data, targets], reason, refusal, user) from refusal
        return self

    def tag(self, *tags: str) -> BaseDataset:
        """Label the rows, for `search`: the data also as "#data", the targets as "#target"."""
        self.tags |= set(tags)
        self._label()
        return self

    def describe(self, description: str) -> BaseDataset:
        """Describe the rows."""
        self.description = description
        self._label()
        return self

    def _label(self) -> None:
        for tensor, role in ((self.data, "#data"), (self.targets, "#target")):
            if isinstance(tensor, PointerTensor) and tensor.garbage_collection:  # a found one has its owner's labels
                if self.tags:
                    tensor.tag(*self.tags, role)
                if self.description:
                    tensor.describe(self.description)

    def federate(self, workers: Sequence[BaseWorker | str]) -> FederatedDataset:
        """This dataset split over ``workers``: see `federate`."""
        return federate(self, workers)

    def __repr__(self) -> str:
        where = "here" if self.location is None else f"at {self.location.id}"
        return f"<BaseDataset of {len(self)} rows {where}: data {list(self.data.shape[1:])}, targets {list(self.targets.shape[1:])}>"


def federate(dataset: Any, workers: Sequence[BaseWorker | str]) -> FederatedDataset:
    """Split ``dataset`` into consecutive parts of nearly equal length, one at each of ``workers``: every row is at exactly one.

    Any `torch.utils.data.Dataset` of (data, target) will do; its transforms are applied now. With fewer rows than workers, the last ones
    get nothing.
    """
    if isinstance(workers, (str, BaseWorker)) or not isinstance(workers, Iterable):
        raise ConfigurationError(f"federate() takes a list of workers, such as [bob, alice], not {workers!r}")
    found = [registry.find(worker) for worker in workers]
    if not found:
        raise ConfigurationError("federate() needs workers, got none")
    dataset = as_dataset(dataset)
    data, targets = dataset.data, dataset.targets
    found = found[: len(data)]
    ends = [(i + 1) * len(data) // len(found) for i in range(len(found))]
    parts = []
    for worker, start, end in zip(found, [0, *ends], ends, strict=False):
        if end > start:
            part = BaseDataset(data[start:end].detach(), targets[start:end].detach(), dataset.transform)
            part.tags, part.description = set(dataset.tags), dataset.description
            parts.append(part.send(worker))
    return FederatedDataset(parts)


def as_dataset(dataset: Any) -> BaseDataset:
    """All rows of a dataset that is here, whichever `torch.utils.data.Dataset` of (data, target) it is: a `TensorDataset`, a `Subset`. Its
    transforms are applied now."""
    if isinstance(dataset, BaseDataset):
        if dataset.location is not None:
            raise PointerMisuseError(f"this dataset is at {dataset.location.id}: get() it first, or move its parts with send()")
        return dataset
    if isinstance(dataset, torch.Tensor) or not all(hasattr(dataset, name) for name in ("__len__", "__getitem__")):
        raise ConfigurationError(f"a dataset is a BaseDataset(data, targets), or one of torch's of (data, target), not {dataset!r:.60}")
    if isinstance(dataset, tuple) and any(isinstance(each, torch.Tensor) for each in dataset):
        raise ConfigurationError("data and targets are a dataset once they are together: BaseDataset(data, targets)")
    if not len(dataset):
        raise ConfigurationError("an empty dataset cannot be split over workers, or be a client's")
    (whole,) = DataLoader(dataset, batch_size=len(dataset))
    if not isinstance(whole, (list, tuple)) or len(whole) != 2:
        fields = len(whole) if isinstance(whole, (list, tuple, dict)) else 1
        raise ConfigurationError(f"clients and workers get datasets of (data, target); this one has {fields} fields")
    return BaseDataset(*whole)


def _place(tensor: torch.Tensor) -> BaseWorker | None:
    return tensor.location if isinstance(tensor, PointerTensor) else None


def _at(tensor: torch.Tensor, worker: BaseWorker) -> torch.Tensor:
    if isinstance(tensor, PointerTensor):
        return tensor.move(worker)
    sent: torch.Tensor = tensor.send(worker)  # type: ignore[attr-defined]
    return sent


def _parts(given: Any) -> Iterator[BaseDataset]:
    listed = [] if isinstance(given, Dataset) or not isinstance(given, Iterable) else list(given)
    if not all(isinstance(dataset, BaseDataset) for dataset in listed) or (not listed and given not in ([], ())):
        raise ConfigurationError(f"a FederatedDataset is of a list of BaseDatasets, each at a worker, not of {given!r:.80}")
    return iter(listed)


class FederatedDataset(Dataset[Any]):
    """One `BaseDataset` at each of several workers: ``fds["bob"]`` is the one at bob."""

    def __init__(self, datasets: Iterable[BaseDataset]) -> None:
        self.datasets: dict[str, BaseDataset] = {}
        for dataset in _parts(datasets):
            if dataset.location is None:
                raise ConfigurationError(f"{dataset!r}: send() it to a worker first, or use federate()")
            if dataset.location.id in self.datasets:
                raise ConfigurationError(f"two datasets are at {dataset.location.id}: join them, with torch.cat, into one")
            self.datasets[dataset.location.id] = dataset

    @property
    def workers(self) -> list[str]:
        """The ids of the workers."""
        return list(self.datasets)

    def get_dataset(self, worker: BaseWorker | str) -> BaseDataset:
        """Bring the dataset of ``worker`` back, and forget it here."""
        dataset = self[worker].get()
        del self.datasets[worker if isinstance(worker, str) else worker.id]
        return dataset

    def __getitem__(self, worker: BaseWorker | str) -> BaseDataset:
        name = worker if isinstance(worker, str) else getattr(worker, "id", worker)
        if name not in self.datasets:
            known = ", ".join(self.datasets) or "no worker"
            raise WorkerNotFoundError(f"no part of this dataset is at {name!r}; there are parts at {known}")
        return self.datasets[name]

    def __len__(self) -> int:
        return sum(map(len, self.datasets.values()))

    def __repr__(self) -> str:
        return f"<FederatedDataset of {len(self)} rows at {', '.join(f'{w} ({len(d)})' for w, d in self.datasets.items())}>"
