"""Every semi-private torch name that syftlite uses, each with its reason.

make_wrapper          the only way to make a tensor with a true shape and dtype and no storage; used by torchao, DTensor, FakeTensor
no_torch_function     turns `__torch_function__` off for a class, so that an operator reaches `__torch_dispatch__` in 1.6 us, not 4
DispatchMode          torch's TorchDispatchMode, public in documentation, private in path: makes factories inside `with worker:` land on the
                      worker. torch's own turns its compiler off inside, for which it imports it: seconds
correct_aliasing      after an in-place view operator, gives the wrapper the new sizes and strides
tree_flatten          nested arguments of a plan as a flat list, and back; torch.export's own structure for it
is_plain              whether a tensor's value is here: whether torch itself, and no Python of a subclass, carries out what is done to it
ready                 imports what torch does at the first operator on a tensor subclass, a second of processor time: when the first tensor
                      is encoded, or while nodes start, so that no program's first step is the slow one
tree_map              a function of whatever is of one kind in nested arguments
below_functions       runs a function without the `__torch_function__` of its operands: how a layer calls what it re-expresses
without_functions     the same without that of modes that are on, too
decomposition         an operator as a function of core ATen operators, as torch.export has it
derives               whether a derivative is being taken in this thread: tensors that torch makes on the way are constants
out_of_place          the operator that gives a new tensor where another writes, by their schemas
bare                  what an operator overload calls: 0.3 us less an operation, of 1.4, on the worker
binding               torch's own Python function for an overload, which parses its arguments twice as fast as the overload does
is_composite          whether an operator is made of others: in inference mode such arrive whole at `__torch_dispatch__`
by_parts              such an operator where Python has met it and has nothing to say: `one_hot` in 8 us, 34 with torch's `decompose`
replaceable           whether Python alone holds a tensor, so that nothing keeps it from taking on another's value
sole                  whether a tensor's memory is no other tensor's
unversioned           a tensor's `data`, where a subclass has a property of that name: with its own count of writes, which `detach()` shares
unmapped              inside a map over rows, a tensor's values for all of them: what must be looked at before a kernel runs
unshared              whether nobody else can see a tensor's memory, so that it may be handed over where a copy was to be made
lendable, copied      a tensor whose copies share its memory until one of them is written: torch's copy-on-write
is_written_down       whether torch writes down operators instead of running them
is_zero               whether a tensor is of the kind that has no memory and is all zeros
without_function_modes
                      torch's function modes that are on go, and come back; what begins meanwhile is met, which `without_functions` forbids
without_modes         what is sent from inside a mode may run in this thread: there no other mode may meet it
broadcast             what torch.broadcast_shapes gives, whose first call imports torch's compiler: seconds of every process
parse_to              what `nn.Module.to` calls: answering for it makes `module.to(worker)` work
"""

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch.autograd import forward_ad
from torch.fx import _symbolic_trace
from torch.overrides import _pop_mode, _push_mode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes, return_and_correct_aliasing
from torch.utils._pytree import TreeSpec, tree_flatten, tree_map_only, tree_unflatten

__all__ = [
    "DispatchMode",
    "TreeSpec",
    "aten",
    "bare",
    "below_dispatch",
    "below_functions",
    "binding",
    "broadcast",
    "by_parts",
    "clear_transforms",
    "copied",
    "correct_aliasing",
    "decomposition",
    "derives",
    "is_composite",
    "is_plain",
    "is_written_down",
    "is_zero",
    "lendable",
    "make_wrapper",
    "no_torch_function",
    "out_of_place",
    "parse_to",
    "ready",
    "replaceable",
    "sole",
    "tree_flatten",
    "tree_map",
    "tree_unflatten",
    "unmapped",
    "unshared",
    "unversioned",
    "without_function_modes",
    "without_functions",
    "without_modes",
]

make_wrapper: Callable[..., Any] = torch.Tensor._make_wrapper_subclass
unversioned: Callable[[torch.Tensor], torch.Tensor] = torch._C.TensorBase.data.__get__  # type: ignore[attr-defined]
no_torch_function: Any = torch._C._disabled_torch_function_impl
parse_to: Callable[..., Any] = torch._C._nn._parse_to
correct_aliasing: Callable[..., Any] = return_and_correct_aliasing
aten: Any = torch.ops.aten
without_modes: Any = _disable_current_modes
below_dispatch: Any = torch._C._DisableTorchDispatch
clear_transforms: Any = temporarily_clear_interpreter_stack
below_functions: Any = torch._C.DisableTorchFunctionSubclass
without_functions: Any = torch._C.DisableTorchFunction
functorch: Any = torch._C._functorch


