"""Secure aggregation over workers: the sum of their vectors, of at least `minimum` of them, and nothing of any single one.

    secure_average({bob: model_at_bob, alice: ..., charlie: ...})  ->  Aggregate(values, clients, dropped, clipped)

This process is the server of `secagg/`: it passes sealed messages on, and sees masked vectors and their sum. A worker that fails, is late
or answers what is no answer at any stage is left out, with its reason; what it had sent is unmasked by the others. Too few left raises
`AggregationError`.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import torch
from torch import nn

from syftlite.errors import AggregationError, ConfigurationError, ProtocolError
from syftlite.federated.checks import HIDDEN, must_be_numbers
from syftlite.federated.crew import Crew
from syftlite.remote import registry
from syftlite.remote.pointer import PointerTensor
from syftlite.remote.transfer import upload
from syftlite.remote.worker import BaseWorker
from syftlite.secagg import Server, Terms, packing
from syftlite.wire.messages import AGGREGATE

T = TypeVar("T")
Reader = Callable[[int, list[torch.Tensor]], T]
"""What the answer of whoever is at a place means."""
IDENTITY, ADVERTISE, SHARE, MASK, CONFIRM, UNMASK = range(6)
_rounds = itertools.count(1)
log = logging.getLogger("syftlite.federated")


class Aggregate(NamedTuple):
    """What a round gave. ``values``: the sum or mean, a float64 tensor for each of a client's tensors, in their shapes; ``weight``: the sum
    of weights, None for a sum. By worker's name: ``clients`` in it, the ``dropped`` with their reasons, the share of values ``clipped``.
    ``noise``: the standard deviation of each value's noise, 0 without; then nothing is told of what was clipped."""

    values: list[torch.Tensor]
    weight: float | None
    clients: tuple[str, ...]
    dropped: dict[str, str]
    clipped: dict[str, float]
    noise: float = 0.0


Vectors = Mapping[Any, "Sequence[torch.Tensor] | nn.Module | torch.Tensor"]


def secure_sum(vectors: Vectors, **options: Any) -> Aggregate:
    """The sum of ``vectors``, each at its worker: pointers, or a module that is there. ``options``: see `secure_average`."""
    return _warned(_Round(vectors, None, **options).run())


def secure_average(vectors: Vectors, weights: Mapping[Any, torch.Tensor] | None = None, **options: Any) -> Aggregate:
    """The mean of ``vectors``, each at its worker, weighted by the number of rows of the tensors ``weights`` that are there: each worker
    counts its own, and nobody sees it. Without, all weigh the same.

    ``clip``: the largest absolute value that passes (8.0); ``fraction_bits`` (16): results are right to n / 2 of 2^-16; ``max_weight``: the
    most rows (2^20); ``minimum``: of clients in a sum (two thirds, at least 2); ``threshold``: shares that unmask (two thirds);
    ``deadline`` (s): for each stage (60). Raises `AggregationError` when too few are left: nothing was learned then.

    ``noise_multiplier``: the sum is differentially private. ``clip`` is the norm that each client's vector is shrunk to, and the clients
    together add noise of this many clips before anybody sees anything (secagg/noise.py). Without weights only.
    """
    return _warned(averaged(vectors, weights, **options))


def averaged(vectors: Vectors, weights: Mapping[Any, torch.Tensor] | None = None, **options: Any) -> Aggregate:
    """See `secure_average`. Whoever calls it tells of what was clipped."""
    if weights is not None:
        if options.get("noise_multiplier"):
            raise ConfigurationError("noise bounds what a client adds, and a weight would multiply that: average without weights")
        return _Round(vectors, weights, **{"max_weight": 2.0**20, **options}).run()
    total = _Round(vectors, None, **options).run()
    clients = len(total.clients)
    return total._replace(values=[value / clients for value in total.values], noise=total.noise / clients)


def _warned(made: Aggregate) -> Aggregate:
    """Warns of what was cut: the sum is of what was left."""
    cut = {name: share for name, share in made.clipped.items() if share}
    if cut:
        told = ", ".join(f"{name} ({share:.2g})" for name, share in cut.items())
        log.warning("values larger than clip were cut to it, of %s: a larger clip= lets them pass", told)
    return made


