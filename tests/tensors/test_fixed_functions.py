"""Functions in fixed precision: as plain torch's, forwards and backwards, over every child; their errors over their whole range, as
docs/encrypted.md states them; their cost."""

from __future__ import annotations

import pytest
import torch
from _fixed_cases import FUNCTIONS
from _sharing import Parties, assert_close, value
from torch import nn
from torch.nn import functional as F

import syftlite as sy
from syftlite.errors import Misuse

CASES = {f"{n}-{function.__name__}-{i}": case for n, (function, cases) in enumerate(FUNCTIONS.items()) for i, case in enumerate(cases)}
PUBLIC = ("TARGET", "MASK", "binary_cross_entropy_with_logits", "is_causal", "use_input_stats")
"""Names of cases with a local operand, which meets no pointer."""
UNIT = 2.0**-16


@pytest.fixture(scope="module")
def parties():
    parties = Parties("functions")
    yield parties
    parties.close()


def near(got, want, units, relative):
    """Within ``units`` and ``relative`` of the largest."""
    assert_close(got, want, units + relative * want.detach().abs().max().item() / UNIT, 1 << 16)


@pytest.mark.parametrize("child", ["plain", "pointer", "two", "three", "replicated"])
@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_functions_forwards_and_backwards(parties, case, child):
    program, x, w = case
    fix = parties.fix(child)
    code = program.__code__
    if child == "pointer" and any(name in (*code.co_names, *str(code.co_consts).split("'")) for name in PUBLIC):
        pytest.skip("what is here does not meet a pointer")
    with torch.no_grad():
        near(program(fix(x), fix(w)), program(x, w), 60, 1e-3)
    x, w = x.clone().requires_grad_(), w.clone().requires_grad_()
    fixed = [fix(v.detach()).requires_grad_() for v in (x, w)]
    wanted, got = program(x, w), program(*fixed)
    wanted.sum().backward()
    got.sum().backward()
    near(got, wanted, 60, 1e-3)
    for mine, theirs in zip(fixed, (x, w), strict=True):
        if theirs.grad is not None:
            near(mine.grad, theirs.grad, 250, 2e-3)


def line(low, high, count=4001):
    return (torch.linspace(low, high, count, dtype=torch.float64) / UNIT).round() * UNIT


def shared(parties, x):
    return x.float().fix_precision().share(parties.alice, parties.bob, crypto_provider=parties.dealer)


def errors(parties, function, x):
    """(absolute errors beyond a unit, the right values)."""
    x = (x.double() / UNIT).round() * UNIT
    got = value(function(shared(parties, x)))[0].double()
    want = function(x)
    return ((got - want).abs() - UNIT).clamp(min=0), want.abs()


BOUNDS = {
    "exp": (torch.exp, line(-109, 10), UNIT / 4, 1e-5),
    "exp, about 0": (torch.exp, line(-4, 4), UNIT / 4, 1e-5),
    "reciprocal": (torch.reciprocal, torch.logspace(-2, 3, 4001), 0, 3e-4),
    "reciprocal, negative": (torch.reciprocal, -torch.logspace(-2, 3, 4001), 0, 3e-4),
    "rsqrt": (torch.rsqrt, torch.logspace(-3, 4, 4001), 0, 2e-4),
    "sqrt": (torch.sqrt, torch.logspace(-3, 4, 4001), 0, 1e-4),
    "log": (torch.log, torch.logspace(-3, 4, 4001), 1e-4, 0),
    "log2": (torch.log2, torch.logspace(-3, 4, 4001), 2e-4, 0),
    "log10": (torch.log10, torch.logspace(-3, 4, 4001), 2e-4, 0),
    "log1p": (torch.log1p, torch.logspace(-3, 4, 4001) - 1 + UNIT, 2e-4, 0),
    "exp2": (torch.exp2, line(-100, 14), UNIT, 5e-5),
    "2 ** x": (lambda x: 2**x, line(-100, 14), UNIT, 5e-5),
    "expm1": (torch.expm1, line(-109, 10), 5e-5, 5e-5),
    "elu": (F.elu, torch.cat([line(-109, 10), line(10, 1e6)]), 1e-4, 1e-6),
    "selu": (F.selu, torch.cat([line(-109, 10), line(10, 1e6)]), 1e-4, 2e-6),
    "gelu, tanh": (lambda x: F.gelu(x, approximate="tanh"), torch.cat([line(-30, 30), line(-1000, 1000)]), 1e-3, 0),
    "sigmoid": (torch.sigmoid, torch.cat([line(-30, 30), line(-1e6, 1e6)]), 5e-5, 0),
    "tanh": (torch.tanh, torch.cat([line(-30, 30), line(-1e6, 1e6)]), 1e-4, 0),
    "silu": (F.silu, torch.cat([line(-30, 30), line(-1e4, 1e4)]), 5e-4, 1e-6),
    "gelu": (F.gelu, torch.cat([line(-30, 30), line(-1e4, 1e4)]), 2e-4, 1e-6),
}
"""The function, where, and how far it may be off besides one unit: absolutely, and relatively. docs/encrypted.md states these."""


