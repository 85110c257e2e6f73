"""Cost rules: what an operator will compute, and hold at its peak, from its operands' specs, before it runs.

    kind        work (elementary operations)                  workspace (bytes beyond the results)
    VIEW        0                                             0: and the result takes none
    POINTWISE   elements read and written                     operands brought to one dtype; a loss: 3 of its elementwise form
    REDUCE      "                                             operands in 8-byte elements; a plain reduction of dense floats: 0
    MATMUL      result elements x contracted size             operands that BLAS cannot take as they lie
    CONV        result elements x weight elements / channels  oneDNN: all, in blocks of 16 channels, twice; else the unfolded input
    POOL, NORM  elements read and written                     a copy of all; resampling: weights, and what lies between its passes
    INDEX       "                                             operands that do not lie in rows, indices as int64
    SORT        elements x 16                                 keys and positions, twice
    SHAPE       elements read and written                     operands that do not lie in rows; where windows overlap, all twice
    RANDOM      "                                             the noise
    LINALG      elements x 8 of the longest dimension         4 copies of all, a matrix for each of the batch, and 64 rows for LAPACK
    FFT         elements x 32                                 3 copies of all in complex numbers
    others      "                                             0

The rules are upper bounds: a test compares them with what torch's allocator reports, for every operator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

from syftlite._torch import aten, broadcast
from syftlite.ops.encoding import encode
from syftlite.ops.infer import Specs
from syftlite.ops.operator import Kind, Operator
from syftlite.ops.spec import Spec

QUICK = 1 << 15
"""Work below which an operator takes microseconds: such messages run on the event loop's thread."""

Operands = Mapping[str, Any]
"""A call's operands by parameter name, a `Spec` for each tensor."""

_MASKS = frozenset({"condition", "mask"})
_LEAN = frozenset(
    {aten.sum.default, aten.sum.dim_IntList, aten.mean.default, aten.mean.dim, aten.amax.default, aten.amin.default, aten.max.default,
     aten.max.dim, aten.min.default, aten.min.dim, aten.argmax.default, aten.argmin.default, aten.all.default, aten.any.default,
     aten.var.correction, aten.std.correction, aten.var_mean.correction, aten.std_mean.correction, aten.linalg_vector_norm.default,
     aten._softmax.default, aten._log_softmax.default, aten._softmax_backward_data.default, aten._log_softmax_backward_data.default,
     aten.cumsum.default}
)  # fmt: skip
"""Reductions that read dense floats in place."""

_ROW_BY_ROW = frozenset(
    {aten.cat.default, aten.stack.default, aten.flip.default, aten.tril.default, aten.triu.default, aten.constant_pad_nd.default,
     aten.select_backward.default, aten.slice_backward.default, aten.diagonal_backward.default, aten.diag_embed.default,
     aten.diagonal_copy.default, aten.repeat.default, aten.pixel_shuffle.default, aten.pixel_unshuffle.default}
)  # fmt: skip
"""Operators on shapes that copy each element once."""


class Cost(NamedTuple):
    """``work`` in elementary operations, ``nbytes`` that the operator may hold at its peak, results included."""

    work: int
    nbytes: int


def cost(operator: Operator, operands: Operands, results: Specs) -> Cost:
    """The cost of running ``operator`` on ``operands``, with these ``results``."""
    kind = operator.kind
    if kind is Kind.VIEW:
        return Cost(0, 0)
    reads = specs_in(operands.values())
    writes = [] if operator.writes and operator.inplace else specs_in([results])
    workspace = _WORKSPACE[kind](operator, operands, reads, writes) if kind in _WORKSPACE else 0
    return Cost(_work(kind, operands, reads, writes), sum(s.nbytes for s in writes) + workspace)


def dynamic_cost(operator: Operator, operands: Operands) -> Cost:
    """As `cost`, for an operator whose result's shape depends on values: for the largest that it can be."""
    reads = specs_in(operands.values())
    elements = sum(s.elements for s in reads)
    try:
        return Cost(elements, _DYNAMIC[operator.func](operands, reads))
    except KeyError as missing:
        raise TypeError(f"{operator.name} lacks its operand {missing}") from None


def specs_in(values: Any) -> list[Spec]:
    """All specs in ``values``, lists included."""
    found: list[Spec] = []
    for value in values:
        if type(value) is Spec:
            found.append(value)
        elif type(value) is list or type(value) is tuple:
            found += specs_in(value)
    return found