class _Round:
    """One round, stage by stage."""

    def __init__(
        self, vectors: Vectors, weights: Mapping[Any, torch.Tensor] | None, *, deadline: float = 60.0, **options: Any
    ) -> None:
        if unknown := options.keys() - set(HIDDEN):
            raise ConfigurationError(f"a secure sum has no option {', '.join(sorted(unknown))}: it has {', '.join(HIDDEN)}")
        must_be_numbers({"deadline": deadline, **options})
        if not isinstance(vectors, Mapping):
            raise ConfigurationError(f"a secure sum is of {{worker: what is there}}, not of {type(vectors).__name__}")
        self.workers = [registry.find(worker) for worker in vectors]
        self.vectors = [_tensors(vector) for vector in vectors.values()]
        shapes = {tuple((t.shape, t.dtype) for t in vector) for vector in self.vectors}
        if len(self.workers) < 2 or len(shapes) != 1:
            raise ConfigurationError(f"a sum needs two workers or more, with tensors of the same shapes: got {len(self.workers)} workers")
        if any(t.is_complex() for t in self.vectors[0]):
            raise ConfigurationError("a sum is of real numbers: give the real and the imaginary part, torch.view_as_real(x)")
        for worker, vector in zip(self.workers, self.vectors, strict=True):
            if not all(isinstance(t, PointerTensor) and t.location is worker for t in vector):
                raise ConfigurationError(f"what {worker.id} adds is to be there: send() it")
        self.weights = None if weights is None else _weights(weights, vectors, self.workers)
        self.number, self.deadline, self.options = next(_rounds), deadline, options
        self.dropped: dict[str, str] = {}

    def run(self) -> Aggregate:
        """All stages. Raises `AggregationError`."""
        self.crew = Crew(len(self.workers), len(self.workers))
        try:
            return self._run()
        except (AggregationError, ConfigurationError) as error:
            told = "; ".join(f"{name}: {why}" for name, why in self.dropped.items())
            raise AggregationError(f"{error}. {told}") if told else error from None
        finally:
            self.crew.leave()  # whoever does not answer is waited for no longer

    def _run(self) -> Aggregate:
        everybody = {at: at for at in range(len(self.workers))}
        keys = self._read(_one(packing.public), self._stage(IDENTITY, dict.fromkeys(everybody)), everybody)
        present = sorted(keys)
        members = {self.workers[at].id: keys[at] for at in present}
        if len(members) < 2:
            raise AggregationError("fewer than two workers answer")
        values = sum(t.numel() for t in self.vectors[0])
        terms = Terms.of(os.urandom(16), members, values, **self.options)
        place = dict(enumerate(present))  # a client's place in the terms -> its worker here
        return self._stages(Server(terms), terms, place)

    def _stages(self, server: Server, terms: Terms, at: dict[int, int]) -> Aggregate:
        def stage(number: int, payloads: Mapping[int, bytes]) -> dict[int, list[torch.Tensor]]:
            answers = self._stage(number, {at[u]: payload for u, payload in payloads.items()})
            return {u: answers[at[u]] for u in payloads if at[u] in answers}

        def read(reader: Reader[T], answers: Mapping[int, list[torch.Tensor]]) -> dict[int, T]:
            return self._read(reader, answers, at)

        adverts = read(_one(packing.advert, server.must_be_signed), stage(ADVERTISE, dict.fromkeys(at, terms.pack())))
        told = packing.packed_map(adverts)
        server.present(adverts)
        sealed = read(_one(packing.boxes, server.must_be_for_all), stage(SHARE, dict.fromkeys(adverts, told)))
        boxes = server.hand_out(sealed)
        clipped = read(partial(_added, server), stage(MASK, {u: packing.packed_map(given) for u, given in boxes.items()}))
        survivors = server.survivors()
        confirmed = stage(CONFIRM, dict.fromkeys(survivors, packing.listed(survivors)))
        signatures = read(_one(packing.signature, server.must_be_confirmed), confirmed)
        told = packing.packed_map(signatures)
        revealed = read(_one(packing.revealed), stage(UNMASK, dict.fromkeys(signatures, told)))
        vector, weight = server.result(revealed)
        if server.wrong:
            liars = ", ".join(terms.members[u][0] for u in sorted(server.wrong))
            log.warning("%s gave wrong shares of others' masks: the sum was made without these, and is right", liars)
        shapes = [t.shape for t in self.vectors[0]]
        parts = [part.view(shape) for part, shape in zip(vector.split([shape.numel() for shape in shapes]), shapes, strict=True)]
        names = tuple(self.workers[at[u]].id for u in sorted(survivors))
        code = terms.encoding
        cut = {} if code.sigma else {self.workers[at[u]].id: share for u, share in clipped.items()}
        return Aggregate(parts, weight, names, self.dropped, cut, code.sigma * len(names) ** 0.5 / 2**code.fraction_bits)

    def _stage(self, stage: int, payloads: Mapping[int, bytes | None]) -> dict[int, list[torch.Tensor]]:
        """The answers of those that answer in time."""
        futures = {at: self.crew.submit(self._ask, at, stage, payload) for at, payload in payloads.items()}
        self.crew.wait(futures.values(), self.deadline)
        answers = {}
        for at, future in futures.items():
            worker = self.workers[at].id
            if not future.done():
                future.cancel()
                self.dropped[worker] = f"no answer within {self.deadline:g} s"
            elif (error := future.exception()) is not None:
                self.dropped[worker] = f"{type(error).__name__}: {error}"
            else:
                answers[at] = future.result()
        return answers

    def _ask(self, at: int, stage: int, payload: bytes | None) -> list[torch.Tensor]:
        worker: BaseWorker = self.workers[at]
        given = None if payload is None else upload(torch.frombuffer(bytearray(payload), dtype=torch.uint8), worker)
        vector = [t._handle.id for t in self.vectors[at]] if stage == MASK else []  # type: ignore[attr-defined]
        weight = self.weights[at]._handle.id if stage == MASK and self.weights is not None else None
        number = None if given is None else given._handle.id
        answer: list[torch.Tensor] = worker.ask(AGGREGATE, stage, self.number, number, vector, weight)[2]
        return answer

    def _read(self, reader: Reader[T], answers: Mapping[int, list[torch.Tensor]], at: Mapping[int, int]) -> dict[int, T]:
        """What ``reader`` makes of ``answers``, by place. Whoever answers what is no answer is left out. ``at``: which worker is where."""
        found = {}
        for place, answer in answers.items():
            try:
                found[place] = reader(place, answer)
            except (AggregationError, ProtocolError) as error:
                self.dropped[self.workers[at[place]].id] = f"{type(error).__name__}: {error}"
        return found


