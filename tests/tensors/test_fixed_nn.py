"""Layers in fixed precision: as plain torch's, forwards and backwards, at a pinned cost; training follows plain training."""

from __future__ import annotations

import copy

import pytest
import torch
from _fixed_cases import FUNCTIONS as MORE
from _sharing import Parties, assert_close, value
from torch import nn
from torch.nn import functional as F

import syftlite as sy
from syftlite.errors import TensorsNotCollocatedError

CHILDREN = ("plain", "pointer", "two", "three", "replicated")


@pytest.fixture(scope="module")
def parties():
    parties = Parties("nn")
    yield parties
    parties.close()


def f(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape) + len(shape)))


STATS = (torch.tensor([0.5, -1.0, 0.0]), torch.tensor([0.5, 2.0, 9.0]))

FUNCTIONS = {
    F.linear: [(lambda x, w: F.linear(x, w), f(3, 4), f(2, 4)), (lambda x, w: F.linear(x, w, w[:, 0]), f(2, 3, 4), f(5, 4)),
               (lambda x, w: F.linear(x, w), f(4), f(2, 4)), (lambda x, w: F.linear(x, w), f(0, 4), f(2, 4))],
    F.conv2d: [(lambda x, w: F.conv2d(x, w, w[:, 0, 0, 0], padding=1), f(2, 3, 5, 5), f(4, 3, 3, 3)),
               (lambda x, w: F.conv2d(x, w, stride=2, padding=(1, 0)), f(2, 3, 6, 5), f(4, 3, 3, 3)),
               (lambda x, w: F.conv2d(x, w, groups=2, dilation=2), f(2, 4, 6, 6), f(4, 2, 3, 3)),
               (lambda x, w: F.conv2d(x, w, padding="same", dilation=(1, 2)), f(2, 3, 5, 5), f(4, 3, 3, 2)),
               (lambda x, w: F.conv2d(x, w, padding="same"), f(2, 3, 5, 5), f(4, 3, 2, 4)),
               (lambda x, w: F.conv2d(x, w, padding="valid"), f(3, 5, 5), f(4, 3, 3, 3)),
               (lambda x, w: F.conv2d(x, w).relu(), f(1, 1, 4, 4).transpose(2, 3), f(2, 1, 3, 3).transpose(2, 3))],
    torch.conv2d: [(lambda x, w: torch.conv2d(x, w, padding=1), f(2, 3, 5, 5), f(4, 3, 3, 3))],
    F.relu: [(lambda x, w: F.relu(x) * w, f(3, 4), f(3, 4)), (lambda x, w: F.relu(x * w, inplace=True) + 1, f(3, 4), f(4))],
    torch.relu: [(lambda x, w: torch.relu(x) + w, f(3, 4), f(4))],
    torch.Tensor.relu: [(lambda x, w: (x @ w).relu(), f(3, 4), f(4, 2))],
    F.max_pool2d: [(lambda x, w: F.max_pool2d(x, 2) * w, f(2, 3, 5, 4), f(2, 3, 2, 2)),
                   (lambda x, w: F.max_pool2d(x, 3, 2, 1) * w, f(2, 3, 5, 5), f(2, 3, 3, 3)),
                   (lambda x, w: F.max_pool2d(x.relu(), (2, 1)) * w, f(2, 3, 4, 4), f(2, 3, 2, 4)),
                   (lambda x, w: F.max_pool2d(x, 2) * w, f(3, 4, 4), f(3, 2, 2)),
                   (lambda x, w: F.max_pool2d(F.max_pool2d(x, 2), 2) * w, f(2, 3, 4, 4), f(2, 3, 1, 1))],
    torch.max_pool2d: [(lambda x, w: torch.max_pool2d(x, 2) * w, f(2, 3, 4, 4), f(2, 3, 2, 2))],
    F.avg_pool2d: [(lambda x, w: F.avg_pool2d(x, 2) * w, f(2, 3, 4, 4), f(2, 3, 2, 2)),
                   (lambda x, w: F.avg_pool2d(x, 3, 2, 1) * w, f(2, 3, 5, 5), f(2, 3, 3, 3)),
                   (lambda x, w: F.avg_pool2d(F.conv2d(x, w), 2).relu(), f(2, 3, 6, 6), f(4, 3, 3, 3)),
                   (lambda x, w: F.avg_pool2d(F.conv2d(x, w), 3), f(2, 3, 8, 8), f(4, 3, 3, 3)),
                   (lambda x, w: F.avg_pool2d(x, (2, 1), divisor_override=3) * w, f(3, 4, 4), f(3, 2, 4))],
    F.adaptive_avg_pool2d: [(lambda x, w: F.adaptive_avg_pool2d(x, 1).flatten(1) * w, f(2, 3, 4, 6), f(2, 3)),
                            (lambda x, w: F.adaptive_avg_pool2d(x, (2, None)) * w, f(2, 3, 4, 3), f(2, 3, 2, 3))],
    F.dropout: [(lambda x, w: F.dropout(x, 0.5, training=False) * w, f(3, 4), f(4)), (lambda x, w: F.dropout(x, 0.0) * w, f(3, 4), f(4))],
    F.batch_norm: [(lambda x, w: F.batch_norm(x, *STATS, w), f(4, 3), f(3)), (lambda x, w: F.batch_norm(x, *STATS, w, -w), f(2, 3, 4, 4), f(3)),
                   (lambda x, w: F.batch_norm(x, *STATS) * w, f(4, 3), f(3))],
    torch.abs: [(lambda x, w: torch.abs(x) * w, f(3, 4), f(4))],
    torch.Tensor.abs: [(lambda x, w: x.abs() * w, f(3, 4), f(4))],
    torch.Tensor.__abs__: [(lambda x, w: abs(x) * w, f(3, 4), f(4))],
    torch.maximum: [(lambda x, w: torch.maximum(x, w) * x, f(3, 4), f(4))],
    torch.Tensor.maximum: [(lambda x, w: x.maximum(w), f(3, 4), f(3, 1))],
    torch.minimum: [(lambda x, w: torch.minimum(x, w) * x, f(3, 4), f(4))],
    torch.Tensor.minimum: [(lambda x, w: x.minimum(w), f(3, 4), f(3, 1))],
    torch.clamp: [(lambda x, w: torch.clamp(x, -0.5, 0.5) * w, f(3, 4), f(4))],
    torch.Tensor.clamp: [(lambda x, w: x.clamp(min=0.25) * w, f(3, 4), f(4)), (lambda x, w: x.clamp(max=0.25) * w, f(3, 4), f(4))],
    torch.max: [(lambda x, w: torch.max(x, 1)[0] * w, f(3, 4), f(3)), (lambda x, w: torch.max(x) * w, f(3, 4), f(3)),
                (lambda x, w: torch.max(x, w), f(3, 4), f(4))],
    torch.Tensor.max: [(lambda x, w: x.max(0, keepdim=True).values * w if type(x) is torch.Tensor else x.max(0, keepdim=True)[0] * w, f(3, 4), f(1, 4))],
    torch.amax: [(lambda x, w: torch.amax(x, (0, 2)) * w, f(2, 3, 4), f(3))],
    torch.Tensor.amax: [(lambda x, w: x.amax(-1, keepdim=True) * w, f(3, 4), f(3, 1)), (lambda x, w: x.amax() * w, f(3, 4), f(3))],
}  # fmt: skip
"""For each function that is re-expressed: what calls it, an input and a weight."""
FUNCTIONS[torch.batch_norm] = [
    (lambda x, w: torch.batch_norm(x, w, None, *STATS, False, 0.1, 1e-5, False), f(2, 3, 4, 4), f(3))
]  # fmt: skip
FUNCTIONS[torch._C._nn.avg_pool2d] = [(lambda x, w: torch._C._nn.avg_pool2d(x, 2) * w, f(2, 3, 4, 4), f(2, 3, 2, 2))]
OTHERS = {
    "conv1d": (lambda x, w: F.conv1d(x, w, w[:, 0, 0], padding=1), f(2, 3, 5), f(4, 3, 3)),
    "conv1d stride": (lambda x, w: F.conv1d(x, w, stride=2, dilation=2), f(2, 3, 9), f(4, 3, 3)),
    "transposed": (lambda x, w: F.conv_transpose2d(x, w, w[:2, 0, 0, 0], (2, 3), 1, (1, 2), 2, (1, 2)), f(2, 4, 3, 2), f(4, 1, 3, 2)),
    "mse": (lambda x, w: F.mse_loss(x, w), f(3, 4), f(3, 4)),
    "l1": (lambda x, w: F.l1_loss(x, w), f(3, 4), f(3, 4)),
    "mul": (lambda x, w: x * w, f(3, 4), f(3, 1)),
    "bmm": (lambda x, w: x @ w, f(2, 3, 4), f(2, 4, 2)),
    "mm of three dimensions": (lambda x, w: (x @ w).mean(), f(2, 3, 4), f(4, 2)),
    "cat": (lambda x, w: torch.cat([x, w])[1:] ** 2, f(3, 4), f(2, 4)),
    "pow": (lambda x, w: x**3 * w, f(3, 4), f(3, 4)),
    "div": (lambda x, w: x / 3 * w / 0.7, f(3, 4), f(3, 4)),
    "unfold": (lambda x, w: x.unfold(0, 2, 1) * w, f(4), f(3, 2)),
    "pad": (lambda x, w: F.pad(x, (1, 1), value=2.0) * w, f(3, 4), f(3, 6)),
    "addmm": (lambda x, w: torch.addmm(w, x, x.t(), alpha=0.5), f(3, 4), f(3, 3)),
    "flatten": (lambda x, w: nn.Flatten()(x) @ w, f(2, 3, 2), f(6, 2)),
}
CASES = {
    **{f"{n}-{function.__name__}-{i}": case for n, (function, cases) in enumerate(FUNCTIONS.items()) for i, case in enumerate(cases)},
    **OTHERS,
}  # fmt: skip


