"""Multi-pointers: one tensor at several workers, operators at each, values back as a list or a sum."""

import copy
import pickle

import pytest
import torch
from torch.nn import functional as F

import syftlite as sy
from syftlite.errors import (
    InvalidTensorForRemoteGet,
    LocalTensorMixedError,
    Misuse,
    ObjectNotFoundError,
    OperatorNotReviewedError,
    PointerMisuseError,
    TensorsNotCollocatedError,
    WorkerNotFoundError,
)
from syftlite.testing import Simulator


def test_send_to_several_workers_and_get_the_list(bob, alice):
    x = torch.tensor([1.0, 2.0])
    multi = x.send(bob, alice)
    assert isinstance(multi, sy.MultiPointerTensor) and multi.shape == (2,) and multi.dtype == torch.float32 and len(multi) == 2
    assert multi.locations == [bob, alice] == multi.location and multi.is_wrapper
    assert list(multi.child) == [bob.id, alice.id] and all(isinstance(p, sy.PointerTensor) for p in multi.child.values())
    assert repr(multi).startswith(f"MultiPointerTensor | {bob.id}, {alice.id}, shape=[2], dtype=torch.float32\n    -> PointerTensor | me:")
    values = multi.get()
    assert [v.tolist() for v in values] == [[1.0, 2.0], [1.0, 2.0]]
    with pytest.raises(ObjectNotFoundError, match="consumed"):
        multi.get()
    assert bob._objects == {} == alice._objects


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int8, torch.int32, torch.int64, torch.float16, torch.float32])
def test_a_sum_is_that_of_torch(alice, bob, dtype):
    values = [torch.tensor([1, 0, 100]).to(dtype), torch.tensor([1, 1, 100]).to(dtype)]
    for many in (values, values[:1], [*values, values[1]]):
        pointers = [value.send(worker) for value, worker in zip(many, (alice, bob, sy.VirtualWorker(id="carol")), strict=False)]
        total = torch.stack(many).sum(0)
        for found in (sy.combine_pointers(*pointers).virtual_get(sum_results=True), sy.combine_pointers(*pointers).get(sum_results=True)):
            assert found.dtype == total.dtype and torch.equal(found, total)


def test_ids_name_workers_and_send_in_place(bob, alice):
    x = torch.ones(2)
    assert x.send_(bob.id, alice.id) is x and isinstance(x, sy.MultiPointerTensor)
    assert x.get(sum_results=True).tolist() == [2.0, 2.0]
    with pytest.raises(WorkerNotFoundError, match="got none"):
        torch.ones(1).send()
    with pytest.raises(WorkerNotFoundError, match="one worker"):
        torch.nn.Linear(1, 1).send(bob, alice)


def test_operators_run_at_each_worker(bob, alice):
    p, q = torch.tensor([1.0, 2.0]).send(bob), torch.tensor([10.0, 20.0]).send(alice)
    multi = sy.combine_pointers(p, q)
    assert [v.tolist() for v in ((multi * 2 + multi) - torch.tensor(1.0)).get()] == [[2.0, 5.0], [29.0, 59.0]]
    assert multi.sum().get_copy(sum_results=True).item() == 33.0
    low, high = torch.stack([multi, multi + 1]).aminmax(dim=1)
    assert [v.tolist() for v in low.get()] == [[1.0, 2.0], [10.0, 11.0]] and high.shape == (2,)
    assert [v.tolist() for v in F.relu(2 - multi).get()] == [[1.0, 0.0], [0.0, 0.0]]
    assert [v.tolist() for v in multi[1:].get_copy()] == [[2.0], [20.0]]
    assert p.get().tolist() == [1.0, 2.0], "combining keeps the pointers"


def test_in_place_operators_and_views(bob, alice):
    multi = torch.zeros(2, 3).send(bob, alice)
    assert multi.add_(2) is multi and multi.t_() is multi and multi.shape == (3, 2)
    multi[0] = 7
    for value in multi.get():
        assert value.tolist() == [[7.0, 7.0], [2.0, 2.0], [2.0, 2.0]]


