"""Whole secrets divided, shifted and put in order: as plain torch's, to the last unit of the documented range."""

from __future__ import annotations

import operator

import pytest
import torch
from _sharing import Parties, value

import syftlite as sy
from syftlite.errors import Misuse

CHILDREN = ("two", "three", "replicated")
LIMIT = 1 << 62
DIVISORS = [
    1, 2, 3, 7, 64, 65, 127, 129, 10**6 + 3, 2**31 - 1, 2**32 - 1, 2**33 + 1, 2**34 - 3, 2**45 + 7, 2**61 - 1, 2**61, 2**61 + 1, 2**62 - 1,
    2**62, 2**63 - 1, -1, -3, -(2**40) - 1, -(2**63),
]  # fmt: skip
DIVIDED = {
    "//": operator.floordiv, "%": operator.mod, "fmod": torch.fmod, "trunc": lambda x, d: torch.div(x, d, rounding_mode="trunc"),
    "floor": lambda x, d: torch.div(x, d, rounding_mode="floor"),
}  # fmt: skip


@pytest.fixture(scope="module")
def parties():
    parties = Parties("division")
    yield parties
    parties.close()


def of_every_size(count):
    """Whole numbers of every length below 2^62, either sign."""
    generator = torch.Generator().manual_seed(count)
    highest = torch.randint(LIMIT, (count,), generator=generator)
    some = highest >> torch.randint(62, (count,), generator=generator)
    signs = torch.randint(2, (count,), generator=generator) * 2 - 1
    return torch.cat([some * signs, torch.tensor([LIMIT - 1, 1 - LIMIT, 0, 1, -1])])


