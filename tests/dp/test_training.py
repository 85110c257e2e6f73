"""DP-SGD: what a step draws, how much noise it adds, what it claims."""

from __future__ import annotations

import copy
import math
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import syftlite as sy
from syftlite.dp import training
from syftlite.dp.training import most_rows, noised_sums, sample
from syftlite.errors import ConfigurationError


def problem(n=400):
    x = torch.randn(n, 5)
    return nn.Linear(5, 2), x, (x.sum(1) > 0).long()


class Single(nn.Module):
    """Goes on in single precision."""

    def forward(self, x):
        return x.float().relu()


def test_it_learns():
    model, x, y = problem()
    optimizer = sy.dp.DPOptimizer(torch.optim.SGD(model.parameters(), lr=0.5), l2_norm_clip=1.0, noise_multiplier=1.0, batch_size=100)
    for _ in range(60):
        optimizer.step(lambda x, y: F.cross_entropy(model(x), y), x, y)
    assert float((model(x).argmax(1) == y).double().mean()) > 0.85
    assert 0 < optimizer.epsilon(1e-5) < optimizer.epsilon(1e-5, conversion="mironov")


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.RMSprop])
def test_any_optimizer(optimizer):
    model, x, y = problem()
    before = model.weight.detach().clone()
    private = sy.dp.DPOptimizer(optimizer(model.parameters(), lr=0.01), l2_norm_clip=1.0, noise_multiplier=1.0)
    private.step(lambda x, y: F.cross_entropy(model(x), y), x, y)
    assert not torch.equal(before, model.weight)
    private.zero_grad()
    assert model.weight.grad is None


def test_the_noise_is_as_claimed_and_on_the_grid():
    sums = [torch.zeros(300, 500), torch.zeros(500)]
    noised = noised_sums(sums, clip=2.0, noise_multiplier=1.5, rows=100)
    flat = torch.cat([n.flatten() for n in noised]).double()
    exact = 1.5 * 2.0 * (1 + 100**2 * 2.0**-24 + math.sqrt(150_500) / 2**16)
    assert float(flat.std()) == pytest.approx(exact, rel=0.01)
    steps = flat / (2.0 / 2**16)
    assert bool((steps == steps.round()).all())
    assert [n.shape for n in noised] == [s.shape for s in sums]


def test_a_sample_takes_each_row_with_the_rate():
    sizes = torch.tensor([len(sample(1000, 0.1)) for _ in range(300)]).double()
    assert float(sizes.mean()) == pytest.approx(100, abs=4) and float(sizes.var()) == pytest.approx(90, rel=0.4)
    assert sample(5, 1.0).tolist() == [0, 1, 2, 3, 4]
    counts = torch.zeros(50)
    for _ in range(400):
        counts[sample(50, 0.5)] += 1
    assert float(counts.min()) > 130 and float(counts.max()) < 270


def test_batches_are_cut_where_hardly_any_is_that_large():
    from scipy import stats

    for batch in (1, 16, 256, 4096):
        assert stats.poisson.sf(most_rows(batch), batch) < 1e-12


def test_an_empty_sample_is_noise_alone(monkeypatch):
    monkeypatch.setattr(training, "sample", lambda count, rate: torch.arange(0))
    model, x, y = problem()
    private = sy.dp.DPOptimizer(torch.optim.SGD(model.parameters(), lr=1.0), l2_norm_clip=1.0, noise_multiplier=1.0, batch_size=2)
    private.step(lambda x, y: F.cross_entropy(model(x), y), x, y)
    assert bool(model.weight.grad.any())


