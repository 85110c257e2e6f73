"""What one round of secure aggregation is about. Every client checks it; its digest is in all that they sign, seal and derive.

    members      (name, Ed25519 public key): who may take part; a client is its place in this list
    threshold    shares, of those that a client and its neighbours hold, that give its secrets: fewer say nothing
    minimum      clients that a sum must have; a sum of one is no sum
    neighbours   with how many others each client masks: all, or from 65 clients on so many that the sparse graph is as safe (`sparse`)
    values       numbers in each vector
    encoding     how they become ring elements, and the noise that each client adds
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from functools import lru_cache
from typing import Any

import msgpack

import syftlite.secagg.noise as noise
from syftlite.errors import AggregationError, ConfigurationError, ProtocolError
from syftlite.randomness import Stream, digest
from syftlite.secagg.encoding import Encoding
from syftlite.wire.items import must_be_few
from syftlite.wire.signatures import PUBLIC_BYTES

ROUND_BYTES = 16
MAX_CLIENTS = 10_000
MAX_ITEMS = 8 * MAX_CLIENTS
"""That any message of a round has: looked at before one is made."""
MAX_VALUES = 1 << 31
MAX_NEIGHBOURS = 1024
"""Each client computes as many shares as it has neighbours, of as many terms: of 10,000 for half a minute."""
DENSE = 64
"""Up to so many clients everybody is everybody's neighbour."""


