"""Layers and losses whose kernels trust indices: remote as local, by their formulas."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import syftlite as sy

R = torch.randn


def outcome(place: sy.VirtualWorker | None, function: Callable[..., torch.Tensor], *operands: torch.Tensor) -> list[torch.Tensor]:
    """What ``function`` gives, and the gradients of the operands that learn."""
    given = [x.clone() if place is None else x.send(place) for x in operands]
    leaves = [x.requires_grad_() for x in given if x.is_floating_point()]
    out = function(*given)
    found = [out, *torch.autograd.grad((out * torch.ones_like(out).cumsum(0)).sum() if out.dim() else out, leaves)]
    return [x.detach() if place is None else x.detach().get() for x in found]


def close(bob: sy.VirtualWorker, function: Callable[..., torch.Tensor], *operands: torch.Tensor) -> None:
    torch.testing.assert_close(outcome(bob, function, *operands), outcome(None, function, *operands), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("padding", [None, 2, -1])
def test_bags(bob: sy.VirtualWorker, mode: str, padding: int | None) -> None:
    """Of equal sizes; by offsets, one of them empty, one of nothing but padding; with the last offset."""
    options: Any = {"mode": mode, "padding_idx": padding}
    table, rows, flat = R(6, 3), torch.randint(0, 6, (4, 5)), torch.tensor([0, 2, 5, 5, 2, 2, 4, 1])
    close(bob, lambda w, i: F.embedding_bag(i, w, **options), table, rows)
    for offsets, last in (([0, 3, 3, 4, 6], False), ([0, 3, 4, 8], True)):
        close(bob, lambda w, i, o, last=last: F.embedding_bag(i, w, o, include_last_offset=last, **options), table, flat, torch.tensor(offsets))
    if mode == "sum":
        close(bob, lambda w, i, s: F.embedding_bag(i, w, per_sample_weights=s, **options), table, rows, R(4, 5))


def test_bags_out_of_range_are_errors(bob: sy.VirtualWorker) -> None:
    table = R(6, 3).send(bob)
    for indices, offsets in (([0, 6], [0]), ([-1, 0], [0]), ([0, 1], [1])):
        with pytest.raises((IndexError, RuntimeError)):
            F.embedding_bag(torch.tensor(indices).send(bob), table, torch.tensor(offsets).send(bob)).get()


@pytest.mark.parametrize("layer", [nn.Embedding(6, 3, max_norm=1.0), nn.Embedding(6, 3, max_norm=0.5, norm_type=1.0, padding_idx=0)])
def test_rows_that_are_used_are_shrunk(bob: sy.VirtualWorker, layer: nn.Embedding) -> None:
    words, there = torch.tensor([[0, 1], [3, 1]]), layer.copy().send(bob)
    torch.testing.assert_close(there(words.send(bob)).detach().get(), layer(words).detach())
    torch.testing.assert_close(there.weight.detach().get_copy(), layer.weight.detach())


@pytest.mark.parametrize("p, margin, weighted, reduction", [*itertools.product((1, 2), (1.0, 0.3), (False, True), ("mean", "sum", "none"))])
def test_multi_margin(bob: sy.VirtualWorker, p: int, margin: float, weighted: bool, reduction: str) -> None:
    def loss(x: torch.Tensor, y: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return F.multi_margin_loss(x, y, p, margin, w.detach() if weighted else None, reduction=reduction) + w.sum() * 0

    close(bob, loss, R(5, 4), torch.tensor([0, 3, 1, 1, 2]), torch.rand(4))
    close(bob, loss, R(4), torch.tensor(2), torch.rand(4))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_multilabel_margin(bob: sy.VirtualWorker, reduction: str) -> None:
    labels = torch.tensor([[0, 1, -1, 2], [3, -1, 0, 0], [-1, 1, 1, 1], [0, 1, 2, 3], [2, 0, 3, -1]])
    close(bob, lambda x, y: F.multilabel_margin_loss(x, y, reduction=reduction), R(5, 4), labels)
    close(bob, lambda x, y: F.multilabel_margin_loss(x, y, reduction=reduction), R(4), labels[0])


def test_targets_out_of_range_are_errors(bob: sy.VirtualWorker) -> None:
    x = R(2, 3).send(bob)
    for loss, target in ((F.multi_margin_loss, [3, 0]), (F.multi_margin_loss, [-1, 0]), (F.multilabel_margin_loss, [[3, 0, 0], [0, -1, 0]])):
        with pytest.raises((IndexError, RuntimeError)):
            loss(x, torch.tensor(target).send(bob)).get()  # type: ignore[operator]


def test_a_random_slope(bob: sy.VirtualWorker) -> None:
    layer, x = nn.RReLU(0.2, 0.3), torch.cat([R(100), torch.zeros(1)])
    close(bob, layer.eval(), x)
    there = x.send(bob).requires_grad_()
    out = layer.train()(there)
    slopes = (out.detach().get_copy() / x)[x < 0]
    (grad,) = torch.autograd.grad(out.sum(), [there])
    assert (slopes > 0.199).all() and (slopes < 0.301).all() and slopes.std() > 0.01
    torch.testing.assert_close(grad.get()[x < 0], slopes)


def program(square: Any, *, decoder: bool) -> Any:
    layer: Any = (nn.TransformerDecoderLayer if decoder else nn.TransformerEncoderLayer)(8, 2, 16, dropout=0.0, batch_first=True)
    return (nn.TransformerDecoder if decoder else nn.TransformerEncoder)(layer, 1)


@pytest.mark.parametrize("decoder", [False, True])
def test_a_transformer_asks_whether_its_mask_is_causal(bob: sy.VirtualWorker, decoder: bool) -> None:
    """It compares it with one that it makes here."""
    for mask in (nn.Transformer.generate_square_subsequent_mask(4), torch.zeros(4, 4)):
        here, x, memory = program(mask, decoder=decoder), R(2, 4, 8), R(2, 3, 8)
        there = here.copy().send(bob)
        name, rest = ("tgt_mask", [memory]) if decoder else ("mask", [])
        ours, theirs = here(x, *rest, **{name: mask}), there(x.send(bob), *[m.send(bob) for m in rest], **{name: mask.send(bob)})
        torch.testing.assert_close(theirs.detach().get(), ours.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size, layout", [((2, 3, 5, 4), torch.channels_last), ((2, 3, 5, 4, 2), torch.channels_last_3d)])
def test_a_mean_of_channels_last(bob, size, layout):
    pool, grads, x = F.adaptive_avg_pool2d if len(size) == 4 else F.adaptive_avg_pool3d, [], torch.randn(size).to(memory_format=layout)
    for leaf in (x.clone().requires_grad_(), x.send(bob).to(memory_format=layout).requires_grad_()):
        pooled = pool(leaf, 1)
        pooled.square().sum().backward()
        grads.append([t.detach().get_copy() if isinstance(t, sy.PointerTensor) else t.detach() for t in (pooled, leaf.grad)])
    torch.testing.assert_close(grads[1], grads[0])