def test_neighbouring_gradients_are_told_apart_no_better_than_claimed(monkeypatch):
    """The outcome that tells most, along the example's gradient; noise of half the size is caught."""
    from tests.dp.test_privacy import lower_bound

    x = torch.zeros(1, 4)
    x[0, 0] = 100.0
    weight = torch.zeros(4, requires_grad=True)

    def runs(data, noise):
        gradient = training.Clipper([weight]).sums(lambda x: (x @ weight).sum(), [data], 1.0)[0] if len(data) else [torch.zeros(4)]
        many = [gradient[0].expand(50_000, 4)[:, 0].contiguous()]
        return noised_sums(many, 1.0, noise, 64)[0].double()

    # 50,000 coordinates at once round more than one does: the claim is checked at the noise that one release of them has
    delta, noise = 1e-3, 2.0
    claimed = sy.dp.tight(sy.dp.rdp([sy.dp.gaussian(noise)]), delta)
    assert lower_bound(runs(x[:0], noise), runs(x, noise), delta) <= claimed
    assert lower_bound(runs(x[:0], noise / 2), runs(x, noise / 2), delta) > claimed


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"l2_norm_clip": 0.0, "noise_multiplier": 1.0}, "l2_norm_clip"),
        ({"l2_norm_clip": 1.0, "noise_multiplier": 0.0}, "noise_multiplier"),
        ({"l2_norm_clip": 1.0, "noise_multiplier": 1.0, "batch_size": 0.5}, "batch_size"),
    ],
)
def test_what_makes_no_sense_is_refused(options, words):
    model, x, y = problem()
    with pytest.raises(ConfigurationError, match=words):
        sy.dp.DPOptimizer(torch.optim.SGD(model.parameters(), lr=1.0), **options)


def test_misuse_of_a_step_is_named():
    model, x, y = problem()
    private = sy.dp.DPOptimizer(torch.optim.SGD(model.parameters(), lr=1.0), l2_norm_clip=1.0, noise_multiplier=1.0)
    with pytest.raises(ConfigurationError, match="a row for each example"):
        private.step(lambda x, y: model(x).sum(), x, y[:3])
    with pytest.raises(ConfigurationError, match="conversion"):
        private.epsilon(1e-5, conversion="gdp")
    assert private.epsilon(1e-5) == 0.0


@pytest.mark.parametrize("conversion", ["tight", "mironov"])
def test_so_little_noise_that_it_promises_nothing_costs_infinity(conversion):
    model = nn.Linear(100, 2)
    x, y = torch.randn(20, 100), torch.randint(0, 2, (20,))
    costs = []
    for noise in (1.0, 1e-2, 1e-6):
        private = sy.dp.DPOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), l2_norm_clip=1.0, noise_multiplier=noise, batch_size=10)
        private.step(lambda x, y: F.cross_entropy(model(x), y), x, y)
        costs.append(private.epsilon(1e-5, conversion=conversion))
    assert 0 < costs[0] < 10 and costs[1:] == [math.inf, math.inf]
    with pytest.raises(ConfigurationError, match="take a larger one"):
        private.epsilon(1e-32)


def test_one_step_alone_is_an_optimizers_step_and_tells_its_cost():
    model = nn.Linear(3, 2)
    x, y = torch.randn(50, 3), torch.randint(0, 2, (50,))
    loss = lambda x, y: nn.functional.cross_entropy(model(x), y)  # noqa: E731
    before = model.weight.detach().clone()
    cost = sy.dp.private_step(torch.optim.SGD(model.parameters(), lr=0.5), loss, x, y, l2_norm_clip=1.0, noise_multiplier=1e-4)
    assert cost == sy.dp.gaussian(1e-4)
    assert 0 < float((model.weight.detach() - before).norm()) <= 0.5 * 1.01


def test_its_state_goes_on_and_its_rate_follows_a_schedule():
    def make(model):
        momentum = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
        return sy.dp.DPOptimizer(momentum, l2_norm_clip=1.0, noise_multiplier=1.0, batch_size=10)

    model = nn.Linear(3, 2)
    x, y = torch.randn(50, 3), torch.randint(0, 2, (50,))
    first, second = make(model), make(model)
    schedule = torch.optim.lr_scheduler.StepLR(first.optimizer, 1, gamma=0.1)
    for _ in range(2):
        first.step(lambda x, y: nn.functional.cross_entropy(model(x), y), x, y)
        schedule.step()
    assert first.param_groups[0]["lr"] == pytest.approx(0.005)
    second.load_state_dict(first.state_dict())
    assert second.epsilon(1e-5) == first.epsilon(1e-5) > 0 and second.param_groups[0]["lr"] == first.param_groups[0]["lr"]
    held = [o.optimizer.state[model.weight]["momentum_buffer"] for o in (first, second)]
    assert torch.equal(*held)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_few_bits_are_refused(dtype, bob):
    """In bfloat16 the clipped sums of 1,195 and of 1,196 rows of ones are 8 clips apart."""
    for model in (nn.Linear(4, 1).to(dtype), nn.Linear(4, 1).to(dtype).send(bob)):
        with pytest.raises(ConfigurationError, match=f"{str(dtype)[6:]}.*model.float"):
            sy.dp.DPOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), l2_norm_clip=1.0, noise_multiplier=1.0)


