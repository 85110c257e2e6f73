"""The clients' mean by shares: each shares how far it moved, by its part of the rows, among aggregators, who add; only the sum is
reconstructed.

Whoever fails, or takes longer than the deadline (s), is named: a client is left out, an aggregator ends the round.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import torch

from syftlite.errors import AggregationError, GetNotPermittedError
from syftlite.federated.crew import Crew
from syftlite.federated.strategies import Values
from syftlite.federated.work import Part
from syftlite.remote import registry
from syftlite.remote.worker import BaseWorker

T = TypeVar("T")
PRECISION = 24
"""Bits of a share's fraction."""
FURTHEST = 2.0 ** (62 - PRECISION)
"""That a value may move: their mean still fits the ring."""


class SharedMean:
    """Among ``aggregators``, who need a ``crypto_provider``."""

    def __init__(self, aggregators: Sequence[Any], crypto_provider: Any, crew: Crew, deadline: float) -> None:
        self.aggregators, self.crypto_provider, self.crew, self.deadline = aggregators, crypto_provider, crew, deadline

    def of(self, parts: Mapping[str, Part], dropped: dict[str, str]) -> tuple[dict[str, Part], Values]:
        """(who is in the sum, their mean); whoever fails is in ``dropped``. Raises `AggregationError` when fewer than two are left, since a
        sum of one is that one's, or when an aggregator fails."""
        total = sum(part.rows for part in parts.values())
        added: dict[str, Part] = {}
        summed: Any = None
        for name, part in parts.items():
            try:
                shared = self._within(self._shared, part, part.rows / total)
            except Exception as error:
                self._must_answer()
                dropped[name] = f"{type(error).__name__}: {error}"
                continue
            summed = shared if summed is None else self._by_aggregators(partial(operator.add, summed, shared))
            added[name] = part
        if len(added) < 2:
            told = "; ".join(f"{name}: {why}" for name, why in dropped.items())
            raise AggregationError(f"{len(added)} clients shared, and a sum has two at least: of one it would be that one's own. {told}")
        mean = self._by_aggregators(lambda: summed.get().float_precision().double())
        mean *= total / sum(part.rows for part in added.values())
        first = next(iter(parts.values()))
        shapes = [value.shape for value in (*first.weights, *first.statistics)]
        return added, [piece.view(shape) for piece, shape in zip(mean.split([s.numel() for s in shapes]), shapes, strict=True)]

    def _shared(self, part: Part, factor: float) -> Any:
        flat = torch.cat([value.reshape(-1).float() for value in (*part.weights, *part.statistics)])
        try:
            sound = bool((flat.abs() < FURTHEST).all().get())  # type: ignore[attr-defined]
        except GetNotPermittedError:
            sound = True
        if not sound:
            told = f"its weights have NaN, or have moved by {FURTHEST:.2g} or more, which shares cannot hold"
            raise AggregationError(f"{told}: train with a lower learning rate, or look at its rows")
        fixed: Any = (flat * factor).fix_precision(precision_fractional=PRECISION)  # type: ignore[attr-defined]
        return fixed.share(*self.aggregators, crypto_provider=self.crypto_provider).get()

    def _within(self, call: Callable[..., T], *given: Any) -> T:
        future = self.crew.submit(call, *given)
        if not self.crew.wait([future], self.deadline):
            future.cancel()
            raise AggregationError(f"not done within {self.deadline:g} s")
        result: T = future.result()
        return result

    def _by_aggregators(self, call: Callable[[], T]) -> T:
        try:
            return self._within(call)
        except Exception as error:
            self._must_answer()
            raise AggregationError(f"the aggregators did not add the shares: {type(error).__name__}: {error}") from error

    def _must_answer(self) -> None:
        """Raises `AggregationError` with the names of those aggregators that fail, or do not answer."""
        others = [] if self.crypto_provider is None else [self.crypto_provider]
        failed = {}
        for worker in map(registry.find, [*self.aggregators, *others]):
            try:
                self._within(_answers, worker)
            except Exception as error:
                failed[worker.id] = f"{type(error).__name__}: {error}"
        if failed:
            told = "; ".join(f"{name}: {why}" for name, why in failed.items())
            raise AggregationError(f"of the workers that add shares, {told}")


def _answers(worker: BaseWorker) -> None:
    torch.zeros(1).send(worker).get()  # type: ignore[attr-defined]