@dataclass(frozen=True)
class Terms:
    """See the module."""

    round: bytes
    members: tuple[tuple[str, bytes], ...]
    threshold: int
    minimum: int
    neighbours: int
    values: int
    encoding: Encoding

    def __post_init__(self) -> None:
        names, publics = [name for name, _ in self.members], [public for _, public in self.members]
        if len(self.round) != ROUND_BYTES or any(len(public) != PUBLIC_BYTES for public in publics):
            raise ConfigurationError(f"a round is {ROUND_BYTES} random bytes, a member's key {PUBLIC_BYTES} bytes")
        if not 2 <= len(names) <= MAX_CLIENTS or len(set(names)) != len(names) or len(set(publics)) != len(names):
            raise ConfigurationError(f"{len(names)} members: 2 to {MAX_CLIENTS:,}, with different names and different keys")
        if not 2 <= self.minimum <= len(names):
            raise ConfigurationError(f"a minimum of {self.minimum} among {len(names)} clients: at least 2, for a sum of one is that one's")
        if self.neighbours >= len(names) or (self.neighbours < len(names) - 1 and self.neighbours % 2):
            raise ConfigurationError(f"{self.neighbours} neighbours among {len(names)} clients: all others, or an even number")
        if not (self.neighbours + 1) // 2 < self.threshold <= self.neighbours + 1:
            raise ConfigurationError(f"a threshold of {self.threshold} among {self.neighbours + 1} shares: more than half, at most all")
        if self.neighbours > MAX_NEIGHBOURS:
            raise ConfigurationError(f"{self.neighbours} neighbours: a client shares its secrets among {MAX_NEIGHBOURS:,} others at most")
        if not self._whole():
            told = f"{self.neighbours} neighbours among {len(names)} clients, of whom {len(names) - self.minimum} may be left out"
            raise ConfigurationError(f"{told}: a few could be cut off from the rest, and be a sum of their own; have more neighbours")
        if not 0 < self.values <= MAX_VALUES or self.encoding.clients != len(names):
            raise ConfigurationError(f"{self.values} values, encoded for {self.encoding.clients} clients: at least one, for all members")

    def _whole(self) -> bool:
        """Whether those who are left are no fewer than `minimum` in one sum: a circle where each masks with its ``near`` nearest falls
        apart only where ``near`` are left out, and whoever is left has `threshold` shares, its own among them, in its part. Or, of very
        many clients, whether the graph is as dense as `sparse` has it."""
        count, near = len(self.members), self.neighbours
        together = near > count - self.minimum or count - near < 2 * self.threshold or self.threshold >= self.minimum
        return together or near >= sparse(count)

    @classmethod
    def of(
        cls, round: bytes, members: Mapping[str, bytes], values: int, *, minimum: int | None = None, threshold: int | None = None,
        neighbours: int | None = None, noise_multiplier: float = 0.0, **encoding: Any,
    ) -> Terms:  # fmt: skip
        """Terms with the usual choices: a threshold of two thirds, which a lying server gets round only with a third of the clients on its
        side (Bonawitz et al., section 6.2: 2 t > n + corrupt ones), and a minimum of two thirds of all clients, never below 2.
        ``noise_multiplier``: the noise of a sum over what one client may add (noise.py)."""
        count = len(members)
        near = neighbours if neighbours is not None else count - 1 if count <= DENSE else sparse(count)
        needed = threshold if threshold is not None else -(-2 * (near + 1) // 3)
        least = minimum if minimum is not None else max(2, -(-2 * count // 3))
        code = Encoding(count, **encoding)
        if noise_multiplier:
            code = replace(code, sigma=noise.deviation(noise_multiplier, code.clip, code.fraction_bits, values, least))
        return cls(round, tuple(members.items()), needed, least, near, values, code)

    @property
    def noise_multiplier(self) -> float:
        """The noise of a sum, over the norm of what one client adds to it; 0 without noise."""
        code = self.encoding
        return code.sigma * math.sqrt(self.minimum) / noise.sensitivity(code.clip, code.fraction_bits, self.values)

    def place(self, name: str) -> int:
        """The place of the member ``name``."""
        for place, (known, _) in enumerate(self.members):
            if known == name:
                return place
        raise AggregationError(f"{name} is not among this round's clients: {', '.join(known for known, _ in self.members[:20])}")

    @property
    def digest(self) -> bytes:
        """32 bytes that stand for all of it."""
        return digest("secagg terms", self.pack())

    def pack(self) -> bytes:
        """As bytes: MessagePack of plain values."""
        fields = (self.round, self.members, self.threshold, self.minimum, self.neighbours, self.values, astuple(self.encoding))
        packed: bytes = msgpack.packb(fields)
        return packed

    @classmethod
    def unpack(cls, packed: bytes) -> Terms:
        """From `pack`. Raises `ProtocolError` for anything else."""
        try:
            must_be_few(packed, MAX_ITEMS)
            fields = msgpack.unpackb(packed, use_list=False, strict_map_key=True, max_ext_len=0, max_map_len=0)
            round, members, threshold, minimum, neighbours, values, encoding = fields
            clients, clip, bits, weight, sigma = encoding
            sound = all(type(v) is int for v in (threshold, minimum, neighbours, values, clients, bits)) and type(round) is bytes
            sound = sound and type(clip) is type(sigma) is float and (weight is None or type(weight) is float)
            if not sound or not all(type(name) is str and type(public) is bytes for name, public in members):
                raise TypeError("a field is of another type")
            return cls(round, members, threshold, minimum, neighbours, values, Encoding(clients, clip, bits, weight, sigma))
        except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
            raise ProtocolError(f"these are no terms of an aggregation: {error}") from None

    def graph(self, present: Sequence[int], seed: bytes) -> dict[int, tuple[int, ...]]:
        """The neighbours of each client that is ``present``: all others, or in a random circle those within neighbours / 2 places (Bell et
        al., section 3). ``seed`` comes from what they committed to, so that nobody chooses his neighbours."""
        if self.neighbours >= len(present) - 1:
            return {u: tuple(v for v in present if v != u) for u in present}
        draws = Stream(digest("secagg graph", self.digest, seed)[:16]).take(8 * len(present)).view(-1, 8)
        circle = [place for _, place in sorted((bytes(draw.tolist()), place) for draw, place in zip(draws, sorted(present), strict=True))]
        half, count = self.neighbours // 2, len(circle)
        steps = [*range(-half, 0), *range(1, half + 1)]
        return {u: tuple(sorted(circle[(at + step) % count] for step in steps)) for at, u in enumerate(circle)}


@lru_cache(maxsize=64)
def sparse(clients: int, corrupt: float = 0.2, dropped: float = 0.1) -> int:
    """The least even number of neighbours, such that with a fifth of the clients corrupt and a tenth gone: no client has a threshold of
    corrupt neighbours, and what is left is connected, but for 2^-40; every client keeps a threshold of them, but for 2^-30."""
    for near in range(2, clients - 1, 2):
        needed = -(-2 * (near + 1) // 3)
        exposed = clients * _tail(clients - 1, round(corrupt * clients), near, needed)
        lost = clients * _tail(clients - 1, round(dropped * clients), near, near - needed + 2)
        apart = clients * (corrupt + dropped) ** (near // 2)
        if exposed <= 2**-40 and apart <= 2**-40 and lost <= 2**-30:
            return near
    return clients - 1


def _tail(population: int, marked: int, drawn: int, least: int) -> float:
    """P[at least ``least`` of ``drawn`` without replacement are among the ``marked``]: hypergeometric."""
    whole = math.comb(population, drawn)
    return sum(math.comb(marked, k) * math.comb(population - marked, drawn - k) for k in range(least, min(drawn, marked) + 1)) / whole
