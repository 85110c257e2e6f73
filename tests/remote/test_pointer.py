"""Pointers: what they say of themselves, what they refuse, and the traps of tensors without data."""

import copy
import gc
import io
import pickle
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import syftlite as sy
from syftlite._torch import aten
from syftlite.errors import (
    GetNotPermittedError,
    InvalidTensorForRemoteGet,
    LocalTensorMixedError,
    Misuse,
    NotOwnerError,
    ObjectNotFoundError,
    OperatorNotReviewedError,
    PointerMisuseError,
    TensorsNotCollocatedError,
    WorkerNotFoundError,
)
from syftlite.ops.table import BY_FUNC
from syftlite.remote import pieces
from syftlite.remote.handle import site
from syftlite.wire.messages import GET, OP


def test_it_is_a_tensor_with_a_true_shape(bob):
    x = torch.arange(6, dtype=torch.float64).reshape(2, 3).send(bob)
    assert isinstance(x, torch.Tensor) and isinstance(x, sy.PointerTensor)
    assert (x.shape, x.dtype, x.size(1), x.numel(), len(x), x.dim()) == ((2, 3), torch.float64, 3, 6, 2, 2)
    assert x.location is bob and bob == x.location and x.owner is sy.local_worker
    assert x.id_at_location in bob._objects
    y = x.t().sum(0)
    assert y.shape == (2,) and torch.equal(y.get(), torch.tensor([3.0, 12.0], dtype=torch.float64))


def test_its_repr_says_where_and_what_without_a_message(bob):
    x = torch.ones(2, 3).send(bob)
    before = bob.engine.sessions[bob.transport.prefix].executed
    for text in (repr(x), str(x), f"{x}"):
        assert f"-> {bob.id}:{x.id_at_location}" in text and "[2, 3]" in text and "float32" in text
    hasattr(x, "whatever"), dir(x), x.is_wrapper, x.child, x.parent, x.tags, x.description
    assert bob.engine.sessions[bob.transport.prefix].executed == before
    assert repr(bob).startswith(f"<VirtualWorker id:{bob.id} #objects:")


def test_get_moves_and_copies_stay(bob):
    x = torch.ones(3).send(bob)
    assert torch.equal(x.get_copy(), torch.ones(3)) and torch.equal(x.copy().get(), torch.ones(3))
    assert torch.equal(x.get(), torch.ones(3))
    assert bob._objects == {}
    for use in (x.get, lambda: x + 1, lambda: x + x, lambda: x.detach(), lambda: x[0]):
        with pytest.raises(ObjectNotFoundError, match="get_copy"):
            use()
    assert "consumed" in repr(x)


def test_what_nobody_points_at_goes(bob):
    x = torch.ones(3).send(bob)
    alias = x.detach()
    y = (x * 2 + 1).relu()
    del y
    assert len(bob._objects) == 1
    del x
    assert len(bob._objects) == 1, "an alias made by detach shares the object"
    del alias
    gc.collect()
    assert bob._objects == {}


def test_what_arrives_is_a_copy(bob):
    local = torch.zeros(3)
    x = local.send(bob)
    local += 1
    out = x.get_copy()
    assert torch.equal(out, torch.zeros(3))
    out += 5
    assert torch.equal(x.get(), torch.zeros(3))


def test_a_local_vector_is_not_mixed_in(bob):
    x = torch.ones(3).send(bob)
    for mix in (lambda: x + torch.ones(3), lambda: torch.ones(3) + x, lambda: torch.cat([x, torch.ones(3)]), lambda: torch.ones(3).add_(x)):
        with pytest.raises(LocalTensorMixedError, match=r"send\(\) it there first|get\(\) them first"):
            mix()
    assert torch.equal((x + torch.tensor(2.0)).get_copy(), torch.full((3,), 3.0)), "a 0-dim local is a number"
    assert (x * torch.tensor(2, dtype=torch.float64)).dtype == torch.float32
    assert torch.equal(x.get(), torch.ones(3)), "nothing was lost"


def test_the_worker_is_named_whichever_operand_is_first(bob):
    local, x = torch.ones(3), torch.ones(3).send(bob)
    for mix in (lambda: local + x, lambda: x + local, lambda: torch.cat([local, x]), lambda: torch.where(local > 0, x, x)):
        with pytest.raises(LocalTensorMixedError, match=rf"met one at {bob.id}: send"):
            mix()