def test_every_function_has_a_case():
    assert set(FUNCTIONS) | set(MORE) == set(sy.FixedPrecisionTensor.functions)


@pytest.mark.parametrize("child", CHILDREN)
@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_functions_forwards_and_backwards(parties, case, child):
    program, x, w = case
    fix = parties.fix(child)
    if child == "pointer" and "STATS" in program.__code__.co_names:
        pytest.skip("public statistics here do not meet a pointer")
    with torch.no_grad():
        assert_close(program(fix(x), fix(w)), program(x, w), 60, 1 << 16)
    if not x.numel():
        return
    x, w = x.clone().requires_grad_(), w.clone().requires_grad_()
    fixed = [fix(v.detach()).requires_grad_() for v in (x, w)]
    wanted, got = program(x, w), program(*fixed)
    wanted.sum().backward()
    got.sum().backward()
    assert_close(got, wanted, 60, 1 << 16)
    for mine, theirs in zip(fixed, (x, w), strict=True):
        assert_close(mine.grad, theirs.grad, 250, 1 << 16)


@pytest.mark.parametrize("name", ["linear", "conv2d", "conv1d"])
@pytest.mark.parametrize("secret", ["input", "weight"])
def test_public_times_shared(parties, name, secret):
    program, x, w = {"linear": FUNCTIONS[F.linear][0], "conv2d": FUNCTIONS[F.conv2d][0], "conv1d": OTHERS["conv1d"]}[name]
    fix = parties.fix("two")
    got = program(fix(x), w) if secret == "input" else program(x, fix(w))
    assert got.is_secret
    assert_close(got, program(x, w), 100, 1 << 16)