@pytest.mark.parametrize("child", CHILDREN)
@pytest.mark.parametrize("name", DIVIDED)
def test_quotients_are_exact(parties, name, child):
    place, divided = parties.place(child), DIVIDED[name]
    for divisor in DIVISORS:
        x = of_every_size(40)
        x = torch.cat([x, x // divisor * divisor, x // divisor * divisor - 1]).clamp(1 - LIMIT, LIMIT - 1)
        assert torch.equal(divided(place(x), divisor).get(), divided(x, divisor)), divisor
    x, divisors = of_every_size(len(DIVISORS) * 2 - 5).view(2, -1), torch.tensor(DIVISORS)
    assert torch.equal(divided(place(x), divisors).get(), divided(x, divisors))
    assert torch.equal(divided(place(x[:, :1]), divisors.view(-1, 1, 1)).get(), divided(x[:, :1], divisors.view(-1, 1, 1)))


@pytest.mark.parametrize("child", CHILDREN)
@pytest.mark.parametrize("shift", [operator.lshift, operator.rshift, torch.bitwise_left_shift, torch.bitwise_right_shift])
def test_shifts_are_exact(parties, shift, child):
    place, x = parties.place(child), of_every_size(59)
    for count in (0, 1, 13, 61, 62, 63):
        assert torch.equal(shift(place(x), count).get(), shift(x, count)), count
    assert torch.equal(shift(place(x), torch.arange(64)).get(), shift(x, torch.arange(64)))


@pytest.mark.parametrize("child", CHILDREN)
@pytest.mark.parametrize(
    "program",
    [
        lambda x: x.floor_divide_(3), lambda x: x.remainder_(-5), lambda x: x.fmod_(4), lambda x: operator.ilshift(x, 3), lambda x: operator.irshift(x, 1),
        lambda x: operator.ifloordiv(x, 7), lambda x: operator.imod(x, 7), lambda x: x.cumprod_(1), lambda x: x[:, 1].floor_divide_(2),
        lambda x: x[:, ::2].t() // 5, lambda x: x[:0] // 5, lambda x: x[0, 0] % 3, lambda x: x[0, 0] // torch.tensor([2, 3]),
    ],
)  # fmt: skip
def test_in_place_views_and_no_elements(parties, program, child):
    x = torch.tensor([[7, -7, 100], [0, -1, 12]])
    mine, secret = x.clone(), parties.place(child)(x)
    assert torch.equal(program(secret).get(), program(mine))
    assert torch.equal(secret.get(), mine)


def test_a_bound_on_what_is_compared_is_none_on_what_is_left(parties):
    x = of_every_size(60)
    with sy.mpc.comparing(bound=10):
        assert torch.equal((parties.place("two")(x) // (2**40 + 1)).get(), x // (2**40 + 1))


@pytest.mark.parametrize(
    ("program", "error", "text"),
    [
        (lambda x: x // 0, RuntimeError, "ZeroDivisionError"), (lambda x: x % torch.tensor([1, 0, 2]), RuntimeError, "ZeroDivisionError"),
        (lambda x: x // 1.5, Misuse, "1.5 is none"), (lambda x: x // x, Misuse, "by what is public"), (lambda x: 100 // x, Misuse, "divide and shift nothing"),
        (lambda x: x << 64, ValueError, "0 to 63"), (lambda x: x >> -1, ValueError, "0 to 63"), (lambda x: x.topk(4), RuntimeError, "4 elements"),
        (lambda x: x.kthvalue(0), RuntimeError, "rank 0"), (lambda x: x[:0].median(0), RuntimeError, "no element"),
        (lambda x: torch.arange(3).floor_divide_(x), Misuse, "divide and shift nothing"), (lambda x: torch.div(x, 2, rounding_mode=None), NotImplementedError, "aten.div.Tensor"), (lambda x: x.cumprod(0, dtype=torch.float32), Misuse, "real"),
    ],
)  # fmt: skip
def test_what_has_no_whole_form(parties, program, error, text):
    with pytest.raises(error, match=text):
        program(parties.place("two")(torch.tensor([5, -2, 9])))


@pytest.mark.parametrize("child", CHILDREN)
@pytest.mark.parametrize(
    "program",
    [
        lambda x: x.sort(), lambda x: x.sort(0, descending=True), lambda x: torch.sort(x, stable=True, dim=1, descending=True), lambda x: x.topk(2),
        lambda x: x.topk(3, dim=1, largest=False), lambda x: x.median(), lambda x: x.median(1), lambda x: x.median(0, True),
        lambda x: x.kthvalue(2), lambda x: x.kthvalue(1, 0, True), lambda x: x.cumprod(0), lambda x: x.cumprod(-1), lambda x: x.argsort(1),
        lambda x: x.msort(), lambda x: x[:0].sort(), lambda x: x[:, :0].sort(), lambda x: x[0, 0].sort(), lambda x: x[0, 0].median(0),
        lambda x: x.topk(0), lambda x: x[0, 0].cumprod(0), lambda x: x[:, :0].cumprod(1), lambda x: x.t().sort(0)[0],
    ],
)  # fmt: skip
def test_order_is_of_all_64_bits(parties, program, child):
    x = torch.tensor([[7, -7, 2**40, 5, 6], [0, -1, -(2**61), 12, 2**61]])
    found, want = value(program(parties.place(child)(x))), program(x)
    for mine, theirs in zip(found, want if isinstance(want, tuple) else (want,), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("replicated", [False, True])
def test_on_real_nodes_and_in_a_plan(replicated, three_nodes):
    @sy.func2plan()
    def ranked(x):
        return x // 7, (x % 1000).sort(1)[0], x >> 3, x.cumprod(0)

    north, south, east = three_nodes
    for turn in range(4):
        x = of_every_size(19).view(4, 6) >> turn
        at = (north, south, east) if replicated else (north, south)
        secret = x.share(*at, **({"protocol": "aby3"} if replicated else {"crypto_provider": east}))
        want = x // 7, (x % 1000).sort(1)[0], x >> 3, x.cumprod(0)
        assert all(torch.equal(mine.get(), theirs) for mine, theirs in zip(ranked(secret), want, strict=True))
