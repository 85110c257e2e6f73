"""Federation: rounds of training where the data is.

    sample clients -> each trains (one message) -> aggregate -> the strategy's step -> evaluate -> checkpoint

    aggregation     the server receives
    "plain"         each client's weights
    "secure"        masked updates, and their mean (federated/secure.py); of two clients at least
    "shares"        the sum, from aggregator workers that hold shares of each client's update; likewise
    buffer=k        rounds of the k first that finish, however old the weights that they began with (FedBuff, Nguyen et al. 2022)

Whoever fails, or is not done by the deadline, is left out of the round and named in its result; a straggler is asked again when it is free.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from syftlite.errors import ConfigurationError
from syftlite.federated.checkpoint import Checkpoint, load, store
from syftlite.federated.checks import (
    must_be_callable,
    must_be_mapping,
    must_be_module,
    must_be_path,
    must_be_rounds,
    must_be_strategy,
    must_fit,
    must_have_folder,
    must_hide,
    must_train,
)
from syftlite.federated.clients import crew_of, found
from syftlite.federated.crew import Crew
from syftlite.federated.datasets import FederatedDataset
from syftlite.federated.evaluation import Evaluation, at_clients, evaluated, must_evaluate, weighted
from syftlite.federated.history import History, RoundResult, shown
from syftlite.federated.layout import Layout
from syftlite.federated.private import EVENTS, steps_in
from syftlite.federated.rounds import Buffered, Round, Together
from syftlite.federated.schedule import MakeScheduler
from syftlite.federated.spending import Spending, noted
from syftlite.federated.strategies import FedAvg, Strategy
from syftlite.federated.training import LocalTraining, Loss, MakeOptimizer, Training
from syftlite.federated.work import Work

log = logging.getLogger("syftlite.federated")


def sgd(parameters: Any) -> torch.optim.Optimizer:
    """The optimizer of clients, if none is given."""
    return torch.optim.SGD(parameters, lr=0.1)


class Federation:
    """Trains ``model_fn()`` on what ``clients`` hold.

    ``clients``: a `FederatedDataset`, or workers, with ``data``: the tags of the data's and of the targets' tensors there; or datasets that
    are here, such as `split_iid` makes, each for a simulated client of its own on ``engine``: "virtual" workers, or "ray". ``loss``,
    ``optimizer(parameters)``, ``epochs``, ``batch_size``: of the clients' training (cross entropy, SGD at 0.1, 1, 32), and
    ``scheduler(optimizer)``: how its learning rate changes from round to round (`LocalTraining`); or ``training``: what they do instead,
    such as `PrivateTraining`; ``loss`` is then the evaluation's. ``strategy``: see `federated.strategies`, of
    which the federation makes a copy.
    ``fraction`` of the clients is sampled each round (with a buffer, at work at a time), ``minimum`` of them must come through, each
    within ``deadline`` (s).
    ``evaluate``: (data, target) kept here, or a function of the model, which is in eval mode then, that gives a number, or numbers by name.
    ``evaluate_clients``: also where each client's rows are, after each round. ``checkpoint``: a file written after each round; `resume`
    goes on from it. ``secure``: options of `secure_average`, whose ``clip`` is of how far a client has moved; with ``noise_multiplier``
    among them all clients weigh the same. ``aggregators`` and ``crypto_provider``: of "shares".
    """

    def __init__(
        self,
        clients: FederatedDataset | Iterable[Any],
        model_fn: Callable[[], nn.Module],
        *,
        data: tuple[str, str] | None = None,
        engine: str | None = None,
        loss: Loss | None = None,
        optimizer: MakeOptimizer | None = None,
        scheduler: MakeScheduler | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        training: Training | None = None,
        strategy: Strategy | None = None,
        aggregation: str = "plain",
        fraction: float = 1.0,
        minimum: int = 1,
        deadline: float = 600.0,
        buffer: int | None = None,
        evaluate: tuple[torch.Tensor, torch.Tensor] | Evaluation | None = None,
        evaluate_clients: bool = False,
        checkpoint: str | Path | None = None,
        secure: Mapping[str, Any] | None = None,
        aggregators: Sequence[Any] = (),
        crypto_provider: Any = None,
        seed: int = 0,
    ) -> None:
        must_be_strategy(strategy)
        must_train(training)
        must_evaluate(evaluate)
        must_be_callable(model_fn, loss=loss, optimizer=optimizer, scheduler=scheduler)
        self.strategy = copy.deepcopy(strategy) if strategy is not None else FedAvg()
        self.clients = found(clients, data, engine)
        self.aggregation, self.fraction, self.minimum, self.deadline, self.buffer = aggregation, fraction, minimum, deadline, buffer
        self.secure, self.aggregators, self.crypto_provider = must_be_mapping("secure", secure), tuple(aggregators), crypto_provider
        self.path, self.seed = must_be_path("checkpoint", checkpoint), seed
        must_fit(self)
        self.evaluate, self.evaluate_clients = evaluate, evaluate_clients
        own = {"optimizer": optimizer, "scheduler": scheduler, "epochs": epochs, "batch_size": batch_size}
        self.training: Training = self._trained_by(training, model_fn, loss, {name: v for name, v in own.items() if v is not None})
        self.loss: Loss = loss if loss is not None else getattr(self.training, "loss", nn.functional.cross_entropy)
        self.model = must_be_module(model_fn())
        self._layout = self._laid_out()
        must_hide(self)
        self.history = History()
        self.random = torch.Generator().manual_seed(seed)
        self._work = Work(self)
        self._round: Round = Together(self, self._work) if buffer is None else Buffered(self, self._work)
        self._spending = None if self.path is None else Spending(self.path)
        self._told = False

    def _trained_by(
        self, training: Training | None, model_fn: Callable[[], nn.Module], loss: Loss | None, own: dict[str, Any]
    ) -> Training:
        """``training``, or the usual one with its ``own`` settings. Raises `ConfigurationError` for settings that it would not heed."""
        if training is None:
            settings = {"optimizer": sgd, **own}
            return LocalTraining(model_fn, loss or nn.functional.cross_entropy, proximal=self.strategy.proximal, **settings)
        if self.strategy.proximal:
            raise ConfigurationError(f"{self.strategy!r} changes how clients train: it goes with the usual training, not with {training!r}")
        if loss not in (None, getattr(training, "loss", None)) and not isinstance(self.evaluate, (tuple, list)):
            own["loss"] = loss
        if own:
            raise ConfigurationError(f"{', '.join(own)}: settings of the usual training, which {training!r} stands in for: give them to it")
        return training

    @property
    def layout(self) -> Layout:
        """What the model's tensors are."""
        if self._layout.model is not self.model:
            self._layout = self._laid_out()
        return self._layout

    def _laid_out(self) -> Layout:
        return Layout(self.model, getattr(self.training, "stepped", None))

    @property
    def hidden(self) -> bool:
        """Whether nobody sees one client's weights."""
        return self.aggregation != "plain"

    @property
    def noised(self) -> bool:
        """Whether clients add noise to what they give."""
        return self.aggregation == "secure" and bool(self.secure.get("noise_multiplier"))

    @property
    def sampled(self) -> int:
        """Clients in a round."""
        return max(self.minimum, math.ceil(round(self.fraction * len(self.clients), 9)))

    @property
    def needed(self) -> int:
        """Clients that must come through. A sum that hides them has two at least, and some strategies make nothing of fewer than theirs."""
        least = [self.secure.get(name) or 0 for name in ("minimum", "threshold")] if self.aggregation == "secure" else []
        return max(self.minimum, 2 * self.hidden, self.strategy.least, *least)

    # -- rounds

    def fit(self, rounds: int, *, progress: bool = True) -> History:
        """``rounds`` more rounds. Raises `AggregationError`, naming who is missing, when fewer than ``minimum`` come through; what was
        reached before stays."""
        must_be_rounds(rounds)
        crew = crew_of(self.clients)
        with torch.enable_grad(), shown(rounds, progress) as advance:
            try:
                for _ in range(rounds):
                    advance(self._one(crew))
            finally:
                self._work.leave(crew)
        return self.history

    def _one(self, crew: Crew) -> RoundResult:
        began, number = time.perf_counter(), len(self.history) + 1
        self._work.spent = {}
        if hasattr(self.training, "spending"):
            self.training.spending = self._spending
        self._work.prepare()
        outcome = self._round.run(crew)
        spent, seconds = dict(self._work.spent), time.perf_counter() - began
        result = RoundResult(number, outcome.loss, outcome.clients, seconds, outcome.dropped, spent=spent, clipped=outcome.clipped)
        try:
            self._evaluate(result, crew)
        finally:  # a round that was done is kept, whatever becomes of its evaluation
            self.history.append(result)
            if self.path is not None:
                self.save(self.path)
        if outcome.clipped and not self._told:
            self._told = True
            names, share = ", ".join(outcome.clipped), max(outcome.clipped.values())
            clip = self.secure.get("clip", "its default")
            log.warning("up to %.2g of how far %s moved was cut to clip, %s: secure={'clip': ...} raises it", share, names, clip)
        return result

    def _evaluate(self, result: RoundResult, crew: Crew) -> None:
        """Put into ``result`` what its model is worth."""
        result.metrics |= evaluated(self.model, self.evaluate, self.loss)
        if self.evaluate_clients:
            free = [client for client in self.clients if client[0].id not in self._work.busy and len(client[1])]
            result.evaluated |= at_clients(self.model, free, self.loss, crew, self.deadline, result.dropped)
            result.metrics |= weighted(result.evaluated, {worker.id: len(data) for worker, data, _ in self.clients})

    # -- on disk

    def save(self, path: str | Path | None = None) -> None:
        """Write all of its state to a file, by default its own."""
        must_have_folder(where := self._where(path, "save"))
        told = {"rounds": self.history.as_rows(), "strategy": self.strategy.form, "trained": self.layout.weights}
        values = [t.detach() for t in self.layout.tensors]
        kept = self.training.state() if hasattr(self.training, "state") else {}
        store(where, Checkpoint(values, self.strategy.state, kept, self.random.get_state(), told))
        if self._spending is not None and where == self.path:
            self._spending.kept(steps_in(kept))

    def resume(self, path: str | Path | None = None) -> Federation:
        """Go on from a checkpoint, by default its own; where there is none yet, from the start. Of steps that private training has done
        none is forgotten, of rounds that were lost neither. Returns itself."""
        where = self._where(path, "resume")
        if not where.exists():
            self._recall(where)
            return self
        held = load(where)
        forms, own = ([(t.shape, t.dtype) for t in tensors] for tensors in (held.values, self.layout.tensors))
        if forms != own or held.told["strategy"] != self.strategy.form:
            told = f"of {held.told['strategy']}, not {self.strategy.form}" if forms == own else "its tensors have other shapes or types"
            raise ConfigurationError(f"{where} is of another model, or strategy: {told}")
        kept = [name for name in (*held.state, *held.training) if not name.endswith(f"/{EVENTS}")]
        if kept and held.told.get("trained", self.layout.weights) != self.layout.weights:
            told = "which of the model's parameters are trained (requires_grad) is to be as it was"
            raise ConfigurationError(f"{where} has a state of {self.strategy!r} or of clients for others than are trained now: {told}")
        self.layout.restore(held.values)
        self.strategy.state = held.state
        if hasattr(self.training, "restore"):
            self.training.restore(held.training)
        self._recall(where)
        self._work.forget()
        self.random.set_state(held.random)
        self.history = History([RoundResult(**row) for row in held.told["rounds"]])
        return self

    def _where(self, path: str | Path | None, asked: str) -> Path:
        where = Path(path) if path is not None else self.path
        if where is None:
            raise ConfigurationError(f"{asked}() needs a file: {asked}(path), or Federation(checkpoint=...)")
        return where

    def _recall(self, path: Path) -> None:
        if hasattr(self.training, "recall"):
            self.training.recall(noted(path))

    def __repr__(self) -> str:
        names = ", ".join(worker.id for worker, _, _ in self.clients[:5]) + (", ..." if len(self.clients) > 5 else "")
        how = f"{self.strategy!r}, {self.aggregation}, {len(self.history)} rounds done"
        return f"<Federation of {len(self.clients)} clients ({names}): {how}>"
