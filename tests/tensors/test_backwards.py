"""What a program does on the way back, in hooks and in checkpoints, is what it does elsewhere."""

from __future__ import annotations

import pytest
import torch
from _sharing import Parties, assert_close
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

X = torch.tensor([[0.5, -1.25, 2.0], [-0.75, 1.5, 0.25]])


@pytest.fixture(scope="module")
def parties():
    parties = Parties("backwards")
    yield parties
    parties.close()


PROGRAMS = {
    "relu": lambda x: x.relu() * x, "exp": lambda x: x.exp() * x, "softmax": lambda x: x.softmax(1) * x, "abs": lambda x: (x * x).abs() * x,
    "max": lambda x: x.max(1)[0] * x.sum(1), "pool": lambda x: F.max_pool1d(x[None], 2)[0] * x[:, :1], "linear": lambda x: F.linear(x, x).relu(),
    "several": lambda x: (x.sigmoid() * x, x.tanh() * x)[1] + (x > 0) * x,
}  # fmt: skip


def by_backward(output, x):
    output.sum().backward()
    return x.grad


def by_list(output, x):
    torch.autograd.backward([output, output.sum()], [torch.ones_like(output), None])
    return x.grad


def by_grad(output, x):
    return torch.autograd.grad(output.sum(), x)[0]


@pytest.mark.parametrize("child", ["plain", "two", "replicated"])
@pytest.mark.parametrize("way", [by_backward, by_list, by_grad])
@pytest.mark.parametrize("reentrant", [False, None])
def test_what_is_computed_again_is_the_same(parties, reentrant, way, child):
    for program in PROGRAMS.values():
        found = []
        for make in (parties.fix(child), torch.clone):
            x = make(X).requires_grad_()
            found.append(way(program(x) if reentrant is None else checkpoint(program, x, use_reentrant=reentrant), x))
        assert_close(*found, 300, 1 << 16)


@pytest.mark.parametrize("child", ["plain", "two"])
def test_a_checkpointed_network(parties, child):
    torch.manual_seed(3)
    nets = [nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 6), nn.GELU(), nn.Linear(6, 2)) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    nets[0].fix_precision()
    if child == "two":
        nets[0].share(parties.alice, parties.bob, crypto_provider=parties.dealer, requires_grad=True)
    for net, make in zip(nets, (parties.fix(child), torch.clone), strict=True):
        checkpoint_sequential(net, 2, make(X).requires_grad_(), use_reentrant=False).pow(2).sum().backward()
    for mine, theirs in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert_close(mine.grad, theirs.grad, 60, 1 << 16)


@pytest.mark.parametrize("way", [by_backward, by_list, by_grad])
def test_hooks_call_what_they_like(parties, way):
    found = []
    for make in (parties.fix("two"), torch.clone):
        x = make(X).requires_grad_()
        x.register_hook(lambda gradient: F.hardtanh(gradient, -1, 2) + F.leaky_relu(gradient))
        found.append(way(x * x * 2, x))
    assert_close(*found, 60, 1 << 16)


def test_passes_are_torchs(parties):
    fix = parties.fix("two")
    for make in (fix, torch.clone):
        x, y = make(X).requires_grad_(), make(X).requires_grad_()
        with pytest.raises(RuntimeError, match="scalar outputs"):
            (x * x).backward()
        with pytest.raises(RuntimeError, match="scalar outputs"):
            torch.autograd.grad(x * x, x)
        with pytest.raises(RuntimeError, match="does not require grad"):
            make(X).sum().backward()
        with pytest.raises(RuntimeError, match="[Mm]ismatch in shape|has a shape"):
            (x * x).backward(X[:1])
        assert torch.autograd.grad((x * 2).sum(), [x, y], allow_unused=True)[1] is None
        with pytest.raises(RuntimeError, match="not have been used"):
            torch.autograd.grad((x * 2).sum(), y)
        loss = (x * x * y).sum()
        loss.backward(inputs=[x], retain_graph=True)
        assert y.grad is None
        loss.backward()
        with pytest.raises(RuntimeError, match="second time"):
            loss.backward()
        assert_close(x.grad, 4 * X * X, 60, 1 << 16)
        assert_close(y.grad, X * X, 60, 1 << 16)
        (zero,) = torch.autograd.grad((x * 2).sum(), [y], materialize_grads=True)
        assert_close(zero, torch.zeros_like(X), 0, 1 << 16)


