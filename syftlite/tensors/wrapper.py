"""WrapperTensor: one layer of a chain. It has a true shape and dtype and no data; the value is its ``child``'s.

    functions   above autograd (`__torch_function__`): re-expressions whose gradient formula should differ
    ops         below autograd (`__torch_dispatch__`): what the layer understands
    otherwise   fallback(): the operator in terms of simpler ones, then NotImplementedError with the names of layer and operator

A layer unwraps its own kind and what lies below; it answers NotImplemented to a layer that must unwrap first (a higher `level`).
Nothing is forwarded to the child because nobody thought of it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, ClassVar, NoReturn, TypeVar

import torch

from syftlite._torch import below_functions, decomposition, make_wrapper, no_torch_function, out_of_place, unversioned
from syftlite.errors import PointerMisuseError
from syftlite.tensors.backwards import PASSES
from syftlite.tensors.requested import LayeredRequest, asked_for

Handler = Callable[..., Any]
H = TypeVar("H", bound=Handler)
W = TypeVar("W", bound="WrapperTensor")
_PLAIN = (torch.Tensor, torch.nn.Parameter)


class WrapperTensor(torch.Tensor):
    """A layer around ``child``. A subclass fills its tables with `implements` and `reexpresses`, and says how high it stands."""

    level: ClassVar[int] = 0
    """Of two layers in one operation the higher unwraps first. Pointers and plain tensors are below all."""
    remedy: ClassVar[str] = "use .child, or get() it first"
    """What to do about an operator that the layer does not know."""
    ops: ClassVar[dict[Any, Handler]] = {}
    functions: ClassVar[dict[Any, Handler]] = {}
    __torch_function__ = no_torch_function  # `reexpresses` turns it on, for the classes that need it
    _child: torch.Tensor

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.ops, cls.functions = dict(cls.ops), dict(cls.functions)

    @classmethod
    def implements(cls, *operators: Any) -> Callable[[H], H]:
        """Register the decorated function (cls, func, args, kwargs) for ATen ``operators``."""

        def register(handler: H) -> H:
            cls.ops.update(dict.fromkeys(operators, handler))
            return handler

        return register

    @classmethod
    def reexpresses(cls, *functions: Any) -> Callable[[H], H]:
        """Register the decorated function, called in place of ``functions`` of torch with their arguments."""

        def register(handler: H) -> H:
            cls.functions.update(dict.fromkeys(functions, handler))
            cls.__torch_function__ = classmethod(_function)
            return handler

        return register

    # -- making and unmaking

    @classmethod
    def around(cls: type[W], child: torch.Tensor, **attributes: Any) -> W:
        """The layer around ``child``, without history. ``attributes`` are what a subclass keeps beside it."""
        wrapper: W = make_wrapper(
            cls, child.shape, child.stride(), child.storage_offset(), None, child.dtype, child.layout, child.device
        )
        wrapper._child = child
        wrapper.__dict__.update(attributes)
        wrapper.adopt()
        return wrapper

    def adopt(self) -> None:
        """Be the child's parent. A plain tensor has none: it can be pickled, with all that hangs on it."""
        child = self._child
        if type(child) not in _PLAIN:
            child._parent = weakref.ref(self)  # type: ignore[attr-defined]

    def disown(self) -> None:
        """Leave no reference to this object behind: it is about to take another's value."""
        vars(self._child).pop("_parent", None)

    def attributes(self) -> dict[str, Any]:
        """What a result of an operator on this layer keeps of it."""
        return {}

    @classmethod
    def over(cls: type[W], child: torch.Tensor, **attributes: Any) -> W:
        """The layer around ``child``; gradients flow through."""
        if child.requires_grad and torch.is_grad_enabled():
            layered: W = _On.apply(child, cls, attributes)  # type: ignore[no-untyped-call]
            return layered
        return cls.around(child.detach() if child.requires_grad else child, **attributes)

    def _layered(self, value: Any) -> Any:
        """This layer around what the child gave: a tensor, or a list of them."""
        if isinstance(value, (list, tuple)):
            return [self._layered(v) for v in value]
        return self.over(value, **self.attributes())

    def unwrap(self) -> torch.Tensor:
        """What is below this layer; gradients flow through. ``child`` is the same without history."""
        if self.requires_grad and torch.is_grad_enabled():
            below: torch.Tensor = _Off.apply(self)  # type: ignore[no-untyped-call]
            return below
        return self._child

    # -- interpreting

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if any(t is not cls and issubclass(t, WrapperTensor) and t.level >= cls.level for t in types):
            return NotImplemented
        handler = cls.ops.get(func)
        if handler is not None:
            return handler(cls, func, args, kwargs or {})
        return cls.fallback(func, args, kwargs or {})

    @classmethod
    def fallback(cls, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An operator that the layer has no entry for: what writes, by what gives a new tensor; others, by simpler ones; or an error that
        names layer and operator."""
        fresh = out_of_place(func) if func._schema.is_mutable and torch.Tag.inplace_view not in func.tags else None
        if fresh is not None:
            return _written(kwargs.get("out", args[0]), fresh(*args, **{k: v for k, v in kwargs.items() if k != "out"}), func)
        simpler = decomposition(func)
        result = func.decompose(*args, **kwargs) if simpler is None else simpler(*args, **kwargs)
        if result is NotImplemented:
            name = str(func).split(".")[1].strip("_")
            raise NotImplementedError(f"{cls.__name__} does not know {func} ({name}): {cls.remedy}")
        return result

    # -- what it is

    @property
    def child(self) -> torch.Tensor:
        """The next layer in."""
        return self._child

    @property
    def parent(self) -> WrapperTensor | None:
        """The layer around this one that was made last, while it lives."""
        held = self.__dict__.get("_parent")
        return None if held is None else held()

    @property
    def is_wrapper(self) -> bool:
        """True: the value is further in."""
        return True

    @property
    def location(self) -> Any:
        """Where the value is: the worker of a pointer below, None if it is here."""
        return getattr(self._child, "location", None)

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"{type(self).__name__}>{self._child!r}"

    def __format__(self, spec: str) -> str:
        return format(self._child.item(), spec) if spec else repr(self)

    # -- through the layer

    def send(self, *workers: Any, **options: Any) -> Any:
        """This layer around a pointer to the child."""
        return self._layered(self.unwrap().send(*workers, **options))  # type: ignore[attr-defined]

    def get(self, *args: Any, **options: Any) -> Any:
        """This layer around the child's value."""
        with asked_for(self._layered):
            return self._layered(self.unwrap().get(*args, **options))  # type: ignore[attr-defined]

    def get_copy(self, *args: Any, **options: Any) -> Any:
        """As `get`; the worker keeps its own."""
        with asked_for(self._layered):
            return self._layered(self.unwrap().get_copy(*args, **options))  # type: ignore[attr-defined]

    def request(self, reason: str) -> Any:
        """Ask the owners of the child to let it go: what `get` of the request gives has this layer."""
        return LayeredRequest(self._child.request(reason), self._layered)  # type: ignore[attr-defined]

    def explain_release(self) -> str:
        """Which rules hold for the child, and what would let it go."""
        told: str = self._child.explain_release()  # type: ignore[attr-defined]
        return told

    def move(self, *args: Any, **options: Any) -> Any:
        """This layer around the child, moved."""
        return self._layered(self.unwrap().move(*args, **options))  # type: ignore[attr-defined]

    def tag(self, *tags: str) -> Any:
        """Label the child."""
        self._child.tag(*tags)  # type: ignore[attr-defined]
        return self

    def describe(self, description: str) -> Any:
        """Describe the child."""
        self._child.describe(description)  # type: ignore[attr-defined]
        return self

    @property
    def tags(self) -> set[str]:
        """The child's tags."""
        tags: set[str] = self._child.tags  # type: ignore[attr-defined]
        return tags

    @property
    def description(self) -> str:
        """The child's description."""
        text: str = self._child.description  # type: ignore[attr-defined]
        return text

    @property
    def data(self) -> torch.Tensor:
        """The same layer without autograd history; what is written to it no graph notices."""
        return unversioned(self)

    @data.setter
    def data(self, value: torch.Tensor) -> None:
        if not isinstance(value, torch.Tensor) or value.shape != self.shape:
            raise PointerMisuseError(f"x.data = y takes a tensor of the same shape, {tuple(self.shape)}: it is written over x")
        self.data.copy_(value)

    def tolist(self) -> Any:
        """The child's values."""
        return self._child.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        """The child's values."""
        if self.requires_grad and not force:
            raise PointerMisuseError("numpy() would lose the gradient: use detach().numpy()")
        return self._child.numpy(force=force)

    def __array__(self, dtype: Any = None) -> Any:
        array = self.numpy()
        return array if dtype is None else array.astype(dtype)

    def __copy__(self) -> Any:
        twin = self.detach().requires_grad_(self.requires_grad)
        return torch.nn.Parameter(twin, self.requires_grad) if isinstance(self, torch.nn.Parameter) else twin

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        twin = self.detach().clone().requires_grad_(self.requires_grad)
        if isinstance(self, torch.nn.Parameter):
            twin = torch.nn.Parameter(twin, self.requires_grad)
        if self.grad is not None:
            twin.grad = self.grad.clone()
        memo[id(self)] = twin
        return twin

    # -- what torch would do to memory that is not there

    def share_memory_(self) -> NoReturn:
        """Raises: share the child's memory."""
        raise _no_memory("share_memory_()")

    def data_ptr(self) -> NoReturn:
        """Raises: ask the child."""
        raise _no_memory("data_ptr()")

    def apply_(self, callable: Any) -> NoReturn:
        """Raises: torch would read memory that is not there."""
        raise _no_memory("apply_()")

    def __dlpack__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise _no_memory("DLPack")

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise PointerMisuseError("pickle needs the memory of a plain tensor: use .child, and of shares get().float_precision()")


def _function(cls: type[WrapperTensor], func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
    """`__torch_function__` of a layer that re-expresses something."""
    if func in PASSES:
        return PASSES[func](*args, **(kwargs or {}))
    handler = cls.functions.get(func)
    if handler is not None and all(getattr(t, "level", -1) <= cls.level for t in types):
        kwargs = dict(kwargs or {})
        out = kwargs.pop("out", None)
        result = handler(*args, **kwargs)
        return result if out is None else _filled(out, result, getattr(func, "__name__", func))
    with below_functions():
        return func(*args, **(kwargs or {}))


def _filled(out: Any, result: Any, name: Any) -> Any:
    """``out``, a tensor or several, with ``result`` written to it. Raises RuntimeError where a gradient would be lost, as torch does."""
    if isinstance(out, (list, tuple)):
        return type(result)([_filled(*pair, name) for pair in zip(out, result, strict=True)])
    if torch.is_grad_enabled() and (out.requires_grad or result.requires_grad):
        raise RuntimeError(f"{name}: out= takes no gradients, and an operand has requires_grad: use what it returns, or torch.no_grad()")
    return _written(out, result, name)


def _written(target: torch.Tensor, value: torch.Tensor, func: Any) -> torch.Tensor:
    """``target``, with ``value`` written to it. Raises RuntimeError if it has another shape."""
    if target.shape != value.shape:
        raise RuntimeError(f"{func}: what is written to has shape {tuple(target.shape)}, and the result {tuple(value.shape)}")
    return target.copy_(value)


class _On(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, child: torch.Tensor, layer: type[WrapperTensor], attributes: dict[str, Any]) -> WrapperTensor:
        return layer.around(child.detach(), **attributes)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (grad,) = grads
        return grad.unwrap() if isinstance(grad, WrapperTensor) else grad, None, None


class _Off(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, wrapper: WrapperTensor) -> torch.Tensor:
        ctx.layer, ctx.attributes = type(wrapper), wrapper.attributes()
        return wrapper._child.detach()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return ctx.layer.over(grads[0], **ctx.attributes)


def _no_memory(what: str) -> PointerMisuseError:
    return PointerMisuseError(f"{what} needs the memory of a plain tensor, and this is a layer around one: use .child")