# -- networks and what they cost


class LeNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.c1, self.c2, self.f1, self.f2 = nn.Conv2d(1, 16, 5), nn.Conv2d(16, 16, 5), nn.Linear(256, 100), nn.Linear(100, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.c2(F.max_pool2d(F.relu(self.c1(x)), 2))), 2)
        return self.f2(F.relu(self.f1(x.reshape(-1, 256))))


class Served(nn.Module):
    """Three convolutions with average pools: the network of the private prediction lesson."""

    def __init__(self):
        super().__init__()
        self.c = nn.ModuleList([nn.Conv2d(i, o, 3, padding=1) for i, o in ((1, 16), (16, 32), (32, 64))])
        self.f = nn.Linear(576, 10)

    def forward(self, x):
        for c in self.c:
            x = F.avg_pool2d(c(x), 2).relu()
        return self.f(x.reshape(-1, 576))


def mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))


@pytest.mark.parametrize(("make", "rounds"), [(LeNet, 33), (Served, 17), (mlp, 12)])
def test_networks_and_their_rounds(parties, make, rounds):
    torch.manual_seed(0)
    model, images = make(), torch.rand(2, 1, 28, 28)
    fix = parties.fix("two")
    shared = copy.deepcopy(model).fix_precision().share(parties.alice, parties.bob, crypto_provider=parties.dealer)
    with torch.no_grad():
        shared(fix(images)).get()  # fixes the weights
        given = fix(images)
        with sy.mpc.count() as cost:
            got = shared(given).get()
        assert_close(got, model(images), 30, 1 << 16)
    assert cost.rounds == rounds


