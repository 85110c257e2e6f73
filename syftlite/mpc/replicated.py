"""Replicated sharing among three: x = x_0 + x_1 + x_2, and holder i has x_i and x_(i+1). Nobody else provides; no two may collude.

    holder 0    holder 1    holder 2
    x_0  x_1    x_1  x_2    x_2  x_0

Holders 0 and 1 have an additive sharing between them without a word, x_0 + x_1 and x_2, so they run the protocols of two holders as they
are, and holder 2 deals for them. It is told nothing, so it waits for nobody. What it adds is that it has values too:

    product    holder 0: B(x_0 + x_1, y_0 + y_1)    holder 1: B(x_1, y_2) + B(x_2, y_1 + y_2)    holder 2: B(x_2, y_0) + B(x_0, y_2)

    add up to B(x, y): all nine terms. Holder 2 deals its own as a correlation `cross`, a sharing of it between the others: 8 bytes an
    element of the result, of whatever size the factors are, and no round.

    raise      y_0 and y_2 drawn from holder 2's keys with each, correlation `fresh`; opened by 0 and 1: y_1 = (w_0 - y_0) + (w_1 - y_2)

    makes a replicated sharing of what the two have (w_0, w_1): one round, 8 bytes an element each way. y_1 tells holder 0 nothing, for
    it does not know y_2, nor holder 1, for it does not know y_0; holder 2 hears nothing. Shares are as good as new after it.

Replicated products: Araki, Furukawa, Lindell, Nof & Ohara, "High-throughput semi-honest secure three-party computation with an honest
majority", CCS 2016; conversions between sharings: Mohassel & Rindal, "ABY3", CCS 2018; a third party that deals for two:
Chaudhari, Choudhury, Patra & Suresh, "ASTRA", CCSW 2019.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from syftlite.mpc.bilinear import MAPS, Params
from syftlite.mpc.convolution import Shape
from syftlite.mpc.correlations import FREE, SENT, Fields, Request, Secrets, enter
from syftlite.mpc.dealer import Dealer
from syftlite.mpc.party import Corrections, Keys, Party, Shareholder
from syftlite.mpc.ring import Z64, Ring
from syftlite.randomness import SECRET_BYTES, Source, derive

HOLDERS, THIRD = 3, 2
"""How many hold, and the one that deals."""


class Pair(NamedTuple):
    """One holder's two components, the second of which is the next holder's first."""

    own: Tensor
    next: Tensor


class Sink(Protocol):
    """Sees to it that a correlation is dealt, and that holder 1 has what it needs of it."""

    def __call__(self, number: int, kind: str, *args: Any, known: Secrets | None = None) -> None:
        """``known``: what is known of its secrets beside its free fields."""


class Replica(Party):
    """Holder 0 or 1, to whom holder 2 deals. ``secrets``: 32 bytes with each of the other two."""

    def __init__(self, index: int, secrets: Mapping[int, bytes], corrections: Corrections | None = None, ring: Ring = Z64) -> None:
        keys = Keys(_deals(secrets[THIRD]), {1 - index: _zeros(secrets[1 - index])})
        super().__init__(index, 2, keys, corrections, ring)
        self.peers[THIRD] = Source(_zeros(secrets[THIRD]))


class Third(Shareholder):
    """Holder 2. ``dealer`` is `dealer_of` its ``secrets``; ``sink`` has what is dealt sent."""

    def __init__(self, secrets: Mapping[int, bytes], dealer: Dealer, sink: Sink, ring: Ring = Z64) -> None:
        super().__init__(THIRD, {peer: _zeros(secret) for peer, secret in secrets.items()}, ring)
        self.dealer, self.sink = dealer, sink

    def deal(self, requests: Sequence[Request], crossed: Tensor | None = None) -> Pair:
        """Deal what the other two ask for in a kernel, of whose product ``crossed`` is this holder's part; its own share, a vector."""
        own = torch.empty(0, dtype=torch.int64)
        mine = Pair(own, own)
        for kind, args in requests:
            if kind == "fresh":
                first, second = (self.dealer.free(holder, self.number, kind, args)["y"] for holder in (0, 1))
                mine = Pair(second, first)
            else:
                known = {"z": crossed} if kind == "cross" and crossed is not None else None
                self.sink(self.number, kind, *args, known=known)
            self.number += 1
        return mine


