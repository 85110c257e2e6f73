"""Plans: recorded once, replayed by one message, equal to what they recorded."""

import copy
import gc
import pickle
import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import syftlite as sy
from syftlite.engine.engine import Engine
from syftlite.engine.session import Principal, Role
from syftlite.errors import (
    GetNotPermittedError,
    LocalTensorMixedError,
    ObjectNotFoundError,
    PlanError,
    PointerMisuseError,
    TensorsNotCollocatedError,
)
from syftlite.plans.placed import Placed
from syftlite.plans.settings import FORMS
from syftlite.transports.memory import MemoryTransport


def executed(worker):
    return worker.engine.sessions[worker.transport.prefix].executed


def test_a_function_replays_as_one_message(bob):
    @sy.func2plan(args_shape=[(3,), (3,)])
    def f(x, y):
        for _ in range(4):
            x = x * 2 + y
        return x.relu(), x.sum()

    assert f.is_built and "aten.mul.Tensor" in f.code and "return" in f.code
    f.send(bob)
    x, y = torch.randn(3), torch.randn(3)
    px, py = x.send(bob), y.send(bob)
    before = executed(bob)
    results = f(px, py)
    assert executed(bob) == before + 1
    for remote, local in zip(results, f(x, y), strict=True):
        assert remote.shape == local.shape and torch.equal(remote.get(), local)
    del results, px, py
    f._placed = Placed()
    assert bob._objects == {} and bob.engine.sessions[bob.transport.prefix].programs == {}


def test_the_code_tells_values_from_numbers():
    @sy.func2plan(args_shape=[(3, 4), (3, 4)])
    def f(x, y):
        values, places = torch.cat([x, y], 1).to(torch.float64).max(dim=1)
        return values * 2, places, x[[0, 2]]

    assert f.code.splitlines() == [
        "def f(%1: float32[3, 4], %2: float32[3, 4]):",
        "    %3 = constant int64[2]",
        "    %4 = aten.cat.default([%1, %2], 1)",
        "    %5 = aten._to_copy.default(%4, dtype=torch.float64)",
        "    %6, %7 = aten.max.dim(%5, 1)",
        "    %8 = aten.mul.Tensor(%6, 2)",
        "    %9 = aten.index.Tensor(%1, [%3])",
        "    return %8, %7, %9",
    ]


def test_nested_arguments_and_results(bob):
    @sy.func2plan()
    def f(batch, scale):
        return {"sum": batch["x"] + batch["y"][0], "scaled": [batch["x"] * scale]}

    batch = {"x": torch.ones(2), "y": (torch.arange(2.0),)}
    out = f({"x": batch["x"].send(bob), "y": (batch["y"][0].send(bob),)}, 3.0)
    assert torch.equal(out["sum"].get(), torch.tensor([1.0, 2.0])) and torch.equal(out["scaled"][0].get(), torch.full((2,), 3.0))


def test_inputs_of_a_new_shape_are_recorded_again(bob):
    @sy.func2plan(args_shape=[(2, 2)])
    def f(x):
        return x.view(-1) * x.shape[0]

    for n in (2, 3, 2):
        x = torch.randn(n, 2)
        assert torch.equal(f(x.send(bob)).get(), f(x))
    assert len(f._programs) == 2


class Net(sy.Plan):
    def __init__(self):
        super().__init__()
        self.fc1, self.norm, self.fc2 = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)
        self.shift = torch.ones(2)

    def forward(self, x):
        return self.fc2(self.norm(self.fc1(x)).relu()) + self.shift


def test_a_plan_with_state_goes_to_several_workers(bob, alice):
    net = Net()
    with pytest.raises(RuntimeError, match="build"):
        net.send(bob)
    twin, x = copy.deepcopy(net.fc1), torch.randn(5, 4)
    net.build(x)
    assert len(net.state) == 10 and len(net.parameters()) == 6 and torch.equal(net.fc1.weight, twin.weight)
    net.send(bob, alice)
    for worker in (bob, alice):
        reference = copy.deepcopy(nn.ModuleList([net.fc1, net.norm, net.fc2]))
        expected = reference[2](reference[1](reference[0](x)).relu()) + net.shift
        assert torch.allclose(net(x.send(worker)).get(), expected, atol=1e-6)


def test_a_plan_that_was_copied_deep_stays_where_it_is_when_the_copy_goes(bob):
    x = torch.randn(5, 4)
    net, shifted = Net().build(x), sy.func2plan()(lambda x: x + torch.arange(4.0))
    here = net.send(bob)(x.send(bob)).get()
    shifted(x.send(bob))
    for plan, usual in ((net, here), (shifted, x + torch.arange(4.0))):
        twin = copy.deepcopy(plan)
        assert torch.equal(twin(x.send(bob)).get(), usual)
        del twin
        assert torch.equal(plan(x.send(bob)).get(), usual)
        with pytest.raises(PlanError, match="save"):
            pickle.dumps(plan)