class DispatchMode(TorchDispatchMode):
    """While such a mode is on, operators arrive at its `__torch_dispatch__`. They are compiled no more than what else is in Python here."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


def broadcast(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that ``shapes`` broadcast to. Raises RuntimeError if they do not."""
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        raise RuntimeError(f"shapes {' and '.join(str(tuple(shape)) for shape in shapes)} do not broadcast") from None


_by_torch: Any = torch.Tensor.__torch_dispatch__


def is_plain(tensor: torch.Tensor) -> bool:
    """Whether its value is here: it is no pointer, and no layer of a chain."""
    kind: Any = type(tensor)
    return kind is torch.Tensor or kind.__torch_dispatch__ is _by_torch


@contextmanager
def without_function_modes() -> Iterator[None]:
    """Without the modes that are on; others may begin."""
    modes = [_pop_mode() for _ in range(torch._C._len_torch_function_stack())]
    try:
        yield
    finally:
        for mode in reversed(modes):
            _push_mode(mode)


@cache
def ready() -> None:
    """Have torch import now what it would at the first operator on a tensor subclass: DTensor, to see that it is none."""
    if torch.distributed.is_available():
        importlib.import_module("torch.distributed.tensor")


def tree_map(function: Callable[[Any], Any], tree: Any, kind: type) -> Any:
    """``tree`` with ``function`` of each part that is a ``kind``."""
    return tree_map_only(kind, function, tree, is_leaf=lambda part: isinstance(part, kind))


def bare(func: Any) -> Callable[..., Any]:
    """``func``, an operator overload, without the wrapper that calls it."""
    called: Callable[..., Any] = func._op
    return called


@cache
def out_of_place(func: Any) -> Any:
    """The overload that takes what ``func`` takes and gives a new tensor, where ``func`` writes to its first operand or to ``out``; None if
    there is none, or if ``func`` writes to several."""
    written = [a for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    if len(written) != 1 or written[0].name not in ("self", "out"):
        return None
    name = func._schema.name.split("::")[1]
    packet = getattr(aten, name if written[0].name == "out" else name.removesuffix("_"), None)
    wanted = _taken(func)
    overloads = () if packet is None else (getattr(packet, overload) for overload in packet.overloads())
    return next((f for f in overloads if not f._schema.is_mutable and _taken(f) == wanted and len(f._schema.returns) == 1), None)


def _taken(func: Any) -> list[tuple[str, str]]:
    """Names and types of operands, without ``out``."""
    return [(a.name, str(a.type)) for a in func._schema.arguments if not a.is_out]


_NAMESPACES: tuple[Any, ...] = (torch._C._VariableFunctions, torch._C._nn, torch._C.TensorBase)


class _Found(Exception):
    """An operator was reached, with these operands."""

    def __init__(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.call = (func, args, kwargs)


class _Look(DispatchMode):
    """Stops at the first operator, before it runs."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        raise _Found(func, args, kwargs or {})


def binding(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[..., Any] | None:
    """The function of torch that, given ``args`` and ``kwargs``, does what the overload ``func`` does with them; None if there is none.

    Nothing is computed to find out. Which overload a function takes depends on types alone: the answer holds for other values too.
    """
    name = func._schema.name.removeprefix("aten::")
    found: Callable[..., Any] | None = next((f for space in _NAMESPACES if (f := getattr(space, name, None)) is not None), None)
    if found is None:
        return None
    meant = _reached(bare(func), args, kwargs)
    return found if meant is not None and _same(_reached(found, args, kwargs), meant) else None


def _reached(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The operator that ``function`` would run first, with its operands; None if it fails before, or runs none."""
    try:
        with _Look():  # type: ignore[no-untyped-call]
            function(*args, **kwargs)
    except _Found as found:
        return found.call
    except Exception:  # it takes other forms of arguments
        return None
    return None


def _same(one: Any, other: Any) -> bool:
    """Whether two arguments are the same: tensors by identity, numbers by type too."""
    if type(one) is not type(other):
        return False
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(value, other[key]) for key, value in one.items())
    return one is other or (not isinstance(one, torch.Tensor) and bool(one == other))


_CPU = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)


