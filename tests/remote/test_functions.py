"""`worker.remote.torch`: torch's functions, run for a worker."""

import pytest
import torch
from torch import nn

import syftlite as sy


def test_factories_land_there_and_send_no_values(bob, monkeypatch):
    monkeypatch.setattr(bob, "put", None)
    t = bob.remote.torch
    zeros, steps, noise = t.zeros(2, 3), t.arange(0, 1, 0.25), t.randn(4)
    assert {x.location for x in (zeros, steps, noise)} == {bob}
    assert torch.equal(zeros.get(), torch.zeros(2, 3)) and torch.equal(steps.get(), torch.arange(0, 1, 0.25)) and noise.shape == (4,)
    assert t.ones(2, dtype=t.float64, requires_grad=True).is_leaf


def test_values_that_are_written_are_sent(bob):
    p = bob.remote.torch.tensor([1.0, -2.0])
    assert p.location is bob and torch.equal(p.get_copy(), torch.tensor([1.0, -2.0]))
    assert torch.equal(bob.remote.torch.nn.functional.relu(p).get(), torch.tensor([1.0, 0.0]))


def test_lists_and_named_results_land_too(bob):
    first, second = bob.remote.torch.split(torch.arange(4), 2)
    assert (first.location, second.location) == (bob, bob)
    top = bob.remote.torch.max(torch.eye(2), 0)
    assert top.values.location is bob and torch.equal(top.indices.get(), torch.tensor([0, 1]))


def test_what_is_elsewhere_already_stays_there(bob, alice):
    p = torch.ones(2).send(alice)
    assert bob.remote.torch.exp(p).location is alice


def test_layers_begin_there(bob):
    layer = bob.remote.torch.nn.BatchNorm1d(3)
    assert layer.location is bob and all(b.location is bob for b in layer.buffers())
    assert isinstance(layer, nn.BatchNorm1d)


def test_what_is_no_function_is_torchs_own(bob):
    t = bob.remote.torch
    assert t.float32 is torch.float32 and t.Size is torch.Size and isinstance(torch.ones(1), t.Tensor) and "zeros" in dir(t)
    assert repr(t) == f"<torch at {bob.id}>" and t.zeros.__doc__ == torch.zeros.__doc__


def test_other_names_are_told(bob):
    with pytest.raises(AttributeError, match=r"has torch.*sy\.send"):
        bob.remote.numpy
    with pytest.raises(AttributeError, match="zerus"):
        bob.remote.torch.zerus


def test_a_failure_ends_the_landing(bob):
    with pytest.raises(TypeError):
        bob.remote.torch.zeros("two")
    assert not isinstance(torch.zeros(1), sy.PointerTensor)
