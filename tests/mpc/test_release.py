"""What a receiver of output shares learns who is, or works with, the provider: with re-randomised shares nothing but the output."""

import pytest
import torch

from syftlite.mpc.party import Keys, Party
from syftlite.mpc.release import release
from syftlite.mpc.ring import reveal, share

from .group import Group

N = 6400


def inverse(a):
    """Of odd numbers, mod 2^64, by Newton's iteration."""
    y = a.clone()
    for _ in range(6):
        y = y * (2 - a * y)
    return y


def recovered(group, shares):
    """Values of x (and where they are certain) that two output shares of relu(x) and all the provider's randomness determine.

    Where the flip was 0, y_i = c rho_i - t_i: a share with odd rho_i gives c, the other one confirms it, and x = c - r.
    """
    fields = [group.fields(0, i) for i in (0, 1)]
    r = (fields[0]["r"] + fields[1]["r"]).view(-1)
    guess, found = torch.zeros_like(r), torch.zeros(len(r), dtype=torch.bool)
    for i in (0, 1):
        (rho, t), (rho_other, t_other) = ((fields[k]["rho"].view(-1), fields[k]["t_rho"].view(-1)) for k in (i, 1 - i))
        c = (shares[i] + t) * inverse(rho | 1)
        sure = (rho & 1 == 1) & (c * rho_other - t_other == shares[1 - i])
        guess = torch.where(sure, c - r, guess)
        found |= sure
    return guess, found


def relued():
    """A group, x, and the holders' shares of relu(x)."""
    group, x = Group(2), torch.randint(-(2**40), 2**40, (N,))
    return group, x, group.kernel("relu", share(x, 2))


def test_bare_output_shares_give_hidden_negatives_to_the_provider():
    """The attack works, so the next test means something."""
    group, x, out = relued()
    guess, found = recovered(group, out)
    right, negative = found & (guess == x), x < 0
    assert right.double().mean() > 0.2 and right[negative].double().mean() > 0.1
    assert torch.equal(reveal(out), x.clamp(min=0))


def test_released_shares_give_nothing_but_the_output():
    group, x, out = relued()
    released = [release(p, y) for p, y in zip(group.parties, out)]
    guess, found = recovered(group, released)
    assert not (found & (guess == x)).any()
    assert torch.equal(reveal(released), x.clamp(min=0))


@pytest.mark.parametrize("flaw", ["missing", "repeated", "from the provider's key"])
def test_a_flawed_release_is_caught(flaw):
    """A receiver that knows the mask of an earlier release, or the provider's keys, takes it off again."""
    group, x, out = relued()
    zero = torch.zeros(N, dtype=torch.int64)
    if flaw == "from the provider's key":
        for party in group.parties:
            party.peers = dict.fromkeys(party.peers, group.dealer.sources[0])
    masks = [zero, zero] if flaw == "missing" else [release(p, zero) for p in group.parties]  # an earlier release, of a known value
    if flaw == "repeated":
        for party in group.parties:
            party.releases -= 1
    released = out if flaw == "missing" else [release(p, y) for p, y in zip(group.parties, out)]
    if flaw == "from the provider's key":
        known = group.dealer.sources[0].take(8 * N, "zero", 1, (N,)).view(torch.int64)
        masks = [known, -known]
    guess, found = recovered(group, [y - m for y, m in zip(released, masks)])
    assert (found & (guess == x)).double().mean() > 0.2


@pytest.mark.parametrize("holders", [2, 3, 5])
def test_zero_shares_sum_to_zero_and_never_repeat(holders):
    group = Group(holders)
    first = [p.zeros((4, 5)) for p in group.parties]
    second = [p.zeros((4, 5)) for p in group.parties]
    other = [p.zeros((20,)) for p in group.parties]
    for shares in (first, second, other):
        assert not sum(shares).any() and all(s.any() for s in shares)
    assert len({tuple(s.view(-1).tolist()) for s in (*first, *second, *other)}) == 3 * holders


@pytest.mark.parametrize("holders", [3, 5])
def test_one_missing_holder_leaves_released_shares_uniform(holders):
    """n - 1 released shares of zero add up to a mask that only the missing holder's keys explain."""
    group = Group(holders)
    released = [release(p, torch.zeros(4096, dtype=torch.int64)) for p in group.parties]
    partial = sum(released[1:])
    ones = torch.stack([(partial >> k) & 1 for k in range(64)]).sum(1).double()
    assert ((ones - 2048).abs() < 8 * 32).all()


def test_holders_that_release_in_different_orders_get_noise():
    group, x = Group(2), torch.arange(100)
    shares = share(x, 2)
    group.parties[0].zeros((1,))
    assert (reveal([release(p, s) for p, s in zip(group.parties, shares)]) != x).all()


def test_a_refreshed_sharing_has_the_same_value():
    group, x = Group(3), torch.randint(-(2**62), 2**62, (50,))
    before = share(x, 3)
    after = group.kernel("refresh", before)
    assert torch.equal(reveal(after), x)
    assert all((a != b).all() for a, b in zip(after, before))
    assert not any(group.messages)


def test_the_providers_key_cannot_be_a_peers():
    with pytest.raises(ValueError, match="equal"):
        Party(0, 2, Keys(bytes(32), {1: bytes(32)}))