def test_a_plan_of_tensors_at_several_workers_runs_at_each(bob, alice):
    net, x, y = Net(), torch.randn(5, 4), torch.randn(5, 4)
    net.build(x)
    net.send(bob, alice)
    multi = sy.combine_pointers(x.send(bob), y.send(alice))
    for out, given, worker in zip(net(multi).get(), (x, y), (bob, alice), strict=True):
        assert torch.allclose(out, net(given.send(worker)).get(), atol=1e-6)

    @sy.func2plan()
    def pair(a, b, k):
        return {"sum": a + b * k}, a

    for k in (2, 2, 3):
        results, first = pair(multi, multi, k)
        assert all(torch.allclose(r, v * (1 + k)) for r, v in zip(results["sum"].get(), (x, y), strict=True))
        assert torch.equal(first.get_copy()[0], x)
    with pytest.raises(TensorsNotCollocatedError, match="pair"):
        pair(multi, torch.ones(5, 4).send(bob, sy.VirtualWorker(id="carol")), 2)


def test_state_comes_back(bob):
    counter = torch.zeros(1)

    @sy.func2plan(state=[counter])
    def count(x):
        counter.add_(x)
        return counter * 1

    x = torch.ones(1).send(bob)
    assert [count(x).get().item() for _ in range(3)] == [1, 2, 3]
    assert counter.item() == 0
    count.get()
    assert counter.item() == 3


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.1),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        lambda p: torch.optim.Adam(p, lr=0.01),
        lambda p: torch.optim.AdamW(p, lr=0.01),
        lambda p: torch.optim.RMSprop(p, lr=0.01),
    ],
    ids=["sgd", "momentum", "adam", "adamw", "rmsprop"],
)
def test_a_training_step_is_one_message_and_equals_eager(bob, make):
    here = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.BatchNorm1d(8), nn.Linear(8, 3)).double()
    there = copy.deepcopy(here).send(bob)
    eager, recorded = make(here.parameters()), make(there.parameters())
    data, target = torch.randn(16, 4).double(), torch.randint(0, 3, (16,))

    @sy.func2plan(state=(there, recorded))
    def step(x, y):
        recorded.zero_grad()
        loss = F.cross_entropy(there(x), y)
        loss.backward()
        recorded.step()
        return loss

    px, py = data.send(bob), target.send(bob)
    step(px, py), step(px, py)
    before = executed(bob)
    for _ in range(98):
        loss = step(px, py)
    assert executed(bob) - before <= 2 * 98, "a RUN and the drop of the last loss"
    for _ in range(100):
        eager.zero_grad()
        expected = F.cross_entropy(here(data), target)
        expected.backward()
        eager.step()
    assert abs(loss.item() - expected.item()) < 1e-6
    for p, q in zip(here.state_dict().values(), there.get().state_dict().values(), strict=True):
        assert torch.allclose(p, q, atol=1e-6)


def test_what_cannot_be_recorded_is_named_with_its_line(bob):
    calls = []

    @sy.func2plan()
    def drifting(x):
        calls.append(1)
        return x.view(-1, 1) + len(calls)  # changes

    with pytest.raises(PlanError, match=r"second time, at .*test_plans\.py:\d+.*Pass it in"):
        drifting.build(torch.ones(2))

    @sy.func2plan()
    def branching(x):
        return x if x.sum() > 0 else -x

    with pytest.raises(PlanError, match=r"torch\.where"):
        branching.build(torch.ones(2))

    @sy.func2plan()
    def returning(x):
        return 7

    with pytest.raises(PlanError, match="returns int"):
        returning.build(torch.ones(2))

    @sy.func2plan()
    def layered(x):
        return x.fix_precision()

    with pytest.raises(PlanError, match=r"returns FixedPrecisionTensor.*as x\.decode\(\) gives"):
        layered.build(torch.ones(2))

    with pytest.raises(PlanError, match="not str"):
        sy.func2plan(args_shape=[(2,)], state=["a name"])(lambda x: x)


def test_arguments_that_a_plan_does_not_take(bob):
    class Net(sy.Plan):
        def forward(self, x, y=1.0):
            return x * y

    add, x = sy.func2plan()(lambda a, b: a + b), torch.ones(2)
    add.name = "add"
    for call in (lambda *given: add(*given), lambda *given: add.build(*given), lambda *given: add(*[v.send(bob) for v in given])):
        with pytest.raises(TypeError, match=r"add: missing a required argument: 'b'\. It takes add\(a, b\)"):
            call(x)
        with pytest.raises(TypeError, match=r"add: too many positional arguments.*add\(a, b\)"):
            call(x, x, x)
    with pytest.raises(TypeError, match=r"Net: too many .* Net\(x, y=1\.0\)"):
        Net()(x, 2.0, 3.0)
    assert torch.equal(Net()(x.send(bob)).get(), x)

    @sy.func2plan()
    def wrong(x):
        return len(3)  # its own mistake

    with pytest.raises(TypeError, match=r"object of type 'int' has no len"):
        wrong(x)


def test_a_failed_recording_gives_the_state_back(bob):
    layer = nn.Linear(2, 2)

    @sy.func2plan(state=[layer])
    def f(x):
        return layer(x).item()

    with pytest.raises(PlanError):
        f.build(torch.ones(1, 2))
    assert not isinstance(layer.weight, sy.PointerTensor) and isinstance(layer.weight, nn.Parameter)
    assert layer(torch.ones(1, 2)).shape == (1, 2)


def test_wrong_places_are_named(bob, alice):
    @sy.func2plan()
    def f(x, y):
        return x + y

    x, y = torch.ones(2).send(bob), torch.ones(2).send(alice)
    with pytest.raises(TensorsNotCollocatedError, match=r"move\(\)"):
        f(x, y)
    with pytest.raises(TensorsNotCollocatedError, match=r"move\(\)"):
        f(x, torch.ones(2))
    x.get()
    with pytest.raises(ObjectNotFoundError, match="consumed"):
        f(x, torch.ones(2).send(bob))


