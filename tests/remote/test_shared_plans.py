"""Plans over shares: what they compute is what the function computes, by one message to each member."""

import copy
import itertools
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from _sharing import sent
from torch import nn

import syftlite as sy
from syftlite.errors import PlanError, SharingAbortedError
from syftlite.ops.table import TABLE
from syftlite.plans.settings import FORMS
from syftlite.remote import shared_recording
from syftlite.remote.joining import LocalProvider
from syftlite.tensors import fixed_nn
from syftlite.wire.messages import COMPUTE, DEAL, KERNELS_FROM, OP, PUT, REPLAY

_names = itertools.count()


@pytest.fixture(params=["virtual", "serialize", "three"])
def members(request):
    """Holders, and a provider."""
    n = 3 if request.param == "three" else 2
    made = [sy.VirtualWorker(id=f"member{next(_names)}", serialize=request.param == "serialize") for _ in range(n + 1)]
    return made[:-1], made[-1]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.dense = nn.Conv2d(1, 3, 3, padding=1), nn.Linear(27, 4)

    def forward(self, x):
        x = nn.functional.avg_pool2d(self.conv(x), 2).relu()
        return self.dense(x.flatten(1))


def shared(x, members):
    holders, provider = members
    return x.fix_precision().share(*holders, crypto_provider=provider)


def planned(members, net):
    holders, provider = members
    net = net.fix_precision().share(*holders, crypto_provider=provider)

    @sy.func2plan(state=(net,))
    def infer(x):
        with torch.no_grad():
            return net(x)

    return infer


def squares_step(net, optimizer, x, y):
    """A step of training by the squared error."""
    optimizer.zero_grad()
    loss = nn.functional.mse_loss(net(x), y)
    loss.backward()
    optimizer.step()
    return loss.detach()


def test_as_the_function_by_one_message_each(members, monkeypatch):
    net = Net()
    plain = [(x := torch.rand(n, 1, 6, 6), net(x).detach()) for n in (2, 2, 2, 1, 1, 1)]
    infer = planned(members, net)
    holders, provider = members
    for call, (x, expected) in enumerate(plain):
        given = shared(x, members)
        kinds = [sent(worker, monkeypatch) for worker in (*holders, provider)]
        with sy.mpc.count() as cost:
            y = infer(given)
            y._child
        if call % 3 == 2:  # the first call of a form fixes weights, the second records
            assert all(k == [REPLAY] for k in kinds)
        assert (y.get().float_precision() - expected).abs().max() < 1e-3
        assert (cost.rounds, cost.kernels) == ((7, 3) if call % 3 or call == 3 else (9, 5)), "a convolution, a relu and a product, and their weights once"
        monkeypatch.undo()


def test_what_it_made_goes_and_so_does_the_plan(members):
    infer = planned(members, Net())
    x = shared(torch.rand(1, 1, 6, 6), members)
    for _ in range(3):
        y = infer(x)
    holders, provider = members
    counts = [h.objects_count() for h in holders]
    for _ in range(3):
        y = infer(x)
    assert [h.objects_count() for h in holders] == counts
    del x, y, infer
    assert [h.objects_count() for h in (*holders, provider)] == [0] * (len(holders) + 1)
    for worker in (*holders, provider):
        worker.transport.settle()
        session = worker.transport.session
        assert not session.weights and not session.programs and session.used == 0


def test_nested_arguments_several_results_and_whole_elements(members):
    @sy.func2plan()
    def f(batch, factor):
        x, y = batch["x"], batch["y"]
        return {"sum": x + y, "both": [x * y, (x > y)]}, x.sum() * factor

    a, b = torch.randn(3), torch.randn(3)
    for _ in range(3):
        out, total = f({"x": shared(a, members), "y": shared(b, members)}, 2)
    assert (out["sum"].decrypt() - (a + b)).abs().max() < 1e-3 and (out["both"][0].decrypt() - a * b).abs().max() < 1e-3
    assert torch.equal(out["both"][1].decrypt(), (a > b).float()) and (total.decrypt() - a.sum() * 2).abs() < 1e-3
    holders, provider = members
    whole = sy.func2plan()(lambda x: x * x + 1)
    for _ in range(3):
        squares = whole(torch.arange(-3, 3).share(*holders, crypto_provider=provider))
    assert squares.get().tolist() == [10, 5, 2, 1, 2, 5]


