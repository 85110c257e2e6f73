"""Scans: a plan replayed over rows by one message equals the loop that it stands for."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import syftlite as sy
from syftlite._torch import aten
from syftlite.engine.engine import Engine
from syftlite.engine.session import Principal, Role
from syftlite.errors import GetNotPermittedError, PlanError
from syftlite.ops.table import BY_FUNC
from syftlite.remote.optimizers import prime
from syftlite.transports.memory import MemoryTransport
from syftlite.wire import messages


def executed(worker):
    return worker.engine.sessions[worker.transport.prefix].executed


def test_a_scan_is_one_message_and_its_results_are_stacked(bob):
    total = torch.zeros(2)

    @sy.func2plan(state=[total])
    def f(x, y, shift):
        total.add_(x)
        return {"running": total * 1, "scaled": (x * y + shift).sum()}

    x, y, shift = torch.randn(5, 2), torch.randn(5, 2), torch.randn(2)
    px, py, ps = (t.send(bob) for t in (x, y, shift))
    f.scan(px, py, ps, over=2)
    objects, before = bob.objects_count(), executed(bob)
    there = f.scan(px, py, ps, over=2)
    assert executed(bob) <= before + 2, "the scan, and the drop of the last one's results"
    here = f.scan(x, y, shift, over=2)
    assert there["running"].shape == here["running"].shape == (5, 2) and there["scaled"].shape == (5,)
    torch.testing.assert_close(there["running"].get(), here["running"] + x.sum(0))
    torch.testing.assert_close(there["scaled"].get(), here["scaled"])
    assert bob.objects_count() == objects


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_epochs_of_training_are_one_message_and_equal_eager(bob, name):
    eager = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    model = copy.deepcopy(eager)
    optimizer, reference = OPTIMIZERS[name](model.parameters()), OPTIMIZERS[name](eager.parameters())
    prime(optimizer)

    @sy.func2plan(state=(model, optimizer))
    def step(rows, x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x[rows]), y[rows])
        loss.backward()
        optimizer.step()
        return loss.detach()

    x, y = torch.randn(24, 4).double(), torch.randint(0, 3, (24,))
    rows = torch.stack([torch.randperm(24)[:6] for _ in range(12)])
    losses = step.scan(rows.send(bob), x.send(bob), y.send(bob)).get()
    for at, chosen in enumerate(rows):
        reference.zero_grad()
        loss = F.cross_entropy(eager(x[chosen]), y[chosen])
        loss.backward()
        reference.step()
        assert abs(loss.item() - losses[at].item()) < 1e-9
    step.get()
    for mine, its in zip(model.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(mine, its)


def test_state_of_ones_own_takes_the_place_of_the_plans(bob):
    count = torch.zeros(1)

    @sy.func2plan(state=[count])
    def add(x):
        count.add_(x)
        return count * 1

    mine = torch.tensor([100.0]).send(bob)
    assert add.scan(torch.ones(3, 1).send(bob), state=[mine]).get().flatten().tolist() == [101.0, 102.0, 103.0]
    assert mine.get().item() == 103.0 and count.item() == 0.0


def test_labels_and_failures_pass_through_a_scan(bob):
    @sy.func2plan(args_shape=[(2,), (3,)])
    def f(x, y):
        return y[x.long()].sum()

    bob.load(torch.arange(3.0), "#secret", private=True)
    (secret,) = bob.search("#secret")
    other = sy.BaseWorker.send(bob, torch.tensor([[0.0, 1.0], [2.0, 2.0]]))
    assert f.scan(other, secret).get().tolist() == [1.0, 4.0]  # me is bob's owner
    with pytest.raises(IndexError):
        f.scan(torch.tensor([[0.0, 1.0], [2.0, 7.0]]).send(bob), secret).get()


def test_more_rows_than_a_message_goes_over_are_several_messages(bob, monkeypatch):
    monkeypatch.setattr(messages, "SCAN_STEPS", 4)
    total = torch.zeros(2)

    @sy.func2plan(state=[total])
    def f(x, y, shift):
        total.add_(x)
        return {"running": total * 1, "scaled": (x * y + shift).sum()}

    for rows in (4, 5, 11, 12):
        x, y, shift = torch.randn(rows, 2), torch.randn(rows, 2), torch.randn(2)
        state = torch.zeros(2).send(bob)
        total.zero_()
        objects = bob.objects_count()
        there = f.scan(*(t.send(bob) for t in (x, y, shift)), over=2, state=[state])
        here = f.scan(x, y, shift, over=2)
        assert there["running"].shape == (rows, 2) and there["scaled"].shape == (rows,)
        torch.testing.assert_close(there["running"].get(), here["running"])
        torch.testing.assert_close(there["scaled"].get(), here["scaled"])
        torch.testing.assert_close(state.get(), total)
        assert bob.objects_count() <= objects
    with pytest.raises(IndexError):
        indices = torch.arange(12).view(12, 1).send(bob)
        sy.func2plan(args_shape=[(1,), (10,)])(lambda i, x: x[i.long()]).scan(indices, torch.arange(10.0).send(bob)).get()


def test_what_a_worker_cannot_scan_is_told_as_it_is(bob):
    @sy.func2plan(args_shape=[(2,), (2,)])
    def f(x, y):
        return x + y

    rows = torch.ones(3, 2).send(bob), torch.ones(4, 2).send(bob)
    route, operands = f.over_rows(rows, 2)
    with pytest.raises(Exception, match="a scan goes over operands of equally many rows"):
        route.scan(operands, 2, 3).get()


def test_a_scan_makes_no_more_objects_than_a_session_may_have():
    """Its results, of as many names as a message holds, stay until they are stacked: a small message would fill the memory."""
    engine = Engine("scan-room")
    session = engine.open_session(Principal("carol", Role.SCIENTIST))
    session.max_objects, most, put = 100, [], session.alias
    session.alias = lambda *args: (put(*args), most.append(len(session.objects)))
    first = session.prefix << 32
    engine.handle(session, (messages.PUT, first + 1, torch.zeros(20), (), ""))
    for outs in (10, 2):
        numbers = tuple(range(first + 10**6 * outs, first + 10**6 * outs + outs))
        engine.handle(session, (messages.PLAN, first + 100 + outs, 1, ((BY_FUNC[aten.neg.default].number, (1,), None, 2),), (2,) * outs))
        engine.handle(session, (messages.SCAN, first + 100 + outs, (first + 1,), (0,), first + 10**5 * outs, numbers))
        answer = engine.handle(session, (messages.GET, 1, numbers[:1], False, None))
        if outs == 10:
            assert answer[0] == messages.ERROR and "objects" in answer[3]
        else:
            assert answer[2][0].shape == (20,)
    assert max(most) <= session.max_objects


def test_what_cannot_be_scanned_is_refused_here(bob):
    @sy.func2plan(args_shape=[(2,)])
    def f(x):
        return x * 2

    for given, over in (((torch.tensor(1.0),), 1), ((torch.ones(2, 2),), 2), ((torch.ones(0, 2),), 1)):
        with pytest.raises(PlanError, match="a scan goes over"):
            f.scan(*[t.send(bob) for t in given], over=over)


def test_a_scientist_gets_nothing_private_through_a_scan():
    engine = Engine("scan-hospital")
    engine.load("rows", torch.arange(4.0).view(2, 2), ["#rows"], private=True)
    carol = sy.BaseWorker(f"scan-{id(engine)}", MemoryTransport(engine, Principal("carol", Role.SCIENTIST)))
    (rows,) = carol.search("#rows")
    total = torch.zeros(2).send(carol)

    @sy.func2plan(args_shape=[(2,)], state=[total])
    def f(x):
        total.add_(x)
        return x * 0 + 1

    ones = f.scan(rows)
    for private in (ones, total):
        with pytest.raises(GetNotPermittedError):
            private.get()
