"""Choices and logic in fixed precision, and what writes in place: as plain torch's, forwards and backwards, public and shared; their cost."""

from __future__ import annotations

import pytest
import torch
from _sharing import Parties, assert_close, value
from torch import nn
from torch.nn import functional as F

import syftlite as sy
from syftlite._torch import aten, out_of_place
from syftlite.errors import Misuse

X = torch.tensor([[1.5, -2.0, 3.25], [0.5, 4.0, -1.0]])
Y = torch.tensor([[2.0, 0.5, -1.0], [0.5, -3.0, 2.0]])
MASK = torch.tensor([True, False, True])
INDEX = torch.tensor([[0, 2], [1, 0]])


@pytest.fixture(scope="module")
def parties():
    parties = Parties("select")
    yield parties
    parties.close()


def as_plain(parties, program, child="two", operands=(X, Y), units=20, gradients=None):
    """``program`` is as plain torch's to ``units``; and its gradients, if it has any, to 60 or ``gradients``."""
    fix = parties.fix(child)
    got, want = (program(*(make(v) for v in operands)) for make in (fix, torch.clone))
    assert_close(got, want, units, 1 << 16)
    mine, theirs = ([make(v).requires_grad_() for v in operands] for make in (fix, torch.clone))
    got, want = program(*mine), program(*theirs)
    assert_close(got, want, units, 1 << 16)
    if isinstance(want, torch.Tensor) and want.requires_grad:
        (got * 3).sum().backward()
        (want * 3).sum().backward()
        for p, q in zip(mine, theirs, strict=True):
            if q.grad is not None:
                assert_close(p.grad, q.grad, gradients or 60, 1 << 16)


CHOICES = {
    "where public": lambda a, b: torch.where(MASK, a, b), "where a number": lambda a, b: torch.where(MASK, a * b, 2.5),
    "where nothing": lambda a, b: a.where(MASK, 0.0), "where secret": lambda a, b: torch.where(a > b, a, b),
    "where secret, numbers": lambda a, b: torch.where(a > b, 1.0, -2.5) * a, "where both": lambda a, b: torch.where((a > 0) & (b > 0), a, b),
    "where broadcasts": lambda a, b: torch.where(a[:, :1] > 0, a, b[0]), "masked_fill": lambda a, b: a.masked_fill(MASK, 3.0) * b,
    "masked_fill secret": lambda a, b: a.masked_fill(a > b, 3.0), "masked_select": lambda a, b: a.masked_select(MASK),
    "scatter": lambda a, b: a.scatter(1, INDEX, b[:, :2]), "scatter a number": lambda a, b: a.scatter(1, INDEX, 2.5),
    "diag_embed": lambda a, b: torch.diag_embed(a) * b[0, 0], "reflect": lambda a, b: F.pad(a[None], (1, 2), mode="reflect"),
    "index_fill": lambda a, b: a.index_fill(0, torch.tensor([1]), 2.0),
    "clamp": lambda a, b: a.clamp(torch.tensor([0.0, -1.0, 0.0]), torch.tensor([1.0, 2.0, 3.0])), "clamp infinite": lambda a, b: a.clamp(-1, torch.inf),
    "not clamped": lambda a, b: a.clamp(-torch.inf, torch.inf) + b,
}  # fmt: skip


@pytest.mark.parametrize("child", ["plain", "two", "three", "replicated"])
@pytest.mark.parametrize("name", CHOICES)
def test_choices(parties, name, child):
    as_plain(parties, CHOICES[name], child)


def set_rows(a, b):
    a = a * 1
    a[[1]] = b[:1]
    return a


def set_by_mask(a, b):
    a = a * 1
    a[torch.tensor([[True, False, False], [False, True, True]])] = 0.0
    return a * b


def set_column(a, b):
    a = a * 1
    a[:, MASK] = b[:, :2]
    return a


def set_by_comparison(a, b):
    a = a * 1
    a[a > b] = -1.5
    return a


WRITES = {
    **{f.__name__: f for f in (set_rows, set_by_mask, set_column, set_by_comparison)},
    "abs_": lambda a, b: (a * 1).abs_(), "clamp_": lambda a, b: (a * 1).clamp_(-1, 1), "clamp_min_": lambda a, b: (a * 1).clamp_min_(0.25),
    "clamp_max_": lambda a, b: (a * 1).clamp_max_(0.25), "sigmoid_": lambda a, b: (a * 1).sigmoid_(), "tanh_": lambda a, b: (a * 1).tanh_(),
    "pow_": lambda a, b: (a * 1).pow_(2), "relu_": lambda a, b: (a * 1).relu_(), "addmm_": lambda a, b: (a @ b.t()).addmm_(a, b.t()),
    "masked_fill_": lambda a, b: (a * 1).masked_fill_(MASK, 2.0), "index_add_": lambda a, b: (a * 1).index_add_(0, torch.tensor([1, 0]), b),
    "index_put_": lambda a, b: (a * 1).index_put_((torch.tensor([1, 0]), torch.tensor([2, 2])), b[0, :2]),
    "index_copy_": lambda a, b: (a * 1).index_copy_(0, torch.tensor([1]), b[:1]), "scatter_": lambda a, b: (a * 1).scatter_(1, INDEX, b[:, :2]),
    "scatter_add_": lambda a, b: (a * 1).scatter_add_(1, INDEX, b[:, :2]), "gt_": lambda a, b: (a * 1).gt_(b), "hinge": lambda a, b: F.hinge_embedding_loss(a, MASK * 2.0 - 1),
}  # fmt: skip