@pytest.mark.parametrize("case", BOUNDS.values(), ids=list(BOUNDS))
def test_errors_are_within_what_is_stated(parties, case):
    function, x, absolute, relative = case
    off, want = errors(parties, function, x)
    assert (off <= absolute + relative * want).all(), f"{off.max()}, {(off / want.clamp(min=UNIT)).max()}"


@pytest.mark.parametrize("classes", [1, 2, 4, 5, 10, 16, 17, 100])
def test_softmax_is_within_what_is_stated(parties, classes):
    x = torch.randn(40, classes, generator=torch.Generator().manual_seed(classes)) * torch.logspace(-1, 1.5, 40)[:, None]
    assert errors(parties, lambda v: F.softmax(v, 1), x)[0].max() <= 5e-4
    assert errors(parties, lambda v: F.log_softmax(v, 1), x)[0].max() <= 5e-4


def test_softmax_of_scores_far_apart(parties):
    x = torch.tensor([[0.0, 490.0, 3.0], [-240.0, 200.0, 250.0], [100.0, 100.0, 100.0]])
    assert errors(parties, lambda v: F.softmax(v, 1), x)[0].max() <= 5e-4


def test_quotients_are_as_exact_as_their_operands(parties):
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(4000, generator=generator) * 300, torch.logspace(-2, 3, 4000)[torch.randperm(4000, generator=generator)]
    y = y * torch.randn(4000, generator=generator).sign()
    x = torch.where((x / y).abs() < 8000, x, y * 8000)
    got = value(shared(parties, x) / shared(parties, y))[0].double()
    want = (x.double() / UNIT).round() / (y.double() / UNIT).round()
    assert ((got - want).abs() <= 5e-4 * want.abs() + 6 * UNIT).all()


@pytest.mark.parametrize("scheme", [{"base": 10, "precision_fractional": 3}, {"precision_fractional": 20}, {"precision_fractional": 10}])
@pytest.mark.parametrize("name", ["exp", "log", "sqrt", "rsqrt", "reciprocal", "sigmoid", "tanh"])
def test_other_scales(parties, scheme, name):
    x = torch.linspace(0.5, 4, 200)
    fixed = x.fix_precision(**scheme).share(parties.alice, parties.bob, crypto_provider=parties.dealer)
    unit = 1 / fixed.scale
    got = value(getattr(fixed, name)())[0]
    want = getattr((x / unit).round() * unit, name)()
    assert ((got - want).abs() <= 3e-4 * want.abs().clamp(min=0.3) + 3 * unit).all()


def test_too_fine_a_scale_says_so(parties):
    x = torch.ones(3).fix_precision(precision_fractional=28).share(parties.alice, parties.bob, crypto_provider=parties.dealer)
    with pytest.raises(ValueError, match="22 bits after the point"):
        x.exp()