def test_parameters_that_come_and_go_are_followed():
    torch.manual_seed(0)
    first, second = nn.Linear(3, 3), nn.Linear(3, 1)
    inner = torch.optim.SGD(first.parameters(), lr=0.1)
    optimizer = sy.dp.DPOptimizer(inner, l2_norm_clip=1.0, noise_multiplier=1.0)
    inner.add_param_group({"params": second.parameters()})
    first.weight.requires_grad_(False)
    before = [p.detach().clone() for p in (first.weight, first.bias, second.weight, second.bias)]
    optimizer.step(lambda x: second(first(x)).sum(), torch.randn(20, 3))
    moved = [not torch.equal(b, p) for b, p in zip(before, (first.weight, first.bias, second.weight, second.bias), strict=True)]
    assert moved == [False, True, True, True]


@pytest.mark.parametrize("make", [lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), lambda p: torch.optim.Adam(p, lr=0.1)])
def test_a_parameter_that_was_frozen_stays_where_it_is(make):
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
    optimizer = sy.dp.DPOptimizer(make(model.parameters()), l2_norm_clip=1.0, noise_multiplier=1.0)
    step = lambda: optimizer.step(lambda x: model(x).sum(), torch.randn(20, 3))  # noqa: E731
    step()
    model[0].weight.requires_grad_(False)
    frozen, bias = model[0].weight.clone(), model[0].bias.detach().clone()
    step(), step()
    assert torch.equal(model[0].weight, frozen) and not torch.equal(model[0].bias, bias)
    model[0].weight.requires_grad_(True)
    step()
    assert not torch.equal(model[0].weight, frozen)


TERMS = {"l2_norm_clip": 1.0, "noise_multiplier": 1.0}


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda m: sy.dp.DPOptimizer(m, **TERMS), "around a torch optimizer, .* not Linear"),
        (lambda m: sy.dp.DPOptimizer(torch.optim.SGD, **TERMS), "around a torch optimizer"),
        (lambda m: sy.dp.DPOptimizer(torch.optim.LBFGS(m.parameters()), **TERMS), "LBFGS looks at the loss more than once"),
        *[
            (lambda m, name=name, value=value: sy.dp.DPOptimizer(torch.optim.SGD(m.parameters()), **{**TERMS, name: value}), f"{name}={value!r}")
            for name in (*TERMS, "batch_size") for value in ("a", 1j)
        ],
    ],
)  # fmt: skip
def test_what_makes_no_private_optimizer_is_named(make, match):
    with pytest.raises(ConfigurationError, match=match):
        make(torch.nn.Linear(2, 1))


@pytest.mark.parametrize(
    ("use", "match"),
    [
        (lambda o: o.step(None, torch.ones(4, 2)), "the loss is a function, such as"),
        (lambda o: o.step(torch.zeros(()), torch.ones(4, 2)), "the loss is a function, such as"),
        (lambda o: o.step(lambda x: x.sum(), torch.ones(4, 2).numpy()), "takes tensors, not ndarray"),
        (lambda o: o.step(lambda x: x.sum(), [1.0]), "takes tensors, not list"),
        (lambda o: o.load_state_dict({}), "no state_dict"),
        (lambda o: o.load_state_dict(o.optimizer.state_dict()), "optimizer.load_state_dict"),
        (lambda o: o.epsilon(2), "delta lies between"),
        (lambda o: o.epsilon("a"), "delta lies between"),
    ],
)
def test_what_is_no_private_step_is_named_and_costs_nothing(use, match):
    optimizer = sy.dp.DPOptimizer(torch.optim.SGD(torch.nn.Linear(2, 1).parameters(), lr=0.1), **TERMS)
    with pytest.raises(ConfigurationError, match=match):
        use(optimizer)
    assert optimizer.epsilon(1e-5) == 0.0


