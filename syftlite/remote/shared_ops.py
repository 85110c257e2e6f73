"""Operators on AdditiveSharingTensors: what each holder does on its own share, and what the holders compute together.

    linear in the shared operands      each holder by itself; a public term is added to the first component alone
    products                           kernels of the group (arithmetic.py); what compares: shared_compare.py
    what would tell a value            refused
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from syftlite._torch import aten, correct_aliasing, is_plain, out_of_place
from syftlite.errors import Misuse, PointerMisuseError
from syftlite.remote.arithmetic import apart
from syftlite.remote.custody import is_truth
from syftlite.remote.group import Group
from syftlite.remote.multi import MultiPointerTensor
from syftlite.remote.pointer import PointerTensor
from syftlite.remote.shared_compare import layer_of, noted, truth
from syftlite.remote.sharing import AdditiveSharingTensor, must_be_here, ring
from syftlite.remote.transfer import upload
from syftlite.tensors.fixed import fix_precision
from syftlite.tensors.fixed_linear import CARRIES

Handler = Callable[..., Any]
implements = AdditiveSharingTensor.implements


def _inner(value: Any, group: Group) -> Any:
    """The multi-pointers of an operand, whose holders must be the group's; of a public tensor, a copy at each holder."""
    if isinstance(value, AdditiveSharingTensor):
        if value._group is not group:
            raise apart(group, value._group)
        return value._child
    if isinstance(value, (list, tuple)):
        return type(value)(_inner(v, group) for v in value)
    if isinstance(value, torch.Tensor) and value.dim() and not isinstance(value, MultiPointerTensor):
        return public(value, group)
    return value


def public(value: torch.Tensor, group: Group) -> MultiPointerTensor:
    """A value that everybody may know, at each holder; one for each of its places, for each may be written to."""
    must_be_here(value)
    sent = [PointerTensor(upload(value.detach(), holder)._handle) for holder in group.holders]
    first = [place % group.width == 0 for place in range(len(group.places))]
    return group.multi([sent[h] if own else sent[h].clone() for own, (h, _) in zip(first, group.places, strict=True)])  # type: ignore[misc]