def test_an_error_inside_poisons_the_results(bob):
    @sy.func2plan()
    def f(table, index):
        return F.embedding(index, table), table * 2

    bad, good = f(torch.randn(3, 2).send(bob), torch.tensor([9]).send(bob))
    assert good.get().shape == (3, 2)
    with pytest.raises(IndexError):
        bad.get()


def test_private_sticks_through_a_plan():
    engine = Engine("plan-hospital")
    engine.load("icu", torch.randn(4, 3), ["#icu"], private=True)
    carol = sy.BaseWorker(f"plan-{id(engine)}", MemoryTransport(engine, Principal("carol", Role.SCIENTIST)))
    (x,) = carol.search("#icu")
    total = torch.zeros(3).send(carol)

    @sy.func2plan(state=[total])
    def f(rows, own):
        total.add_(rows.sum(0))
        return rows[0] * 1, own * 2

    row, own = f(x, torch.ones(2).send(carol))
    for private in (row, total):
        with pytest.raises(GetNotPermittedError):
            private.get()
    assert torch.equal(own.get(), torch.full((2,), 2.0))


def test_a_plan_writes_nothing_that_is_borrowed(bob):
    engine = Engine("plan-archive")
    engine.load("map", torch.zeros(2), ["#map"])
    carol = sy.BaseWorker(f"plan-{id(engine)}", MemoryTransport(engine, Principal("dave", Role.SCIENTIST)))
    (found,) = carol.search("#map")

    @sy.func2plan()
    def f(x):
        return x.add_(1) * 1

    with pytest.raises(sy.errors.NotOwnerError):
        f(found).get()
    assert torch.equal(carol.search("#map")[0].get(), torch.zeros(2))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_are_recorded_with_their_first_state(bob, kind):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.cells, self.dense = kind(3, 4, batch_first=True), nn.Linear(4, 1)

        def forward(self, x):
            return self.dense(self.cells(x)[0][:, -1])

    net, x = Net(), torch.randn(2, 5, 3)
    expected = net(x).detach()
    plan = sy.func2plan(state=(net,))(lambda x: net(x))
    for _ in range(3):
        assert torch.allclose(plan(x.send(bob)).get(), expected, atol=1e-6)
    assert torch.equal(net(x), expected), "it is as it was here"


def test_tensors_of_the_functions_own_are_constants(bob):
    """A loss's weights, what it makes on the way: part of the program, as numbers are. One that would learn is not."""
    weights, x, y = torch.tensor([1.0, 2.0, 3.0]), torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    loss = nn.CrossEntropyLoss(weight=weights)
    plan = sy.func2plan()(lambda x, y: loss(torch.cat([x, torch.ones(1, 3)])[:4] @ torch.eye(3), y) + (weights * x).sum())
    for _ in range(2):
        assert torch.allclose(plan(x.send(bob), y.send(bob)).get(), plan(x, y), atol=1e-6)
    with pytest.raises(PlanError, match="changes from call to call"):
        sy.func2plan()(lambda x: x + torch.randn(3))(x.send(bob))
    parameter = nn.Parameter(weights)
    with pytest.raises(PlanError, match=r"requires gradients and is not in its state.*state="):
        sy.func2plan()(lambda x: x * parameter)(x.send(bob))


LRS = torch.optim.lr_scheduler


def stepper(model, optimizer):
    """A training step, on whatever ``model`` is."""

    def step(x):
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.Adam], ids=["sgd", "adam"])
@pytest.mark.parametrize(
    "schedule",
    [lambda o: LRS.StepLR(o, 2, 0.1), lambda o: LRS.CyclicLR(o, 0.01, 0.1, 2, cycle_momentum=False), lambda o: LRS.ReduceLROnPlateau(o, patience=1)],
    ids=["steps", "cyclic", "plateau"],
)
def test_a_scheduler_is_heeded(bob, make, schedule):
    """A learning rate is a number in the program: with another one it is another program."""
    here = nn.Linear(4, 1).double()
    there = copy.deepcopy(here).send(bob)
    eager, recorded = make(here.parameters(), lr=0.1), make(there.parameters(), lr=0.1)
    schedules = schedule(eager), schedule(recorded)

    x, plain, plan = torch.randn(8, 4).double(), stepper(here, eager), sy.func2plan(state=(there, recorded))(stepper(there, recorded))
    pointer = x.send(bob)
    for _ in range(9):
        losses = plain(x), plan(pointer).get()
        assert torch.allclose(*losses)
        for scheduler, loss in zip(schedules, losses):
            scheduler.step(*(loss,) * isinstance(scheduler, LRS.ReduceLROnPlateau))
    assert torch.allclose(here.weight, there.get().weight)


