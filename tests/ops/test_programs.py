"""Ordinary programs need nothing that is not in the table: layers, losses, optimizers and what people do with data, remote as local."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from placing import same
from torch import nn, optim

import syftlite as sy

R = torch.randn


@pytest.fixture(scope="module")
def worker() -> sy.VirtualWorker:
    return sy.VirtualWorker(id="programs-worker")


def images() -> torch.Tensor:
    return R(2, 3, 8, 8)


def ids(*shape: int) -> torch.Tensor:
    return torch.randint(0, 3, shape)


LAYERS: list[tuple[nn.Module, Callable[[], torch.Tensor]]] = [
    (nn.Linear(3, 4), lambda: R(2, 3)),
    (nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(4, 2)), lambda: R(5, 3)),
    (nn.Conv1d(3, 2, 3), lambda: R(2, 3, 8)),
    (nn.Conv2d(3, 4, 3, padding="same", groups=1), images),
    (nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), images),
    (nn.Conv2d(3, 4, 3, padding=1, padding_mode="replicate"), images),
    (nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), images),
    (nn.Conv3d(1, 2, 3), lambda: R(1, 1, 4, 4, 4)),
    (nn.ConvTranspose2d(3, 2, 3, stride=2), images),
    (nn.MaxPool1d(2), lambda: R(2, 3, 8)), (nn.MaxPool2d(2), images), (nn.MaxPool3d(2), lambda: R(1, 2, 4, 4, 4)),
    (nn.AvgPool1d(2), lambda: R(2, 3, 8)), (nn.AvgPool2d(2), images), (nn.AvgPool3d(2), lambda: R(1, 2, 4, 4, 4)),
    (nn.AdaptiveAvgPool1d(2), lambda: R(2, 3, 8)), (nn.AdaptiveAvgPool2d(2), images), (nn.AdaptiveAvgPool2d(1), images),
    (nn.AdaptiveAvgPool3d(2), lambda: R(1, 2, 4, 4, 4)), (nn.AdaptiveMaxPool1d(2), lambda: R(2, 3, 8)), (nn.AdaptiveMaxPool2d(2), images),
    (nn.LPPool2d(2, 2), images), (nn.LocalResponseNorm(2), images),
    (nn.BatchNorm1d(3), lambda: R(4, 3)), (nn.BatchNorm2d(3), images), (nn.BatchNorm2d(3, momentum=None), images),
    (nn.BatchNorm2d(3, track_running_stats=False, affine=False), images), (nn.LayerNorm(8), images), (nn.GroupNorm(3, 3), images),
    (nn.InstanceNorm2d(3, affine=True), images), (nn.InstanceNorm2d(3, track_running_stats=True), images), (nn.RMSNorm(8), images),
    (nn.Dropout(0.3), images), (nn.Dropout2d(0.3), images), (nn.AlphaDropout(0.3), images),
    (nn.Embedding(3, 4), lambda: ids(2, 5)), (nn.Embedding(3, 4, padding_idx=0, scale_grad_by_freq=True), lambda: ids(2, 5)),
    (nn.Flatten(), images), (nn.Upsample(scale_factor=2), images), (nn.Upsample(scale_factor=1.5, mode="bilinear"), images),
    (nn.PixelShuffle(2), lambda: R(1, 4, 2, 2)), (nn.PixelUnshuffle(2), lambda: R(1, 1, 4, 4)), (nn.Unfold(2), images), (nn.Fold((4, 5), (2, 2)), lambda: R(1, 12, 12)),
    (nn.ZeroPad2d(1), images), (nn.ReflectionPad1d(1), lambda: R(2, 3, 8)), (nn.ReflectionPad2d(1), images), (nn.ReplicationPad1d(1), lambda: R(2, 3, 8)),
    (nn.ReplicationPad2d(1), images), (nn.ConstantPad1d(1, 2.0), lambda: R(2, 3, 8)),
    *[(getattr(nn, name)(), lambda: R(4, 6)) for name in (
        "ReLU", "ReLU6", "ELU", "SELU", "CELU", "LeakyReLU", "PReLU", "Sigmoid", "LogSigmoid", "Tanh", "Hardtanh", "Hardsigmoid", "Hardswish", "Hardshrink",
        "Softshrink", "Tanhshrink", "Softplus", "Softsign", "SiLU", "Mish", "GELU")],
    *[(getattr(nn, name)(dim=1), lambda: R(4, 6)) for name in ("GLU", "Softmin", "Softmax", "LogSoftmax")],
    *[(nn.Sequential(nn.Linear(6, 6), getattr(nn, name)(inplace=True)), lambda: R(4, 6)) for name in (
        "ReLU", "LeakyReLU", "ELU", "SiLU", "Hardswish", "Hardtanh", "Dropout", "SELU", "ReLU6", "Hardsigmoid", "Mish", "CELU")],
    *[(nn.Upsample(scale_factor=2, mode=mode), make) for mode, make in (("linear", lambda: R(2, 3, 8)), ("nearest", lambda: R(2, 3, 8)),
        ("bicubic", images), ("nearest-exact", images), ("trilinear", lambda: R(1, 2, 3, 3, 3)), ("nearest", lambda: R(1, 2, 3, 3, 3)))],
    (nn.ReplicationPad3d(1), lambda: R(1, 2, 4, 4, 4)), (nn.ReflectionPad3d(1), lambda: R(1, 2, 4, 4, 4)),
    (nn.AdaptiveMaxPool3d(2), lambda: R(1, 2, 4, 4, 4)), (nn.ChannelShuffle(3), lambda: R(1, 6, 4)),
    (nn.GELU("tanh"), lambda: R(4, 6)), (nn.Threshold(0.1, 0.2), lambda: R(4, 6)), (nn.Softmax2d(), images),
]  # fmt: skip


def outcome(layer: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """Output, gradients and buffers of a forward and a backward pass."""
    torch.manual_seed(5)
    out = layer(x)
    leaves = [t for t in (x, *layer.parameters()) if t.requires_grad]
    grads = torch.autograd.grad((out * out).sum(), leaves) if leaves else ()
    return [out.detach(), *grads, *layer.buffers()]


def fetched(values: Any) -> list[torch.Tensor]:
    return [v.get_copy() if isinstance(v, sy.PointerTensor) else v for v in values]


@pytest.mark.parametrize("layer, make", LAYERS, ids=lambda v: str(v).splitlines()[0][:40] if isinstance(v, nn.Module) else "")
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_layers(layer: nn.Module, make: Callable[[], torch.Tensor], training: bool, worker: sy.VirtualWorker) -> None:
    x = make()
    x.requires_grad_(x.is_floating_point())
    here, there = copy.deepcopy(layer).train(training), copy.deepcopy(layer).train(training).send(worker)
    remote = x.detach().send(worker).requires_grad_(x.is_floating_point())
    assert same(outcome(here, x), fetched(outcome(there, remote)))


def signs() -> torch.Tensor:
    return torch.tensor([1.0, -1.0, 1.0, -1.0])


LOSSES: list[tuple[str, Callable[[str], nn.Module], Callable[[], tuple[torch.Tensor, ...]]]] = [
    ("L1", lambda r: nn.L1Loss(reduction=r), lambda: (R(4, 3), R(4, 3))),
    ("MSE", lambda r: nn.MSELoss(reduction=r), lambda: (R(4, 3), R(4, 3))),
    ("cross entropy", lambda r: nn.CrossEntropyLoss(reduction=r), lambda: (R(4, 3), ids(4))),
    ("cross entropy, smooth", lambda r: nn.CrossEntropyLoss(reduction=r, label_smoothing=0.1), lambda: (R(4, 3), ids(4))),
    ("cross entropy, shares", lambda r: nn.CrossEntropyLoss(reduction=r), lambda: (R(4, 3), R(4, 3).softmax(1))),
    ("cross entropy, pixels", lambda r: nn.CrossEntropyLoss(reduction=r), lambda: (R(2, 3, 4, 4), ids(2, 4, 4))),
    ("cross entropy, steps", lambda r: nn.CrossEntropyLoss(reduction=r), lambda: (R(2, 3, 4), ids(2, 4))),
    ("NLL", lambda r: nn.NLLLoss(reduction=r, ignore_index=1), lambda: (R(4, 3), ids(4))),
    ("Poisson", lambda r: nn.PoissonNLLLoss(reduction=r, full=True), lambda: (R(4, 3), R(4, 3).abs() * 4)),
    ("Gaussian", lambda r: nn.GaussianNLLLoss(reduction=r), lambda: (R(4, 3), R(4, 3), R(4, 3).abs() + 0.1)),
    ("KL", lambda r: nn.KLDivLoss(reduction=r), lambda: (R(4, 3), R(4, 3).softmax(1))),
    ("KL, log", lambda r: nn.KLDivLoss(reduction=r, log_target=True), lambda: (R(4, 3), R(4, 3).log_softmax(1))),
    ("BCE", lambda r: nn.BCELoss(reduction=r), lambda: (torch.rand(4), torch.rand(4))),
    ("BCE, logits", lambda r: nn.BCEWithLogitsLoss(reduction=r), lambda: (R(4), torch.rand(4))),
    ("Huber", lambda r: nn.HuberLoss(reduction=r), lambda: (R(4), R(4))),
    ("smooth L1", lambda r: nn.SmoothL1Loss(reduction=r), lambda: (R(4), R(4))),
    ("ranking", lambda r: nn.MarginRankingLoss(reduction=r), lambda: (R(4), R(4), signs())),
    ("hinge", lambda r: nn.HingeEmbeddingLoss(reduction=r), lambda: (R(4), signs())),
    ("soft margin", lambda r: nn.SoftMarginLoss(reduction=r), lambda: (R(4), signs())),
    ("multi-label", lambda r: nn.MultiLabelSoftMarginLoss(reduction=r), lambda: (R(4, 3), torch.rand(4, 3))),
    ("cosine", lambda r: nn.CosineEmbeddingLoss(reduction=r), lambda: (R(4, 3), R(4, 3), signs())),
    ("triplet", lambda r: nn.TripletMarginLoss(reduction=r, swap=True), lambda: (R(4, 3), R(4, 3), R(4, 3))),
]  # fmt: skip


@pytest.mark.parametrize("name, loss, make", LOSSES, ids=lambda v: v if isinstance(v, str) else "")
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_losses(name: str, loss: Any, make: Any, reduction: str, worker: sy.VirtualWorker) -> None:
    given = make()
    results = []
    for operands in (given, [g.send(worker) for g in given]):
        x = operands[0].detach().requires_grad_()
        out = loss("batchmean" if name.startswith("KL") and reduction == "mean" else reduction)(x, *operands[1:])
        results.append(fetched([out.detach(), *torch.autograd.grad(out.sum(), [x])]))
    assert same(*results)


OPTIMIZERS: list[tuple[Any, dict[str, Any]]] = [
    (optim.SGD, {}), (optim.SGD, {"momentum": 0.9, "weight_decay": 0.1}), (optim.SGD, {"momentum": 0.9, "nesterov": True}), (optim.SGD, {"maximize": True}),
    (optim.Adam, {}), (optim.Adam, {"amsgrad": True, "weight_decay": 0.1}), (optim.AdamW, {}), (optim.AdamW, {"amsgrad": True}),
    (optim.RMSprop, {}), (optim.RMSprop, {"centered": True, "momentum": 0.9}), (optim.Adagrad, {"lr_decay": 0.1}), (optim.Adadelta, {}), (optim.Adamax, {}),
    (optim.NAdam, {}), (optim.RAdam, {}), (optim.ASGD, {}), (optim.Rprop, {}),
]  # fmt: skip


@pytest.mark.parametrize("foreach", [None, False, True], ids=["default", "single", "foreach"])
@pytest.mark.parametrize("kind, options", OPTIMIZERS, ids=lambda v: v.__name__ if isinstance(v, type) else "-".join(v) or "plain")
def test_optimizers(kind: Any, options: dict[str, Any], foreach: bool | None, worker: sy.VirtualWorker) -> None:
    model, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)), R(5, 3)
    trained = []
    for place in (None, worker):
        net = copy.deepcopy(model) if place is None else copy.deepcopy(model).send(place)
        data = x if place is None else x.send(place)
        optimizer = kind(net.parameters(), lr=0.05, foreach=foreach, **options)
        for _ in range(3):
            optimizer.zero_grad()
            net(data).square().mean().backward()
            nn.utils.clip_grad_norm_(net.parameters(), 0.5, foreach=foreach)
            optimizer.step()
        trained.append(fetched(p.detach() for p in net.parameters()))
    for here, there in zip(*trained, strict=True):
        torch.testing.assert_close(here, there, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("norm", [1.0, 2.0, float("inf")])
def test_clipping(norm: float, worker: sy.VirtualWorker) -> None:
    model = nn.Linear(3, 4)
    totals = []
    for net, data in ((copy.deepcopy(model), torch.ones(2, 3)), (copy.deepcopy(model).send(worker), torch.ones(2, 3).send(worker))):
        net(data).sum().backward()
        nn.utils.clip_grad_value_(net.parameters(), 0.5)
        totals.append(fetched([nn.utils.clip_grad_norm_(net.parameters(), 0.1, norm), *[p.grad for p in net.parameters()]]))
    assert same(*totals)


DATA: list[Callable[[torch.Tensor, torch.Tensor], Any]] = [
    lambda x, i: x.mean(0), lambda x, i: x.std(0), lambda x, i: x.var(1, unbiased=False), lambda x, i: x.median(),
    lambda x, i: x.median(0)[1], lambda x, i: x.nanmean(), lambda x, i: torch.histc(x, 5), lambda x, i: torch.std_mean(x, 0)[0],
    lambda x, i: x.norm(), lambda x, i: x.norm(p=1, dim=1), lambda x, i: torch.linalg.norm(x), lambda x, i: F.normalize(x),
    lambda x, i: x.aminmax()[0], lambda x, i: x.sort(1)[0], lambda x, i: x.argsort(), lambda x, i: x.topk(2)[1], lambda x, i: x.argmax(1),
    lambda x, i: x.cumsum(0), lambda x, i: torch.diff(x), lambda x, i: i.unique(), lambda x, i: i.unique(return_counts=True)[1],
    lambda x, i: i.reshape(-1).bincount(minlength=6), lambda x, i: torch.unique_consecutive(i.reshape(-1)),
    lambda x, i: i[0].repeat_interleave(2), lambda x, i: torch.repeat_interleave(i[0]), lambda x, i: x[x > 0], lambda x, i: x[i[0] % 4],
    lambda x, i: x[:, 1], lambda x, i: x[1:3, ::2], lambda x, i: x[..., None], lambda x, i: (x > 0).nonzero(),
    lambda x, i: x.masked_select(x > 0), lambda x, i: x.masked_fill(x > 0, 0.0), lambda x, i: torch.where(x > 0, x, 0.0),
    lambda x, i: torch.where(x > 0, 1.0, -1.0), lambda x, i: torch.outer(x[0], x[1]), lambda x, i: torch.addr(x, x[:, 0], x[0]),
    lambda x, i: torch.einsum("ij,kj->ik", x, x), lambda x, i: x @ x.T, lambda x, i: torch.tensordot(x, x, dims=([1], [1])),
    lambda x, i: torch.kron(x[:2], x[2:]), lambda x, i: torch.cov(x), lambda x, i: torch.corrcoef(x), lambda x, i: torch.diag(x[0]),
    lambda x, i: x[:4, :4].diag(), lambda x, i: x.trace(), lambda x, i: x.tril(), lambda x, i: x.flip(0), lambda x, i: x.roll(1, 0),
    lambda x, i: x.chunk(2)[1], lambda x, i: x.split([1, 3])[1], lambda x, i: torch.cat([x, x]), lambda x, i: torch.stack([x, x]),
    lambda x, i: x.tile(2), lambda x, i: x.gather(1, i), lambda x, i: x.scatter(1, i, 1.0), lambda x, i: x.scatter_add(1, i, x),
    lambda x, i: x.index_add(0, i[0, :2], x[:2]), lambda x, i: x.clamp(0, 1), lambda x, i: x.clip(max=0.5),
    lambda x, i: torch.isclose(x, x), lambda x, i: torch.allclose(x, x), lambda x, i: torch.equal(x, x),
    lambda x, i: torch.isin(i, i[0, :2]), lambda x, i: torch.bucketize(x, x[0].sort()[0]), lambda x, i: torch.count_nonzero(i),
    lambda x, i: x.isfinite().all(), lambda x, i: torch.nan_to_num(x / 0), lambda x, i: i & 1, lambda x, i: i % 2 == 0,
    lambda x, i: -x + 2 * x - x / 3 + x**2 - 1 / x, lambda x, i: x // 1, lambda x, i: x.exp().log1p().sqrt(),
    lambda x, i: x.float().double().long(), lambda x, i: F.pad(x, (1, 1)), lambda x, i: F.cosine_similarity(x, x + 1),
    lambda x, i: F.pairwise_distance(x, x + 1), lambda x, i: F.softmax(x, 1), lambda x, i: x.logsumexp(1),
    lambda x, i: torch.logaddexp(x, x), lambda x, i: x.round(decimals=1), lambda x, i: torch.cartesian_prod(x[0], x[1]),
    lambda x, i: torch.meshgrid(x[0], x[1], indexing="ij")[0], lambda x, i: x.unfold(0, 2, 1), lambda x, i: x.narrow(0, 1, 2),
    lambda x, i: torch.take_along_dim(x, i, 1), lambda x, i: x.take(i), lambda x, i: torch.vander(x[0]), lambda x, i: torch.trapezoid(x),
    lambda x, i: x.cummax(0)[1], lambda x, i: x.cummin(1)[0], lambda x, i: x.logcumsumexp(0), lambda x, i: x.kthvalue(2)[0],
    lambda x, i: x.nanmedian(), lambda x, i: x.nanmedian(1)[0], lambda x, i: i.mode(1)[0], lambda x, i: i.sort(stable=True)[1],
    lambda x, i: i.unique(dim=0, return_counts=True)[1],
    lambda x, i: torch.nonzero_static(i, size=7), lambda x, i: torch.frexp(x)[1], lambda x, i: (i << 2) >> 1,
    lambda x, i: torch.special.entr(x.abs()), lambda x, i: torch.special.i0(x), lambda x, i: torch.gcd(i, i + 2), lambda x, i: torch.lcm(i, i + 2),
    lambda x, i: F.interpolate(x[None, None], size=(3, 3), mode="bilinear", antialias=True),
    lambda x, i: F.grid_sample(x[None, None], x.tanh().view(1, 3, 4, 2), align_corners=False),
    lambda x, i: x.index_fill(0, i[0, :1], x[0, 0]), lambda x, i: torch.isin(i, 2), lambda x, i: torch.searchsorted(x[0].sort()[0], 0.5),
    lambda x, i: torch.bucketize(0.5, x[0].sort()[0]), lambda x, i: x.rot90(), lambda x, i: torch.block_diag(x, x[0]), lambda x, i: torch.combinations(x[0]),
    lambda x, i: float(x.sum() * 0), lambda x, i: F.scaled_dot_product_attention(x[None], x[None], x[None]),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(DATA)))
def test_what_people_do_with_data(number: int, worker: sy.VirtualWorker) -> None:
    x, i = R(4, 6), torch.randint(0, 4, (4, 6))
    here, there = DATA[number](x, i), DATA[number](x.send(worker), i.send(worker))
    assert same(here, fetched([there])[0])


def test_what_makes_tensors_of_its_own_works_at_the_worker(worker: sy.VirtualWorker) -> None:
    x, i = R(4, 6), torch.randint(0, 4, (4, 6))
    x_there, i_there = x.send(worker), i.send(worker)
    with worker:
        quantile, hot = x_there.quantile(0.25, dim=0), F.one_hot(i_there, 5)
    assert same(quantile.get(), x.quantile(0.25, dim=0)) and same(hot.get(), F.one_hot(i, 5))


def test_writes_in_place(worker: sy.VirtualWorker) -> None:
    def program(x: torch.Tensor, i: torch.Tensor) -> torch.Tensor:
        x[0] = 1.0
        x[:, 1] += x[:, 2]
        x[i] = -1.0
        x[x > 2] = 2.0
        x.clamp_(-2, 2).mul_(2).add_(x, alpha=0.5).sub_(1).div_(3).neg_().abs_().sqrt_().round_().floor_()
        x.index_add_(0, i, torch.ones_like(x[:2])).scatter_(1, i[:, None], 3.0).masked_fill_(x < 0, 0.0)
        x.copy_(x.flip(0))
        return x

    x, i = R(4, 6), torch.tensor([2, 3])
    assert same(program(x.clone(), i), program(x.send(worker), i.send(worker)).get())
