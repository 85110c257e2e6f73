"""Functions of torch that stand for reviewed operators: remote as local, forward and backward, in place and in a list."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn, optim

import syftlite as sy
from syftlite.errors import OperatorNotReviewedError, PointerMisuseError

R, U = torch.randn, torch.rand


def fetched(value: Any) -> torch.Tensor:
    return value.detach().get_copy() if isinstance(value, sy.PointerTensor) else value.detach()


def close(bob: sy.VirtualWorker, function: Callable[..., Any], *operands: torch.Tensor) -> None:
    """``function`` gives the same of pointers, and the same gradients, as often as torch derives it."""
    results = []
    for place in (None, bob):
        torch.manual_seed(3)
        given = [x.clone() if place is None else x.send(place) for x in operands]
        leaves = [x.requires_grad_() for x in given if x.is_floating_point()]
        out = function(*given)
        found = [out]
        if out.requires_grad:
            found += [g for g in torch.autograd.grad((out.abs() ** 2).sum(), leaves, allow_unused=True) if g is not None]
        results.append([fetched(x) for x in found])
    here, there = results
    assert len(here) == len(there)
    for ours, theirs in zip(here, there, strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5, equal_nan=True)


WHICH = torch.tensor([1, 3])
FORMULAS: dict[str, tuple[Callable[..., Any], tuple[torch.Tensor, ...]]] = {
    **{f"rot90 {k}": (lambda x, k=k: x.rot90(k, (1, 2)), (R(2, 3, 4),)) for k in range(-1, 4)},
    "block_diag": (lambda x, y: torch.block_diag(x, y, x[0]), (R(2, 3), R(1, 4).double())),
    "narrow_copy": (lambda x: x.detach().narrow_copy(1, 1, 2), (R(3, 4),)),
    "channel_shuffle": (lambda x: F.channel_shuffle(x, 3), (R(2, 6, 4, 3),)),
    "ldexp": (torch.ldexp, (R(4), torch.tensor([1, -2, 0, 9]))),
    "shifts": (lambda x, n: (x << n) + (x >> 1) + (5 << n) + torch.bitwise_left_shift(x, 2), (torch.tensor([9, -9, 4]), torch.tensor([1, 2, 0]))),
    "degrees": (lambda x: torch.rad2deg(x) + torch.deg2rad(x), (R(4),)),
    "infinities": (lambda x: torch.isposinf(1 / x.detach()) | torch.isneginf(-1 / x.detach()), (torch.tensor([0.0, 1.0]),)),
    "mvlgamma": (lambda x: torch.mvlgamma(x.detach(), 3), (U(4) + 2,)),
    "dist": (lambda x, y: torch.dist(x, y, 3), (R(4, 3), R(4, 3))),
    "cdist of many": (torch.cdist, (R(2, 30, 3), R(2, 27, 3))),
    **{f"cdist by {p}": (lambda x, y, p=p: torch.cdist(x, torch.cat([x[..., :1, :].detach(), y], -2), p=p), (R(4, 5), R(3, 5)))
        for p in (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, math.inf)},
    "cdist of a batch with one": (torch.cdist, (R(2, 4, 3), R(5, 3))),
    "unravel_index": (lambda x: torch.stack(torch.unravel_index(x.argmax(), (3, 4)) + torch.unravel_index(x[0].argsort()[0], (2, 2))), (R(3, 4),)),
    "fill": (lambda x, y: torch.fill(x, 2) + torch.fill(x, y.sum()), (R(3), R(2))),
    "cholesky": (lambda x: torch.cholesky(x @ x.T + x.new_ones(3).diag_embed()) + torch.cholesky(x @ x.T + x.new_ones(3).diag_embed(), upper=True), (R(3, 3),)),
    "trace": (lambda x: x.trace() * x, (R(4, 3),)),
    **{f"pdist {p}": (lambda x, p=p: F.pdist(x, p), (R(5, 3),)) for p in (0.5, 1.0, 2.0, 3.0)},
    "cdist of batches": (torch.cdist, (R(2, 1, 4, 3), R(5, 3, 3))),
    "cdist of many by differences": (lambda x, y: torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist"), (R(30, 3), R(27, 3))),
    "renorm": (lambda x: torch.renorm(x, 1, 1, 0.7), (R(4, 3),)),
    "isin": (lambda x: torch.isin(x, 2) ^ torch.isin(1, x, invert=True), (torch.tensor([2, 4]),)),
    "searchsorted": (lambda x: torch.searchsorted(x.detach(), 0.3, right=True) + torch.bucketize(0.3, x.detach()), (R(5).sort()[0],)),
    "index_fill": (lambda x, i, v: x.index_fill(1, i, v), (R(3, 4), WHICH, R(()))),
    "normal": (lambda x, y: torch.normal(x, y) + torch.normal(x, 2.0) + torch.normal(1.0, y), (R(3, 4), U(3, 4))),
    "bernoulli_": (lambda x, p: x.detach().clone().bernoulli_(p.detach()), (R(3, 4), U(3, 4))),
    **{f"index_reduce {how} {own} {dim}": (lambda x, y, how=how, own=own, dim=dim: x.index_reduce(dim, torch.tensor([2, 0, 2]).to(x.location)
        if isinstance(x, sy.PointerTensor) else torch.tensor([2, 0, 2]), y, how, include_self=own), (U(3, 3) + 0.5, U(3, 3) + 0.5))
        for how in ("prod", "mean", "amax", "amin") for own in (True, False) for dim in (0, -1)},
    "lcm": (torch.lcm, (torch.tensor([4, 0, 6]), torch.tensor([6, 0, -4]))),
    "bilinear": (F.bilinear, (R(5, 3), R(5, 2), R(4, 3, 2), R(4))),
    "max_unpool": (lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2), (R(2, 3, 6, 6),)),
    "max_unpool 3d": (lambda x: F.max_unpool3d(*F.max_pool3d(x, 2, return_indices=True), 2), (R(1, 2, 4, 4, 4),)),
    **{f"affine_grid {size} {corners}": (lambda t, size=size, c=corners: F.affine_grid(t, size, align_corners=c), (R(2, len(size) - 2, len(size) - 1),))
        for size in ([2, 1, 3, 4], [2, 1, 2, 3, 2]) for corners in (False, True)},
    "a sampled image": (lambda x, t: F.grid_sample(x, F.affine_grid(t, [2, 3, 5, 5], align_corners=False), align_corners=False), (R(2, 3, 4, 4), R(2, 2, 3))),
    **{f"histogram {n}": (lambda x, o=options: torch.histogram(x.detach(), 4, **o)[0], (R(20),)) for n, options in enumerate(
        ({}, {"range": (-1.0, 1.0)}, {"density": True}))},
    "histogram by edges": (lambda x, e, w: torch.histogram(x.detach(), e.detach(), weight=w.detach())[0], (R(9), torch.tensor([-1.0, 0.0, 0.5]), U(9))),
    "histogram of one value": (lambda x: torch.cat(torch.histogram(x.detach(), 3)), (torch.full((4,), 2.0),)),
    "stft": (lambda x, w: torch.stft(x, 8, 3, 6, w, return_complex=True, normalized=True), (R(2, 40), torch.hann_window(6))),
    "stft, two-sided": (lambda x: torch.stft(x, 8, onesided=False, center=False, return_complex=True), (R(40),)),
    "istft": (lambda x, w: torch.istft(torch.stft(x, 8, window=w, return_complex=True), 8, window=w), (R(40), torch.hann_window(8))),
    "istft, without a window": (lambda x: torch.istft(torch.stft(x, 8, return_complex=True), 8, length=30), (R(40),)),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:torch.cholesky is deprecated")
@pytest.mark.filterwarnings("ignore:index_reduce")  # which is in beta, torch says
@pytest.mark.filterwarnings("ignore:A window was not provided")  # torch's, of what is computed here
@pytest.mark.parametrize("name", FORMULAS)
def test_formulas(bob: sy.VirtualWorker, name: str) -> None:
    function, operands = FORMULAS[name]
    close(bob, function, *operands)


@pytest.mark.parametrize("shape, wrap", [((4, 4), False), ((9, 3), True), ((9, 3), False), ((3, 9), True), ((3, 3, 3), False), ((0, 2), False)])
def test_fill_diagonal(bob: sy.VirtualWorker, shape: tuple[int, ...], wrap: bool) -> None:
    close(bob, lambda x: (x * 1).fill_diagonal_(2.5, wrap), R(shape))


@pytest.mark.parametrize("index, shape, how", [([0, 1], (1, 3), "prod"), ([0], (1, 2), "prod"), ([[0]], (1, 3), "amax"), ([0], (1, 3), "sum")])
def test_index_reduce_takes_what_torch_takes(bob: sy.VirtualWorker, index: Any, shape: tuple[int, ...], how: str) -> None:
    for place in (lambda x: x, bob.send):
        with pytest.raises((RuntimeError, IndexError), match="index_reduce|source tensor shape"):
            place(torch.ones(2, 3)).index_reduce(0, place(torch.tensor(index)), place(torch.ones(shape)), how)


BESIDE_NUMBERS: dict[str, Callable[[Any, Any], torch.Tensor]] = {
    "pow": lambda x, n: x**n, "remainder": lambda x, n: n % x, "copysign": torch.copysign, "xlogy": torch.xlogy, "xlogy of": lambda x, n: torch.xlogy(n, x),
    "xlog1py": torch.special.xlog1py, "xlog1py of": lambda x, n: torch.special.xlog1py(n, x),
    "and": lambda x, n: torch.bitwise_and(n, x), "or": lambda x, n: torch.bitwise_or(n, x),
    "xor": lambda x, n: torch.bitwise_xor(n, x), "scatter": lambda x, n: x.scatter(0, torch.zeros_like(x).long(), n, reduce="add"),
    "scatter_": lambda x, n: x.clone().scatter_(0, torch.zeros_like(x).long(), n, reduce="multiply"),
}  # fmt: skip


@pytest.mark.parametrize("name", BESIDE_NUMBERS)
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int32, torch.int64, torch.bfloat16, torch.float32, torch.float64])
def test_a_number_beside_a_tensor(bob: sy.VirtualWorker, name: str, dtype: torch.dtype) -> None:
    """Of whatever kind: the value and the dtype, or the refusal, are torch's own."""
    for whole in (torch.tensor([3, 1, 2]).to(dtype), torch.tensor(2).to(dtype)):
        for number in (True, 2, -1, 2.5, -0.5):
            try:
                expected = BESIDE_NUMBERS[name](whole, number)
            except (RuntimeError, TypeError):
                with pytest.raises((RuntimeError, TypeError)):
                    BESIDE_NUMBERS[name](whole.send(bob), number).get()
                continue
            found = BESIDE_NUMBERS[name](whole.send(bob), number)
            assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
            torch.testing.assert_close(found.get(), expected, equal_nan=True)


