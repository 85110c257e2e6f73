"""torch's own functions, where a replay calls them for an overload: the same results, and never another overload."""

import torch
from placing import same
from samples import clone, plain, samples

import syftlite as sy
from syftlite._torch import aten, bare, binding
from syftlite.ops.operator import Kind
from syftlite.ops.table import TABLE


def test_a_binding_is_its_operator() -> None:
    bound = 0
    for operator in TABLE:
        if operator is None or operator.writes or operator.dynamic or operator.kind is Kind.RANDOM or "empty" in operator.name:
            continue
        for sample in samples(operator):
            args, kwargs = [plain(a) for a in sample.args], {k: plain(v) for k, v in sample.kwargs.items()}
            function = binding(operator.func, tuple(args), kwargs)
            if function is not None:
                bound += 1
                given, named = [clone(a) for a in args], {k: clone(v) for k, v in kwargs.items()}
                assert same(function(*given, **named), operator.func(*args, **kwargs)), operator
    assert bound > 500, "nearly every operator has one"


def test_another_overload_is_never_taken() -> None:
    x = torch.ones(3)
    assert binding(aten.add.Tensor, (x, x), {}) is not None
    assert binding(aten.add.Scalar, (x, 2), {}) is None, "torch.add makes a tensor of the number"
    assert binding(aten.sum.dim_IntList, (x, [0]), {}) is not None and binding(aten.sum.default, (x, [0]), {}) is None
    assert binding(aten._fused_adam.default, (x,), {}) is None


def test_nothing_is_computed_to_find_one() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    binding(aten.bernoulli.default, (torch.full((3,), 0.5),), {})
    assert torch.equal(before, torch.get_rng_state())


def test_a_straight_replay_uses_them(alice: sy.VirtualWorker) -> None:
    plan = sy.func2plan()(lambda x: x.relu() + x)
    for _ in range(3):
        plan(torch.ones(3).send(alice))
    (program,) = alice.transport.session.programs.values()  # type: ignore[attr-defined]
    assert bare(aten.relu.default) not in [call.func for call in program.straight.calls]
