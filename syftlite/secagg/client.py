"""A client's part of a round: what it says at each stage, and what it refuses to be told. See the package for the protocol.

Its keys come with a commitment to its own mask, and what it seals with a tag of each share (masks.py): a client that gives a wrong share of
another's secret is known by that, and left aside (server.py).

It refuses a server that shows fewer clients than the threshold, a client twice or unregistered, another key in its place, survivors that
were never there, other survivors than its neighbours signed for; and it gives of each neighbour one secret, never both. After the last
stage, and after any refusal, its secrets are gone and the client is of no more use.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from functools import wraps
from typing import Any, NamedTuple, TypeVar, cast

import torch
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from syftlite.errors import AggregationError
from syftlite.randomness import digest
from syftlite.secagg.identity import Identity
from syftlite.secagg.masks import KEY, OWN, TAG_BYTES, agree, committed, pair_sign, seal, spread, tag, unseal
from syftlite.secagg.shamir import SECRET_BYTES, SHARE_BYTES, split
from syftlite.secagg.terms import Terms
from syftlite.wire.signatures import signed_by

F = TypeVar("F", bound=Callable[..., Any])


class Advert(NamedTuple):
    """A client's two X25519 keys, for seals and for masks, and what it is committed to by its own mask, with its signature."""

    seals: bytes
    masks: bytes
    own: bytes
    signature: bytes

    def text(self, terms: bytes, place: int) -> bytes:
        """What is signed."""
        return digest("secagg advert", terms, place, self.seals, self.masks, self.own)


class Revealed(NamedTuple):
    """A client's shares: of the own masks of those who survived, and of the mask keys of those who did not. By place."""

    own: dict[int, bytes]
    keys: dict[int, bytes]


def survivors_text(terms: bytes, survivors: Collection[int]) -> bytes:
    """What clients sign when they are told who survived."""
    return digest("secagg survivors", terms, tuple(sorted(survivors)))


def graph_seed(adverts: Mapping[int, Advert]) -> bytes:
    """What the graph is drawn from: all that was committed to."""
    return digest(*[(place, *adverts[place]) for place in sorted(adverts)])


def _stage(number: int) -> Callable[[F], F]:
    """Runs once, after the stage before it; whatever goes wrong ends the client."""

    def decorate(method: F) -> F:
        @wraps(method)
        def run(self: Client, *args: Any) -> Any:
            if self.stage != number:
                self.forget()
                raise AggregationError(f"{method.__name__}() was asked of a client at stage {self.stage}: each stage runs once, in order")
            try:
                result = method(self, *args)
            except BaseException:
                self.forget()
                raise
            self.stage += 1
            if number == LAST:
                self.forget()
            return result

        return cast(F, run)

    return decorate


LAST = 4
GONE = -1