IN_PLACE = ("cumsum_", "cumprod_", "tril_", "frac_", "exp2_", "asin_", "digamma_", "erfinv_", "fmod_", "hypot_", "copysign_", "lt_", "xlogy_", "i0_",
    "addmm_", "lerp_", "renorm_", "scatter_reduce_", "put_")  # fmt: skip
OPERANDS: dict[str, Callable[[torch.Tensor], tuple[Any, ...]]] = {
    **dict.fromkeys(("cumsum_", "cumprod_"), lambda y: (0,)), "addmm_": lambda y: (y, y), "lerp_": lambda y: (y, 0.3), "renorm_": lambda y: (2, 0, 1.0),
    **dict.fromkeys(("fmod_", "hypot_", "copysign_", "lt_", "xlogy_"), lambda y: (y.detach(),)),
    "scatter_reduce_": lambda y: (0, (y.detach() > 0.5).long(), y, "amax"), "put_": lambda y: ((y.detach()[0] > 2).long(), y[0]),
}  # fmt: skip


@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place(bob: sy.VirtualWorker, name: str) -> None:
    """Views see it, and so do gradients."""

    def program(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        whole = torch.stack([x, y.flip(0)])
        assert getattr(whole[0], name)(*OPERANDS.get(name, lambda y: ())(y)).shape == x.shape
        return whole

    close(bob, program, U(3, 3), U(3, 3))


def test_what_does_not_fit_in_place_is_refused(bob: sy.VirtualWorker) -> None:
    with pytest.raises(RuntimeError, match="can't be cast"):
        torch.ones(2, dtype=torch.int64).send(bob).exp2_()
    with pytest.raises(PointerMisuseError, match="keeps its size"):
        torch.ones(1).send(bob).hypot_(torch.ones(2).send(bob))
    with pytest.raises(OperatorNotReviewedError):
        torch.ones(2).send(bob).as_strided_((1,), (1,))


def test_factories_write_to_what_is_there(bob: sy.VirtualWorker) -> None:
    for place in (lambda x: x, bob.send):
        x = place(torch.zeros(3, 2, dtype=torch.float64))
        nn.init.eye_(x)
        assert torch.equal(fetched(x), torch.eye(3, 2, dtype=torch.float64))
        torch.ones(3, 2, out=x)
        assert torch.equal(fetched(x), torch.ones(3, 2, dtype=torch.float64))
        torch.arange(6, out=x.view(6))
        assert torch.equal(fetched(x), torch.arange(6.0, dtype=torch.float64).view(3, 2))


@pytest.mark.parametrize("name, rest", [("abs", ()), ("exp", ()), ("erf", ()), ("pow", (2.0,)), ("sub", ([1.0, 2.0],)), ("lerp", ([0.1, 0.2],))])
def test_lists(bob: sy.VirtualWorker, name: str, rest: tuple[Any, ...]) -> None:
    here = [R(2, 3), R(4)]
    there = [x.send(bob) for x in here]
    ends = [[x * 2 for x in xs] if name == "lerp" else None for xs in (here, there)]
    found = [getattr(torch, f"_foreach_{name}")(xs, *([end] if end else []), *rest) for xs, end in zip((here, there), ends, strict=True)]
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(fetched(theirs), mine)


@pytest.mark.parametrize("kind", [optim.Adamax, optim.Adafactor])
def test_optimizers_of_lists(bob: sy.VirtualWorker, kind: Any) -> None:
    layer, x, trained = nn.Linear(3, 2), R(5, 3), []
    for place in (None, bob):
        net = nn.Linear(3, 2)
        net.load_state_dict(layer.state_dict())
        net = net if place is None else net.send(place)
        optimizer = kind(net.parameters(), lr=0.05, foreach=True)
        for _ in range(3):
            optimizer.zero_grad()
            net(x if place is None else x.send(place)).square().mean().backward()
            optimizer.step()
        trained.append([fetched(p) for p in net.parameters()])
    torch.testing.assert_close(trained[1], trained[0])


def test_distributions_check_their_parameters(bob: sy.VirtualWorker) -> None:
    mean, at = R(3), R(3)
    made = torch.distributions.Normal(mean.send(bob), U(3).add(1).send(bob))
    assert made.log_prob(at.send(bob)).shape == (3,)
    with pytest.raises(ValueError, match="invalid values"):
        torch.distributions.Normal(mean.send(bob), torch.tensor([1.0, -1.0, 1.0]).send(bob))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, of its tracer
def test_a_derivative_that_torch_writes_down_is_refused(bob: sy.VirtualWorker) -> None:
    """It would take what is done to pointers for constants, and its derivatives would be zeros."""
    x = R(3).send(bob)
    with pytest.raises(PointerMisuseError, match=r"torch\.func\.jvp"):
        torch.func.linearize(lambda x: x.sin() * x, x)
    assert torch.func.jvp(torch.sin, (x,), (torch.ones_like(x),))[1].shape == (3,)