@implements(
    aten.alias.default, aten.cat.default, aten.clone.default, aten.constant_pad_nd.default, aten.cumsum.default, aten.detach.default,
    aten.diagonal.default, aten.expand.default, aten.flip.default, aten.gather.default, aten.index.Tensor, aten.index_select.default,
    aten.neg.default, aten.permute.default, aten.repeat.default, aten.roll.default, aten.select.int, aten.slice.Tensor,
    aten.split.Tensor, aten.split_with_sizes.default, aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims, aten.stack.default,
    aten.sum.default, aten.sum.dim_IntList, aten.t.default, aten.transpose.int, aten.tril.default, aten.triu.default, aten.unbind.int,
    aten.unfold.default, aten.unsqueeze.default, aten.view.default, aten._unsafe_view.default, aten.copy_.default, aten.zeros_like.default,
    aten.new_zeros.default, aten.zero_.default, aten.slice_backward.default, aten.select_backward.default,
    aten.embedding.default, aten.unfold_backward.default, aten.index_put.default,
    aten.scatter_add.default, aten.scatter.src, aten.index_add.default, aten._to_copy.default, aten.where.self,
)  # fmt: skip
def linear(cls: type[AdditiveSharingTensor], func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What is linear in its shared operands, and has no public term: each holder on its own."""
    if func is aten.constant_pad_nd.default and len(args) > 2 and args[2]:
        return func(args[0] - args[2], args[1]) + args[2]
    if kwargs.get("dtype") not in (None, torch.int64):
        if kwargs["dtype"] in (torch.float32, torch.float64):
            return fix_precision(args[0] if func is aten._to_copy.default else func(*args, **{**kwargs, "dtype": torch.int64}))
        if func is aten._to_copy.default and kwargs["dtype"] == torch.bool:
            return noted(truth(args[0]).clone())
        raise Misuse(f"shares are ring elements, not {kwargs['dtype']}: x.float() where numbers are real, or get() the value first")
    if func is aten.where.self and isinstance(args[0], AdditiveSharingTensor):
        made = args[2] + truth(args[0]) * (args[1] - args[2])
        return noted(made) if is_truth(args[1]) and is_truth(args[2]) else made
    owned(func, args[0])
    if func is aten.index.Tensor:
        args = (args[0], _numbered(args[1]))
    group = layer_of((*args, *kwargs.values()))._group
    places = VALUES.get(func, (0,))
    indices = [v for i, a in enumerate(args) if i not in places for v in (a if isinstance(a, list) else [a])]
    if any(isinstance(v, AdditiveSharingTensor) for v in indices):
        mask = any(isinstance(v, AdditiveSharingTensor) and v.held.truths for v in indices)
        remedy = "torch.where(mask, x, 0)" if mask else "multiply by F.one_hot(index, classes)"
        raise Misuse(f"{func}: the index is secret, and what is read would tell it: {remedy}")
    given = [_value(a, group) if place in places else _inner(a, group) for place, a in enumerate(args)]
    out = _relayered(cls, func, args, kwargs, func(*given, **kwargs), group)
    values = [v for i in places if i < len(args) for v in (args[i] if isinstance(args[i], (list, tuple)) else [args[i]])]
    chosen = func in CARRIES and not any(args[3:] if func is aten.index_put.default else ())
    if chosen and all(map(is_truth, values)):
        noted(out)
    return out


def _numbered(indices: Sequence[Any]) -> list[Any]:
    """Masks that are here as the places where they are true: how many there are no holder tells, since to it that might be a secret."""
    found: list[Any] = []
    for index in indices:
        mask = isinstance(index, torch.Tensor) and is_plain(index) and index.dtype in (torch.bool, torch.uint8) and index.dim() > 0
        found += index.nonzero().unbind(1) if mask else [index]
    return found


VALUES: dict[Any, tuple[int, ...]] = {
    aten.index_put.default: (0, 2), aten.scatter_add.default: (0, 3), aten.index_add.default: (0, 3), aten.copy_.default: (0, 1),
    aten.scatter.src: (0, 3), aten.where.self: (1, 2),
}  # fmt: skip
"""Which operands of a linear operator are values; of all others the first, or those in the first. The rest are indices, and public."""


def _value(value: Any, group: Group) -> Any:
    """Each place's part of an operand: of a public one, all of it is the first component, and zeros the others."""
    if isinstance(value, (list, tuple)):
        return [_value(v, group) for v in value]
    if isinstance(value, torch.Tensor) and not isinstance(value, AdditiveSharingTensor):
        return AdditiveSharingTensor.known(value, group)._child
    return _inner(value, group)


def _relayered(cls: type[AdditiveSharingTensor], func: Any, args: Any, kwargs: Any, out: Any, group: Group) -> Any:
    if isinstance(out, (list, tuple)):
        return [cls.around(o, _group=group) for o in out]
    if isinstance(args[0], AdditiveSharingTensor) and out is args[0]._child:
        return args[0]
    fresh = cls.around(out, _group=group)
    return correct_aliasing(func, args, kwargs, fresh) if torch.Tag.inplace_view in func.tags else fresh


@implements(
    aten.t_.default, aten.unsqueeze_.default, aten.squeeze_.default, aten.squeeze_.dim, aten.squeeze_.dims, aten.transpose_.default
)  # fmt: skip
def _in_place_view(cls: type[AdditiveSharingTensor], func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    view = out_of_place(func)(*args)
    args[0]._child = view._child
    return correct_aliasing(func, args, kwargs, view)


@implements(aten.add.Tensor, aten.sub.Tensor, aten.add_.Tensor, aten.sub_.Tensor, aten.rsub.Scalar, aten.add.Scalar, aten.sub.Scalar)
def _add(cls: type[AdditiveSharingTensor], func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, y = args[:2]
    owned(func, x)
    kwargs = {**kwargs, "alpha": args[2]} if len(args) > 2 else kwargs
    args, group = (x, y), layer_of(args)._group
    if isinstance(x, AdditiveSharingTensor) and isinstance(y, AdditiveSharingTensor):
        return _relayered(cls, func, args, kwargs, func(*_inner(args, group), **kwargs), group)
    return _relayered(cls, func, args, kwargs, _with_public(func, x, y, kwargs, group), group)


def _with_public(func: Any, x: Any, y: Any, kwargs: dict[str, Any], group: Group) -> MultiPointerTensor:
    """The public term is added to the first component; to the others a zero of its shape, so that all results are of one shape."""
    results = []
    for place, (holder, component) in enumerate(group.places):
        at = group.holders[holder]
        mine = [v.shares[place] if isinstance(v, AdditiveSharingTensor) else _term(v, at, component == 0) for v in (x, y)]
        results.append(func(*mine, **kwargs))
    if isinstance(x, AdditiveSharingTensor) and results[0] is x.shares[0]:
        return x._child  # type: ignore[return-value]  # in place
    return group.multi(results)


def owned(func: Any, target: Any) -> None:
    if func._schema.is_mutable and not isinstance(target, AdditiveSharingTensor):
        raise Misuse(f"{func} would write shares to a plain tensor: get() them, or share() it first")


def _term(value: Any, holder: Any, first: bool) -> Any:
    if isinstance(value, torch.Tensor) and value.dim():
        must_be_here(value)
        value = ring(value)
        mine = value.contiguous() if first else torch.zeros((), dtype=value.dtype).expand(value.shape)
        return PointerTensor(upload(mine, holder)._handle)
    return whole(value) if first else 0


def _factor(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.dim():
        must_be_here(value)
        return ring(value)
    return whole(value)


def whole(value: Any) -> int:
    number = value.item() if isinstance(value, torch.Tensor) else value
    if type(number) is float and not number.is_integer():
        raise Misuse(f"shares are whole ring elements, and {number} is none: fix_precision() before share()")
    return int(number)


@implements(aten.mul.Tensor, aten.mul_.Tensor, aten.mul.Scalar)
def _mul(cls: type[AdditiveSharingTensor], func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, y = args
    owned(func, x)
    layer = layer_of(args)
    if isinstance(x, AdditiveSharingTensor) and isinstance(y, AdditiveSharingTensor):
        product = layer.arithmetic.mul(x, y, 0)
        return x.copy_(product) if func is aten.mul_.Tensor else product
    x, y = (v if isinstance(v, AdditiveSharingTensor) else _factor(v) for v in (x, y))
    return _relayered(cls, func, args, kwargs, func(*_inner((x, y), layer._group)), layer._group)


@implements(aten.mm.default, aten.bmm.default, aten.mv.default, aten.dot.default)
def _matmul(cls: type[AdditiveSharingTensor], func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, y = args
    layer = layer_of(args)
    if not (isinstance(x, AdditiveSharingTensor) and isinstance(y, AdditiveSharingTensor)):
        factors = tuple(v if isinstance(v, AdditiveSharingTensor) else _factor(v) for v in args)
        return cls.around(func(*_inner(factors, layer._group)), _group=layer._group)
    if func is aten.dot.default:
        return layer.arithmetic.mul(x, y, 0).sum()
    if func is aten.mv.default:
        return layer.arithmetic.matmul(x, y.unsqueeze(1), 0).squeeze(1)
    return layer.arithmetic.matmul(x, y, 0)


@implements(aten.addmm.default, aten.baddbmm.default, aten.addmv.default, aten.addbmm.default)
def _addmm(cls: type[AdditiveSharingTensor], func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    term, x, y = args
    made = x @ y * whole(kwargs.get("alpha", 1))
    beta = whole(kwargs.get("beta", 1))
    made = made.sum(0) if func is aten.addbmm.default else made
    return made + term * beta if beta else made


@implements(aten._local_scalar_dense.default, aten.is_nonzero.default, aten.equal.default)
def _reads(cls: type[AdditiveSharingTensor], func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    raise PointerMisuseError(f"{func} would need the value, which nobody has: get() reconstructs it")
