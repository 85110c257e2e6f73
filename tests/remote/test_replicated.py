"""ReplicatedSharingTensor: three holders without a provider, virtual and real; members that go; plans; what it refuses."""

import copy
import gc
import itertools
import signal

import pytest
import torch
from _sharing import sent
from torch import nn

import syftlite as sy
from syftlite.errors import ConnectionLostError, Misuse, SharingAbortedError, TensorsNotCollocatedError
from syftlite.wire.messages import REPLAY

sy.TorchHook()
_names = itertools.count()


@pytest.fixture
def three():
    return [sy.VirtualWorker(id=f"replica{next(_names)}") for _ in range(3)]


def replicated(x, three, **options):
    return x.fix_precision().share(*three, protocol="aby3", **options)


def test_what_it_is(three):
    x = torch.arange(4).share(*three, protocol="aby3")
    assert type(x) is sy.ReplicatedSharingTensor and x.crypto_provider is None and x.locations == three
    assert len(x.shares) == 6 and [share.location for share in x.shares] == [w for w in three for _ in range(2)]
    held = [share.location._objects[share.id_at_location] for share in x.shares]
    for i in range(3):
        assert torch.equal(held[2 * i + 1], held[2 * (i + 1) % 6]), "the next one's own"
    assert torch.equal(held[0] + held[2] + held[4], torch.arange(4)) and torch.equal(x.get(), torch.arange(4))
    assert repr(x).startswith(f"ReplicatedSharingTensor | {', '.join(w.id for w in three)}; no provider, shape=[4]")
    assert torch.equal(torch.arange(4).share(*three, protocol="falcon").get(), torch.arange(4))


def test_what_it_costs_does_not_depend_on_the_factors(three):
    x, y = (replicated(torch.randn(4, size), three) for size in (400, 400))
    with sy.mpc.count() as cost:
        product = x @ y.t()
    assert (cost.rounds, cost.sent, cost.kernels) == (2, 2 * 8 * 16, 1), "one opening to truncate, one to hand shares back to the third"
    assert (product.decrypt() - x.decrypt() @ y.decrypt().t()).abs().max() < 1e-2


def test_a_model_and_its_gradients(three):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(27, 4))
    plain, images, target = copy.deepcopy(model), torch.rand(2, 1, 6, 6), torch.eye(4)[:2]
    model.fix_precision().share(*three, protocol="aby3", requires_grad=True)
    loss = nn.functional.cross_entropy(model(replicated(images, three)), replicated(target, three))
    want = nn.functional.cross_entropy(plain(images), target)
    loss.backward()
    want.backward()
    assert abs(loss.decrypt().item() - want.item()) < 2e-3
    for mine, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        assert (mine.grad.decrypt() - theirs.grad).abs().max() < 2e-3
    with torch.no_grad():
        assert (model(replicated(images, three)).decrypt() - plain(images)).abs().max() < 1e-3
    assert (copy.deepcopy(model)[0].weight.detach().decrypt() - plain[0].weight).abs().max() < 1e-4


@pytest.mark.parametrize("loss", [nn.functional.mse_loss, nn.functional.cross_entropy])
def test_a_training_step_is_one_plan_a_party(three, loss, monkeypatch):
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    plain = copy.deepcopy(model)
    model.fix_precision().share(*three, protocol="aby3", requires_grad=True)
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.2, momentum=0.9) for m in (model, plain)]

    @sy.func2plan(state=(model, optimizers[0]))
    def step(x, y):
        optimizers[0].zero_grad()
        out = loss(model(x), y)
        out.backward()
        optimizers[0].step()
        return out

    x, y = torch.randn(8, 4), torch.eye(3)[torch.arange(8) % 3]
    given = [replicated(t, three) for t in (x, y)]
    for turn in range(5):
        optimizers[1].zero_grad()
        want = loss(plain(x), y)
        want.backward()
        optimizers[1].step()
        kinds = [sent(worker, monkeypatch) for worker in three]
        got = step(*given)
        got._child
        if turn > 2:
            assert kinds == [[REPLAY]] * 3
        monkeypatch.undo()
        assert abs(got.decrypt().item() - want.item()) < 5e-3
    for p, q in zip(model.parameters(), plain.parameters(), strict=True):
        assert (p.detach().get().decode() - q).abs().max() < 5e-3
    with pytest.raises(Misuse, match="no provider who could deal ahead"):
        step.prefetch(1, *given)