def test_two_locations_in_one_operation(bob, alice):
    x, y = torch.ones(3).send(bob), torch.ones(3).send(alice)
    for mix in (lambda: x + y, lambda: torch.stack([x, y]), lambda: x.add_(y)):
        with pytest.raises(TensorsNotCollocatedError, match=rf"{bob.id}.*{alice.id}.*move\(\)"):
            mix()
    assert torch.equal((x + y.move(bob)).get(), torch.full((3,), 2.0))


def test_shapes_are_checked_where_they_are_written(bob):
    with pytest.raises(RuntimeError, match="broadcast|size"):
        torch.ones(3).send(bob) + torch.ones(4).send(bob)
    with pytest.raises(RuntimeError, match="reduction dim|shape"):
        torch.ones(2, 3).send(bob) @ torch.ones(2, 3).send(bob)
    with pytest.raises(IndexError, match="out of bounds"):
        torch.ones(2).send(bob)[2]
    with pytest.raises(IndexError, match="Dimension out of range"):
        torch.ones(2).send(bob).select(3, 0)


def test_value_errors_come_late_as_themselves_with_operator_and_line(bob):
    table, index = torch.randn(3, 2).send(bob), torch.tensor([7]).send(bob)
    bad = nn.functional.embedding(index, table)  # this line
    worse = bad.sum() * 2
    for pointer in (bad, worse):
        with pytest.raises(IndexError, match=r"aten\.embedding\.default on bob.*test_pointer\.py:\d+, in test_value_errors"):
            pointer.get_copy()
    with pytest.raises(IndexError) as caught:
        worse.get()
    line = int(str(caught.value).rsplit("test_pointer.py:", 1)[1].split(",")[0])
    assert "# this line" in Path(__file__).read_text().splitlines()[line - 1]
    assert torch.equal(table[0].get(), table.get()[0]), "all other objects live on"


def test_a_poisoned_write_poisons_its_target(bob):
    x = torch.zeros(3).send(bob)
    view = x[:2]
    x.index_put_((torch.tensor([9]).send(bob),), torch.ones(1).send(bob))
    for pointer in (x, view):
        with pytest.raises(IndexError):
            pointer.get_copy()


def test_an_unreviewed_operator_is_refused_at_the_call(bob):
    x = torch.eye(2).send(bob)
    with pytest.raises(OperatorNotReviewedError, match=r"aten\.\S+ is not among the \d+ reviewed"):
        torch.linalg.matrix_exp(x)
    with pytest.raises(OperatorNotReviewedError):
        x.as_strided((4, 4), (1, 1))


@pytest.mark.parametrize(
    "use",
    [
        lambda x: x.numpy(),
        lambda x: np.asarray(x),
        lambda x: x.tolist(),
        lambda x: f"{x:.2f}",
        lambda x: pickle.dumps(x),
        lambda x: torch.save(x, io.BytesIO()),
        lambda x: x.share_memory_(),
        lambda x: x.data_ptr(),
        lambda x: setattr(x, "data", torch.ones(2)),
    ],
)
def test_what_needs_a_value_names_get(bob, use):
    x = torch.ones(2).send(bob)
    with pytest.raises(PointerMisuseError, match=r"get\(\)|copy_"):
        use(x)
    assert torch.equal(x.get(), torch.ones(2))


def test_a_worker_is_its_own_copy_and_stays_in_its_process(bob):
    holder = {"bob": [bob]}
    assert copy.copy(bob) is bob and copy.deepcopy(holder)["bob"][0] is bob
    with pytest.raises(PointerMisuseError, match="connect to it, in the other"):
        pickle.dumps(holder)


def test_reading_one_number(bob):
    x = torch.tensor([3.5]).send(bob)
    assert x.item() == 3.5 and float(x) == 3.5 and int(x) == 3 and bool(x > 3) and not bool(x > 4)
    assert torch.equal(x, x.clone()) and not torch.equal(x, x + 1)
    assert [row.item() for row in torch.arange(3).send(bob)] == [0, 1, 2]