class Client:
    """Member ``place`` of a round under ``terms``. Its owner has compared the terms' members with those that it trusts."""

    def __init__(self, terms: Terms, place: int, identity: Identity) -> None:
        if terms.members[place][1] != identity.public:
            raise AggregationError(f"the round names another key for {terms.members[place][0]}: it is not this client's")
        self.terms, self.place, self.stage = terms, place, 0
        self.clipped = 0.0
        """The share of values that encoding clipped."""
        self._digest, self._identity = terms.digest, identity
        self._seals, self._masks, self._own = os.urandom(SECRET_BYTES), os.urandom(SECRET_BYTES), os.urandom(SECRET_BYTES)
        self._present: frozenset[int] = frozenset()
        self._near: tuple[int, ...] = ()
        self._adverts: dict[int, Advert] = {}
        self._boxes: dict[int, bytes] = {}
        self._keys: dict[int, bytes] = {}  # for seals, by neighbour
        self._kept = b""  # of its own mask's shares, the one that it keeps
        self._survivors: frozenset[int] = frozenset()

    @property
    def done(self) -> bool:
        """Whether it has no secrets any more: its last stage is over, or it has refused."""
        return self.stage == GONE

    def forget(self) -> None:
        """Drop every secret."""
        self._seals = self._masks = self._own = self._kept = b""
        self._adverts, self._boxes, self._keys, self.stage = {}, {}, {}, GONE

    @_stage(0)
    def advertise(self) -> Advert:
        """Its keys for this round, signed."""
        seals, masks = (X25519PrivateKey.from_private_bytes(k).public_key().public_bytes_raw() for k in (self._seals, self._masks))
        advert = Advert(seals, masks, committed(self._own, self._digest, self.place), b"")
        self._adverts[self.place] = advert._replace(signature=self._identity.sign(advert.text(self._digest, self.place)))
        return self._adverts[self.place]

    @_stage(1)
    def share(self, adverts: Mapping[int, Advert]) -> dict[int, bytes]:
        """A sealed pair of shares for each neighbour. ``adverts``: of everybody who is present, by place."""
        if adverts.get(self.place) != self._adverts[self.place]:
            raise AggregationError("the server shows other keys for this client than its own: do not take part")
        if len(adverts) < self.terms.minimum:
            raise AggregationError(f"{len(adverts)} clients are present, and {self.terms.minimum} are needed: wait for more")
        keys = [key for advert in adverts.values() for key in advert[:2]]
        if len(set(keys)) != len(keys):
            raise AggregationError("the server shows one key twice: do not take part")
        for place, advert in adverts.items():
            if not 0 <= place < len(self.terms.members):
                raise AggregationError(f"the server shows a client {place}, and there are {len(self.terms.members)}")
            if not signed_by(self.terms.members[place][1], advert.signature, advert.text(self._digest, place)):
                raise AggregationError(f"the keys of {self.terms.members[place][0]} are not signed by it: do not take part")
        self._present = frozenset(adverts)
        self._near = self.terms.graph(sorted(adverts), graph_seed(adverts))[self.place]
        self._enough(self._near, "are present")
        self._adverts = {v: adverts[v] for v in self._near}
        holders = (*self._near, self.place)
        keys_shares, own_shares = (split(secret, self.terms.threshold, holders) for secret in (self._masks, self._own))
        self._kept = own_shares[self.place]
        private = X25519PrivateKey.from_private_bytes(self._seals)
        self._keys = {v: agree(private, adverts[v].seals, self._digest, self.place, v, "seal") for v in self._near}
        return {v: self._sealed(v, keys_shares[v], own_shares[v]) for v in self._near}

    def _sealed(self, v: int, key: bytes, own: bytes) -> bytes:
        tags = tag(key, self._digest, self.place, v, KEY) + tag(own, self._digest, self.place, v, OWN)
        return seal(self._keys[v], key + own, self._digest, self.place, v, tags) + tags

    @_stage(2)
    def mask(self, boxes: Mapping[int, bytes], vector: torch.Tensor, weight: float | None = None) -> torch.Tensor:
        """The vector (terms.values numbers) as masked ring elements. ``boxes``: what neighbours sealed for this client, by place."""
        if not set(boxes) <= set(self._near):
            raise AggregationError("the server hands over shares from clients that are no neighbours: do not take part")
        self._enough(boxes, "have shared")
        self.must_be_as_long(vector.numel())
        total, self.clipped = self.terms.encoding.encode(vector, weight)
        self._boxes = dict(boxes)
        private = X25519PrivateKey.from_private_bytes(self._masks)
        pairs = [(agree(private, self._adverts[v].masks, self._digest, self.place, v, "mask"), pair_sign(self.place, v)) for v in boxes]
        spread(total, [(self._own, 1), *pairs])
        return total

    @_stage(3)
    def confirm(self, survivors: Collection[int]) -> bytes:
        """A signature of who survived: clients whose masked vectors the server has."""
        self._survivors = frozenset(survivors)
        if self.place not in self._survivors or len(self._survivors) < self.terms.minimum:
            raise AggregationError(f"{len(self._survivors)} clients are said to be left, of {self.terms.minimum} that a sum must have")
        near = self._survivors & set(self._near)
        if not self._survivors <= self._present or not near <= set(self._boxes):
            raise AggregationError("the server says that clients survived who never shared: do not take part")
        self._enough(near, "are left")
        return self._identity.sign(survivors_text(self._digest, self._survivors))

    @_stage(LAST)
    def unmask(self, signatures: Mapping[int, bytes]) -> Revealed:
        """Shares of one secret of each neighbour that shared, and of its own mask. ``signatures``: what `confirm` gave, by place."""
        text = survivors_text(self._digest, self._survivors)
        near = [v for v in signatures if v in self._survivors and v in self._near]
        for v in near:
            if not signed_by(self.terms.members[v][1], signatures[v], text):
                raise AggregationError(f"{self.terms.members[v][0]} did not sign for these survivors: clients are told different things")
        self._enough(near, "have confirmed")
        own, keys = {self.place: self._kept}, {}
        for v, box in self._boxes.items():
            key, mine = self._unsealed(v, box)
            if v in self._survivors:
                own[v] = mine
            else:
                keys[v] = key
        return Revealed(own, keys)

    def _unsealed(self, v: int, box: bytes) -> tuple[bytes, bytes]:
        box, tags = box[: -2 * TAG_BYTES], box[-2 * TAG_BYTES :]
        shares = unseal(self._keys[v], box, self._digest, v, self.place, tags)
        key, own = shares[:SHARE_BYTES], shares[SHARE_BYTES:]
        told = tag(key, self._digest, v, self.place, KEY) + tag(own, self._digest, v, self.place, OWN)
        if len(shares) != 2 * SHARE_BYTES or told != tags:
            raise AggregationError(f"{self.terms.members[v][0]} sealed no shares, or others than it says: start the round anew without it")
        return key, own

    def must_be_as_long(self, values: int) -> None:
        """Raise `AggregationError` unless a vector of ``values`` numbers is one of this round."""
        if values != self.terms.values:
            raise AggregationError(f"this round adds vectors of {self.terms.values:,} values, and this one has {values:,}")

    def _enough(self, neighbours: Collection[int], what: str) -> None:
        if len(neighbours) + 1 < self.terms.threshold:
            told = f"{len(neighbours)} of {len(self._near)} neighbours {what}, and {self.terms.threshold - 1} are needed"
            raise AggregationError(f"{told}: start the round anew, with more clients")

    def __repr__(self) -> str:
        state = "done, its secrets gone" if self.stage == GONE else f"at stage {self.stage}"
        return f"<secagg Client {self.terms.members[self.place][0]} of {len(self.terms.members)}: {state}>"