@pytest.mark.parametrize(
    "change",
    [lambda m: m.eval(), lambda m: setattr(m[1], "p", 1.0), lambda m: setattr(m[2], "momentum", 0.5), lambda m: m[0].requires_grad_(False)],
    ids=["eval", "dropout", "momentum", "frozen"],
)
def test_a_layers_settings_are_heeded(bob, change):
    torch.manual_seed(0)
    here = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.0), nn.BatchNorm1d(8))
    there, x = copy.deepcopy(here).send(bob), torch.randn(6, 4)

    def run(model, x):
        out = model(x)
        for p in model.parameters():
            p.grad = None
        out.square().sum().backward()
        return out.detach(), *[p.grad for p in model.parameters() if p.requires_grad]

    plan, pointer = sy.func2plan(state=(there,))(lambda x: run(there, x)), x.send(bob)
    for _ in range(2):
        for mine, theirs in zip(run(here, x), plan(pointer), strict=True):
            assert torch.allclose(mine, theirs.get(), atol=1e-5)
        change(here), change(there)
    assert torch.allclose(here[2].running_mean, there.get()[2].running_mean, atol=1e-5)


def test_programs_of_old_settings_go(bob):
    weight = nn.Parameter(torch.ones(2))
    there = weight.send(bob)
    optimizer = torch.optim.SGD([there], lr=1.0)

    @sy.func2plan(state=(there, optimizer))
    def step(x):
        optimizer.zero_grad()
        (there * x).sum().backward()
        optimizer.step()
        return there.detach()

    x = torch.ones(2).send(bob)
    step(x)
    counts = []
    for i in range(3 * FORMS):
        optimizer.param_groups[0]["lr"] = 1.0 / (i + 1)
        step(x)
        counts.append((len(step._programs), len(bob.engine.sessions[bob.transport.prefix].programs)))
    assert set(counts[FORMS - 1 :]) == {(FORMS, FORMS)}
    optimizer.param_groups[0]["lr"] = 1.0  # gone long ago: recorded again
    assert torch.allclose(step(x).get(), torch.ones(2) - 2 - sum(1 / (i + 1) for i in range(3 * FORMS)), atol=1e-5)


def test_a_file_holds_the_programs_of_the_settings_it_has(bob, tmp_path):
    model = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5))
    plan, x = sy.func2plan(state=(model,))(lambda x: model(x)), torch.randn(5, 3)
    plan.build(x)
    model.eval()
    with pytest.raises(PlanError, match="not built for its state as it is now"):
        plan.save(tmp_path / "plan")
    plan.build(x).save(tmp_path / "plan")
    loaded = sy.Plan.load(tmp_path / "plan")
    assert torch.allclose(loaded(x.send(bob)).get(), model(x))


def test_arguments_by_name(bob):
    @sy.func2plan()
    def scaled(x, factor=2, *, shift=0):
        return x * factor + shift

    @sy.func2plan()
    def line(x, slope=2, at=0):
        return x * slope + at

    x = torch.arange(3.0).send(bob)
    for _ in range(2):
        assert torch.equal(line(x, at=5).get(), torch.arange(3.0) * 2 + 5)
        assert torch.equal(line(slope=3, x=x).get(), torch.arange(3.0) * 3)
    assert torch.equal(line(x=torch.ones(2), at=1), torch.full((2,), 3.0))
    assert line.copy().build(x=torch.ones(2), at=4).is_built
    with pytest.raises(TypeError, match="line: .*'angle'"):
        line(x, angle=1)
    with pytest.raises(PlanError, match="takes shift by name alone"):
        scaled(x, factor=3)
    with pytest.raises(PlanError, match="give slope by position"):
        sy.Plan.of(line.stored())(x, slope=3)


@pytest.mark.parametrize("serialize", [False, True])
def test_a_buffer_that_is_assigned_is_written(serialize):
    class Centred(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 2)
            self.register_buffer("mean", torch.zeros(3))

        def forward(self, x):
            self.mean = 0.5 * self.mean + 0.5 * x.mean(0).detach()
            return self.layer(x - self.mean)

    worker = sy.VirtualWorker(id=f"centred{serialize}", serialize=serialize)
    torch.manual_seed(0)
    here, xs = Centred(), torch.randn(4, 8, 3)
    there = copy.deepcopy(here).send(worker)
    forward, buffer = sy.func2plan(state=(there,))(lambda x: there(x)), there.mean
    for x in xs:
        assert torch.allclose(here(x), forward(x.send(worker)).get(), atol=1e-6)
        assert there.mean is buffer
    assert torch.allclose(here.mean, there.get().mean, atol=1e-6)