def by_parts(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What ``func``, a composite operator that is met in Python, gives of local operands: torch's own parts of it."""
    return func.redispatch(_CPU, *args, **kwargs)


def is_composite(func: Any) -> bool:
    """Whether ``func``, an operator overload, has parts that `decompose` runs."""
    made: bool = torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")
    return made


def _counts(tensors: list[torch.Tensor], at: int) -> tuple[int, int, tuple[int, int]]:
    """References to a tensor from Python and from all, and to its memory."""
    held: int = tensors[at]._use_count()  # type: ignore[attr-defined]
    return sys.getrefcount(tensors[at]), held, _memory(tensors[at])


def _memory(tensor: torch.Tensor) -> tuple[int, int]:
    storage = tensor.untyped_storage()
    return sys.getrefcount(storage), torch._C._storage_Use_Count(storage._cdata)


def _gradients_counts() -> tuple[int, int, tuple[int, int]]:
    parameter = torch.zeros(1, requires_grad=True)
    parameter.grad = torch.zeros(1)
    return _counts([parameter.grad], 0)


_ALONE = _counts([torch.zeros(1)], 0)
_GRADIENT = _gradients_counts()


def replaceable(tensor: torch.Tensor) -> bool:
    """Whether nothing holds ``tensor`` but Python and, for a leaf in a graph that has run, what sums its gradient."""
    held: int = tensor._use_count()  # type: ignore[attr-defined]
    return held <= _ALONE[1] + (tensor.is_leaf and tensor.requires_grad)


def sole(tensor: torch.Tensor) -> bool:
    """Whether ``tensor`` is all of its memory, as it lies there, and no other tensor, array or process has it."""
    if tensor.layout is not torch.strided or tensor.is_conj() or tensor.is_neg() or not tensor.is_contiguous():
        return False
    storage = tensor.untyped_storage()
    whole = storage.nbytes() == tensor.nbytes and storage.resizable() and not tensor.is_shared()
    del storage
    return whole and _memory(tensor) == _ALONE[2]


def sole_gradient(grads: list[torch.Tensor], at: int) -> bool:
    """Whether ``grads[at]`` is all of its memory, and nothing but its parameter and that list leads to it."""
    return not grads[at].requires_grad and sole(grads[at]) and _counts(grads, at) == _GRADIENT


def unshared(tensors: list[torch.Tensor], at: int) -> bool:
    """Whether ``tensors[at]`` is all of its memory, contiguous, and that list alone leads to it."""
    tensor = tensors[at]
    whole = tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.nbytes and not tensor.requires_grad
    del tensor
    return whole and _counts(tensors, at) == _ALONE


def lendable(tensor: torch.Tensor) -> torch.Tensor:
    """A copy of ``tensor`` of which `copied` makes copies that take no memory until they, or it, are written. Not for memory that anything
    but torch writes, such as an array's."""
    made = tensor.detach().clone()
    if type(made) is torch.Tensor and made.layout is torch.strided and made.device.type == "cpu":
        torch._lazy_clone(made)
    return made


def copied(tensor: torch.Tensor) -> torch.Tensor:
    """A contiguous copy of ``tensor``, without history."""
    tensor = tensor.detach()
    if tensor.is_contiguous() and torch._C._is_cow_tensor(tensor):  # type: ignore[attr-defined]
        return torch._lazy_clone(tensor)
    return tensor.clone(memory_format=torch.contiguous_format)


def axes(tensor: torch.Tensor, dims: Any = None) -> list[int]:
    """The axes of ``tensor`` that ``dims`` names, one or several, from 0 on; all of them, if it names none. A number has one, which counts
    for none. Raises, as torch does, IndexError for one that there is not, RuntimeError for one that is named twice."""
    many = max(tensor.dim(), 1)
    named = range(tensor.dim()) if dims is None else [dims] if isinstance(dims, int) else list(dims) or range(tensor.dim())
    for dim in named:
        if not -many <= dim < many:
            raise IndexError(f"Dimension out of range (expected to be in range of [{-many}, {many - 1}], but got {dim})")
    found = [dim % many for dim in named]
    if len(set(found)) < len(found):
        raise RuntimeError(f"dim {max(found, key=found.count)} appears multiple times in the list of dims")
    return sorted(found) if tensor.dim() else []


def is_written_down() -> bool:
    """Whether torch writes down operators, to run them later."""
    return bool(_symbolic_trace._is_fx_tracing_flag)


def is_zero(tensor: torch.Tensor) -> bool:
    """Whether ``tensor`` is zero by its type."""
    zero: bool = tensor._is_zerotensor()
    return zero


def derives() -> bool:
    """Whether autograd is on its way backward, or forward-mode derivatives are taken."""
    task: int = torch._C._current_graph_task_id()
    return task != -1 or forward_ad._current_level >= 0


@cache
def _simpler() -> dict[Any, Callable[..., Any]]:
    from torch._decomp import core_aten_decompositions  # half a second, and most programs never need it

    made = core_aten_decompositions()  # type: ignore[no-untyped-call, unused-ignore]
    wrong = "aten.multilabel_margin_loss"  # torch's own is, for targets that end with -1
    return {func: simpler for func, simpler in made.items() if not str(func).startswith(wrong)}


def decomposition(func: Any) -> Callable[..., Any] | None:
    """``func`` as a function of core ATen operators; None if it is one."""
    return _simpler().get(func)


def unmapped(tensor: torch.Tensor) -> torch.Tensor:
    """The values of all rows, in whatever order of axes; of a tensor outside a map, itself."""
    while functorch.is_batchedtensor(tensor):
        tensor = functorch.get_unwrapped(tensor)
    return tensor
