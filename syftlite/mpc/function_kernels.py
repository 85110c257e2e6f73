"""What a conductor can ask for, continued (kernels.py): functions of secrets. f: bits after the point, of operands and results alike.

    32 exp           x; f                   e^x                                                          exponential.py
    33 curve         x; f, which, slope     sigmoid, tanh, silu, gelu; and the derivative                curves.py
    34 roots         x; f, what, signed     1/x, x^(-1/2), x^(1/2), log x: a bit of `what` for each      roots.py
    35 divide        x, y; f, signed        x / y, broadcasting
    36 softmax       x; f, dim, what        softmax, its logarithm, or both                              softmax.py
    37 one_hot       x; count               (..., count) 1 where x = 0, 1, ...: x are whole numbers      ranking.py
    38 sort          x; dim, low            sorted, ascending; their places before; the permutation (..., n, n)

Numbers 26 to 31 are free. All are elementwise or by rows; large operands run a part at a time, so that what is dealt ahead stays small.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from syftlite._torch import broadcast
from syftlite.mpc.curves import CURVES, curve
from syftlite.mpc.exponential import exponential
from syftlite.mpc.kernel import kernel
from syftlite.mpc.party import Party
from syftlite.mpc.products import product
from syftlite.mpc.ranking import one_hot, permutation, power_of_two
from syftlite.mpc.roots import quotient, roots
from syftlite.mpc.rounds import Protocol
from syftlite.mpc.softmax import WITHIN_32_BITS, softmax
from syftlite.ops.operator import Kind

S = "share"
PART = 1 << 16
"""Elements at a time."""
FEWEST, MOST_BITS = 2, 22
"""Bits after the point: a period of 2^9 has to fit in 31 bits."""
MAX_SORTED = 128
MAX_PLACES = 1 << 16


def _checked(f: int) -> None:
    if not FEWEST <= f <= MOST_BITS:
        raise ValueError(f"functions compute with {FEWEST} to {MOST_BITS} bits after the point, not {f}: fix_precision() with fewer")


async def _by_parts(p: Party, protocol: Callable[..., Protocol[Any]], x: Tensor, size: int) -> tuple[Tensor, ...]:
    """``protocol`` of a vector, or of rows, some ``size`` rows at a time; its results together."""
    if len(x) <= size:
        return _tuple(await protocol(p, x))
    parts = [_tuple(await protocol(p, part)) for part in x.split(size)]
    return tuple(torch.cat(column) for column in zip(*parts))


def _tuple(result: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (result,) if isinstance(result, Tensor) else result


async def _elementwise(p: Party, protocol: Callable[..., Protocol[Any]], x: Tensor, outputs: int) -> Any:
    if x.numel() == 0:
        found = (x.clone(),) * outputs
    else:
        found = tuple(y.view(x.shape) for y in await _by_parts(p, protocol, x.reshape(-1), PART))
    return found if outputs > 1 else found[0]


@kernel(32, S)
async def _exp(p: Party, x: Tensor, *, f: int) -> Tensor:
    _checked(f)
    done: Tensor = await _elementwise(p, lambda p, v: exponential(p, v, f), x, 1)
    return done


@kernel(33, S)
async def _curve(p: Party, x: Tensor, *, f: int, which: int, slope: int = 0) -> Any:
    _checked(f)
    if which >= len(CURVES):
        raise ValueError(f"there are {len(CURVES)} curves, and no number {which}")
    return await _elementwise(p, lambda p, v: curve(p, v, which, f, bool(slope)), x, 1 + slope)


@kernel(34, S)
async def _roots(p: Party, x: Tensor, *, f: int, what: int, signed: int = 0) -> Any:
    _checked(f)
    return await _elementwise(p, lambda p, v: roots(p, v, f, what, bool(signed)), x, what.bit_count())


@kernel(35, S, S)
async def _divide(p: Party, x: Tensor, y: Tensor, *, f: int, signed: int = 1) -> Tensor:
    _checked(f)
    shape = broadcast(x.shape, y.shape)
    if 0 in shape:
        return x.new_empty(shape)
    if x.shape != y.shape or x.numel() <= PART:
        return await quotient(p, x, y, f, bool(signed))
    pairs = zip(x.reshape(-1).split(PART), y.reshape(-1).split(PART))
    return torch.cat([await quotient(p, a, b, f, bool(signed)) for a, b in pairs]).view(shape)


def _rows(x: Tensor, dim: int, most: int) -> Tensor:
    """The axis last, and all others in one: contiguous."""
    if not -x.dim() <= dim < x.dim() or not 1 <= x.shape[dim] <= most:
        raise ValueError(f"axis {dim} of shape {tuple(x.shape)}: there are 1 to {most} elements along it")
    return x.movedim(dim, -1).reshape(-1, x.shape[dim])


def _back(y: Tensor, x: Tensor, dim: int) -> Tensor:
    """What `_rows` undid."""
    return y.view(x.movedim(dim, -1).shape).movedim(-1, dim).contiguous()


@kernel(36, S, kind=Kind.REDUCE)
async def _softmax(p: Party, x: Tensor, *, f: int, dim: int, what: int) -> Any:
    _checked(f)
    if not 1 <= what <= 3:
        raise ValueError(f"softmax is 1, its logarithm 2, both 3, and not {what}")
    rows = _rows(x, dim, 1 << (30 - f))
    if not rows.numel():
        found: tuple[Tensor, ...] = (x.clone(),) * what.bit_count()
    else:
        done = await _by_parts(p, lambda p, v: softmax(p, v, f, what), rows, max(1, PART // rows.shape[1]))
        found = tuple(_back(y, x, dim) for y in done)
    return found if len(found) > 1 else found[0]


@kernel(37, S, kind=Kind.INDEX)
async def _one_hot(p: Party, x: Tensor, *, count: int) -> Tensor:
    if not 1 <= count <= MAX_PLACES:
        raise ValueError(f"one-hot vectors have 1 to {MAX_PLACES} places, not {count}")
    size = power_of_two(count)
    (hot,) = await _by_parts(p, lambda p, v: one_hot(p, v, size), x.reshape(-1), max(1, (PART << 6) // size))
    return hot[:, :count].reshape(*x.shape, count)


@kernel(38, S, kind=Kind.SORT)
async def _sort(p: Party, x: Tensor, *, dim: int, low: int = WITHIN_32_BITS) -> tuple[Tensor, Tensor, Tensor]:
    rows = _rows(x, dim, MAX_SORTED)
    n = rows.shape[1]
    (moved,) = await _by_parts(p, lambda p, v: permutation(p, v, low), rows, max(1, PART // (n * n)))
    ordered = (await product(p, "matmul", rows[:, None], moved.contiguous()))[:, 0]
    places = (moved * torch.arange(n, device=x.device)[:, None]).sum(1)
    return _back(ordered, x, dim), _back(places, x, dim), moved.reshape(*x.movedim(dim, -1).shape, n)