def test_state_of_another_shape_is_refused(bob):
    class Growing(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("seen", torch.zeros(1))

        def forward(self, x):
            self.seen = torch.cat([self.seen, x])
            return self.seen.sum()

    model = Growing().send(bob)
    seen = model.seen
    with pytest.raises(PlanError, match=r"assigns another seen.*seen\.copy_\(\)"):
        sy.func2plan(state=(model,))(lambda x: model(x))(torch.ones(2).send(bob))
    assert model.seen is seen


def test_an_operator_whose_shape_depends_on_values_is_named(bob):
    with pytest.raises(PlanError, match=r"run aten\.nonzero\.default, whose result has a shape that depends on one"):
        sy.func2plan()(lambda x: x.nonzero())(torch.ones(2).send(bob))
    with pytest.raises(PlanError, match="read a value or make a shape"):
        sy.func2plan()(lambda x: x * float(x.sum()))(torch.ones(2).send(bob))


# -- what a call must not take from the one that was recorded


def test_one_tensor_twice_and_then_two(bob):
    """The first call's operands are in one storage: which of them a result is, is not to be told from that."""
    first = sy.func2plan()(lambda x, y: x * 2 + y)
    views = sy.func2plan()(lambda x, y: (x + 0, y[:2]))
    state = torch.tensor([1.0, 2.0, 3.0]).send(bob)
    added = sy.func2plan(state=[state])(lambda x: x * 2 + state)
    a, b = torch.tensor([1.0, 2.0, 3.0]).send(bob), torch.tensor([10.0, 20.0, 30.0]).send(bob)
    for _ in range(3):
        assert first(a, a).get().tolist() == [3, 6, 9] and first(a, b).get().tolist() == [12, 24, 36]
        assert added(state).get().tolist() == [3, 6, 9] and added(b).get().tolist() == [21, 42, 63]
    views(a, a), views(a, a.view(3))
    _, part = views(a, b)
    part.fill_(9)
    assert a.get().tolist() == [1, 2, 3] and b.get().tolist() == [9, 9, 30]


@pytest.mark.parametrize("place", ["inside", "outside"])
def test_gradients_that_would_be_lost_are_refused(bob, place):
    model = nn.Linear(3, 1).send(bob)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def accumulated(x):
        loss = model(x).sum()
        loss.backward()
        if place == "inside":
            optimizer.step()
        return loss.detach()

    state = (model, optimizer) if place == "inside" else (model,)
    plan, x = sy.func2plan(state=state)(accumulated), torch.ones(2, 3).send(bob)
    match = r"gradients from before it was called, at .*test_plans\.py:\d+.*zero_grad" if place == "inside" else "leaves gradients.*autograd.grad"
    with pytest.raises(PlanError, match=match):
        for _ in range(2):
            plan(x)
    assert all(p.location is bob for p in model.parameters())


def test_gradients_of_a_call_are_none_of_the_next(bob):
    torch.manual_seed(0)
    model = nn.Linear(3, 1).send(bob)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    step, x = sy.func2plan(state=(model, optimizer))(stepper(model, optimizer)), torch.ones(2, 3).send(bob)
    step(x)
    assert model.weight.grad is not None, "the first runs as it is"
    step(x)
    assert model.weight.grad is None


def test_gradients_are_results(bob):
    model = nn.Linear(3, 1).send(bob)
    plan = sy.func2plan(state=(model,))(lambda x: torch.autograd.grad(model(x).square().sum(), list(model.parameters())))
    for rows in (torch.ones(2, 3), torch.ones(2, 3), torch.randn(2, 3)):
        expected = torch.autograd.grad(model(rows.send(bob)).square().sum(), list(model.parameters()))
        for mine, its in zip(plan(rows.send(bob)), expected, strict=True):
            assert torch.allclose(mine.get(), its.get())


@pytest.mark.parametrize("after", [False, True])
def test_hooks_of_parameters_are_recorded(bob, after):
    model = nn.Linear(3, 1).send(bob)
    if after:
        model.weight.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", p.grad * 0))
    else:
        model.weight.register_hook(lambda grad: grad * 0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    @sy.func2plan(state=(model, optimizer))
    def step(x):
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()
        return model.bias * 1

    before = model.weight.detach().get_copy(), model.bias.detach().get_copy()
    for _ in range(4):
        step(torch.ones(2, 3).send(bob))
    assert torch.equal(model.weight.detach().get_copy(), before[0]) and not torch.equal(model.bias.detach().get_copy(), before[1])


def test_local_tensors_that_are_written_are_refused_or_as_they_are(bob):
    @sy.func2plan()
    def summed(x):
        total = torch.zeros(3)
        total.add_(x)
        return total * x

    @sy.func2plan()
    def masked(x):
        mask = torch.zeros(3)
        mask[0] = 1
        first = x * mask
        mask[1] = 1
        return first + x * mask

    x = torch.tensor([1.0, 2.0, 3.0]).send(bob)
    with pytest.raises(LocalTensorMixedError, match=r"add_.*send\(\) it there first"):
        summed(x)
    for _ in range(2):
        assert masked(x).get().tolist() == [2, 2, 0]


def test_data_that_is_assigned_is_written(bob):
    weight = torch.ones(3).send(bob)

    @sy.func2plan(state=[weight])
    def step(x):
        weight.data = weight.data - 0.1 * x
        return weight.sum()

    x = torch.ones(3).send(bob)
    assert [round(step(x).get().item(), 4) for _ in range(3)] == [2.7, 2.4, 2.1]
    assert torch.allclose(weight.get(), torch.full((3,), 0.7))


def test_plans_inside_plans(bob):
    weight = torch.zeros(3).send(bob)

    @sy.func2plan(state=[weight])
    def inner(x):
        weight.add_(x)
        return weight.sum()

    outer = sy.func2plan(state=[weight])(lambda x: inner(x) + inner.scan(x.expand(2, 3)).sum())
    x = torch.ones(3).send(bob)
    assert [outer(x).get().item() for _ in range(2)] == [3 + 6 + 9, 12 + 15 + 18]
    assert weight.get().tolist() == [6, 6, 6]
    loaded = sy.Plan.of(sy.func2plan(args_shape=[(3,)])(lambda x: x * 2).stored())
    with pytest.raises(PlanError, match="loaded without its function"):
        sy.func2plan()(lambda x: loaded(x) + 1)(x)


def test_state_that_is_here_is_as_it_is_now(bob):
    class Scaled(sy.Plan):
        def __init__(self):
            super().__init__()
            self.layer, self.factor = nn.Linear(3, 3), 2.0

        def forward(self, x):
            return self.layer(x) * self.factor

    net, rows = Scaled(), torch.randn(2, 3)
    net.build(rows)
    net.send(bob)
    x = rows.send(bob)

    def changed():
        yield
        net.factor = 5.0
        yield
        net.layer.load_state_dict(nn.Linear(3, 3).state_dict())
        yield
        net.layer = nn.Linear(3, 3)
        yield
        net.more = torch.ones(1)
        yield
        with torch.no_grad():
            net.layer.bias.zero_()
        yield

    for _ in changed():
        assert torch.allclose(net(x).get(), net(rows), atol=1e-6)


def test_a_fetched_plan_is_as_it_is_now_here_too(bob):
    weight = torch.ones(3).send(bob)
    plan = sy.func2plan(state=(weight,))(lambda x: x * weight).build(torch.ones(3))
    plan.send(bob)
    fetched, x = bob.fetch_plan(plan.id), torch.tensor([1.0, 2.0, 3.0])
    for factor in (1, 5):
        assert torch.equal(fetched(x), x * factor) and torch.equal(fetched(x.send(bob)).get(), x * factor)
        weight.mul_(5)


def test_what_a_function_names_is_heeded(bob):
    factor, teacher, dropout = 2.0, torch.ones(3), nn.Dropout(1.0)
    plan = sy.func2plan()(lambda x: dropout(x * factor) + teacher)
    x = torch.tensor([1.0, 2.0, 3.0]).send(bob)
    assert plan(x).get().tolist() == [1, 1, 1]
    dropout.eval()
    assert plan(x).get().tolist() == [3, 5, 7]
    factor = 3.0
    assert plan(x).get().tolist() == [4, 7, 10]
    teacher.zero_()
    assert plan(x).get().tolist() == [3, 6, 9]


def test_what_a_forward_names_is_heeded(bob):
    factor = 2.0

    class Scaled(sy.Plan):
        def forward(self, x):
            return x * factor

    plan, x = Scaled(), torch.tensor([1.0, 2.0]).send(bob)
    assert plan(x).get().tolist() == [2, 4]
    factor = 3.0
    assert plan(x).get().tolist() == [3, 6]


class Configured(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))
        self.act, self.factors, self.named, self.whole = torch.sigmoid, (1.0, 2.0), {"shift": 1}, 2

    def forward(self, x):
        return self.act(x * self.weight) * self.factors[1] + self.named["shift"] + x * self.whole


@pytest.mark.parametrize(
    "change",
    [
        lambda m: setattr(m, "act", torch.tanh),
        lambda m: setattr(m, "factors", (1.0, 5.0)),
        lambda m: m.named.update(shift=7),
        lambda m: m.register_forward_hook(lambda module, args, out: out * 2),
        lambda m: m.register_forward_pre_hook(lambda module, args: (args[0] + 1,)),
    ],
    ids=["function", "tuple", "dict", "hook", "pre-hook"],
)
def test_all_that_a_module_is_told_is_heeded(bob, change):
    here = Configured()
    there = copy.deepcopy(here).send(bob)
    plan, rows = sy.func2plan(state=(there,))(lambda x: there(x)), torch.tensor([1.0, 2.0, -1.0])
    for _ in range(2):
        assert torch.allclose(plan(rows.send(bob)).get(), here(rows), atol=1e-6)
        change(here), change(there)


def test_numbers_are_told_apart(bob):
    divided, x = sy.func2plan()(lambda x, by: x / by), torch.tensor([1.0, 2.0]).send(bob)
    assert divided(x, 0.0).get().tolist() == [torch.inf] * 2 and divided(x, -0.0).get().tolist() == [-torch.inf] * 2
    powered, whole = sy.func2plan()(lambda x, by: x * by), torch.tensor([1, 2]).send(bob)
    for by in (2, 2.0, True):
        assert powered(whole, by).get().dtype == (torch.tensor([1, 2]) * by).dtype
    filled = sy.func2plan()(lambda x: x.masked_fill(x > 1, float("nan")) + torch.tensor([0.0, float("nan")]))
    assert torch.equal(filled(x).get().isnan(), torch.tensor([False, True]))


def test_autocast_is_heeded(bob):
    model = nn.Linear(3, 3).send(bob)
    plan, x = sy.func2plan(state=(model,))(lambda x: model(x)), torch.ones(2, 3).send(bob)
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            assert plan(x).dtype == torch.bfloat16
        assert plan(x).dtype == plan(x).get().dtype == torch.float32
    assert all(p.location is bob for p in model.parameters())


# -- nothing is lost when a recording fails


def test_a_recording_that_cannot_begin_leaves_all_as_it_was(bob):
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1)).send(bob)
    optimizer = torch.optim.Adam(model.parameters())
    plan, x = sy.func2plan(state=(model,))(lambda x: model(x)), torch.ones(2, 3).send(bob)
    penalty = model[1].weight.pow(2).sum()
    with pytest.raises(PointerMisuseError, match="Delete the loss"):
        plan(x)
    assert all(p.location is bob for p in model.parameters())
    del penalty
    assert torch.allclose(plan(x).get(), model(x).get())
    assert not optimizer.param_groups[0]["differentiable"]


