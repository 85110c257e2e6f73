"""What a Python function reads besides its arguments: what a plan of it has to look at again before each replay.

    names      in functions round it, globally, and as defaults
    objects    that it is a method of, or names: their attributes and their classes', some objects deep
    classes    that it names: their attributes; of modules those that it names
    functions  that it names, methods too, also a module's forward, and what they read in turn; those of libraries are their own business
"""

from __future__ import annotations

import contextlib
import functools
import sys
import types
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

Path = tuple[str, ...]
"""Names, from a function on."""
NUMBERS = (bool, int, float, complex, str)
DEPTH = 4
"""Names on the way to an attribute of an object."""
_VALUES = (tuple, list, dict, set, frozenset, nn.Module, torch.Tensor)
_NOTHING = (type, types.ModuleType, types.BuiltinFunctionType)
_LIBRARIES = frozenset({"torch", "syftlite", "numpy", *sys.stdlib_module_names}) - {"__main__", "argparse", "types"}


def named(function: Any, skipped: object = None) -> dict[Path, Any]:
    """What ``function`` reads, by where it finds it: numbers, texts, tensors, modules, containers; of functions, their code. ``skipped`` is
    looked at elsewhere."""
    found: dict[Path, Any] = {}
    known: set[Any] = {id(skipped)}
    _follow(function, (), found, known)
    for name, value in getattr(skipped, "__dict__", {}).items():
        if isinstance(value, nn.Module):
            _follow_parts(value, (name,), found, known)
    return found


def _follow_parts(module: nn.Module, path: Path, found: dict[Path, Any], known: set[Any]) -> None:
    """Enter what the code of ``module`` and of its parts reads, of each class once."""
    parts: list[Any] = [module]
    for part in parts:  # as `modules()` finds them, in a fraction of its time
        if part is None or id(part) in known:
            continue
        known.add(id(part))
        parts += part._modules.values()
        kind: Any = type(part)
        if kind not in known and _own(kind)[:1] == (kind,):
            known.add(kind)
            _follow_code(kind.forward, part, (*path, kind.__qualname__), found, known)


def _follow_code(call: types.FunctionType, owner: object, path: Path, found: dict[Path, Any], known: set[Any]) -> None:
    """Enter what ``call``, a function or a method of ``owner``, names."""
    named = {name for code in _codes(call) for name in code.co_names}
    _follow_methods(owner, named, (*path, "self"), found, known)
    for name, value in _names(call):
        _note(value, (*path, name), found, known)
        _follow_methods(value, named, (*path, name), found, known)


def _follow_methods(value: object, called: set[str], path: Path, found: dict[Path, Any], known: set[Any]) -> None:
    """Enter what those methods of ``value``, an object or a class of the user's, read that are ``called``."""
    kind: Any = value if isinstance(value, type) else type(value)
    for each in _own(kind):
        for name in called & vars(each).keys():
            method: Any = vars(each)[name]
            call = getattr(method, "fget", None) or getattr(method, "__func__", method)
            if isinstance(call, types.FunctionType) and (id(call), kind) not in known:
                known.add((id(call), kind))
                _follow_code(call, value, (*path, name), found, known)


def of_class(kind: Any) -> Iterator[tuple[str, Any]]:
    """Numbers, texts, tensors, modules and containers that are attributes of a class of the user's, those of its bases first."""
    for each in reversed(_own(kind)):
        for name, value in vars(each).items():
            if name[0] != "_" and (type(value) in NUMBERS or isinstance(value, _VALUES)):
                yield name, value


@functools.lru_cache(maxsize=256)
def _own(kind: Any) -> tuple[type, ...]:
    """``kind`` and its bases, without those of libraries."""
    return tuple(each for each in kind.__mro__ if not _is_of_library(each))


def _attributes(thing: Any) -> Iterator[tuple[str, Any]]:
    """Of an object: its class's, those that it has a slot for, its own."""
    kind: Any = type(thing)
    yield from of_class(kind)
    for each in _own(kind):
        for name, slot in vars(each).items():
            if isinstance(slot, types.MemberDescriptorType) and hasattr(thing, name):
                yield name, getattr(thing, name)
    yield from getattr(thing, "__dict__", {}).items()


def _follow(function: Any, path: Path, found: dict[Path, Any], known: set[Any]) -> None:
    """Enter what ``function`` reads."""
    if isinstance(function, functools.partial):
        for at, value in enumerate([*function.args, *function.keywords.values()]):
            _note(value, (*path, f"argument {at}"), found, known)
        function = function.func
    owner = getattr(function, "__self__", None)
    call = getattr(function, "__func__", function)
    if not hasattr(call, "__code__") and callable(function) and not isinstance(function, _NOTHING):  # an object
        owner, call = function, type(function).__call__
    if not hasattr(call, "__code__") or (id(call), id(owner)) in known:
        return
    known.add((id(call), id(owner)))
    if isinstance(owner, nn.Module):
        _note(owner, (*path, "self"), found, known)
    elif owner is not None and id(owner) not in known:
        known.add(id(owner))
        for name, value in _attributes(owner):
            if name[0] != "_" or not _is_of_library(type(owner)):
                _note(value, (*path, "self", name), found, known)
    _follow_code(call, owner, path, found, known)


def _codes(function: types.FunctionType) -> list[types.CodeType]:
    """Its own code, and that of comprehensions and of functions inside."""
    codes = [function.__code__]
    for code in codes:
        codes += [const for const in code.co_consts if isinstance(const, types.CodeType)]
    return codes


def _names(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """What a plain function names."""
    for at, value in enumerate([*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]):
        yield f"default {at}", value
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
        with contextlib.suppress(ValueError):  # not filled yet
            yield name, cell.cell_contents
    for code in _codes(function):
        for name in code.co_names:
            if name in function.__globals__:
                value = function.__globals__[name]
                yield name, value
                if isinstance(value, types.ModuleType) and not _is_installed(value):
                    yield from ((f"{name}.{other}", vars(value)[other]) for other in code.co_names if other in vars(value))


def _note(value: Any, path: Path, found: dict[Path, Any], known: set[Any]) -> None:
    """Enter ``value``, or what there is to it: of an object its attributes, of a function what it reads."""
    if type(value) in NUMBERS or isinstance(value, _VALUES):
        found[path] = value
        if isinstance(value, nn.Module):
            _follow_parts(value, path, found, known)
    elif isinstance(value, (types.FunctionType, types.MethodType, functools.partial)):
        if not _is_of_library(value):
            found[path] = getattr(value, "__code__", None)
            _follow(value, path, found, known)
    elif isinstance(value, type):
        found.update({(*path, name): attribute for name, attribute in of_class(value)})
    elif not isinstance(value, _NOTHING) and not _is_of_library(type(value)) and id(value) not in known and len(path) < DEPTH:
        known.add(id(value))
        for name, attribute in _attributes(value):
            _note(attribute, (*path, name), found, known)
        if callable(value):
            _follow(value, path, found, known)


def _is_installed(module: types.ModuleType) -> bool:
    return module.__name__.partition(".")[0] in _LIBRARIES or "-packages" in (getattr(module, "__file__", None) or "")


def _is_of_library(thing: Any) -> bool:
    return (getattr(thing, "__module__", None) or "").partition(".")[0] in _LIBRARIES
