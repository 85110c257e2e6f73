"""Layers on FixedPrecisionTensors: what is worth more than the sum of its operators.

    linear, conv2d      without gradients: the weight is masked and opened once, and every input costs one opening of its own
    relu                with gradients: the sign is kept, so that the way back needs no second comparison

Other convolutions: fixed_convolutions.py. Pools: fixed_pools.py. Dropout and padding: fixed_dropout.py.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F

from syftlite._torch import below_functions
from syftlite.tensors.arithmetic import arithmetic
from syftlite.tensors.comparing import current, lowest_bit
from syftlite.tensors.fixed import FixedPrecisionTensor
from syftlite.tensors.fixed_gradients import through
from syftlite.tensors.fixed_ops import encoded, same_scale
from syftlite.tensors.waiting import Product, Waiting

Fixed = FixedPrecisionTensor
Pair = tuple[int, int]


def pair(value: Any) -> Pair:
    """An int, or two, as two."""
    first, second = (value, value) if isinstance(value, int) else (value[0], value[-1])
    return int(first), int(second)


def needs_history(*operands: Any) -> bool:
    """Whether autograd will want the way back."""
    return torch.is_grad_enabled() and any(isinstance(o, torch.Tensor) and o.requires_grad for o in operands)


def _shared(x: Any) -> bool:
    return isinstance(x, Fixed) and x.is_secret


# -- fixed weights


def fixed_weight(weight: Fixed, form: str, make: Any) -> Any:
    """``weight`` in a form of its own, masked and opened once: kept with the weight until it is written to, or the group joined anew. None
    while a plan is recorded that was never called with it fixed: every call would fix it anew, at more than it costs to open it with x."""
    ring = weight._child.arithmetic
    return _keeper(weight)(form, lambda child: ring.fix(make(child)) if ring.fixes else None, ring.fresh)


class Term(NamedTuple):
    """A secret bias times a public factor, and the epoch of the group in which it was made: what failed there ends with it."""

    value: Any
    epoch: int


def version(tensor: Fixed) -> tuple[int, int]:
    """What is another number once ``tensor`` has been written to, or its shares have."""
    return tensor._memory.writes, tensor._child.held.writes


def _keeper(tensor: Fixed) -> Callable[..., Any]:
    """A function (form, make, fresh) of the value that shared ``tensor`` has now: what ``make`` gives of its shares, unless None, is kept
    with the tensor until it is written to, and of use while it is ``fresh``."""
    kept, child = tensor.__dict__.setdefault("_fixed", {}), tensor._child
    written = version(tensor)

    def keep(form: Any, make: Callable[[Any], Any], fresh: Callable[[Any], bool]) -> Any:
        seen, found = kept.get(form, (None, None))
        if found is None or seen != written or not fresh(found):
            found = make(child)
            if found is not None:
                kept[form] = (written, found)
        return found

    return keep


def _fixed(x: Any, weight: Any, bias: Any, form: str, make: Any = lambda w: w) -> Any:
    """`fixed_weight`, where it is of use: of two secrets without gradients."""
    useful = not needs_history(x, weight, bias) and _shared(x) and _shared(weight)
    return fixed_weight(weight, form, make) if useful else None


@Fixed.reexpresses(F.linear)
def linear(x: Any, weight: Any, bias: Any = None) -> Any:
    """x @ weight.T + bias."""
    fixed = _fixed(x, weight, bias, "linear", lambda w: w.t()) if x.dim() > 1 else None
    if fixed is None:
        with below_functions():
            return F.linear(x, weight, bias)
    scheme, scale = same_scale(x, weight), x.scale
    child, ring = x._child, weight._child.arithmetic
    ring.check(child)
    shape = torch.Size([*x.shape[:-1], weight.shape[0]])
    out = Fixed.of(Waiting(Product(ring, lambda f: ring.linear(child, fixed, f), shape), scale), scheme, shape)
    return out if bias is None else out + bias


def _column(bias: Fixed) -> Callable[[int], Any]:
    """A secret bias of channels times a public factor, as images take it: kept with it."""
    keep, ring = _keeper(bias), bias._child.arithmetic

    def times(factor: int) -> Any:
        made = keep(factor, lambda child: Term((child * factor).view(1, -1, 1, 1), ring.epoch), ring.fresh)
        return made.value

    return times


def _padded(x: Any, weight: Any, dilation: Pair, stride: Any) -> tuple[Any, Any]:
    """The image and the padding that keep its size; of an odd number of rows or columns the last has one more."""
    if pair(stride) != (1, 1):
        raise RuntimeError("padding='same' is not supported for strided convolutions")
    rows, columns = (d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True))
    return F.pad(x, (0, columns % 2, 0, rows % 2)) if rows % 2 or columns % 2 else x, (rows // 2, columns // 2)


def _convolved(x: Fixed, weight: Fixed, fixed: Any, bias: Any, static: dict[str, Any], pool: Pair) -> Fixed:
    """The convolution, its windows of pool[0] at steps of pool[1] summed."""
    child, kernel, scale = x._child, weight._child, x.scale
    ring = kernel.arithmetic
    ring.check(child)
    shape = conv_shape(x.shape, weight.shape, static, pool)

    def issue(f: int) -> Any:
        return ring.conv2d_fixed(child, fixed if ring.fresh(fixed) else ring.fix(kernel), f, pool=pool, **static)

    def pooled(kernel: Pair, stride: Pair) -> Product | None:
        if pool != (1, 1) or kernel[0] != kernel[1] or stride[0] != stride[1]:
            return None
        inner: Product = _convolved(x, weight, fixed, bias, static, (kernel[0], stride[0]))._waiting.raw
        return inner

    waits = Product(ring, issue, shape, pooled)
    if bias is not None:
        term = bias._child if isinstance(bias, Fixed) else encoded(bias, scale)
        times = _column(bias) if _shared(bias) else lambda factor: (term * factor).view(1, -1, 1, 1)
        waits = waits.with_term(operator.add, term, times, scale * pool[0] * pool[0], shape)._replace(pooled=pooled)
    return Fixed.of(Waiting(waits, scale), same_scale(x, weight, bias), shape)


def conv_shape(x: torch.Size, w: torch.Size, static: dict[str, Any], pool: Pair) -> torch.Size:
    """Of a convolution, its windows of pool[0] at steps of pool[1] summed."""
    sizes = []
    for i in (0, 1):
        reach = static["dilation"][i] * (w[i + 2] - 1) + 1
        out = (x[i + 2] + 2 * static["padding"][i] - reach) // static["stride"][i] + 1
        if out < 1:
            raise RuntimeError(f"the padded image {tuple(x[2:])} is smaller than the kernel {tuple(w[2:])}")
        sizes.append((out - pool[0]) // pool[1] + 1)
    return torch.Size([x[0], w[0], *sizes])


@Fixed.reexpresses(F.conv2d, torch.conv2d)
def conv2d(
    x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Any:
    """A convolution."""
    if padding == "same":
        x, padding = _padded(x, weight, pair(dilation), stride)
    elif padding == "valid":
        padding = 0
    channels = weight.shape[1] * groups
    if x.dim() == 4 and x.shape[1] != channels and _shared(x) and _shared(weight):
        raise RuntimeError(f"a kernel {list(weight.shape)} needs {channels} channels, and the input is {list(x.shape)}")
    fixed = _fixed(x, weight, bias, "conv") if x.dim() == 4 else None
    if fixed is None:
        with below_functions():
            return F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    static = {"stride": pair(stride), "padding": pair(padding), "dilation": pair(dilation), "groups": groups}
    return _convolved(x, weight, fixed, bias, static, (1, 1))


# -- relu


def masked(grad: Fixed, mask: Any) -> Any:
    """A gradient where a secret mask is 1, else 0."""

    def chosen(child: Any) -> Any:
        return arithmetic(child, mask).mul(child, mask, 0)

    return through(grad, chosen, chosen)


class _Relu(torch.autograd.Function):
    """max(x, 0), whose slope at 0 is ``at_zero``: else of x - 1 unit, which is 0 or more where x is more than 0."""

    @staticmethod
    def forward(ctx: Any, x: Fixed, at_zero: bool) -> Fixed:
        child = x._child if at_zero else x._child - 1
        out, mask = arithmetic(child).relu_and_mask(child, 0, lowest_bit(current(), x.scale))
        ctx.mask = mask
        return Fixed.of(out if at_zero else out + mask, x.attributes())

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return masked(grads[0], ctx.mask), None


def rising(x: Any) -> Any:
    """max(x, 0), with slope 1 at 0."""
    return _Relu.apply(x, True) if needs_history(x) else torch.relu(x)  # type: ignore[no-untyped-call]


@Fixed.reexpresses(F.relu, torch.relu, torch.Tensor.relu)
def relu(x: Any, inplace: bool = False) -> Any:
    """max(x, 0)."""
    if needs_history(x):
        out: Any = _Relu.apply(x, False)  # type: ignore[no-untyped-call]
    else:
        with below_functions():
            out = torch.relu(x)
        if inplace and x._value.alone and not x._memory.keepers:  # nobody else has its memory: it can wait
            x._waiting, x._memory.writes = out._waiting, x._memory.writes + 1
            x.reads_later()
            return x
    return x.copy_(out) if inplace else out