def test_threads_share_a_plan(bob):
    model = nn.Linear(3, 1).send(bob)
    plan, wrong = sy.func2plan(state=(model,))(lambda x: model(x)), []

    def work(seed):
        rows = torch.full((2 + seed, 3), float(seed))
        try:
            for _ in range(20):
                if not torch.allclose(plan(rows.send(bob)).get(), expected[seed]):
                    wrong.append(seed)
        except Exception as error:
            wrong.append(error)

    expected = [model(torch.full((2 + seed, 3), float(seed)).send(bob)).get().detach() for seed in range(4)]
    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and all(p.location is bob for p in model.parameters())


def _adam(model):
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    return optimizer, stepper(model, optimizer)


def _thawed(model, optimizer):
    model[0].requires_grad_(True)


def _cleared(model, optimizer):
    optimizer.state.clear()


def _reloaded(model, optimizer):
    state = optimizer.state_dict()
    fresh = {place: {k: v.get_copy() if isinstance(v, sy.PointerTensor) else v.clone() for k, v in held.items()} for place, held in state["state"].items()}
    optimizer.load_state_dict({**state, "state": fresh})


@pytest.mark.parametrize("change", [_thawed, _cleared, _reloaded], ids=["thawed", "cleared", "reloaded"])
def test_an_optimizers_state_that_is_made_anew(bob, change):
    torch.manual_seed(0)
    here = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1)).double()
    here[0].requires_grad_(False)
    there = copy.deepcopy(here).send(bob)
    (mine, plain), (its, recorded) = _adam(here), _adam(there)
    plan, rows = sy.func2plan(state=(there, its))(recorded), torch.randn(4, 3).double()
    for turn in range(8):
        assert torch.allclose(plan(rows.send(bob)).get(), plain(rows))
        if turn == 3:
            change(here, mine), change(there, its)
    assert torch.allclose(here[0].weight, there.get()[0].weight)


