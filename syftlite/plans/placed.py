"""What a plan has at workers: its programs, copies of its state, the tensors that it sends, and what other sessions find it by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from syftlite.errors import TensorsNotCollocatedError
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
        self.constants: dict[tuple[BaseWorker, Key], list[PointerTensor]] = {}
        self.offers: dict[BaseWorker, Handle] = {}
        self.routes: dict[tuple[Any, ...], Route] = {}
        """By the workers and specs of plain arguments: how a call without state goes at once."""

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
        if len(remote) == len(tensors) and all(t.location is worker for t in remote):
            return remote
        if remote:
            there = remote[0].location.id
            raise TensorsNotCollocatedError(f"{name}'s state is at {there}, its inputs at {worker.id}: move() one of them")
        if worker not in self.copies:
            self.copies[worker] = [PointerTensor(upload(t, worker)._handle) for t in tensors]
        return self.copies[worker]
