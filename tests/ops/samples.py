"""Sample operands for every operator of the table.

    samples(operator)   fresh, equal operands at each call, as (args, kwargs); all of them legal
    by schema           pointwise operators: tensors of equal, broadcast, 0-dim, empty, transposed and mixed-dtype operands
    by name             SPECIAL, for operators whose operands must fit one another

A tensor stands for an operand at the worker, `Local` for a 0-dim tensor of the caller's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from syftlite.ops.operator import Operator

F32, F64, BF16, I64, I32, U8, BOOL, C64 = (
    torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool, torch.complex64,
)  # fmt: skip
INF = float("inf")


class Sample(NamedTuple):
    """One call's operands."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Local(NamedTuple):
    """A 0-dim tensor of the caller, beside remote operands."""

    tensor: torch.Tensor


class K(dict[str, Any]):
    """Keyword arguments, as the last item of a special sample."""


class Make:
    """Tensors from one seeded stream."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(7)

    def f(self, *shape: int, dtype: torch.dtype = F32) -> torch.Tensor:
        """Normal values."""
        return torch.randn(shape, generator=self.generator, dtype=F64).to(dtype)

    def u(self, *shape: int, low: float = 0.05, high: float = 0.95, dtype: torch.dtype = F32) -> torch.Tensor:
        """Uniform values of [low, high)."""
        return (torch.rand(shape, generator=self.generator, dtype=F64) * (high - low) + low).to(dtype)

    def i(self, high: int, *shape: int, low: int = 0, dtype: torch.dtype = I64) -> torch.Tensor:
        """Integers of [low, high)."""
        return torch.randint(low, high, shape, generator=self.generator).to(dtype)

    def b(self, *shape: int) -> torch.Tensor:
        """Booleans."""
        return torch.rand(shape, generator=self.generator) > 0.4

    def cl(self, *shape: int) -> torch.Tensor:
        """Normal values in channels-last order."""
        return self.f(*shape).to(memory_format=torch.channels_last)


def samples(operator: Operator) -> list[Sample]:
    """Fresh operands for ``operator``, the same values at each call."""
    name = operator.name.removeprefix("aten.")
    make = Make()
    if name in SPECIAL:
        given = [_sample(s) for s in SPECIAL[name](make)]
    elif name.startswith("_foreach_"):
        given = list(_foreach(operator, make))
    else:
        given = [s for s in _pointwise(operator, name, make) if _legal(operator, s)]
    return given


def _sample(given: Any) -> Sample:
    args = given if isinstance(given, tuple) else (given,)
    return Sample(args[:-1], dict(args[-1])) if args and isinstance(args[-1], K) else Sample(args, {})


def plain(value: Any) -> Any:
    """``value`` as a local call takes it."""
    if isinstance(value, Local):
        return value.tensor
    return [plain(v) for v in value] if type(value) is list else value


def clone(value: Any) -> Any:
    """``value`` with tensors of its own, of the same strides."""
    if isinstance(value, torch.Tensor):
        dense = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype)
        overlapping = any(step == 0 and size > 1 for size, step in zip(value.shape, value.stride(), strict=True))
        return value if overlapping else dense.copy_(value)
    return [clone(v) for v in value] if type(value) is list else value


def _legal(operator: Operator, sample: Sample) -> bool:
    try:
        if operator.func is A.nan_to_num_.default and sample.args[0].is_complex():
            return False  # the meta kernel refuses it, so the client does
        operator.func(*(clone(plain(a)) for a in sample.args), **{k: clone(plain(v)) for k, v in sample.kwargs.items()})
    except (RuntimeError, TypeError, ValueError, IndexError):
        return False
    return True


# -- by schema

_SCALARS: dict[str, Any] = {
    "alpha": 2, "beta": 2.0, "value": 0.5, "min": -0.5, "max": 0.5, "exponent": 2, "weight": 0.3, "scale": 1.5, "input_scale": 1.0,
    "negative_slope": 0.1, "threshold": 0.2, "lambd": 0.4, "min_val": -0.5, "max_val": 0.5, "eps": 0.1, "reduction": 1, "delta": 0.7,
    "is_result": False, "self_is_result": False, "decimals": 1, "nan": 0.5, "posinf": None, "neginf": None, "rounding_mode": "floor",
    "p": 0.4, "lambd_": 1.0, "mean": 0.5, "std": 2.0, "from": -1.0, "to": 2.0, "other": 2, "self": 2, "approximate": "tanh",
}  # fmt: skip
_ABOVE_ONE = {"acosh"}
_UNIT = {"logit", "logit_backward", "acos", "asin", "atanh", "binary_cross_entropy", "binary_cross_entropy_backward", "log", "log_", "log2",
         "erfinv", "log10", "log1p", "log1p_", "sqrt", "sqrt_", "rsqrt", "rsqrt_", "pow", "pow_", "lgamma", "digamma", "bernoulli",
         "special_ndtri", "special_entr", "special_zeta", "igamma", "igammac"}  # fmt: skip
_FORMS: tuple[tuple[tuple[int, ...], ...], ...] = (
    ((3, 4), (3, 4), (3, 4), (3, 4)),
    ((), (), (), ()),
    ((0, 3), (0, 3), (0, 3), (0, 3)),
    ((2, 3, 4), (4,), (3, 1), ()),
    ((1, 4), (3, 1), (3, 4), (4,)),
)
_DTYPES: tuple[tuple[torch.dtype, ...], ...] = (
    (F64,) * 4, (BF16,) * 4, (I64,) * 4, (U8,) * 4, (BOOL,) * 4, (C64,) * 4, (F32, I64, F32, F32), (I32, F64, F64, F64),
        (F32, BOOL, F32, F32),
    (BOOL, F32, F32, F32), (F32, F64, BOOL, F32),
)  # fmt: skip


def _pointwise(operator: Operator, name: str, make: Make) -> Iterator[Sample]:
    tensors = [p for p in operator.parameters if p.code in "Tt"]
    for shapes in _FORMS:
        yield _fill(operator, name, make, shapes, (F32,) * 4)
    for dtypes in _DTYPES:
        yield _fill(operator, name, make, _FORMS[0], dtypes)
    transposed = _fill(operator, name, make, ((4, 3),) * 4, (F32,) * 4)
    yield Sample(tuple(a.t() if isinstance(a, torch.Tensor) else a for a in transposed.args), transposed.kwargs)
    for turned in range(len(tensors)) if len(tensors) > 1 else ():  # operands of different layouts: whose does the result take?
        mixed = _fill(operator, name, make, _FORMS[0], (F32,) * 4)
        place = [i for i, p in enumerate(operator.parameters) if p.code in "Tt"][turned]
        args = list(mixed.args)
        if place < len(args):
            args[place] = args[place].t().contiguous().t()
        yield Sample(tuple(args), mixed.kwargs)
    if len(tensors) > 1 and operator.codes[:2] == ("T", "T"):
        base = _fill(operator, name, make, _FORMS[0], (F32,) * 4)
        for second in (2.5, 3, True, 1.5j, Local(torch.tensor(0.5)), Local(torch.tensor(2)), Local(torch.tensor(1 - 2j))):
            yield Sample((base.args[0], second, *base.args[2:]), base.kwargs)
    reductions = [i for i, p in enumerate(operator.parameters) if p.name == "reduction"]
    for reduction in (0, 2) if reductions else ():
        base = _fill(operator, name, make, _FORMS[0], (F32,) * 4)
        args = list(base.args)
        args[reductions[0]] = reduction
        if name.endswith("_backward.default") and reduction == 2:
            args[0] = make.f()
        yield Sample(tuple(args), base.kwargs)


def _fill(operator: Operator, name: str, make: Make, shapes: tuple[tuple[int, ...], ...], dtypes: tuple[torch.dtype, ...]) -> Sample:
    base = name.split(".")[0]
    low, high = (1.1, 3.0) if base in _ABOVE_ONE else (0.05, 0.95) if base in _UNIT else (-2.0, 2.0)
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    seen = 0
    for position, parameter in enumerate(operator.parameters):
        value: Any
        if parameter.code == "-":
            continue
        if parameter.code in "Tt":
            dtype = BOOL if parameter.name in ("condition", "mask") else dtypes[seen]
            if dtype is BOOL:
                value = make.b(*shapes[seen])
            elif dtype.is_floating_point or dtype.is_complex:
                value = make.u(*shapes[seen], low=low, high=high, dtype=dtype)
            else:
                value = make.i(7, *shapes[seen], low=1, dtype=dtype)
            seen += 1
        else:
            value = _SCALARS[parameter.name] if parameter.name in _SCALARS else _refuse(operator, parameter.name)
        if position < len(operator.codes):
            args.append(value)
        else:
            kwargs[parameter.name] = value
    return Sample(tuple(args), kwargs)


def _refuse(operator: Operator, name: str) -> Any:
    raise LookupError(f"{operator.name}: no sample value is known for {name!r}; add one to _SCALARS or an entry to SPECIAL")


def _foreach(operator: Operator, make: Make) -> Iterator[Sample]:
    for shapes, dtype in (((3, 4), (2,), ()), F32), (((2, 2), (0,)), F64), (((4,),), F32):
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for position, parameter in enumerate(operator.parameters):
            value: Any
            if parameter.code == "-" or parameter.name == "dtype":
                continue
            if parameter.code == "L":
                value = [make.u(*s, dtype=dtype) for s in shapes]
            elif parameter.code == "T":
                value = make.f(dtype=dtype)
            elif parameter.code == "S":
                value = [1.5, 2.5, 0.5][: len(shapes)]
            else:
                value = 2 if parameter.name == "ord" else 0.5
            if position < len(operator.codes):
                args.append(value)
            else:
                kwargs[parameter.name] = value
        yield Sample(tuple(args), kwargs)


# -- by name


def _reductions(m: Make) -> list[Any]:
    return [m.f(3, 4), m.f(), m.f(0, 3), m.i(5, 3, 4), m.b(2, 3), m.f(4, 3).t(), m.f(3, 4, dtype=BF16), (m.i(9, 4), K(dtype=F64))]


def _over(m: Make) -> list[Any]:
    return [(m.f(3, 4), 1), (m.f(2, 3, 4), 0, True), (m.f(4, 3).t(), -1), (m.i(5, 3, 4), 0), (m.f(), 0), (m.f(0, 3), 1)]


def _over_list(m: Make) -> list[Any]:
    return [(m.f(2, 3, 4), [0, 2]), (m.f(3, 4), [1], True), (m.f(3, 4), None), (m.f(0, 3), [1]), (m.f(4, 3).t(), [-1])]


def _moments(m: Make) -> list[Any]:
    return [m.f(3, 4), (m.f(3, 4), [0]), (m.f(2, 3, 4), [0, 2], K(correction=0, keepdim=True)),
        (m.f(4, 3, dtype=F64).t(), [1], K(correction=1))]


def _index_write(m: Make) -> list[Any]:
    return [(m.f(5, 4), 0, m.i(5, 3), m.f(3, 4)), (m.f(2, 6), 1, m.i(6, 2, dtype=I32), m.f(2, 2)), (m.f(), 0, m.i(1, 1), m.f(1)),
            (m.f(4, 5).t(), 0, m.i(5, 3), m.f(3, 4)), (m.i(9, 5), 0, m.i(5, 0), m.i(9, 0))]  # fmt: skip


def _scatter(m: Make) -> list[Any]:
    return [(m.f(4, 5), 1, m.i(5, 4, 3), m.f(4, 3)), (m.f(4, 5), 0, m.i(4, 2, 5), m.f(3, 5)), (m.f(), 0, m.i(1), m.f()),
            (m.f(5, 4).t(), 1, m.i(5, 4, 3), m.f(4, 3)), (m.i(9, 6), 0, m.i(6, 4), m.i(9, 4)), (m.f(4), 0, m.i(4, 0), m.f(0))]  # fmt: skip


def _indexed(m: Make) -> list[Any]:
    return [(m.f(5, 4), [m.i(5, 3)], m.f(3, 4)), (m.f(5, 4), [None, m.i(4, 2)], m.f(5, 2)), (m.f(5, 4), [m.i(5, 3), m.i(4, 3)], m.f(3)),
            (m.f(3, 4), [m.b(3, 4)], m.f()), (m.f(5), [m.i(5, 4)], m.f(4), True), (m.i(9, 5), [m.i(5, 0)], m.i(9, 0)),
        (m.f(4, 3).t(), [m.i(3, 2)], m.f(2, 4))]  # fmt: skip


def _sizes(m: Make) -> list[Any]:
    return [([2, 3],), ([],), ([0, 2],), ([3], K(dtype=F64)), ([2], K(dtype=I64))]


def _like(m: Make) -> list[Any]:
    return [m.f(2, 3), m.f(), m.f(3, 2).t(), (m.i(4, 3), K(dtype=F64)), (m.cl(1, 2, 3, 3), K(memory_format=torch.contiguous_format)),
        m.f(0, 2)]


def _maxpool(operator: Any, m: Make, x: torch.Tensor, *options: Any) -> tuple[Any, ...]:
    out, indices = operator(x, *options)
    return (m.f(*out.shape), x, *options, indices)


def _conv(m: Make) -> list[Any]:
    one, zero = [1, 1], [0, 0]
    return [
        (m.f(2, 3, 6, 6), m.f(4, 3, 3, 3), m.f(4), one, [1, 1], one, False, zero, 1),
        (m.cl(2, 4, 6, 6), m.f(4, 2, 3, 3), None, [2, 2], zero, one, False, zero, 2),
        (m.f(1, 2, 7), m.f(3, 2, 3), m.f(3), [1], [0], [2], False, [0], 1),
        (m.f(1, 2, 4, 4, 4), m.f(2, 2, 2, 2, 2), None, [1] * 3, [0] * 3, [1] * 3, False, [0] * 3, 1),
        (m.f(2, 3, 4, 4), m.f(3, 2, 3, 3), m.f(2), [2, 2], [1, 1], one, True, [1, 1], 1),
        (m.f(2, 3, 6, 6, dtype=F64), m.f(3, 1, 3, 3, dtype=F64), None, one, one, one, False, zero, 3),
        (m.i(5, 1, 2, 5, 5), m.i(3, 2, 2, 3, 3), None, one, zero, one, False, zero, 1),
    ]


def _conv_backward(m: Make) -> list[Any]:
    out = []
    for x, w, bias, *geometry in _conv(m)[:6]:
        grad = torch.ops.aten.convolution(x, w, bias, *geometry)
        out.append((m.f(*grad.shape, dtype=x.dtype), x, w, [grad.shape[1]] if bias is not None else [0], *geometry,
        [True, True, bias is not None]))
    return [*out, (*out[0][:3], None, *out[0][4:-1], [True, True, False]), (*out[0][:-1], [False, True, False]), (*out[0][:-1], [True, False, False])]


def _batch_norm(m: Make) -> list[Any]:
    return [(m.f(4, 3), m.f(3), m.f(3), m.f(3), m.u(3), True, 0.1, 1e-5),
        (m.f(2, 3, 4, 4), m.f(3), m.f(3), m.f(3), m.u(3), False, 0.1, 1e-5),
            (m.cl(2, 3, 4, 4), None, None, None, None, True, 0.1, 1e-5),
        (m.f(3, 2, 4).transpose(0, 1), m.f(3), m.f(3), m.f(3), m.u(3), True, 0.3, 1e-5),
            (m.f(0, 3), m.f(3), m.f(3), m.f(3), m.u(3), False, 0.1, 1e-5)]  # fmt: skip


def _batch_norm_backward(m: Make) -> list[Any]:
    found = []
    for x, w, bias, mean, var, training, momentum, eps in _batch_norm(m)[:4]:
        out, save_mean, save_invstd = torch.ops.aten.native_batch_norm(x, w, bias, mean, var, training, momentum, eps)
        found.append((m.f(*out.shape), x, w, mean, var, save_mean, save_invstd, training, eps, [True, w is not None, w is not None]))
    return found


def _layer_norm_backward(m: Make) -> list[Any]:
    found = []
    for x, shape, w, bias in ((m.f(2, 3, 4), [4], m.f(4), m.f(4)), (m.f(2, 3, 4), [3, 4], None, None),
        (m.f(4, 6, dtype=F64).t(), [4], None, None)):
        out, mean, rstd = torch.ops.aten.native_layer_norm(x, shape, w, bias, 1e-5)
        found.append((m.f(*out.shape, dtype=x.dtype), x, shape, mean, rstd, w, bias, [True, w is not None, w is not None]))
    return found


def _group_norm_backward(m: Make) -> list[Any]:
    found = []
    for x, w, n, c, hw, groups in ((m.f(2, 6, 4), m.f(6), 2, 6, 4, 3), (m.f(1, 4, 3, 3), None, 1, 4, 9, 2)):
        _, mean, rstd = torch.ops.aten.native_group_norm(x, w, None, n, c, hw, groups, 1e-5)
        found.append((m.f(*x.shape), x, mean, rstd, w, n, c, hw, groups, [True, w is not None, w is not None]))
    return found


def _nll(m: Make, *, plane: tuple[int, ...] = ()) -> list[Any]:
    full = [(m.f(4, 3, *plane), m.i(3, 4, *plane), w, reduction, ignored) for w in (None, m.u(3)) for reduction,
        ignored in ((0, -100), (1, 1), (2, -100))]
    return full if plane else [*full, (m.f(3), m.i(3), None, 1, -100), (m.f(0, 3), m.i(3, 0), None, 2, -100)]


def _nll_backward(m: Make, forward: Any, *, plane: tuple[int, ...] = ()) -> list[Any]:
    found = []
    for x, target, w, reduction, ignored in _nll(m, plane=plane):
        out, total = forward(x, target, w, reduction, ignored)
        found.append((m.f(*out.shape), x, target, w, reduction, ignored, total))
    return found


def _softmax(m: Make) -> list[Any]:
    return [(m.f(3, 4), 1, False), (m.f(2, 3, 4), 0, False), (m.f(), 0, False), (m.f(4, 3).t(), -1, False), (m.f(0, 3), 1, False)]


def _softmax_backward(m: Make) -> list[Any]:
    return [(m.f(3, 4), m.u(3, 4), 1, F32), (m.f(2, 3, 4), m.u(2, 3, 4), 0, F32), (m.f(4, 3, dtype=F64).t(), m.u(3, 4, dtype=F64), -1, F64)]


def _pads(m: Make, dims: int) -> list[Any]:
    return [(m.f(2, 3, *(5, 4)[:dims]), [1, 2, 2, 1][: 2 * dims]), (m.f(3, *(6, 5)[:dims]), [0, 1, 1, 0][: 2 * dims])]


def _pads_backward(m: Make, dims: int, forward: Any) -> list[Any]:
    return [(m.f(*forward(x, pad).shape), x, pad) for x, pad in _pads(m, dims)]


def _matrices(m: Make) -> list[torch.Tensor]:
    """Square matrices: one, a batch, none, by columns, of doubles, of complex numbers; far from singular."""
    found = [m.f(3, 3), m.f(2, 4, 4), m.f(0, 2, 2), m.f(3, 3).t(), m.f(5, 5, dtype=F64), m.f(2, 2, dtype=C64), m.f(0, 0)]
    return [x + 4 * torch.eye(x.shape[-1], dtype=x.dtype) for x in found[:3]] + [found[3], *found[4:]]


def _positive(m: Make) -> list[torch.Tensor]:
    return [x @ x.mH + torch.eye(x.shape[-1], dtype=x.dtype) for x in _matrices(m)]


def _systems(m: Make) -> list[Any]:
    return [(x, m.f(*x.shape[:-1], 2).to(x.dtype)) for x in _matrices(m)]


def _factored(m: Make) -> list[Any]:
    return [A.linalg_lu_factor_ex(x)[:2] for x in _matrices(m)]


def _triangles(m: Make) -> list[Any]:
    return [(x.triu(), b, K(upper=True)) for x, b in _systems(m)] + [
        (m.f(3, 3).tril() + 3 * torch.eye(3), m.f(2, 3), K(upper=False, left=False, unitriangular=True))]


def _rectangles(m: Make) -> list[torch.Tensor]:
    return [m.f(3, 5), m.f(2, 5, 3), m.f(4, 3).t(), m.f(0, 3, 2), m.f(3, 4, dtype=F64), m.f(3, 2, dtype=C64), m.f(2, 0)]


def _spectra(m: Make) -> list[Any]:
    half = [(m.f(3, 4), [1], 6), (m.f(2, 3, 5), [0, 1, 2], 9), (m.f(4, 3, dtype=F64).t(), [1], 7), (m.f(4), [0], 6)]
    return [(x.to(torch.complex128 if x.dtype is F64 else C64), dim, n, size) for n, (x, dim, size) in enumerate([*half[:3], half[3]])]


def _upsampled(m: Make, dims: int, align: bool) -> list[Any]:
    """Enlarged and shrunk; with scales, and without."""
    sizes = (3, 4, 2)[:dims]
    larger, smaller = [2 * size for size in sizes], [2] * dims
    options: list[Any] = [[False], [True]] if align else [[], []]
    return [(m.f(1, 2, *sizes), larger, *options[0]), (m.f(2, 3, *sizes), larger, *options[1], *[2.0] * dims),
        (m.f(2, 1, *sizes), smaller, *options[0]), (m.f(1, 2, *sizes, dtype=F64), larger, *options[1])]


def _upsampled_backward(m: Make, dims: int, align: bool) -> list[Any]:
    return [(m.f(*x.shape[:2], *size, dtype=x.dtype), size, list(x.shape), *rest) for x, size, *rest in _upsampled(m, dims, align)]


def _grids(m: Make, dims: int) -> list[Any]:
    """Points within and outside, by each way to interpolate and to pad."""
    sizes = (4, 5, 3)[:dims]
    modes = [(way, pad, (way + pad) % 2 == 0) for way in range(3 if dims == 2 else 2) for pad in range(3)]
    return [(m.f(2, 3, *sizes), m.f(2, *(2, 6, 3)[:dims], dims), *mode) for mode in modes] + [
        (m.f(1, 2, *sizes, dtype=F64), m.f(1, *sizes, dims, dtype=F64), 0, 0, False), (m.f(0, 2, *sizes), m.f(0, *sizes, dims), 0, 1, True)]


def _grids_backward(m: Make, dims: int) -> list[Any]:
    found = [(m.f(*x.shape[:2], *grid.shape[1:-1], dtype=x.dtype), x, grid, *modes, [True, True]) for x, grid, *modes in _grids(m, dims)[:-1]]
    return [*found, (*found[0][:-1], [False, True])]


def _three_dim_pool(m: Make) -> list[Any]:
    return [(m.f(2, 3, 4, 6, 5), [2, 3, 2]), (m.f(3, 5, 5, 4), [1, 1, 1]), (m.f(1, 2, 4, 4, 4, dtype=F64), [3, 3, 3])]


A = torch.ops.aten
Special = Callable[[Make], list[Any]]
SPECIAL: dict[str, Special] = {
    **dict.fromkeys(("cummax.default", "cummin.default"),
        lambda m: [(m.f(3, 4), 1), (m.i(5, 3, 4), 0), (m.f(), 0), (m.b(4), 0), (m.f(4, 3).t(), 0), (m.f(0, 2), 0),
        (torch.tensor([1.0, float("nan"), 2.0]), 0)]),
    "logcumsumexp.default": lambda m: [(m.f(3, 4), 1), (m.f(), 0), (m.f(4, 3).t(), 0), (m.f(0, 2), 0), (m.f(2, 3, dtype=F64), 0),
        (torch.tensor([-INF, -INF, 1.0]), 0)],
    "kthvalue.default": lambda m: [(m.f(3, 4), 2), (m.i(9, 3, 4), 1, 0, True), (m.f(), 1), (m.f(4, 3).t(), 3, 1), (m.f(2, 3, dtype=F64), 1, 0)],
    "nanmedian.default": lambda m: [m.f(3, 4), m.f(), m.i(9, 5), m.f(4, 3).t(), torch.tensor([1.0, float("nan"), 2.0])],
    "nanmedian.dim": lambda m: [*_over(m)[:5], (torch.tensor([[1.0, float("nan"), 2.0]]), 1)],
    "mode.default": lambda m: [m.i(3, 4, 9), (m.i(3, 4, 9), 0, True), (m.f(3, 4), 1), m.f(), (m.i(2, 9, 4).t(), 1), (m.b(3, 4), 0)],
    "sort.stable": lambda m: [(m.i(3, 4, 9), K(stable=True)), (m.f(3, 4), K(stable=True, dim=0, descending=True)), (m.f(4, 3).t(), K(stable=None, dim=1)),
        (m.f(), K(stable=False)), (m.f(0, 2), K(stable=True))],
    "unique_dim.default": lambda m: [(m.i(2, 9, 2), 0), (m.i(2, 3, 9), 1, True, True, True), (m.f(4, 2), 0, False, False, True), (m.i(3, 0), 0),
        (m.b(9, 1), 0, True, True)],
    "polygamma.default": lambda m: [(n, m.u(3, 4, dtype=d)) for n, d in ((0, F32), (1, F32), (2, F64), (3, F32))] + [(1, m.u()), (1, m.i(9, 4, low=1))],
    "nonzero_static.default": lambda m: [(m.b(3, 4), K(size=5)), (m.i(2, 5), K(size=9, fill_value=-2)), (m.b(), K(size=1)), (m.f(0, 2), K(size=3)),
        (m.i(2, 5), K(size=0))],
    "multinomial.default": lambda m: [(m.u(4), 2), (m.u(3, 4), 3), (m.u(3, 4), 9, True), (m.u(5, dtype=F64), 7, True), (m.u(4, 3).t(), 2)],
    "random_.default": lambda m: [m.f(2, 3), m.i(3, 3, 2).t(), m.b(4), m.i(3, 2, dtype=U8)],
    "random_.to": lambda m: [(m.f(2, 3), 9), (m.i(3, 3, 2).t(), 100)],
    "random_.from": lambda m: [(m.f(2, 3), -3, 9), (m.i(3, 2), 5, None), (m.i(3, 2, dtype=I32), 2, 7)],
    "geometric_.default": lambda m: [(m.f(2, 3), 0.3), (m.i(3, 2), 0.6), (m.f(3, 2, dtype=F64).t(), 0.5)],
    "log_normal_.default": lambda m: [m.f(2, 3), (m.f(3, 2, dtype=F64).t(), 0.5, 0.7)],
    "cauchy_.default": lambda m: [m.f(2, 3), (m.f(3, 2, dtype=F64).t(), 0.5, 0.7)],
    "grid_sampler_2d.default": lambda m: _grids(m, 2), "grid_sampler_2d_backward.default": lambda m: _grids_backward(m, 2),
    "grid_sampler_3d.default": lambda m: _grids(m, 3), "grid_sampler_3d_backward.default": lambda m: _grids_backward(m, 3),
    **{f"{name}{dims}d{after}{end}.default": lambda m, dims=dims, align=align, made=made: made(m, dims, align)
        for name, dims, after, align in (
            ("upsample_nearest", 1, "", False), ("upsample_linear", 1, "", True), ("upsample_nearest", 3, "", False), ("upsample_trilinear", 3, "", True),
            ("upsample_bicubic", 2, "", True), ("_upsample_nearest_exact", 1, "", False), ("_upsample_nearest_exact", 2, "", False),
            ("_upsample_nearest_exact", 3, "", False), ("_upsample_bilinear", 2, "_aa", True), ("_upsample_bicubic", 2, "_aa", True))
        for end, made in (("", _upsampled), ("_backward", _upsampled_backward))},
    "adaptive_max_pool3d.default": _three_dim_pool,
    "adaptive_max_pool3d_backward.default": lambda m: [
        ((out := A.adaptive_max_pool3d(x, size))[0] * 2, x, out[1]) for x, size in _three_dim_pool(m)],
    **{f"{name}_pad3d.default": lambda m: [(m.f(2, 3, 5, 4, 3), [1, 2, 2, 1, 0, 1]), (m.f(3, 4, 3, 3), [0, 1, 1, 0, 1, 1])]
        for name in ("reflection", "replication")},
    **{f"{name}_pad3d_backward.default": lambda m, name=name: [(m.f(*getattr(A, f"{name}_pad3d")(x, pad).shape), x, pad) for x, pad in (
        (m.f(2, 3, 5, 4, 3), [1, 2, 2, 1, 0, 1]), (m.f(3, 4, 3, 3), [0, 1, 1, 0, 1, 1]))] for name in ("reflection", "replication")},
    "complex.default": lambda m: [(m.f(3, 4), m.f(3, 4)), (m.f(), m.f()), (m.f(2, 3), m.f(3)), (m.f(4, 3).t(), m.f(3, 4)),
        (m.f(2, dtype=F64), m.f(2, dtype=F64)), (m.f(0), m.f(0))],
    "polar.default": lambda m: [(m.u(3, 4), m.f(3, 4)), (m.u(), m.f()), (m.u(2, 3), m.f(3)), (m.u(4, 3).t(), m.f(3, 4)),
        (m.u(2, dtype=F64), m.f(2, dtype=F64)), (m.u(0), m.f(0))],
    "view_as_complex.default": lambda m: [m.f(3, 2), m.f(2), m.f(2, 3, 2).transpose(0, 1), m.f(3, 2, dtype=F64), m.f(0, 2)],
    "vdot.default": lambda m: [(m.f(3), m.f(3)), (m.f(4, dtype=C64), m.f(4, dtype=C64)), (m.f(0), m.f(0)), (m.f(5, dtype=F64), m.f(5, dtype=F64))],
    "linalg_cross.default": lambda m: [(m.f(2, 3), m.f(2, 3)), (m.f(3, 2), m.f(3, 1), K(dim=0)), (m.f(3, 2).t(), m.f(2, 3)),
        (m.f(0, 3), m.f(0, 3)), (m.f(2, 3, dtype=C64), m.f(2, 3, dtype=C64))],
    "_fft_r2c.default": lambda m: [(m.f(3, 4), [1], 0, True), (m.f(3, 5), [0, 1], 1, True), (m.f(4, 3, dtype=F64).t(), [1], 2, False),
        (m.f(2, 3, 4), [0], 0, True), (m.f(6), [0], 0, False)],
    "_fft_c2r.default": lambda m: [(x, dim, n % 3, 2 * x.shape[dim[-1]] - 1 - n % 2) for x, dim, n, _ in _spectra(m)],
    "_fft_c2c.default": lambda m: [(x, dim, n % 3, n % 2 == 0) for x, dim, n, _ in _spectra(m)],
    "linalg_inv_ex.default": lambda m: [*_matrices(m), (_matrices(m)[0], K(check_errors=True)), torch.zeros(2, 2)],
    "_linalg_solve_ex.default": lambda m: [*_systems(m), (m.f(3, 3), m.f(3)), (m.f(3, 3), m.f(2, 3), K(left=False, check_errors=True))],
    "linalg_cholesky_ex.default": lambda m: [*_positive(m), (_positive(m)[1], K(upper=True, check_errors=True)), m.f(3, 3)],
    "cholesky_solve.default": lambda m: [(b, torch.linalg.cholesky(x)) for x, (_, b) in zip(_positive(m), _systems(m), strict=True)]
        + [(m.f(3, 2), torch.linalg.cholesky(_positive(m)[0], upper=True), True)],
    "cholesky_inverse.default": lambda m: [*map(torch.linalg.cholesky, _positive(m)), (_positive(m)[0].triu(), True)],
    "linalg_solve_triangular.default": _triangles,
    "linalg_lu_factor_ex.default": lambda m: [*_matrices(m), *_rectangles(m), (_matrices(m)[1], K(check_errors=True))],
    "linalg_lu.default": lambda m: [*_matrices(m), *_rectangles(m)],
    "linalg_lu_solve.default": lambda m: [(*lu, b) for lu, (_, b) in zip(_factored(m), _systems(m), strict=True)]
        + [(*_factored(m)[0], m.f(2, 3), K(left=False, adjoint=True))],
    "lu_unpack.default": lambda m: [*_factored(m), (*_factored(m)[1], True, False), (*_factored(m)[1], False, True)],
    "_linalg_det.default": _matrices, "_linalg_slogdet.default": _matrices,
    "linalg_qr.default": lambda m: [*_rectangles(m), (_rectangles(m)[1], "complete"), (_rectangles(m)[0], "r")],
    "_linalg_svd.default": lambda m: [*_rectangles(m), (_rectangles(m)[1], True), (_rectangles(m)[0], False, False)],
    "_linalg_eigh.default": lambda m: [*_positive(m), (_positive(m)[1], "U"), (_positive(m)[0], "L", False)],
    "syftlite.encode.default": lambda m: [(x, 2, 16) for x in (m.f(3, 4), m.f(), m.f(0), m.f(4, 3).t(), m.f(4, 6)[:, ::2], m.i(9, 3), m.b(5),
        m.f(2, 3, dtype=F64), m.f(3, dtype=BF16), m.f(3, 1).expand(3, 4))] + [(m.f(3), 10, 3), (m.f(3), 2, 0)],
    "where.self": lambda m: [(m.b(3, 4), m.f(3, 4), m.f(4)), (m.b(), m.f(2), m.i(3, 2)), (m.b(0), m.f(0), m.f(0))],
    "masked_fill.Scalar": lambda m: [(m.f(3, 4), m.b(3, 4), 0.5), (m.f(3, 4), m.b(4), 2), (m.f(), m.b(), -INF), (m.i(9, 3), m.b(3), 1),
        (m.f(0, 2), m.b(2), 0)],
    "masked_fill.Tensor": lambda m: [(m.f(3, 4), m.b(3, 4), m.f()), (m.f(3, 4), m.b(4), m.f(dtype=F64)),
        (m.f(3, 4), m.b(3, 1), Local(torch.tensor(2.0)))],
    "masked_fill_.Scalar": lambda m: [(m.f(3, 4), m.b(3, 4), 0.5), (m.f(4, 3).t(), m.b(4), 2), (m.f(), m.b(), -INF)],
    "masked_fill_.Tensor": lambda m: [(m.f(3, 4), m.b(3, 4), m.f()), (m.f(3, 4), m.b(4), Local(torch.tensor(2.0)))],
    "glu.default": lambda m: [(m.f(3, 4),), (m.f(4, 3), 0), (m.f(0, 2), 1)],
    "glu_backward.default": lambda m: [(m.f(3, 2), m.f(3, 4), 1), (m.f(2, 3), m.f(4, 3), 0)],
    "_prelu_kernel.default": lambda m: [(m.f(3, 4), m.f(1, 4)), (m.f(3, 4), m.f(1, 1)), (m.f(0, 4), m.f(1, 4))],
    "_prelu_kernel_backward.default": lambda m: [(m.f(3, 4), m.f(3, 4), m.f(1, 4)), (m.f(3, 4), m.f(3, 4), m.f(1, 1))],
    "log_sigmoid_backward.default": lambda m: [(m.f(3, 4), (x := m.f(3, 4)), A.log_sigmoid_forward(x)[1]),
        (m.f(), (y := m.f()), A.log_sigmoid_forward(y)[1])],
    "elu_backward.default": lambda m: [(m.f(3, 4), 1.5, 1.0, 1.0, False, m.f(3, 4)), (m.f(4), 1.0, 2, 1, True, m.f(4)),
        (m.f(), 1, 1, 1, False, m.f())],
    "huber_loss.default": lambda m: [(m.f(3, 4), m.f(3, 4), r, 0.5) for r in (0, 1, 2)],
    "smooth_l1_loss_backward.default": lambda m: [(m.f() if r else m.f(3, 4), m.f(3, 4), m.f(3, 4), r, 0.5) for r in (0, 1, 2)],
    "huber_loss_backward.default": lambda m: [(m.f() if r else m.f(3, 4), m.f(3, 4), m.f(3, 4), r, 0.5) for r in (0, 1, 2)],
    "soft_margin_loss_backward.default": lambda m: [(m.f() if r else m.f(3, 4), m.f(3, 4), m.f(3, 4).sign(), r) for r in (0, 1, 2)],
    "mse_loss_backward.default": lambda m: [(m.f() if r else m.f(3, 4), m.f(3, 4), m.f(3, 4), r) for r in (0, 1, 2)],
    "binary_cross_entropy.default": lambda m: [(m.u(3, 4), m.u(3, 4), w, r) for r in (0, 1, 2) for w in (None, m.u(4))],
    "binary_cross_entropy_backward.default": lambda m: [(m.f() if r else m.f(3, 4), m.u(3, 4), m.u(3, 4), w, r) for r in (0, 1,
        2) for w in (None, m.u(4))],
    "binary_cross_entropy_with_logits.default": lambda m: [(m.f(3, 4), m.u(3, 4), w, q, r) for r in (0, 1, 2) for w,
        q in ((None, None), (m.u(4), m.u(4)))],
    "round.decimals": lambda m: [(m.f(3, 4), K(decimals=1)), (m.f(), K(decimals=-1)), (m.f(4, 3, dtype=F64).t(), K(decimals=2)),
        (m.f(0), K(decimals=1))],
    "clone.default": lambda m: [m.f(2, 3), m.f(), m.f(3, 2).t(), (m.f(1, 2, 3, 3), K(memory_format=torch.channels_last)),
        m.f(1, 3).expand(2, 3), m.b(0, 2)],
    "copy_.default": lambda m: [(m.f(2, 3), m.f(2, 3)), (m.f(2, 3), m.f(3)), (m.f(3, 2).t(), m.i(9, 2, 3)), (m.i(9, 3), m.f(3)),
        (m.f(2), m.f())],
    "_to_copy.default": lambda m: [(m.f(2, 3), K(dtype=d)) for d in (F64, I64, BOOL, BF16, C64)] + [m.f(3, 2).t(),
        (m.f(1, 2, 3, 3), K(memory_format=torch.channels_last))],
    "fill_.Scalar": lambda m: [(m.f(2, 3), 0.5), (m.i(4, 3), 2), (m.f(), True), (m.f(3, 2).t(), -1)],
    "fill_.Tensor": lambda m: [(m.f(2, 3), m.f()), (m.i(4, 3), m.i(9)), (m.f(3), Local(torch.tensor(2.0)))],
    "sum.default": _reductions,
    "mean.default": lambda m: [m.f(3, 4), m.f(), m.f(0, 3), m.f(4, 3).t(), (m.i(9, 4), K(dtype=F64))],
    "prod.default": _reductions,
    "nansum.default": lambda m: [(torch.tensor([[1.0, float("nan")], [2.0, 3.0]]),), (m.f(2, 3, 4), [0, 2]),
        (m.f(3), None, False, K(dtype=F64)), m.f(0, 2)],
    "sum.dim_IntList": lambda m: [*_over_list(m), (m.i(9, 3, 2), [0], K(dtype=F32)), (m.b(3, 2), [0])], "mean.dim": _over_list,
    "count_nonzero.default": lambda m: [m.i(2, 3, 4), (m.f(2, 3), 1), m.b(0)],
    "count_nonzero.dim_IntList": lambda m: [(m.i(2, 3, 4), [0]), (m.b(2, 3, 4), [0, 2])],
    "trace.default": lambda m: [m.f(3, 4), m.i(9, 2, 2), m.f(3, 4, dtype=F64).t()],
    "prod.dim_int": lambda m: [*_over(m), (m.i(5, 3, 4), 0, K(dtype=F64))],
    "amax.default": lambda m: [(m.f(3, 4),), (m.f(2, 3, 4), [0, 2]), (m.i(5, 3, 4), [1], True), (m.f(), [0])],
    "amin.default": lambda m: [(m.f(3, 4),), (m.f(2, 3, 4), [0, 2]), (m.i(5, 3, 4), [1], True), (m.f(), [0])],
    **dict.fromkeys(("max.default", "min.default", "median.default"), lambda m: [m.f(3, 4), m.f(), m.i(9, 5), m.f(4, 3).t()]),
    **dict.fromkeys(("max.dim", "min.dim", "median.dim"), lambda m: _over(m)[:5]),
    "aminmax.default": lambda m: [m.f(3, 4), (m.i(9, 3, 4), K(dim=1)), (m.f(3, 4), K(dim=0, keepdim=True)), m.f()],
    **dict.fromkeys(("argmax.default", "argmin.default"),
        lambda m: [m.f(3, 4), (m.f(3, 4), 1), (m.i(5, 3, 4), 0, True), m.f(), (m.f(4, 3).t(), 1)]),
    **dict.fromkeys(("all.default", "any.default"), lambda m: [m.b(3, 4), m.f(2), m.b(), m.b(0), m.i(2, 3, dtype=U8)]),
    **dict.fromkeys(("all.dim", "any.dim"), lambda m: [(m.b(3, 4), 1), (m.i(2, 3, 4), 0, True), (m.b(), 0), (m.b(0, 3), 0), (m.f(3, 4), 1)]),
    **dict.fromkeys(("all.dims", "any.dims"), lambda m: [(m.b(2, 3, 4), [0, 2]), (m.i(2, 3, 4), [1], True), (m.b(3, 4), None), (m.f(2, 3, 4), [0, 2])]),
    "var.correction": _moments, "std.correction": _moments, "var_mean.correction": _moments, "std_mean.correction": _moments,
    "histc.default": lambda m: [(m.f(20), 5, -2, 2), (m.f(3, 4), 4), (m.f(5, dtype=F64), 3, 0, 1), (m.f(0), 3, 0, 1)],
    "linalg_vector_norm.default": lambda m: [m.f(3, 4), (m.f(3, 4), 1, [0]), (m.f(3, 4), INF, [1], True),
        (m.f(2, 3, 4), 3.0, [0, 2], K(dtype=F64)), (m.f(3), 0), m.f(0, 3)],
    "norm.ScalarOpt_dim": lambda m: [(m.f(3, 4), 2, [1]), (m.f(3, 4), None, [0], True), (m.f(2, 3, 4), 3.0, [0, 2]), (m.f(3, 4), 1, [1])],
    "logsumexp.default": lambda m: [(m.f(3, 4), [1]), (m.f(2, 3, 4), [0, 2], True), (m.f(), [0]), (m.i(4, 3, 2), [0])],
    "cumsum.default": lambda m: [(m.f(3, 4), 1), (m.i(5, 3, 4), 0), (m.f(), 0), (m.b(4), 0), (m.f(4, 3).t(), 0, K(dtype=F64)),
        (m.f(0, 2), 0)],
    "cumprod.default": lambda m: [(m.f(3, 4), 1), (m.i(5, 3, 4), 0), (m.f(), 0), (m.f(4, 3).t(), 0, K(dtype=F64))],
    "_safe_softmax.default": lambda m: [(m.f(3, 4), 1), (torch.tensor([[0.0, -INF], [-INF, -INF]]), -1), (m.f(2, 3, 4), 0, K(dtype=F64)),
        (m.f(), 0)],
    "_softmax.default": _softmax,
    "_log_softmax.default": _softmax,
    "_softmax_backward_data.default": _softmax_backward,
    "_log_softmax_backward_data.default": _softmax_backward,
    "nll_loss_forward.default": _nll, "nll_loss_backward.default": lambda m: _nll_backward(m, A.nll_loss_forward),
    "nll_loss2d_forward.default": lambda m: _nll(m, plane=(2, 2)),
    "nll_loss2d_backward.default": lambda m: _nll_backward(m, A.nll_loss2d_forward, plane=(2, 2)),
    "view.default": lambda m: [(m.f(3, 4), [4, 3]), (m.f(3, 4), [-1]), (m.f(), [1, 1]), (m.f(0, 3), [3, 0]), (m.f(2, 3, 4), [6, 4])],
    "_unsafe_view.default": lambda m: [(m.f(3, 4), [4, 3]), (m.f(3, 4), [-1]), (m.f(), [1])],
    "expand.default": lambda m: [(m.f(3, 1), [3, 4]), (m.f(4), [2, -1]), (m.f(), [2, 2]), (m.f(1, 0), [3, 0])],
    "permute.default": lambda m: [(m.f(2, 3, 4), [2, 0, 1]), (m.f(3, 4), [-1, 0]), (m.f(), [])],
    "t.default": lambda m: [m.f(3, 4), m.f(3), m.f()], "transpose.int": lambda m: [(m.f(2, 3, 4), 0, -1), (m.f(3, 4), 0, 1), (m.f(), 0, 0)],
    "squeeze.default": lambda m: [m.f(1, 3, 1), m.f(3), m.f()], "squeeze.dim": lambda m: [(m.f(1, 3), 0), (m.f(2, 3), -1), (m.f(), 0)],
    "squeeze.dims": lambda m: [(m.f(1, 3, 1), [0, 2]), (m.f(2, 1), [1])],
    "unsqueeze.default": lambda m: [(m.f(3), 0), (m.f(), -1), (m.f(2, 3), 1)],
    "select.int": lambda m: [(m.f(3, 4), 0, 1), (m.f(3, 4), -1, -2), (m.f(4, 3).t(), 1, 2)],
    "slice.Tensor": lambda m: [(m.f(5, 4), 0, 1, 4), (m.f(5, 4), 1, None, None, 2), (m.f(5), 0, -3, 100), (m.f(5), 0, 4, 2),
        (m.f(4, 5).t(), 0, 0, 2), (m.f(3),)],
    "split.Tensor": lambda m: [(m.f(5, 2), 2), (m.f(2, 6), 3, 1), (m.f(0, 2), 2)],
    "split_with_sizes.default": lambda m: [(m.f(5, 2), [2, 3]), (m.f(2, 6), [1, 0, 5], 1)],
    "unsafe_split.Tensor": lambda m: [(m.f(5, 2), 2), (m.f(2, 6), 3, 1)],
    "unbind.int": lambda m: [(m.f(3, 2),), (m.f(3, 2), 1), (m.f(0, 2), 0)],
    "diagonal.default": lambda m: [(m.f(3, 4),), (m.f(3, 4), 1), (m.f(2, 3, 4), -1, 1, 2)], "alias.default": lambda m: [m.f(3, 4), m.f()],
    "unfold.default": lambda m: [(m.f(5, 4), 0, 2, 1), (m.f(6), 0, 3, 2), (m.f(), 0, 1, 1)],
    "view_as_real.default": lambda m: [m.f(3, 2, dtype=C64), m.f(dtype=C64)],
    "cat.default": lambda m: [([m.f(2, 3), m.f(1, 3)],), ([m.f(2, 3), m.f(2, 1)], 1), ([m.f(0), m.f(2)],), ([m.f(2), m.i(4, 2)],),
        ([m.f(3, 2).t(), m.f(2, 3)], -1)],
    "stack.default": lambda m: [([m.f(2, 3), m.f(2, 3)],), ([m.f(2), m.f(2), m.f(2)], 1), ([m.f(), m.f()],), ([m.f(0)], 0)],
    "repeat.default": lambda m: [(m.f(2, 3), [2, 1]), (m.f(3), [2, 2]), (m.f(), [3]), (m.f(2), [0])],
    "flip.default": lambda m: [(m.f(2, 3), [0]), (m.f(2, 3), [0, 1]), (m.f(3, 2).t(), [-1])],
    "roll.default": lambda m: [(m.f(2, 3), [1]), (m.f(2, 3), [1, 2], [0, 1]), (m.f(4), [-1], [0]), (m.f(0), [1], [0])],
    "tril.default": lambda m: [m.f(3, 4), (m.f(2, 3, 3), 1), (m.f(4, 3).t(), -1)],
    "triu.default": lambda m: [m.f(3, 4), (m.f(2, 3, 3), 1), (m.i(9, 3, 3), -1)],
    "constant_pad_nd.default": lambda m: [(m.f(2, 3), [1, 2]), (m.f(2, 3), [1, 0, 0, 2], 0.5), (m.f(4), [-1, 1], 2), (m.f(2, 3), [0, 0])],
    "select_backward.default": lambda m: [(m.f(4), [3, 4], 0, 1), (m.f(3), [3, 4], 1, -1)],
    "slice_backward.default": lambda m: [(m.f(2, 4), [5, 4], 0, 1, 3, 1), (m.f(3), [6], 0, 0, 6, 2)],
    "diagonal_backward.default": lambda m: [(m.f(3), [3, 4], 0, 0, 1), (m.f(2, 3), [2, 4, 3], -1, 1, 2)],
    "unfold_backward.default": lambda m: [(m.f(4, 4, 2), [5, 4], 0, 2, 1), (m.f(2, 3), [6], 0, 3, 2)],
    "diag_embed.default": lambda m: [(m.f(3),), (m.f(2, 3), 1), (m.f(2, 3), -1, 0, 2)],
    "diagonal_copy.default": lambda m: [(m.f(3, 4),), (m.f(3, 4), 1)],
    "reflection_pad2d.default": lambda m: _pads(m, 2),
    "reflection_pad1d.default": lambda m: _pads(m, 1),
    "replication_pad2d.default": lambda m: _pads(m, 2),
    "replication_pad1d.default": lambda m: _pads(m, 1),
    "reflection_pad2d_backward.default": lambda m: _pads_backward(m, 2, A.reflection_pad2d),
    "reflection_pad1d_backward.default": lambda m: _pads_backward(m, 1, A.reflection_pad1d),
    "replication_pad2d_backward.default": lambda m: _pads_backward(m, 2, A.replication_pad2d),
    "replication_pad1d_backward.default": lambda m: _pads_backward(m, 1, A.replication_pad1d),
    "pow.Tensor_Scalar": lambda m: [(m.u(3, 4), 2), (m.u(), 0.5), (m.u(4, 3).t(), -1.5), (m.i(5, 3), 3), (m.u(3, dtype=C64), 1 + 2j),
        (m.u(2, dtype=F64), 2j), (m.u(0, 3), 2)],
    "pixel_shuffle.default": lambda m: [(m.f(1, 4, 2, 3), 2), (m.f(9, 1, 1), 3)],
    "pixel_unshuffle.default": lambda m: [(m.f(1, 1, 4, 6), 2), (m.f(1, 3, 3), 3)],
    "im2col.default": lambda m: [(m.f(2, 3, 5, 5), [2, 2], [1, 1], [0, 0], [1, 1]), (m.f(1, 1, 6, 4), [3, 2], [1, 1], [1, 0], [2, 1])],
    "col2im.default": lambda m: [(m.f(2, 12, 16), [5, 5], [2, 2], [1, 1], [0, 0], [1, 1]),
        (m.f(1, 4, 4), [4, 4], [2, 2], [1, 1], [0, 0], [2, 2])],
    "mm.default": lambda m: [(m.f(2, 3), m.f(3, 4)), (m.f(3, 2).t(), m.f(4, 3).t()), (m.i(5, 2, 3), m.i(5, 3, 2)), (m.f(2, 0), m.f(0, 3)),
        (m.f(2, 3, dtype=F64), m.f(3, 1, dtype=F64))],
    "bmm.default": lambda m: [(m.f(2, 2, 3), m.f(2, 3, 4)), (m.f(2, 3, 2).mT, m.f(1, 3, 4).expand(2, 3, 4)),
        (m.i(5, 1, 2, 3), m.i(5, 1, 3, 2)), (m.f(0, 2, 3), m.f(0, 3, 1))],
    "addmm.default": lambda m: [(m.f(4), m.f(2, 3), m.f(3, 4)), (m.f(2, 4), m.f(2, 3), m.f(4, 3).t(), K(beta=0.5, alpha=2)),
        (m.f(), m.f(2, 3), m.f(3, 1)), (m.i(5, 2), m.i(5, 2, 3), m.i(5, 3, 2))],
    "addmv.default": lambda m: [(m.f(2), m.f(2, 3), m.f(3)), (m.f(), m.f(3, 2).t(), m.f(3), K(beta=0.5, alpha=2))],
    "mv.default": lambda m: [(m.f(2, 3), m.f(3)), (m.f(3, 2).t(), m.f(3)), (m.i(5, 2, 2), m.i(5, 2))],
    "dot.default": lambda m: [(m.f(3), m.f(3)), (m.i(5, 4), m.i(5, 4)), (m.f(0), m.f(0))],
    "baddbmm.default": lambda m: [(m.f(2, 2, 4), m.f(2, 2, 3), m.f(2, 3, 4)),
        (m.f(4), m.f(2, 2, 3), m.f(2, 4, 3).mT, K(beta=2, alpha=0.5))],
    "addbmm.default": lambda m: [(m.f(2, 4), m.f(3, 2, 3), m.f(3, 3, 4)), (m.f(4), m.f(2, 2, 3), m.f(2, 3, 4), K(beta=2, alpha=0.5))],
    "addr.default": lambda m: [(m.f(2, 3), m.f(2), m.f(3)), (m.f(3), m.f(2), m.f(3), K(beta=2, alpha=0.5))],
    "convolution.default": _conv, "convolution_backward.default": _conv_backward,
    "max_pool2d_with_indices.default": lambda m: [(m.f(2, 3, 6, 6), [2, 2]), (m.cl(1, 2, 5, 5), [3], [1], [1], [1], True),
        (m.f(2, 7, 7), [2, 3], [2, 2], [0, 1], [2, 1])],
    "max_pool2d_with_indices_backward.default": lambda m: [_maxpool(A.max_pool2d_with_indices, m, x, k, s, p, d, c) for x, k, s, p, d,
        c in (
        (m.f(2, 3, 6, 6), [2, 2], [2, 2], [0, 0], [1, 1], False), (m.cl(1, 2, 5, 5), [3, 3], [1, 1], [1, 1], [1, 1], True))],
    "max_pool3d_with_indices.default": lambda m: [(m.f(1, 2, 4, 4, 4), [2, 2, 2]), (m.f(2, 4, 4, 4), [3], [1], [1], [1], True)],
    "max_pool3d_with_indices_backward.default": lambda m: [_maxpool(A.max_pool3d_with_indices, m, m.f(1, 2, 4, 4, 4), [2] * 3, [2] * 3,
        [0] * 3, [1] * 3, False)],
    "avg_pool2d.default": lambda m: [(m.f(2, 3, 6, 6), [2, 2]), (m.cl(1, 2, 5, 5), [3], [1], [1], True, False),
        (m.f(2, 7, 7), [2, 3], [2, 2], [0, 1], False, True, 4)],
    "avg_pool2d_backward.default": lambda m: [(m.f(2, 3, 3, 3), m.f(2, 3, 6, 6), [2, 2], [2, 2], [0, 0], False, True, None),
        (m.f(1, 2, 5, 5), m.cl(1, 2, 5, 5), [3, 3], [1, 1], [1, 1], True, False, 3)],
    "avg_pool3d.default": lambda m: [(m.f(1, 2, 4, 4, 4), [2, 2, 2]), (m.f(2, 4, 4, 4), [3], [1], [1], True, False, 5)],
    "avg_pool3d_backward.default": lambda m: [(m.f(1, 2, 2, 2, 2), m.f(1, 2, 4, 4, 4), [2] * 3, [2] * 3, [0] * 3, False, True, None)],
    "adaptive_max_pool2d.default": lambda m: [(m.f(2, 3, 6, 6), [2, 3]), (m.f(3, 5, 5), [1, 1]), (m.cl(1, 2, 4, 4), [3, 3])],
    "adaptive_max_pool2d_backward.default": lambda m: [(m.f(2, 3, 2, 3), (x := m.f(2, 3, 6, 6)), A.adaptive_max_pool2d(x, [2, 3])[1])],
    "_adaptive_avg_pool2d.default": lambda m: [(m.f(2, 3, 6, 6), [2, 3]), (m.f(3, 5, 5), [1, 1]), (m.cl(1, 2, 4, 4), [3, 3])],
    "_adaptive_avg_pool2d_backward.default": lambda m: [(m.f(2, 3, 2, 3), m.f(2, 3, 6, 6)), (m.f(3, 1, 1), m.f(3, 5, 5)),
        (m.cl(1, 2, 3, 3), m.cl(1, 2, 4, 4))],
    "_adaptive_avg_pool3d.default": lambda m: [(m.f(1, 2, 4, 4, 4), [2, 2, 1]), (m.f(2, 4, 4, 4), [1, 1, 1])],
    "_adaptive_avg_pool3d_backward.default": lambda m: [(m.f(1, 2, 2, 2, 1), m.f(1, 2, 4, 4, 4))],
    "upsample_nearest2d.default": lambda m: [(m.f(1, 2, 3, 4), [6, 8]), (m.f(1, 2, 3, 4), [6, 8], 2.0, 2.0), (m.cl(2, 2, 4, 4), [2, 2])],
    "upsample_nearest2d_backward.default": lambda m: [(m.f(1, 2, 6, 8), [6, 8], [1, 2, 3, 4]),
        (m.f(1, 2, 6, 8), [6, 8], [1, 2, 3, 4], 2.0, 2.0)],
    "upsample_bilinear2d.default": lambda m: [(m.f(1, 2, 3, 4), [6, 8], False), (m.f(1, 2, 3, 4), [6, 8], True, 2.0, 2.0),
        (m.cl(2, 2, 4, 4), [2, 2], False)],
    "upsample_bilinear2d_backward.default": lambda m: [(m.f(1, 2, 6, 8), [6, 8], [1, 2, 3, 4], False),
        (m.f(1, 2, 6, 8), [6, 8], [1, 2, 3, 4], True, 2.0, 2.0)],
    "native_batch_norm.default": _batch_norm, "native_batch_norm_backward.default": _batch_norm_backward,
    "native_layer_norm.default": lambda m: [(m.f(2, 3, 4), [4], m.f(4), m.f(4), 1e-5), (m.f(2, 3, 4), [3, 4], None, None, 1e-5),
        (m.f(4, 2).t(), [4], m.f(4), None, 1e-5), (m.f(0, 4), [4], None, None, 1e-5)],
    "native_layer_norm_backward.default": _layer_norm_backward,
    "native_group_norm.default": lambda m: [(m.f(2, 6, 4), m.f(6), m.f(6), 2, 6, 4, 3, 1e-5),
        (m.f(1, 4, 3, 3), None, None, 1, 4, 9, 2, 1e-5), (m.cl(2, 4, 3, 3), m.f(4), m.f(4), 2, 4, 9, 2, 1e-5)],
    "native_group_norm_backward.default": _group_norm_backward,
    "index.Tensor": lambda m: [(m.f(5, 4), [m.i(5, 3)]), (m.f(5, 4), [None, m.i(4, 2, 2)]), (m.f(5, 4), [m.i(5, 3), m.i(4, 1)]),
        (m.f(3, 4), [m.b(3, 4)]), (m.f(3, 4), [m.b(3)]), (m.f(4, 5).t(), [m.i(5, 0)]), (m.f(5, 4), [m.i(5, 3, dtype=I32)])],
    "index_select.default": lambda m: [(m.f(5, 4), 0, m.i(5, 3)), (m.f(5, 4), 1, m.i(4, 2, dtype=I32)), (m.f(), 0, m.i(1, 1)),
        (m.f(4, 5).t(), 0, m.i(5, 2)), (m.i(9, 4), 0, m.i(4, 0))],
    "gather.default": lambda m: [(m.f(4, 5), 1, m.i(5, 4, 3)), (m.f(4, 5), 0, m.i(4, 2, 5)), (m.f(), 0, m.i(1)),
        (m.f(5, 4).t(), 1, m.i(5, 4, 2)), (m.f(4), 0, m.i(4, 0))],
    "scatter.src": _scatter, "scatter_.src": _scatter, "scatter_add.default": _scatter, "scatter_add_.default": _scatter,
    **dict.fromkeys(("scatter.value", "scatter_.value"),
        lambda m: [(x, d, i, 0.5 if x.is_floating_point() else 2) for x, d, i, _ in _scatter(m)]),
    "scatter_reduce.two": lambda m: [(x, d, i, s, r) for (x, d, i, s),
        r in zip(_scatter(m), ("sum", "prod", "mean", "amax", "amin", "sum"), strict=True)] + [(*_scatter(m)[0], "sum",
        K(include_self=False))],
    **dict.fromkeys(("index_add.default", "index_add_.default"),
        lambda m: [*_index_write(m)[:2], (m.f(), 0, m.i(1), m.f()), *_index_write(m)[3:], (*_index_write(m)[0], K(alpha=2))]),
    **dict.fromkeys(("index_copy.default", "index_copy_.default"), lambda m: [(x, d, i.long(), s) for x, d, i, s in _index_write(m)]),
    "embedding.default": lambda m: [(m.f(6, 3), m.i(6, 4)), (m.f(6, 3), m.i(6, 2, 2, dtype=I32), 0), (m.f(6, 3), m.i(6)),
        (m.f(6, 3), m.i(6, 0))],
    "embedding_dense_backward.default": lambda m: [(m.f(4, 3), m.i(6, 4), 6, -1, False),
        (m.f(2, 2, 3), m.i(6, 2, 2, dtype=I32), 6, 0, False), (m.f(4, 3), m.i(6, 4), 6, -1, True)],
    "nonzero.default": lambda m: [m.b(3, 4), m.i(2, 5), m.b(), m.f(0, 2)],
    "masked_select.default": lambda m: [(m.f(3, 4), m.b(3, 4)), (m.f(3, 4), m.b(4)), (m.f(), m.b()), (m.f(0), m.b(0))],
    "index_put.default": _indexed, "index_put_.default": _indexed,
    **dict.fromkeys(("index_fill.int_Scalar", "index_fill_.int_Scalar"),
        lambda m: [(m.f(5, 4), 0, m.i(5, 2), 0.5), (m.i(9, 2, 3), 1, m.i(3, 2), 1), (m.f(), 0, m.i(1, 1), 1)]),
    "take.default": lambda m: [(m.f(3, 4), m.i(12, 5)), (m.f(4, 3).t(), m.i(12, 2, 2, low=-12)), (m.f(3), m.i(3, 0)), (m.f(), m.i(1))],
    "put.default": lambda m: [(m.f(3, 4), m.i(12, 5), m.f(5)), (m.f(4, 3).t(), m.i(12, 2, 2), m.f(2, 2), True),
        (m.f(3), m.i(3, 0), m.f(0))],
    "masked_scatter.default": lambda m: [(m.f(3, 4), m.b(3, 4), m.f(12)), (m.f(3, 4), m.b(4), m.f(12)), (m.f(0), m.b(0), m.f(0))],
    "isin.Tensor_Tensor": lambda m: [(m.i(9, 3, 4), m.i(9, 3)), (m.i(9, 20), m.i(9, 30), K(assume_unique=False, invert=True)),
        (m.f(3), m.f(0))],
    "searchsorted.Tensor": lambda m: [(m.f(5).sort()[0], m.f(2, 3)), (m.f(2, 5).sort()[0], m.f(2, 3), K(right=True)),
        ((x := m.f(5)), m.f(3), K(sorter=x.argsort())), (m.f(4).sort()[0], m.f(2), K(out_int32=True, side="right"))],
    "bucketize.Tensor": lambda m: [(m.f(2, 3), m.f(4).sort()[0]), (m.i(9, 3), m.i(9, 4).sort()[0], K(right=True, out_int32=True)),
        (m.f(), m.f(2).sort()[0])],
    "repeat_interleave.Tensor": lambda m: [m.i(4, 5), m.i(3, 4, dtype=I32), m.i(2, 0), (torch.tensor([1, 2, 3]), K(output_size=6))],
    "bincount.default": lambda m: [m.i(6, 9), (m.i(4, 5), m.f(5)), (m.i(4, 5, dtype=U8), None, 8), m.i(2, 0)],
    "sort.default": lambda m: [m.f(3, 4), (m.f(3, 4), 0, True), (m.i(3, 9),), m.f(), (m.f(4, 3).t(), 1), m.f(0, 2)],
    "topk.default": lambda m: [(m.f(3, 4), 2), (m.f(3, 4), 3, 0, False, False), (m.i(99, 6), 0), (m.f(), 1)],
    "_unique2.default": lambda m: [m.i(4, 9), (m.f(3, 2), True, True, True), (m.b(5), True, False, True), m.i(3, 0)],
    "unique_consecutive.default": lambda m: [m.i(2, 9), (m.i(2, 3, 4), True, True, 0), (m.f(3), False, True)],
    "empty.memory_format": lambda m: [*_sizes(m), ([1, 2, 3, 3], K(memory_format=torch.channels_last))],
    "zeros.default": _sizes,
    "ones.default": _sizes,
    "rand.default": lambda m: _sizes(m)[:4],
    "randn.default": lambda m: _sizes(m)[:4],
    "full.default": lambda m: [([2, 3], 0.5), ([], 2), ([0], True), ([2], 1, K(dtype=F64)), ([2], -INF)],
    "arange.default": lambda m: [(5,), (2.5,), (0,), (3, K(dtype=F64))],
    "arange.start": lambda m: [(1, 5), (0.5, 2.5), (2, 3, K(dtype=I32))],
    "arange.start_step": lambda m: [(1, 9, 2), (1.0, 0.0, -0.25), (0, 1, 0.3, K(dtype=F64))],
    "linspace.default": lambda m: [(0, 1, 5), (0.0, -1.0, 3, K(dtype=F64)), (0, 1, 0), (0, 9, 4, K(dtype=I64))],
    "eye.default": lambda m: [(3,), (0,), (2, K(dtype=I64))],
    "eye.m": lambda m: [(3, 2), (0, 2), (2, 3, K(dtype=I64))],
    "scalar_tensor.default": lambda m: [(0.5,), (2,), (True, K(dtype=BOOL)), (3, K(dtype=F64))],
    **dict.fromkeys(("empty_like.default", "zeros_like.default", "ones_like.default"), _like),
    **dict.fromkeys(("rand_like.default", "randn_like.default"),
        lambda m: [s if isinstance(s, torch.Tensor) else (s[0].float(), s[1]) for s in _like(m)]),
    "full_like.default": lambda m: [(m.f(2, 3), 0.5), (m.i(4, 2), 3), (m.f(3, 2).t(), 1, K(dtype=F64))],
    "randint_like.default": lambda m: [(m.i(4, 2, 3), 5), (m.f(3, 2).t(), 9), (m.f(2), 3, K(dtype=I64))],
    **dict.fromkeys(("new_empty.default", "new_zeros.default", "new_ones.default"),
        lambda m: [(m.f(2), [2, 3]), (m.i(4, 2), [0]), (m.f(), [2], K(dtype=F64))]),
    "new_full.default": lambda m: [(m.f(2), [2, 3], 0.5), (m.i(4, 2), [], 2)],
    "empty_strided.default": lambda m: [([2, 3], [1, 2]), ([2, 3], [3, 1], K(dtype=I64)), ([], []), ([2, 2], [0, 1])],
    "new_empty_strided.default": lambda m: [(m.f(2), [2, 3], [1, 2]), (m.i(3, 1), [2], [1]), (m.f(1), [2, 2], [1, 1])],
    "randint.default": lambda m: [(9, [2, 3]), (2, [], K(dtype=I32)), (5, [0])],
    "randint.low": lambda m: [(-3, 9, [2, 3]), (5, 6, [2], K(dtype=F32))],
    "randperm.default": lambda m: [(5,), (0,), (4, K(dtype=F32))],
    **dict.fromkeys(("uniform_.default", "normal_.default"),
        lambda m: [(m.f(2, 3),), (m.f(3, 2, dtype=F64).t(), 1.0, 2.0), (m.f(),), (m.f(0),), (m.f(2, 2, dtype=BF16), 0.0, 0.5)]),
    "exponential_.default": lambda m: [m.f(2, 3), (m.f(3, 2, dtype=F64).t(), 2.0), m.f(0)],
    "native_dropout.default": lambda m: [(m.f(4, 5), 0.4, True), (m.f(3), 0.5, False), (m.f(4, 3, dtype=F64).t(), 0.2, None),
        (m.f(), 1.0, True)],
    "native_dropout_backward.default": lambda m: [(m.f(3, 4), m.b(3, 4), 2.0), (m.f(), m.b(), 1.5), (m.f(0), m.b(0), 1.0)],
    "_local_scalar_dense.default": lambda m: [m.f(), m.i(9, 1), m.b(1, 1), m.f(1, dtype=F64)],
    "equal.default": lambda m: [((x := m.f(3, 4)), x.clone()), (m.f(3), m.f(3)), (m.f(2), m.f(3)), (m.f(0), m.f(0))],
    "allclose.default": lambda m: [((x := m.f(3, 4)), x + 1e-9), (m.f(3), m.f(3)), (m.f(2), m.f(2), 10.0, 10.0, True), (m.f(0), m.f(0))],
}  # fmt: skip
