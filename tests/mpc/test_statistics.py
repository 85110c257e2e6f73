"""What is opened looks uniform, truncation has no bias, and mistakes of arithmetic are seen by the plainest of checks.

Streams are keyed by constants here, so that a run either always passes or always fails.
"""

import math
import os

import pytest
import torch

from syftlite.mpc import comparison, selection, truncation
from syftlite.mpc.correlations import FREE, Field
from syftlite.mpc.party import Party
from syftlite.mpc.ring import reveal, share
from syftlite.randomness import random_like

from .group import Group

LANES = 1 << 16
LARGE = 1 << 18
"""Of a piece, whose memory stays in the cache."""
TOP = 2**62 - 1


def z_scores(message):
    """Chi-square of each byte of the elements against uniform, as deviations from its mean."""
    columns = message.reshape(-1).view(torch.uint8).view(-1, message.itemsize)
    expected = len(columns) / 256
    for column in columns.unbind(1):
        counts = torch.bincount(column.long(), minlength=256).double()
        yield (((counts - expected) ** 2 / expected).sum().item() - 255) / math.sqrt(510)


@pytest.mark.parametrize("name,static", [("truncate", {"f": 16}), ("mul", {"f": 16}), ("negative", {}), ("relu", {"f": 16}), ("relu", {"f": 16, "low": 16}), ("equal_zero", {})])
@pytest.mark.parametrize("secret", [0, -(2**40) + 1, 2**61])
def test_messages_and_opened_values_are_uniform(name, static, secret):
    group = Group(2, secret=bytes(range(32)))
    x = torch.full((LANES,), secret)
    halves = [torch.arange(LANES), x - torch.arange(LANES)]  # shares that are not random: masks alone must hide them
    group.kernel(name, *[halves] * (2 if name == "mul" else 1), **static)
    worst = 0.0
    for first, second in zip(*group.messages):
        opened = first + second if first.dtype == torch.int64 and first.numel() >= LANES and first.dim() < 3 else first ^ second
        if first.numel() * first.itemsize >= 1 << 13:
            worst = max(worst, *(abs(z) for message in (first, second, opened) for z in z_scores(message)))
    assert 0 < worst < 6.5


def bias(f, protocol):
    """Mean error in units of the result over 2^18 values with all kinds of low bits."""
    group = Group(2, secret=bytes(32))
    x = torch.arange(1 << 18) * 7919 - (1 << 30)
    got = reveal(group.run(protocol, share(x, 2), f=f))
    return (got.double() - x.double() / 2**f).mean().item()


TRUNCATIONS = int(os.environ.get("SYFTLITE_TRUNCATIONS", 10**7))


def test_no_truncation_is_off_by_more_than_a_unit():
    """Of ten million values of every magnitude and sign; SYFTLITE_TRUNCATIONS of them where that is set."""
    group, made, ups = Group(2), 0, 0
    while made < TRUNCATIONS:
        f = (16, 1, 32, 17, 8)[made // LARGE % 5]
        x = random_like((LARGE,)) >> (1 + torch.arange(LARGE) % 61)
        error = reveal(group.run(truncation.truncate, share(x, 2), f=f)) - (x >> f)
        assert not (error & ~1).any(), x[(error & ~1) != 0]
        made, ups = made + LARGE, ups + int(error.sum())
    assert 0.2 < ups / made < 0.8, "neither always up nor always down"


@pytest.mark.parametrize("f", [1, 8, 16])
def test_truncation_has_no_bias(f):
    assert abs(bias(f, truncation.truncate)) < 0.01


def test_a_truncation_that_always_rounds_down_is_caught(monkeypatch):
    """r without low bits: every functional test passes, and training would stall."""
    memory = Field.memory

    def changed(self, parts):
        x = memory(self, parts)
        if self.name == "r" and self.part == FREE:
            x &= ~0xFFFF
        return x

    monkeypatch.setattr(Field, "memory", changed)
    assert bias(16, truncation.truncate) < -0.4


def check_range():
    x = torch.tensor([TOP, -TOP - 1] * 50)
    error = Group().plain("truncate", x, f=16) - (x >> 16)
    assert ((error == 0) | (error == 1)).all()


def check_relu():
    x = torch.randint(-(2**40), 2**40, (500,))
    error = Group().plain("relu", x, f=18) - (x.clamp(min=0) >> 18)
    assert ((error == 0) | (error == 1)).all()


def check_sign():
    x = torch.cat([torch.randint(-(2**63), 2**63 - 1, (500,)), torch.tensor([0, 1, -1, 2**63 - 1, -(2**63), 2**31, -(2**31)])])
    assert torch.equal(Group().plain("negative", x), (x < 0).long())


def check_products():
    x, y = torch.randint(-(2**30), 2**30, (2, 200))
    assert torch.equal(Group().plain("mul", x, y), x * y) and torch.equal(Group().plain("square", x), x * x)


def check_pool():
    x = torch.randint(-99, 99, (1, 2, 6, 6))
    want = torch.nn.functional.max_pool2d(x.double(), 2).long()
    assert torch.equal(Group().plain("max_pool2d", x, kernel=(2, 2), stride=(2, 2)), want)


def _both_first(monkeypatch):
    init = Party.__init__
    monkeypatch.setattr(Party, "__init__", lambda self, *a, **k: (init(self, *a, **k), setattr(self, "first", True))[0])


def _swapped(monkeypatch):
    paired = selection._paired
    monkeypatch.setattr(selection, "_paired", lambda rows: (-paired(rows)[0], paired(rows)[1]))


def _top_bit_in_the_tree(monkeypatch):
    window = comparison.window
    monkeypatch.setattr(comparison, "window", lambda x, width, low: window(x, width, low) ^ (1 << 62))


MISTAKES = {
    "the lowest quarter is taken for what it is": (lambda m: m.setattr(truncation, "public", lambda ring, c, f: c >> f), check_range),
    "the mask's highest bit is dropped": (lambda m: m.setattr(truncation, "add_wraps", lambda *_: None), check_range),
    "... in relu": (lambda m: m.setattr(selection, "add_wraps", lambda *_: None), check_relu),
    "all holders add constants": (_both_first, check_products),
    "all holders add constants to bits": (_both_first, check_sign),
    "maxima compare the wrong way round": (_swapped, check_pool),
    "a bit of the opened value is wrong": (_top_bit_in_the_tree, check_sign),
    "the window is off by one": (lambda m: m.setattr(selection, "words_of", lambda p, low: (32, 1)), check_relu),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_caught(mistake, monkeypatch):
    plant, check = MISTAKES[mistake]
    check()
    plant(monkeypatch)
    from syftlite.mpc import kernel

    kernel._dry.cache_clear()
    try:
        with pytest.raises(AssertionError):
            check()
    finally:
        kernel._dry.cache_clear()


def test_m_in_sixteen_bits_is_not_enough_for_more(monkeypatch):
    """Its width follows f."""
    x = torch.tensor([TOP, -TOP - 1, 0, 5] * 50)
    for f in (16, 17, 32, 33, 62):
        error = Group().plain("truncate", x, f=f) - (x >> f)
        assert ((error == 0) | (error == 1)).all()
