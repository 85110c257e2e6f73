"""Elementwise protocols on tensors of any shape, large ones in pieces that run in step.

A piece of 2^17 elements keeps all that it touches warm in the allocator, and its messages travel with those of the other pieces, so
rounds and bytes are those of one piece (but for padding to whole words at its end, and only the last piece needs any).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from syftlite.mpc.party import Party
from syftlite.mpc.ring import flat
from syftlite.mpc.rounds import Protocol, together

PIECE = 1 << 17


async def elementwise(p: Party, protocol: Callable[..., Protocol[Any]], *xs: Tensor, outputs: int = 1, **static: Any) -> list[Tensor]:
    """``protocol`` of vectors, run on tensors of one shape; its ``outputs`` results in that shape."""
    vectors, restore = flat(*xs)
    if vectors[0].numel() == 0:
        return [xs[0].clone() for _ in range(outputs)]
    if vectors[0].numel() < 2 * PIECE:
        return [restore(y) for y in _tuple(await protocol(p, *vectors, **static))]
    pieces = zip(*[v.split(PIECE) for v in vectors])
    results = await together(p, *[protocol(p, *piece, **static) for piece in pieces])
    return [restore(torch.cat(parts)) for parts in zip(*map(_tuple, results))]


def _tuple(result: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (result,) if isinstance(result, Tensor) else result