def test_weights_that_were_written_to_are_fixed_again(members):
    net = nn.Linear(3, 2)
    infer = planned(members, net)
    x = torch.randn(4, 3)
    for _ in range(3):
        infer(shared(x, members))
    with torch.no_grad():
        net.weight.mul_(2)
    weight, bias = (p.detach().decrypt() for p in (net.weight, net.bias))
    for _ in range(3):
        assert (infer(shared(x, members)).decrypt() - nn.functional.linear(x, weight, bias)).abs().max() < 1e-3


@pytest.mark.parametrize("way", ["in place", "data", "data in place", "shares"])
def test_a_bias_gets_its_scale_and_form_once_until_it_is_written_to(members, way):
    net = Net()
    infer, x = planned(members, net), torch.rand(2, 1, 6, 6)
    for written in (False, True):
        if written:
            with torch.no_grad():
                if way == "in place":
                    net.conv.bias.add_(1)
                elif way == "data":
                    net.conv.bias.data = net.conv.bias.detach() * 2
                elif way == "data in place":
                    net.conv.bias.data.add_(1)
                else:
                    net.conv.bias.child.add_(1 << 16)
        plain = copy.deepcopy(net)
        expected = plain.get().float_precision()(x).detach()
        for _ in range(3):
            y = infer(shared(x, members))
            assert (y.decrypt() - expected).abs().max() < 1e-3
        (program,) = infer._shared.recorded
        for holder in program.holders:
            names = [TABLE[number].name for number, *_ in holder.code if number < KERNELS_FROM]
            assert "aten.mul.Tensor" not in names and names.count("aten.add.Tensor") == 2, names


def test_a_step_of_training_is_seen_by_a_plan_of_inference(members):
    holders, provider = members
    net, x = nn.Linear(3, 2), torch.randn(4, 3)
    net.fix_precision().share(*holders, crypto_provider=provider, requires_grad=True)
    infer = torch.no_grad()(sy.func2plan(state=(net,))(lambda x: net(x)))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    step = sy.func2plan(state=(net, optimizer))(lambda x, y: squares_step(net, optimizer, x, y))
    for _ in range(4):
        step(shared(x, members), shared(torch.ones(4, 2), members))
        weight, bias = (p.detach().decrypt() for p in (net.weight, net.bias))
        for _ in range(3):
            assert (infer(shared(x, members)).decrypt() - nn.functional.linear(x, weight, bias)).abs().max() < 1e-3


def test_what_was_made_of_a_bias_and_failed_is_made_again(members):
    net, x = nn.Conv2d(1, 2, 3), torch.randn(1, 1, 5, 5)
    expected = net(x).detach().relu()
    holders, provider = members
    net.fix_precision().share(*holders, crypto_provider=provider)
    session = holders[0].transport.session
    most, session.max_bytes = session.max_bytes, session.used
    with torch.no_grad():
        fixed_nn._column(net.bias)(1 << 16)  # what a relu behind the convolution asks for
        holders[0].transport.settle()
        session.max_bytes = most
        with pytest.raises(SharingAbortedError):
            net(shared(x, members)).relu().decrypt()
        for _ in range(2):
            assert (net(shared(x, members)).relu().decrypt() - expected).abs().max() < 1e-3


def test_prefetched_calls_wait_for_no_provider(members, monkeypatch):
    net = Net()
    x = torch.rand(1, 1, 6, 6)
    expected = net(x).detach()
    infer = planned(members, net)
    given = shared(x, members)
    with pytest.raises(sy.errors.PlanError, match="call it twice"):
        infer.prefetch(1, given)
    infer(given), infer(given)
    infer.prefetch(2, given)
    with pytest.raises(sy.errors.Misuse, match="2 calls of a plan were prefetched"):
        given.relu()._child
    kinds = sent(members[1], monkeypatch)
    for _ in range(2):
        assert (infer(given).decrypt() - expected).abs().max() < 1e-3
    assert REPLAY not in kinds
    assert (infer(given).decrypt() - expected).abs().max() < 1e-3 and kinds.count(REPLAY) == 1
    given.relu().decrypt()


