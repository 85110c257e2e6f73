"""The server's part of a round: it passes messages on, adds masked vectors as they come, and takes the masks off the sum. It is trusted
with nothing: what it learns is in the package's table.

A client that is gone before `mask` costs nothing; after it, its masks with others are rebuilt from the others' shares. Too few left raises
`AggregationError`, and nothing was learned. A share that is not the one that was sealed, by its tag, is left aside, and who gave it is in
`wrong`; what is rebuilt must be what its client is committed to. No lie about a share makes a sum wrong: too few true ones end the round.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from syftlite.errors import AggregationError
from syftlite.secagg.client import Advert, Revealed, graph_seed, survivors_text
from syftlite.secagg.masks import KEY, OWN, TAG_BYTES, agree, committed, pair_sign, spread, tag
from syftlite.secagg.shamir import join
from syftlite.secagg.terms import Terms
from syftlite.wire.signatures import signed_by


class Server:
    """One round under ``terms``. Call the stages in order, each with what came from the clients that are still there."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self._adverts: dict[int, Advert] = {}
        self._graph: dict[int, tuple[int, ...]] = {}
        self._shared: frozenset[int] = frozenset()
        self._tags: dict[int, dict[int, bytes]] = {}
        self.wrong: set[int] = set()
        """Clients that gave other shares than were sealed for them."""
        self._survivors: frozenset[int] = frozenset()
        self._total = torch.zeros(terms.encoding.length(terms.values), dtype=terms.encoding.dtype)

    def present(self, adverts: Mapping[int, Advert]) -> dict[int, dict[int, Advert]]:
        """For each client that advertised, what to tell it: all adverts."""
        self._enough(adverts, "advertised")
        self._adverts = dict(adverts)
        self._graph = self.terms.graph(sorted(adverts), graph_seed(adverts))
        return dict.fromkeys(adverts, self._adverts)

    def must_be_signed(self, place: int, advert: Advert) -> None:
        """Raise `AggregationError` for keys that others would refuse."""
        name, key = self.terms.members[place]
        if not signed_by(key, advert.signature, advert.text(self.terms.digest, place)):
            raise AggregationError(f"the keys of {name} are not signed by it: leave it out")

    def must_be_for_all(self, place: int, sealed: Mapping[int, bytes]) -> None:
        """Raise `AggregationError` unless a client that advertised has sealed shares for each of its neighbours."""
        if set(sealed) != set(self._graph[place]):
            told = f"client {place} sealed shares for {sorted(sealed)}, and its neighbours are {sorted(self._graph[place])}"
            raise AggregationError(f"{told}: leave it out")

    def must_be_confirmed(self, place: int, signature: bytes) -> None:
        """Raise `AggregationError` unless a client signed for those who survived."""
        name, key = self.terms.members[place]
        if not signed_by(key, signature, survivors_text(self.terms.digest, self._survivors)):
            raise AggregationError(f"{name} did not sign for these survivors: leave it out")

    def hand_out(self, sealed: Mapping[int, Mapping[int, bytes]]) -> dict[int, dict[int, bytes]]:
        """For each client that shared, the boxes for it. ``sealed``: by sender, what `Client.share` gave."""
        self._enough(sealed, "shared")
        self._shared = frozenset(sealed)
        self._tags = {v: {u: box[-2 * TAG_BYTES :] for u, box in boxes.items()} for v, boxes in sealed.items()}
        return {u: {v: sealed[v][u] for v in self._graph[u] if v in sealed} for u in sealed}

    def add(self, place: int, masked: torch.Tensor) -> None:
        """Take in the masked vector of one client."""
        if place not in self._shared or place in self._survivors:
            raise AggregationError(f"a vector of client {place}, which did not share, or has sent one: leave it out")
        if masked.shape != self._total.shape or masked.dtype != self._total.dtype:
            form = f"{list(self._total.shape)} of {self._total.dtype}"
            raise AggregationError(f"client {place} sent {list(masked.shape)} of {masked.dtype}, not {form}: leave it out")
        self._total += masked
        self._survivors |= {place}

    def survivors(self) -> frozenset[int]:
        """Whose vectors are in the sum; from now on no other is taken in."""
        self._enough(self._survivors, "sent a vector")
        return self._survivors

    def total(self, revealed: Mapping[int, Revealed]) -> torch.Tensor:
        """The sum of the survivors' vectors, as ring elements. ``revealed``: by client, what `Client.unmask` gave."""
        digest, masks = self.terms.digest, []
        for v in self._survivors:
            own = self._joined(v, OWN, {u: r.own[v] for u, r in revealed.items() if v in r.own})
            self._must_be(v, committed(own, digest, v) == self._adverts[v].own)
            masks.append((own, -1))
        for v in self._shared - self._survivors:
            near = [u for u in self._graph[v] if u in self._survivors]
            if not near:
                continue
            key = self._joined(v, KEY, {u: r.keys[v] for u, r in revealed.items() if v in r.keys})
            private = X25519PrivateKey.from_private_bytes(key)
            self._must_be(v, private.public_key().public_bytes_raw() == self._adverts[v].masks)
            masks += [(agree(private, self._adverts[u].masks, digest, u, v, "mask"), -pair_sign(u, v)) for u in near]
        spread(self._total, masks)
        return self._total

    def _joined(self, v: int, secret: str, shares: Mapping[int, bytes]) -> bytes:
        """A secret of client ``v``, of those of ``shares`` that are what it sealed for who gives them. That of its own mask which it keeps
        has no tag: it is used where another is missing."""
        at = slice(TAG_BYTES) if secret == KEY else slice(TAG_BYTES, None)
        right = {u: s for u, s in shares.items() if u != v and tag(s, self.terms.digest, v, u, secret) == self._tags[v].get(u, b"")[at]}
        wrong = shares.keys() - right.keys() - {v}
        self.wrong |= wrong
        if len(right) < self.terms.threshold and v in shares:
            right[v] = shares[v]
        if len(right) < self.terms.threshold and wrong:
            told = f"{', '.join(self.terms.members[u][0] for u in sorted(wrong))} gave other shares of {self.terms.members[v][0]}'s secret"
            raise AggregationError(f"{told} than it has: a client lies; start the round anew without it")
        return join(right, self.terms.threshold)

    def _must_be(self, v: int, committed: bool) -> None:
        if not committed:
            told = f"the shares of {self.terms.members[v][0]}'s secret are of another secret than it has"
            raise AggregationError(f"{told}: a client lies; start the round anew without it")

    def result(self, revealed: Mapping[int, Revealed]) -> tuple[torch.Tensor, float | None]:
        """((values,) float64: the sum, or the weighted mean; the sum of weights or None)."""
        return self.terms.encoding.decode(self.total(revealed))

    def _enough(self, clients: Collection[int], what: str) -> None:
        if len(clients) < self.terms.minimum:
            told = ", ".join(name for place, (name, _) in enumerate(self.terms.members) if place not in clients)
            raise AggregationError(f"{len(clients)} clients {what}, and a sum must have {self.terms.minimum}; there is no word of {told}")
