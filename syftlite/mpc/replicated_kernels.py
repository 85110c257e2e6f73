"""The kernels of a replicated sharing (replicated.py): one for each of two holders, its number `REPLICATED` higher, without fixed weights.

    products         the holders' own (`PRODUCTS`), then what follows them as between two: truncation, if any
    refresh          nothing: raising does it
    all others       lowered to the two, run as they are, raised again

Operands and results are twice as many: for each value a holder's own component, then the next.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor

from syftlite.mpc.bilinear import Params
from syftlite.mpc.convolution import Conv, channels_first, channels_last
from syftlite.mpc.kernel import KERNELS, NUMBERS, Kernel, Spec, WeightSpec, plan
from syftlite.mpc.party import Party, Shareholder
from syftlite.mpc.replicated import Pair, Third, crossed, lowered, product, raised, unfolded

REPLICATED = 64
"""What is added to a kernel's number."""
PREFIX = "replicated_"

Lay = Callable[[Tensor], Tensor]


class Native(NamedTuple):
    """A kernel that is a product: the bilinear map, how its factors and its result lie, its parameters from the static arguments."""

    name: str
    x: Lay
    y: Lay
    params: Callable[[dict[str, Any]], Params]
    back: Callable[[Tensor, Tensor], Tensor]
    """(result, the first factor as it was given)"""


def _conv(static: dict[str, Any]) -> Params:
    given = Conv(static["stride"], static["padding"], static["dilation"], static["groups"], static.get("pool", (1, 1)))
    return (*given, static["size"]) if "size" in static else tuple(given)


def _none(static: dict[str, Any]) -> Params:
    return ()


def _as_is(x: Tensor) -> Tensor:
    return x


def _same(z: Tensor, x: Tensor) -> Tensor:
    return z


def _image(z: Tensor, x: Tensor) -> Tensor:
    return channels_first(z)


PRODUCTS: dict[str, Native] = {
    "mul": Native("mul", _as_is, _as_is, _none, _same),
    "square": Native("mul", _as_is, _as_is, _none, _same),
    "matmul": Native("matmul", _as_is, _as_is, _none, _same),
    "linear": Native("matmul", lambda x: x.reshape(-1, x.shape[-1]), _as_is, _none, lambda z, x: z.view(*x.shape[:-1], z.shape[-1])),
    "conv2d_fixed": Native("conv2d", channels_last, _as_is, _conv, _image),
    "conv2d": Native("conv2d", channels_last, _as_is, _conv, _image),
    "conv2d_input_grad": Native("conv2d_input_grad", channels_last, _as_is, _conv, _image),
    "conv2d_weight_grad": Native("conv2d_weight_grad", channels_last, channels_last, _conv, _same),
}
"""By the name of the kernel for two holders."""


def _pairs(operands: tuple[Tensor, ...]) -> list[Pair]:
    return [Pair(*operands[i : i + 2]) for i in range(0, len(operands), 2)]


async def _computed(entry: Kernel, native: Native | None, p: Shareholder, *operands: Tensor, **static: Any) -> tuple[Tensor, ...]:
    """``entry`` at one of the three."""
    pairs = _pairs(operands)
    if native is None:
        if isinstance(p, Third):
            return _dealt(p, entry, operands, static)
        assert isinstance(p, Party)
        xs = [lowered(p, pair) for pair in pairs]
        found = xs[0] if entry.name == "refresh" else await entry.protocol(p, *xs, **static)
        return await raised(p, *(found if isinstance(found, tuple) else (found,)))
    x, y = (Pair(*map(lay, pair)) for lay, pair in zip((native.x, native.y), (pairs[0], pairs[-1])))
    params = native.params(static)
    if isinstance(p, Third):
        return _dealt(p, entry, operands, static, crossed(native.name, x, y, params))
    assert isinstance(p, Party)
    z = native.back(await product(p, native.name, x, y, params), pairs[0].own)
    return await raised(p, await KERNELS[NUMBERS["truncate"]].protocol(p, z, f=static["f"]) if static["f"] else z)


def _dealt(p: Third, entry: Kernel, operands: tuple[Tensor, ...], static: dict[str, Any], z: Tensor | None = None) -> tuple[Tensor, ...]:
    specs: list[Spec] = [tuple(o.shape) for o in operands]
    planned = plan(REPLICATED + entry.number, specs, p.ring, **static)
    return unfolded(p.deal(planned.requests, z), [tuple(shape) for shape in planned.results[::2] if not isinstance(shape, WeightSpec)])


def enter() -> None:
    """Enter a kernel for each of those that are there."""
    for number, entry in list(KERNELS.items()):
        if entry.name != "fix_weight":
            protocol = partial(_computed, entry, PRODUCTS.get(entry.name))
            operands = ("share",) * (2 * len(entry.operands))
            name = PREFIX + entry.name
            number, kept = REPLICATED + number, (entry.pairs, entry.defaults, entry.kind)
            KERNELS[number], NUMBERS[name] = Kernel(number, name, operands, protocol, *kept), number
