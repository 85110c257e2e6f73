"""Streams: a served model for one number of rows. Each has its program, its own keys and its own count of correlations.

    Stream      at a holder: the program on a batch of shares, and their release               Stream.run(batch) -> coroutine
    Dealing     at the provider: what one run asks for, deals it run by run
    Ahead       at the last holder: has the provider deal before it is needed, at once where a run has used something up, more when idle

A correlation's number on a link is the stream's rows, then its count in that stream: whatever order the streams run in, each is used once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from hashlib import blake2b
from typing import Any, NamedTuple

import torch
from torch import Tensor

from syftlite.engine.groups import SHARED, Driver, FixedWeight
from syftlite.engine.holder import Holder
from syftlite.engine.marks import Mark
from syftlite.engine.plans import KernelStep, Program
from syftlite.engine.rounds import Corrections, Link
from syftlite.engine.session import Session
from syftlite.engine.spare import Job, SpareTime
from syftlite.errors import EmptyCryptoPrimitiveStoreError, ProtocolError, SharingAbortedError
from syftlite.mpc.correlations import Request, layout
from syftlite.mpc.dealer import Dealer
from syftlite.mpc.kernel import Plan, WeightSpec, plan
from syftlite.mpc.party import Party, Recorder
from syftlite.mpc.products import Weight
from syftlite.mpc.release import release
from syftlite.mpc.rounds import run_dry
from syftlite.ops.shapes import ByRule
from syftlite.policy.labels import Label

ROWS_FROM = 1 << 48
"""A stream's correlations are numbered from its rows times this."""
BUDGET = 96 << 20
"""Bytes of corrections that the last holder keeps ahead of use, for a model's streams alike; as many again for the one that ran last."""
MAX_AHEAD = 64
"""Runs of one stream dealt ahead."""
DEAL_SECONDS = 60.0
"""For the provider to deal for one run."""


class Released(NamedTuple):
    """A holder's share of an output, re-randomised, and the label of what all shares together are."""

    share: Tensor
    label: Label


class Stream:
    """``program`` for batches of ``rows``, at one holder. ``operands``: ids in ``session`` of what it needs besides the batch, 0 for one
    that it does not use."""

    def __init__(self, rows: int, program: Program, operands: Sequence[int], session: Session, party: Party, driver: Driver) -> None:
        if not program.complete or program.arity != len(operands) + 1 or len(program.results) != 1:
            raise ProtocolError(f"the program for {rows} rows has {program.arity} operands and {len(program.results)} results")
        self.rows, self.program, self.session, self.party = rows, program, session, party
        self.holder = Holder(party, driver)
        self.runs = 0
        self.requests: tuple[Request, ...] = ()
        """The correlations of one run, once it was rehearsed or run."""
        code = [(step.kernel, step.operands, sorted(step.static.items())) for step in program.kernels]
        self._code = blake2b(repr((rows, code)).encode(), digest_size=16).digest()
        self._input = session.prefix << 32 | 1
        self._operands = (self._input, *operands)
        self._shift = (session.prefix << 32 | 1 << 31) - program.arity

    def _place(self, relative: int) -> int:
        return self._operands[relative - 1] if 0 < relative <= len(self._operands) else relative + self._shift

    def digest(self, batch: bytes) -> bytes:
        """What all holders must find the same of the next run: which it is, of what, on whose requests."""
        return blake2b(self._code + self.runs.to_bytes(8, "little") + batch, digest_size=16).digest()

    def rehearse(self, row: Sequence[int], pause: Callable[[], None] = lambda: None) -> None:
        """Run it on a batch of ``row``s without values, and so find its requests, which the first query then need not. ``pause`` is called
        between its rounds."""
        scratch = Session(self.session.prefix, self.session.principal, self.session.max_bytes)
        for number in self._operands[1:]:
            if number in self.session.weights:
                fixed = self.session.weights[number].weight
                scratch.weights[number] = FixedWeight(_valueless(fixed), 0)
            elif number:
                scratch.put(number, self.session.look_up(number)[0].to("meta"), Mark(SHARED, None))  # type: ignore[union-attr]
        with ByRule():  # type: ignore[no-untyped-call]
            scratch.put(self._input, torch.empty(self.rows, *row, dtype=torch.int64, device="meta"), Mark(SHARED, None))
            recorder = Recorder(self.party.ring)
            steps = Holder(recorder, self.holder.driver).steps(scratch, self.program, self._place)
            self.requests = tuple(run_dry(steps, recorder, pause))

    async def run(self, batch: Tensor) -> Released:
        """This holder's share of the output, re-randomised."""
        session, place = self.session, self._place
        self.runs += 1
        session.put(self._input, batch, Mark(SHARED, None))
        try:
            asked = await self.holder.steps(session, self.program, place)
            self.requests = self.requests or tuple(asked)
            out, cell = session.look_up(place(self.program.results[0]))
            if out is None or out.dtype != torch.int64 or out.shape[:1] != (self.rows,):
                why = cell.mark.poison.text if cell.mark is not None and cell.mark.poison is not None else "it is no batch of shares"
                raise SharingAbortedError(f"the program's result is not there: {why}")
            return Released(release(self.party, out), cell.label._replace(shared=False))
        finally:
            session.drop(self._input)
            for relative in self.program.made:
                session.drop(relative + self._shift)


def _valueless(weight: Weight | WeightSpec) -> Weight:
    meta = torch.empty(weight.shape, dtype=torch.int64, device="meta")
    return Weight(weight.number, tuple(weight.shape), meta, meta)


