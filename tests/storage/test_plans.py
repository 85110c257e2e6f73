"""Plans in files: what is written comes back, nothing runs, and a file that lies is refused."""

import base64
import copy
import random
import struct

import msgpack
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import syftlite as sy
from syftlite._torch import DispatchMode
from syftlite.engine.engine import Engine
from syftlite.engine.session import Principal, Role
from syftlite.errors import GetNotPermittedError, OperatorNotReviewedError, PlanError
from syftlite.remote import registry
from syftlite.storage import plans as files
from syftlite.transports.memory import MemoryTransport


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.plan"


def head_of(path):
    raw = path.read_bytes()
    (length,) = struct.unpack_from("<I", raw, 8)
    return msgpack.unpackb(raw[12 : 12 + length]), raw[12 + length :]


def rewrite(path, head, rest):
    body = msgpack.packb(head)
    path.write_bytes(b"syftplan" + struct.pack("<I", len(body)) + body + rest)


def test_a_function_comes_back_without_its_code(bob, path):
    @sy.func2plan()
    def f(batch, scale):
        return {"sum": (batch["x"] * scale).sum(0), "pair": [batch["y"][0] - 1, batch["x"].relu()]}

    batch = {"x": torch.randn(3, 2), "y": (torch.randn(4),)}
    f.build(batch, 2.5)
    f.save(path)
    plan = sy.Plan.load(str(path))
    assert plan.is_built and plan.name == "f" and plan.code == f.code and plan.state == []
    remote = {"x": batch["x"].send(bob), "y": (batch["y"][0].send(bob),)}
    out, expected = plan(remote, 2.5), f.forward(batch, 2.5)
    assert torch.allclose(out["sum"].get(), expected["sum"]) and out["pair"][0].shape == (4,)
    assert all(torch.equal(p.get(), e) for p, e in zip(out["pair"], expected["pair"], strict=True))
    with pytest.raises(PlanError, match=r"float32\[3, 2\].*cannot be recorded for others"):
        plan(remote, 2.0)
    with pytest.raises(PlanError, match="without its function"):
        plan(batch, 2.5)
    with pytest.raises(PlanError, match="without its function"):
        plan.copy()(batch, 2.5)
    assert f.__name__ == "f" and b"scale" not in path.read_bytes()


def test_state_and_constants_come_along(bob, path):
    class Net(sy.Plan):
        def __init__(self):
            super().__init__()
            self.layer, self.norm = nn.Linear(3, 2), nn.BatchNorm1d(2)

        def forward(self, x):
            return self.norm(self.layer(x)) + torch.tensor([1.0, 2.0]).send(x.location)

    net, x = Net(), torch.randn(5, 3)
    net.build(x.send(bob))
    net.save(path)
    plan = sy.Plan.load(path)
    assert [t.requires_grad for t in plan.state] == [True] * 4 + [False] * 3 and len(plan.parameters()) == 4
    assert all(torch.equal(a, b) for a, b in zip(plan.state, net.state, strict=True))
    reference = copy.deepcopy(nn.Sequential(net.layer, net.norm))
    assert torch.allclose(plan.send(bob)(x.send(bob)).get(), reference(x) + torch.tensor([1.0, 2.0]), atol=1e-6)
    plan.get()
    assert torch.allclose(plan.state[4], reference[1].running_mean) and plan.state[6].item() == 1
    plan.save(path)
    assert torch.equal(sy.Plan.load(path).state[4], plan.state[4])


