"""Learning rates over rounds: torch's schedulers, stepped once after each round."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch

from syftlite.errors import ConfigurationError

MakeScheduler = Callable[[torch.optim.Optimizer], Any]


class Schedule:
    """``make(optimizer)`` gives one of `torch.optim.lr_scheduler`'s, `ReduceLROnPlateau` among them: that one looks at rounds' losses."""

    def __init__(self, optimizer: torch.optim.Optimizer, make: MakeScheduler) -> None:
        self._optimizer, self._make = optimizer, make
        self._begun = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
        self._rounds = 0
        try:
            self._scheduler = make(optimizer)
        except TypeError as error:
            such = "lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 10)"
            raise ConfigurationError(f"scheduler is a function of the optimizer alone, such as {such}: {error}") from error
        if not callable(getattr(self._scheduler, "step", None)):
            raise ConfigurationError(
                f"scheduler is a function of the optimizer that makes a torch.optim.lr_scheduler, and it made {self._scheduler!r}"
            )

    def follow(self, losses: Sequence[float | None]) -> None:
        """Bring the optimizer's settings to where they are after rounds with these ``losses``; from the start, if they are fewer than
        before."""
        if len(losses) < self._rounds:
            for group, begun in zip(self._optimizer.param_groups, self._begun, strict=True):
                for name in group.keys() - begun.keys() - {"params"}:
                    del group[name]
                group.update(begun)
            self._rounds, self._scheduler = 0, self._make(self._optimizer)
        for loss in losses[self._rounds :]:
            self._step(loss)
            self._rounds += 1

    def _step(self, loss: float | None) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that no optimizer has stepped: clients' have
            if not isinstance(self._scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
                self._scheduler.step()
            elif loss is None:
                raise ConfigurationError("ReduceLROnPlateau looks at rounds' losses, and these are nobody's to see: take another scheduler")
            else:
                self._scheduler.step(loss)
