"""Every operator of the table: remote is local, specs are promised truly, aliases and writes are declared, nothing is uninitialised."""

from __future__ import annotations

import hashlib
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from bench import Bench
from placing import bits, local, operands, same, sent_to, strided, walk
from samples import SPECIAL, samples

import syftlite as sy
from syftlite.engine.device import placed
from syftlite.errors import ProtocolError
from syftlite.ops.infer import depends_on_values
from syftlite.ops.operator import Kind, Operator, Result
from syftlite.ops.spec import Spec
from syftlite.ops.table import TABLE
from syftlite.wire import messages as m

OPERATORS = [o for o in TABLE if o is not None]
each_operator = pytest.mark.parametrize("operator", OPERATORS, ids=lambda o: o.name.removeprefix("aten."))

PUBLISHED = 551
DIGEST = "e957d9fd0685aa80e552d68366a92d600d33f99fcfa7e9bac93516ce88b5f92c"
"""Of the first `PUBLISHED` entries: numbers are part of the protocol and never change."""


def test_numbers_are_frozen() -> None:
    lines = [f"{number} {operator.name if operator else ''}\n" for number, operator in enumerate(TABLE[1 : PUBLISHED + 1], 1)]
    assert len(lines) == PUBLISHED
    assert hashlib.sha256("".join(lines).encode()).hexdigest() == DIGEST, "append new operators; never move or remove one"


def test_every_operator_has_samples() -> None:
    for operator in OPERATORS:
        found = samples(operator)
        assert found, f"{operator} has no samples"
        assert any(t.numel() for s in found for t in walk(s.args, s.kwargs)) or operator.kind in (Kind.FACTORY, Kind.RANDOM)
    assert set(SPECIAL) <= {o.name.removeprefix("aten.") for o in OPERATORS}, "a sample for an operator that is not in the table"


def test_every_entry_reaches_a_worker() -> None:
    """One that torch decomposes above `__torch_dispatch__` never would."""
    keys = ("CPU", "CompositeExplicitAutograd", "CompositeExplicitAutogradNonFunctional")
    for operator in OPERATORS:
        name = operator.func.name()
        assert any(torch._C._dispatch_has_kernel_for_dispatch_key(name, key) for key in keys), f"{operator} is composite"


# -- remote == local, and what the client promises


DEVICES = [None, "cuda"] if torch.cuda.is_available() else [None]


@pytest.fixture(scope="module", params=DEVICES, ids=str)
def worker(request: pytest.FixtureRequest) -> sy.VirtualWorker:
    """A worker that keeps its tensors in main memory; where there is a card, also one that keeps them there."""
    return sy.VirtualWorker(id=f"table-worker-{request.param}", serialize=True, device=request.param)


