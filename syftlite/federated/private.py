"""PrivateTraining: clients train by DP-SGD, so that what each gives away is differentially private by itself, whoever gets to see it.

    weights --copied there--> steps (one message each: the owner samples, clips, adds noise, charges) --> weights of class DP

Each step is charged to the accounts of the owner's dataset before it is computed. An owner whose budget is spent fails with
`BudgetExceededError`, and is left out of the round by name; a step that was charged and lost with its client stays charged.
Steps are counted here likewise: never fewer than were done, also after a crash (spending.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import nn

from syftlite.dp.accountant import Event, gaussian
from syftlite.dp.queries import budget
from syftlite.dp.training import DPOptimizer
from syftlite.errors import ConfigurationError, SyftliteError
from syftlite.federated.checks import must_be_module, must_be_optimizer
from syftlite.federated.layout import statistical
from syftlite.federated.spending import Spending
from syftlite.federated.training import Loss, MakeOptimizer, Trained
from syftlite.remote.pointer import PointerTensor
from syftlite.remote.transfer import read, upload
from syftlite.remote.worker import BaseWorker

EVENTS = "events"
"""By this name a checkpoint has the steps so far."""
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class _There(NamedTuple):
    """A client's model, at its worker, and its steps."""

    tensors: list[torch.Tensor]
    optimizer: DPOptimizer
    loss: Loss


