"""Products: any bilinear map B with one opening (Beaver, "Efficient multiparty protocols using circuit randomization", 1991).

    secret y    open d = x - a, e = y - b in one message        z = B(d, b + [first] e) + B(a, e) + ab
    fixed y     e opened once for ever; open d = x - a          z = B(d, b + [first] e) + B(a, e) + ab
    square      open d = x - a                                  z = d (2 a + [first] d) + aa

Folding "the first holder adds B(d, e)" into b leaves two products a holder, of which only B(d, .) waits for the message. Reusing b for
every query of a fixed weight is safe as long as a is fresh: b enters a correction only inside ab, under the mask of a fresh share.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from syftlite.mpc.bilinear import MAPS, Params
from syftlite.mpc.bits import add_to, difference, raw, tensor
from syftlite.mpc.convolution import Shape
from syftlite.mpc.party import Party

_PREPARED_A_WEIGHT = 8


@dataclass
class Weight:
    """A fixed weight at one holder: ``e`` is public, ``b`` its share of b + e; ``number`` is that of the correlation that fixed it."""

    number: int
    shape: Shape
    e: Tensor
    b: Tensor
    _prepared: dict[Params, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)

    @property
    def nbytes(self) -> int:
        """What it takes: the opening, this holder's share, and what it was prepared for."""
        return 8 * (3 * self.e.numel() + sum(part.numel() for pair in self._prepared.values() for part in pair))

    def prepared(self, name: str, x: Shape, params: Params) -> tuple[Tensor, Tensor]:
        """(e, b) as the map wants them for inputs of shape ``x``."""
        key = (name, x[1:], params)
        if key not in self._prepared:
            if len(self._prepared) >= _PREPARED_A_WEIGHT:
                self._prepared.pop(next(iter(self._prepared)))
            prepare = MAPS[name].prepare
            self._prepared[key] = prepare(self.e, x, params), prepare(self.b, x, params)
        return self._prepared[key]


async def product(p: Party, name: str, x: Tensor, y: Tensor, params: Params = ()) -> Tensor:
    """B(x, y), not truncated: one round, 8 bytes an element of x and of y."""
    shapes = tuple(x.shape), tuple(y.shape)
    k: dict[str, Tensor] = p.correlated("product", name, *shapes, params)
    bilinear = MAPS[name]
    masked = x.new_empty(x.numel() + y.numel())
    difference(x, k["a"], out=masked[: x.numel()].view(x.shape))
    difference(y, k["b"], out=masked[x.numel() :].view(y.shape))
    opened = await p.open(masked)
    d, e = opened[: x.numel()].view(x.shape), opened[x.numel() :].view(y.shape)
    b = add_to(k["b"], e) if p.first else k["b"]
    z = k["ab"]
    b, e = bilinear.prepare(b, shapes[0], params), bilinear.prepare(e, shapes[0], params)
    bilinear.add_both(z, (d, b), (k["a"], e), shapes[1], params)
    return z


async def square(p: Party, x: Tensor) -> Tensor:
    """x * x for a vector, not truncated: one round, 8 bytes an element."""
    k = p.correlated("square", x.numel())
    a = k["a"]
    d = await p.open(raw(x) - a)
    a += a
    if p.first:
        a += d
    z = k["aa"]
    z += d * a
    return tensor(z)


async def fix_weight(p: Party, w: Tensor) -> Weight:
    """Mask and open ``w`` once, for any number of products with it: one round."""
    number, shape = p.number, tuple(w.shape)
    b = p.correlated("weight", shape)["b"]
    e = await p.open(difference(w, b))
    return Weight(number, shape, e, b + e if p.first else b)


async def fixed_product(p: Party, name: str, x: Tensor, w: Weight, params: Params = ()) -> Tensor:
    """B(x, w), not truncated: one round, 8 bytes an element of x alone. B(a, e) needs no message, so it precedes it."""
    shape = tuple(x.shape)
    k: dict[str, Tensor] = p.correlated("fixed", name, shape, w.number, w.shape, params)
    bilinear = MAPS[name]
    e, b = w.prepared(name, shape, params)
    z = k["ab"]
    bilinear.add(z, k["a"], e, w.shape, params)
    d = await p.open(difference(x, k["a"]))
    bilinear.add(z, d, b, w.shape, params)
    return z
