"""Conjugates of pointers: views, as in torch, though no worker keeps the bit that makes them so there.

    z.conj()              what it is of is kept; its values are computed when it is used, from what ``z`` is then
    z.conj().add_(1)      computed, added to, and written back to ``z`` as its conjugate
    z.conj()[0], z.mH     the conjugate of a view of ``z``
    z.conj().imag         the negative of a view of ``z``
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from syftlite._torch import aten, tree_map
from syftlite.errors import PointerMisuseError
from syftlite.ops.operator import Kind
from syftlite.ops.table import BY_KEY
from syftlite.remote.custody import is_view
from syftlite.remote.dispatch import emit, handles
from syftlite.remote.handle import Handle, RemoteTensor
from syftlite.remote.pointer import PointerTensor, wrapped


class Twist(NamedTuple):
    """How a view's values follow from those of what it is of, and back."""

    name: str
    there: Callable[[Any], Any]
    back: Callable[[Any], Any]


def _conjugated(z: Any) -> Any:
    return emit(aten._conj_physical.default, (z,), {}, None)


def _negated(x: Any) -> Any:
    return emit(aten.neg.default, (x,), {}, None)


def _in_pairs(z: Any) -> Any:
    return emit(aten.view_as_real.default, (z,), {}, None)


def _of_pairs(x: Any) -> Any:
    return emit(aten.view_as_complex.default, (x,), {}, None)


CONJUGATE = Twist("conjugate", _conjugated, _conjugated)
NEGATIVE = Twist("negative", _negated, _negated)
PAIRS = Twist("conjugate in pairs", lambda z: _in_pairs(_conjugated(z)), lambda x: _conjugated(_of_pairs(x)))


class TwistedView(PointerTensor):
    """A view of a pointer that has no memory of its own, and another value there. Made by ``pointer.conj()``."""

    __slots__ = ()
    _of: PointerTensor
    _twist: Twist

    @staticmethod
    def __new__(cls, of: PointerTensor, twist: Twist) -> TwistedView:
        shown = PAIRS.there(of)._handle if twist is PAIRS else of._handle
        view: TwistedView = RemoteTensor.__new__(cls, shown)  # type: ignore[assignment]
        view._of, view._twist = of, twist
        return view

    def __init__(self, of: PointerTensor, twist: Twist) -> None:
        """A ``twist`` of ``of``."""

    @property
    def _handle(self) -> Handle:
        """Of its values as they are now: remembered until something is written, where torch counts what is."""
        writes = None if self.is_inference() or not self._is_view() else self._version
        made = self.__dict__.get("_made")
        if writes is None or made is None or made[0] != writes:
            made = self.__dict__["_made"] = (writes, self._twist.there(self._of)._handle)
        handle: Handle = made[1]
        return handle

    @_handle.setter
    def _handle(self, handle: Handle) -> None:
        if "_of" in self.__dict__:  # it is made to be something else
            self.__class__ = PointerTensor
            self._handle = handle

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if not all(issubclass(kind, RemoteTensor) for kind in types):
            return NotImplemented  # a layer above is present: it unwraps first
        view = _viewed(func, args, kwargs or {}) if isinstance(args[0], TwistedView) else None
        return _computed(func, args, kwargs or {}) if view is None else view

    @property
    def location(self) -> Any:
        """The worker that holds what it is a view of."""
        return self._of.location

    @property
    def garbage_collection(self) -> bool:
        """As of what it is a view of."""
        return self._of.garbage_collection

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"PointerTensor | the {self._twist.name} of {self._of!r}"


@handles(aten._conj.default)
def _conj(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return TwistedView(args[0], CONJUGATE)


def _viewed(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What ``func`` gives of a twisted view if that is one too; None if it has to be computed."""
    x, *rest = args
    of, twist = x._of, x._twist
    if func is aten.detach.default:
        return TwistedView(of, twist)
    if twist is PAIRS:
        if func is not aten.select.int or rest[0] not in (-1, x.dim() - 1):
            return None
        part = func(_in_pairs(of), *rest)
        return TwistedView(part, NEGATIVE) if rest[1] in (1, -1) else part
    if func is aten._conj.default and twist is CONJUGATE:
        return wrapped(of._handle)
    if func is aten.view_as_real.default and twist is CONJUGATE:
        return TwistedView(of, PAIRS)
    operator = BY_KEY.get(id(func))
    if operator is None or operator.kind is not Kind.VIEW or not is_view(func) or func in _OTHER_NUMBERS:
        return None
    views = func(of, *rest, **kwargs)
    return [TwistedView(view, twist) for view in views] if isinstance(views, (list, tuple)) else TwistedView(views, twist)


_OTHER_NUMBERS = (aten.view_as_real.default, aten.view_as_complex.default)


def _computed(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``func`` of what the twisted views among its operands are now; what it writes to them is written back."""
    if torch.Tag.inplace_view in func.tags:
        raise PointerMisuseError(f"{func} cannot change the shape of a conjugate of a pointer: take a view of it, or resolve_conj() first")
    plain: dict[int, tuple[PointerTensor, TwistedView]] = {}

    def compute(x: torch.Tensor) -> torch.Tensor:
        if not isinstance(x, TwistedView):
            return x
        if id(x) not in plain:
            plain[id(x)] = wrapped(x._handle), x
        return plain[id(x)][0]

    given, named = tree_map(compute, (args, kwargs), torch.Tensor)
    out = func(*given, **named)
    for argument, value in [*zip(func._schema.arguments, args, strict=False), *[(a, kwargs.get(a.name)) for a in func._schema.arguments]]:
        if argument.alias_info is not None and argument.alias_info.is_write:
            for x in value if isinstance(value, (list, tuple)) else (value,):
                if isinstance(x, TwistedView):
                    emit(aten.copy_.default, (x._of, x._twist.back(plain[id(x)][0])), {}, None)
    originals = {id(computed): view for computed, view in plain.values()}
    return tree_map(lambda x: originals.get(id(x), x), out, torch.Tensor)
