"""Pointers to pointers: one object at each worker of the chain, values only where they are, and nothing left when the chain goes."""

import gc

import pytest
import torch
from torch import nn

import syftlite as sy
from syftlite.engine.session import Reference
from syftlite.errors import (
    InvalidTensorForRemoteGet,
    ObjectNotFoundError,
    PlanError,
    PointerMisuseError,
    QuotaExceededError,
    TensorsNotCollocatedError,
    WorkerNotFoundError,
)
from syftlite.wire import messages as m


@pytest.fixture
def carol(alice):
    return sy.VirtualWorker(id=f"{alice.id}-carol")


def counts(*workers):
    return [len(worker._objects) for worker in workers]


def test_the_classic_lesson(bob, alice):
    """x.send(bob).send(alice), an operator on the chain, get().get(): as the tutorials of PySyft 0.2 have it."""
    x, y = torch.tensor([1, 2, 3, 4]), torch.tensor([5, 6, 7, 8])
    x_ptr = x.send(bob).send(alice)
    assert counts(bob, alice) == [1, 1]
    y_ptr = y.send(bob).send(alice)
    z_ptr = x_ptr + y_ptr
    assert counts(bob, alice) == [3, 3]
    inner = z_ptr.get()
    assert isinstance(inner, sy.PointerTensor) and inner.location is bob and counts(bob, alice) == [3, 2]
    assert torch.equal(inner.get(), torch.tensor([6, 8, 10, 12]))
    assert torch.equal(x_ptr.get().get(), x) and torch.equal(y_ptr.get().get(), y)
    assert counts(bob, alice) == [0, 0]


def test_what_a_chain_says_of_itself(bob, alice):
    p = torch.ones(2, 3).send(bob)
    pp = p.send(alice)
    assert isinstance(pp, sy.PointerTensor) and pp.location is alice and pp.owner is sy.local_worker
    assert pp.id == pp.id_at_location and list(alice._objects) == [pp.id_at_location] and list(bob._objects) == [p.id_at_location]
    before = bob.engine.sessions[bob.transport.prefix].executed, alice.engine.sessions[alice.transport.prefix].executed
    assert repr(pp) == (
        f"PointerTensor | me:{pp.id} -> {alice.id}:{pp.id} -> {bob.id}:{p.id_at_location}, shape=[2, 3], dtype=torch.float32"
    )
    assert pp.child.location is bob and pp.child.id_at_location == p.id_at_location and p.child is None
    assert (pp.shape, pp.dtype, len(pp)) == (torch.Size([2, 3]), torch.float32, 2)
    assert (bob.engine.sessions[bob.transport.prefix].executed, alice.engine.sessions[alice.transport.prefix].executed) == before
    (stored,) = alice._objects.values()
    assert isinstance(stored, Reference) and repr(stored) == f"<pointer to {bob.id}:{p.id_at_location}>"
    assert [row.description for row in alice.listing()] == [f"a pointer to an object at {bob.id}"]


def test_dropping_a_chain_frees_all_of_it(bob, alice, carol):
    ppp = torch.ones(3).send(bob).send(alice).send(carol)
    assert counts(bob, alice, carol) == [1, 1, 1]
    del ppp
    gc.collect()
    assert counts(bob, alice, carol) == [0, 0, 0]


def test_the_pointer_that_was_sent_stays_of_use(bob, alice):
    p = torch.ones(3).send(bob)
    pp = p.send(alice)
    assert torch.equal((p + 1).get(), torch.full((3,), 2.0))
    del p
    assert counts(bob, alice) == [1, 1]
    assert torch.equal(pp.get().get(), torch.ones(3))