class PrivateTraining:
    """``steps`` of DP-SGD in each round, on Poisson samples of ``batch_size`` expected rows (None: all rows each time).

    ``l2_norm_clip``, ``noise_multiplier``: as of `DPOptimizer`. ``model_fn``, ``loss``, ``optimizer``: as of `Federation`; an optimizer
    with a state keeps it at the client from round to round. ``delta``: where an owner's policy has no budget, its ``spent`` is what all
    steps so far have cost at this delta.
    """

    def __init__(
        self, model_fn: Callable[[], nn.Module], *, l2_norm_clip: float, noise_multiplier: float, batch_size: float | None = None,
        steps: int = 1, loss: Loss = nn.functional.cross_entropy,
        optimizer: MakeOptimizer = lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        delta: float | None = None,
    ) -> None:  # fmt: skip
        if not isinstance(steps, int) or steps < 1:
            raise ConfigurationError(f"steps is at least 1, not {steps!r}")
        self.model_fn, self.loss, self.optimizer, self.steps = model_fn, loss, optimizer, steps
        self.l2_norm_clip, self.noise_multiplier, self.batch_size = l2_norm_clip, noise_multiplier, batch_size
        if delta is not None and not 0 < delta < 1:
            raise ConfigurationError(f"delta lies between 0 and 1, not {delta}")
        self.delta = delta
        self.spending: Spending | None = None
        """Where steps are noted before they are done; the federation's, while it has a checkpoint."""
        self._events: dict[str, dict[Event, int]] = {}
        self._clients: dict[str, _There] = {}
        self._restored: dict[str, list[torch.Tensor]] = {}
        model = must_be_module(model_fn())
        self._private(model)  # what cannot work is refused here
        at_work = {name for name, layer in model.named_modules() if layer.training}
        batched = {name for name, layer in model.named_modules() if isinstance(layer, BATCH_NORMS)}
        if mixing := at_work & (batched | {*statistical(model)}):
            told = f"{', '.join(sorted(mixing))}: batch norm mixes examples, and statistics of the data would go without noise"
            raise ConfigurationError(f"{told}: use GroupNorm or LayerNorm")

    def _private(self, model: nn.Module) -> DPOptimizer:
        terms = {"l2_norm_clip": self.l2_norm_clip, "noise_multiplier": self.noise_multiplier}
        return DPOptimizer(must_be_optimizer(self.optimizer(model.parameters())), batch_size=self.batch_size, **terms)

    def state(self) -> dict[str, list[torch.Tensor]]:
        """What clients' optimizers keep, by client and name, for a checkpoint. Of a client that does not answer, nothing."""
        found: dict[str, list[torch.Tensor]] = {}
        for client, events in self.events().items():
            if rows := [[event.noise, event.rate, count] for event, count in events.items()]:
                found[f"{client}/{EVENTS}"] = [torch.tensor(rows, dtype=torch.float64)]
        for client, there in list(self._clients.items()):  # a straggler that fails goes meanwhile
            optimizer = there.optimizer.optimizer
            held = [optimizer.state.get(p, {}) for p in there.optimizer.parameters]
            names = [name for name, value in held[0].items() if isinstance(value, torch.Tensor)]
            columns = {f"{client}/{name}": [state[name] for state in held] for name in names}
            try:
                found |= {name: [_here(value) for value in column] for name, column in columns.items()}
            except SyftliteError:
                continue
        return found

    def restore(self, state: Mapping[str, list[torch.Tensor]]) -> None:
        """Go on from what `state` gave: each client's optimizer has it once its model is there."""
        self._restored = {whole: values for whole, values in state.items() if not whole.endswith(f"/{EVENTS}")}
        self.recall(steps_in(state))
        self._clients.clear()

    def events(self) -> dict[str, dict[Event, int]]:
        """The steps so far, by client."""
        return {client: dict(events) for client, events in list(self._events.items())}

    def recall(self, events: Mapping[str, Mapping[Event, int]]) -> None:
        """Count these steps at least: what was spent stays so, whatever the weights go back to."""
        for client, counts in events.items():
            held = self._events.setdefault(client, {})
            for event, count in counts.items():
                held[event] = max(count, held.get(event, 0))

    def _resumed(self, worker: BaseWorker, optimizer: DPOptimizer) -> None:
        for whole, values in self._restored.items():
            client, name = whole.rsplit("/", 1)
            if client == worker.id:
                for parameter, value in zip(optimizer.parameters, values, strict=True):
                    optimizer.optimizer.state[parameter][name] = value if value.dim() == 0 else upload(value, worker)

    def record(self, worker: BaseWorker, data: torch.Tensor, target: torch.Tensor) -> None:
        """Send a model there."""
        if worker.id not in self._clients:
            model = self.model_fn().send(worker)  # type: ignore[operator]
            tensors = [*model.parameters(), *model.buffers()]
            optimizer = self._private(model)
            optimizer.events = self._events.setdefault(worker.id, {})
            self._resumed(worker, optimizer)
            self._clients[worker.id] = _There(tensors, optimizer, lambda x, y: self.loss(model(x), y))

    def start(
        self, worker: BaseWorker, data: torch.Tensor, target: torch.Tensor, values: Sequence[torch.Tensor], generator: torch.Generator
    ) -> Trained:
        """Have ``worker`` do its steps on ``data`` and ``target`` (pointers), from ``values``. The owner samples, by its own coins."""
        try:
            return self._trained(worker, data, target, values)
        except Exception:
            self._clients.pop(worker.id, None)  # what is there may be gone with it: `record` sends it anew
            raise

    def _trained(self, worker: BaseWorker, data: torch.Tensor, target: torch.Tensor, values: Sequence[torch.Tensor]) -> Trained:
        there = self._clients[worker.id]
        with torch.no_grad():
            for tensor, value in zip(there.tensors, values, strict=True):
                tensor.copy_(upload(value, worker))
        if self.spending is not None:
            event = gaussian(self.noise_multiplier, there.optimizer.rate(len(data)))
            self.spending.note(worker.id, event, there.optimizer.events.get(event, 0) + self.steps)
        for _ in range(self.steps):
            there.optimizer.step(there.loss, data, target)
        kept = [PointerTensor(tensor.detach().clone()._handle) for tensor in there.tensors]  # type: ignore[attr-defined]
        spent = max((standing.spent for standing in budget(data)), default=None)
        if spent is None and self.delta is not None:
            spent = there.optimizer.epsilon(self.delta)
        return Trained(kept, None, len(data), spent)

    def __repr__(self) -> str:
        terms = f"clip {self.l2_norm_clip:g}, noise {self.noise_multiplier:g}, batches of {self.batch_size or 'all rows'}"
        return f"<PrivateTraining, {self.steps} steps a round: {terms}>"


def steps_in(state: Mapping[str, list[torch.Tensor]]) -> dict[str, dict[Event, int]]:
    """The steps so far, by client, in what `PrivateTraining.state` gave."""
    counted = {whole.rsplit("/", 1)[0]: tensors[0].tolist() for whole, tensors in state.items() if whole.endswith(f"/{EVENTS}")}
    return {client: {gaussian(noise, rate): int(count) for noise, rate, count in rows} for client, rows in counted.items()}


def _here(value: torch.Tensor) -> torch.Tensor:
    return read([value], take=False)[0] if isinstance(value, PointerTensor) else value
