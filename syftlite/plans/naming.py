"""What a Python function reads besides its arguments: what a plan of it has to look at again before each replay.

    names      in functions round it, globally, and as defaults
    objects    that it is a method of, or names: their attributes, some objects deep
    functions  that it names, and what they read in turn; those of libraries are their own business
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
    _follow(function, (), found, {id(skipped)})
    return found


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
        for name, value in getattr(owner, "__dict__", {}).items():
            if name[0] != "_" or not _is_of_library(type(owner)):
                _note(value, (*path, "self", name), found, known)
    for name, value in _names(call):
        _note(value, (*path, name), found, known)


def _names(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """What a plain function names."""
    for at, value in enumerate([*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]):
        yield f"default {at}", value
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
        with contextlib.suppress(ValueError):  # not filled yet
            yield name, cell.cell_contents
    codes = [function.__code__]
    for code in codes:
        codes += [const for const in code.co_consts if isinstance(const, types.CodeType)]  # comprehensions, functions inside
        for name in code.co_names:
            if name in function.__globals__:
                yield name, function.__globals__[name]


def _note(value: Any, path: Path, found: dict[Path, Any], known: set[Any]) -> None:
    """Enter ``value``, or what there is to it: of an object its attributes, of a function what it reads."""
    if type(value) in NUMBERS or isinstance(value, _VALUES):
        found[path] = value
    elif isinstance(value, (types.FunctionType, types.MethodType, functools.partial)):
        if not _is_of_library(value):
            found[path] = getattr(value, "__code__", None)
            _follow(value, path, found, known)
    elif not isinstance(value, _NOTHING) and not _is_of_library(type(value)) and id(value) not in known and len(path) < DEPTH:
        known.add(id(value))
        for name, attribute in getattr(value, "__dict__", {}).items():
            _note(attribute, (*path, name), found, known)
        if callable(value):
            _follow(value, path, found, known)


def _is_of_library(thing: Any) -> bool:
    return (getattr(thing, "__module__", None) or "").partition(".")[0] in _LIBRARIES
