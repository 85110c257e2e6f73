"""Rounds: who takes part, and what the model is after it.

    Together    everybody who is sampled and done by the deadline
    Buffered    the k first that finish, however old the weights that they began with (FedBuff, Nguyen et al. 2022)
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch

from syftlite.errors import AggregationError
from syftlite.federated.clients import Client
from syftlite.federated.crew import Crew
from syftlite.federated.layout import Layout, picked
from syftlite.federated.means import RunningMean
from syftlite.federated.secure import averaged
from syftlite.federated.shares import SharedMean
from syftlite.federated.strategies import Strategy, Update, Values, weighted_mean
from syftlite.federated.work import Part, Work

if TYPE_CHECKING:
    from syftlite.federated.federation import Federation


class Outcome(NamedTuple):
    """Of a round. ``clients``: those in the aggregate, with their losses. ``clipped``: the share of a client's values that were."""

    clients: dict[str, float | None]
    dropped: dict[str, str]
    loss: float | None
    clipped: dict[str, float]


class Round(Protocol):
    """One kind of round."""

    def run(self, crew: Crew) -> Outcome:
        """Do one, to the federation's model. Raises `AggregationError`; the model stays as it was then."""


class Together:
    """Clients that begin and end a round together."""

    def __init__(self, federation: Federation, work: Work) -> None:
        self.federation, self.work = federation, work

    def run(self, crew: Crew) -> Outcome:
        """See `Round`."""
        federation, work = self.federation, self.work
        dropped: dict[str, str] = {}
        linear = not federation.hidden and federation.strategy.linear
        running = RunningMean() if linear else None
        values = federation.layout.snapshot()
        futures = {client[0].id: work.submit(crew, client, values, running) for client in work.sample(crew, dropped)}
        crew.wait(futures.values(), federation.deadline)
        if running is not None:
            running.close()
            crew.wait([futures[name] for name in running.rows], math.inf)
        parts = dict(work.done(futures, dropped))
        work.quorum(parts, dropped, federation.needed)
        clipped: dict[str, float] = {}
        if running is not None:
            self._stepped(values, running.values(), _first(federation.layout, values, parts))
        elif not federation.hidden:
            _robust(federation, values, [Update(name, [*p.weights, *p.statistics], p.rows) for name, p in parts.items()])
        elif federation.aggregation == "shares":
            adding = SharedMean(federation.aggregators, federation.crypto_provider, crew, federation.deadline)
            parts, mean = adding.of(parts, dropped)
            self._advanced(values, mean)
        else:
            parts, clipped = self._secure(values, parts, dropped)
        return _outcome(parts, dropped, clipped)

    def _stepped(self, values: Values, mean: Values, counts: Values) -> None:
        """The strategy's step to the ``mean`` of weights; statistics by how far they moved in the mean."""
        layout = self.federation.layout
        current = [value.double() for value in picked(values, layout.weights)]
        few = len(current)
        statistics = [w.double() + d for w, d in zip(picked(values, layout.statistics), mean[few:], strict=False)]
        strategy = self.federation.strategy
        layout.write(_listed(strategy, strategy.step(current, mean[:few])), statistics, counts, strategy)

    def _advanced(self, values: Values, moved: Values) -> None:
        """The same, from how far everything has ``moved`` in the mean."""
        weights = picked(values, self.federation.layout.weights)
        mean = [d.add_(w) for w, d in zip(weights, moved, strict=False)]
        self._stepped(values, [*mean, *moved[len(weights) :]], [])

    def _secure(self, values: Values, parts: Mapping[str, Part], dropped: dict[str, str]) -> tuple[dict[str, Part], dict[str, float]]:
        federation = self.federation
        data = {worker.id: data for worker, data, _ in federation.clients}
        vectors = {name: [*part.weights, *part.statistics] for name, part in parts.items()}
        weights = None if federation.noised else {name: data[name] for name in vectors}
        result = averaged(vectors, weights, **{"deadline": federation.deadline, **federation.secure})
        dropped.update({name: why for name, why in result.dropped.items() if name not in result.clients})
        self._advanced(values, result.values)
        return {name: parts[name] for name in result.clients}, {name: share for name, share in result.clipped.items() if share}


