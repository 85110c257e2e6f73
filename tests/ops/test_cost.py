"""Cost rules: what they predict is never less than what torch's allocator sees, and memory bombs are refused before anything is allocated."""

from __future__ import annotations

import bisect
from typing import Any

import pytest
import torch
from samples import clone, plain, samples
from torch.profiler import ProfilerActivity, profile, record_function

from syftlite.engine.bounds import check_values
from syftlite.ops.cost import cost, dynamic_cost
from syftlite.ops.infer import DataDependent, infer
from syftlite.ops.operator import Kind, Operator
from syftlite.ops.spec import Spec
from syftlite.ops.table import TABLE

SCALAR = 16
"""Bytes of a temporary that holds one number: not counted."""


def tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    return [t for v in value for t in tensors(v)] if isinstance(value, (list, tuple)) else []


def expanded(value: Any) -> Any:
    """One element, seen as a whole tensor."""
    if isinstance(value, torch.Tensor) and value.numel() > 1:
        return value.reshape(-1)[:1].reshape([1] * value.dim()).expand(value.shape)
    return [expanded(v) for v in value] if isinstance(value, list) else value


def reversed_dims(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.dim() > 1:
        return value.transpose(0, -1).contiguous().transpose(0, -1)
    return [reversed_dims(v) for v in value] if isinstance(value, list) else value


def as_specs(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return Spec.of(value)
    return [as_specs(v) for v in value] if isinstance(value, list) else value


def calls(operator: Operator) -> list[tuple[str, list[Any], dict[str, Any]]]:
    """Each sample three ways: as it is, in another order of dimensions, expanded from one element. What is written to stays."""
    found = []
    for layout in (lambda v: v, reversed_dims, expanded):
        for sample in samples(operator):
            args = [clone(plain(a)) for a in sample.args]
            kwargs = {name: clone(plain(v)) for name, v in sample.kwargs.items()}
            for position, parameter in enumerate(operator.parameters[: len(args)]):
                if parameter.name not in operator.writes:
                    args[position] = layout(args[position])
            found.append((layout.__name__, args, kwargs))
    return found


def predicted(operator: Operator, args: list[Any], kwargs: dict[str, Any]) -> int:
    specs, named = [as_specs(a) for a in args], {k: as_specs(v) for k, v in kwargs.items()}
    operands = operator.named(specs, named)
    try:
        return cost(operator, operands, infer(operator, specs, named)).nbytes
    except DataDependent:
        return dynamic_cost(operator, operands).nbytes + check_values(operator.number, operator.named(args, kwargs))


def test_no_operator_holds_more_than_its_rule_says() -> None:
    found = []
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        for operator in TABLE[1:]:
            assert operator is not None
            for layout, args, kwargs in calls(operator):
                with record_function(f"call {len(found)}"):
                    try:
                        operator.func(*args, **kwargs)
                    except RuntimeError:
                        continue  # a layout that this operator refuses
                found.append((operator, layout, args, kwargs))
    peaks = peak_bytes(profiler)
    over = []
    for number, (operator, layout, args, kwargs) in enumerate(found):
        try:
            bound = predicted(operator, args, kwargs)
        except RuntimeError:
            continue  # the meta kernel refuses it: so does the worker
        if operator.kind is not Kind.VIEW and peaks[number] > bound:
            shapes = [(tuple(t.shape), str(t.dtype)) for t in tensors(args)]
            over.append(f"{operator}, {layout}: {peaks[number]} bytes, the rule says {bound}: {shapes} {[a for a in args if type(a) in (int,float,bool,list)]}")
    assert not over, "\n".join(over)


def peak_bytes(profiler: Any) -> list[int]:
    """The most that each recorded call held at once."""
    events = list(profiler.profiler.kineto_results.events())
    calls = sorted(((int(e.name()[5:]), e.start_ns(), e.start_ns() + e.duration_ns()) for e in events if e.name().startswith("call ")))
    memory = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]" and abs(e.nbytes()) > SCALAR)
    times = [t for t, _ in memory]
    found: dict[int, int] = {}
    for number, start, end in calls:
        held = most = 0
        for _, nbytes in memory[bisect.bisect_left(times, start) : bisect.bisect_right(times, end)]:
            held += nbytes
            most = max(most, held)
        found[number] = most
    return [found[n] for n in range(len(found))]