def test_results_whose_shape_depends_on_values(bob):
    x = torch.tensor([0.0, 3.0, 0.0, 5.0]).send(bob)
    assert x.nonzero().shape == (2, 1)
    assert torch.equal(x[x > 0].get(), torch.tensor([3.0, 5.0]))
    assert torch.equal(torch.masked_select(x, x > 4).get(), torch.tensor([5.0]))
    assert torch.equal(x[torch.tensor([1, 3]).send(bob)].get(), torch.tensor([3.0, 5.0]))


def test_indexing_and_views_alias_as_in_torch(bob):
    x = torch.zeros(3, 4).send(bob)
    x[1] = 5
    x[:, 2:] += 1
    x[0, 0] = -1.0
    row = x[1]
    row.mul_(2)
    local = torch.zeros(3, 4)
    local[1] = 5
    local[:, 2:] += 1
    local[0, 0] = -1.0
    local[1].mul_(2)
    assert torch.equal(x.get(), local)


@pytest.mark.filterwarnings("ignore:ComplexHalf")
def test_a_dtype_that_does_not_travel_is_refused_and_the_rest_lives_on(bob):
    x, pairs = torch.ones(2, dtype=torch.float16).send(bob), torch.ones(3, 2, dtype=torch.float16).send(bob)
    for make in (lambda: x * 1j, lambda: torch.complex(x, x), lambda: torch.view_as_complex(pairs)):
        with pytest.raises(Misuse, match="complex32 does not travel"):
            make()
    number = bob.next_id()  # as a client that does not look may ask for it
    bob.cast((OP, BY_FUNC[aten.view_as_complex.default].number, (pairs.id_at_location,), None, number), site())
    with pytest.raises(Misuse, match="complex32 does not travel"):
        bob.ask(GET, [number], False, None)
    assert torch.equal(x.get(), torch.ones(2, dtype=torch.float16))


LISTS = [
    [0, 2], [-1], [], [True, False, True, False], ([0, 1], [2, 2]), (slice(None), [1, 1]), (None, [1]), (..., [0]), ([0, 3], slice(1, 3)),
    (1, [2]), ([True, False, True, False], [0, 1]),
]  # fmt: skip


@pytest.mark.parametrize("index", LISTS, ids=str)
def test_numbers_in_a_list_are_an_index(bob, alice, index):
    local = torch.arange(24.0).reshape(4, 6)
    x, chain, multi = local.send(bob), local.send(bob).send(alice), local.send(alice, bob)
    assert torch.equal(x[index].get_copy(), local[index]) and x[index].shape == local[index].shape
    assert torch.equal(chain[index].get().get(), local[index])
    assert all(torch.equal(part, local[index]) for part in multi[index].get())
    x[index] = -1
    local[index] = -1
    assert torch.equal(x.get(), local)


def test_new_tensors_are_beside_it(bob, alice):
    x = torch.arange(3.0).send(bob)
    for values, options in (([1, 2], {}), (3, {"dtype": torch.bool}), ([[0.5]], {"requires_grad": True})):
        here, there = torch.arange(3.0).new_tensor(values, **options), x.new_tensor(values, **options)
        assert there.location is bob and there.requires_grad == here.requires_grad and there.dtype == here.dtype
        assert torch.equal(there.get_copy(), here)
    y = x.new_tensor(x)
    assert y.location is bob and torch.equal(y.add_(1).get(), x.get_copy() + 1)
    both = torch.ones(2).send(bob, alice)
    assert torch.equal((both + both.new_tensor([1, 2])).get(sum_results=True), torch.tensor([4.0, 6.0]))
    doubled = sy.func2plan(args_shape=[(2,)])(lambda v: v * v.new_tensor([2.0, 3.0]))
    assert torch.equal(doubled(torch.ones(2).send(bob)).get(), torch.tensor([2.0, 3.0]))


def test_lists_index_in_plans_and_derivatives(bob):
    local = torch.randn(4, 3)
    plan = sy.func2plan()(lambda v: v[[2, 0]] * 2)
    assert all(torch.equal(plan(x).get(), local[[2, 0]] * 2) for x in (local.send(bob), local.send(bob)))
    w = local.send(bob).requires_grad_()
    w[[0, 0, 2]].sum().backward()
    assert torch.equal(w.grad.get(), torch.tensor([2.0, 0.0, 1.0, 0.0])[:, None].expand(4, 3))