def test_what_is_independent_shares_rounds(members):
    @sy.func2plan()
    def several(x, y):
        z = x * 2
        first = (z @ y.t()).relu()
        z.add_(y)
        return first, x * y, z.relu(), x < y, (x * y).relu() + y

    x, y = torch.randn(3, 4), torch.randn(3, 4)
    given = shared(x, members), shared(y, members)
    costs = []
    for _ in range(3):
        with sy.mpc.count() as cost:
            made = several(*given)
            for result in made:
                result._child
        costs.append(cost)
        for result, want in zip(made, several.forward(x, y), strict=True):
            assert (result.decrypt() - want.float()).abs().max() < 1e-3
    assert (costs[0].rounds, costs[2].rounds) == (20, 13) and costs[2].sent == costs[0].sent and costs[2].kernels == costs[0].kernels


def test_what_is_dealt_ahead_is_for_such_arguments_and_within_a_budget(members, monkeypatch):
    infer = planned(members, nn.Linear(3, 2))
    given = shared(torch.randn(4, 3), members)
    infer(given), infer(given)
    with pytest.raises(sy.errors.PlanError, match="call it twice"):
        infer.prefetch(1, shared(torch.randn(5, 3), members))
    (program,) = infer._shared.recorded
    monkeypatch.setattr(shared_recording, "MAX_AHEAD", 2 * program.cost.dealt)
    with pytest.raises(sy.errors.Misuse, match="2 calls are dealt ahead, and at [0-9,]+ bytes a call the last holder keeps 2 at most: make those calls before"):
        infer.prefetch(3, given)
    infer(given)
    infer.prefetch(1, given)
    infer(given), infer(given)
    given.relu().decrypt()


def test_a_group_that_broke_is_joined_anew(members):
    net = Net()
    x = torch.rand(1, 1, 6, 6)
    expected = net(x).detach()
    infer = planned(members, net)
    given = shared(x, members)
    for _ in range(3):
        infer(given)
    group = given._child.group
    epoch = group.epoch
    group.leave()
    for _ in range(3):
        assert (infer(given).decrypt() - expected).abs().max() < 1e-3
    assert group.epoch == epoch + 1


def test_what_changes_from_call_to_call_is_refused(members):
    counter = itertools.count()
    plan = sy.func2plan()(lambda x: x + next(counter))
    x = shared(torch.ones(2), members)
    plan(x)
    with pytest.raises(sy.errors.PlanError, match="recorded differently"):
        plan(x)


def test_what_is_not_shared_is_no_result(members):
    plan = sy.func2plan()(lambda x: torch.ones(2))
    x = shared(torch.ones(2), members)
    plan(x)
    with pytest.raises(sy.errors.PlanError, match="not shared"):
        plan(x)


def test_on_real_nodes(monkeypatch, three_nodes):
    """The provider is a node, and then this process."""
    x = torch.rand(2, 1, 6, 6)
    a, b, c = three_nodes
    for provider in (c, sy.local_worker):
        net, members = Net(), ((a, b), provider)
        expected = net(x).detach()
        infer = planned(members, net)
        for call in range(4):
            given = shared(x, members)
            kinds = sent(a, monkeypatch)
            y = infer(given)
            y._child
            if call > 1:
                assert [k for k in kinds if k in (OP, COMPUTE, DEAL, REPLAY)] == [REPLAY] and PUT not in kinds
            monkeypatch.undo()
            assert (y.decrypt() - expected).abs().max() < 1e-3
        infer.prefetch(3, given)
        for _ in range(4):
            assert (infer(given).decrypt() - expected).abs().max() < 1e-3


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("loss", [nn.functional.mse_loss, nn.functional.cross_entropy])
def test_a_training_step_is_one_plan_a_party(members, loss, momentum):
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    plain = copy.deepcopy(model)
    model.fix_precision().share(*members[0], crypto_provider=members[1], requires_grad=True)
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.2, momentum=momentum) for m in (model, plain)]

    @sy.func2plan(state=(model, optimizers[0]))
    def step(x, y):
        optimizers[0].zero_grad()
        out = loss(model(x), y)
        out.backward()
        optimizers[0].step()
        return out

    x, y = torch.randn(8, 4), torch.eye(3)[torch.arange(8) % 3]
    given = [shared(t, members) for t in (x, y)]
    for turn in range(6):
        optimizers[1].zero_grad()
        want = loss(plain(x), y)
        want.backward()
        optimizers[1].step()
        got = step(*given)
        assert abs(got.decrypt().item() - want.item()) < 5e-3
        if turn > 2:
            assert step._shared.recorded, "it is recorded by now"
    for p, q in zip(model.parameters(), plain.parameters(), strict=True):
        assert (p.detach().get().decode() - q).abs().max() < 5e-3
    step.prefetch(1, *given)
    step(*given)
    with torch.no_grad():  # what the plan wrote is what the model computes with
        before = model(given[0]).decrypt()
    step(*given)
    with torch.no_grad():
        assert not torch.equal(model(given[0]).decrypt(), before)