ROUNDS = {
    "exp": (torch.exp, 2), "log": (torch.log, 8), "sqrt": (torch.sqrt, 9), "rsqrt": (torch.rsqrt, 9), "reciprocal": (torch.reciprocal, 9),
    "sigmoid": (torch.sigmoid, 5), "tanh": (torch.tanh, 5), "silu": (F.silu, 7), "gelu": (F.gelu, 7), "quotient": (lambda x: x / x, 10),
    "softmax": (lambda x: F.softmax(x, 1), 11), "log_softmax": (lambda x: F.log_softmax(x, 1), 10), "var": (lambda x: x.var(1), 4),
    "std": (lambda x: x.std(1), 13), "layer_norm": (lambda x: F.layer_norm(x, (10,)), 15), "sort": (lambda x: x.sort(1)[0], 6),
    "prod": (lambda x: x.prod(1), 8), "attention": (lambda x: F.scaled_dot_product_attention(x, x, x), 16),
}  # fmt: skip


@pytest.mark.parametrize("case", ROUNDS.values(), ids=list(ROUNDS))
def test_rounds(parties, case):
    function, rounds = case
    x = shared(parties, torch.rand(3, 10) + 0.5)
    with sy.mpc.count() as cost, torch.no_grad():
        result = function(x)
        result.child
    assert cost.rounds == rounds


# -- order and secret indices


@pytest.mark.parametrize("child", ["plain", "two", "three", "replicated"])
def test_sorting(parties, child):
    x = torch.tensor([[3.0, -1.0, 2.0, 3.0, 0.5], [0.0, 0.0, 0.0, -1.0, 7.0]])
    fixed = parties.fix(child)(x)
    for descending in (False, True):
        ordered, places = fixed.sort(dim=1, descending=descending)
        want = x.sort(dim=1, descending=descending, stable=True)
        assert torch.equal(value(ordered)[0], want[0])
        if child != "plain":
            assert torch.equal(value(places)[0], want[1])
            assert torch.equal(value(fixed.argsort(1, descending))[0], want[1])
    best, places = fixed.topk(2, 0)
    assert torch.equal(value(best)[0], x.topk(2, 0)[0])
    assert torch.equal(value(places)[0], x.topk(2, 0)[1])


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("child", ["plain", "two"])
def test_results_have_names(parties, child, requires_grad):
    x = torch.tensor([[3.0, -1.0, 2.0], [0.0, 5.0, -7.0]])
    fixed = parties.fix(child)(x).requires_grad_(requires_grad)
    for name, program in {
        "max": lambda v: v.max(1), "min": lambda v: v.min(1), "sort": lambda v: v.sort(1), "topk": lambda v: torch.topk(v, 2),
    }.items():  # fmt: skip
        got, want = program(fixed), program(x)
        assert type(got) is type(want) is getattr(torch.return_types, name)
        assert torch.equal(value(got.values)[0], want.values) and torch.equal(value(got.indices)[0], want.indices)


def test_what_cannot_be_sorted_says_so(parties):
    x = shared(parties, torch.tensor([2.0]))
    assert value(x[0].sort()) == [2.0, 0]
    for program in (lambda: x.topk(2), lambda: x.topk(-1), lambda: x[:0].topk(1)):
        with pytest.raises(ValueError, match=r"topk over axis -?\d of shape \([01],\): -?\d elements are wanted"):
            program()
    for program in (lambda: x.quantile(1.5), lambda: x.quantile(x), lambda: x.quantile(torch.ones(1, 1))):
        with pytest.raises(Misuse, match="q is public, one number from 0 to 1"):
            program()
    for program in (lambda: x[:0].quantile(0.5), lambda: x[:0].median(), lambda: x.kthvalue(2)):
        with pytest.raises(RuntimeError, match=r"no elements?"):
            program()


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("child", ["plain", "two", "replicated"])
@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)], ids=str)
def test_nothing_is_in_order_as_it_is(parties, shape, child, requires_grad):
    x = torch.zeros(shape)
    for program in (lambda v: v.sort(0), lambda v: v.sort(-1, descending=True), lambda v: v.msort(), lambda v: v.argsort(), lambda v: v.topk(0)):
        fixed = parties.fix(child)(x).requires_grad_(requires_grad)
        for mine, theirs in zip(value(program(fixed)), value(program(x)), strict=True):
            assert mine.shape == theirs.shape and mine.dtype == theirs.dtype
    ordered = fixed.sort(0)[0]
    assert ordered.requires_grad == requires_grad


