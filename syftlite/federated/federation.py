"""Federation: rounds of training where the data is.

    sample clients -> each trains (one message) -> aggregate -> the strategy's step -> evaluate -> checkpoint

    aggregation     the server receives
    "plain"         each client's weights
    "secure"        masked weights, and their mean (federated/secure.py); of two clients at least
    "shares"        the sum, from aggregator workers that hold shares of each client's weights
    buffer=k        rounds of the k first that finish, however old the weights that they began with (FedBuff, Nguyen et al. 2022)

Whoever fails, or is not done by the deadline, is left out of the round and named in its result; a straggler is asked again when it is free.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future
from pathlib import Path
from typing import Any

import torch
from torch import nn

from syftlite.errors import AggregationError, ConfigurationError, GetNotPermittedError
from syftlite.federated.average import accuracy
from syftlite.federated.checkpoint import Checkpoint, load, store
from syftlite.federated.clients import Client, crew_of, found
from syftlite.federated.crew import Crew
from syftlite.federated.datasets import FederatedDataset
from syftlite.federated.history import History, RoundResult, shown
from syftlite.federated.means import RunningMean, shared_mean
from syftlite.federated.secure import secure_average
from syftlite.federated.strategies import FedAvg, Strategy, Update, Values, weighted_mean
from syftlite.federated.training import LocalTraining, Loss, MakeOptimizer, Trained, Training
from syftlite.remote.transfer import read, upload

Evaluation = Callable[[nn.Module], Mapping[str, float]]
AGGREGATIONS = ("plain", "secure", "shares")


class Federation:
    """Trains ``model_fn()`` on what ``clients`` hold.

    ``clients``: a `FederatedDataset`, or workers, with ``data``: the tags of the data's and of the targets' tensors there; or datasets that
    are here, such as `split_iid` makes, each for a simulated client of its own on ``engine``: "virtual" workers, or "ray". ``loss``,
    ``optimizer(parameters)``, ``epochs``, ``batch_size``: of the clients' training; or ``training``: what they do instead, such as
    `PrivateTraining`. ``strategy``: see `syftlite.federated.strategies`.
    ``fraction`` of the clients is sampled each round, ``minimum`` of them must come through, each within ``deadline`` (s).
    ``evaluate``: (data, target) kept here, or a function of the model that gives numbers by name. ``checkpoint``: a file written after each
    round; `resume` goes on from it. ``secure``: options of `secure_average`; with ``noise_multiplier`` among them, clients add how far they
    moved, all weighing the same. ``aggregators`` and ``crypto_provider``: of "shares".
    """

    def __init__(
        self,
        clients: FederatedDataset | Iterable[Any],
        model_fn: Callable[[], nn.Module],
        *,
        data: tuple[str, str] | None = None,
        engine: str | None = None,
        loss: Loss = nn.functional.cross_entropy,
        optimizer: MakeOptimizer = lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        epochs: int = 1,
        batch_size: int = 32,
        training: Training | None = None,
        strategy: Strategy | None = None,
        aggregation: str = "plain",
        fraction: float = 1.0,
        minimum: int = 1,
        deadline: float = 600.0,
        buffer: int | None = None,
        evaluate: tuple[torch.Tensor, torch.Tensor] | Evaluation | None = None,
        checkpoint: str | Path | None = None,
        secure: Mapping[str, Any] | None = None,
        aggregators: Sequence[Any] = (),
        crypto_provider: Any = None,
        seed: int = 0,
    ) -> None:
        self.strategy = strategy if strategy is not None else FedAvg()
        self.clients = found(clients, data, engine)
        self.aggregation, self.fraction, self.minimum, self.deadline, self.buffer = aggregation, fraction, minimum, deadline, buffer
        self.secure, self.aggregators, self.crypto_provider = dict(secure or {}), tuple(aggregators), crypto_provider
        self._check()
        self.loss = loss
        if training is None:
            training = LocalTraining(model_fn, loss, optimizer, epochs=epochs, batch_size=batch_size, proximal=self.strategy.proximal)
        elif self.strategy.proximal:
            raise ConfigurationError(f"{self.strategy!r} changes how clients train: it goes with the usual training, not with {training!r}")
        self.training: Training = training
        self.model = model_fn()
        self.evaluate = evaluate
        self.path = None if checkpoint is None else Path(checkpoint)
        self.history = History()
        self.random = torch.Generator().manual_seed(seed)
        self._busy: dict[str, Future[Any]] = {}
        self._spent: dict[str, float] = {}

    def _check(self) -> None:
        if self.aggregation not in AGGREGATIONS:
            raise ConfigurationError(f"aggregation is one of {', '.join(AGGREGATIONS)}, not {self.aggregation!r}")
        if self.aggregation != "plain" and not self.strategy.linear:
            raise ConfigurationError(f"{self.strategy!r} looks at every client's weights, and {self.aggregation} aggregation hides them")
        if self.aggregation != "plain" and self.buffer is not None:
            raise ConfigurationError(f"a buffer needs each client's weights as they come, and {self.aggregation} aggregation hides them")
        if self.buffer is not None and not 1 <= self.buffer <= len(self.clients):
            raise ConfigurationError(f"a buffer holds 1 to {len(self.clients)} (the clients), not {self.buffer}")
        if self.aggregation == "shares" and len(self.aggregators) < 2:
            raise ConfigurationError("aggregation by shares needs aggregators=(one, another, ...), workers that hold the shares")
        if not 0 < self.fraction <= 1 or not 1 <= self.minimum <= len(self.clients) or self.deadline <= 0:
            raise ConfigurationError(f"fraction is in (0, 1], minimum 1 to {len(self.clients)} (the clients), deadline positive")

    @property
    def _noised(self) -> bool:
        """Whether clients add noise to what they give: how far they moved from the round's weights."""
        return self.aggregation == "secure" and bool(self.secure.get("noise_multiplier"))

    # -- rounds

    def fit(self, rounds: int, *, progress: bool = True) -> History:
        """``rounds`` more rounds. Raises `AggregationError`, naming who is missing, when fewer than ``minimum`` come through; what was
        reached before stays."""
        for _, data, target in self.clients:
            self.training.record(data.location, data, target)  # type: ignore[attr-defined]
        crew = crew_of(self.clients)
        with shown(rounds, progress) as advance:
            make = self._buffered(crew) if self.buffer else self._rounds(crew)
            try:
                for _ in range(rounds):
                    began, number = time.perf_counter(), len(self.history) + 1
                    self._spent = {}
                    clients, dropped, loss = next(make)
                    seconds = time.perf_counter() - began
                    result = RoundResult(number, loss, clients, seconds, dropped, self._evaluated(), dict(self._spent))
                    self.history.append(result)
                    if self.path is not None:
                        self.save(self.path)
                    advance(result)
            finally:
                crew.leave()  # a straggler goes on by itself
        return self.history

    def _rounds(self, crew: Crew) -> Iterator[tuple[dict[str, float | None], dict[str, str], float | None]]:
        while True:
            dropped: dict[str, str] = {}
            running = RunningMean() if self.aggregation == "plain" and self.strategy.linear else None
            values = self._snapshot()
            futures = {c[0].id: self._submit(crew, c, values, running) for c in self._sample(dropped)}
            crew.wait(futures.values(), self.deadline)
            if running is not None:
                running.close()
                crew.wait([futures[name] for name in running.rows], math.inf)
            trained = dict(self._done(futures, dropped))
            self._quorum(trained, dropped)
            current = [value.double() for value in values]
            if running is not None:
                self._set(self.strategy.step(current, running.values()))
            elif self.aggregation == "plain":
                self._set(self.strategy.aggregate(current, [Update(name, given, rows) for name, (given, _, rows) in trained.items()]))
            else:
                mean = self._hidden_mean(values, {name: there for name, (there, _, _) in trained.items()}, dropped)
                for gone in set(dropped) & set(trained):
                    del trained[gone]
                self._set(self.strategy.step(current, mean))
            losses = {name: loss for name, (_, loss, _) in trained.items()}
            yield losses, dropped, _mean_loss([(loss, rows) for _, loss, rows in trained.values()])

    def _buffered(self, crew: Crew) -> Iterator[tuple[dict[str, float | None], dict[str, str], float | None]]:
        """FedBuff: w <- w + sum_k s_k d_k / sum_k s_k, with s = rows / sqrt(1 + how many rounds its start is ago)."""
        assert self.buffer is not None
        version, started, base = 0, {}, {}
        while True:
            dropped: dict[str, str] = {}
            gathered: list[tuple[Update, float | None, float]] = []
            gave_up = time.monotonic() + self.deadline
            values = self._snapshot()
            while len(gathered) < self.buffer:
                heard = {update.worker for update, _, _ in gathered}
                for client in self.clients:
                    if client[0].id not in heard and client[0].id not in self._busy and client[0].id not in dropped:
                        started[client[0].id], base[client[0].id] = version, values
                        self._submit(crew, client, values, None)
                if not self._busy or time.monotonic() > gave_up:
                    break
                finished = crew.wait(self._busy.values(), gave_up - time.monotonic(), FIRST_COMPLETED)
                for name, (trained, loss, rows) in self._done({n: f for n, f in self._busy.items() if f in finished}, dropped):
                    delta = [v.double() - b for v, b in zip(trained, base[name], strict=True)]
                    gathered.append((Update(name, delta, rows), loss, rows / math.sqrt(1 + version - started[name])))
                    if len(gathered) == self.buffer:
                        break  # whoever else is done is first in the next one
            self._quorum({u.worker: u for u, _, _ in gathered}, dropped, min(self.minimum, self.buffer))
            moved = weighted_mean([u for u, _, _ in gathered], [s for _, _, s in gathered])
            current = [value.double() for value in values]
            self._set(self.strategy.step(current, [w + d for w, d in zip(current, moved, strict=True)]))
            version += 1
            yield {u.worker: loss for u, loss, _ in gathered}, dropped, _mean_loss([(loss, u.rows) for u, loss, _ in gathered])

    def _sample(self, dropped: dict[str, str]) -> list[Client]:
        count = max(self.minimum, math.ceil(self.fraction * len(self.clients)))
        order = torch.randperm(len(self.clients), generator=self.random).tolist()
        chosen = [self.clients[at] for at in sorted(order[:count])]
        for name, future in list(self._busy.items()):
            if future.done():
                del self._busy[name]
        for worker, _, _ in chosen:
            if worker.id in self._busy:
                dropped[worker.id] = "still at work on an earlier round"
        return [client for client in chosen if client[0].id not in self._busy]

    def _submit(self, crew: Crew, client: Client, values: Values, mean: RunningMean | None) -> Future[Any]:
        generator = torch.Generator().manual_seed(int(torch.randint(1 << 62, (), generator=self.random)))
        future = self._busy[client[0].id] = crew.submit(self._train, client, values, generator, mean)
        return future

    def _train(
        self, client: Client, values: Values, generator: torch.Generator, mean: RunningMean | None
    ) -> tuple[Any, float | None, int]:
        """One client's part: (its weights, here or there, or none that are in ``mean`` already, its mean loss, its rows)."""
        worker, data, target = client
        trained = self.training.start(worker, data, target, values, generator)
        if trained.spent is not None:
            self._spent[worker.id] = trained.spent
        told = [] if trained.losses is None else [trained.losses]
        if self._noised:  # what moved is short, and can be clipped
            moved = [now - upload(before, worker) for now, before in zip(trained.values, values, strict=True)]
            trained = trained._replace(values=moved)  # type: ignore[arg-type]
        if self.aggregation != "plain":
            try:
                losses = read(told, take=True) if told else []  # ... and it is done
                return trained, *_mean_of(losses), trained.rows
            except GetNotPermittedError:
                return trained, None, trained.rows
        got = read([*trained.values, *told], take=True)
        given, losses = got[: len(trained.values)], got[len(trained.values) :]
        if mean is None:
            return given, *_mean_of(losses), trained.rows
        if not mean.add(worker.id, given, trained.rows):
            raise TimeoutError(f"not done within {self.deadline:g} s")
        return (), *_mean_of(losses), trained.rows

    def _done(self, futures: Mapping[str, Future[Any]], dropped: dict[str, str]) -> Iterator[tuple[str, Any]]:
        for name, future in futures.items():
            if not future.done():
                dropped[name] = f"not done within {self.deadline:g} s"
                continue
            del self._busy[name]
            if (error := future.exception()) is not None:
                dropped[name] = f"{type(error).__name__}: {error}"
            else:
                yield name, future.result()

    def _quorum(self, trained: Mapping[str, Any], dropped: dict[str, str], minimum: int | None = None) -> None:
        needed = self.minimum if minimum is None else minimum
        if len(trained) < needed:
            told = "; ".join(f"{name}: {why}" for name, why in dropped.items()) or "no client is free"
            raise AggregationError(f"{len(trained)} clients came through, and {needed} are needed. {told}")

    # -- aggregates that hide their parts

    def _hidden_mean(self, values: Values, trained: Mapping[str, Trained], dropped: dict[str, str]) -> Values:
        if self.aggregation == "shares":
            return shared_mean(trained, self.aggregators, self.crypto_provider)
        data = {worker.id: data for worker, data, _ in self.clients}
        vectors = {name: there.values for name, there in trained.items()}
        weights = None if self._noised else {name: data[name] for name in vectors}
        result = secure_average(vectors, weights, **{"deadline": self.deadline, **self.secure})
        dropped.update(result.dropped)
        if self._noised:
            return [value.double() + moved for value, moved in zip(values, result.values, strict=True)]
        return result.values

    # -- the model

    def _tensors(self) -> list[torch.Tensor]:
        return [*self.model.parameters(), *self.model.buffers()]

    def _snapshot(self) -> Values:
        """The model's tensors as they are now."""
        return [t.detach().clone() for t in self._tensors()]

    def _set(self, values: Values) -> None:
        with torch.no_grad():
            for tensor, value in zip(self._tensors(), values, strict=True):
                tensor.copy_(value)

    def _evaluated(self) -> dict[str, float]:
        if self.evaluate is None:
            return {}
        if callable(self.evaluate):
            return dict(self.evaluate(self.model))
        data, target = self.evaluate
        training, _ = self.model.training, self.model.eval()
        with torch.no_grad():
            scores = torch.cat([self.model(part) for part in data.split(1000)])
            told = {"test loss": float(self.loss(scores, target))}
            if not target.is_floating_point():
                told["accuracy"] = float(accuracy(scores, target))
        self.model.train(training)
        return told

    # -- on disk

    def save(self, path: str | Path) -> None:
        """Write all of its state to a file."""
        told = {"rounds": self.history.as_rows(), "strategy": repr(self.strategy)}
        values = [t.detach() for t in self._tensors()]
        store(Path(path), Checkpoint(values, self.strategy.state, self.random.get_state(), told))

    def resume(self, path: str | Path | None = None) -> Federation:
        """Go on from a checkpoint, by default its own; nothing happens where there is none yet. Returns itself."""
        where = Path(path) if path is not None else self.path
        if where is None:
            raise ConfigurationError("resume() needs a file, or Federation(checkpoint=...)")
        if not where.exists():
            return self
        held = load(where)
        if [v.shape for v in held.values] != [t.shape for t in self._tensors()] or held.told["strategy"] != repr(self.strategy):
            raise ConfigurationError(f"{where} is of another model, or of {held.told['strategy']}, not {self.strategy!r}")
        self._set(held.values)
        self.strategy.state = held.state
        self.random.set_state(held.random)
        self.history = History([RoundResult(**row) for row in held.told["rounds"]])
        return self

    def __repr__(self) -> str:
        names = ", ".join(worker.id for worker, _, _ in self.clients[:5]) + (", ..." if len(self.clients) > 5 else "")
        how = f"{self.strategy!r}, {self.aggregation}, {len(self.history)} rounds done"
        return f"<Federation of {len(self.clients)} clients ({names}): {how}>"


def _mean_of(losses: Sequence[torch.Tensor]) -> tuple[float | None]:
    return (float(losses[0].mean()) if losses else None,)


def _mean_loss(losses: Sequence[tuple[float | None, int]]) -> float | None:
    known = [(loss, rows) for loss, rows in losses if loss is not None]
    return sum(loss * rows for loss, rows in known) / sum(rows for _, rows in known) if known else None