def test_a_public_input_is_part_of_the_recording(members):
    """With another value it is another program, never the one that holds the old one."""
    product = sy.func2plan()(lambda secret, public: (secret * secret) * public)
    for public in (torch.tensor([2.0, 1.0]), torch.tensor([3.0, 1.0]), torch.tensor([4.0, 5.0]).fix_precision(), torch.tensor([True, False])):
        value = public if isinstance(public, torch.Tensor) and type(public) is torch.Tensor else public.decode()
        for _ in range(3):
            assert torch.equal(product(shared(torch.tensor([1.0, 2.0]), members), public).decrypt(), torch.tensor([1.0, 4.0]) * value)
    assert len(product._shared.recorded) == 4


def test_forms_take_turns(members):
    double = sy.func2plan()(lambda x: (x * x) + x)
    for rows in (3, 2, 3, 2, 3, 2):
        assert torch.equal(double(shared(torch.ones(rows), members)).decrypt(), torch.full((rows,), 2.0))
    assert len(double._shared.recorded) == 2
    for size in range(4, 4 + FORMS):
        double(shared(torch.ones(size), members))
    assert not double._shared.recorded, "the oldest have gone"


def test_another_precision_is_another_form(members):
    holders, provider = members
    double = sy.func2plan()(lambda x, by: (x * x) * by)
    for options in ({}, {"base": 10, "precision_fractional": 3}):
        for _ in range(3):
            x = torch.ones(2).fix_precision(**options).share(*holders, crypto_provider=provider)
            assert torch.allclose(double(x, 3).decrypt(), torch.full((2,), 3.0), atol=0.002)


def test_other_settings_are_another_form(members):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.factor = nn.Parameter(torch.tensor([1.0, -2.0])), 2

        def forward(self, x):
            return x * self.weight * self.factor if self.training else x * self.weight

    net, x = Scaled(), torch.tensor([1.0, 3.0])
    shared(net, members)
    infer = sy.func2plan(state=(net,))(lambda v: net(v))
    given = shared(x, members)
    for _ in range(3):
        for mode, factor, expected in ((False, 2, 1), (True, 2, 2), (True, 5, 5)):
            net.train(mode).factor = factor
            with torch.no_grad():
                assert torch.allclose(infer(given).get().decode(), expected * x * torch.tensor([1.0, -2.0]), atol=1e-3)
    assert len(infer._shared.recorded) == 3


def test_a_step_on_targets_that_change(members):
    torch.manual_seed(0)
    plain = nn.Linear(3, 2)
    model, rows = copy.deepcopy(plain), torch.randn(4, 3)
    holders, provider = members
    model.fix_precision().share(*holders, crypto_provider=provider, requires_grad=True)
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.5) for m in (plain, model)]

    plan = sy.func2plan(state=(model, optimizers[1]))(lambda x, y: squares_step(model, optimizers[1], x, y))
    for call in range(5):
        y = torch.full((4, 2), float(call % 3))
        expected = squares_step(plain, optimizers[0], rows, y)
        assert abs(plan(shared(rows, members), y).decrypt() - expected) < 2e-3


@pytest.mark.parametrize(
    "function",
    [lambda x: x * 2, lambda x: x + 1, lambda x: -x.sum(), lambda x: {"first": x[0], "both": [torch.cat([x, x])]}],
    ids=["times", "plus", "sum", "nested"],
)
def test_what_needs_no_other_holder(members, function):
    plan = sy.func2plan()(function)
    x = torch.tensor([1.0, 2.0])
    for _ in range(3):
        got, expected = (torch.utils._pytree.tree_leaves(t) for t in (plan(shared(x, members)), function(x)))
        for remote, local in zip(got, expected, strict=True):
            assert torch.equal(remote.decrypt(), local)
    assert len(plan._shared.recorded) == 1


def test_what_is_shared_and_not_named_is_refused(members):
    other, net = shared(torch.ones(2), members), nn.Linear(2, 2)
    holders, provider = members
    net.fix_precision().share(*holders, crypto_provider=provider)
    for function in (lambda x: x * other, lambda x: x + other, lambda x: net(x)):
        plan = sy.func2plan()(function)
        plan(shared(torch.ones(2), members))
        with pytest.raises(PlanError, match=r"func2plan\(state="):
            plan(shared(torch.ones(2), members))