@each_operator
def test_remote_is_local(operator: Operator, worker: sy.VirtualWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    handle = worker.engine.handle
    monkeypatch.setattr(worker.engine, "handle", lambda session, message: (seen.append(_operator(message)), handle(session, message))[1])
    for sample in samples(operator):
        there, there_named = operands(sample, sent_to(worker))
        if worker.engine.device is None:
            here, here_named = local(sample)
            out = _call(operator, here, here_named)
        else:
            here, here_named = operands(sample, lambda t: strided(t, worker.engine.device.arrive))
            try:
                out = _call(operator, here, here_named, placed(operator, worker.engine.device.torch))
            except (RuntimeError, NotImplementedError, TypeError):  # torch has no such kernel there
                continue
        if "empty" in operator.name:
            out = out.zero_()
        with worker if has_none(there, there_named) else nullcontext():
            promised = _call(operator, there, there_named)
        assert operator.number in seen or operator.func is torch.ops.aten._local_scalar_dense.default  # the client reads the value
        if operator.result is not Result.NOTHING:
            _check_promises(worker, promised, aliases=operator.aliases)
            assert same(_values(out), _values(promised))
        assert same(_values(list(walk(here, here_named))), _values(list(walk(there, there_named))))
        seen.clear()


def has_none(*values: Any) -> bool:
    """Whether there is no tensor in ``values``."""
    return next(walk(*values), None) is None


def _operator(message: Any) -> int:
    number: int = message[1] if message[0] == m.OP else message[2] if message[0] == m.ASK else 0
    return number


def _call(operator: Operator, args: Any, kwargs: Any, func: Any = None) -> Any:
    torch.manual_seed(3)
    return (func or operator.func)(*args, **kwargs)


def _values(value: Any) -> Any:
    if isinstance(value, sy.PointerTensor):
        return value.get_copy()
    if isinstance(value, torch.Tensor):
        return value.cpu()
    return [_values(v) for v in value] if isinstance(value, (list, tuple)) else value


def _check_promises(worker: sy.VirtualWorker, promised: Any, *, aliases: bool = False) -> None:
    """Shape, stride, offset and dtype that the client inferred are those of the worker's tensors: no exceptions in main memory. On a
    device a kernel may lay out a fresh result in its own way."""
    device = worker.engine.device
    for pointer in walk([promised] if isinstance(promised, torch.Tensor) else promised):
        if isinstance(pointer, sy.PointerTensor):
            tensor = worker.engine.objects[pointer.id_at_location][0]
            spec = pointer._handle.spec
            assert tensor is not None and spec is not None
            if device is not None:
                assert tensor.device.type == device.torch.type and (tensor.shape, tensor.dtype) == (spec.shape, spec.dtype)
                if not aliases:
                    continue
            assert (spec.shape, spec.stride, spec.offset, spec.dtype) == (tensor.shape, tensor.stride(), tensor.storage_offset(), tensor.dtype)
            assert (pointer.shape, pointer.stride(), pointer.dtype) == (tensor.shape, tensor.stride(), tensor.dtype)


def test_inference_leaves_its_meta_tensors_as_they_are() -> None:
    for spec in list(Spec._all.values()):
        meta = spec.__dict__.get("meta")
        if meta is not None:
            assert (meta.shape, meta.stride(), meta.storage_offset(), meta.dtype) == (spec.shape, spec.stride, spec.offset, spec.dtype)


def test_a_spec_first_met_in_inference_mode_serves_training(worker: sy.VirtualWorker) -> None:
    with torch.inference_mode():
        (torch.ones(3, 41).send(worker) * 2).get()
    w = torch.ones(3, 41).send(worker)
    assert torch.equal(w.mul_(3.0).add_(w).get(), torch.full((3, 41), 6.0))


def test_shapes_that_depend_on_a_float_are_not_mistaken_for_another(worker: sy.VirtualWorker) -> None:
    with worker:
        assert [torch.arange(end).shape[0] for end in (2.5, 7.5, 2.5)] == [3, 8, 3]
        quarters, eighths = torch.arange(0.0, 1.0, 0.25), torch.arange(0.0, 1.0, 0.125)
    assert torch.equal(quarters.get(), torch.arange(0.0, 1.0, 0.25)) and torch.equal(eighths.get(), torch.arange(0.0, 1.0, 0.125))


# -- aliases and writes


@each_operator
def test_aliases_and_writes_are_declared(operator: Operator) -> None:
    bench = Bench()
    for sample in samples(operator):
        args, kwargs = bench.wire(operator, sample)
        if operator.dynamic and depends_on_values(operator, [bench.stored(a) for a in args]):
            continue  # its results come by ASK and are fresh by construction: see below
        before = {number: bits(bench.tensor(number)).clone() for number in bench.ids([args, kwargs or {}])}
        storages = {number: _storage(bench.tensor(number)) for number in before}
        targets = set(bench.written(operator, args, kwargs))
        results = bench.run(operator, args, kwargs)
        assert all(bench.cell(r).mark is None for r in results), [bench.cell(r).mark for r in results]
        for number, old in before.items():
            assert number in targets or torch.equal(bits(bench.tensor(number)), old), f"{operator} writes to an operand and does not say so"
        for result in results:
            tensor = bench.tensor(result)
            shared = tensor.numel() > 0 and _storage(tensor) in storages.values()
            assert shared == (operator.aliases and tensor.numel() > 0), f"{operator}: aliases={operator.aliases}, storage shared: {shared}"
            assert (bench.cell(result) in [bench.cell(n) for n in before]) == operator.aliases
            assert operator.aliases or tensor.untyped_storage().nbytes() <= bench.cell(result).nbytes, "it holds more than its account says"
        bench.forget()
        assert bench.session.used == 0


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


DYNAMIC = [o for o in OPERATORS if o.dynamic and o.result is not Result.VALUE]


@pytest.mark.parametrize("operator", DYNAMIC, ids=lambda o: o.name)
def test_results_of_unknown_shape_are_fresh(operator: Operator) -> None:
    for sample in samples(operator):
        args, kwargs = local(sample)
        before = [t.clone() for t in walk(args, kwargs)]
        out = operator.func(*args, **kwargs)
        storages = [_storage(t) for t in walk(args, kwargs) if t.numel()]
        assert not any(_storage(t) in storages for t in walk([out] if isinstance(out, torch.Tensor) else out) if t.numel())
        assert all(map(same, before, walk(args, kwargs)))


def test_writes_are_what_torch_says_and_batch_norms_statistics() -> None:
    undeclared = {o.name: sorted(o.writes) for o in OPERATORS if o.writes != {p.name for p in o.parameters if p.written}}
    assert undeclared == {"aten.native_batch_norm.default": ["running_mean", "running_var"]}
    assert not any("out" in o.keywords for o in OPERATORS), "out= may make a tensor larger than its owner knows"


# -- nothing uninitialised


@pytest.mark.parametrize("operator", [o for o in OPERATORS if "empty" in o.name], ids=lambda o: o.name)
def test_empty_is_filled_with_zeros(operator: Operator) -> None:
    bench = Bench()
    for sample in samples(operator):
        args, kwargs = bench.wire(operator, sample)
        dirty = [torch.full((size,), 171, dtype=torch.uint8) for size in range(1, 400)]
        del dirty  # what was just freed is what comes next
        (result,) = bench.run(operator, args, kwargs)
        storage = bench.tensor(result).untyped_storage()
        assert not any(storage), f"{operator} shows freed memory"
        with pytest.raises(ProtocolError):
            bench.say(m.ASK, 1, operator.number, args, kwargs, [bench.id()])


@each_operator
def test_no_result_has_uninitialised_elements(operator: Operator) -> None:
    """With torch told to fill what it allocates, results stay the same: every element of them was computed."""
    torch.use_deterministic_algorithms(True)
    try:
        for sample in samples(operator):
            if "empty" not in operator.name:
                outs = []
                for fill in (False, True):
                    torch.utils.deterministic.fill_uninitialized_memory = fill
                    try:
                        outs.append(_call(operator, *local(sample)))
                    except RuntimeError as error:
                        assert "deterministic" in str(error)
                assert len(outs) != 2 or same(*outs)
    finally:
        torch.utils.deterministic.fill_uninitialized_memory = True
        torch.use_deterministic_algorithms(False)