LOSSES = {
    "dict": (lambda m, x, y: {"loss": F.mse_loss(m(x), y)}, "it gave dict"),
    "nothing": (lambda m, x, y: None, "it gave NoneType"),
    "several": (lambda m, x, y: m(x), "one number"),
    "detached": (lambda m, x, y: F.mse_loss(m(x).detach(), y), "does not depend on the parameters"),
}


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_that_trains_nothing_is_told_wherever_it_is(name, there):
    """Steps of noise alone would be charged otherwise."""
    loss, match = LOSSES[name]
    model, x, y, bob = nn.Linear(3, 2), torch.randn(5, 3), torch.randn(5, 2), sy.VirtualWorker(id=f"trains nothing {name}")
    if there:
        model, x, y = model.send(bob), x.send(bob), y.send(bob)
    optimizer = sy.dp.DPOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), **TERMS)
    with pytest.raises(ConfigurationError, match=match):
        optimizer.step(lambda x, y: loss(model, x, y), x, y)


LAYERS = {
    "batch norm": (lambda: nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)), torch.randn(5, 3), "GroupNorm"),
    "statistics": (lambda: nn.Sequential(nn.Conv1d(1, 2, 1), nn.InstanceNorm1d(2, track_running_stats=True)), torch.randn(5, 1, 4), "GroupNorm"),
    "sparse": (lambda: nn.Embedding(9, 3, sparse=True), torch.arange(5), "sparse=False"),
}


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_that_keeps_no_rows_apart_is_told_wherever_it_is(name, there):
    make, x, match = LAYERS[name]
    model, bob = make(), sy.VirtualWorker(id=f"no rows apart {name}")
    if there:
        model, x = model.send(bob), x.send(bob)
    optimizer = sy.dp.DPOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), **TERMS)
    with pytest.raises(ConfigurationError, match=match):
        optimizer.step(lambda x: model(x).square().sum(), x)


@pytest.mark.parametrize("there", [False, True])
def test_a_step_takes_gradients_also_where_none_are_taken(there):
    model, x, bob = nn.Linear(3, 1), torch.randn(5, 3), sy.VirtualWorker(id="no gradients")
    if there:
        model, x = model.send(bob), x.send(bob)
    optimizer = sy.dp.DPOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), **TERMS)
    before = model.weight.detach().clone()
    with torch.no_grad():
        optimizer.step(lambda x: model(x).sum().exp(), x)
    assert bool((model.weight != before).any())


def trained(there, loss, make, *data, around=nullcontext, within=nullcontext):
    """The parameters after two steps with hardly any noise."""
    model, bob = make(), sy.VirtualWorker(id="trained")
    if there:
        model, data = model.send(bob), [d.send(bob) for d in data]
    optimizer = sy.dp.DPOptimizer(torch.optim.SGD(model.parameters(), lr=0.3), l2_norm_clip=0.5, noise_multiplier=1e-5)

    def of_one(*row):
        with within():
            return loss(model, *row)

    with around():
        for _ in range(2):
            optimizer.step(of_one, *data)
    return [p.detach().double() for p in (model.get() if there else model).parameters()]


@pytest.mark.parametrize("there", [False, True])
def test_a_step_is_what_it_is_whatever_is_on_around_it(there):
    first, (_, x, y) = nn.Sequential(nn.Linear(5, 4).double(), Single(), nn.Linear(4, 2)), problem(20)
    make, loss = (lambda: copy.deepcopy(first)), (lambda m, x, y: F.cross_entropy(m(x), y))
    usual = trained(there, loss, make, x.double(), y)
    assert not torch.allclose(usual[0], first[0].weight, atol=1e-2)
    for around in (nullcontext, lambda: torch.device("cpu")):  # a mode, which sees functions
        torch.testing.assert_close(trained(not there, loss, make, x.double(), y, around=around), usual, rtol=0, atol=1e-3)
    whole = lambda: torch.autocast("cpu", torch.bfloat16)  # noqa: E731
    half = [trained(there, loss, lambda: make().float(), x, y, **where) for where in ({"around": whole}, {"within": whole})]
    torch.testing.assert_close(half[0], half[1], rtol=0, atol=1e-3)
    torch.testing.assert_close(half[0], usual, rtol=0, atol=2e-2)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_a_loss_whose_parts_cut_gradients_off_is_as_here():
    """CTC's of what is not normalised."""
    first, x, y = nn.Linear(5, 4), torch.randn(6, 7, 5), torch.randint(1, 4, (6, 2))

    def loss(model, x, y):
        return F.ctc_loss(model(x).transpose(0, 1), y, (7,), (2,))

    here, there = (trained(t, loss, lambda: copy.deepcopy(first), x, y) for t in (False, True))
    torch.testing.assert_close(here, there, rtol=0, atol=1e-3)