@pytest.mark.parametrize("to", ["input", "state"])
def test_gradients_flow_through_a_plan(members, to):
    holders, provider = members
    weight = torch.tensor([2.0, 3.0]).fix_precision().share(*holders, crypto_provider=provider, requires_grad=to == "state")
    plan = sy.func2plan(state=(weight,))(lambda x: (x * x * weight).sum())
    for _ in range(3):
        x = torch.tensor([1.0, 2.0]).fix_precision().share(*holders, crypto_provider=provider, requires_grad=to == "input")
        learning = x if to == "input" else weight
        learning.grad = None
        (plan(x) + learning.sum()).backward()
        expected = torch.tensor([5.0, 13.0]) if to == "input" else torch.tensor([2.0, 5.0])
        assert torch.allclose(learning.grad.decrypt(), expected, atol=1e-3)
        with torch.no_grad():
            assert abs(plan(x).decrypt() - 14) < 1e-3


def weighed(function, *shapes):
    return pytest.param(function, shapes, id=function.__name__)


def linear(x, w):
    return nn.functional.linear(x, w)


def rows_of_linear(x, w):
    return nn.functional.linear(x, w[:2])


def moved_linear(x, w):
    return nn.functional.linear(x, w * 2 + 1)


def conv2d(x, w):
    return nn.functional.conv2d(x, w)


def pooled_conv2d(x, w):
    return nn.functional.avg_pool2d(nn.functional.conv2d(x, w), 2).relu()


@pytest.mark.parametrize("again", [False, True], ids=["others", "the same"])
@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        weighed(linear, (2, 4), (3, 4)),
        weighed(rows_of_linear, (2, 5, 4), (3, 4)),
        weighed(moved_linear, (2, 4), (3, 4)),
        weighed(conv2d, (2, 1, 5, 5), (3, 1, 3, 3)),
        weighed(pooled_conv2d, (2, 1, 5, 5), (3, 1, 2, 2)),
    ],
)
def test_a_weight_among_the_arguments(members, function, shapes, again):
    """It is opened in each call, with what it meets, whether or not it was fixed before."""
    plan, weight = sy.func2plan()(function), torch.randn(*shapes[1])
    kept = shared(weight, members)
    for call in range(4):
        x, w = torch.randn(*shapes[0]), weight if again else torch.randn(*shapes[1])
        given = shared(x, members), kept if again else shared(w, members)
        with sy.mpc.count() as cost:
            y = plan(*given)
            y._child
        if call > 0:
            assert len(plan._shared.recorded) == 1 and cost.kernels <= 2
        assert (y.decrypt() - function(x, w)).abs().max() < 2e-3
    for worker in (*members[0], members[1]):
        worker.transport.settle()
    del kept, given, y
    assert [h.objects_count() for h in (*members[0], members[1])] == [0] * (len(members[0]) + 1)


class Attends(nn.MultiheadAttention):
    def forward(self, x):
        return super().forward(x, x, x, need_weights=False)[0]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Attends(4, 2, batch_first=True),
        lambda: nn.TransformerEncoderLayer(4, 2, 8, batch_first=True),
    ],
    ids=["attention", "encoder"],
)
def test_layers_that_use_parts_of_their_weights(members, make):
    torch.manual_seed(2)
    net = make().eval()
    plain = copy.deepcopy(net)
    infer = planned(members, net)
    for _ in range(3):
        x = torch.randn(1, 2, 4)
        with torch.no_grad():
            assert (infer(shared(x, members)).decrypt() - plain(x)).abs().max() < 2e-2
    assert len(infer._shared.recorded) == 1


@pytest.mark.parametrize("net", [nn.Conv2d(1, 2, 3), nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())], ids=["conv", "conv, relu"])
def test_weights_are_fixed_once_though_nobody_asked_for_the_first_result(members, net):
    net = copy.deepcopy(net)
    x, plain = torch.randn(1, 1, 5, 5), copy.deepcopy(net)
    infer, given = planned(members, net), shared(x, members)
    infer(given)
    for _ in range(2):
        with sy.mpc.count() as cost:
            y = infer(given)
        assert (y.decrypt() - plain(x).detach()).abs().max() < 1e-3
        fixed = sum(len(program.weights) for program in infer._shared.recorded)
        assert fixed == 1 and cost.kernels == (2 if isinstance(net, nn.Sequential) else 1)