@pytest.mark.parametrize("holders", [2, 3])
def test_a_secret_index_chooses_rows(parties, holders):
    at, table = parties.all[:holders], torch.randn(7, 3)
    index = torch.tensor([[0, 6, 3], [2, 2, 5]])
    secret = index.share(*at, crypto_provider=parties.dealer)
    weight = table.fix_precision().share(*at, crypto_provider=parties.dealer, requires_grad=True)
    with sy.mpc.count() as cost, torch.no_grad():
        chosen = F.embedding(secret, weight)
    assert cost.rounds == 2
    assert_close(chosen, table[index], 1, 1 << 16)
    F.embedding(secret, weight).sum().backward()
    assert_close(weight.grad, torch.bincount(index.reshape(-1), minlength=7)[:, None].expand(7, 3).float(), 1, 1 << 16)


def test_a_secret_target(parties):
    x, target = torch.randn(4, 5), torch.tensor([4, 0, 2, 2])
    secret = target.share(parties.alice, parties.bob, crypto_provider=parties.dealer)
    near(F.cross_entropy(shared(parties, x), secret), F.cross_entropy(x, target), 60, 1e-3)


@pytest.mark.parametrize("how", [{"weight": torch.tensor([1.0, 2.0, 0.5, 1.5, 3.0])}, {"label_smoothing": 0.25}])
def test_a_secret_target_with_weights(parties, how):
    x, target = torch.randn(4, 5), torch.tensor([4, 0, 2, 2])
    secret = target.share(parties.alice, parties.bob, crypto_provider=parties.dealer)
    near(F.cross_entropy(shared(parties, x), secret, **how), F.cross_entropy(x, target, **how), 80, 2e-3)


@pytest.mark.parametrize(
    ("target", "how", "error", "text"),
    [
        (torch.tensor([0, 5]), {}, IndexError, r"cross_entropy: a target is 5, where scores \(2, 3\) are of classes 0 \.\.\. 2, and ignore_index is -100"),
        (torch.tensor([0, -1]), {"ignore_index": 7}, IndexError, "cross_entropy: a target is -1"),
        (torch.tensor([0.0, 1.0]), {}, ValueError, r"cross_entropy: targets \(2,\) are no probabilities of scores \(2, 3\): classes are whole numbers"),
        (torch.tensor([0, 1]), {"reduction": "some"}, ValueError, "not 'some'"),
        (torch.tensor([-100, -100]), {}, ZeroDivisionError, "the divisor is 0"),
    ],
)  # fmt: skip
def test_targets_that_cannot_be(parties, target, how, error, text):
    with pytest.raises(error, match=text):
        F.cross_entropy(shared(parties, torch.randn(2, 3)), target, **how)


def test_secret_targets_that_cannot_be(parties):
    x, target = shared(parties, torch.randn(2, 3)), torch.tensor([0, 1])
    with pytest.raises(NotImplementedError, match="cross_entropy with ignore_index of public targets"):
        F.cross_entropy(x, target.share(parties.alice, parties.bob, crypto_provider=parties.dealer), ignore_index=1)
    with pytest.raises(ValueError, match=r"int64, which share\(\) takes without fix_precision"):
        F.cross_entropy(x, shared(parties, target.float()))
    with pytest.raises(NotImplementedError, match=r"pow of public bases above 0, and not of -2"):
        (-2) ** x


def test_an_index_in_fixed_precision_says_what_to_do(parties):
    with pytest.raises(ValueError, match="without fix_precision"):
        F.embedding(shared(parties, torch.tensor([1.0])), shared(parties, torch.randn(4, 2)))