@pytest.mark.parametrize("name, args", [("t_", ()), ("unsqueeze_", (0,)), ("squeeze_", ()), ("transpose_", (0, 1))])
def test_in_place_views_change_this_pointer_only(bob, name, args):
    local = torch.arange(3.0).reshape(3, 1)
    x = local.send(bob)
    other = x.detach()
    getattr(x, name)(*args)
    expected = getattr(local.clone(), name)(*args)
    assert x.shape == expected.shape and x.stride() == expected.stride()
    x.add_(1)
    assert torch.equal(x.get_copy(), expected + 1)
    assert other.shape == (3, 1) and torch.equal(other.get_copy(), local + 1)


def test_detach_keeps_the_class_and_parameters_work(bob):
    x = torch.ones(3).send(bob)
    assert type(x.detach()) is sy.PointerTensor
    parameter = nn.Parameter(x)
    assert isinstance(parameter, nn.Parameter) and isinstance(parameter, sy.PointerTensor) and parameter.is_leaf


def test_deepcopy_copies_the_value(bob):
    x = torch.ones(2).send(bob)
    twin = copy.deepcopy({"a": x, "b": x})
    assert twin["a"] is twin["b"]
    twin["a"].add_(1)
    assert torch.equal(x.get(), torch.ones(2)) and torch.equal(twin["b"].get(), torch.full((2,), 2.0))
    model = nn.Linear(2, 2).send(bob)
    again = copy.deepcopy(model)
    with torch.no_grad():
        again.weight.zero_()
    assert model.get().weight.abs().sum() > 0


def test_foreach_operators_write_to_all(bob):
    xs = [torch.ones(2).send(bob), torch.ones(3).send(bob)]
    torch._foreach_add_(xs, 2.0)
    assert torch.equal(xs[1].get(), torch.full((3,), 3.0))


def test_foreach_operators_take_lists_of_any_length(bob, monkeypatch):
    x = torch.ones(1600, 1).send(bob)
    rows = x.unbind(0)
    torch._foreach_addcmul_(rows, rows, rows)  # three lists: in one message they end a session
    assert torch.equal(x.get_copy(), torch.full((1600, 1), 2.0))
    monkeypatch.setattr(pieces, "AT_ONCE", 2)
    made = torch._foreach_mul(rows[:5], [0.0, 1.0, 2.0, 3.0, 4.0])
    assert torch.cat(made).get().tolist() == [0, 2, 4, 6, 8]


def test_numbers_meet_pointers_with_their_type(bob):
    x = torch.arange(4).send(bob)
    local = torch.arange(4)
    for f in (
        lambda t: t + 1,
        lambda t: 1 + t,
        lambda t: t * 2.5,
        lambda t: t + True,
        lambda t: 7 - t,
        lambda t: t / 2,
        lambda t: t // 2,
        lambda t: t**2,
        lambda t: 2**t,
        lambda t: t % 3,
        lambda t: -t,
        lambda t: (t > 1) & (t < 3),
        lambda t: ~(t > 1),
        lambda t: t == 2,
    ):
        remote, here = f(x).get(), f(local)
        assert remote.dtype == here.dtype and torch.equal(remote, here)


def test_local_get_is_named(bob):
    with pytest.raises(InvalidTensorForRemoteGet, match=r"send\(\)"):
        torch.ones(2).get()
    with pytest.raises(WorkerNotFoundError, match="known"):
        torch.ones(2).send("nobody")


def test_what_is_sent_without_garbage_collection_stays(bob, alice):
    values = torch.arange(3.0).tag("#kept")
    for pointer in (values.send(bob, garbage_collect_data=False), values.send(bob, alice, garbage_collect_data=False)):
        del pointer
    assert (bob.objects_count(), alice.objects_count()) == (2, 1)
    for found in (*bob.search("#kept"), *alice.search("#kept")):
        assert torch.equal(found.get(), values) and torch.equal(found.get(), values)
    x = torch.ones(2)
    assert x.send(bob, inplace=True, garbage_collect_data=False) is x and x.location is bob and not x.garbage_collection
    assert torch.equal(x.get(), torch.ones(2)) and torch.equal(x.get(), torch.ones(2))
    with pytest.raises(NotOwnerError):
        x.add_(1)
    assert torch.ones(1).send(bob, no_wrap=True, local_autograd=False, preinitialize_grad=False, user=None).location is bob
    for send in (torch.ones(1).send, torch.ones(1).send_):
        with pytest.raises(TypeError, match="'requires_gard'"):
            send(bob, requires_gard=True)


