"""The base of all layers: two tables, decomposition, and an error that names layer and operator."""

import pytest
import torch

import syftlite as sy
from syftlite._torch import aten
from syftlite.tensors.wrapper import WrapperTensor


class Doubled(WrapperTensor):
    """Stands for twice its child, and knows two operators."""

    level = 10


@Doubled.implements(aten.add.Tensor)
def _add(cls, func, args, kwargs):
    x, y = args
    return cls.around(x.child + y.child)


@Doubled.implements(aten.detach.default)
def _detach(cls, func, args, kwargs):
    return cls.around(args[0].child)


@Doubled.implements(aten.rsub.Scalar, aten.mul.Tensor)
def _named(cls, func, args, kwargs):
    return str(func)


class Shouting(Doubled):
    """Has its parent's operators, and a function of its own."""

    level = 20


@Shouting.reexpresses(torch.relu, torch.Tensor.relu)
def _relu(x):
    return "RELU"


def test_what_a_layer_knows_it_does():
    x = Doubled.around(torch.ones(2))
    assert (x + x).child.tolist() == [2.0, 2.0] and type(x + x) is Doubled


def test_what_it_does_not_know_is_an_error_with_both_names():
    x = Doubled.around(torch.ones(2, 2))
    with pytest.raises(NotImplementedError, match=r"Doubled does not know aten\.mm\.default.*child"):
        x @ x
    with pytest.raises(NotImplementedError, match=r"Doubled does not know aten\._local_scalar_dense"):
        Doubled.around(torch.ones(1)).item()


def test_what_has_a_decomposition_is_taken_apart():
    x = Doubled.around(torch.ones(2))
    assert aten.rsub.Tensor not in Doubled.ops
    with pytest.raises(NotImplementedError, match=r"aten\.sub\.Tensor"):
        torch.rsub(x, x)  # in terms of sub, which the layer does not know either


def test_tables_are_inherited_but_not_shared():
    x = Shouting.around(torch.ones(2))
    assert type(x + x) is Shouting and torch.relu(x) == "RELU" == x.relu()
    with pytest.raises(NotImplementedError, match="Doubled"):
        torch.relu(Doubled.around(torch.ones(2)))
    assert not Doubled.functions and torch.relu not in WrapperTensor.functions


def test_the_higher_layer_unwraps_first():
    told = []
    low = Doubled.around(torch.ones(2))
    high = sy.LoggingTensor(log=told.append).on(low)
    assert repr(high) == "LoggingTensor>Doubled>tensor([1., 1.])" and low.parent is high
    for total in (high + low, low + high):
        assert isinstance(total, sy.LoggingTensor) and total.child.child.tolist() == [2.0, 2.0]
    assert len(told) == 2 and high.child.parent is high


def test_two_layers_of_one_height_are_refused():
    class Other(WrapperTensor):
        level = 10

    with pytest.raises(TypeError, match=r"[Nn]o implementation found|unsupported operand"):
        Doubled.around(torch.ones(2)) + Other.around(torch.ones(2))