X, Y = torch.randn(3, 4), torch.randn(3, 4)
COSTS = {
    "add": (lambda x, y: x + y, 0), "public": (lambda x, y: x * 2 + 1.5, 0), "sum": (lambda x, y: x.sum(), 0), "mul": (lambda x, y: x * y, 2),
    "matmul": (lambda x, y: x @ y.t(), 2), "division": (lambda x, y: x / 3, 1), "mean": (lambda x, y: x.mean(), 1),
    "mean of products": (lambda x, y: (x * y).mean(), 3), "public product": (lambda x, y: x * 0.3, 1), "compare": (lambda x, y: x < y, 4),
    "equal": (lambda x, y: x == y, 4), "relu": (lambda x, y: x.relu(), 4), "relu of a product": (lambda x, y: (x * y).relu(), 5),
    "maximum": (lambda x, y: torch.maximum(x, y), 4), "max of four": (lambda x, y: x.amax(1), 8), "linear": (lambda x, y: F.linear(x, y), 3),
}  # fmt: skip


@pytest.mark.parametrize("name", COSTS)
def test_costs(parties, name):
    program, rounds = COSTS[name]
    fix = parties.fix("two")
    x, y = fix(X), fix(Y)
    with sy.mpc.count() as cost:
        program(x, y).child
    assert cost.rounds == rounds


def test_what_waits_is_done_once(parties):
    fix = parties.fix("two")
    x, y = fix(X), fix(Y)
    with sy.mpc.count() as cost:
        z = x * y
        detached = z.detach()
        first, second = detached.get().decode(), z.get().decode()
    assert cost.rounds == 2 and torch.equal(first, second)


def test_a_bias_that_masks_does_so_behind_a_fixed_weight(parties):
    """A dense layer adds it as any sum does, which notes what softmax needs to know."""
    fix = parties.fix("two")
    x, weight, bias = fix(torch.randn(4, 3)), fix(torch.randn(2, 3)), fix(torch.randn(2))
    out = F.linear(x, weight, bias.masked_fill(torch.tensor([True, False]), -1e9)).softmax(1)
    assert_close(out, torch.tensor([0.0, 1.0]).expand(4, 2), 60, 1 << 16)


def test_a_weight_is_fixed_again_after_it_was_written_to(parties):
    fix = parties.fix("two")
    x, w = fix(X), fix(Y)
    for write in (lambda: w.mul_(2), lambda: w.data.sub_(1), lambda: w.detach()[0].zero_(), lambda: w[:, 1].fill_(3)):
        assert_close(F.linear(x, w), X @ value(w)[0].t(), 30, 1 << 16)
        write()
    assert_close(F.linear(x, w), X @ value(w)[0].t(), 30, 1 << 16)
    with sy.mpc.count() as cost:
        F.linear(x, w).child
    assert cost.rounds == 2, "masked and opened once, not with every input"


# -- modules


@pytest.mark.parametrize("child", ["plain", "pointer", "two", "three"])
def test_batch_norm_and_dropout_of_a_trained_module(parties, child):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Dropout(), nn.AdaptiveAvgPool2d(1),
                          nn.Flatten(), nn.Linear(8, 4), nn.BatchNorm1d(4, affine=False))  # fmt: skip
    for _ in range(3):
        model(torch.randn(16, 3, 8, 8) * 2 + 1)
    model.eval()
    images = torch.randn(4, 3, 8, 8)
    with torch.no_grad():
        want = model(images)
    secret = copy.deepcopy(model)
    if child == "pointer":
        secret.send(parties.alice)
    secret.fix_precision()
    if child in ("two", "three"):
        secret.share(*parties.all[: 2 + (child == "three")], crypto_provider=parties.dealer)
    for twin in (secret, copy.deepcopy(secret)) if child == "two" else (secret,):
        with torch.no_grad():
            assert_close(twin(parties.fix(child)(images)), want, 40, 1 << 16)


@pytest.mark.parametrize("child", ["plain", "two"])
def test_batch_norm_in_training_is_plain_torchs(parties, child):
    """By the batch's own statistics: the result, the gradients, and the running statistics that it leaves."""
    torch.manual_seed(1)
    plain = nn.BatchNorm2d(3)
    with torch.no_grad():
        plain.weight.copy_(torch.tensor([1.0, 0.5, -2.0]))
    secret, images = copy.deepcopy(plain).train(), torch.randn(4, 3, 4, 4) * 2 + 1
    secret.fix_precision()
    if child == "two":
        secret.share(parties.alice, parties.bob, crypto_provider=parties.dealer, requires_grad=True)
    x, y = images.clone().requires_grad_(), parties.fix(child)(images).requires_grad_()
    weights = torch.linspace(-1, 1, images.numel()).view(images.shape)
    for _ in range(2):
        want, got = plain(x), secret(y)
        assert (value(got)[0] - want.detach()).abs().max() < 2e-3
    (want * weights).sum().backward()
    (got * weights).sum().backward()
    for mine, theirs in zip([y, *secret.parameters()], [x, *plain.parameters()], strict=True):
        assert (value(mine.grad)[0] - theirs.grad).abs().max() < 5e-3 * (1 + theirs.grad.abs().max())
    assert int(secret.num_batches_tracked) == 2
    for name in ("running_mean", "running_var"):
        assert (value(getattr(secret, name))[0] - getattr(plain, name)).abs().max() < 2e-3