def test_operators_write_and_view_through_a_chain(bob, alice):
    p = torch.zeros(2, 3).send(bob)
    pp = p.send(alice)
    row = pp[0]
    row.add_(2)
    pp[1, 1] = 5
    pp *= 2
    assert torch.equal(p.get_copy(), torch.tensor([[4.0, 4.0, 4.0], [0.0, 10.0, 0.0]]))
    pp.t_()
    assert pp.shape == (3, 2) and torch.equal(pp.get_copy().get(), p.get_copy().t())
    first, second = pp.split(2)
    assert first.location is alice and torch.equal(second.get().get(), torch.tensor([[4.0, 0.0]]))
    assert pp.sum().item() == 22.0 and float(pp.max()) == 10.0 and bool((pp >= 0).all())
    local = torch.empty(3, 2)
    local.copy_(pp)
    assert torch.equal(local, p.get_copy().t())
    assert isinstance(torch.cat([pp, pp]), sy.PointerTensor) and torch.cat([pp, pp]).location is alice
    assert pp.nonzero().location is alice and torch.equal(pp.nonzero().get().get(), p.get_copy().t().nonzero())


def test_operands_must_lead_the_same_way(bob, alice, carol):
    p = torch.ones(2).send(bob)
    pp = p.send(alice)
    for other in (p, torch.ones(2).send(bob).send(carol), torch.ones(2).send(bob).send(alice).send(alice), torch.ones(2).send(alice)):
        for use in (lambda o: pp + o, lambda o: o + pp, lambda o: pp.add_(o)):
            with pytest.raises(TensorsNotCollocatedError, match=rf"at {alice.id}.* -> {bob.id}.*get\(\) what is"):
                use(other)
    assert torch.equal(p.get_copy(), torch.ones(2)), "nothing was written before the error"
    with pytest.raises(RuntimeError, match=r"send\(\) it there first"):
        pp + torch.ones(2)
    assert torch.equal((pp + 1 + torch.tensor(2.0)).get().get(), torch.full((2,), 4.0))


def test_what_get_took_is_said_to_be_gone(bob, alice):
    pp = torch.ones(2).send(bob).send(alice)
    alias, p = pp.detach(), pp.get()
    for use in (pp.get, lambda: pp + 1, lambda: alias + 1, pp.remote_get, lambda: pp.send(alice), pp.clone):
        with pytest.raises(ObjectNotFoundError, match="consumed"):
            use()
    assert "consumed" in repr(pp) and torch.equal(p.get(), torch.ones(2))


def test_a_copy_leaves_the_chain_as_it_is(bob, alice):
    pp = torch.ones(2).send(bob).send(alice)
    copied, twin = pp.get_copy(), pp.copy()
    copied.add_(1)
    assert twin.location is alice and copied.location is bob
    assert torch.equal(copied.get(), torch.full((2,), 2.0)) and torch.equal(twin.get().get(), torch.ones(2))
    assert torch.equal(pp.get().get(), torch.ones(2))


def test_move_moves_the_pointer_not_the_value(bob, alice, carol):
    p = torch.ones(2).send(bob)
    pp = p.send(alice)
    moved = pp.move(carol)
    assert moved.location is carol and moved.child.id_at_location == p.id_at_location and counts(bob, alice, carol) == [1, 0, 1]
    assert moved.move(carol) is moved and moved.move_(alice.id) is moved
    assert moved.location is alice and counts(bob, alice, carol) == [1, 1, 0]
    with pytest.raises(WorkerNotFoundError):
        moved.move("nobody")


def test_remote_get_brings_the_value_to_the_worker_that_pointed(bob, alice):
    p = torch.arange(3.0).send(bob)
    pp = p.send(alice)
    assert pp.remote_get() is pp
    assert pp.location is alice and pp.child is None and counts(bob, alice) == [0, 1], "it moves: also with another pointer to it"
    with pytest.raises(ObjectNotFoundError, match="consumed"):
        p.get()
    assert torch.equal((pp * 2).get(), torch.tensor([0.0, 2.0, 4.0]))


def test_remote_get_takes_one_link_out_of_a_longer_chain(bob, alice, carol):
    ppp = torch.ones(2).send(bob).send(alice).send(carol)
    ppp.remote_get()
    assert ppp.location is carol and ppp.child.location is bob and ppp.child.child is None and counts(bob, alice, carol) == [1, 0, 1]
    ppp.remote_get()
    assert ppp.location is carol and ppp.child is None and counts(bob, alice, carol) == [0, 0, 1]