def _one(unpack: Callable[[bytes], T], check: Callable[[int, T], None] | None = None) -> Reader[T]:
    """A reader of one message, in a tensor of bytes."""

    def read(place: int, answer: list[torch.Tensor]) -> T:
        if len(answer) != 1 or answer[0].dtype != torch.uint8:
            raise ProtocolError("a worker answers a stage of an aggregation with one tensor of bytes")
        told = unpack(answer[0].numpy().tobytes())
        if check is not None:
            check(place, told)
        return told

    return read


def _added(server: Server, place: int, answer: list[torch.Tensor]) -> float:
    """Adds a masked vector. The share of it that was clipped."""
    if len(answer) != 2 or answer[1].numel() != 1 or not answer[1].is_floating_point():
        raise ProtocolError("a worker answers with its masked vector and the share of it that was clipped")
    server.add(place, answer[0])
    return float(answer[1])


def _tensors(vector: Any) -> list[torch.Tensor]:
    if isinstance(vector, nn.Module):
        return [*vector.parameters(), *vector.buffers()]
    if not isinstance(vector, Iterable):
        raise ConfigurationError(f"each worker adds a pointer, several, or a module that is there, not {type(vector).__name__}")
    return [vector] if isinstance(vector, torch.Tensor) else list(vector)


def _weights(weights: Any, vectors: Vectors, workers: Sequence[BaseWorker]) -> list[Any]:
    told = "weights are {worker: a tensor there}, whose rows it counts, for each worker that adds"
    if not isinstance(weights, Mapping) or not vectors.keys() <= weights.keys():
        raise ConfigurationError(told)
    for worker, weight in zip(workers, (weights[worker] for worker in vectors), strict=True):
        if not isinstance(weight, PointerTensor) or weight.location is not worker:
            raise ConfigurationError(f"{told}: of {worker.id} it is {type(weight).__name__}")
    return [weights[worker] for worker in vectors]
