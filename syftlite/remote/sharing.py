"""AdditiveSharingTensor: a tensor of ring elements (Z_2^64, as int64) whose value nobody has, held as shares that add up to it.

    x.share(alice, bob, crypto_provider=carol)      child: a multi-pointer, one share at each holder
    x + y, x.sum(), x[0], x * 3, x @ public         each holder on its own share, no message between them
    x * y, x > y, x.max()                           the holders compute together, by a kernel (mpc/kernels.py), on Beaver's correlations
    x.get()                                         every holder's share, re-randomised, summed here

What was shared where it is (a pointer's `share`) is located there: its first `get` brings the shared tensor here and reveals nothing, the
second reconstructs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NoReturn

import torch

from syftlite._torch import aten, correct_aliasing
from syftlite.errors import ApprovalRequiredError, GetNotPermittedError, Misuse, PointerMisuseError, TensorsNotCollocatedError
from syftlite.randomness import random_like
from syftlite.remote.arithmetic import SharedArithmetic, apart
from syftlite.remote.group import Group, Shares
from syftlite.remote.multi import MultiPointerTensor
from syftlite.remote.pointer import PointerTensor
from syftlite.remote.transfer import ReleaseRequest, upload
from syftlite.tensors.comparing import current, lowest_bit
from syftlite.tensors.fixed_ops import functional
from syftlite.tensors.wrapper import WrapperTensor


class AdditiveSharingTensor(WrapperTensor):
    """Shares of an int64 tensor at the holders of ``group``. Make one with ``tensor.share(alice, bob, crypto_provider=carol)``."""

    level: ClassVar[int] = 10
    remedy: ClassVar[str] = "get() the value to compute in the open"
    _group: Group
    _located: Any = None

    @classmethod
    def of(cls, shares: Shares, group: Group, located: Any = None) -> AdditiveSharingTensor:
        """The tensor whose shares these are, in the order of the group's holders."""
        child = MultiPointerTensor({holder.id: share for holder, share in zip(group.holders, shares, strict=True)})
        return cls.around(child, _group=group, _located=located)

    @classmethod
    def known(cls, value: torch.Tensor, group: Group) -> AdditiveSharingTensor:
        """The sharing of what everybody may know: all of it at the first holder, zeros at the others."""
        _must_be_here(value)
        whole = _ring(value).contiguous()
        parts = (whole, *[torch.zeros_like(whole)] * (len(group.holders) - 1))
        return cls.of(tuple(PointerTensor(upload(p, h)._handle) for h, p in zip(group.holders, parts, strict=True)), group)

    def attributes(self) -> dict[str, Any]:
        """The group."""
        return {"_group": self._group}

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """What is made of a tensor that is located at a worker is located there too: nothing is revealed by one `get`."""
        out = super().__torch_dispatch__(func, types, args, kwargs)
        located = next((a._located for a in args if isinstance(a, AdditiveSharingTensor) and a._located is not None), None)
        if located is not None:
            for made in out if isinstance(out, (list, tuple)) else (out,):
                if isinstance(made, AdditiveSharingTensor):
                    made._located = located
        return out

    # -- what it is

    @property
    def group(self) -> Group:
        """Its holders and their provider."""
        return self._group

    @property
    def locations(self) -> list[Any]:
        """The holders."""
        return list(self._group.holders)

    @property
    def location(self) -> Any:
        """Where `share` was called on a pointer, until the first `get`; otherwise the holders."""
        return self._located or self.locations

    @property
    def crypto_provider(self) -> Any:
        """The worker that deals correlated randomness."""
        return self._group.provider

    @property
    def shares(self) -> Shares:
        """A pointer to each holder's share."""
        found: Shares = tuple(self._child._children.values())  # type: ignore[attr-defined]
        return found

    @property
    def arithmetic(self) -> SharedArithmetic:
        """How rings of shares are multiplied and compared."""
        return SharedArithmetic(self._group, AdditiveSharingTensor)

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        at = f", located at {self._located.id}" if self._located is not None else ""
        places = ", ".join(holder.id for holder in self._group.holders)
        head = f"AdditiveSharingTensor | {places}; provider {self._group.provider.id}, shape={list(self.shape)}{at}"
        return "\n".join([head, *(f"    -> {share!r}" for share in self.shares)])

    # -- reading it

    def get(self, *, user: str | None = None, reason: str = "") -> torch.Tensor:
        """The value, int64: every holder's share, re-randomised, summed here. Of one that is located at a worker, the first `get` brings
        the shared tensor here and reveals nothing. ``reason``: ask the owners of what it was made of, if that is PRIVATE: raises
        `ApprovalRequiredError` with the `SharedRequest`."""
        if self._located is not None:
            return AdditiveSharingTensor.of(self.shares, self._group)
        try:
            return self._group.reveal(self.shares)
        except GetNotPermittedError as refusal:
            if not reason:
                raise
            error = ApprovalRequiredError(f"{refusal}. It is asked for: when its owners have approved, request.get()")
            error.request = self.request(reason)
            raise error from None

    def request(self, reason: str) -> SharedRequest:
        """Ask the owners of the PRIVATE data that it was made of, each at its node, to let the value go."""
        self.must_be_here()
        return SharedRequest(self._group.masked(self.shares), reason)

    reconstruct = get

    def decrypt(self, **options: Any) -> torch.Tensor:
        """The value, int64. Raises `Misuse` for one that is located at a worker: `get` brings it here first."""
        self.must_be_here()
        return self.get(**options)

    def must_be_here(self) -> None:
        """Raise `Misuse` for a tensor that is located at a worker."""
        if self._located is not None:
            raise Misuse(f"this tensor is located at {self._located.id}: get() brings it here, revealing nothing; then decrypt()")
    get_copy = get

    def refresh(self) -> AdditiveSharingTensor:
        """A fresh sharing of the same value."""
        (shares,) = self._group.compute("refresh", [self.shares])
        return AdditiveSharingTensor.of(shares, self._group)

    def copy(self) -> torch.Tensor:
        """Another tensor of the same value."""
        return self.clone()

    def share(self, *holders: Any, **options: Any) -> NoReturn:
        """Raises: it is shared already."""
        raise Misuse("this tensor is shared already: get() it first, and share() it among others then")

    def send(self, *workers: Any, **options: Any) -> NoReturn:
        """Raises: its shares are at their holders."""
        raise PointerMisuseError("a shared tensor is at its holders: send() nothing, or get() it first")

    move = send

    def tolist(self) -> NoReturn:
        """Raises: get() the value first."""
        raise PointerMisuseError("the value is nowhere in one place: get() reconstructs it, if its holders let it")

    def numpy(self, *, force: bool = False) -> NoReturn:
        """Raises: get() the value first."""
        self.tolist()