def test_a_batch_norms_fold_follows_its_parameters(parties):
    norm = nn.BatchNorm1d(3).eval()
    norm.running_var.copy_(STATS[1])
    norm.fix_precision().share(parties.alice, parties.bob, crypto_provider=parties.dealer)
    x = f(4, 3)
    with torch.no_grad():
        before = value(norm(parties.fix("two")(x)))[0]
        norm.weight.mul_(3)
        assert_close(norm(parties.fix("two")(x)), before * 3, 40, 1 << 16)
        norm.running_var.add_(1)
        want = before * 3 * (STATS[1] / (STATS[1] + 1)).sqrt()
        assert_close(norm(parties.fix("two")(x)), want, 60, 1 << 16)


@pytest.mark.parametrize(
    ("layer", "image"),
    [
        (nn.LPPool2d(3, 2), f(1, 1, 5, 5)),
        (nn.MaxPool2d(2, return_indices=True), f(1, 1, 5, 5)),
        (nn.AdaptiveMaxPool2d(2, return_indices=True), f(1, 1, 5, 5)),
        (nn.LSTM(3, 2, proj_size=1), f(1, 2, 3)),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, nn.Module) else "",
)
def test_layers_that_have_no_secret_form_are_refused_by_name(parties, layer, image):
    shared = copy.deepcopy(layer).fix_precision().share(parties.alice, parties.bob, crypto_provider=parties.dealer)
    with pytest.raises(NotImplementedError, match="FixedPrecisionTensor knows|FixedPrecisionTensor does not know|secret sharing convolves"):
        shared(parties.fix("two")(image))


def test_shapes_and_groups_are_checked_before_anything_is_sent(parties):
    fix, other = parties.fix("two"), parties.fix("three")
    with pytest.raises(RuntimeError, match="channels"):
        F.conv2d(fix(f(1, 2, 4, 4)), fix(f(3, 3, 3, 3)))
    with pytest.raises(RuntimeError, match="smaller than the kernel"):
        F.conv2d(fix(f(1, 2, 2, 2)), fix(f(3, 2, 3, 3)))
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        fix(X) @ fix(Y)
    for program in (lambda: F.linear(fix(X), other(Y)), lambda: F.conv2d(fix(f(1, 2, 4, 4)), other(f(3, 2, 3, 3))), lambda: fix(X) * other(Y)):
        with pytest.raises(TensorsNotCollocatedError, match="share\\(\\) both"):
            program()


# -- training


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_training_follows_plain_training(parties, momentum):
    torch.manual_seed(1)
    x, target = torch.randn(16, 4), torch.randn(16, 2)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    secret = copy.deepcopy(model).fix_precision()
    secret.share(parties.alice, parties.bob, crypto_provider=parties.dealer, requires_grad=True)
    data, goal = parties.fix("two")(x), parties.fix("two")(target)
    losses = {}
    for name, net, given, wanted in (("plain", model, x, target), ("secret", secret, data, goal)):
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=momentum).fix_precision()
        for _ in range(10):
            optimizer.zero_grad()
            loss = F.mse_loss(net(given), wanted)
            loss.backward()
            optimizer.step()
            losses.setdefault(name, []).append(value(loss)[0].item())
    assert losses["secret"] == pytest.approx(losses["plain"], abs=2e-3) and losses["plain"][-1] < losses["plain"][0]
    secret.get().float_precision()
    for mine, theirs in zip(secret.parameters(), model.parameters(), strict=True):
        assert type(mine.data) is torch.Tensor and torch.allclose(mine, theirs, atol=5e-3)


def test_a_convolutional_network_trains(parties):
    torch.manual_seed(2)
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(2, 2, 3), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(2, 1))
    x, target = torch.rand(4, 1, 8, 8), torch.rand(4, 1)
    secret = copy.deepcopy(model).encrypt(workers=[parties.alice, parties.bob], crypto_provider=parties.dealer, requires_grad=True)
    for net, given, wanted in ((model, x, target), (secret, parties.fix("two")(x), parties.fix("two")(target))):
        optimizer = torch.optim.SGD(net.parameters(), lr=0.2)
        for _ in range(3):
            optimizer.zero_grad()
            ((net(given) - wanted) ** 2).mean().backward()
            optimizer.step()
    for mine, theirs in zip(secret.decrypt().parameters(), model.parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=2e-3)