@pytest.mark.parametrize("child", ["two", "replicated"])
def test_what_is_shared_afresh_has_its_gradient(parties, child):
    x, fresh = parties.fix(child)(X).requires_grad_(), parties.fix(child)(X).refresh()
    loss = ((x * x).sum().refresh() / 2).refresh()
    loss.backward()
    assert_close(loss, X.square().sum() / 2, 20, 1 << 16)
    assert_close(x.grad, X, 20, 1 << 16)
    assert not fresh.requires_grad and fresh.is_leaf
    (gradient,) = torch.autograd.grad((x.refresh() ** 3).sum(), x, create_graph=True)
    assert_close(torch.autograd.grad(gradient.sum(), x)[0], 6 * X, 60, 1 << 16)


def by_inputs(output, x):
    torch.autograd.backward([output.sum()], inputs=x)
    return x.grad


def by_method(output, x):
    output.sum().backward(inputs=[x])
    return x.grad


def by_batches(output, x):
    rows = torch.arange(2.0 * output.numel()).reshape(2, *output.shape) / 4
    return torch.autograd.grad(output, x, rows, is_grads_batched=True)[0]


def materialized(output, x):
    unused = (x * 2).detach().requires_grad_()
    got, none = torch.autograd.grad(output.sum(), [x, unused], materialize_grads=True)
    return got + none


@pytest.mark.parametrize("child", ["plain", "two", "replicated"])
@pytest.mark.parametrize("way", [by_inputs, by_method, by_batches, materialized])
def test_other_passes_compute_again_alike(parties, way, child):
    for program in PROGRAMS.values():
        found = []
        for make in (parties.fix(child), torch.clone):
            x = make(X).requires_grad_()
            found.append(way(checkpoint(program, x, use_reentrant=False), x))
        assert_close(*found, 600, 1 << 16)


def test_inputs_that_are_no_leaves(parties):
    found = []
    for make in (parties.fix("two"), torch.clone):
        x, other = make(X).requires_grad_(), make(X).requires_grad_()
        y = x * 2
        loss = (y.relu() * y * other).sum()
        loss.backward(inputs=[y, x], retain_graph=True)
        assert other.grad is None
        loss.backward(inputs=y, retain_graph=True)
        gradients, nothing = torch.autograd.grad(x * 3, [x, other], X[None], is_grads_batched=True, allow_unused=True)
        assert nothing is None
        found.append([x.grad, y.grad, gradients])
        with pytest.raises(RuntimeError, match="cannot be empty"):
            (x * 2).sum().backward(inputs=[])
        with pytest.raises(RuntimeError, match="requires_grad=False"):
            (x * 2).sum().backward(inputs=[make(X)])
    assert_close(*found, 60, 1 << 16)


GIVEN = {
    **PROGRAMS, "sorted": lambda x: x.sort(1)[0], "norm": lambda x: F.layer_norm(x, (3,)), "places": lambda x: x[:, [2, 0]], "conv": lambda x: F.conv1d(x[None], x[None, :, :2])[0],
}  # fmt: skip


@pytest.mark.parametrize("child", ["plain", "pointer", "two", "replicated"])
@pytest.mark.parametrize("name", GIVEN)
def test_a_public_gradient_to_begin_with(parties, name, child):
    mine, theirs = parties.fix(child)(X).requires_grad_(), X.clone().requires_grad_()
    if child == "pointer" and name == "places":
        pytest.skip("what is here does not meet a pointer")
    outputs = [GIVEN[name](x) for x in (mine, theirs)]
    given = torch.linspace(-1, 2, outputs[1].numel()).reshape(outputs[1].shape)
    for output in outputs:
        output.backward(given, retain_graph=True)
    first = torch.autograd.grad(outputs[0], mine, [given])[0]
    for got in (mine.grad, first):
        assert_close(got, theirs.grad, 300, 1 << 16)