@pytest.mark.parametrize("child", ["plain", "two", "replicated"])
@pytest.mark.parametrize("name", WRITES)
def test_writes(parties, name, child):
    as_plain(parties, WRITES[name], child)


def test_functions_in_place(parties):
    """A reciprocal is right to 3e-4 of itself; its gradient, 3 / x^2 here, is a product of two, so at 1/2 right to 472 units."""
    for name in ("exp_", "sqrt_", "rsqrt_", "reciprocal_", "log_"):
        as_plain(parties, lambda a, name=name: getattr(a * 1, name)(), operands=(Y.abs(),), units=60, gradients=472)


def squared(a, b):
    v = a[0]
    v **= 2
    return a


def sum_and_product(a, b):
    torch.add(a, b, out=a)
    torch.mul(a, b, out=b)
    return a, b


@pytest.mark.parametrize("program", [squared, sum_and_product])
@pytest.mark.parametrize("child", ["plain", "two"])
def test_views_and_out(parties, child, program):
    fix = parties.fix(child)
    assert_close(program(fix(X), fix(Y)), program(X.clone(), Y.clone()), 20, 1 << 16)


def test_writing_elsewhere_is_refused(parties):
    x = parties.fix("two")(X)
    with pytest.raises(Misuse, match="to a plain tensor"):
        torch.zeros(2, 2).addmm_(x, x.t())
    with pytest.raises(RuntimeError, match=r"aten.mul.out: what is written to has shape \(1, 3\), and the result \(2, 3\)"):
        torch.mul(x, x, out=x[:1])
    with pytest.raises(NotImplementedError, match=r"does not know aten\.sin"):
        x.sin_()
    with pytest.raises(NotImplementedError, match=r"does not know aten\.normal_"):
        x.normal_()


def test_the_operator_that_writes_nowhere():
    pairs = {aten.pow_.Scalar: aten.pow.Tensor_Scalar, aten.transpose_.default: aten.transpose.int, aten.add.out: aten.add.Tensor,
             aten.clamp_.default: aten.clamp.default, aten.normal_.default: None, aten.sort.values: None, aten.max.dim_max: None}  # fmt: skip
    for func, fresh in pairs.items():
        assert out_of_place(func) is fresh


def test_gradients_are_clipped(parties):
    p = parties.fix("two")(X).requires_grad_()
    (p * p).sum().backward()
    nn.utils.clip_grad_value_([p], 1.0)
    assert_close(p.grad, (2 * X).clamp(-1, 1), 2, 1 << 16)


# -- logic

LOGIC = {
    "and": lambda a, b: (a > 0) & (b > 0), "or": lambda a, b: (a > 0) | (b > 0), "xor": lambda a, b: (a > 0) ^ (b > 0), "not": lambda a, b: ~(a > b),
    "public": lambda a, b: ((a > 0) & MASK) | (b == 0.5), "views": lambda a, b: (a > b).t()[1:] & torch.cat([b > 0, a > 0])[:2, 1:].t().flip(0),
    "logical_and": lambda a, b: torch.logical_and(a > 0, b > 0), "logical_or": lambda a, b: torch.logical_or(a > 0, b > 0),
    "logical_xor": lambda a, b: torch.logical_xor(a > 0, b), "logical_not": lambda a, b: torch.logical_not(a == b),
    "of numbers": lambda a, b: torch.logical_and(a - 1.5, b), "public bools": lambda a, b: torch.logical_and(MASK, a > b),
    "any": lambda a, b: (a > b).any(), "all": lambda a, b: (a > -5).all(), "any over": lambda a, b: (a > 3).any(1), "all over": lambda a, b: (a > b).all(0, keepdim=True),
    "not all": lambda a, b: (a > b).all(), "not any": lambda a, b: (a > 9).any(dim=(0, 1)), "any number": lambda a, b: (a * 0).any(), "all of none": lambda a, b: (a[:0] > 0).all(),
    "infinite": lambda a, b: (a > -torch.inf) & (a < torch.inf) & (b != torch.inf), "bool": lambda a, b: (a > 0).bool() | (b >= torch.inf),
    "counted": lambda a, b: ((a > 0) | (b > 0)).sum(1), "isfinite": lambda a, b: torch.isfinite(a),
}  # fmt: skip


@pytest.mark.parametrize("child", ["plain", "pointer", "two", "replicated"])
@pytest.mark.parametrize("name", LOGIC)
def test_logic(parties, name, child):
    if child == "pointer" and "public" in name:
        pytest.skip("what is here does not meet a pointer")
    fix, program = parties.fix(child), LOGIC[name]
    (found,), want = value(program(fix(X), fix(Y))), program(X, Y)
    assert torch.equal(found, want.float())


