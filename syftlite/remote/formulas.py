"""Functions of torch that are no operators of the table: by their formulas, as the reviewed operators that they are made of.

    rot90, block_diag, narrow_copy, channel_shuffle, fill_diagonal_, index_fill     by views and copies
    index_reduce, scatter(reduce=...)                                               by scatter_reduce
    ldexp, shifts, rad2deg, isposinf, mvlgamma, dist, cdist, pdist, renorm          by arithmetic
    isin, searchsorted, bucketize, remainder, copysign, xlogy                       of a number, by those of a tensor
    normal, bernoulli_                                                              by the noise that their kernels draw
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from syftlite._torch import aten, broadcast
from syftlite.remote.dispatch import emit
from syftlite.remote.handle import RemoteTensor
from syftlite.remote.rules import at_worker, formula_of, rule_of

# -- shapes


@formula_of(aten.rot90.default)
def _rot90(x: torch.Tensor, k: int = 1, dims: Sequence[int] = (0, 1)) -> torch.Tensor:
    first, second = dims
    if x.dim() < 2 or first % x.dim() == second % x.dim():
        raise RuntimeError(f"expected two distinct dims of a tensor that has at least two, got {list(dims)} of {x.dim()}")
    if k % 4 == 1:
        return x.flip(second).transpose(first, second)
    if k % 4 == 3:
        return x.flip(first).transpose(first, second)
    return x.flip(first, second) if k % 4 else x.clone()


@formula_of(aten.block_diag.default)
def _block_diag(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    blocks = [x.reshape(1, -1) if x.dim() < 2 else x for x in tensors]
    kinds = [torch.empty(0, dtype=x.dtype) for x in blocks]
    dtype = torch.cat(kinds).dtype
    first = next(x for x in blocks if isinstance(x, RemoteTensor))
    out = first.new_zeros((sum(x.shape[0] for x in blocks), sum(x.shape[1] for x in blocks)), dtype=dtype)
    row = column = 0
    for x in blocks:
        out[row : row + x.shape[0], column : column + x.shape[1]].copy_(x)
        row, column = row + x.shape[0], column + x.shape[1]
    return out


@formula_of(aten.narrow_copy.default)
def _narrow_copy(x: torch.Tensor, dim: int, start: int, length: int) -> torch.Tensor:
    return x.narrow(dim, start, length).clone(memory_format=torch.contiguous_format)


@formula_of(aten.channel_shuffle.default, aten.native_channel_shuffle.default)
def _channel_shuffle(x: torch.Tensor, groups: int) -> torch.Tensor:
    if x.dim() < 3 or groups < 1 or x.shape[1] % groups:
        raise RuntimeError(f"channels of {list(x.shape)} do not divide into {groups} groups")
    return x.reshape(x.shape[0], groups, -1, *x.shape[2:]).transpose(1, 2).reshape(x.shape)


@rule_of(aten.fill_diagonal_.default)
def _fill_diagonal(func: Any, x: torch.Tensor, value: Any, wrap: bool = False) -> torch.Tensor:
    """With ``wrap`` the diagonal of a tall matrix begins anew, after a row between."""
    if x.dim() < 2 or (x.dim() > 2 and len(set(x.shape)) > 1):
        raise RuntimeError(f"fill_diagonal_ takes a matrix, or a tensor of equal sizes: not {list(x.shape)}")
    if not x.numel():
        return x
    step = x.shape[-1] + 1
    for start in range(0, x.shape[0], step) if wrap and x.dim() == 2 else (0,):
        diagonal = x[start:].diagonal()
        for _ in range(x.dim() - 2):
            diagonal = diagonal.diagonal(0, 0, -1)
        diagonal.fill_(value)
    return x


@formula_of(aten.index_fill.int_Tensor)
def _index_fill(x: torch.Tensor, dim: int, index: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    if value.dim():
        raise RuntimeError(f"index_fill_ only supports a 0-dimensional value tensor, but got one of {value.dim()} dimensions")
    sizes = [1] * x.dim()
    if sizes:
        sizes[dim] = x.shape[dim]
    chosen = x.new_zeros(x.shape[dim] if x.dim() else 1, dtype=torch.bool).index_fill(0, index, True)
    return torch.where(chosen.view(sizes), value.to(x.dtype), x)


@formula_of(aten.index_reduce.default)
def _index_reduce(x: torch.Tensor, dim: int, index: torch.Tensor, source: torch.Tensor, reduce: str, *, include_self: bool = True) -> Any:
    along = dim % max(x.dim(), 1)
    sizes = [index.numel() if d == along else size for d, size in enumerate(x.shape)]
    if index.dim() > 1 or list(source.shape) != sizes or reduce == "sum":
        told = f"an index of {list(index.shape)} and a source of {list(source.shape)}"
        raise RuntimeError(f'index_reduce by "{reduce}" of {list(x.shape)}: {told} do not fit, or it is no "prod", "mean", "amax", "amin"')
    places = index.view([-1 if d == along else 1 for d in range(x.dim())]).expand(sizes)
    return x.scatter_reduce(dim, places, source, reduce, include_self=include_self)


@formula_of(aten.fill.Scalar, aten.fill.Tensor)
def _fill(x: torch.Tensor, value: Any) -> torch.Tensor:
    return x.clone().fill_(value)


# -- arithmetic


@formula_of(aten.ldexp.Tensor)
def _ldexp(x: torch.Tensor, exponent: torch.Tensor) -> torch.Tensor:
    return x * torch.pow(2.0, exponent)


def _shift(left: bool) -> Any:
    func = aten.bitwise_left_shift.Tensor if left else aten.bitwise_right_shift.Tensor

    def shift(x: Any, count: Any) -> Any:
        real = [isinstance(v, float) or (isinstance(v, torch.Tensor) and v.is_floating_point()) for v in (x, count)]
        if any(real):
            return x * torch.pow(2.0, count) if left else x / torch.pow(2.0, count)
        x, count = (v if isinstance(v, torch.Tensor) else torch.tensor(v, dtype=other.dtype) for v, other in ((x, count), (count, x)))
        return emit(func, (x, count), {}, None)

    return shift


def _shift_in_place(left: bool) -> Any:
    shift = _shift(left)
    return lambda x, count: x.copy_(shift(x, count).to(x.dtype))


_left, _right = aten.bitwise_left_shift, aten.bitwise_right_shift
formula_of(aten.__lshift__.Tensor, aten.__lshift__.Scalar, _left.Tensor_Scalar, _left.Scalar_Tensor)(_shift(left=True))
formula_of(aten.__rshift__.Tensor, aten.__rshift__.Scalar, _right.Tensor_Scalar, _right.Scalar_Tensor)(_shift(left=False))
formula_of(aten.__ilshift__.Tensor, aten.__ilshift__.Scalar)(_shift_in_place(left=True))
formula_of(aten.__irshift__.Tensor, aten.__irshift__.Scalar)(_shift_in_place(left=False))


@formula_of(aten.lcm.default)
def _lcm(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    common = torch.gcd(x, y)
    return (torch.div(x, torch.where(common == 0, 1, common), rounding_mode="trunc") * y).abs()


@formula_of(aten.rad2deg.default)
def _rad2deg(x: torch.Tensor) -> torch.Tensor:
    return x * (180 / math.pi)


@formula_of(aten.deg2rad.default)
def _deg2rad(x: torch.Tensor) -> torch.Tensor:
    return x * (math.pi / 180)


@formula_of(aten.isposinf.default)
def _isposinf(x: torch.Tensor) -> torch.Tensor:
    return x == math.inf


@formula_of(aten.isneginf.default)
def _isneginf(x: torch.Tensor) -> torch.Tensor:
    return x == -math.inf


@formula_of(aten.mvlgamma.default)
def _mvlgamma(x: torch.Tensor, p: int) -> torch.Tensor:
    terms = torch.stack([torch.lgamma(x - j / 2) for j in range(p)], -1)
    return terms.sum(-1) + p * (p - 1) * math.log(math.pi) / 4


@formula_of(aten.dist.default)
def _dist(x: torch.Tensor, y: torch.Tensor, p: float = 2) -> torch.Tensor:
    distance: torch.Tensor = torch.linalg.vector_norm(x - y, p)
    return distance


@formula_of(aten._euclidean_dist.default)
def _euclidean_dist(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """|x - y|^2 = |x|^2 - 2 x.y + |y|^2, as one product of matrices."""
    x_norm, y_norm = x.square().sum(-1, keepdim=True), y.square().sum(-1, keepdim=True)
    left = torch.cat([x * -2, x_norm, torch.ones_like(x_norm)], -1)
    right = torch.cat([y, torch.ones_like(y_norm), y_norm], -1)
    return (left @ right.mT).clamp_min(0).sqrt()


@formula_of(aten._cdist_forward.default)
def _cdist(x: torch.Tensor, y: torch.Tensor, p: float, mode: int | None = None) -> torch.Tensor:
    apart = x.unsqueeze(-2) - y.unsqueeze(-3)
    distances: torch.Tensor = torch.linalg.vector_norm(apart, p, -1) if x.shape[-1] else apart.sum(-1)
    return distances


@formula_of(aten._cdist_backward.default)
def _cdist_backward(grad: torch.Tensor, x: torch.Tensor, y: torch.Tensor, p: float, distances: torch.Tensor) -> torch.Tensor:
    """d|v|_p / dv = sign(v) |v|^(p-1) / |v|_p^(p-1), and 0 where points meet."""
    apart = x.unsqueeze(-2) - y.unsqueeze(-3)
    grad, distances = grad.unsqueeze(-1), distances.unsqueeze(-1)
    if p == 0:
        slopes = torch.zeros_like(apart)
    elif math.isinf(p):
        slopes = apart.sign() * (apart.abs() == distances)
    else:
        slopes = apart.sign() * (apart.abs() / torch.where(distances == 0, 1.0, distances)) ** (p - 1)
        slopes = torch.where((distances == 0) | (apart == 0), 0.0, slopes) if p < 2 else slopes
    return (grad * slopes).sum(-2).sum_to_size(x.shape)


@rule_of(aten.pdist.default)
def _pdist(func: Any, x: torch.Tensor, p: float = 2.0) -> torch.Tensor:
    if x.dim() != 2:
        raise RuntimeError(f"pdist only supports 2D tensors, got: {x.dim()}D")
    i, j = (at_worker(rows, x) for rows in torch.triu_indices(len(x), len(x), 1))
    distances: torch.Tensor = torch.linalg.vector_norm(x[i] - x[j], p, -1)
    return distances


def _shrinking(norms: torch.Tensor, most: float) -> torch.Tensor:
    """What a row of each of ``norms`` is multiplied by so that none exceeds ``most``."""
    return torch.where(norms > most, most / (norms + 1e-7), 1.0)


@formula_of(aten.renorm.default)
def _renorm(x: torch.Tensor, p: Any, dim: int, maxnorm: Any) -> torch.Tensor:
    others = [d for d in range(x.dim()) if d != dim % x.dim()]
    factors = _shrinking(torch.linalg.vector_norm(x, p, others, keepdim=True), maxnorm)
    return x * factors


@formula_of(aten.embedding_renorm_.default)
def _embedding_renorm(weight: torch.Tensor, indices: torch.Tensor, max_norm: float, norm_type: float) -> torch.Tensor:
    used = weight.new_zeros(weight.shape[0], dtype=torch.bool).index_fill(0, indices.flatten().long(), True)
    factors = _shrinking(torch.linalg.vector_norm(weight, norm_type, 1), max_norm)
    return weight.mul_(torch.where(used, factors, 1.0).unsqueeze(1))


# -- of all elements


@formula_of(aten._is_all_true.default)
def _is_all_true(x: torch.Tensor) -> torch.Tensor:
    return x.all()


@formula_of(aten._is_any_true.default)
def _is_any_true(x: torch.Tensor) -> torch.Tensor:
    return x.any()


@formula_of(aten._unique.default)
def _unique(x: torch.Tensor, sorted: bool = True, return_inverse: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    values, inverse, _ = torch._unique2(x, sorted, return_inverse)
    return values, inverse


# -- of a number


def _with_number(func: Any, whole: bool = False) -> Any:
    """``func``, of tensors, where one of two is a number: without dimensions, of the dtype that the result has. ``whole``: that of whole
    numbers is of whole ones."""

    def call(x: Any, y: Any) -> Any:
        dtype: torch.dtype | None = torch.result_type(x, y)
        if dtype in _WHOLE and not whole:
            dtype = None
        return emit(func, tuple(v if isinstance(v, torch.Tensor) else torch.tensor(v, dtype=dtype) for v in (x, y)), {}, None)

    return call


_WHOLE = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
for _func in (aten.remainder, aten.bitwise_and, aten.bitwise_or, aten.bitwise_xor):
    formula_of(_func.Scalar_Tensor)(_with_number(_func.Tensor, whole=True))
formula_of(aten.copysign.Scalar)(_with_number(aten.copysign.Tensor))
formula_of(aten.xlogy.Scalar_Self, aten.xlogy.Scalar_Other)(_with_number(aten.xlogy.Tensor))
formula_of(aten.special_xlog1py.self_scalar, aten.special_xlog1py.other_scalar)(_with_number(aten.special_xlog1py.default))


@formula_of(aten.scatter.reduce, aten.scatter.value_reduce)
def _scatter_reduced(x: torch.Tensor, dim: int, index: torch.Tensor, source: Any, reduce: str) -> torch.Tensor:
    """By the names that `scatter` has for them."""
    if reduce not in _SCATTERED:
        raise RuntimeError(f"reduce argument must be either add or multiply, not {reduce!r}")
    if not isinstance(source, torch.Tensor):
        source = x.new_full(index.shape, source)
    return x.scatter_reduce(dim, index, source, _SCATTERED[reduce])


_SCATTERED = {"add": "sum", "multiply": "prod"}


@formula_of(aten.isin.Tensor_Scalar)
def _isin_number(x: torch.Tensor, number: Any, assume_unique: bool = False, invert: bool = False) -> torch.Tensor:
    found: torch.Tensor = x == number
    return found.logical_not() if invert else found


@formula_of(aten.isin.Scalar_Tensor)
def _number_isin(number: Any, tests: torch.Tensor, assume_unique: bool = False, invert: bool = False) -> torch.Tensor:
    found: torch.Tensor = _isin_number(tests, number).any()
    return found.logical_not() if invert else found


@formula_of(aten.searchsorted.Scalar)
def _search_number(sequence: torch.Tensor, number: Any, **options: Any) -> torch.Tensor:
    dtype = torch.result_type(sequence, number)
    place: torch.Tensor = torch.searchsorted(sequence.to(dtype), sequence.new_full((), number, dtype=dtype), **options)
    return place


@formula_of(aten.bucketize.Scalar)
def _bucket_of_number(number: Any, boundaries: torch.Tensor, **options: Any) -> torch.Tensor:
    place: torch.Tensor = _search_number(boundaries, number, **options)
    return place


# -- noise


def _standard(like: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    return like.new_empty(shape).normal_()


@formula_of(aten.normal.Tensor_Tensor)
def _normal(mean: torch.Tensor, std: torch.Tensor, generator: Any = None) -> torch.Tensor:
    return _standard(mean, broadcast(tuple(mean.shape), tuple(std.shape))).mul_(std).add_(mean)


@formula_of(aten.normal.Tensor_float)
def _normal_around(mean: torch.Tensor, std: float = 1.0, generator: Any = None) -> torch.Tensor:
    return mean.new_empty(mean.shape).normal_(0.0, std).add_(mean)


@formula_of(aten.normal.float_Tensor)
def _normal_of_width(mean: float, std: torch.Tensor, generator: Any = None) -> torch.Tensor:
    return _standard(std, std.shape).mul_(std).add_(mean)


@formula_of(aten.bernoulli_.Tensor)
def _bernoulli(x: torch.Tensor, p: torch.Tensor, generator: Any = None) -> torch.Tensor:
    return x.copy_(torch.bernoulli(p.expand(x.shape)))
