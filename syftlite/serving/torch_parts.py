"""Rules for ATen operators that take tensors apart and put them together, as torch_rules.py has others.

    slice narrow select           one part
    chunk split unbind            all parts along an axis, each a node of its own, which goes if nobody uses it
    cat stack                     of nodes, and of constants beside them
    zeros_like full_like ...      constants
    expand expand_as repeat       a row's places again; never the rows
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from syftlite.serving.torch_call import Call, Value, rule


def _part(at: Call, x: Value, dim: int, start: int, stop: int, step: int = 1) -> Value:
    """Places of ``x`` along one axis."""
    at.refuse(dim=x.axis(dim) == 0)
    shape = list(x.shape)
    shape[dim % len(shape)] = len(range(start, stop, step))
    name = at.build.add("slice", at.layer, [x.name], axis=x.axis(dim), start=start, stop=stop, step=step)
    return x._replace(name=name, shape=tuple(shape))


def _reshaped(at: Call, x: Value, shape: tuple[int, ...], batch: int) -> Value:
    """``x`` in another shape, of the same elements in the same order, with rows along ``batch``."""
    made = Value("", shape, None, batch)
    if len(shape) == 2 and len(x.shape) > 1:
        return made._replace(name=at.build.add("flatten", at.layer, [x.name]))
    return made._replace(name=at.build.add("reshape", at.layer, [x.name], shape=made.rows_first[1:]))


@rule("slice", anywhere=True)
def _slice(at: Call, x: Value, dim: int = 0, start: Any = None, stop: Any = None, step: int = 1) -> Value:
    begin, end, step = slice(start, stop, step).indices(x.shape[dim])
    return x if (begin, end, step) == (0, x.shape[dim], 1) else _part(at, x, dim, begin, end, step)


@rule("narrow", anywhere=True)
def _narrow(at: Call, x: Value, dim: int, start: int, length: int) -> Value:
    return _slice(at, x, dim, start % x.shape[dim], start % x.shape[dim] + length)


@rule("select", anywhere=True)
def _select(at: Call, x: Value, dim: int, index: int) -> Value:
    place, dim = index % x.shape[dim], dim % len(x.shape)
    part = _part(at, x, dim, place, place + 1)
    return _reshaped(at, part, (*x.shape[:dim], *x.shape[dim + 1 :]), x.batch - (dim < x.batch))


@rule("unbind", anywhere=True)
def _unbind(at: Call, x: Value, dim: int = 0) -> list[Value]:
    return [_select(at, x, dim, place) for place in range(x.shape[dim])]


@rule("split", "split_with_sizes", anywhere=True)
def _split(at: Call, x: Value, sizes: Any, dim: int = 0) -> list[Value]:
    at.refuse(dim=not x.shape[dim])
    if isinstance(sizes, int):
        sizes = [min(sizes, x.shape[dim] - start) for start in range(0, x.shape[dim], sizes)]
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return [_slice(at, x, dim, end - size, end) for size, end in zip(sizes, ends, strict=True)]


@rule("chunk", anywhere=True)
def _chunk(at: Call, x: Value, chunks: int, dim: int = 0) -> list[Value]:
    return _split(at, x, -(-x.shape[dim] // chunks), dim)


# -- together


def _nodes(at: Call, xs: Sequence[Value]) -> list[Value]:
    """``xs``, of which some depend on the input: constants among them, the same for all rows, as 0 times such a one, and themselves."""
    like = next(x for x in xs if x.known is None)
    return [_constant(at, x, like) if x.known is not None else x for x in xs]


def _constant(at: Call, x: Value, like: Value) -> Value:
    assert x.known is not None
    rows = x.known.movedim(like.batch, 0)
    at.refuse(constant=not rows.is_floating_point() or not bool((rows == rows[:1]).all()) or x.shape[like.batch] != like.shape[like.batch])
    add, layer = at.build.add, at.layer
    flat = like.name if len(like.shape) == 2 else add("reshape", layer, [like.name], shape=(-1,))
    nothing = add("scale", layer, [add("slice", layer, [flat], axis=1, start=0, stop=1)], factor=0.0)
    made = add("plus", layer, [nothing], {"weight": rows[0].flatten()})
    return _reshaped(at, x._replace(name=made), x.shape, like.batch)


@rule("cat", "concat", "concatenate", anywhere=True)
def _cat(at: Call, xs: Sequence[Value], dim: int = 0) -> Value:
    nodes, axis = _nodes(at, xs), at.result("").axis(dim)
    at.refuse(dim=axis == 0)
    return at.add("concat", nodes, axis=axis) if len(nodes) > 1 else nodes[0]


@rule("stack", anywhere=True)
def _stack(at: Call, xs: Sequence[Value], dim: int = 0) -> Value:
    place, nodes = dim % len(at.shape), _nodes(at, xs)
    at.batch += place <= at.batch
    thin = tuple(1 if d == place else size for d, size in enumerate(at.shape))
    nodes = [_reshaped(at, x, thin, at.batch) for x in nodes]
    return at.add("concat", nodes, axis=at.result("").axis(place)) if len(nodes) > 1 else nodes[0]


# -- constants, whose shape alone depends on the input


@rule("zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full", anywhere=True)
def _filled(at: Call, x: Value, *given: Any, dtype: Any = None, **_: Any) -> Value:
    fill = given[-1] if at.name.endswith("full") or at.name.startswith("full") else float("ones" in at.name)
    return Value("constant", at.shape, torch.full(at.shape, float(fill)))


# -- again


@rule("expand", "expand_as", anywhere=True)
def _expand(at: Call, x: Value, *_: Any, **__: Any) -> Value:
    at.refuse(size=len(at.shape) != len(x.shape) or at.shape[x.batch] != x.shape[x.batch])
    return x if at.shape == x.shape else at.add("expand", [x], shape=at.result("").rows_first[1:])


@rule("repeat", "tile")
def _repeat(at: Call, x: Value, times: Sequence[int]) -> Value:
    at.refuse(repeats=len(times) != len(x.shape) or times[0] != 1 or min(times) < 1)
    for axis, count in enumerate(times):
        if count > 1:
            x = x._replace(name=at.build.add("concat", at.layer, [x.name] * count, axis=axis))
    return at.result(x.name)
