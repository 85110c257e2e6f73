"""Clients at work: who is sampled, prepared, asked and heard. Whoever fails is named, and the others go on.

    able     free, with rows, and prepared: a dead node, or rows that the model does not take, are its own client's failure
    part     one client's part of a round, in a thread: train, then read what it made, or only how it moved where updates are hidden
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from syftlite.errors import AggregationError, ConnectionLostError, GetNotPermittedError
from syftlite.federated.clients import Client
from syftlite.federated.crew import Crew
from syftlite.federated.layout import must_be_finite, picked
from syftlite.federated.means import RunningMean
from syftlite.federated.strategies import Values
from syftlite.federated.training import Trained
from syftlite.remote.transfer import read, upload

if TYPE_CHECKING:
    from syftlite.federated.federation import Federation


class Part(NamedTuple):
    """What a client has done. ``weights`` and ``statistics``: its tensors; where updates are hidden, pointers to how far they moved; none
    if a running mean has them. ``counts``: those that it has changed, by number."""

    weights: Sequence[torch.Tensor]
    statistics: Sequence[torch.Tensor]
    counts: Mapping[int, torch.Tensor]
    loss: float | None
    rows: int


class Work:
    """The clients of ``federation``."""

    def __init__(self, federation: Federation) -> None:
        self.federation = federation
        self.busy: dict[str, Future[Part]] = {}
        self.spent: dict[str, float] = {}
        """Of epsilon, by whoever has told it in this round."""
        self._prepared: set[str] = set()
        self._late: set[str] = set()
        """Of those at work, who has missed a deadline."""

    def prepare(self) -> None:
        """Prepare all clients for the next round, before any is at work. Of whoever fails `able` tells."""
        training = self.federation.training
        if hasattr(training, "follow") and training.follow([result.loss for result in self.federation.history]):
            self._prepared.clear()
        for worker, data, target in self.federation.clients:
            if worker.id not in self._prepared and worker.id not in self.busy and len(data):
                with suppress(Exception):
                    training.record(worker, data, target)
                    self._prepared.add(worker.id)

    def sample(self, crew: Crew, dropped: dict[str, str]) -> list[Client]:
        """This round's clients. Whoever is at work on an earlier one, or cannot work, is in ``dropped``; those whose round was broken off
        have their deadline still."""
        clients = self.federation.clients
        order = torch.randperm(len(clients), generator=self.federation.random).tolist()
        chosen = [clients[at] for at in sorted(order[: self.federation.sampled])]
        left = {name: self.busy[name] for name in (client[0].id for client in chosen) if name in self.busy and name not in self._late}
        if left:
            crew.wait(left.values(), self.federation.deadline)
            self._late |= left.keys()
        for name in [name for name, future in self.busy.items() if future.done()]:
            if self.busy.pop(name).exception() is not None:
                self._prepared.discard(name)  # what was there may be gone
        return self.able(chosen, dropped)

    def able(self, clients: Sequence[Client], dropped: dict[str, str]) -> list[Client]:
        """Those of ``clients`` that can begin. Raises what is wrong when it is the same with all of them: it is no client's failure."""
        failures: list[Exception] = []
        able = []
        for client in clients:
            name, (worker, data, target) = client[0].id, client
            if name in self.busy:
                dropped[name] = "still at work on an earlier round"
            elif not len(data):
                dropped[name] = "it has no rows"
            else:
                try:
                    if name not in self._prepared:
                        self.federation.training.record(worker, data, target)
                        self._prepared.add(name)
                    able.append(client)
                except Exception as error:
                    failures.append(error)
                    dropped[name] = f"{type(error).__name__}: {error}"
        if failures and len(failures) == len(self.federation.clients) and not any(isinstance(e, ConnectionLostError) for e in failures):
            raise failures[0]
        return able

    def submit(self, crew: Crew, client: Client, values: Values, mean: RunningMean | None) -> Future[Part]:
        """Have ``client`` do its part, from ``values``."""
        generator = torch.Generator().manual_seed(int(torch.randint(1 << 62, (), generator=self.federation.random)))
        self._late.discard(client[0].id)
        future = self.busy[client[0].id] = crew.submit(self._part, client, values, generator, mean)
        return future

    def _part(self, client: Client, values: Values, generator: torch.Generator, mean: RunningMean | None) -> Part:
        worker, data, target = client
        trained = self.federation.training.start(worker, data, target, values, generator)
        if trained.spent is not None:
            self.spent[worker.id] = trained.spent
        told = [] if trained.losses is None else [trained.losses]
        if self.federation.hidden:
            return self._moved(client, trained, values, told)
        layout = self.federation.layout
        places = layout.weights + layout.statistics + layout.counts
        wanted: list[Any] = picked(trained.values, places)
        got = read([*wanted, *told], take=True)
        layout.must_be_like(got[: len(got) - len(told)], places)
        few, most = len(layout.weights), len(layout.weights) + len(layout.statistics)
        weights, statistics, counts = got[:few], got[few:most], got[most : most + len(layout.counts)]
        loss = float(got[-1].mean()) if told else None
        must_be_finite([*weights, *statistics])
        changed = {n: c for n, (c, at) in enumerate(zip(counts, layout.counts, strict=True)) if not torch.equal(c, values[at])}
        if mean is None:
            return Part(weights, statistics, changed, loss, trained.rows)
        moved = [now.double() - values[at] for now, at in zip(statistics, layout.statistics, strict=True)]
        if not mean.add(worker.id, [*weights, *moved], trained.rows):
            raise TimeoutError(f"not done within {self.federation.deadline:g} s")
        return Part((), (), changed, loss, trained.rows)

    def _moved(self, client: Client, trained: Trained, values: Values, told: Sequence[Any]) -> Part:
        """How far the client has moved, which is short and can be clipped; it stays there."""
        layout = self.federation.layout
        places = layout.weights if self.federation.noised else layout.weights + layout.statistics
        moved = [trained.values[at] - upload(values[at], client[0]) for at in places]
        few, loss = len(layout.weights), None
        with suppress(GetNotPermittedError):
            loss = float(read(told, take=True)[0].mean()) if told else None  # ... and it is done
        return Part(moved[:few], moved[few:], {}, loss, trained.rows)

    def done(self, futures: Mapping[str, Future[Part]], dropped: dict[str, str]) -> Iterator[tuple[str, Part]]:
        """What has come of ``futures``, by client; of others, why not."""
        for name, future in futures.items():
            if not future.done():
                dropped[name] = f"not done within {self.federation.deadline:g} s"
                self._late.add(name)
                continue
            del self.busy[name]
            if (error := future.exception()) is not None:
                self._prepared.discard(name)  # what was there may be gone
                dropped[name] = f"{type(error).__name__}: {error}"
            else:
                yield name, future.result()

    def forget(self) -> None:
        """Prepare everybody anew: their training begins at another state."""
        self._prepared.clear()

    def leave(self, crew: Crew) -> None:
        """The crew begins nothing more; a straggler goes on by itself."""
        crew.leave()
        self.busy = {name: future for name, future in self.busy.items() if not future.cancelled()}

    def quorum(self, parts: Mapping[str, Any], dropped: dict[str, str], needed: int) -> None:
        """Raises `AggregationError` that names who is missing if fewer than ``needed`` came through."""
        if len(parts) < needed:
            told = "; ".join(f"{name}: {why}" for name, why in dropped.items()) or "no client is free"
            raise AggregationError(f"{len(parts)} clients came through, and {needed} are needed. {told}")