def test_an_optimizers_state_follows_its_model(bob, alice):
    torch.manual_seed(0)
    here = nn.Linear(3, 1).double()
    there = copy.deepcopy(here).send(bob)
    (_, plain), (optimizer, recorded) = _adam(here), _adam(there)
    plan, rows = sy.func2plan(state=(there, optimizer))(recorded), torch.randn(4, 3).double()
    for place in (bob, bob, alice, alice, bob):
        there.move(place)
        assert torch.allclose(plan(rows.send(place)).get(), plain(rows))
    there.get()
    assert torch.allclose(recorded(rows), plain(rows))
    there.send(alice)
    assert torch.allclose(plan(rows.send(alice)).get(), plain(rows))


@pytest.mark.parametrize("make", [torch.optim.NAdam, torch.optim.Adagrad, lambda p: torch.optim.Adam(p, foreach=True)], ids=["nadam", "adagrad", "foreach"])
def test_optimizers_that_cannot_be_recorded_are_named(bob, make):
    model = nn.Linear(3, 1).send(bob)
    optimizer = make(model.parameters())

    @sy.func2plan(state=(model, optimizer))
    def step(x):
        optimizer.zero_grad()
        model(x).sum().backward()
        optimizer.step()
        return model.bias * 1

    x = torch.ones(2, 3).send(bob)
    step(x)
    with pytest.raises(PlanError, match=f"a step of {type(optimizer).__name__} cannot be recorded.*RMSprop.*are recorded"):
        step(x)
    assert all(p.location is bob for p in model.parameters())


def test_what_a_function_leaves_behind_is_refused(bob):
    class Remembering(nn.Module):
        def forward(self, x):
            self.last = x * 2
            return self.last

    model, x = Remembering(), torch.ones(2).send(bob)
    with pytest.raises(PlanError, match=r"keeps a tensor in the attribute last.*register_buffer"):
        sy.func2plan(state=(model,))(lambda x: model(x))(x)
    assert not hasattr(model, "last")
    weight = torch.ones(2).send(bob)
    optimizer = torch.optim.SGD([weight.requires_grad_()], lr=1.0)
    rates = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)

    @sy.func2plan(state=(weight, optimizer))
    def step(x):
        optimizer.zero_grad()
        (weight * x).sum().backward()
        optimizer.step()
        rates.step()
        return weight.detach() * 1

    step(x)
    with pytest.raises(PlanError, match="changes a setting of its state, such as a learning rate"):
        step(x)


def test_workers_by_name(bob):
    plan = sy.func2plan(args_shape=[(2,)])(lambda x: x * 2)
    plan.send(bob.id)
    assert plan(torch.ones(2).send(bob)).get().tolist() == [2, 2]
    with pytest.raises(PlanError, match=r"called with \[?.*array.*a plan takes tensors"):
        sy.func2plan()(lambda x, y: x)(torch.ones(2).send(bob), torch.ones(2).numpy())


def test_gradients_flow_to_inputs(bob):
    """As where it is no plan; those to its state end with the call."""
    weight = torch.tensor([2.0, 3.0]).send(bob)
    plan, x = sy.func2plan(state=(weight,))(lambda x: (x * x * weight).sum()), torch.tensor([1.0, 2.0])
    for _ in range(3):
        pointer = x.send(bob).requires_grad_()
        (plan(pointer) + pointer.sum()).backward()
        assert pointer.grad.get().tolist() == [2 * 2 * 1 + 1, 2 * 3 * 2 + 1]
        with torch.no_grad():
            assert plan(pointer).get().item() == 14


