"""Linear operators of FixedPrecisionTensors, and what writes to them.

    linear      views, sums, cat, pad, choices of a public mask, ...: on the ring elements, whatever divisor waits
    constants   zeros_like and its like: public, of the operand's shape
    in place    what was computed from the old value is computed first; then the ring elements are replaced where they are
"""

from __future__ import annotations

import math
from typing import Any

import torch

from syftlite._torch import aten, correct_aliasing, out_of_place
from syftlite.errors import Misuse
from syftlite.tensors.fixed import FixedPrecisionTensor, settle
from syftlite.tensors.fixed_masks import FAR, note_constant, note_moved
from syftlite.tensors.fixed_memory import written
from syftlite.tensors.fixed_ops import Args, Named, encoded, implements, is_little, number, same_scale
from syftlite.tensors.waiting import Product, Waiting

Fixed = FixedPrecisionTensor


def _encoded_tensor(value: Any, scale: int, op: Any) -> Any:
    found = encoded(value, scale, op)
    return found if isinstance(found, torch.Tensor) else torch.tensor(found)


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


def is_truth(value: Any) -> bool:
    """Whether all of ``value``, of the layer or public, is known to be 0 or 1."""
    if isinstance(value, Fixed):
        return value._value.truths
    if isinstance(value, torch.Tensor):
        return type(value) is torch.Tensor and bool(((value == 0) | (value == 1)).all())
    return value in (0, 1)


CARRIES = MOVES | {aten.where.self, aten.index_put.default, aten.scatter.src, aten.constant_pad_nd.default}
"""Operators that give values of their operands and no others, public ones too."""


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
    if (alpha := kwargs.pop("alpha", 1)) != 1:  # index_add's: real, and ring elements are whole
        args = (*args[:3], args[3] * alpha)
    if any(r.alias_info for r in func._schema.returns):
        return _view(cls, func, args, kwargs)
    places = VALUES.get(func, (0,))
    values = [v for place in places for v in (args[place] if isinstance(args[place], (list, tuple)) else [args[place]])]
    several = [v for v in values if isinstance(v, Fixed)]
    if not several or any(isinstance(v, Fixed) for i, a in enumerate(args) if i not in places for v in (a if isinstance(a, list) else [a])):
        mask = any(isinstance(v, Fixed) and v._value.truths for a in args for v in (a if isinstance(a, list) else [a]))
        told = "torch.where(mask, x, 0) for a secret mask" if mask else "float_precision() and long() first"
        raise Misuse(f"{func}: indices are whole numbers, not fixed-precision ones: {told}")
    scheme, scale = same_scale(*several), several[0].scale
    divisors = {tensor.linear()[1] for tensor in several}
    common = divisors.pop() if len(divisors) == 1 else 1
    padded = func is aten.constant_pad_nd.default and len(args) > 2
    public = [v for v in (*values, *args[2:][:padded]) if not isinstance(v, Fixed)]
    if common != 1 and not all(is_little(v, scale, common, func) for v in public):
        common = 1
    ring_args = (*args[:2], encoded(args[2], scale * common)) if padded else args

    def inner(value: Any) -> Any:
        if isinstance(value, Fixed):
            return value.linear()[0] if common != 1 else value._child
        if isinstance(value, (list, tuple)):
            return [inner(v) for v in value]
        return _encoded_tensor(value, scale * common, func)

    given = [inner(a) if place in places else a for place, a in enumerate(ring_args)]
    # the ring elements may lie in another order than the tensor says
    out = given[0].reshape(args[1]) if func is aten._unsafe_view.default else func(*given, **kwargs)
    if isinstance(out, (list, tuple)):
        return [cls.of(Waiting(o, common), scheme) for o in out]
    made = cls.of(Waiting(out, common), scheme)
    if func in CARRIES:
        note_moved(made, func, args, values)
    chosen = func in CARRIES and not any(args[3:] if func is aten.index_put.default else ())
    if chosen and all(map(is_truth, (*values, *args[2:][:padded]))):
        made._value.note_truths()
    return made


def _view(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    """The same view of the ring elements: whoever writes to one writes to the other."""
    x, known = args[0], args[0]._value.filled
    out = func(x.viewable(), *args[1:], **kwargs)
    several = isinstance(out, (list, tuple))
    views = [x.aliased_by(cls.of(o, x.attributes())) for o in (out if several else [out])]
    if known is not None:
        parts = known.reshape(args[1]) if func is aten.view.default else func(known, *args[1:], **kwargs)
        for view, part in zip(views, parts if several else [parts], strict=True):
            view._value.note_filled(part)
    return views if several else views[0]


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
        return note_constant(cls.of(torch.full(shape, ring), x.attributes()), value)
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
    fresh: Any
    if not isinstance(x, Fixed):
        raise Misuse(f"{func} would write fixed-precision values to a plain tensor: decode them, or fix_precision() it first")
    if func in _FILLS:
        value: Any = args[1] if len(args) > 1 else 0
        same_scale(x, value)
        fresh = value.expand(x.shape) if isinstance(value, Fixed) else note_constant(value + x * 0, value)
    else:
        fresh = out_of_place(func)(*args, **kwargs)
        _note_shift(fresh, x, func, args, kwargs)
    stays = x._value.truths and func in _FILLS and is_truth(args[1] if len(args) > 1 else 0)
    written(x, fresh, func, fresh._value.truths or stays)
    return x


def _note_shift(made: Fixed, x: Fixed, func: Any, args: Args, kwargs: Named) -> None:
    """Of a part that a number far below is added to, note where it is: it moves all scores of a whole alike, but not those of a part."""
    by = (number(args[1]) or 0.0) * kwargs.get("alpha", 1) if func in (aten.add_.Tensor, aten.sub_.Tensor) else 0.0
    by = by if func is aten.add_.Tensor else -by
    if by < FAR and any(value.waiting.raw.numel() > x.numel() for value in x._memory.values or ()):
        note_constant(made, by)


_FILLS = (aten.zero_.default, aten.fill_.Scalar, aten.fill_.Tensor, aten.copy_.default)


@implements(
    aten.t_.default, aten.unsqueeze_.default, aten.squeeze_.default, aten.squeeze_.dim, aten.squeeze_.dims, aten.transpose_.default
)  # fmt: skip
def _in_place_view(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    x, view = args[0], out_of_place(func)(*args)
    x._value = view._value
    return correct_aliasing(func, args, kwargs, view)