def test_send_and_get_in_place(bob):
    x = torch.ones(3)
    assert x.send_(bob) is x and isinstance(x, sy.PointerTensor)
    assert x.get_() is x and type(x) is torch.Tensor and torch.equal(x, torch.ones(3))


def test_to_a_worker(bob):
    assert torch.ones(3).to(bob).location is bob
    x = torch.ones(3).send(bob)
    assert x.to(bob) is x
    assert x.to(torch.float64).dtype == torch.float64 and x.double().location is bob
    assert torch.equal(x.to("cpu").get_copy(), torch.ones(3)), "to a device: it stays at its worker"


def test_found_pointers_are_borrowed(bob):
    bob.load(torch.arange(3.0), "#x", "#y", description="numbers")
    (x,) = bob.search("#x")
    assert (x.tags, x.description, x.garbage_collection) == ({"#x", "#y"}, "numbers", False)
    assert x.garbage_collect_data is False and torch.ones(1).send(bob).garbage_collect_data is True
    assert torch.equal(x.get(), x.get())
    del x
    (x,) = bob.search("#y", "#x")
    for write in (lambda: x.add_(1), lambda: x.zero_(), lambda: x[0].fill_(1), lambda: x.copy_(x), lambda: x.view(3, 1).mul_(2)):
        with pytest.raises(NotOwnerError, match=r"clone\(\)"):
            write()
    assert torch.equal(x.clone().add_(1).get(), torch.tensor([1.0, 2.0, 3.0]))
    assert bob.search("#x", "#none") == [] and torch.equal(bob.search(x.id_at_location)[0].get(), torch.arange(3.0))


def test_tags_travel_and_can_be_added(bob):
    x = torch.ones(2).tag("#a").describe("ones").send(bob)
    x.tag("#b")
    (found,) = bob.search("#a", "#b")
    assert found.tags == x.tags == {"#a", "#b"} and found.description == x.description == "ones"
    del x
    assert bob.search("#a") == []


def test_tags_go_where_the_value_goes(bob, alice):
    def tagged():
        return torch.ones(2).tag("#a").describe("ones").send(bob)

    def told(tensor):
        return tensor.tags, tensor.description

    label = {"#a"}, "ones"
    assert told(tagged().get()) == told(tagged().get_copy()) == told(tagged().get_()) == label
    for move in (lambda x: x.move(alice), lambda x: x.move_(alice), lambda x: x.remote_send(alice, change_location=True)):
        moved = move(tagged())
        (found,) = alice.search("#a")
        assert told(found) == told(moved) == label and found.id_at_location == moved.id_at_location
        assert bob.search("#a") == []
        assert told(moved.move(bob).get()) == label and alice.search("#a") == []
    bob.load(torch.arange(3.0), "#mine", description="numbers")
    (x,) = bob.search("#mine")
    assert told(x.get()) == told(x.move(alice)) == ({"#mine"}, "numbers")
    x = tagged()
    assert told(x + 1) == told(x.copy()) == (set(), "") and len(bob.search("#a")) == 1, "what is made of it is something else"


def test_another_user_is_asked_for_by_name_only(bob):
    bob.load(torch.ones(2), "#p", private=True)
    (x,) = bob.search("#p")
    assert torch.equal(x.get(), torch.ones(2)), "the caller of a virtual worker owns it"
    with pytest.raises(GetNotPermittedError):
        x.get(user="somebody")
    assert torch.equal(torch.ones(1).send(bob).get(user="somebody"), torch.ones(1))