def dealer_of(secrets: Mapping[int, bytes], ring: Ring = Z64) -> Dealer:
    """What deals for holders 0 and 1, from holder 2's ``secrets`` with them."""
    return Dealer([_deals(secrets[holder]) for holder in (0, 1)], ring)


def _deals(secret: bytes) -> bytes:
    return derive(secret, "deals", length=SECRET_BYTES)


def _zeros(secret: bytes) -> bytes:
    return derive(secret, "zeros", length=SECRET_BYTES)


# -- what is dealt


def _cross_fields(name: str, x: Shape, y: Shape, params: Params) -> Fields:
    yield "z", MAPS[name].shape(x, y, params), torch.int64, SENT, False


@enter("cross", _cross_fields)
def _cross(ring: Ring, s: Secrets, name: str, x: Shape, y: Shape, params: Params) -> None:
    """z is holder 2's part of the product: it follows from no mask."""


def _fresh_fields(n: int) -> Fields:
    yield "y", (n,), torch.int64, FREE, False


@enter("fresh", _fresh_fields)
def _fresh(ring: Ring, s: Secrets, n: int) -> None:
    """Each holder's share is a component of its own; of their sum nothing follows."""


# -- protocols of holders 0 and 1


def lowered(p: Party, x: Pair) -> Tensor:
    """This holder's share of the value between the two."""
    return x.own + x.next if p.first else x.next


async def product(p: Party, name: str, x: Pair, y: Pair, params: Params = ()) -> Tensor:
    """B(x, y) shared between the two, not truncated. No round."""
    shapes = tuple(x.own.shape), tuple(y.own.shape)
    k: dict[str, Tensor] = p.correlated("cross", name, *shapes, params)
    sum_y = y.own + y.next
    if p.first:
        z = k["z"]
        _add(z, name, x.own + x.next, sum_y, params)
        return z
    z = x.own.new_zeros(MAPS[name].shape(*shapes, params))
    _add(z, name, x.own, y.next, params)
    _add(z, name, x.next, sum_y, params)
    return z.add_(k["z"])  # last: it may still be on its way


async def raised(p: Party, *ws: Tensor) -> tuple[Tensor, ...]:
    """Replicated sharings of values that the two share: own and next of each, contiguous. One round, 8 bytes an element."""
    flat = ws[0].reshape(-1) if len(ws) == 1 else torch.cat([w.reshape(-1) for w in ws])
    y = p.correlated("fresh", len(flat))["y"]
    masked = flat - y
    (other,) = await p.exchange(masked)
    middle = p.ring.reduce(masked + other)
    return unfolded(Pair(y, middle) if p.first else Pair(middle, y), [tuple(w.shape) for w in ws])


# -- and of holder 2


def crossed(name: str, x: Pair, y: Pair, params: Params = ()) -> Tensor:
    """Holder 2's part of B(x, y)."""
    z = x.own.new_zeros(MAPS[name].shape(tuple(x.own.shape), tuple(y.own.shape), params))
    _add(z, name, x.own, y.next, params)
    _add(z, name, x.next, y.own, params)
    return z


def unfolded(share: Pair, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
    """Own and next of each of several results, from one vector of each; in memory of their own, so that one may go while another stays."""
    if len(shapes) == 1:
        return share.own.view(shapes[0]), share.next.view(shapes[0])
    sizes = [torch.Size(shape).numel() for shape in shapes]
    parts = zip(share.own.split(sizes), share.next.split(sizes), shapes, strict=True)
    return tuple(part.clone().view(shape) for own, following, shape in parts for part in (own, following))


def _add(z: Tensor, name: str, x: Tensor, y: Tensor, params: Params) -> None:
    """z += B(x, y)."""
    MAPS[name].add(z, x, MAPS[name].prepare(y, tuple(x.shape), params), tuple(y.shape), params)