def test_remote_get_of_what_is_borrowed_copies(bob, alice):
    bob.load(torch.ones(2), "#data")
    (found,) = bob.search("#data")
    pp = found.send(alice).remote_get()
    assert pp.location is alice and torch.equal(pp.get(), torch.ones(2)) and torch.equal(found.get(), torch.ones(2))


def test_remote_get_of_what_is_there_already(bob):
    pp = torch.ones(2).send(bob).send(bob)
    assert counts(bob) == [2] and pp.remote_get() is pp and pp.child is None and counts(bob) == [1]
    assert torch.equal(pp.get(), torch.ones(2))


@pytest.mark.parametrize("target", [lambda x, bob: x, lambda x, bob: x.send(bob)])
def test_remote_get_of_anything_else_is_refused(bob, target):
    x = target(torch.ones(2), bob)
    with pytest.raises(InvalidTensorForRemoteGet, match="pointer to a pointer"):
        x.remote_get()
    with pytest.raises(InvalidTensorForRemoteGet, match="remote_send"):
        torch.ones(2).remote_send(bob)


def test_remote_send_leaves_a_pointer_behind(bob, alice):
    p = torch.arange(3.0).send(bob)
    assert p.remote_send(alice) is p
    assert p.location is bob and p.child.location is alice and counts(bob, alice) == [1, 1]
    assert torch.equal(p.get().get(), torch.arange(3.0)) and counts(bob, alice) == [0, 0]


def test_remote_send_changing_location_is_a_move(bob, alice):
    p = torch.arange(3.0).send(bob)
    assert p.remote_send(alice.id, change_location=True) is p
    assert p.location is alice and p.child is None and counts(bob, alice) == [0, 1]
    assert p.remote_send(alice, change_location=True) is p and counts(bob, alice) == [0, 1]
    assert torch.equal(p.get(), torch.arange(3.0))


def test_remote_send_of_a_chain_sends_the_pointer_on(bob, alice, carol):
    pp = torch.ones(2).send(bob).send(alice)
    pp.remote_send(carol)
    assert pp.location is alice and pp.child.location is carol and pp.child.child.location is bob
    assert counts(bob, alice, carol) == [1, 1, 1] and torch.equal(pp.get().get().get(), torch.ones(2))
    pp = torch.ones(2).send(bob).send(alice)
    pp.remote_send(carol, change_location=True)
    assert pp.location is carol and pp.child.location is bob and counts(bob, alice, carol) == [1, 0, 1]


def test_in_place_forms_keep_the_object(bob, alice):
    x = torch.arange(3.0)
    kept = x
    assert x.send_(bob) is x and x.send_(alice) is x and x.location is alice and counts(bob, alice) == [1, 1]
    assert x.get_() is x and x.location is bob and counts(bob, alice) == [1, 0]
    assert x.get_() is kept and type(x) is torch.Tensor and torch.equal(x, torch.arange(3.0)) and counts(bob, alice) == [0, 0]


def test_a_pointer_goes_to_one_worker(bob, alice):
    p = torch.ones(2).send(bob)
    for workers in ((), (alice, bob)):
        with pytest.raises(PointerMisuseError, match="one worker"):
            p.send(*workers)
    assert p.send(alice.id).location is alice and alice.send(p).location is alice


# -- autograd


def test_gradients_come_back_through_every_link(bob, alice):
    w = torch.ones(3, requires_grad=True)
    (w * 3).send(bob).send(alice).mul(2).get().get().sum().backward()
    assert torch.equal(w.grad, torch.full((3,), 6.0))
    w.grad = None
    chain = (w * 3).send(bob).send(alice).mul(2)
    chain.remote_get().sum().backward()
    assert torch.equal(w.grad, torch.full((3,), 6.0))
    w.grad = None
    pointer = (w * 3).send(bob)
    pointer.remote_send(alice)
    pointer.move(bob).sum().backward()
    assert torch.equal(w.grad, torch.full((3,), 3.0))