class SharedRequest:
    """A request to let the value of shares go: to each owner whose data it was made of, for its node's share. The others' are here."""

    def __init__(self, masked: Sequence[PointerTensor], reason: str) -> None:
        self._got: list[torch.Tensor] = []
        self.requests: list[ReleaseRequest] = []
        """One for each owner."""
        for pointer in masked:
            try:
                self._got.append(pointer.get())
            except GetNotPermittedError:
                self.requests.append(pointer.request(reason))

    def get(self) -> torch.Tensor:
        """The value, int64, when all have approved; once. Raises `GetNotPermittedError`."""
        while self.requests:
            self._got.append(self.requests[0].get())
            del self.requests[0]
        return torch.stack(self._got).sum(0)

    def __repr__(self) -> str:
        return f"<SharedRequest: {', '.join(map(repr, self.requests)) or 'all have approved'}>"


def share(tensor: torch.Tensor, holders: Sequence[Any], provider: Any = None) -> AdditiveSharingTensor:
    """Shares of ``tensor`` (int64), of a local one from here, of a pointer's from where it is, directly to the holders."""
    if tensor.dtype != torch.int64:
        raise Misuse(f"only ring elements (int64) are shared, and this is {tensor.dtype}: fix_precision() first, or .long() what is whole")
    group = Group.of(holders, provider)
    if isinstance(tensor, PointerTensor):
        return _share_there(tensor, group)
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
        raise Misuse(f"a {type(tensor).__name__} cannot be shared: get() it first")
    return AdditiveSharingTensor.of(_dealt_out(tensor.detach(), group), group)


def _dealt_out(value: torch.Tensor, group: Group) -> Shares:
    last = value.clone(memory_format=torch.contiguous_format)
    shares = []
    for _ in group.holders[1:]:
        shares.append(random_like(tuple(value.shape)))
        last -= shares[-1]
    return tuple(PointerTensor(upload(s, h)._handle) for s, h in zip([*shares, last], group.holders, strict=True))


def _share_there(pointer: PointerTensor, group: Group) -> AdditiveSharingTensor:
    source = pointer.location
    if source.transport.uri is None or group.in_process:
        return AdditiveSharingTensor.of(_dealt_out(pointer.get_copy(), group), group, located=source)
    return AdditiveSharingTensor.of(group.split(pointer), group, located=source)


# -- operators


Handler = Callable[..., Any]
implements = AdditiveSharingTensor.implements


def _layer(args: Any) -> AdditiveSharingTensor:
    """The first shared operand."""
    for arg in args:
        if isinstance(arg, AdditiveSharingTensor):
            return arg
        if isinstance(arg, (list, tuple)) and any(isinstance(a, AdditiveSharingTensor) for a in arg):
            return _layer(arg)
    raise AssertionError("no shared operand")


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
    """A value that everybody may know, at each holder."""
    _must_be_here(value)
    return MultiPointerTensor({holder.id: PointerTensor(upload(value.detach(), holder)._handle) for holder in group.holders})


