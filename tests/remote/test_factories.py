"""`with worker:` makes tensors there, also inside torch's own code."""

import copy

import pytest
import torch
from torch import nn

import syftlite as sy


def test_factories_land_on_the_worker(bob):
    with bob:
        made = [torch.zeros(2), torch.ones(2, 3), torch.full((2,), 7), torch.arange(3), torch.eye(2), torch.rand(2), torch.randn(2), torch.empty(3)]
        made += [torch.linspace(0, 1, 5), torch.randint(0, 9, (4,)), torch.randperm(4), torch.arange(0.5, 3.0, 0.5)]
    expected = [torch.zeros(2), torch.ones(2, 3), torch.full((2,), 7), torch.arange(3), torch.eye(2)]
    assert all(isinstance(t, sy.PointerTensor) and t.location is bob for t in made)
    assert all(torch.equal(t.get_copy(), e) and t.dtype == e.dtype for t, e in zip(made, expected, strict=False))
    assert torch.equal(made[7].get(), torch.zeros(3)), "uninitialised memory is never shown"
    assert torch.equal(made[-1].get(), torch.arange(0.5, 3.0, 0.5))
    assert not isinstance(torch.zeros(1), sy.PointerTensor)


def test_blocks_nest(bob, alice):
    with bob:
        with alice:
            inner = torch.zeros(1)
        outer = torch.zeros(1)
    assert (inner.location, outer.location) == (alice, bob)


def test_the_default_dtype_is_the_callers(bob):
    torch.set_default_dtype(torch.float64)
    try:
        with bob:
            x = torch.zeros(2)
        assert x.dtype == torch.float64 and x.get().dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("cell", [nn.RNNCell, nn.GRUCell])
def test_cells_that_make_their_own_zeros(bob, cell):
    here, x = cell(3, 4), torch.randn(2, 3)
    there = copy.deepcopy(here).send(bob)
    with bob:
        out = there(x.send(bob))
    assert torch.allclose(out.get(), here(x), atol=1e-6)