def test_a_frozen_layer_is_part_of_a_training_step(members):
    torch.manual_seed(3)
    plain = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    model = copy.deepcopy(plain)
    holders, provider = members
    model.fix_precision().share(*holders, crypto_provider=provider, requires_grad=True)
    for net in (plain, model):
        net[0].requires_grad_(False)
    optimizers = [torch.optim.SGD(net[2].parameters(), lr=0.2) for net in (plain, model)]

    plan = sy.func2plan(state=(model, optimizers[1]))(lambda x, y: squares_step(model, optimizers[1], x, y))
    for _ in range(4):
        x, y = torch.randn(8, 4), torch.randn(8, 3)
        expected = squares_step(plain, optimizers[0], x, y)
        assert abs(plan(shared(x, members), shared(y, members)).decrypt() - expected) < 2e-3
    assert len(plan._shared.recorded) == 1


def test_a_weight_among_the_arguments_on_real_nodes(three_nodes):
    """The provider is a node, and then this process."""
    x, w = torch.randn(2, 5), torch.randn(3, 4)
    a, b, c = three_nodes
    for provider in (c, sy.local_worker):
        net, members = nn.Linear(5, 4), ((a, b), provider)
        expected = nn.functional.linear(net(x), w).detach()
        net.fix_precision().share(a, b, crypto_provider=provider)
        plan = sy.func2plan(state=(net,))(lambda x, w, net=net: nn.functional.linear(net(x), w))
        for _ in range(4):
            with torch.no_grad():
                y = plan(shared(x, members), shared(w, members))
            assert (y.decrypt() - expected).abs().max() < 2e-3
        assert len(plan._shared.recorded) == 1


def failing(monkeypatch, owner, name, on):
    """Have ``owner.name`` raise when it is called for the ``on``-th time."""
    calls, real = itertools.count(1), getattr(owner, name)

    def called(*args, **options):
        if next(calls) == on:
            raise ArithmeticError("it failed")
        return real(*args, **options)

    monkeypatch.setattr(owner, name, called)


@pytest.mark.parametrize("ahead", [False, True], ids=["replayed", "dealt ahead"])
def test_what_fails_on_the_way_ends_the_group(members, monkeypatch, ahead):
    """Holders and provider would be out of step from then on: values would be wrong, and nobody would know."""
    infer, x = planned(members, net := nn.Linear(3, 2)), torch.randn(4, 3)
    given, expected = shared(x, members), nn.functional.linear(x, *(p.detach().decrypt() for p in net.parameters()))
    for _ in range(3):
        infer(given)
    group = given._child.group
    epoch = group.epoch
    for owner, name, on in ((shared_recording, "_deal", 1),) if ahead else ((shared_recording, "_deal", 1), (shared_recording, "_told", 2)):
        failing(monkeypatch, owner, name, on)
        with pytest.raises(ArithmeticError):
            infer.prefetch(2, given) if ahead else infer(given)
        monkeypatch.undo()
        for _ in range(3):
            assert (infer(given).decrypt() - expected).abs().max() < 1e-3
        epoch += 1
        assert group.epoch == epoch


def test_what_is_dealt_here_in_part_ends_the_group(monkeypatch, three_nodes):
    a, b, _ = three_nodes
    members, net, x = ((a, b), sy.local_worker), nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2)), torch.randn(4, 3)
    expected = net(x).detach()
    infer, given = planned(members, net), shared(x, members)
    for _ in range(3):
        infer(given)
    for failed in (lambda: infer(given), lambda: infer.prefetch(1, given), lambda: given.relu().sigmoid().decrypt()):
        failing(monkeypatch, LocalProvider, "deal", 2)
        with pytest.raises(ArithmeticError):
            failed()
        monkeypatch.undo()
        for _ in range(3):
            assert (infer(given).decrypt() - expected).abs().max() < 1e-3


def test_what_was_recorded_before_a_group_was_joined_anew_deals_nothing(members):
    infer, given = planned(members, nn.Linear(3, 2)), shared(torch.randn(4, 3), members)
    infer(given), infer(given)
    given._child.group.leave()
    with pytest.raises(sy.errors.SharingAbortedError, match="joined anew since this plan was recorded"):
        infer.prefetch(1, given)
    for _ in range(3):
        infer(given).decrypt()