@pytest.mark.parametrize("alias", [lambda x: x[:], lambda x: x.view(2, 2), lambda x: x.t() if x.dim() > 1 else x[0:3]])
def test_what_is_taken_shares_no_memory_with_what_stays(bob, alias):
    x = torch.ones(4).send(bob)
    stays = alias(x)
    x.get().fill_(7.0)
    assert (stays.get() == 1).all()
    y = torch.ones(4).send(bob)
    y.get_copy().fill_(7.0)
    assert y.get().tolist() == [1.0] * 4
    bob.load(held := torch.ones(2), "#held")
    bob.search("#held")[0].get().fill_(7.0)
    assert held.tolist() == [1.0, 1.0] == bob.search("#held")[0].get().tolist()


WHOLE = {
    "by a number": lambda x: x / 2,
    "by each other": lambda x: x / x.flip(0),
    "times a number": lambda x: x * 2.5 + 0.1,
    "a root": torch.sqrt,
    "a logical one": lambda x: (x > 1) * 0.1,
    "two arguments": lambda x: torch.atan2(x, x + 1),
    "a power": lambda x: x**0.5,
    "asked for": lambda x: torch.softmax(x, 0, dtype=torch.float32) + (x > 1).float(),
    "chosen": lambda x: torch.where(x > 1, 1.5, x),
    "in a list": lambda x: torch.stack(torch._foreach_mul([x, x], 0.1)),
}


def test_whole_numbers_become_real_ones_of_this_processs_default_dtype(bob, three_nodes):
    """A node has a default dtype of its own, and what was learned of shapes and dtypes was learned under another."""
    x = torch.tensor([1, 2, 3])
    node, *_ = three_nodes
    for worker, (way, make), dtype in product((bob, node), WHOLE.items(), (torch.float32, torch.float64, torch.float32)):
        pointer = x.send(worker)
        torch.set_default_dtype(dtype)
        try:
            expected, promised = make(x), make(pointer)
            got = promised.get()
        finally:
            torch.set_default_dtype(torch.float32)
        assert promised.dtype == got.dtype == expected.dtype and torch.equal(got, expected), (way, worker, dtype)


@pytest.mark.parametrize("place", [lambda x, bob, alice: x.send(bob), lambda x, bob, alice: x.send(bob).send(alice), lambda x, bob, alice: x.fix_precision()])
def test_no_graph_notices_what_is_written_to_data(bob, alice, place):
    x = place(torch.ones(3), bob, alice).requires_grad_()
    y = (x * x).sum()
    x.data.mul_(2)
    assert (x.data._version, x._version) == (0, 0)
    y.backward()
    grad = x.grad
    while type(grad) is not torch.Tensor:
        grad = grad.get() if isinstance(grad, sy.PointerTensor) else grad.decode()
    assert torch.equal(grad, torch.full((3,), 4.0))  # as torch has it


def test_gradcheck(bob):
    assert torch.autograd.gradcheck(lambda v: (v * v.sin()).sum(), (torch.randn(3, dtype=torch.float64).send(bob).requires_grad_(),))


def test_a_copy_is_another_pointer_to_the_same(bob, alice):
    for x in (torch.ones(3).send(bob), torch.ones(3).send(bob).send(alice), torch.ones(3).send(bob, alice)):
        twin = copy.copy(x)
        assert twin is not x and type(twin) is type(x) and not twin.requires_grad
        assert copy.copy(x.requires_grad_()).requires_grad
    x = torch.ones(3).send(bob)
    copy.copy(x).add_(1)
    assert torch.equal(x.get(), torch.full((3,), 2.0))
    weight = nn.Linear(2, 1).send(bob).weight
    assert isinstance(copy.copy(weight), nn.Parameter) and copy.copy(weight).requires_grad


@pytest.mark.parametrize("use", [lambda x: x + 1, lambda x: x.amax(0), lambda x: x.split(1), lambda x: x[1], lambda x: torch.ones(3).send(x.location)])
def test_what_ctrl_c_leaves_without_a_pointer_goes(bob, monkeypatch, use):
    x = torch.ones(2).send(bob)
    use(x)
    before, cast = bob.objects_count(), bob.transport.cast

    def interrupted(*told):
        cast(*told)
        raise KeyboardInterrupt

    monkeypatch.setattr(bob.transport, "cast", interrupted)
    monkeypatch.setattr(bob, "cast", interrupted)
    with pytest.raises(KeyboardInterrupt):
        use(x)
    monkeypatch.undo()
    assert bob.objects_count() == before
