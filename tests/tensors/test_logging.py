"""LoggingTensor: tells of every operator and changes nothing."""

import copy
import pickle

import pytest
import torch
from torch import nn

import syftlite as sy
from syftlite.errors import ObjectNotFoundError, PointerMisuseError, TensorsNotCollocatedError


@pytest.fixture
def told():
    return []


def test_each_operator_is_told(told):
    x = sy.LoggingTensor("x", told.append).on(torch.arange(6.0).view(2, 3))
    y = torch.relu(x @ x.t() - 4).sum(dim=1)
    assert isinstance(y, sy.LoggingTensor) and y.shape == (2,) and y.dtype == torch.float32
    assert y.tolist() == [11.0, 56.0]
    assert told == [
        "LoggingTensor x | aten.t.default(float32[2, 3]) -> float32[3, 2]",
        "LoggingTensor x | aten.mm.default(float32[2, 3], float32[3, 2]) -> float32[2, 2]",
        "LoggingTensor x | aten.sub.Tensor(float32[2, 2], 4) -> float32[2, 2]",
        "LoggingTensor x | aten.relu.default(float32[2, 2]) -> float32[2, 2]",
        "LoggingTensor x | aten.sum.dim_IntList(float32[2, 2], [1]) -> float32[2]",
    ]


def test_it_prints_by_default(capsys):
    sy.LoggingTensor().on(torch.ones(2)) + 1
    assert capsys.readouterr().out == "LoggingTensor | aten.add.Tensor(float32[2], 1) -> float32[2]\n"


def test_gradients_flow_through_and_the_backward_is_told(told):
    w = torch.tensor([1.0, 2.0], requires_grad=True)
    (sy.LoggingTensor(log=told.append).on(w) ** 2).sum().backward()
    assert type(w.grad) is torch.Tensor and w.grad.tolist() == [2.0, 4.0]
    assert any("aten.pow" in line for line in told) and len(told) > 3


def test_an_inner_value_keeps_its_history(told):
    w = torch.ones(2, requires_grad=True)
    y = sy.LoggingTensor(log=told.append).on(w) * 3
    inner = y.unwrap()
    assert type(inner) is torch.Tensor
    (inner * 2).sum().backward()
    assert w.grad.tolist() == [6.0, 6.0]


def test_a_layer_that_is_a_leaf(told):
    x = sy.LoggingTensor(log=told.append).on(torch.ones(2)).requires_grad_()
    (x * 5).sum().backward()
    assert isinstance(x.grad, sy.LoggingTensor) and x.grad.tolist() == [5.0, 5.0]


def test_modules_and_optimizers_run_on_it(told):
    model, twin = nn.Linear(3, 2), None
    twin = copy.deepcopy(model)
    data = torch.randn(4, 3)
    for m, x in ((model, sy.LoggingTensor(log=told.append).on(data)), (twin, data)):
        optimizer = torch.optim.SGD(m.parameters(), lr=0.1)
        m(x).pow(2).mean().backward()
        optimizer.step()
    assert torch.allclose(torch.as_tensor(model.weight.tolist()), twin.weight.detach())
    assert any("aten.addmm" in line for line in told)


def test_over_a_pointer_and_back(bob, told):
    x = sy.LoggingTensor(log=told.append).on(torch.tensor([1.0, 2.0]).send(bob))
    assert x.location is bob and isinstance(x.child, sy.PointerTensor) and x.child.parent is x and x.is_wrapper
    assert repr(x).startswith("LoggingTensor>PointerTensor | me:")
    y = (x + 1) * x
    assert repr(y).startswith("LoggingTensor>PointerTensor | me:") and len(told) == 2
    here = y.get()
    assert isinstance(here, sy.LoggingTensor) and here.location is None and here.tolist() == [2.0, 6.0]
    assert repr(here) == "LoggingTensor>tensor([2., 6.])"
    with pytest.raises(ObjectNotFoundError, match="consumed"):
        y.get()


def test_send_get_and_move_go_through_the_layer(bob, alice, told):
    w = torch.ones(2, requires_grad=True)
    x = sy.LoggingTensor(log=told.append).on(w)
    there = (x * 2).send(bob)
    assert there.location is bob and there.move(alice).location is alice
    there = (x * 2).send(bob)
    assert there.get_copy().tolist() == [2.0, 2.0]
    (there * 3).get().sum().backward()
    assert w.grad.tolist() == [6.0, 6.0]


def test_labels_are_the_childs(bob, told):
    x = sy.LoggingTensor(log=told.append).on(torch.ones(2).tag("#a"))
    x.tag("#b").describe("two ones")
    there = x.send(bob)
    assert there.tags == {"#a", "#b"} and there.description == "two ones" and len(bob.search("#a", "#b")) == 1
    there.tag("#c")
    assert len(bob.search("#c")) == 1
    pointer = torch.ones(1).send(bob)
    layer = sy.LoggingTensor(log=told.append).on(pointer)
    assert layer.child is pointer and pointer.parent is layer
    del layer
    assert pointer.parent is None


def test_in_place_operators_change_the_layer_itself(told):
    data = torch.zeros(2, 3)
    x = sy.LoggingTensor(log=told.append).on(data)
    assert x.add_(1) is x and data.sum() == 6
    x.t_()
    assert x.shape == (3, 2) == tuple(x.child.shape)
    a, b = x.split([1, 2])
    assert isinstance(a, sy.LoggingTensor) and b.shape == (2, 2)


def test_values_and_mixed_operands(bob, alice, told):
    x = sy.LoggingTensor(log=told.append).on(torch.tensor([2.0]))
    assert x.item() == 2.0 and bool(x > 1) and float(x) == 2.0 and f"{x:.1f}" == "2.0"
    assert (torch.ones(1) + x).tolist() == [3.0]
    with pytest.raises(TensorsNotCollocatedError):
        sy.LoggingTensor(log=told.append).on(torch.ones(1).send(bob)) + torch.ones(1).send(alice)


def test_copies(told):
    x = sy.LoggingTensor("x", told.append).on(torch.ones(2)).requires_grad_()
    twin = copy.deepcopy(x)
    assert isinstance(twin, sy.LoggingTensor) and twin.requires_grad and twin._name == "x"
    with torch.no_grad():
        twin.zero_()
    assert x.tolist() == [1.0, 1.0]
    module = nn.Linear(2, 2)
    module.weight = nn.Parameter(sy.LoggingTensor(log=told.append).on(module.weight.detach()))
    assert isinstance(module.weight, sy.LoggingTensor) and isinstance(copy.deepcopy(module).weight, nn.Parameter)


@pytest.mark.parametrize(
    "act",
    [lambda x: x.share_memory_(), lambda x: x.data_ptr(), lambda x: x.apply_(abs), pickle.dumps, lambda x: x.requires_grad_().numpy()],
    ids=["share_memory", "data_ptr", "apply", "pickle", "numpy"],
)
def test_what_needs_a_plain_tensor_is_refused(act, told):
    with pytest.raises(PointerMisuseError, match=r"\.child|detach"):
        act(sy.LoggingTensor(log=told.append).on(torch.ones(2)))


def test_wrapping_leaves_a_plain_tensor_as_it_was(told):
    x = torch.ones(2)
    layer = sy.LoggingTensor(log=told.append).on(x)
    for plain in (x, layer.child):
        assert pickle.dumps(plain) and plain.__dict__ == {}