def test_gradients_flow_through_a_plan_without_state(bob):
    plan = sy.func2plan()(lambda x: (x * x).sum())
    x = torch.tensor([1.0, 2.0]).send(bob)
    plan(x), plan(x)
    x.requires_grad_()
    plan(x).backward()
    assert x.grad.get().tolist() == [2, 4]


def test_what_lies_where_another_has_lain_is_another(bob):
    """An id says which object it is only as long as that is there."""

    class Acting(sy.Plan):
        def __init__(self):
            super().__init__()
            self.layer, self.act = nn.Linear(2, 2), torch.tanh

        def forward(self, x):
            return self.act(self.layer(x)) + shift

    plan, rows = Acting(), torch.ones(1, 2)
    x = rows.send(bob)
    for turn in range(12):
        plan.layer = plan.act = shift = None
        gc.collect()
        plan.layer, plan.act, shift = nn.Linear(2, 2), lambda v, k=turn: v * k, torch.full((2,), float(turn))
        assert torch.allclose(plan(x).get(), plan(rows), atol=1e-6)


@pytest.mark.parametrize("shapes", [3, "ab", ["a"], [3], [(2.5,)], [(-2,)], {(1,): 2}])
def test_shapes_of_inputs_are_a_list_of_them(shapes):
    with pytest.raises(sy.errors.PlanError, match="args_shape is the shape of each input"):
        sy.func2plan(args_shape=shapes)
    with pytest.raises(sy.errors.PlanError, match="is of a function, not of 3"):
        sy.func2plan()(3)


def test_a_state_is_nothing_one_thing_or_several():
    weight, layer = torch.randn(3, 2), nn.Sequential(nn.Linear(2, 2))
    given = ((None, []), (weight, [weight]), (layer, [*layer.parameters()]), ((layer, weight), [*layer.parameters(), weight]))
    for state, tensors in given:
        plan = sy.func2plan(state=state)(lambda x: x + 1)
        assert list(map(id, plan.state)) == list(map(id, tensors))


@pytest.mark.parametrize("loss", [
    nn.CrossEntropyLoss(weight=torch.tensor([0.2, 0.3, 0.5]), label_smoothing=0.1), nn.CrossEntropyLoss(ignore_index=1),
    lambda out, y: F.binary_cross_entropy_with_logits(out, F.one_hot(y, 3).float(), pos_weight=torch.tensor([0.2, 0.3, 0.5])),
], ids=["weights", "ignored", "positives"])  # fmt: skip
@pytest.mark.parametrize("labelled", ["here", "there"])
def test_constants_are_those_of_the_first_call_too(bob, loss, labelled):
    """An optimizer's first step runs as it is: what a recording takes for constants is one there."""
    y, rows = torch.tensor([0, 2, 1, 1]), [torch.randn(4, 3) for _ in range(3)]
    here, trained = nn.Linear(3, 3), []
    for net in (here, here.copy().send(bob)):
        labels = y.send(bob) if labelled == "there" and net is not here else y
        optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)

        def step(x, net=net, labels=labels, optimizer=optimizer):
            optimizer.zero_grad()
            found = loss(net(x), labels)
            found.backward()
            optimizer.step()
            return found

        if net is here:
            trained.append([step(x).detach() for x in rows] + [p.detach() for p in net.parameters()])
        else:
            plan = sy.func2plan(args_shape=[(4, 3)], state=[net, optimizer, *([labels] if labelled == "there" else [])])(step)
            trained.append([plan(x.send(bob)).get() for x in rows] + [p.detach().get_copy() for p in net.parameters()])
    torch.testing.assert_close(trained[1], trained[0])


def test_what_was_a_constant_in_one_plan_is_state_in_another():
    layer, weight, x = nn.Linear(2, 2).requires_grad_(False), torch.randn(3, 2), torch.randn(4, 2)
    plans = [sy.func2plan(args_shape=[(4, 2)], state=state)(lambda x: layer(x) @ weight.t()) for state in (weight, layer, [layer, weight], [])]
    for plan in plans:
        assert torch.allclose(plan(x), layer(x) @ weight.t())


def test_a_long_plan_has_room_for_few_results(bob):
    """What no later step names goes: as where each operation is a message, and its result a variable of the same name."""

    @sy.func2plan(args_shape=[(1000,)])
    def chain(x):
        kept = x + 1
        for _ in range(100):
            x = x + 1
        return x, kept

    chain.send(bob)
    x = torch.zeros(1000).send(bob)
    chain(x)
    assert x.get_copy()[0] == 0
    session = bob.engine.sessions[bob.transport.prefix]
    session.max_bytes = session.used + 4 * x.nbytes
    results = chain(x)
    assert [r.get()[0].item() for r in results] == [100, 1]


def test_steps_of_many_operands_are_sent_in_as_many_messages_as_it_takes(bob):
    def turned(x):
        rows = x.unbind(0)
        for at in range(12):
            x = torch.stack(rows[at:] + rows[:at]) + x
        return x

    x = torch.randn(1500, 1)
    plan = sy.func2plan(args_shape=[x.shape])(turned)
    assert torch.equal(plan(x.send(bob)).get(), turned(x))


def test_a_plan_of_more_tensors_than_a_message_names_is_refused_before_anything_is_sent(bob):
    x = torch.randn(4096, 1).send(bob)
    with pytest.raises(PlanError, match="at most 4,096 tensors"):
        sy.func2plan(args_shape=[x.shape])(lambda x: x.unbind(0))(x)
    assert x.sum().get().isfinite()
