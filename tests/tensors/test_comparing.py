"""Comparisons within a bound: the same results, for fewer rounds and bytes, and nothing that the bound did not cover."""

import math

import pytest
import torch
from torch.nn import functional as F

import syftlite as sy
from syftlite.errors import Misuse
from syftlite.tensors.comparing import current, lowest_bit


@pytest.fixture(scope="module")
def parties():
    workers = [sy.VirtualWorker(id=f"comparing-{name}") for name in ("alice", "bob", "carol")]
    yield workers
    for worker in workers:
        worker.close()


def shared(parties, x):
    alice, bob, carol = parties
    return x.fix_precision().share(alice, bob, crypto_provider=carol)


def test_the_window_is_the_lowest_that_holds_all_values():
    for units in (1, 1000, 1 << 16, 1 << 32):
        for bound in (1e-9, 0.5, 1, 2**15 - 1, 2**15, 12345.678, 2**20):
            low, largest = lowest_bit(bound, units), math.ceil(bound * units)
            assert largest <= 2 ** (low + 31) - 2**low and -largest >= -(2 ** (low + 31))
            assert low == 0 or largest > 2 ** (low + 30) - 2 ** (low - 1)
            assert lowest_bit(bound, units, padded=True) in (low, low + 1)
    assert lowest_bit(None, 1 << 16) == -1
    with pytest.raises(Misuse, match=r"a bound of 1e\+12 at 4,294,967,296 units for 1.0 needs more than 64 bits: make it smaller, or leave it out"):
        lowest_bit(1e12, 1 << 32)


IMAGE = torch.linspace(-90, 90, 2 * 3 * 36)[torch.randperm(216, generator=torch.Generator().manual_seed(1))].view(2, 3, 6, 6)
CASES = {
    "<": lambda x: x < x.flip(0),
    ">= a number": lambda x: x >= 0.5,
    "relu": lambda x: x.relu(),
    "relu of a product": lambda x: (x * 0.5).relu(),
    "abs": lambda x: x.abs(),
    "maximum": lambda x: torch.maximum(x, x.flip(0)),
    "clamp": lambda x: x.clamp(-3, 7),
    "max": lambda x: x.max(),
    "amax": lambda x: x.amax(1),
    "argmax": lambda x: x.argmax(1),
    "pool": lambda x: F.max_pool2d(x, 2),
    "padded pool": lambda x: F.max_pool2d(x, 3, 2, 1),
    "pool and relu": lambda x: F.max_pool2d(x, 2).relu(),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_compared_in_the_block_is_the_same_and_costs_less(parties, case):
    function, x = CASES[case], shared(parties, IMAGE)
    with sy.mpc.count() as whole:
        want = function(x)
    with sy.mpc.count() as part, sy.mpc.comparing(bound=200):
        got = function(x)
    got, want = (r.get().decode() if isinstance(r, sy.FixedPrecisionTensor) else r.get() for r in (got, want))
    assert (got.double() - want.double()).abs().max() <= (2**-16 if "product" in case else 0)
    assert part.rounds <= whole.rounds and part.sent < whole.sent and part.dealt < whole.dealt


def test_gradients_are_those_of_the_whole(parties):
    x = shared(parties, IMAGE).requires_grad_()
    grads = []
    for bound in (None, 200):
        x.grad = None
        y = F.max_pool2d(x.relu(), 2) if bound is None else _bounded(lambda: F.max_pool2d(x.relu(), 2), bound)
        y.sum().backward()
        grads.append(x.grad.get().decode())
    assert torch.equal(*grads) and grads[0].any()


def _bounded(function, bound):
    with sy.mpc.comparing(bound=bound):
        return function()


def test_whole_ring_elements_have_one_unit(parties):
    alice, bob, carol = parties
    x = torch.tensor([5, -7, 0, 2**31 - 1, -(2**31) + 1]).share(alice, bob, crypto_provider=carol)
    with sy.mpc.comparing(bound=2**31 - 1):
        assert (x < 0).get().tolist() == [0, 1, 0, 0, 1] and x.relu().get().tolist() == [5, 0, 0, 2**31 - 1, 0]
        assert int(torch.tensor([4, 9, -3]).share(alice, bob, crypto_provider=carol).argmax().get()) == 1


def test_the_bound_is_that_of_the_line_however_late_it_is_computed(parties):
    x = shared(parties, torch.tensor([1.5, -2.0, 40000.0]))
    with sy.mpc.comparing(bound=50000):
        late = x.relu()
    assert current() is None and late._waiting.bound == 50000
    with sy.mpc.count() as cost:
        assert late.get().decode().tolist() == [1.5, 0.0, 40000.0]
    with sy.mpc.count() as whole:
        assert x.relu().get().decode().tolist() == [1.5, 0.0, 40000.0]
    assert cost.sent < whole.sent
    image = shared(parties, IMAGE)
    with sy.mpc.comparing(bound=100):
        pooled = F.max_pool2d(image, 2)
        with sy.mpc.comparing(bound=300):
            assert pooled.relu()._waiting.bound == 300
    assert pooled.relu()._waiting.bound is None  # relu looks at all bits, and so does the pool that it is done with


def test_beyond_the_bound_is_garbage_so_it_is_never_assumed(parties):
    """The negative control: a value outside is taken for one of the other sign, which without the block it is not."""
    x = shared(parties, torch.tensor([2.0**15 + 2]))
    assert (x > 0).get().decode().tolist() == [1.0]
    with sy.mpc.comparing(bound=100):
        assert (x > 0).get().decode().tolist() == [0.0]


@pytest.mark.parametrize("bound", [0, -1, math.nan, math.inf, "1", True, None])
def test_a_bound_is_a_positive_number(bound):
    with pytest.raises(Misuse, match=f"a bound is a positive number, the largest magnitude that is compared, not {bound!r}"), sy.mpc.comparing(bound=bound):
        pass