def _work(kind: Kind, operands: Operands, reads: list[Spec], writes: list[Spec]) -> int:
    result = sum(s.elements for s in writes)
    if kind is Kind.MATMUL:
        contracted = max((s.shape[-1] for s in reads if s.shape), default=1)
        return max(result * contracted, sum(s.elements for s in reads))
    if kind is Kind.CONV:
        weight: Spec = operands["weight"]
        return (result + reads[0].elements) * max(1, weight.elements // max(weight.shape[0], 1))
    elements = result + sum(s.elements for s in reads)
    if kind is Kind.LINALG:
        return (result + _matrices(reads)) * 8 * _longest(reads)
    return elements * _EACH.get(kind, 1)


_EACH = {Kind.SORT: 16, Kind.FFT: 32}
"""Operations for each element, where they are more than one."""


def _longest(reads: list[Spec]) -> int:
    return max((size for s in reads for size in s.shape[-2:]), default=1)


def _wide(spec: Spec, width: int = 8) -> int:
    """Bytes of a copy of ``spec`` in elements of at least ``width``."""
    return spec.elements * max(spec.dtype.itemsize, width)


# -- workspace, by kind

Rule = Callable[[Operator, Operands, list[Spec], list[Spec]], int]


def _pointwise(operator: Operator, operands: Operands, reads: list[Spec], writes: list[Spec]) -> int:
    values = specs_in(v for name, v in operands.items() if name not in _MASKS)
    kinds = {s.dtype for s in values} | {s.dtype for s in writes if s.dtype.is_complex}  # of a real tensor, by a complex number
    width = max((s.dtype.itemsize for s in (*reads, *writes)), default=8)
    workspace = sum(_wide(s) for s in values) if operator.func is encode else sum(s.nbytes for s in values if not s.dense)
    if len(kinds) > 1 or not all(kind.is_floating_point for kind in kinds):
        copies = 2 if any(kind.is_complex for kind in kinds) else 1
        workspace += copies * sum(_wide(s, max(width, 8)) for s in values)
    if operator.func is aten.isinf.default or len(writes) > 1:
        workspace += sum(s.nbytes for s in values)
    if "reduction" in operator.keywords:
        workspace += 3 * max(width, 8) * _broadcast(reads)
    return workspace


def _broadcast(reads: list[Spec]) -> int:
    """Elements of the shape that ``reads`` broadcast to (of the largest, where they do not)."""
    try:
        return math.prod(broadcast(*[s.shape for s in reads]))
    except RuntimeError:
        return max((s.elements for s in reads), default=1)


def _reduce(operator: Operator, operands: Operands, reads: list[Spec], writes: list[Spec]) -> int:
    plain = operator.func in _LEAN and operands.get("dtype") is None
    if plain and all(s.rows and s.dtype.is_floating_point for s in reads):
        return 0
    return sum(_wide(s) for s in reads) + 2 * sum(_wide(s) for s in writes)


def _matmul(operator: Operator, operands: Operands, reads: list[Spec], writes: list[Spec]) -> int:
    taken = (torch.float32, torch.float64)
    return sum(_wide(s) for s in reads if not (s.rows and s.dtype in taken)) + sum(_wide(s) for s in writes if s.dtype not in taken)


def _conv(operator: Operator, operands: Operands, reads: list[Spec], writes: list[Spec]) -> int:
    x: Spec = operands["input"]
    weight: Spec = operands["weight"]
    out = operands.get("grad_output") or writes[0]
    kernel = math.prod(weight.shape[2:])
    if x.dtype in (torch.float32, torch.bfloat16) and torch.backends.mkldnn.is_available() and (x.elements > 20_480 or x.shape[0] > 1):
        values = [s for s in (*reads, *writes) if len(s.shape) == len(weight.shape) and s.shape != weight.shape]
        blocks = (weight.shape[0] + 16) * (weight.shape[1] + 16) * kernel * 4
        return 2 * (sum(_wide(s, 4) // max(s.shape[1], 1) * (s.shape[1] + 16) for s in values) + 2 * blocks)
    unfolded = max(_positions(out) * _planes(x), _positions(x) * _planes(out)) * kernel
    return 2 * unfolded * max(x.dtype.itemsize, 4) + _copied(operator, operands, reads, writes)


def _planes(spec: Spec) -> int:
    return spec.shape[1] if len(spec.shape) > 1 else 1


def _positions(spec: Spec) -> int:
    return spec.elements // max(_planes(spec), 1)


def _copied(operator: Operator, operands: Operands, reads: list[Spec], writes: list[Spec]) -> int:
    return sum(s.nbytes for s in reads) + sum(s.nbytes for s in writes)


def _index(operator: Operator, operands: Operands, reads: list[Spec], writes: list[Spec]) -> int:
    if operator.func is aten.isin.Tensor_Tensor:
        return 10 * sum(_wide(s) for s in reads)
    strays = sum(_wide(s) for s in reads if not s.rows or s.dtype is torch.int32)
    masks = sum(s.elements * (8 * len(s.shape) + 8) for s in reads if s.dtype in (torch.bool, torch.uint8))
    counts = 16 * writes[0].shape[0] if operands.get("scale_grad_by_freq") and operator.func is aten.embedding_dense_backward.default else 0
    return masks + strays + counts + (sum(_wide(s) for s in writes) if strays else 0)


def _pool(operator: Operator, operands: Operands, reads: list[Spec], writes: list[Spec]) -> int:
    """A resampling has weights and places for each point of an axis, and one that smooths goes axis by axis."""
    copied = _copied(operator, operands, reads, writes)
    if "upsample" not in operator.name:
        return copied
    source, result = list(operands.get("input_size") or operands["self"].shape), list(operands["output_size"])
    axes = list(zip(source[2:], result, strict=False))
    taps: int = sum(after * (4 * max(before // max(after, 1), 1) + 9) for before, after in axes)
    passes: int = math.prod([*source[:2], *[max(pair) for pair in axes]]) * 8 if "_aa" in operator.name else 0
    return copied + 16 * taps + passes


def _sort(operator: Operator, operands: Operands, reads: list[Spec], writes: list[Spec]) -> int:
    return 2 * sum(_wide(s) for s in (*reads, *writes))


def _shape(operator: Operator, operands: Operands, reads: list[Spec], writes: list[Spec]) -> int:
    if operator.func in _ROW_BY_ROW:
        return 64 + sum(s.nbytes for s in reads if not s.rows)
    return 2 * (_copied(operator, operands, reads, writes) + 32)


def _random(operator: Operator, operands: Operands, reads: list[Spec], writes: list[Spec]) -> int:
    if operator.func is aten.multinomial.default:
        return 3 * sum(_wide(s) for s in reads) + sum(s.nbytes for s in writes)
    return sum(s.nbytes for s in writes) if reads else 0


def _matrices(reads: list[Spec]) -> int:
    """Elements of all ``reads``, each repeated for the batch that they broadcast to."""
    try:
        batch = math.prod(broadcast(*[s.shape[:-2] for s in reads]))
    except RuntimeError:
        batch = max((math.prod(s.shape[:-2]) for s in reads), default=1)
    return sum(max(batch * math.prod(s.shape[-2:]), s.elements) for s in reads)


def _linalg(operator: Operator, operands: Operands, reads: list[Spec], writes: list[Spec]) -> int:
    blocks = 16 * (_longest(reads) + 64) * 64
    width = max((s.dtype.itemsize for s in (*reads, *writes)), default=8)
    return 4 * max(width, 8) * (_matrices(reads) + sum(s.elements for s in writes)) + blocks


def _fft(operator: Operator, operands: Operands, reads: list[Spec], writes: list[Spec]) -> int:
    return 3 * (sum(_wide(s, 16) for s in reads) + sum(_wide(s, 16) for s in writes))


_WORKSPACE: dict[Kind, Rule] = {
    Kind.POINTWISE: _pointwise, Kind.REDUCE: _reduce, Kind.MATMUL: _matmul, Kind.CONV: _conv, Kind.POOL: _pool, Kind.NORM: _copied,
    Kind.INDEX: _index, Kind.SORT: _sort, Kind.SHAPE: _shape, Kind.RANDOM: _random, Kind.LINALG: _linalg,
    Kind.FFT: _fft,
}  # fmt: skip


# -- results whose size depends on values: at most


def _indexed(operands: Operands, reads: list[Spec]) -> int:
    """`x[..., mask, ..., indices, ...]`: a mask of n elements stands for up to n rows, beside other indices that broadcast to them."""
    x: Spec = operands["self"]
    given = [s for s in operands["indices"] if s is not None]
    masks = [s for s in given if s.dtype in (torch.bool, torch.uint8)]
    others = broadcast(*[s.shape for s in given if s not in masks])
    rows = math.prod(others) * (1 if others and others[-1] != 1 else max((m.elements for m in masks), default=1))
    dims, kept = 0, 1
    for spec in operands["indices"]:
        if spec is None:
            kept *= x.shape[dims]
        dims += len(spec.shape) if spec in masks else 1
    kept *= math.prod(x.shape[dims:])
    aside: int = sum(m.elements * (8 * len(m.shape) + 8) for m in masks) + sum(_wide(s) for s in given)
    aside += int(rows * kept) * x.dtype.itemsize
    return aside


def _selected(operands: Operands, reads: list[Spec]) -> int:
    return _broadcast(reads) * (2 * reads[0].dtype.itemsize + 24)


def _coordinates(operands: Operands, reads: list[Spec]) -> int:
    return reads[0].elements * (16 * len(reads[0].shape) + 16)


def _per_element(count: int) -> Callable[[Operands, list[Spec]], int]:
    return lambda operands, reads: count * sum(s.elements for s in reads)


_DYNAMIC: dict[Any, Callable[[Operands, list[Spec]], int]] = {
    aten.index.Tensor: _indexed,
    aten.masked_select.default: _selected,
    aten.nonzero.default: _coordinates,
    aten._unique2.default: _per_element(160),
    aten.unique_dim.default: _per_element(160),
    aten.unique_consecutive.default: lambda operands, reads: (64 if operands.get("dim") is None else 512) * reads[0].elements,
    aten.bincount.default: _per_element(16),  # and its result, which engine/bounds measures
    aten.repeat_interleave.Tensor: _per_element(24),  # likewise
    aten._local_scalar_dense.default: _per_element(0),
    aten.equal.default: _per_element(16),
    aten.allclose.default: lambda operands, reads: 32 * _broadcast(reads),
}