def test_gradients_stay_with_a_leaf_that_is_sent(bob, alice):
    w = torch.tensor([1.0, 2.0], requires_grad=True)
    multi = w.send(bob, alice)
    assert multi.is_leaf and multi.requires_grad
    (multi * torch.tensor([3.0, 4.0]).send(bob, alice)).sum().backward()
    assert isinstance(multi.grad, sy.MultiPointerTensor)
    for value in multi.get():
        assert value.requires_grad and value.grad.tolist() == [3.0, 4.0]


def test_gradients_come_back_from_all_workers(bob, alice):
    w = torch.tensor([1.0, 2.0], requires_grad=True)
    total = (w.send(bob, alice, requires_grad=True) * sy.combine_pointers(torch.ones(2).send(bob), torch.full((2,), 5.0).send(alice))).sum()
    total.get(sum_results=True).backward()
    assert w.grad.tolist() == [6.0, 6.0]
    v = torch.tensor([1.0], requires_grad=True)
    first, second = ((v * 2).send(bob, alice) ** 2).get()
    (first + 3 * second).sum().backward()
    assert v.grad.tolist() == [32.0]


def test_gradients_of_combined_and_split_pointers(bob, alice):
    p, q = torch.ones(2, requires_grad=True).send(bob), torch.ones(2, requires_grad=True).send(alice)
    a, b = (sy.combine_pointers(p, q) * 2).pointers()
    (a * 3).sum().backward(retain_graph=True)
    assert p.grad.get().tolist() == [6.0, 6.0] and q.grad.get().tolist() == [0.0, 0.0]
    assert b.requires_grad


@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop])
def test_optimizers_with_state_step_at_each_worker(bob, alice, make):
    targets = torch.tensor([1.0, 2.0]), torch.tensor([-3.0, 4.0])
    w = torch.zeros(2).send(bob, alice).requires_grad_()
    here = [torch.zeros(2, requires_grad=True) for _ in targets]
    target = sy.combine_pointers(targets[0].send(bob), targets[1].send(alice))
    optimizers = [make([p], lr=0.1) for p in (w, *here)]
    for _ in range(3):
        for optimizer, p, t in zip(optimizers, (w, *here), (target, *targets), strict=True):
            optimizer.zero_grad()
            (p - t).pow(2).sum().backward()
            optimizer.step()
    for value, expected in zip(w.detach().get(), here, strict=True):
        assert torch.allclose(value, expected, atol=1e-6)


def test_optimizers_step_at_each_worker(bob, alice):
    w = torch.zeros(2).send(bob, alice).requires_grad_()
    target = sy.combine_pointers(torch.tensor([1.0, 2.0]).send(bob), torch.tensor([3.0, 4.0]).send(alice))
    optimizer = torch.optim.SGD([w], lr=0.5)
    (w - target).pow(2).sum().backward()
    optimizer.step()
    assert [v.tolist() for v in w.detach().get()] == [[1.0, 2.0], [3.0, 4.0]]


def test_wrong_company_is_named(bob, alice):
    multi = torch.ones(2).send(bob, alice)
    with pytest.raises(TensorsNotCollocatedError, match="combine_pointers"):
        multi + torch.ones(2).send(bob)
    with pytest.raises(LocalTensorMixedError, match="send"):
        multi + torch.ones(2)
    carol = sy.VirtualWorker(id=f"{bob.id}-carol")
    with pytest.raises(TensorsNotCollocatedError, match=rf"{carol.id}.*same workers"):
        multi + torch.ones(2).send(bob, carol)
    with pytest.raises(RuntimeError, match=r"size|broadcast"):
        multi + torch.ones(3).send(bob, alice)
    carol.close()


def test_operands_may_name_the_workers_in_another_order(bob, alice):
    difference = torch.ones(2).send(bob, alice) - torch.ones(2).send(alice, bob)
    assert difference.get(sum_results=True).tolist() == [0.0, 0.0]