def test_what_is_written_to_is_no_comparison(parties):
    x = parties.fix("two")(X)
    mask, kept = x > 0, x > 0
    part = mask[0]
    mask.add_(1)
    for written in (mask, part):
        with pytest.raises(NotImplementedError, match=r"knows aten.bitwise_and of comparisons.*use logical_and\(\)"):
            written & kept[0]
    with pytest.raises(NotImplementedError, match="bitwise_or of comparisons"):
        kept | torch.ones(2, 3)
    assert torch.equal(value(torch.logical_and(mask - 1, kept))[0], (X > 0).float())


def test_secret_masks(parties):
    x = parties.fix("two")(X)
    with pytest.raises(NotImplementedError, match="masked_select of a public mask"):
        x.masked_select(x > 0)
    with pytest.raises(Misuse, match=r"use torch\.where\(mask, values, x\)"):
        x[x > 0] = x[0, :2]


@pytest.mark.parametrize(
    ("program", "rounds"),
    [
        (lambda a, b: torch.where(MASK, a, b), 0), (lambda a, b: a.masked_fill(MASK, 1.0), 0), (lambda a, b: a.scatter(1, INDEX, b[:, :2]), 0),
        (lambda a, b: (a > 0) & MASK, 4), (lambda a, b: ~(a > 0), 4), (lambda a, b: torch.logical_and(a > 0, b > 0), 10), (lambda a, b: (a > 0).any(), 8),
        (lambda a, b: torch.where(a > b, a, b), 6), (lambda a, b: a > -torch.inf, 0),
    ],
)  # fmt: skip
def test_rounds(parties, program, rounds):
    a, b = (parties.fix("two")(v) for v in (X, Y))
    with sy.mpc.count() as cost:
        program(a, b).child
    assert cost.rounds == rounds


# -- recurrent layers


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.GRU(3, 2), lambda: nn.GRU(3, 2, 2, bidirectional=True, batch_first=True), lambda: nn.RNN(3, 2), lambda: nn.RNN(3, 2, nonlinearity="relu"),
        lambda: nn.LSTM(3, 2), lambda: nn.LSTM(3, 2, 2, bidirectional=True, batch_first=True, bias=False),
    ],
)  # fmt: skip
def test_recurrent_layers(parties, make):
    plain, mine, x = make(), make(), torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0))
    mine.load_state_dict(plain.state_dict())
    mine.fix_precision().share(parties.alice, parties.bob, crypto_provider=parties.dealer, requires_grad=True)
    (want, state), (got, mine_state) = plain(x), mine(parties.fix("two")(x))
    assert_close([got, mine_state], [want, state], 60, 1 << 16)
    want.sum().backward()
    got.sum().backward()
    for p, q in zip(mine.parameters(), plain.parameters(), strict=True):
        assert_close(p.grad, q.grad, 400, 1 << 16)


@pytest.mark.parametrize("make", [lambda: nn.GRUCell(3, 2), lambda: nn.LSTMCell(3, 2), lambda: nn.RNNCell(3, 2)])
def test_cells(parties, make):
    plain, mine, x = make(), make(), torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    mine.load_state_dict(plain.state_dict())
    mine.fix_precision().share(parties.alice, parties.bob, crypto_provider=parties.dealer)
    assert_close(mine(parties.fix("two")(x)), plain(x), 60, 1 << 16)


def test_lstms_that_there_are_not(parties):
    fix = parties.fix("two")
    mine = nn.LSTM(3, 2, proj_size=1).fix_precision().share(parties.alice, parties.bob, crypto_provider=parties.dealer)
    with pytest.raises(NotImplementedError, match="LSTM without proj_size: put a Linear after it"):
        mine(fix(torch.randn(2, 1, 3)))


# -- errors that name what was called


@pytest.mark.parametrize(
    ("program", "error", "text"),
    [
        (lambda x: x / 0, ZeroDivisionError, r"aten\.div\.Tensor: the divisor is 0, or has a 0"),
        (lambda x: x / torch.tensor([1.0, 0.0, 2.0]), ZeroDivisionError, "or has a 0"),
        (lambda x: x * torch.inf, ValueError, r"aten\.mul: a public operand of inf"),
        (lambda x: x + torch.tensor([torch.nan, 0, 0]), ValueError, r"aten\.add: a public operand of nan"),
        (lambda x: x > 1e30, ValueError, r"aten\.gt\.Scalar: a public operand of 1e\+30"),
        (lambda x: x.mm(x[0]), RuntimeError, r"aten\.mm\.default multiplies matrices, and operands of shapes \(2, 3\) and \(3,\) met: use @"),
    ],
)  # fmt: skip
def test_errors_name_the_operator(parties, program, error, text):
    with pytest.raises(error, match=text):
        program(parties.fix("two")(X))


@pytest.mark.parametrize("child", ["plain", "pointer", "two"])
def test_bools(parties, child):
    fixed = parties.fix(child)(torch.tensor([True, False]))
    assert value(fixed)[0].tolist() == [1.0, 0.0]
