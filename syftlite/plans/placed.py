"""What a plan has at workers: its programs, copies of its state, the tensors that it sends, and what other sessions find it by."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch

from syftlite.errors import TensorsNotCollocatedError
from syftlite.plans.settings import Very, written
from syftlite.remote.handle import Handle
from syftlite.remote.pointer import PointerTensor
from syftlite.remote.recording import Program
from syftlite.remote.routes import Route, store
from syftlite.remote.transfer import upload
from syftlite.remote.worker import BaseWorker

Key = tuple[Any, ...]
"""Of a program: the form of its inputs and of the state, and the state's settings."""


class Placed:
    """Of one plan. What is here lives at its worker as long as it is here."""

    def __init__(self) -> None:
        self.programs: dict[tuple[BaseWorker, Key], Handle] = {}
        self.copies: dict[BaseWorker, list[PointerTensor]] = {}
        self._copied: dict[BaseWorker, list[tuple[Very, int]]] = {}
        """Of which tensors, and how often each had been written to."""
        self.constants: dict[tuple[BaseWorker, Key], list[PointerTensor]] = {}
        self.offers: dict[BaseWorker, Handle] = {}
        self.routes: dict[tuple[Any, ...], Route] = {}
        """By the workers and specs of plain arguments: how a call without state goes at once."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Placed:
        """That of a copied plan, of whose state workers have copies of their own."""
        twin = Placed()
        for worker, copied in self._copied.items():
            if all(written(very.it) == times for very, times in copied):  # type: ignore[arg-type]
                state: list[Any] = copy.deepcopy([very.it for very, _ in copied], memo)
                twin._copied[worker] = [(Very(t), written(t)) for t in state]
                twin.copies[worker] = copy.deepcopy(self.copies[worker], memo)
        return twin

    @property
    def workers(self) -> set[BaseWorker]:
        """Those that have a program of it."""
        return {worker for worker, _ in list(self.programs)}

    def program(self, worker: BaseWorker, key: Key, program: Program) -> Handle:
        """``program`` at ``worker``, put there now if it was not."""
        stored = self.programs.get((worker, key))
        if stored is None:
            stored = self.programs[(worker, key)] = store(program, worker)
        return stored

    def route(self, worker: BaseWorker, key: Key, program: Program) -> Route:
        """How ``program`` is run at ``worker``."""
        stored = self.program(worker, key, program)
        if (worker, key) not in self.constants:
            self.constants[(worker, key)] = [PointerTensor(upload(c, worker)._handle) for c in program.constants]
        return Route(worker, stored, program, self.constants[(worker, key)])

    def forget(self, key: Key) -> None:
        """Let go of the programs of that key."""
        for worker in list(self.workers):
            self.programs.pop((worker, key), None)
            self.constants.pop((worker, key), None)

    def state(self, worker: BaseWorker, tensors: Sequence[torch.Tensor], name: str) -> list[PointerTensor]:
        """``tensors``, the state of the plan ``name``, at ``worker``: themselves if they are there, copies if they are here."""
        remote = [t for t in tensors if isinstance(t, PointerTensor)]
        elsewhere = [t for t in remote if t.location is not worker]
        if len(remote) == len(tensors) and not elsewhere:
            return remote
        if elsewhere:
            there = elsewhere[0].location.id
            raise TensorsNotCollocatedError(f"{name}'s state is at {there}, its inputs at {worker.id}: move() one of them")
        if remote:
            here = next(t for t in tensors if not isinstance(t, PointerTensor))
            told = f"{name}'s state is at {worker.id} but for a tensor of shape {list(here.shape)}, which is here"
            raise TensorsNotCollocatedError(f"{told}: send() that to {worker.id}, too")
        standing = [(Very(t), written(t)) for t in tensors]
        if self._copied.get(worker) != standing:
            self.copies[worker] = [PointerTensor(upload(t, worker)._handle) for t in tensors]
            self._copied[worker] = standing
        return self.copies[worker]

    def forget_copies(self) -> None:
        """Let go of all copies of the state."""
        self.copies.clear()
        self._copied.clear()
        self.offers.clear()