def test_training_goes_on_where_it_was_saved(bob, alice, path):
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    here = copy.deepcopy(model)
    model.send(bob)
    optimizer, eager = torch.optim.Adam(model.parameters(), lr=0.05), torch.optim.Adam(here.parameters(), lr=0.05)

    @sy.func2plan(state=(model, optimizer))
    def step(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    x, y = torch.randn(8, 3), torch.randint(0, 2, (8,))
    with pytest.raises(PlanError, match="not built"):
        step.save(path)
    for _ in range(3):
        step(x.send(bob), y.send(bob))
    step.save(path)
    plan = sy.Plan.load(path)
    for _ in range(4):
        loss = plan(x.send(alice), y.send(alice))
    for _ in range(7):
        eager.zero_grad()
        expected = F.cross_entropy(here(x), y)
        expected.backward()
        eager.step()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    plan.get()
    for tensor, parameter in zip(plan.state, here.parameters(), strict=False):
        assert torch.allclose(tensor, parameter, atol=1e-5)


GOLDEN = """
c3lmdHBsYW5uAQAAhaZmb3JtYXQBpG5hbWWmZ29sZGVuqW9wZXJhdG9yc5WSB69hdGVuLm11bC5UZW5zb3KSarFhdGVuLnJlbHUu
ZGVmYXVsdJLM0bBhdGVuLnN1bS5kZWZhdWx0kszhtGF0ZW4uYW1pbm1heC5kZWZhdWx0ks0BN69hdGVuLm1tLmRlZmF1bHSlc3Rh
dGWRkwCSAgLDqHByb2dyYW1zkYemaW5wdXRzkgKSkwORoXiRkgCRlACSAwKSAgEAkgDLQAAAAAAAAAClc3RhdGWRlACSAgKSAgEA
qWNvbnN0YW50c5CkY29kZZWUzQE3kgECwAOUB5IDy0AAAAAAAAAAwASUzOGRBIGjZGltAJIFBpRqkQbAB5TM0ZEBgaVkdHlwZQEI
p3Jlc3VsdHOTBQcIrHJlc3VsdF9zcGVjc5OUAJECkQEAlACRApEBAJQBkJAAp291dHB1dHOTA5KjbG93pHJlc3SSkgAAkgGSkgAB
kgACAACAPwAAAMAAAAA/AABAQA==
"""
"""A plan as format 1 wrote it: (batch["x"] @ weight * 2), of which minimum and maximum, and a sum in float64."""


def test_a_file_of_format_1_is_read_for_ever(bob, path):
    path.write_bytes(base64.b64decode(GOLDEN))
    plan = sy.Plan.load(path)
    (weight,) = plan.parameters()
    x = torch.tensor([[1.0, 2.0], [3.0, -1.0], [0.0, 1.0]])
    out, product = plan({"x": x.send(bob)}, 2.0), x @ weight.detach() * 2
    assert torch.equal(out["low"].get(), product.amin(0)) and torch.equal(out["rest"][0].get(), product.amax(0).relu())
    total = out["rest"][1].get()
    assert total.dtype == torch.float64 and total.item() == 6.0


def test_loading_runs_nothing(path):
    class Watch(DispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            ran.add(str(func))
            return func(*args, **(kwargs or {}))

    ran: set[str] = set()
    saved(path)
    before = set(registry.known)
    with Watch():
        sy.Plan.load(path)
    assert ran <= {"aten.view.default", "aten.detach.default"} and set(registry.known) == before


def test_state_that_the_gate_keeps_is_not_written(path):
    engine = Engine("plan-file-clinic")
    engine.load("icu", torch.randn(4, 3), ["#icu"], private=True)
    carol = sy.BaseWorker("plan-file-clinic", MemoryTransport(engine, Principal("carol", Role.SCIENTIST)))
    total = torch.zeros(3).send(carol)

    @sy.func2plan(state=[total])
    def f(rows):
        total.add_(rows.sum(0))
        return total * 1

    f(carol.search("#icu")[0])
    with pytest.raises(GetNotPermittedError):
        f.save(path)
    assert not path.exists()
    carol.close()


def saved(path):
    weight = torch.randn(2, 2, requires_grad=True)

    @sy.func2plan(args_shape=[(3, 2)], state=[weight])
    def f(x):
        return {"low": (x @ weight).aminmax(dim=0)[0], "rest": [x.sum()]}

    f.save(path)


def test_an_operator_of_a_newer_table_is_refused_by_name(path):
    saved(path)
    head, rest = head_of(path)
    number, name = head["operators"][0]
    for entry in ([100_000, "aten.tomorrow.default"], [number, "aten.other.default"], [0, name], [-3, name]):
        rewrite(path, {**head, "operators": [entry, *head["operators"][1:]]}, rest)
        with pytest.raises(OperatorNotReviewedError, match=entry[1]):
            sy.Plan.load(path)
    rewrite(path, {**head, "format": 2}, rest)
    with pytest.raises(PlanError, match="format 2"):
        sy.Plan.load(path)


def broken(head):
    """Heads that lie, each with what it lies about."""
    (program,) = head["programs"]
    code = program["code"]
    step = code[0]
    yield "operands", {"code": [[step[0], [999, *step[1][1:]], *step[2:]], *code[1:]]}
    yield "operands", {"code": [[step[0], step[1] * 40, *step[2:]], *code[1:]]}
    yield "operands", {"code": [[step[0], [{"a": 1}], *step[2:]], *code[1:]]}
    yield "operands", {"code": [[step[0], ["__import__"], *step[2:]], *code[1:]]}
    yield "results", {"code": [[*step[:3], 1], *code[1:]]}
    yield "results", {"code": [[*step[:3], [1, "x"]], *code[1:]]}
    yield "keywords", {"code": [[*step[:2], {"dim": [[[[1]]]]}, step[3]], *code[1:]]}
    yield "operator", {"code": [[1, *step[1:]], *code[1:]]}
    yield "results", {"results": [999, 1]}
    yield "results", {"results": [1]}
    yield "results", {"result_specs": program["result_specs"][:1]}
    yield "specs", {"result_specs": [[0, [2], [1 << 61], 0], program["result_specs"][1]]}
    yield "specs", {"result_specs": [[99, [2], [1], 0], program["result_specs"][1]]}
    yield "specs", {"result_specs": [[0, [-2], [1], 0], program["result_specs"][1]]}
    yield "state", {"state": [[0, [3, 3], [3, 1], 0]]}
    yield "inputs", {"inputs": [0, None]}
    yield "inputs", {"inputs": [2, [[3, [["a"]], [[0, 1]]]]]}
    yield "inputs", {"inputs": [2, [[7, [[0, 1]]]]]}
    yield "outputs", {"outputs": [1, [[0, 0], [0, 0]]]}
    yield "constants", {"constants": [[0, [1000]]]}
    yield "fields", {"extra": 1}


def test_a_file_that_lies_is_refused(path):
    saved(path)
    head, rest = head_of(path)
    for about, change in broken(head):
        rewrite(path, {**head, "programs": [{**head["programs"][0], **change}]}, rest)
        with pytest.raises(PlanError, match="no plan's file"):
            sy.Plan.load(path)
            pytest.fail(f"a lie about {about} was believed: {change}")
    for other in (
        {**head, "state": [[0, [2, 2], 1]]},
        {**head, "state": [[0, [1 << 40, 1 << 40], True]]},
        {**head, "state": [[8, [2, 1], True]]},
        {**head, "name": 7},
        {**head, "operators": []},
        {**head, "more": 1},
        {},
        [1],
    ):
        rewrite(path, other, rest)
        with pytest.raises(PlanError, match="no plan's file"):
            sy.Plan.load(path)


def test_any_bytes_are_a_plan_or_an_error(path):
    saved(path)
    raw, random_bytes = path.read_bytes(), random.Random(5)
    loaded = 0
    for trial in range(1500):
        changed = bytearray(raw)
        kind = trial % 4
        if kind == 0:
            del changed[random_bytes.randrange(len(raw)) :]
        elif kind == 1:
            changed += random_bytes.randbytes(1 + trial % 9)
        else:
            for _ in range(kind - 1):
                changed[random_bytes.randrange(len(raw) if kind == 2 else 80)] = random_bytes.randrange(256)
        path.write_bytes(changed)
        try:
            plan = sy.Plan.load(path)
        except (PlanError, OperatorNotReviewedError):
            continue
        loaded += 1
        assert plan.is_built and plan.state[0].shape == (2, 2)
    assert 0 < loaded < 700, "flipping a value in a tensor is no error; cutting off or adding bytes is"


def test_what_a_file_cannot_hold(path, tmp_path):
    from collections import namedtuple

    pair = namedtuple("pair", "x y")

    @sy.func2plan()
    def f(p):
        return p.x + p.y if isinstance(p, pair) else p[0] * 2

    f.build(pair(torch.ones(2), torch.ones(2)))
    with pytest.raises(PlanError, match="pair cannot be stored"):
        f.save(path)

    @sy.func2plan()
    def g(x, dtype):
        return x.to(dtype)

    g.build(torch.ones(2), torch.float64)
    with pytest.raises(PlanError, match="dtype cannot be stored"):
        g.save(path)
    assert list(tmp_path.iterdir()) == []


def test_names_of_dicts_and_scalars_come_back():
    tree = ({"b": [1, None], 3: ("x",)}, True, 2.5)
    packed = msgpack.unpackb(msgpack.packb(files._nested(tree, files._leaf)), use_list=False)
    assert files._tree(packed, files._read_leaf) == tree and files.leaves(tree) == [1, None, "x", True, 2.5]
