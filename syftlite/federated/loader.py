"""FederatedDataLoader: batches of a federated dataset, which stay where they are.

    for data, target in FederatedDataLoader(fds, batch_size=64):      pointers, first all of one worker, then of the next
        model.send(data.location)

A batch is cut by its worker, on one message, and waits for nothing; while a program works on one, the message for the next is on its way:

    where                                            rows of the first batch; sent once an epoch, with the order if they are shuffled
    RUN(where, data, targets, [order])  ->  data, targets, where of the next             one a batch: a plan of this loader (plans/)
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from syftlite.errors import ConfigurationError
from syftlite.federated.datasets import BaseDataset, FederatedDataset
from syftlite.plans import Plan
from syftlite.remote.pointer import PointerTensor
from syftlite.remote.worker import BaseWorker

Batch = tuple[torch.Tensor, torch.Tensor]
Collate = Callable[[list[Batch]], Any]
log = logging.getLogger("syftlite.federated")
_DONE = object()


class FederatedDataLoader:
    """Batches of ``batch_size`` rows of each worker in turn; every row once, unless ``drop_last`` drops an incomplete batch.

    ``shuffle``: within each worker, anew in every epoch, by torch's generator. ``num_iterators``: how many workers take part in a step;
    with more than one, or ``iter_per_worker`` (all of them), a step gives a dictionary {worker: (data, target)}, and a worker whose rows
    are used up makes room for the next. ``collate_fn`` makes a batch of a list of rows, at the price of some messages for each row; so does
    a dataset's ``transform``.
    """

    def __init__(
        self,
        federated_dataset: FederatedDataset,
        batch_size: int = 8,
        shuffle: bool = False,
        num_iterators: int = 1,
        drop_last: bool = False,
        collate_fn: Collate | None = None,
        iter_per_worker: bool = False,
        **options: Any,
    ) -> None:
        if not isinstance(federated_dataset, FederatedDataset):
            raise ConfigurationError(f"{type(federated_dataset).__name__} is no FederatedDataset: federate() it, or use torch's DataLoader")
        numbers = all(isinstance(n, int) and not isinstance(n, bool) for n in (batch_size, num_iterators))
        if collate_fn is not None and not callable(collate_fn):
            raise ConfigurationError(f"collate_fn is a function of a list of rows, not {collate_fn!r}")
        if not numbers or batch_size < 1 or num_iterators < 1:
            raise ConfigurationError(f"batch_size and num_iterators are at least 1, got {batch_size!r} and {num_iterators!r}")
        if options:
            log.warning("a FederatedDataLoader has no use for: %s", ", ".join(options))
        self.federated_dataset = federated_dataset
        self.batch_size, self.shuffle, self.drop_last, self.collate_fn = batch_size, shuffle, drop_last, collate_fn
        self.iter_per_worker = iter_per_worker
        self.num_iterators = len(self.workers) if iter_per_worker else min(num_iterators, len(self.workers))
        self._steps: Iterator[Any] | None = None
        self._cuts: dict[int, Plan] = {}

    @property
    def workers(self) -> list[str]:
        """The ids of the workers."""
        return self.federated_dataset.workers

    def __repr__(self) -> str:
        size = f"{len(self)} {'steps of a batch of each' if self.num_iterators > 1 or self.iter_per_worker else 'batches'}"
        return f"<FederatedDataLoader: {size}, up to {self.batch_size} rows, at {', '.join(self.workers)}>"

    def __iter__(self) -> Iterator[Any]:
        if self.num_iterators > 1 or self.iter_per_worker:
            return _ahead(self._together())
        return _ahead(batch for worker in self.workers for batch in self._batches(self.federated_dataset[worker]))

    def __next__(self) -> Any:
        self._steps = self._steps or iter(self)
        try:
            return next(self._steps)
        except StopIteration:
            self._steps = None
            raise

    def __len__(self) -> int:
        """Steps of an epoch."""
        counts = [self._count(len(dataset)) for dataset in self.federated_dataset.datasets.values()]
        if self.num_iterators == 1:
            return sum(counts)
        seats = [0] * self.num_iterators
        for count in counts:
            seats[seats.index(min(seats))] += count
        return max(seats, default=0)

    def _count(self, rows: int) -> int:
        return rows // self.batch_size if self.drop_last else -(-rows // self.batch_size)

    def _batches(self, dataset: BaseDataset) -> Iterator[Any]:
        local = torch.randperm(len(dataset)) if self.shuffle else None
        if self.collate_fn is None and dataset.transform is None and _direct(dataset.data) and _direct(dataset.targets):
            yield from self._cut(dataset, local)
            return
        order = local if local is None or dataset.location is None else dataset.location.send(local)
        for number in range(self._count(len(dataset))):
            part = slice(number * self.batch_size, min((number + 1) * self.batch_size, len(dataset)))
            if self.collate_fn is not None:
                rows = range(part.start, part.stop) if local is None else local[part].tolist()
                yield self.collate_fn([dataset[i] for i in rows])
            elif order is not None:
                yield dataset.rows(order[part])
            else:
                data, targets = dataset.rows(part)
                yield data if dataset.transform else _apart(data), _apart(targets)

    def _cut(self, dataset: BaseDataset, order: torch.Tensor | None) -> Iterator[Batch]:
        """Batches of ``dataset``, in ``order``, by one message each."""
        worker, rows = dataset.location, len(dataset)
        assert worker is not None
        size = min(self.batch_size, rows)
        where = worker.send(torch.arange(size))
        given = [dataset.data, dataset.targets, *([] if order is None else [worker.send(order)])]
        for number in range(self._count(rows)):
            length = min(size, rows - number * size)
            plan = self._cuts.setdefault(length, Plan(partial(_take, length), "batch"))
            data, targets, where = plan(where, *given)
            yield data, targets

    def _together(self) -> Iterator[dict[BaseWorker, Any]]:
        """A batch from each of `num_iterators` workers at a time; one that has no more makes room for one that has not begun."""
        waiting = iter([(d.location, self._batches(d)) for d in self.federated_dataset.datasets.values()])
        seats = [next(waiting, None) for _ in range(self.num_iterators)]
        while True:
            step = {}
            for position, seat in enumerate(seats):
                while seat is not None:
                    batch = next(seat[1], _DONE)
                    if batch is not _DONE:
                        assert seat[0] is not None
                        step[seat[0]] = batch
                        break
                    seat = seats[position] = next(waiting, None)
            if not step:
                return
            yield step


def _apart(part: torch.Tensor) -> torch.Tensor:
    """A copy of ``part``, a view of a dataset's rows, which a program may write to; of what points to a pointer, itself."""
    return part.clone() if isinstance(part, PointerTensor) and part.child is None else part


def _direct(tensor: torch.Tensor) -> bool:
    """Whether a plan can read it: it points to a value, not to a pointer, and no gradient goes through it."""
    return isinstance(tensor, PointerTensor) and tensor.child is None and not tensor.requires_grad


def _take(
    length: int, where: torch.Tensor, data: torch.Tensor, targets: torch.Tensor, order: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The first ``length`` of the rows ``where``, which count in ``order`` if there is one; and where those after them are."""
    rows = where if length == len(where) else where[:length]
    if order is not None:
        rows = order.index_select(0, rows)
    return data.index_select(0, rows), targets.index_select(0, rows), where + len(where)


def _ahead(steps: Iterator[Any]) -> Iterator[Any]:
    """``steps``, each asked for one step early: its messages are queued while the program works on the one before."""
    current = next(steps, _DONE)
    while current is not _DONE:
        following = next(steps, _DONE)
        yield current
        current = following