@pytest.fixture
def impatient():
    """Threads take turns far more often than they would."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def test_a_plan_of_several_threads(members, impatient):
    """While one records it, the module is at a recorder: the others wait."""
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    plain = copy.deepcopy(net)
    holders, provider = members
    net.fix_precision().share(*holders, crypto_provider=provider, requires_grad=True)
    infer = sy.func2plan(state=(net,))(lambda x: net(x))

    def worst(thread):
        found = []
        for call in range(10):
            x = torch.randn(1 + (thread + call) % 4, 3)
            with torch.set_grad_enabled(call == 5):
                found.append((infer(shared(x, members)).detach().decrypt() - plain(x)).abs().max().item())
        return max(found)

    with ThreadPoolExecutor(4) as pool:
        assert max(pool.map(worst, range(4))) < 1e-3
    assert len(infer._shared.recorded) == 4


def test_values_are_opened_by_several_threads(members, impatient):
    def right(thread):
        x = torch.full((3,), float(thread))
        return all(torch.equal(shared(x, members).decrypt(), x) for _ in range(50))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(right, range(4)))


def test_a_plan_within_a_plan(members):
    square = sy.func2plan()(lambda x: x * x)
    both = sy.func2plan()(lambda x: square(x) + square(x + 1))
    for _ in range(4):
        assert torch.equal(both(shared(torch.tensor([1.0, 2.0]), members)).decrypt(), torch.tensor([5.0, 13.0]))
        assert torch.equal(square(shared(torch.tensor([3.0]), members)).decrypt(), torch.tensor([9.0]))
    assert len(both._shared.recorded) == 1 and len(square._shared.recorded) == 2, "for two elements, and for one"


def trained(members, model, rounds, step):
    """The losses, and ``model`` as a step in the open would leave it."""
    plain = copy.deepcopy(model)
    model.fix_precision().share(*members[0], crypto_provider=members[1], requires_grad=True)
    optimizers = [torch.optim.SGD(net.parameters(), lr=0.2) for net in (plain, model)]

    def whole(net, optimizer, x, y):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(step(net, x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    plan = sy.func2plan(state=(model, optimizers[1]))(lambda x, y: whole(model, optimizers[1], x, y))
    for _ in range(rounds):
        x, y = torch.randn(8, 3), torch.randn(8, 2)
        expected = whole(plain, optimizers[0], x, y)
        assert abs(plan(shared(x, members), shared(y, members)).decrypt() - expected) < 2e-3
    return plan, plain


def test_batches_are_counted_in_each_call(members):
    torch.manual_seed(4)
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2))
    plan, plain = trained(members, model, 5, lambda net, x: net(x))
    assert len(plan._shared.recorded) == 1 and model[0].num_batches_tracked == plain[0].num_batches_tracked == 5
    assert (model[0].running_mean.decrypt() - plain[0].running_mean).abs().max() < 1e-3


def test_what_is_written_here_and_is_no_count_is_refused(members):
    class Follows(nn.Linear):
        def __init__(self):
            super().__init__(3, 2)
            self.register_buffer("twice", torch.zeros((), dtype=torch.int64))

        def forward(self, x):
            self.twice.mul_(2).add_(1)
            return super().forward(x)

    model = Follows()
    with pytest.raises(PlanError, match="a tensor of its state that is not shared, torch.int64 of shape"):
        trained(members, model, 3, lambda net, x: net(x))
    assert model.twice.item() == 1, "as the first call left it"


def test_a_count_that_decides_is_refused_and_goes_on(members):
    """A momentum of None is one of 1 / the count of batches."""
    model = nn.Sequential(nn.BatchNorm1d(3, momentum=None), nn.Linear(3, 2))
    with pytest.raises(PlanError, match="recorded differently"):
        trained(members, model, 3, lambda net, x: net(x))
    assert model[0].num_batches_tracked == 1


def test_a_plan_over_shares_has_room_for_few_results(members):
    @sy.func2plan()
    def powers(x):
        for _ in range(12):
            x = x * x - x
        return x

    x = shared(torch.full((2000,), 0.5), members)
    for _ in range(3):
        powers(x).get()
    sessions = [worker.engine.sessions[worker.transport.prefix] for worker in members[0]]
    for session in sessions:
        session.max_bytes = session.used + 14 * 2000 * 8
    result = powers(x)
    assert result.get().float_precision().shape == (2000,)