def test_what_cannot_be_combined(bob, alice):
    p = torch.ones(2).send(bob)
    for pointers, words in (
        ((), "takes pointers"),
        ((p, torch.ones(2)), "send"),
        ((p, torch.ones(2).send(bob)), "two from one"),
        ((p, torch.ones(3).send(alice)), "one shape"),
        ((p, torch.ones(2).double().send(alice)), "one shape"),
    ):
        with pytest.raises(PointerMisuseError, match=words):
            sy.combine_pointers(*pointers)


def test_results_of_different_shapes_are_refused(bob, alice):
    multi = sy.combine_pointers(torch.tensor([1.0, 0.0]).send(bob), torch.tensor([1.0, 1.0]).send(alice))
    with pytest.raises(Misuse, match="different shapes"):
        multi.nonzero()
    assert [v.tolist() for v in (multi + 1).nonzero().get()] == [[[0], [1]]] * 2


@pytest.mark.parametrize(
    "act",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x.sum() > 0),
        lambda x: torch.equal(x, x),
        lambda x: x.numpy(),
        lambda x: x.tolist(),
        lambda x: x.data_ptr(),
        lambda x: x.share_memory_(),
        lambda x: x.apply_(abs),
        lambda x: x.send("bob"),
        lambda x: f"{x:.2f}",
        pickle.dumps,
    ],
    ids=["item", "bool", "equal", "numpy", "tolist", "data_ptr", "share_memory", "apply", "send", "format", "pickle"],
)
def test_what_needs_one_value_is_refused(bob, alice, act):
    with pytest.raises(PointerMisuseError, match=r"get\(\)"):
        act(torch.ones(2).send(bob, alice))


def test_unreviewed_operators_are_refused(bob, alice):
    with pytest.raises(OperatorNotReviewedError):
        torch.ops.aten.special_zeta(torch.ones(2).send(bob, alice), 2.0)


def test_copies_labels_and_moves(bob, alice):
    multi = torch.ones(2).send(bob, alice).tag("#shared").describe("ones")
    assert multi.tags == {"#shared"} and len(bob.search("#shared")) == 1 == len(alice.search("#shared"))
    twin = copy.deepcopy(multi)
    twin.zero_()
    assert multi.get_copy(sum_results=True).tolist() == [2.0, 2.0]
    assert multi.copy().add_(1).virtual_get(sum_results=True).tolist() == [4.0, 4.0]
    first, second = multi.move(bob)
    assert first.location is second.location is bob and (first + second).get().tolist() == [2.0, 2.0]


def test_virtual_get_is_for_virtual_workers(alice):
    with Simulator(seed=3) as simulator:
        multi = torch.ones(2).send(simulator.worker("carol"), alice)
        assert (multi + 1).get(sum_results=True).tolist() == [4.0, 4.0]
        with pytest.raises(InvalidTensorForRemoteGet, match="get_copy"):
            multi.virtual_get()


def test_a_logging_layer_over_it(bob, alice):
    told = []
    x = sy.LoggingTensor(log=told.append).on(torch.ones(2).send(bob, alice))
    values = (x * 2).get()
    assert [v.tolist() for v in values] == [[2.0, 2.0]] * 2 and all(isinstance(v, sy.LoggingTensor) for v in values)
    assert len(told) == 1 and (x + 1).get_copy(sum_results=True).tolist() == [4.0, 4.0]


def test_layers_over_several_workers_come_back_one_from_each():
    a, b = (sy.VirtualWorker(id=f"layers {n}") for n in "ab")
    x = torch.tensor([1.5, -2.25])
    found = (x.send(a, b).fix_precision() * 2).get()
    assert [f.float_precision().tolist() for f in found] == [[3.0, -4.5]] * 2
    assert (x.send(a, b).fix_precision() * 2).get(sum_results=True).float_precision().tolist() == [6.0, -9.0]