class Buffered:
    """w <- w + sum_k s_k d_k / sum_k s_k, with s = rows / sqrt(1 + how many rounds its start is ago); a robust strategy is given w + d_k of
    each. Who is at work stays so from one round, and one call of `fit`, to the next: a fraction of the clients at a time."""

    def __init__(self, federation: Federation, work: Work) -> None:
        self.federation, self.work = federation, work
        self._number = 0
        self._begun: dict[str, tuple[int, Values]] = {}

    def run(self, crew: Crew) -> Outcome:
        """See `Round`."""
        federation, layout, size = self.federation, self.federation.layout, self.federation.buffer
        assert size is not None
        dropped: dict[str, str] = {}
        values = layout.snapshot()
        parts = self._gathered(crew, size, values, dropped)
        self.work.quorum(parts, dropped, max(min(federation.minimum, size), federation.strategy.least))
        deltas, factors = [], []
        for name, part in parts.items():
            number, base = self._begun[name]
            moved = [now.double() - was for now, was in zip(part.weights, picked(base, layout.weights), strict=True)]
            # statistics as they are, beside those of now: then a variance is never negative
            moved += [now.double() - was for now, was in zip(part.statistics, picked(values, layout.statistics), strict=True)]
            deltas.append(Update(name, moved, part.rows))
            factors.append(part.rows / math.sqrt(1 + self._number - number))
        if federation.strategy.linear:
            self._stepped(values, weighted_mean(deltas, factors), _first(layout, values, parts))
        else:
            now = [value.double() for value in picked(values, layout.weights + layout.statistics)]
            _robust(federation, values, [d._replace(values=[w + m for w, m in zip(now, d.values, strict=True)]) for d in deltas])
        self._number += 1
        return _outcome(parts, dropped, {})

    def _stepped(self, values: Values, moved: Values, counts: Values) -> None:
        layout, strategy = self.federation.layout, self.federation.strategy
        current = [value.double() for value in picked(values, layout.weights)]
        weights = _listed(strategy, strategy.step(current, [w + d for w, d in zip(current, moved, strict=False)]))
        statistics = [w.double() + d for w, d in zip(picked(values, layout.statistics), moved[len(current) :], strict=True)]
        layout.write(weights, statistics, counts, strategy)

    def _gathered(self, crew: Crew, size: int, values: Values, dropped: dict[str, str]) -> dict[str, Part]:
        """The first ``size`` that finish; whoever is free begins anew, from ``values``."""
        work, parts = self.work, dict[str, Part]()
        until = time.monotonic() + self.federation.deadline
        while len(parts) < size:
            free = [c for c in self.federation.clients if not {c[0].id} & (parts.keys() | work.busy.keys() | dropped.keys())]
            chosen = self._chosen(free)
            for client in work.able(chosen, dropped):
                self._begun[client[0].id] = self._number, values
                work.submit(crew, client, values, None)
            if not work.busy and len(chosen) < len(free):
                continue
            if not work.busy:
                break
            finished = crew.wait(work.busy.values(), until - time.monotonic(), FIRST_COMPLETED)
            if not finished and time.monotonic() > until:
                dropped.update(dict.fromkeys(work.busy, f"not done within {self.federation.deadline:g} s"))
                break
            for name, part in work.done({n: f for n, f in work.busy.items() if f in finished}, dropped):
                parts[name] = part
                if len(parts) == size:
                    break  # whoever else is done is first in the next one
        return parts

    def _chosen(self, free: Sequence[Client]) -> list[Client]:
        """As many of those who are ``free`` as make up the fraction that is at work at a time."""
        room = max(0, self.federation.sampled - len(self.work.busy))
        if room >= len(free):
            return list(free)
        return [free[at] for at in sorted(torch.randperm(len(free), generator=self.federation.random)[:room].tolist())]


def _robust(federation: Federation, values: Values, updates: Sequence[Update]) -> None:
    """A strategy that looks at all of each client: its weights, then its statistics, which may lie like any other value."""
    layout, strategy = federation.layout, federation.strategy
    current = [value.double() for value in picked(values, layout.weights + layout.statistics)]
    made = _listed(strategy, strategy.aggregate(current, updates))
    layout.write(made[: len(layout.weights)], made[len(layout.weights) :], [], strategy)


def _listed(strategy: Strategy, made: Any) -> Values:
    """What ``strategy`` made of weights, if it is a list of something."""
    if not isinstance(made, Iterable):
        raise AggregationError(f"{strategy!r} gave {type(made).__name__}, not a list of tensors. The model stays as it was")
    return list(made)


def _first(layout: Layout, values: Values, parts: Mapping[str, Part]) -> Values:
    """Counts, of the first client, as `federated_avg` takes them."""
    changed = next(iter(parts.values())).counts
    return [changed.get(number, values[at]) for number, at in enumerate(layout.counts)]


def _outcome(parts: Mapping[str, Part], dropped: dict[str, str], clipped: dict[str, float]) -> Outcome:
    known = [(part.loss, part.rows) for part in parts.values() if part.loss is not None]
    loss = sum(loss * rows for loss, rows in known) / sum(rows for _, rows in known) if known else None
    return Outcome({name: part.loss for name, part in parts.items()}, dropped, loss, clipped)