# -- modules


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.GELU(), nn.Linear(6, 3), nn.Softmax(-1)),
        lambda: nn.Sequential(nn.Linear(4, 6), nn.SiLU(), nn.Linear(6, 3), nn.Tanh(), nn.LogSoftmax(-1)),
        lambda: nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True),
        lambda: nn.TransformerEncoderLayer(4, 1, 8, dropout=0.0, activation="gelu", norm_first=True),
    ],
)
def test_modules(parties, make):
    torch.manual_seed(1)
    model, x = make(), torch.randn(2, 3, 4)
    want = model(x)
    want.sum().backward()
    mine = make()
    mine.load_state_dict(model.state_dict())
    mine.fix_precision().share(parties.alice, parties.bob, crypto_provider=parties.dealer, requires_grad=True)
    got = mine(shared(parties, x))
    near(got, want.detach(), 150, 2e-3)
    got.sum().backward()
    for p, q in zip(mine.parameters(), model.parameters(), strict=True):
        near(p.grad, q.grad, 1000, 1e-2)
    with torch.no_grad():
        near(mine(shared(parties, x)), want.detach(), 150, 2e-3)


@pytest.mark.parametrize("make", [lambda: nn.BatchNorm1d(4), lambda: nn.BatchNorm1d(4, affine=False), lambda: nn.BatchNorm1d(4, track_running_stats=False)])
def test_batch_norm_in_training(parties, make):
    x = torch.randn(16, 4, generator=torch.Generator().manual_seed(3)) * 2 + 1
    plain, mine = make(), make()
    mine.fix_precision().share(parties.alice, parties.bob, crypto_provider=parties.dealer)
    for _ in range(3):
        want, got = plain(x), mine(shared(parties, x))
        near(got, want.detach(), 60, 1e-3)
    plain.eval(), mine.eval()
    near(mine(shared(parties, x)), plain(x).detach(), 60, 2e-3)


@pytest.mark.parametrize(
    "make", [lambda p: torch.optim.SGD(p, 0.01, momentum=0.9, weight_decay=0.01), lambda p: torch.optim.Adam(p, 0.05, betas=(0.9, 0.95), eps=2**-6)]
)
def test_training_follows_plain_training(parties, make):
    torch.manual_seed(5)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.LayerNorm(5), nn.Linear(5, 3))
    x, y = torch.randn(12, 4), torch.arange(12) % 3
    losses = []
    for secret in (False, True):
        mine = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.LayerNorm(5), nn.Linear(5, 3))
        mine.load_state_dict(model.state_dict())
        if secret:
            mine.fix_precision().share(parties.alice, parties.bob, crypto_provider=parties.dealer, requires_grad=True)
        given = shared(parties, x) if secret else x
        optimizer = make(mine.parameters())
        for _ in range(6):
            optimizer.zero_grad()
            loss = F.cross_entropy(mine(given), y) * 16
            loss.backward()
            optimizer.step()
        losses.append(value(loss.detach())[0].item())
    assert abs(losses[0] - losses[1]) < 0.01 * losses[0]


def test_public_parameters_and_secret_ones(parties):
    """A public layer before a secret one: its gradients are secret, and its update makes it so."""
    torch.manual_seed(5)
    first, second, x = nn.Linear(4, 5), nn.Linear(5, 2), torch.randn(6, 4)
    want = F.mse_loss(second(first(x).sigmoid()), x[:, :2])
    want.backward()
    fixed = nn.Linear(4, 5), nn.Linear(5, 2)
    for mine, theirs in zip(fixed, (first, second), strict=True):
        mine.load_state_dict(theirs.state_dict())
    fixed[1].fix_precision().share(parties.alice, parties.bob, crypto_provider=parties.dealer, requires_grad=True)
    fixed[0].fix_precision()
    got = F.mse_loss(fixed[1](fixed[0](shared(parties, x)).sigmoid()), shared(parties, x[:, :2]))
    got.backward()
    for mine, theirs in zip(fixed, (first, second), strict=True):
        for p, q in zip(mine.parameters(), theirs.parameters(), strict=True):
            near(p.grad, q.grad, 60, 2e-3)
