"""One holder: its index, its keys, its correlations. A protocol is `async def` code that awaits rounds and knows no transport.

    Round       what a coroutine yields: `out` goes to every other holder, and their tensors come back, in the order of their indices
    together    independent protocols in step: what they send in the same round goes in one message
    abreast     the same of protocols whose correlations are numbered as if each began when the one before had ended
    run_local   steps all holders of one process, in one thread, passing tensors by reference
    Recorder    stands in for a holder on meta tensors and writes down what would be asked of the provider

There is no event loop: a driver sends the coroutine what it waits for. Never write to a tensor after passing it to a round: in memory the
others hold the same one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from copy import copy
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from syftlite.errors import ProtocolError
from syftlite.mpc.bilinear import Params
from syftlite.mpc.correlations import FREE, SENT, Layout, Request, layout
from syftlite.mpc.ring import Z64, Ring
from syftlite.randomness import SECRET_BYTES, Purpose, Source, derive

T = TypeVar("T")
M = TypeVar("M", bound="Shareholder")
Protocol = Coroutine[Any, Any, T]
Corrections = Callable[[int, int], Tensor]
"""(a correlation's number, its bytes) -> the provider's correction, uint8."""

MAX_ELEMENTS = 1 << 31
"""Of one field of a correlation, in a dry run."""


class Keys(NamedTuple):
    """A holder's secrets, 32 bytes each: one shared with the provider, one with each other holder (which the provider never has)."""

    provider: bytes
    peers: Mapping[int, bytes]


def group_keys(secret: bytes, holders: int) -> list[Keys]:
    """Keys of a group whose holders and provider are all in this process, from one ``secret``; all distinct."""
    provider = [derive(secret, "provider", i, length=SECRET_BYTES) for i in range(holders)]
    pairs = {(i, j): derive(secret, "peers", i, j, length=SECRET_BYTES) for j in range(holders) for i in range(j)}
    everything = [*provider, *pairs.values()]
    assert len(set(everything)) == len(everything), "two keys of a group coincide"
    return [Keys(provider[i], {j: pairs[min(i, j), max(i, j)] for j in range(holders) if j != i}) for i in range(holders)]


class Round:
    """Send ``out`` (contiguous) to every other holder; receive one like it from each."""

    __slots__ = ("out", "party")

    def __init__(self, party: Shareholder, out: Tensor) -> None:
        self.party, self.out = party, out

    def __await__(self) -> Generator[Round, list[Tensor], list[Tensor]]:
        return (yield self)

    def count(self) -> Tensor:
        """What to send, counted by whoever carries it: rounds that travel together are one."""
        out = self.out
        self.counted(out.numel() * out.itemsize)
        return out

    def counted(self, nbytes: int) -> None:
        """Count one round of ``nbytes`` to each other holder."""
        self.party.rounds += 1
        self.party.sent += nbytes * (self.party.holders - 1)


class Joint(Round):
    """A round of several tensors: one message of `out`, their bytes one after the other. In memory they pass as they are."""

    __slots__ = ("parts",)

    def __init__(self, party: Shareholder, parts: list[Tensor]) -> None:
        self.party, self.parts = party, parts

    @property
    def out(self) -> Tensor:  # type: ignore[override]
        """All parts as one tensor of bytes."""
        return torch.cat([_bytes(part) for part in self.parts])

    def split(self, theirs: list[Tensor]) -> list[list[Tensor]]:
        """What came in one message of each other holder, for each part the holders' tensors."""
        split, at = [], 0
        for part in self.parts:
            nbytes = part.numel() * part.itemsize
            split.append([message[at : at + nbytes].view(part.dtype).view(part.shape) for message in theirs])
            at += -(-nbytes // 8) * 8
        return split


class Shareholder:
    """Whoever has shares, ``index`` of its group: what it has drawn and released is counted here, never taken from a conductor.
    ``keys``: one with each other that has shares, by its index."""

    def __init__(self, index: int, keys: Mapping[int, bytes], ring: Ring = Z64) -> None:
        self.index, self.ring = index, ring
        self.holders = 1
        """How many take part in its rounds."""
        self.number = 0
        """Of the next correlation."""
        self._released = [0]  # one count for this holder and its twins
        self.rounds = self.sent = self.corrected = 0
        """Rounds, bytes sent to holders, and bytes received from the provider."""
        self.peers = {peer: Source(key) for peer, key in keys.items()}

    @property
    def releases(self) -> int:
        """The number of the next zero-share."""
        return self._released[0]

    @releases.setter
    def releases(self, number: int) -> None:
        self._released[0] = number

    def beside(self: M, number: int) -> M:
        """The same holder, with the same keys and zero-shares, whose next correlation is ``number``."""
        twin = copy(self)
        twin.number, twin.corrected = number, 0
        return twin

    def zeros(self, shape: Sequence[int]) -> Tensor:
        """This holder's share of zero for the next release: + F(key with a later holder) - F(key with an earlier one)."""
        number, nbytes = self.releases, math.prod(shape) * 8
        self.releases += 1
        total = torch.zeros(tuple(shape), dtype=torch.int64)
        for peer, source in self.peers.items():
            mask = source.take(nbytes, "zero", number, tuple(shape)).view(torch.int64).view(tuple(shape))
            total = total.add_(mask) if peer > self.index else total.sub_(mask)
        return total


class Party(Shareholder):
    """Holder ``index`` of ``holders``. The last one gets ``corrections`` from the provider; the others need none."""

    def __init__(self, index: int, holders: int, keys: Keys, corrections: Corrections | None = None, ring: Ring = Z64) -> None:
        if not 0 <= index < holders or holders < 2:
            raise ValueError(f"holder {index} of {holders}: at least two, numbered from 0")
        if set(keys.peers) != set(range(holders)) - {index}:
            raise ValueError(f"holder {index} of {holders} needs a key with each other holder, and has them with {sorted(keys.peers)}")
        if len({keys.provider, *keys.peers.values()}) != holders:
            raise ValueError("two keys of one holder are equal: derive one for each purpose")
        super().__init__(index, keys.peers, ring)
        self.holders = holders
        self.first, self.last = index == 0, index == holders - 1
        self._keys = keys
        self.source = Source(keys.provider)
        self._corrections = corrections
        self._expanded: dict[int, Correlated] = {}

    def fork(self, *purpose: Purpose, corrections: Corrections | None = None) -> Party:
        """The same holder with keys of their own for ``purpose``: its correlations and zero-shares are numbered from 0, and none has a byte
        of this party's. All holders fork alike, and so does the dealer."""
        provider, *others = (derive(k, "fork", *purpose, length=SECRET_BYTES) for k in (self._keys.provider, *self._keys.peers.values()))
        keys = Keys(provider, dict(zip(self._keys.peers, others, strict=True)))
        return Party(self.index, self.holders, keys, corrections, self.ring)

    async def exchange(self, out: Tensor) -> list[Tensor]:
        """The other holders' tensors like ``out``, in the order of their indices. Nothing is sent of nothing."""
        return await Round(self, out) if out.numel() else [out] * (self.holders - 1)

    async def open(self, share: Tensor) -> Tensor:
        """The sum of all holders' shares."""
        first, *others = await self.exchange(share)
        total = share + first
        for other in others:
            total += other
        return self.ring.reduce(total)

    async def open_bits(self, share: Tensor) -> Tensor:
        """The XOR of all holders' shares."""
        first, *others = await self.exchange(share)
        total = share ^ first
        for other in others:
            total ^= other
        return total

    def correlated(self, kind: str, *args: Any) -> dict[str, Tensor]:
        """This holder's shares of the next correlation: its own to write to. The provider's part is waited for when it is used."""
        found, number = layout(kind, args), self.number
        self.number += 1
        ready = self._expanded.pop(number, None)
        return ready if ready is not None and ready.label == found.label else Correlated(self, found, number)

    def expand(self, number: int, kind: str, args: Params) -> None:
        """Have what this holder's own keys give of correlation ``number`` ready; any thread may, and whoever asks for another one than
        this gets it."""
        made = Correlated(self, layout(kind, args), number)
        if not self.last:
            made.whole()
        self._expanded[number] = made
        if number < self.number:  # it was asked for meanwhile
            self._expanded.pop(number, None)

    def sent_part(self, found: Layout, number: int) -> Tensor:
        """This holder's share of the sent fields: expanded, or at the last holder the provider's correction."""
        if self.last and found.sent:
            return self._correction(number, found.sent)
        return self.source.take(found.sent, number, found.label, SENT)

    def _correction(self, number: int, nbytes: int) -> Tensor:
        if self._corrections is None:
            raise ProtocolError("the last holder has no provider: give Party(corrections=...)")
        correction = self._corrections(number, nbytes)
        if correction.dtype != torch.uint8 or correction.shape != (nbytes,):
            raise ProtocolError(f"correlation {number} has {nbytes} bytes, not {tuple(correction.shape)} {correction.dtype}")
        self.corrected += nbytes
        return correction


class Correlated(dict[str, Tensor]):
    """Shares of one correlation, by field. The sent ones come when the first of them is asked for: the opening before goes ahead."""

    def __init__(self, party: Party, found: Layout, number: int) -> None:
        parts = {FREE: party.source.take(found.free, number, found.label, FREE)}
        super().__init__({field.name: field.view(parts) for field in found.fields if field.part == FREE})
        self.label = found.label
        self._sent: Callable[[], Tensor] = lambda: party.sent_part(found, number)
        self._fields = [field for field in found.fields if field.part == SENT]

    def __missing__(self, name: str) -> Tensor:
        if not self._fields:
            raise KeyError(name)
        self.whole()
        return self[name]

    def whole(self) -> None:
        """Take the sent fields, too."""
        if self._fields:
            parts, fields, self._fields = {SENT: self._sent()}, self._fields, []
            self.update({field.name: field.view(parts) for field in fields})


class Recorder(Party):
    """A holder on meta tensors: what it asks of the provider is in ``requests``, what it computes has shapes and no values."""

    def __init__(self, ring: Ring = Z64) -> None:
        super().__init__(0, 2, Keys(bytes(SECRET_BYTES), {1: bytes(SECRET_BYTES - 1) + b"\1"}), None, ring)  # neither is used
        self.requests: list[Request] = []

    def correlated(self, kind: str, *args: Any) -> dict[str, Tensor]:
        """Fields without values."""
        found = layout(kind, args)
        for field in found.fields:
            if math.prod(field.shape) > MAX_ELEMENTS:
                raise ValueError(f"{math.prod(field.shape)} elements in one step, of at most {MAX_ELEMENTS}: use smaller batches")
        self.requests.append((kind, args))
        self.number += 1
        return {field.name: torch.empty(field.shape, dtype=field.dtype, device="meta") for field in found.fields}

    def zeros(self, shape: Sequence[int]) -> Tensor:
        """A share without values."""
        return torch.empty(tuple(shape), dtype=torch.int64, device="meta")


async def together(party: Shareholder, *protocols: Protocol[Any]) -> list[Any]:
    """The results of independent protocols that run in step: one message a round for all of them."""
    results: list[Any] = [None] * len(protocols)
    live: dict[int, Protocol[Any]] = dict(enumerate(protocols))
    waiting: dict[int, list[Tensor] | None] = dict.fromkeys(live)
    try:
        while outs := _stepped(live, waiting, results):
            if len(outs) == 1:
                ((only, out),) = outs.items()
                waiting[only] = await Round(party, out)
            else:
                joint = Joint(party, list(outs.values()))
                theirs: Any = await joint
                waiting = dict(zip(outs, theirs if isinstance(theirs[0], list) else joint.split(theirs)))
        return results
    finally:
        for protocol in protocols:
            protocol.close()


async def abreast(party: Shareholder, protocols: Sequence[tuple[int, Callable[[Any], Protocol[Any]]]]) -> list[Any]:
    """The results of independent protocols, each given as (how many correlations it draws, what starts it with a party). All of them run
    in step; the provider deals for one after the other. Raises `ProtocolError` if one drew another number of them."""
    if len(protocols) == 1:
        return [await protocols[0][1](party)]
    ends = list(itertools.accumulate((draws for draws, _ in protocols), initial=party.number))
    holders = [party.beside(number) for number in ends[:-1]]
    party.number = ends[-1]
    results = await together(party, *[start(holder) for (_, start), holder in zip(protocols, holders, strict=True)])
    if [holder.number for holder in holders] != ends[1:]:
        raise ProtocolError("a protocol drew another number of correlations than its dry run")
    party.corrected += sum(holder.corrected for holder in holders)
    return results


def _stepped(live: dict[int, Protocol[Any]], waiting: Mapping[int, list[Tensor] | None], results: list[Any]) -> dict[int, Tensor]:
    """What each protocol sends next; those that end leave ``live`` for ``results``."""
    outs: dict[int, Tensor] = {}
    for i, protocol in list(live.items()):
        try:
            outs[i] = protocol.send(waiting[i]).out
        except StopIteration as done:
            results[i] = done.value
            del live[i]
    return outs


def _bytes(x: Tensor) -> Tensor:
    """``x`` as bytes, a multiple of 8 of them: every part stays aligned for its type."""
    x = x.view(-1).view(torch.uint8)
    return x if len(x) % 8 == 0 else torch.nn.functional.pad(x, (0, -len(x) % 8))


def run_local(coroutines: Sequence[Protocol[T]]) -> list[T]:
    """Step the holders of one process, in one thread, to completion; their results in the same order."""
    waiting: list[Any] = [None] * len(coroutines)
    results: list[Any] = []
    try:
        while True:
            rounds: list[Round] = []
            for coroutine, got in zip(coroutines, waiting):
                try:
                    rounds.append(coroutine.send(got))
                except StopIteration as done:
                    results.append(done.value)
            if not rounds:
                return results
            if results or not _in_step(rounds):
                raise ProtocolError("the holders are out of step: they run different protocols, or their operands differ in shape")
            waiting = _passed(rounds)
    finally:
        for coroutine in coroutines:
            coroutine.close()


def _in_step(rounds: list[Round]) -> bool:
    """Whether all holders send the same kind of message."""
    shapes = [[(x.shape, x.dtype) for x in (r.parts if isinstance(r, Joint) else [r.out])] for r in rounds]
    return all(s == shapes[0] for s in shapes[1:])


def _passed(rounds: list[Round]) -> list[Any]:
    """What each holder gets: the others' tensors, of a joint round for each part."""
    messages = [r.parts if isinstance(r, Joint) else [r.out] for r in rounds]
    for r, parts in zip(rounds, messages):
        r.counted(sum(-(-x.numel() * x.itemsize // 8) * 8 for x in parts) if isinstance(r, Joint) else parts[0].numel() * parts[0].itemsize)
    passed = [[[m[k] for j, m in enumerate(messages) if j != i] for k in range(len(messages[0]))] for i in range(len(rounds))]
    return passed if isinstance(rounds[0], Joint) else [parts[0] for parts in passed]


def run_dry(coroutine: Protocol[T], recorder: Recorder, pause: Callable[[], None] = lambda: None) -> T:
    """Run a protocol of a `Recorder` to its end; ``pause`` is called before each round."""
    got: list[Tensor] | None = None
    while True:
        pause()
        try:
            got = [coroutine.send(got).count()] * (recorder.holders - 1)
        except StopIteration as done:
            result: T = done.value
            return result
