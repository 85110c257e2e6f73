"""What a FixedPrecisionTensor understands: arithmetic on ring elements whose scale, and what waits to be done, are kept with them.

    linear      views, sums, cat, pad, ...: on the ring elements, whatever divisor waits
    add, sub    over a common divisor
    products    mul, mm, bmm, ...: wait, with the scale as divisor

Comparisons and maxima: fixed_compare.py; layers: fixed_nn.py.

A float that meets the layer, a number or a plain tensor, is public: it is encoded at the same scale.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import torch

from syftlite._torch import aten, broadcast, correct_aliasing, out_of_place
from syftlite.errors import Misuse
from syftlite.tensors.arithmetic import arithmetic
from syftlite.tensors.fixed import FixedPrecisionTensor, settle
from syftlite.tensors.waiting import Product, Waiting, widest

Fixed = FixedPrecisionTensor
Args = tuple[Any, ...]
Named = dict[str, Any]
implements = FixedPrecisionTensor.implements
LIMIT = 2.0**62
FACTOR_BITS = 20
"""Binary digits of a public factor that is no whole number."""


def first_of(args: Any) -> Fixed:
    """The first operand of the layer."""
    for arg in args:
        if isinstance(arg, Fixed):
            return arg
        if isinstance(arg, (list, tuple)) and any(isinstance(a, Fixed) for a in arg):
            return first_of(arg)
    raise AssertionError("no operand of the layer")


def same_scale(*operands: Any) -> dict[str, Any]:
    """The scheme of the operands, which must have one."""
    found = [o for o in operands if isinstance(o, Fixed)]
    if any(o.scale != found[0].scale for o in found):
        told = " and ".join(f"{o.base}**{o.precision_fractional}" for o in found)
        raise Misuse(f"operands of scale {told}: fix_precision() both alike")
    return found[0].attributes()


def encoded(value: Any, scale: int, op: Any = "the operator") -> Any:
    """Public floats as ring elements of ``scale``, for ``op``: a plain tensor, or an int for a number."""
    if isinstance(value, torch.Tensor) and value.dim():
        if isinstance(value, torch.Tensor) and type(value) not in (torch.Tensor, torch.nn.Parameter):
            raise Misuse(f"a fixed-precision tensor met a {type(value).__name__}: fix_precision() it too")
        found = (value.detach().double() * scale).round()
        worst = float(found.abs().max()) if found.numel() else 0.0
        if not worst < LIMIT:
            raise _too_large(worst / scale, scale, op)
        return found.long()
    number = float(value)
    if not abs(number * scale) < LIMIT:
        raise _too_large(number, scale, op)
    return round(number * scale)


def _too_large(value: float, scale: int, op: Any) -> ValueError:
    return ValueError(f"{op}: a public operand of {value:g} does not fit in ring elements of scale {scale}: they stay below 2^62")


def terms(x: Any, y: Any, op: Any) -> tuple[Any, Any, int, dict[str, Any]]:
    """Ring elements of both over a common divisor."""
    scheme = same_scale(x, y)
    scale = first_of((x, y)).scale
    parts = [v.linear() if isinstance(v, Fixed) else (None, 1) for v in (x, y)]
    divisors = [d for (raw, d) in parts if raw is not None]
    common = max(divisors)
    if any(common % d for d in divisors) or common.bit_length() > widest(scale):
        parts = [(v._child, 1) if isinstance(v, Fixed) else (None, 1) for v in (x, y)]
        common = 1
    given = [raw if d == common else raw * (common // d) if raw is not None else None for raw, d in parts]
    left, right = (encoded(v, scale * common, op) if raw is None else raw for raw, v in zip(given, (x, y), strict=True))
    return left, right, common, scheme


def _encoded_tensor(value: Any, scale: int, op: Any) -> Any:
    found = encoded(value, scale, op)
    return found if isinstance(found, torch.Tensor) else torch.tensor(found)


# -- linear

VALUES: dict[Any, tuple[int, ...]] = {
    aten.index_put.default: (0, 2), aten.scatter_add.default: (0, 3), aten.index_add.default: (0, 3), aten.scatter.src: (0, 3),
    aten.where.self: (1, 2),
}  # fmt: skip
"""Which operands of a linear operator are values; of all others the first, or those in the first."""
MOVES = {
    aten.cat.default, aten.clone.default, aten.stack.default, aten.index.Tensor, aten.index_select.default, aten.gather.default,
    aten.flip.default, aten.repeat.default, aten.roll.default,
}  # fmt: skip
"""Operators, besides views, that give values of their operands and no others: of comparisons, comparisons."""


@implements(
    aten.alias.default, aten.cat.default, aten.clone.default, aten.constant_pad_nd.default, aten.cumsum.default,
    aten.diagonal.default, aten.expand.default, aten.flip.default, aten.gather.default, aten.index.Tensor, aten.index_select.default,
    aten.neg.default, aten.permute.default, aten.repeat.default, aten.roll.default, aten.select.int, aten.slice.Tensor,
    aten.split.Tensor, aten.split_with_sizes.default, aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims, aten.stack.default,
    aten.sum.default, aten.sum.dim_IntList, aten.t.default, aten.transpose.int, aten.tril.default, aten.triu.default, aten.unbind.int,
    aten.unfold.default, aten.unsqueeze.default, aten.view.default, aten._unsafe_view.default, aten.slice_backward.default,
    aten.select_backward.default, aten.embedding.default, aten.unfold_backward.default, aten.scatter_add.default,
    aten.scatter.src, aten.index_add.default,
)  # fmt: skip
def linear(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    """What is linear in its operands and has no constant term: the same on the ring elements."""
    kwargs.pop("dtype", None)
    if any(r.alias_info for r in func._schema.returns):
        return _view(cls, func, args, kwargs)
    places = VALUES.get(func, (0,))
    values = [v for place in places for v in (args[place] if isinstance(args[place], (list, tuple)) else [args[place]])]
    several = [v for v in values if isinstance(v, Fixed)]
    if not several or any(isinstance(v, Fixed) for i, a in enumerate(args) if i not in places for v in (a if isinstance(a, list) else [a])):
        raise Misuse(f"{func}: indices are whole numbers, not fixed-precision ones: float_precision() and long() first")
    scheme, scale = same_scale(*several), several[0].scale
    divisors = {tensor.linear()[1] for tensor in several}
    common = divisors.pop() if len(divisors) == 1 else 1
    if func is aten.constant_pad_nd.default and len(args) > 2:
        args = (*args[:2], encoded(args[2], scale * common))

    def inner(value: Any) -> Any:
        if isinstance(value, Fixed):
            return value.linear()[0] if common != 1 else value._child
        if isinstance(value, (list, tuple)):
            return [inner(v) for v in value]
        return _encoded_tensor(value, scale * common, func)

    given = [inner(a) if place in places else a for place, a in enumerate(args)]
    # the ring elements may lie in another order than the tensor says
    out = given[0].reshape(args[1]) if func is aten._unsafe_view.default else func(*given, **kwargs)
    if isinstance(out, (list, tuple)):
        return [cls.of(Waiting(o, common), scheme) for o in out]
    made = cls.of(Waiting(out, common), scheme)
    if func in MOVES and all(isinstance(v, Fixed) and v._value.truths for v in values):
        made._value.note_truths()
    return made


def _view(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    """The same view of the ring elements: whoever writes to one writes to the other."""
    x = args[0]
    out = func(x.viewable(), *args[1:], **kwargs)
    if isinstance(out, (list, tuple)):
        return [x.aliased_by(cls.of(o, x.attributes())) for o in out]
    return x.aliased_by(cls.of(out, x.attributes()))


@implements(aten.detach.default, aten.lift_fresh.default)
def _detach(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    x = args[0]
    out = cls.of(x._waiting, x.attributes(), x.shape if isinstance(x._waiting.raw, Product) or x._waiting.pool else None)
    out._value = x._value
    return out


@implements(aten._to_copy.default)
def _to(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    if kwargs.get("dtype") == torch.bool and args[0]._value.truths:
        return args[0].clone()
    if kwargs.get("dtype") not in (None, torch.float32, torch.float64):
        raise Misuse(f"a fixed-precision tensor stands for floats, not {kwargs['dtype']}: float_precision() first")
    return args[0].clone()


@implements(aten.mean.default, aten.mean.dim)
def _mean(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    x = args[0]
    dims = args[1] if len(args) > 1 and args[1] is not None else list(range(x.dim()))
    keep = args[2] if len(args) > 2 else kwargs.get("keepdim", False)
    count = math.prod([x.shape[d] for d in ([dims] if isinstance(dims, int) else dims or range(x.dim()))] if x.dim() else [])
    if not count:
        raise ValueError(f"the mean of no elements is no number: the shape is {tuple(x.shape)}, and dims are {dims}")
    return x.sum(dims, keepdim=keep) / count


@implements(
    aten.empty_like.default, aten.zeros_like.default, aten.ones_like.default, aten.full_like.default, aten.new_empty.default,
    aten.new_empty_strided.default, aten.new_zeros.default, aten.new_ones.default, aten.new_full.default,
)  # fmt: skip
def _constant(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    """A public constant: nothing of the operand but its shape, so it is here; or at the worker, if that has the value."""
    x, name = args[0], func._schema.name
    shape = torch.Size(args[1]) if "new_" in name else x.shape
    value = args[2] if "new_full" in name else args[1] if "full" in name else float("ones" in name)
    ring = encoded(value, x.scale, func)
    if x.is_secret or type(x._child) is torch.Tensor:
        return cls.of(torch.full(shape, ring), x.attributes())
    return cls.of(x._child.new_zeros(shape) + ring, x.attributes())


@implements(
    aten.add_.Tensor, aten.sub_.Tensor, aten.mul_.Tensor, aten.div_.Tensor, aten.zero_.default, aten.copy_.default,
    aten.addcmul_.default, aten.lerp_.Scalar, aten.fill_.Scalar, aten.fill_.Tensor,
    aten.neg_.default,
    aten.relu_.default,
)  # fmt: skip
def _in_place(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    """What was computed from the old value is computed first; then the ring elements are replaced where they are."""
    x = args[0]
    settle()
    if not isinstance(x, Fixed):
        raise Misuse(f"{func} would write fixed-precision values to a plain tensor: decode them, or fix_precision() it first")
    if func in (aten.zero_.default, aten.fill_.Scalar, aten.fill_.Tensor):
        fresh: Any = (args[1] if len(args) > 1 else 0) + x * 0
    elif func is aten.copy_.default:
        fresh = args[1] + x * 0 if not isinstance(args[1], Fixed) else args[1].expand(x.shape)
    else:
        fresh = out_of_place(func)(*args, **kwargs)
    if fresh.is_secret and not x.is_secret:
        if not x._value.alone:
            raise Misuse(f"{func} would write shared values to a part of what is public: begin with a shared tensor, such as x * 0")
        x._waiting = Waiting(fresh._child)
    else:
        x._child.copy_(fresh._child)
    x._memory.writes += 1
    return x


@implements(
    aten.t_.default, aten.unsqueeze_.default, aten.squeeze_.default, aten.squeeze_.dim, aten.squeeze_.dims, aten.transpose_.default
)  # fmt: skip
def _in_place_view(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    x, view = args[0], out_of_place(func)(*args)
    x._value = view._value
    return correct_aliasing(func, args, kwargs, view)


# -- sums and products


def _shifted(x: Any, y: Any, alpha: Any, minus: bool) -> Any:
    if alpha != 1:
        y = y * alpha
    combine = operator.sub if minus else operator.add
    if isinstance(x, Fixed) and isinstance(y, Fixed) and (x.product is None) != (y.product is None):
        waits, settled = (x, y) if y.product is None else (y, x)
        if settled.divisor == 1:
            return _with_term(waits, settled, combine if waits is x else lambda product, term: combine(term, product))
    left, right, divisor, scheme = terms(x, y, "aten.sub" if minus else "aten.add")
    return Fixed.of(Waiting(combine(left, right), divisor), scheme)


def _with_term(waits: Fixed, settled: Fixed, combine: Any) -> Fixed:
    """A sum of a product, which goes on waiting, and of what does not."""
    product, term, divisor = waits.product, settled._child, waits.divisor
    assert product is not None
    product.ring.check(term)
    shape = torch.Size(broadcast(waits.shape, settled.shape))
    return Fixed.of(Waiting(product.with_term(combine, term, divisor, shape), divisor), same_scale(waits, settled), shape)


@implements(aten.add.Tensor, aten.add.Scalar)
def _add(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    return _shifted(args[0], args[1], kwargs.get("alpha", args[2] if len(args) > 2 else 1), minus=False)


@implements(aten.sub.Tensor, aten.sub.Scalar)
def _sub(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    return _shifted(args[0], args[1], kwargs.get("alpha", args[2] if len(args) > 2 else 1), minus=True)


@implements(aten.rsub.Scalar, aten.rsub.Tensor)
def _rsub(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    return _shifted(args[1], args[0], kwargs.get("alpha", args[2] if len(args) > 2 else 1), minus=True)


def number(value: Any) -> float | None:
    """A public number, or None for a tensor."""
    if isinstance(value, Fixed) or (isinstance(value, torch.Tensor) and value.dim()):
        return None
    return float(value)


def product(kind: str, x: Any, y: Any, shape: torch.Size) -> Fixed:
    """``kind``(x, y) that waits."""
    scheme, scale = same_scale(x, y), first_of((x, y)).scale
    left, right = (v._child if isinstance(v, Fixed) else encoded(v, scale, f"aten.{kind}") for v in (x, y))
    if x is y:
        right = left
    ring = arithmetic(left, right)
    ring.check(left, right)
    waits = Product(ring, lambda f: getattr(ring, kind)(left, right, f), shape)
    return Fixed.of(Waiting(waits, scale), scheme, shape)


@implements(aten.mul.Tensor, aten.mul.Scalar)
def _mul(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    x, y = args if isinstance(args[0], Fixed) else (args[1], args[0])
    by = number(y)
    if by is None:
        return product("mul", x, y, torch.Size(broadcast(x.shape, y.shape)))
    whole = by.is_integer() and abs(by) < LIMIT
    factor, bits = (int(by), 0) if whole else _as_fraction(by, x.scale)
    raw, divisor = x.linear() if whole or (x.divisor * abs(factor)).bit_length() <= widest(x.scale) else (x._child, 1)
    return cls.of(Waiting(raw * factor, divisor << bits), x.attributes())


def _as_fraction(number: float, scale: int) -> tuple[int, int]:
    """A public number as factor / 2^bits, to 20 digits of its own however small it is."""
    if not abs(number * scale) < LIMIT:
        raise _too_large(number, scale, "aten.mul")
    bits = min(max(FACTOR_BITS - math.frexp(number)[1], 0), 2 * FACTOR_BITS)
    factor = round(number * (1 << bits))
    while bits and factor % 2 == 0:
        factor, bits = factor // 2, bits - 1
    return factor, bits


@implements(aten.mm.default, aten.bmm.default)
def _mm(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    x, y = args
    if x.dim() != y.dim() or x.dim() != (2 if func is aten.mm.default else 3):
        raise RuntimeError(f"{func} multiplies matrices, and operands of shapes {tuple(x.shape)} and {tuple(y.shape)} met: use @")
    if x.shape[-1] != y.shape[-2] or x.shape[:-2] != y.shape[:-2]:
        raise RuntimeError(f"mat1 and mat2 shapes cannot be multiplied ({tuple(x.shape)} and {tuple(y.shape)})")
    return product("matmul", x, y, torch.Size([*x.shape[:-1], y.shape[-1]]))


@implements(aten.mv.default)
def _mv(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    return (args[0] @ args[1].unsqueeze(1)).squeeze(1)


@implements(aten.dot.default)
def _dot(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    return (args[0] * args[1]).sum()


@implements(aten.addmm.default, aten.baddbmm.default)
def _addmm(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    bias, x, y = args
    out = x @ y
    out = out * kwargs["alpha"] if kwargs.get("alpha", 1) != 1 else out
    bias = bias * kwargs["beta"] if kwargs.get("beta", 1) != 1 else bias
    return out + bias


@implements(aten.lerp.Scalar)
def _lerp(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    start, end, weight = args
    return start + (end - start) * weight


@implements(aten.addcmul.default)
def _addcmul(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    return args[0] + args[1] * args[2] * kwargs.get("value", 1)