def test_a_leaf_stays_one_and_brings_its_gradient(bob, alice):
    w = torch.tensor([1.0, 2.0], requires_grad=True).send(bob).send(alice)
    assert w.is_leaf and w.requires_grad
    (w * w).sum().backward()
    assert w.grad.location is alice
    p = w.get()
    assert p.grad.location is bob and torch.equal(p.get().grad, torch.tensor([2.0, 4.0]))
    assert counts(bob, alice) == [0, 0]


def test_an_optimizer_trains_what_a_chain_leads_to(bob, alice):
    there, here = (nn.Parameter(torch.ones(2)) for _ in range(2))
    chain = nn.Parameter(there.detach().send(bob).send(alice))
    for parameter in (chain, here):
        adam = torch.optim.Adam([parameter], lr=0.1)
        for _ in range(3):
            adam.zero_grad()
            (parameter * parameter).sum().backward()
            adam.step()
    assert torch.allclose(chain.detach().get().get(), here.detach())


# -- at the worker


def test_a_reference_has_no_value_and_says_where_it_is(bob, alice):
    pp = torch.ones(2).send(bob).send(alice)
    with pytest.raises(PointerMisuseError, match=f"pointer to an object at {bob.id}"):
        alice.ask(m.GET, [pp.id_at_location], False, None)
    fresh = alice.next_id()
    alice.cast((m.OP, 1, (pp.id_at_location, 1.0), None, fresh))
    with pytest.raises(PointerMisuseError, match=f"pointer to an object at {bob.id}"):
        alice.ask(m.GET, [fresh], False, None)


def test_references_are_within_the_quota(alice):
    session = alice.engine.sessions[alice.transport.prefix]
    used, session.max_bytes = session.used, session.used + 700
    numbers = [alice.next_id() for _ in range(2)]
    for number in numbers:
        alice.cast((m.REFER, number, "w" * 300, 7))
    assert 300 < session.used - used <= 700
    with pytest.raises(QuotaExceededError):
        alice.ask(m.GET, numbers[1:], False, None)
    alice.cast((m.DROP, numbers))
    assert session.used == used


def test_a_plan_names_the_remedy(bob, alice):
    @sy.func2plan(args_shape=[(2,)])
    def double(x):
        return x * 2

    pp = torch.ones(2).send(bob).send(alice)
    with pytest.raises(PlanError, match=r"get\(\) that first"):
        double(pp)
    assert torch.equal(double(pp.get()).get(), torch.full((2,), 2.0))


def test_a_layer_above_and_tags_reach_the_value(bob, alice, capsys):
    pp = torch.ones(2).send(bob).send(alice).tag("#here").describe("ones")
    assert [f.id_at_location for f in bob.search("#here")] == [pp.child.id_at_location] and pp.tags == {"#here"}
    logged = sy.LoggingTensor("x").on(pp)
    out = logged + 1
    assert "aten.add" in capsys.readouterr().out and torch.equal(out.child.get().get(), torch.full((2,), 2.0))


# -- between nodes


def test_between_nodes_the_value_goes_by_a_link_of_theirs(monkeypatch):
    with sy.LocalCluster("chain-bob", "chain-alice", threads=1) as (bob, alice):
        pp = torch.arange(4.0).send(bob).send(alice)
        assert (bob.objects_count(), alice.objects_count()) == (1, 1)
        carried = []
        for worker in (bob, alice):
            put, ask = worker.put, worker.ask
            monkeypatch.setattr(worker, "put", lambda *a, put=put: (carried.append("PUT"), put(*a))[1])
            monkeypatch.setattr(worker, "ask", lambda kind, *f, ask=ask: (carried.append(kind), ask(kind, *f))[1])
        pp.remote_get()
        (pp + 1).remote_send(bob)
        assert carried == [m.EXPECT, m.SHIP, m.EXPECT, m.SHIP]
        monkeypatch.undo()
        assert torch.equal(pp.get(), torch.arange(4.0))
        for worker in (bob, alice):
            worker.ask(m.SYNC)  # over a socket, what is dropped is told behind the next question
        assert (bob.objects_count(), alice.objects_count()) == (0, 0)