def plans(program: Program, weights: Sequence[WeightSpec]) -> list[Plan]:
    """What a provider's program asks for, kernel by kernel; its operands are ``weights``."""
    found = []
    for step in program.kernels:
        specs: list[Any] = [_weight(weights, o) if type(o) is int else o for o in step.operands]
        found.append(plan(step.kernel, specs, **step.static))
        if any(isinstance(result, WeightSpec) for result in found[-1].results):
            raise ProtocolError("a served program fixes no weights: they are fixed before")
    if not all(isinstance(step, KernelStep) for step in program.steps):
        raise ProtocolError("a provider's program consists of kernels")
    return found


def _weight(weights: Sequence[WeightSpec], relative: int) -> WeightSpec:
    if not 0 < relative <= len(weights):
        raise ProtocolError(f"the provider's program names weight {relative} of {len(weights)}")
    return weights[relative - 1]


class Dealing:
    """The provider's part of one stream."""

    def __init__(self, dealer: Dealer, planned: Sequence[Plan]) -> None:
        self.dealer = dealer
        self.requests: list[Request] = [request for step in planned for request in step.requests]
        self.runs = 0

    def deal(self, number: int) -> Tensor:
        """The last holder's correction of this stream's correlation ``number``."""
        kind, args = self.requests[number % len(self.requests)]
        return self.dealer.deal(number, kind, *args)

    def push(self, rows: int, link: Link) -> None:
        """Deal for the next run, down ``link``."""
        first, self.runs = self.runs * len(self.requests), self.runs + 1
        for number in range(first, first + len(self.requests)):
            correction = self.deal(number)
            if len(correction):
                link.push(correction, rows * ROWS_FROM + number)


class Near:
    """Corrections of one stream in this process: dealt when they are used."""

    def __init__(self, dealing: Callable[[], Dealing | None]) -> None:
        self._dealing = dealing

    def __call__(self, number: int, nbytes: int) -> Tensor:
        dealing = self._dealing()
        if dealing is None:
            raise EmptyCryptoPrimitiveStoreError("the provider has not been told of this model")
        return dealing.deal(number)


class Need(NamedTuple):
    """What one run of a stream takes of the provider: correlations, bytes of corrections, and the number of the last one that has any."""

    requests: int
    nbytes: int
    last: int

    @classmethod
    def of(cls, planned: Sequence[Plan]) -> Need:
        """Of these kernels."""
        sizes = [layout(kind, args).sent for step in planned for kind, args in step.requests]
        return cls(len(sizes), sum(sizes), max((i for i, size in enumerate(sizes) if size), default=0))


def _targets(nbytes: Mapping[int, int]) -> dict[int, int]:
    """How many runs of each stream to have ahead, within `BUDGET`: of all alike as many bytes, and of larger ones one if there is room."""
    share, left = BUDGET // max(len(nbytes), 1), BUDGET
    targets = {rows: min(MAX_AHEAD, share // max(size, 1)) for rows, size in nbytes.items()}
    left -= sum(targets[rows] * size for rows, size in nbytes.items())
    for rows, size in nbytes.items():
        if not targets[rows] and size <= left:
            targets[rows], left = 1, left - size
    return targets


class Ahead(SpareTime):
    """The last holder's stock of corrections, by rows. ``ask`` tells the provider to deal for one run; ``came`` are what it pushed."""

    def __init__(self, needs: Mapping[int, Need], ask: Callable[[int], None], came: Corrections) -> None:
        super().__init__("dealing ahead")
        self._needs, self._ask, self._came = needs, ask, came
        self.failed: Callable[[str], None] = lambda why: None
        """Is told why there are no more."""
        self._target = _targets({rows: need.nbytes for rows, need in needs.items()})
        self._asked = dict.fromkeys(needs, 0)
        self._used = dict.fromkeys(needs, 0)
        self._last = 0  # rows of the stream that ran last

    def corrections(self, rows: int) -> Callable[[int, int], Tensor]:
        """Of one stream."""
        return lambda number, nbytes: self._came(rows * ROWS_FROM + number, nbytes)

    def use(self, rows: int) -> None:
        """A run of ``rows`` begins: what it uses is asked for now if it was not before, and so is what the next one will."""
        with self._changed:
            self.begin()
            self._last = rows
            self._used[rows] += 1
            while self._asked[rows] < self._used[rows] + max(0, min(1, self._target[rows] - 1)):
                self._asked[rows] += 1
                self._ask(rows)

    @property
    def stock(self) -> dict[int, int]:
        """By rows: for how many runs there is enough, on its way or here."""
        with self._changed:
            return {rows: self._asked[rows] - self._used[rows] for rows in self._needs}

    def _job(self) -> Job | None:
        filled = {rows: (self._asked[rows] - self._used[rows]) / target for rows, target in self._target.items() if target}
        wanted = min(filled, key=filled.__getitem__, default=0)
        if not wanted or filled[wanted] >= 1:
            wanted = self._last if self._more_of_the_last() else 0
        if not wanted:
            return None
        self._asked[wanted] += 1
        return partial(self._have_dealt, wanted, self._asked[wanted] - 1)

    def _more_of_the_last(self) -> bool:
        """Whether the stream that ran last may have another run dealt ahead."""
        if not self._last or self._asked[self._last] - self._used[self._last] >= MAX_AHEAD:
            return False
        held = sum((self._asked[rows] - self._used[rows]) * need.nbytes for rows, need in self._needs.items())
        return held + self._needs[self._last].nbytes <= 2 * BUDGET

    def _have_dealt(self, rows: int, run: int) -> None:
        need = self._needs[rows]
        try:
            self._ask(rows)
            if need.nbytes and not self._came.here(rows * ROWS_FROM + run * need.requests + need.last, DEAL_SECONDS):
                raise SharingAbortedError(f"the provider dealt nothing within {DEAL_SECONDS:.0f} s")
        except SharingAbortedError as error:
            if not self._ended:
                self.stop()
                self.failed(str(error))
