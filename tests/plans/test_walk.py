"""A module's parts and tensors: as torch's own iterators find them, also where a class has iterators of its own."""

import pytest
import torch
from torch import nn

import syftlite as sy
from syftlite.plans.walk import parts, tensors_of


class Twice(nn.Module):
    """A part that is there twice, a tied weight, and parameters and buffers that are None."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(2, 2)
        self.again = self.first
        self.norm = nn.BatchNorm1d(2)
        self.tied = nn.Linear(2, 2, bias=False)
        self.tied.weight = self.first.weight
        self.register_parameter("none", None)
        self.register_buffer("nothing", None)
        self.register_buffer("own", torch.ones(2))
        self.gap = None


class Hidden(nn.Module):
    """Layers in a list, told of by its own iterator."""

    def __init__(self):
        super().__init__()
        self.layers = [nn.Linear(2, 2)]

    def parameters(self, recurse=True):
        return (p for layer in self.layers for p in layer.parameters())

    def forward(self, x):
        return self.layers[0](x)


MODULES = {
    "one layer": lambda: nn.Linear(2, 3),
    "parts twice": Twice,
    "deep": lambda: nn.Sequential(nn.Sequential(Twice(), nn.ReLU()), Twice()),
    "lists": lambda: nn.ModuleList([nn.Linear(1, 1), nn.ModuleDict({"a": nn.Linear(1, 2)})]),
    "parametrized": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)),
    "scripted": lambda: torch.jit.script(nn.Sequential(nn.Linear(2, 2))),
    "its own iterator": Hidden,
    "one below": lambda: nn.Sequential(nn.Linear(2, 2), Hidden()),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", MODULES)
def test_it_finds_what_torch_does(name):
    module = MODULES[name]()
    assert list(map(id, parts(module))) == list(map(id, module.modules()))
    assert list(map(id, tensors_of(module))) == list({id(t): t for t in (*module.parameters(), *module.buffers())})


def test_a_plan_has_the_state_that_a_module_tells_of(bob):
    model = Hidden()
    plan = sy.func2plan(state=(model,))(lambda x: model(x))
    assert len(plan.state) == 2
    x = torch.ones(3, 2)
    assert torch.allclose(plan(x.send(bob)).get(), model(x))
