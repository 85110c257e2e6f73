"""What moves or weighs elements by public places: gradients of views by `backward` and of what puts elements in places, and errors."""

from __future__ import annotations

import pytest
import torch
from _sharing import Parties, assert_close
from torch import nn
from torch.nn import functional as F

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def parties():
    parties = Parties("moves")
    yield parties
    parties.close()


MOVES = {
    "diagonal": lambda x: x.diagonal(), "another diagonal": lambda x: x.unsqueeze(0).diagonal(1, 2, 1), "diag": lambda x: torch.diag(x, -1),
    "of correlations": lambda x: torch.corrcoef(x), "put on the diagonal": lambda x: x.diagonal_scatter(x[:, 0] * 2), "beside it": lambda x: x.diagonal_scatter(x[0, :3] * 2, 1),
    "put in a slice": lambda x: x.slice_scatter(x[:2] * 3, 0, 1), "with steps": lambda x: x.slice_scatter(x[:, :2] * 3, 1, 0, 4, 2), "in a row": lambda x: x.select_scatter(x[0] * 3, 0, 2),
    "pads": lambda x: F.pad(x, (3, 1), mode="replicate"), "vectors": lambda x: torch.addmv(x[:, 0], x, x[0], alpha=0.5), "batches": lambda x: torch.addbmm(x, x[:, None].expand(3, 3, 4), x[:, :, None].expand(3, 4, 4) / 8),
}  # fmt: skip


@pytest.mark.parametrize("child", ["plain", "pointer", "two", "replicated"])
@pytest.mark.parametrize("name", MOVES)
def test_moves(parties, name, child):
    mine, theirs = parties.fix(child)(X).requires_grad_(), X.clone().requires_grad_()
    weights = torch.arange(1.0, 200.0)
    found = []
    for x in (mine, theirs):
        y = MOVES[name](x)
        scale = weights[: y.numel()].view(y.shape)
        (y * (scale if x is theirs or child != "pointer" else parties.fix(child)(scale))).sum().backward()
        found.append(y)
    assert_close(*found, 60, 1 << 16)
    assert_close(mine.grad, theirs.grad, 600, 1 << 16)


@pytest.mark.parametrize("public", ["first", "second"])
def test_a_public_operand(parties, public):
    got, want = (
        torch.diagonal_scatter(make(X) if public == "second" else X, make(X[0, :3]) if public == "first" else X[0, :3]) for make in (parties.fix("two"), torch.clone)
    )
    assert_close(got, want, 1, 1 << 16)


@pytest.mark.parametrize(
    "layers",
    [
        lambda: [nn.ReplicationPad2d(1), nn.Conv2d(2, 3, 3), nn.InstanceNorm2d(3, affine=True), nn.Upsample(scale_factor=2), nn.Conv2d(3, 1, 3)],
        lambda: [nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), nn.Upsample(scale_factor=1.5, mode="bilinear"), nn.Conv2d(3, 1, 3, padding_mode="replicate", padding=1)],
        lambda: [nn.InstanceNorm2d(2, track_running_stats=True), nn.Conv2d(2, 1, 3), nn.UpsamplingNearest2d(size=(3, 5))],
    ],
)
def test_networks_learn(parties, layers):
    torch.manual_seed(2)
    nets = [nn.Sequential(*layers())]
    nets.append(nn.Sequential(*layers()))
    nets[1].load_state_dict(nets[0].state_dict())
    nets[0].fix_precision().share(parties.alice, parties.bob, crypto_provider=parties.dealer, requires_grad=True)
    images = torch.randn(2, 2, 5, 5)
    for net, x in zip(nets, (parties.fix("two")(images), images), strict=True):
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            (net(x) ** 2).mean().backward()
            optimizer.step()
    got, want = (list(net.state_dict().values()) for net in nets)
    assert_close([v for v in got if v.is_floating_point()], [v for v in want if v.is_floating_point()], 100, 1 << 16)
    outs = [net.eval()(x) for net, x in zip(nets, (parties.fix("two")(images), images), strict=True)]
    assert_close(*outs, 200, 1 << 16)


def test_what_is_refused(parties):
    x = parties.fix("two")(X)
    image = x[None, None]
    for program, error, text in (
        (lambda: F.interpolate(image, scale_factor=0.5, mode="bilinear", antialias=True), NotImplementedError, "interpolate without antialias"),
        (lambda: F.interpolate(image, (2, 2, 2)), (ValueError, RuntimeError), None), (lambda: F.interpolate(image, 3, mode="bilinear", align_corners=True).sum().item(), Exception, "is shared"),
        (lambda: F.pad(x, (4, 0), mode="reflect"), RuntimeError, "Padding size should be less"), (lambda: x.take(torch.tensor([12])).decrypt(), (IndexError, RuntimeError), None),
        (lambda: x.diagonal_scatter(x[0]), RuntimeError, r"the place has shape \(3,\), and what is put there \(4,\)"),
        (lambda: F.multi_margin_loss(x, torch.tensor([0, 4, 1])), IndexError, "classes 0 ... 3"), (lambda: F.multi_margin_loss(x, torch.tensor([0, -100, 1])), IndexError, "mend the target"),
        (lambda: F.multi_margin_loss(x, torch.tensor([0, 2, 1]), p=3), ValueError, "p is 1 or 2"), (lambda: F.instance_norm(image[..., :1, :1]), ValueError, "more than one"),
    ):  # fmt: skip
        with pytest.raises(error, match=text):
            program()


def test_a_secret_target_of_margins(parties):
    target = torch.tensor([1, 0, 3])
    for options in ({}, {"p": 2, "margin": 0.5}, {"weight": torch.tensor([1.0, 2.0, 0.5, 1.5]), "reduction": "none"}):
        mine, theirs = parties.fix("two")(X).requires_grad_(), X.clone().requires_grad_()
        losses = [F.multi_margin_loss(mine, parties.place("two")(target), **options), F.multi_margin_loss(theirs, target, **options)]
        for loss in losses:
            loss.sum().backward()
        assert_close(*losses, 20, 1 << 16)
        assert_close(mine.grad, theirs.grad, 30, 1 << 16)