def test_adam_as_one_plan(three):
    """What is public and counts steps is written to at each place of its own."""
    torch.manual_seed(4)
    model = nn.Linear(4, 3)
    plain = copy.deepcopy(model)
    model.fix_precision().share(*three, protocol="aby3", requires_grad=True)
    optimizers = [torch.optim.Adam(m.parameters(), lr=0.02) for m in (plain, model)]
    x, y = torch.randn(8, 4), torch.eye(3)[torch.arange(8) % 3]

    def stepper(model, optimizer):
        def step(x, y):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return loss.detach()

        return step

    step = sy.func2plan(state=(model, optimizers[1]))(stepper(model, optimizers[1]))
    given = [replicated(t, three) for t in (x, y)]
    for _ in range(8):
        assert abs(stepper(plain, optimizers[0])(x, y).item() - step(*given).decrypt().item()) < 2e-4
    assert step._shared.recorded, "it is recorded by now"


def test_nothing_stays_at_the_workers(three):
    model = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))
    model.fix_precision().share(*three, protocol="aby3")
    with torch.no_grad():
        y = model(replicated(torch.rand(3, 8), three))
        (y > 0).get(), (y.softmax(1) * y).get(), y.refresh().get()
    assert all(worker.objects_count() > 0 for worker in three)
    del model, y
    gc.collect()
    assert [worker.objects_count() for worker in three] == [0, 0, 0]


# -- who shares with whom


def test_groups_that_cannot_be(three):
    x, dealer = torch.tensor([1]), sy.VirtualWorker(id=f"replica{next(_names)}")
    for holders, options, text in (
        (three[:2], {}, "held by three workers, not 2"),
        ([*three, dealer], {}, "held by three workers, not 4"),
        (three, {"crypto_provider": dealer}, "need no crypto_provider"),
        ([three[0], *three[:2]], {}, "names one twice"),
    ):
        with pytest.raises(Misuse, match=text):
            x.share(*holders, protocol="aby3", **options)
    with pytest.raises(Misuse, match="no protocol 'bgw' here: snn, fss, mpc all name additive sharing.*aby3, falcon replicated sharing"):
        x.share(*three, protocol="bgw")
    additive, other = x.share(*three, crypto_provider=dealer), x.share(*reversed(three), protocol="aby3")
    mine = x.share(*three, protocol="aby3")
    for program in (lambda: mine + additive, lambda: additive * mine, lambda: mine * other, lambda: mine < additive, lambda: torch.cat([mine, additive])):
        with pytest.raises(TensorsNotCollocatedError, match="share\\(\\) both among the same workers"):
            program()


# -- real nodes


def test_three_processes(three_nodes):
    torch.manual_seed(1)
    x, model = torch.randn(5, 6), nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    want = model(x).detach()
    there = x.send(three_nodes[2])
    located = there.fix_precision().share(*three_nodes, protocol="aby3")
    assert located.child.location is three_nodes[2]
    given = located.get()
    assert given.is_secret and (given.decrypt() - x).abs().max() < 1e-4
    model.fix_precision().share(*three_nodes, protocol="aby3")
    infer = sy.func2plan(state=(model,))(lambda v: model(v).softmax(1))
    with torch.no_grad():
        for _ in range(4):
            assert (infer(given).decrypt() - want.softmax(1)).abs().max() < 1e-3
    assert ((given < 0).decrypt() == (x < 0)).all()


@pytest.mark.parametrize("victim", [0, 1, 2])
def test_a_killed_process_ends_the_computation(victim):
    """The victim is stopped, so that it stays in the run that is sent next, and killed there."""
    names = "ka", "kb", "kc"
    with (cluster := sy.LocalCluster(*names, threads=1)) as nodes:
        x = torch.tensor([1.5, -2.0, 3.0])
        value = replicated(x, nodes)
        assert torch.allclose(value.relu().get().float_precision(), x.relu(), atol=1e-3)
        process = cluster.process(names[victim])
        process.send_signal(signal.SIGSTOP)
        result = (value * value).relu()
        process.kill()
        process.wait()
        with pytest.raises((SharingAbortedError, ConnectionLostError)):
            result.get()
        for worker in nodes:
            if worker.id != names[victim]:  # nobody hangs
                assert torch.equal((torch.ones(2).send(worker) + 1).get(), torch.full((2,), 2.0))


def test_a_group_that_broke_is_joined_anew(three_nodes):
    x = replicated(torch.tensor([1.5, -2.0]), three_nodes)
    assert x.relu().decrypt().tolist() == [1.5, 0.0]
    x.child.group.leave()
    assert (x * x).relu().decrypt().tolist() == [2.25, 4.0], "shares outlast their group's links"