@implements(
    aten.alias.default, aten.cat.default, aten.clone.default, aten.constant_pad_nd.default, aten.cumsum.default, aten.detach.default,
    aten.diagonal.default, aten.expand.default, aten.flip.default, aten.gather.default, aten.index.Tensor, aten.index_select.default,
    aten.neg.default, aten.permute.default, aten.repeat.default, aten.roll.default, aten.select.int, aten.slice.Tensor,
    aten.split.Tensor, aten.split_with_sizes.default, aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims, aten.stack.default,
    aten.sum.default, aten.sum.dim_IntList, aten.t.default, aten.transpose.int, aten.tril.default, aten.triu.default, aten.unbind.int,
    aten.unfold.default, aten.unsqueeze.default, aten.view.default, aten._unsafe_view.default, aten.copy_.default, aten.zeros_like.default,
    aten.new_zeros.default, aten.zero_.default, aten.slice_backward.default, aten.select_backward.default,
    aten.embedding.default, aten.unfold_backward.default, aten.index_put.default,
    aten.scatter_add.default, aten.index_add.default, aten._to_copy.default,
)  # fmt: skip
def _linear(cls: type[AdditiveSharingTensor], func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What is linear in its shared operands, and has no public term: each holder on its own."""
    if func is aten.constant_pad_nd.default and len(args) > 2 and args[2]:
        return func(args[0] - args[2], args[1]) + args[2]
    if func is aten._to_copy.default and kwargs.get("dtype") not in (None, torch.int64):
        raise Misuse(f"shares are ring elements, not {kwargs['dtype']}: get() the value first")
    _owned(func, args[0])
    group = _layer((*args, *kwargs.values()))._group
    places = VALUES.get(func, (0,))
    indices = [v for i, a in enumerate(args) if i not in places for v in (a if isinstance(a, list) else [a])]
    if any(isinstance(v, AdditiveSharingTensor) for v in indices):
        raise Misuse(f"{func}: the index is secret, and what is read would tell it: multiply by a shared one-hot vector")
    given = [_value(a, group) if place in places else _inner(a, group) for place, a in enumerate(args)]
    return _relayered(cls, func, args, kwargs, func(*given, **kwargs), group)


VALUES: dict[Any, tuple[int, ...]] = {
    aten.index_put.default: (0, 2), aten.scatter_add.default: (0, 3), aten.index_add.default: (0, 3), aten.copy_.default: (0, 1),
}  # fmt: skip
"""Which operands of a linear operator are values; of all others the first, or those in the first. The rest are indices, and public."""


def _value(value: Any, group: Group) -> Any:
    """Each holder's part of an operand: of a public one, all of it at the first holder, and zeros at the others."""
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
    view = functional(func)(*args)
    args[0]._child = view._child
    return correct_aliasing(func, args, kwargs, view)


@implements(aten.add.Tensor, aten.sub.Tensor, aten.add_.Tensor, aten.sub_.Tensor, aten.rsub.Scalar, aten.add.Scalar, aten.sub.Scalar)
def _add(cls: type[AdditiveSharingTensor], func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, y = args[:2]
    _owned(func, x)
    kwargs = {**kwargs, "alpha": args[2]} if len(args) > 2 else kwargs
    args, group = (x, y), _layer(args)._group
    if isinstance(x, AdditiveSharingTensor) and isinstance(y, AdditiveSharingTensor):
        return _relayered(cls, func, args, kwargs, func(*_inner(args, group), **kwargs), group)
    return _relayered(cls, func, args, kwargs, _with_public(func, x, y, kwargs, group), group)


def _with_public(func: Any, x: Any, y: Any, kwargs: dict[str, Any], group: Group) -> MultiPointerTensor:
    """The first holder adds the public term; the others add a zero of its shape, so that all results are of one shape."""
    results: dict[str, Any] = {}
    for place, holder in enumerate(group.holders):
        mine = [v.shares[place] if isinstance(v, AdditiveSharingTensor) else _term(v, holder, place == 0) for v in (x, y)]
        results[holder.id] = func(*mine, **kwargs)
    if isinstance(x, AdditiveSharingTensor) and results[group.holders[0].id] is x.shares[0]:
        return x._child  # type: ignore[return-value]  # in place
    return MultiPointerTensor(results)


def _ring(value: torch.Tensor) -> torch.Tensor:
    """A public tensor as ring elements."""
    if value.is_floating_point() or value.is_complex():
        raise Misuse(f"shares are whole ring elements, and a {value.dtype} tensor met them: fix_precision() before share()")
    return value.detach().long()


def _owned(func: Any, target: Any) -> None:
    if func._schema.is_mutable and not isinstance(target, AdditiveSharingTensor):
        raise Misuse(f"{func} would write shares to a plain tensor: get() them, or share() it first")


def _term(value: Any, holder: Any, first: bool) -> Any:
    if isinstance(value, torch.Tensor) and value.dim():
        _must_be_here(value)
        value = _ring(value)
        mine = value.contiguous() if first else torch.zeros((), dtype=value.dtype).expand(value.shape)
        return PointerTensor(upload(mine, holder)._handle)
    return _whole(value) if first else 0


def _must_be_here(value: Any) -> None:
    if isinstance(value, PointerTensor):
        raise TensorsNotCollocatedError(f"a shared tensor met a pointer to {value.location.id}: share() it among the same holders")


def _factor(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.dim():
        _must_be_here(value)
        return _ring(value)
    return _whole(value)


def _whole(value: Any) -> int:
    number = value.item() if isinstance(value, torch.Tensor) else value
    if type(number) is float and not number.is_integer():
        raise Misuse(f"shares are whole ring elements, and {number} is none: fix_precision() before share()")
    return int(number)


@implements(aten.mul.Tensor, aten.mul_.Tensor, aten.mul.Scalar)
def _mul(cls: type[AdditiveSharingTensor], func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, y = args
    _owned(func, x)
    layer = _layer(args)
    if isinstance(x, AdditiveSharingTensor) and isinstance(y, AdditiveSharingTensor):
        product = layer.arithmetic.mul(x, y, 0)
        return x.copy_(product) if func is aten.mul_.Tensor else product
    x, y = (v if isinstance(v, AdditiveSharingTensor) else _factor(v) for v in (x, y))
    return _relayered(cls, func, args, kwargs, func(*_inner((x, y), layer._group)), layer._group)


@implements(aten.mm.default, aten.bmm.default, aten.mv.default, aten.dot.default)
def _matmul(cls: type[AdditiveSharingTensor], func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, y = args
    layer = _layer(args)
    if not (isinstance(x, AdditiveSharingTensor) and isinstance(y, AdditiveSharingTensor)):
        factors = tuple(v if isinstance(v, AdditiveSharingTensor) else _factor(v) for v in args)
        return cls.around(func(*_inner(factors, layer._group)), _group=layer._group)
    if func is aten.dot.default:
        return layer.arithmetic.mul(x, y, 0).sum()
    if func is aten.mv.default:
        return layer.arithmetic.matmul(x, y.unsqueeze(1), 0).squeeze(1)
    return layer.arithmetic.matmul(x, y, 0)


def _compared(below: bool, swap: bool) -> Handler:
    def compare(cls: type[AdditiveSharingTensor], func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        x, y = reversed(args) if swap else args
        return _layer(args).arithmetic.less(x, y, invert=not below, low=lowest_bit(current(), 1))

    return compare


def _over(name: str) -> tuple[Any, Any]:
    packet = getattr(aten, name)
    return packet.Tensor, packet.Scalar


implements(*_over("lt"))(_compared(below=True, swap=False))
implements(*_over("gt"))(_compared(below=True, swap=True))
implements(*_over("ge"))(_compared(below=False, swap=False))
implements(*_over("le"))(_compared(below=False, swap=True))


@implements(*_over("eq"))
def _eq(cls: type[AdditiveSharingTensor], func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _layer(args).arithmetic.zero(args[0] - args[1])


@implements(*_over("ne"))
def _ne(cls: type[AdditiveSharingTensor], func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return 1 - _layer(args).arithmetic.zero(args[0] - args[1])


@implements(aten.relu.default)
def _relu(cls: type[AdditiveSharingTensor], func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[0].arithmetic.relu(args[0], 0, lowest_bit(current(), 1))


@implements(aten.max.default)
def _max(cls: type[AdditiveSharingTensor], func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[0].arithmetic.max(args[0].reshape(-1), 0, lowest_bit(current(), 1))


@implements(aten.argmax.default)
def _argmax(cls: type[AdditiveSharingTensor], func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, dim, keepdim = args[0], args[1] if len(args) > 1 else None, args[2] if len(args) > 2 else False
    x, dim = (x.reshape(-1), 0) if dim is None else (x, dim)
    index = x.arithmetic.max_and_mask(x, dim, lowest_bit(current(), 1))[2]
    return index.unsqueeze(dim) if keepdim else index


@implements(aten.maximum.default, aten.minimum.default)
def _extreme(cls: type[AdditiveSharingTensor], func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, y = args
    greater = (x - y).relu()
    return y + greater if func is aten.maximum.default else x - greater


@implements(aten._local_scalar_dense.default, aten.is_nonzero.default, aten.equal.default)
def _reads(cls: type[AdditiveSharingTensor], func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    raise PointerMisuseError(f"{func} would need the value, which nobody has: get() reconstructs it")


__all__ = ["AdditiveSharingTensor", "share"]
