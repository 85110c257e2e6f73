"""Optimizers that divide by what they keep, on parameters in fixed precision that everybody may know: steps are those of floats."""

import itertools

import pytest
import torch
from _sharing import Parties, assert_close
from torch import nn
from torch.nn import functional as F

MAKERS = {
    "adam": lambda p: torch.optim.Adam(p, lr=0.02), "amsgrad": lambda p: torch.optim.Adam(p, lr=0.02, amsgrad=True, weight_decay=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.02, betas=(0.8, 0.95)), "foreach": lambda p: torch.optim.Adam(p, lr=0.02, foreach=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5), "nadam": lambda p: torch.optim.NAdam(p, lr=0.01), "radam": lambda p: torch.optim.RAdam(p, lr=0.02),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.05), "adadelta": lambda p: torch.optim.Adadelta(p, lr=0.5), "adamax": lambda p: torch.optim.Adamax(p, lr=0.02),
}  # fmt: skip


@pytest.fixture(scope="module")
def parties():
    parties = Parties("open steps")
    yield parties
    parties.close()


def problem():
    torch.manual_seed(5)
    x = torch.randn(16, 4)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)), x, (x @ torch.randn(4, 2)).tanh()


def step(net, optimizer, x, y):
    optimizer.zero_grad()
    loss = F.mse_loss(net(x), y)
    loss.backward()
    optimizer.step()
    return loss


def trained(make, fix, steps, prepare=lambda net: net):
    net, x, y = problem()
    net = prepare(net)
    optimizer, x, y = make(net.parameters()), fix(x), fix(y)
    return net, optimizer, [step(net, optimizer, x, y) for _ in range(steps)]


@pytest.mark.parametrize("child", ["plain", "pointer"])
@pytest.mark.parametrize("name", MAKERS)
def test_steps_are_those_of_floats(parties, name, child):
    def fixed(net):
        return (net if child == "plain" else net.send(parties.alice)).fix_precision()

    net, optimizer, losses = trained(MAKERS[name], parties.fix(child), 10, fixed)
    plain, _, wanted = trained(MAKERS[name], torch.clone, 10)
    assert_close(losses, wanted, 100, 1 << 16)
    assert_close(list(net.parameters()), list(plain.parameters()), 100, 1 << 16)
    assert list(optimizer.state) == list(net.parameters())
    for group, parameter in zip(optimizer.param_groups[0]["params"], net.parameters(), strict=True):
        assert group is parameter


def test_what_was_open_goes_on_once_gradients_are_secret(parties):
    net, x, y = problem()
    net.fix_precision()
    optimizer = MAKERS["adam"](net.parameters())
    for fix in (parties.fix("plain"), parties.fix("two")):
        for _ in range(3):
            step(net, optimizer, fix(x), fix(y))
    assert all(parameter.is_secret for parameter in net.parameters())
    assert_close(list(net.parameters()), list(trained(MAKERS["adam"], torch.clone, 6)[0].parameters()), 100, 1 << 16)


def test_a_step_that_fails_leaves_the_parameters(parties):
    net, x, y = problem()
    net.fix_precision()
    optimizer = MAKERS["adam"](net.parameters())
    optimizer.param_groups[0]["betas"] = None
    with pytest.raises(TypeError):
        step(net, optimizer, parties.fix("plain")(x), parties.fix("plain")(y))
    optimizer.param_groups[0]["betas"] = (0.9, 0.999)
    for _ in range(2):
        step(net, optimizer, parties.fix("plain")(x), parties.fix("plain")(y))
    for mine, theirs in itertools.zip_longest(optimizer.param_groups[0]["params"], net.parameters()):
        assert mine is theirs
    undisturbed = trained(MAKERS["adam"], parties.fix("plain"), 2, lambda net: net.fix_precision())[0]
    for mine, theirs in zip(net.parameters(), undisturbed.parameters(), strict=True):
        assert torch.equal(mine.child, theirs.child)
