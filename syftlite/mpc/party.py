"""One holder: its index, its keys, its correlations. A protocol is `async def` code that awaits rounds (rounds.py) and knows no transport.

    Shareholder    whoever has shares: counts correlations and releases, and has a key with each other that has shares
    Party          a holder of additive shares, with a provider
    Recorder       stands in for a holder on meta tensors and writes down what would be asked of the provider
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from syftlite.errors import ProtocolError
from syftlite.mpc.bilinear import Params
from syftlite.mpc.bits import raw, tensor
from syftlite.mpc.correlations import FREE, SENT, Layout, Request, layout
from syftlite.mpc.ring import Z64, A, Ring
from syftlite.mpc.rounds import Round
from syftlite.randomness import SECRET_BYTES, Purpose, Source, derive

M = TypeVar("M", bound="Shareholder")
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

    async def exchange(self, out: A) -> list[A]:
        """What the other holders send that is like ``out``, in the order of their indices. Nothing is sent of nothing."""
        if not out.nbytes:  # type: ignore[attr-defined]
            return [out] * (self.holders - 1)
        (theirs,) = await Round(self, (out,))
        return theirs

    async def open(self, share: A) -> A:
        """The sum of all holders' shares, tensors or arrays."""
        first, *others = await self.exchange(share)
        total = raw(share) + raw(first)
        for other in others:
            total += raw(other)
        total = self.ring.reduce(total)
        return tensor(total) if isinstance(share, Tensor) else total  # type: ignore[return-value]

    async def open_bits(self, share: Any) -> Any:
        """The XOR of all holders' shares, arrays of words."""
        first, *others = await self.exchange(share)
        total = share ^ raw(first)
        for other in others:
            total ^= raw(other)
        return total

    def correlated(self, kind: str, *args: Any) -> dict[str, Any]:
        """This holder's shares of the next correlation, its own to write to. The provider's part is waited for when it is used."""
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

    def sent_part(self, found: Layout, number: int) -> Any:
        """This holder's share of the sent fields: expanded, or at the last holder the provider's correction."""
        if self.last and found.sent:
            return self._correction(number, found.sent)
        return self.source.array(found.sent, number, found.label, SENT)

    def _correction(self, number: int, nbytes: int) -> Tensor:
        if self._corrections is None:
            raise ProtocolError("the last holder has no provider: give Party(corrections=...)")
        correction = self._corrections(number, nbytes)
        if correction.dtype != torch.uint8 or correction.shape != (nbytes,):
            raise ProtocolError(f"correlation {number} has {nbytes} bytes, not {tuple(correction.shape)} {correction.dtype}")
        self.corrected += nbytes
        return correction


class Correlated(dict[str, Any]):
    """Shares of one correlation, by field. The sent ones come when the first of them is asked for: the opening before goes ahead."""

    def __init__(self, party: Party, found: Layout, number: int) -> None:
        parts = {FREE: party.source.array(found.free, number, found.label, FREE)}
        super().__init__({field.name: field.view(parts) for field in found.fields if field.part == FREE})
        self.label = found.label
        self._sent: Callable[[], Any] = lambda: party.sent_part(found, number)
        self._fields = [field for field in found.fields if field.part == SENT]

    def __missing__(self, name: str) -> Any:
        if not self._fields:
            raise KeyError(name)
        self.whole()
        return self[name]

    def whole(self) -> None:
        """Take the sent fields, too."""
        if self._fields:
            parts, fields, self._fields = {SENT: raw(self._sent())}, self._fields, []
            self.update({field.name: field.view(parts) for field in fields})


class Recorder(Party):
    """A holder on meta tensors: what it asks of the provider is in ``requests``, what it computes has shapes and no values."""

    def __init__(self, ring: Ring = Z64) -> None:
        super().__init__(0, 2, Keys(bytes(SECRET_BYTES), {1: bytes(SECRET_BYTES - 1) + b"\1"}), None, ring)  # neither is used
        self.requests: list[Request] = []

    def correlated(self, kind: str, *args: Any) -> dict[str, Any]:
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
