"""No message runs what is not in the table, and none that misuses what is does more than poison its results."""

from __future__ import annotations

import contextlib
import gc
import os
from typing import Any

import pytest
import torch
from bench import Bench
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from samples import samples

from syftlite.engine import executor
from syftlite.errors import OperatorNotReviewedError, ProtocolError, code_of
from syftlite.ops.operator import Operator, Result
from syftlite.ops.table import BY_FUNC, TABLE

OPERATORS = list(BY_FUNC.values())


def test_no_other_overload_runs_under_any_name(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bench = Bench()
    reviewed = {o.func.name() for o in OPERATORS}
    names = [n for n in torch._C._dispatch_get_all_op_names() if n not in reviewed]
    assert len(names) > 2000 and "aten::from_file" in names
    x = bench.put(torch.ones(2))
    open_before = _open_files()
    for name in (*names, *hostile_names(500)):
        for number in (name, name.replace("::", "."), name.encode()):
            _refused(bench, number, [x])
    for number in (0, -1, len(TABLE), 1 << 62, -(1 << 63), 1.0, True, None, [1], {"a": 1}, float("nan")):
        _refused(bench, number, [x])
    assert os.listdir(tmp_path) == [] and _open_files() == open_before
    assert torch.equal(bench.tensor(x), torch.ones(2))


def hostile_names(count: int) -> list[str]:
    stems = ["os.system", "__import__", "eval", "exec", "torch.load", "aten::from_file", "../../etc/passwd", "__reduce__", "func.__globals__", "\x00",
             "aten.add.Tensor", "1", "a" * 4096, "builtins.open", "socket.socket", "{x.__class__}", "%s%n", "\ud7ff", "aten::set_", "prim::PythonOp"]  # fmt: skip
    return [f"{stem}{number or ''}" for number in range(count // len(stems)) for stem in stems]


def _open_files() -> list[str]:
    gc.collect()  # what other tests have left is not to close in between
    found = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
    return sorted(place for place in found if not place.endswith("/fd"))


def _refused(bench: Bench, number: Any, args: list[Any]) -> None:
    out = bench.id()
    executor.run(bench.session, number, args, None, out)
    mark = bench.cell(out).mark
    assert mark is not None and mark.poison is not None and mark.poison.code == code_of(OperatorNotReviewedError())
    bench.session.drop(out)


def test_hostile_names_as_operands_poison(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bench = Bench()
    x = bench.put(torch.ones(2))
    gelu = BY_FUNC[torch.ops.aten.gelu.default].number
    for name in hostile_names(500):
        for args, kwargs in (([name], None), ([x], {name: name}), ([x], {"approximate": name}), ([[name]], None)):
            out = bench.id()
            executor.run(bench.session, gelu, args, kwargs, out)
            assert bench.cell(out).mark is not None
        for outs in (name, [name], {name: 1}):
            with pytest.raises(ProtocolError):
                executor.run(bench.session, gelu, [x], None, outs)
        bench.session.drop(out)
    assert os.listdir(tmp_path) == []


WRONG: list[Any] = [None, True, -1, 7, 1 << 62, -(1 << 63), 1 << 70, 2.5, float("nan"), "tanh", "x", b"x", [], [[]], [1, 2.5], [None], [3, 1],
                    [99, 1], {}, {"a": 1}, (1, 2, 3), [1 << 62] * 3]  # fmt: skip


UNHANDLED = code_of(AttributeError())
"""Of an error that nobody meant."""


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda o: o.name.removeprefix("aten."))
def test_wrong_types_at_each_place_are_contained(operator: Operator) -> None:
    bench = Bench(max_bytes=1 << 20)
    sample = samples(operator)[0]
    for position in range(len(operator.parameters)):
        for wrong in WRONG:
            args, kwargs = bench.wire(operator, sample)
            if position < len(operator.codes):
                args = [*args[:position], wrong, *args[position + 1 :]]
            else:
                kwargs = {**(kwargs or {}), operator.parameters[position].name: wrong}
            outs = _some_outs(bench, operator, args)
            try:
                executor.run(bench.session, operator.number, args, kwargs, outs)
            except ProtocolError:
                pass
            told = [cell.mark.poison for _, cell in bench.session.objects.values() if cell.mark is not None and cell.mark.poison is not None]
            assert not any(poison.code == UNHANDLED for poison in told), told
            bench.forget()
    assert bench.session.used == 0


def _some_outs(bench: Bench, operator: Operator, args: Any) -> Any:
    if operator.result is Result.LIST:
        return tuple(bench.id() for _ in range(3))
    return bench.outs(operator, args)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 65), 1 << 65) | st.floats() | st.text(max_size=8) | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | st.sampled_from(["dim", "self", "dtype"]), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=600, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(OPERATORS), st.lists(values, max_size=6), st.none() | st.dictionaries(st.text(max_size=6), values, max_size=3), values)
def test_arbitrary_messages_are_contained(operator: Operator, args: Any, kwargs: Any, outs: Any) -> None:
    bench = Bench(max_bytes=1 << 20)
    x = bench.put(torch.ones(2, 3))
    for given_outs in (outs, _some_outs(bench, operator, [[x]])):
        try:
            executor.run(bench.session, operator.number, [x, *args], kwargs, given_outs)
        except ProtocolError:
            pass
    assert bench.tensor(x).shape == (2, 3)
