"""Training where the data is: a client's whole part of a round, some epochs over its rows, in one message.

    model_fn, loss, optimizer  --recorded once for each shape of data-->  a plan: one step on some rows
    LocalTraining.start(...)   --one frame-->  weights there, a scan over the batches' rows, new weights and losses there

Nothing waits between batches, and nothing comes back until it is read. With FedProx (Li et al. 2020, eq. 2) a step adds
(mu / 2) |w - w_round|^2 to the loss.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import nn

from syftlite.errors import ConfigurationError
from syftlite.federated.checks import must_be_loss, must_be_module, must_be_optimizer
from syftlite.federated.schedule import MakeScheduler, Schedule
from syftlite.plans import Plan
from syftlite.remote.optimizers import prime
from syftlite.remote.pointer import PointerTensor
from syftlite.remote.recording import settle
from syftlite.remote.transfer import upload
from syftlite.remote.worker import BaseWorker

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
MakeOptimizer = Callable[[Any], torch.optim.Optimizer]


class Trained(NamedTuple):
    """What a client has, at its worker: its weights and buffers after training, in the model's order, and its losses, (steps,), None if
    they are nobody's to see. ``spent``: what its owner's account has spent of epsilon by then, if training is charged to one."""

    values: list[PointerTensor]
    losses: PointerTensor | None
    rows: int
    spent: float | None = None


class Training(Protocol):
    """What clients do in a round. Called from several threads at once, for different workers. One that keeps something at clients from
    round to round also has ``state()``, tensors by name, and ``restore(state)``: they go into a checkpoint. One that counts what it spends
    has ``spending`` and ``recall`` as `PrivateTraining` does, so that a crash loses none of it. One that changes with rounds has
    ``follow(losses)``, called before each with the losses of those that were, which returns whether to record anew."""

    def record(self, worker: BaseWorker, data: torch.Tensor, target: torch.Tensor) -> None:
        """Prepare, in one thread, for data of this form."""

    def start(
        self, worker: BaseWorker, data: torch.Tensor, target: torch.Tensor, values: Sequence[torch.Tensor], generator: torch.Generator
    ) -> Trained:
        """Have ``worker`` train on its ``data`` and ``target`` (pointers), from the weights and buffers ``values``, which stay as they
        are."""


class LocalTraining:
    """``epochs`` over a client's rows in batches of at most ``batch_size``, with a fresh optimizer each round.

    ``model_fn()`` makes the model; ``loss(output, target)`` gives a number tensor; ``optimizer(parameters)`` makes the optimizer: one that
    a plan records (SGD with or without momentum, Adam, AdamW, RMSprop, Adadelta, Rprop); others are refused. Parameters that it does not
    have stay as they are. Batches of an epoch are as equal as can be: with n rows in k batches, n mod k rows, others in each epoch, are
    left out. ``scheduler(optimizer)`` makes one of `torch.optim.lr_scheduler`'s, which takes a step after each round: learning rates are
    those of the round in which a client begins.
    """

    def __init__(
        self, model_fn: Callable[[], nn.Module], loss: Loss, optimizer: MakeOptimizer, *, epochs: int = 1, batch_size: int = 32,
        proximal: float = 0.0, scheduler: MakeScheduler | None = None,
    ) -> None:  # fmt: skip
        counts = isinstance(epochs, int) and isinstance(batch_size, int) and epochs >= 1 and batch_size >= 1
        if not counts or not proximal >= 0:
            told = "epochs and batch_size are whole numbers, at least 1, proximal at least 0"
            raise ConfigurationError(f"{told}: got {epochs}, {batch_size}, {proximal}")
        self.model = must_be_module(model_fn())
        self.epochs, self.batch_size, self.proximal, self.loss = epochs, batch_size, proximal, loss
        self._optimizer = must_be_optimizer(optimizer(self.model.parameters()))
        had = {id(p) for group in self._optimizer.param_groups for p in group["params"]}
        self.stepped = [id(p) in had for p in self.model.parameters()]
        """Of the model's parameters, which ones the optimizer has: the others stay as they are, and need no gradients."""
        needed = [p for p in self.model.parameters() if id(p) in had and p.requires_grad]
        if not needed:
            raise ConfigurationError("the optimizer has none of the model's trained parameters: make it of those that it is given")
        self._needed = None if all(self.stepped) else needed
        self._failures: dict[Any, Exception] = {}
        self._must_record()
        self.plan = Plan(self._step, "local training", state=(self.model, self._optimizer))
        self._schedule = None if scheduler is None else Schedule(self._optimizer, scheduler)
        self._fresh = [t.detach().clone() for t in self.plan.state]
        """As clients' states begin, but for the round's weights and buffers."""
        self._recording = threading.Lock()

    @property
    def tensors(self) -> list[torch.Tensor]:
        """The model's parameters and buffers: what travels."""
        return [*self.model.parameters(), *self.model.buffers()]

    @torch.enable_grad()
    def _must_record(self) -> None:
        """Raises `ConfigurationError` for an optimizer whose step is no plan: one that looks at values as it goes."""
        try:
            prime(self._optimizer)
            settle([self._optimizer], None)
            Plan(self._alone, "a step", state=(self.model, self._optimizer)).build(torch.empty((), device="meta"))
        except (RuntimeError, TypeError) as error:
            name = type(self._optimizer).__name__
            others = "SGD, Adam, AdamW, RMSprop, Adadelta and Rprop"
            raise ConfigurationError(f"{name} cannot be recorded as clients' training; {others} can: {error}") from error

    def _alone(self, factor: torch.Tensor) -> torch.Tensor:
        """A step of the optimizer, without the model."""
        self._optimizer.zero_grad()
        loss: Any = sum((p.sum() for p in self.model.parameters() if p.requires_grad), factor)
        loss.backward(inputs=self._needed)
        self._optimizer.step()
        told: torch.Tensor = loss.detach()
        return told

    def _step(self, rows: torch.Tensor, data: torch.Tensor, target: torch.Tensor, *anchors: torch.Tensor) -> torch.Tensor:
        self._optimizer.zero_grad()
        loss = plain = must_be_loss(self.loss(self.model(data[rows]), target[rows]))
        for parameter, anchor in zip(self.model.parameters(), anchors, strict=False):
            loss = loss + self.proximal / 2 * (parameter - anchor).pow(2).sum()
        loss.backward(inputs=self._needed)
        self._optimizer.step()
        return plain.detach()

    def batches(self, rows: int, generator: torch.Generator) -> torch.Tensor:
        """(steps, batch) int64: which rows each step learns from, every epoch in an order of its own."""
        count = -(-rows // self.batch_size)
        size = rows // count
        orders = [torch.randperm(rows, generator=generator)[: count * size].view(count, size) for _ in range(self.epochs)]
        return torch.cat(orders)

    def start(
        self, worker: BaseWorker, data: torch.Tensor, target: torch.Tensor, values: Sequence[torch.Tensor], generator: torch.Generator
    ) -> Trained:
        """Have ``worker`` train on its ``data`` and ``target`` (pointers), from the weights and buffers ``values``. Waits for nothing."""
        fresh = [*values, *self._fresh[len(values) :]]
        state = [PointerTensor(upload(value.to(was.dtype), worker)._handle) for value, was in zip(fresh, self._fresh, strict=True)]
        parameters = len(list(self.model.parameters()))
        anchors = [pointer.clone() for pointer in state[:parameters]] if self.proximal else []
        rows = worker.send(self.batches(len(data), generator))
        with self._recording:
            route, operands = self.plan.over_rows((rows, data, target, *anchors), 1, state)
        losses = route.scan(operands, 1, len(rows))
        return Trained(state[: len(values)], losses, len(data))

    def __repr__(self) -> str:
        return f"<LocalTraining of {self.epochs} epochs in batches of {self.batch_size}>"

    def follow(self, losses: Sequence[float | None]) -> bool:
        """Bring learning rates to where they are after rounds with these ``losses``. Returns whether there is anything to record anew."""
        if self._schedule is not None:
            with self._recording:
                self._schedule.follow(losses)
        return self._schedule is not None

    def record(self, worker: BaseWorker, data: torch.Tensor, target: torch.Tensor) -> None:
        """Record a step for data of this form, so that threads need not. What fails, fails alike later, without being tried: nothing is to
        be recorded while threads are at work."""
        form = (data.shape, data.dtype, target.shape, target.dtype)
        if form in self._failures:
            raise self._failures[form]
        try:
            with self._recording:
                self._record(data, target)
        except Exception as error:
            self._failures[form] = error
            raise

    def _record(self, data: torch.Tensor, target: torch.Tensor) -> None:
        count = -(-len(data) // self.batch_size)
        rows = torch.empty(len(data) // count, dtype=torch.int64, device="meta")
        anchors = list(self.model.parameters()) if self.proximal else []
        self.plan.build(rows, data, target, *[anchor.detach() for anchor in anchors])
