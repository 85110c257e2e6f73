"""Operators that are not simply sent: by handlers of their own, as their parts, or as a copy of what a reviewed one gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from syftlite._torch import aten, is_composite
from syftlite.errors import OperatorNotReviewedError, PointerMisuseError
from syftlite.ops.table import BY_KEY
from syftlite.remote.constants import Emit

Handler = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]
HANDLERS: dict[int, Handler] = {}
"""Operators that are not simply sent, by `id` of their overload."""


def handles(*funcs: Any) -> Callable[[Handler], Handler]:
    """Register the decorated function for ``funcs``."""

    def register(handler: Handler) -> Handler:
        for func in funcs:
            HANDLERS[id(func)] = handler
        return handler

    return register


def in_parts(emit: Emit, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """An operator that is not reviewed: as its parts, if it is composite (in inference mode they arrive whole), or without its `out=`, or
    what it writes in place as a copy of a fresh result."""
    if is_composite(func):
        return func.decompose(*args, **kwargs)
    if func.namespace == "prims":  # what torch takes forward-mode derivatives apart into
        return func.impl_aten(*args, **kwargs)
    name = func._schema.name.removeprefix("aten::")
    if name.startswith("_foreach_") and isinstance(args[0], (list, tuple)) and not (isinstance(args[-1], torch.Tensor) and args[-1].dim()):
        return _each(name.removeprefix("_foreach_"), args, kwargs)
    target: Any = kwargs["out"] if "out" in kwargs else args[0] if args and func._schema.is_mutable else None
    fresh = _functional(func) if isinstance(target, torch.Tensor) else None
    if fresh is None:
        raise not_reviewed(func)
    handler, given = HANDLERS.get(id(fresh)), {k: v for k, v in kwargs.items() if k != "out"}
    place = None
    if not _takes_tensors(fresh):
        place, given = target._handle.worker, {**given, "dtype": target.dtype}
    result = emit(fresh, args, given, place) if handler is None else handler(fresh, args, given)
    if result.shape != target.shape:
        shapes = f"{list(target.shape)}, not {list(result.shape)}"
        raise PointerMisuseError(f"{func}: what it writes to is {shapes}: a remote tensor keeps its size")
    if not torch.can_cast(result.dtype, target.dtype):
        raise RuntimeError(f"result type {result.dtype} can't be cast to the desired output type {target.dtype}")
    copied: torch.Tensor = HANDLERS[id(aten.copy_.default)](aten.copy_.default, (target, result), {})
    return copied


def _each(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What an operator on lists does to each of their tensors, one after another."""
    tensors = args[0]
    rest = [value if isinstance(value, (list, tuple)) else [value] * len(tensors) for value in args[1:]]
    results = [getattr(x, name)(*values, **kwargs) for x, *values in zip(tensors, *rest, strict=True)]
    return None if name.endswith("_") else results


def _takes_tensors(func: Any) -> bool:
    return any("Tensor" in str(argument.type) for argument in func._schema.arguments)


def _functional(func: Any) -> Any:
    """The overload that gives what ``func`` would write to ``out``, or in place: a reviewed one, or one with a formula; None if there is
    none. One that takes no tensors may be told of a dtype and a place besides."""
    wanted = [(a.name, str(a.type)) for a in func._schema.arguments if not a.is_out]
    name = func._schema.name.removeprefix("aten::")
    packet = getattr(aten, name.removesuffix("_"), None) if name.endswith("_") and not name.endswith("__") else func.overloadpacket
    for overload in (getattr(packet, name) for name in packet.overloads()) if packet is not None else ():
        known = id(overload) in BY_KEY or (id(overload) in HANDLERS and not is_composite(overload))
        told = () if _takes_tensors(overload) else ("dtype", "layout", "device", "pin_memory")
        taken = [(a.name, str(a.type)) for a in overload._schema.arguments if a.name not in told]
        if known and not overload._schema.is_mutable and taken == wanted:
            return overload
    return None


def not_reviewed(func: Any) -> OperatorNotReviewedError:
    """The error for calling ``func`` on pointers."""
    return OperatorNotReviewedError(
        f"{func} is not among the {len(BY_KEY)} reviewed operators, so no worker will run it: get() its operands and compute here, "
        "or build it from reviewed ones (docs/operators.md)"
    )
