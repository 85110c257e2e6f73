"""AdditiveSharingTensor: every operator exact on ring elements; who may share with whom; what is left at the workers: nothing."""

from __future__ import annotations

import gc
import warnings

import pytest
import torch
from _sharing import Parties, expected, mapped_all, samples_of, value, whole
from torch.utils._pytree import tree_leaves

import syftlite as sy
from syftlite._torch import aten
from syftlite.errors import GetNotPermittedError, Misuse, PointerMisuseError, TensorsNotCollocatedError
from syftlite.remote import joining

Shared = sy.AdditiveSharingTensor
CHILDREN = ("two", "three", "coded", "replicated")
ALL = sorted(set(Shared.ops), key=str)
READS = {aten._local_scalar_dense.default, aten.is_nonzero.default, aten.equal.default}


@pytest.fixture(scope="module")
def parties():
    parties = Parties("sharing")
    yield parties
    parties.close()


def shared_by(parties, x):
    return x.fix_precision().share(parties.alice, parties.bob, crypto_provider=parties.dealer)


@pytest.mark.parametrize("child", CHILDREN)
@pytest.mark.parametrize("func", [f for f in ALL if f not in READS], ids=str)
def test_every_operator_is_exact(parties, func, child):
    """A table entry without a sample, or one that is refused on all its samples, fails."""
    place, right = parties.place(child), 0
    for sample in samples_of(func, _floats):
        ints = type(sample)(*(mapped_all(part, lambda t: t.long() if t.dtype == torch.float32 else t) for part in sample))
        try:
            want = expected(func, ints)
        except RuntimeError:
            continue
        if any(t.dtype not in (torch.int64, torch.bool) for t in tree_leaves(want) if isinstance(t, torch.Tensor)):
            continue  # a float result: not of the ring
        shared = [mapped_all(part, lambda t: place(t.long()) if t.dtype == torch.float32 else t) for part in sample]
        try:
            found = value(func(*shared[0], **shared[1]))
        except Misuse as refusal:
            assert any(text in str(refusal) for text in ("ring elements", "index is secret", "to a plain tensor"))
            continue
        for mine, theirs in zip(found, tree_leaves(want), strict=True):
            assert mine.shape == theirs.shape
            assert torch.equal(mine.long(), theirs.long()), (func, sample)
        right += 1
    assert right


def _floats(tensor):
    """Whole numbers, still as floats: they tell operands from indices."""
    return whole(tensor).float() if tensor.dtype == torch.float32 else tensor


@pytest.mark.parametrize("func", sorted(READS, key=str), ids=str)
def test_what_would_read_a_value_is_refused(parties, func):
    x = parties.place("two")(torch.tensor([1]))
    with pytest.raises(PointerMisuseError, match=r"which nobody has: get\(\) reconstructs it"):
        func(*([x, x] if func is aten.equal.default else [x]))


@pytest.mark.parametrize("child", CHILDREN)
@pytest.mark.parametrize(
    "program",
    [
        lambda s, p: torch.cat([s, p]), lambda s, p: torch.stack([p, s]), lambda s, p: s + p, lambda s, p: p - s, lambda s, p: s * p,
        lambda s, p: p @ s.t(), lambda s, p: s < p, lambda s, p: p == s, lambda s, p: s.index_put((torch.tensor([1]),), p[0]),
        lambda s, p: s.index_add(0, torch.tensor([0]), p[:1]), lambda s, p: torch.maximum(p, s), lambda s, p: s.scatter_add(0, p.abs() % 2, p),
        lambda s, p: s[:, 0] + p.t()[:2, :2].t(), lambda s, p: (s[0] + torch.arange(9).view(3, 3).t()).relu(),
        lambda s, p: torch.nn.functional.pad(s, (1, 2), value=7),
        lambda s, p: torch.addmm(p[:, :2], s, p.t(), beta=2, alpha=-1) + torch.nn.functional.linear(s, s, p[0, :2]),
    ],
)  # fmt: skip
def test_public_values_are_added_once(parties, program, child):
    x, public = torch.tensor([[1, -2, 3], [4, 5, -6]]), torch.tensor([[7, 8, -9], [1, 5, 2]])
    assert torch.equal(program(parties.place(child)(x), public).get().long(), program(x, public).long())


@pytest.mark.parametrize("child", CHILDREN)
@pytest.mark.parametrize("made", [lambda x: x, lambda x: x + 1, lambda x: x * x], ids=["itself", "a sum", "a product"])
@pytest.mark.parametrize(
    "index",
    [
        lambda m: m, lambda m: m[0], lambda m: (slice(None), m[0, 0]), lambda m: (Ellipsis, m[:, 0, 0]), lambda m: (None, m[0]),
        lambda m: (torch.tensor([1, 0]), m[0, 0]), lambda m: torch.zeros_like(m), lambda m: torch.tensor(True),
    ],
)  # fmt: skip
def test_public_masks_choose_what_is_secret(parties, index, made, child):
    """How many they choose is public: it depends on the mask alone, not on what it is for."""
    x = torch.arange(-13, 14).view(3, 3, 3)
    at = index(x % 2 == 0)
    assert torch.equal(made(parties.place(child)(x))[at].get().long(), made(x)[at])


@pytest.mark.parametrize("child", CHILDREN)
def test_choices_of_whole_numbers(parties, child):
    place, a, b = parties.place(child), torch.tensor([[1, -2, 3], [4, 5, -6]]), torch.tensor([[2, 2, 2], [-1, 5, 0]])
    x, y = place(a), place(b)
    for program in (
        lambda x, y: x.max(1), lambda x, y: x.min(0, keepdim=True), lambda x, y: x.abs() ** 3, lambda x, y: torch.where(x > y, x, y), lambda x, y: x.min(),
        lambda x, y: torch.where(y > 1, x, 7), lambda x, y: x.clamp(0, 3), lambda x, y: x.sign() * y**2, lambda x, y: y.max(),
        lambda x, y: x.masked_fill(torch.tensor([True, False, True]), 9), lambda x, y: x.clone().clamp_(y, y + 1), lambda x, y: (x + y).relu_(),
    ):  # fmt: skip
        for mine, theirs in zip(value(program(x, y)), tree_leaves(program(a, b)), strict=True):
            assert torch.equal(mine, theirs)
    assert type(x.max(1)) is torch.return_types.max
    for program in (lambda: x**-1, lambda: x**0.5, lambda: x * 1.5):
        with pytest.raises(Misuse, match="fix_precision"):
            program()


@pytest.mark.parametrize("child", CHILDREN)
def test_a_secret_index_as_one_hot(parties, child):
    index = torch.tensor([[0, 2], [1, 2]])
    secret = parties.place(child)(index)
    with sy.mpc.count() as cost:
        hot = torch.nn.functional.one_hot(secret, 4)
    assert torch.equal(hot.get(), torch.nn.functional.one_hot(index, 4)) and cost.rounds <= 2
    assert torch.equal(torch.nn.functional.one_hot(parties.place(child)(index * 2).argmax(1), num_classes=3).get(), torch.nn.functional.one_hot(torch.tensor([1, 1]), 3))
    with pytest.raises(Misuse, match="give it num_classes"):
        torch.nn.functional.one_hot(secret)
    with pytest.raises(Misuse, match=r"multiply by F\.one_hot\(index, classes\)"):
        torch.arange(3)[secret]


@pytest.mark.parametrize("child", CHILDREN)
def test_writing_in_place(parties, child):
    x = parties.place(child)(torch.arange(6).view(2, 3))
    view = x[0]
    x += 1
    x *= 3
    x -= torch.ones(3, dtype=torch.int64)
    view.copy_(torch.tensor([100, 200, 300]))
    x[1].zero_()
    x.t_()
    assert x.shape == (3, 2) and x.get().tolist() == [[100, 0], [200, 0], [300, 0]]


def test_wrapping_is_the_rings(parties):
    top = torch.tensor([2**63 - 1, -(2**63), 2**62])
    x = parties.place("three")(top)
    assert torch.equal(x.get(), top) and torch.equal((x + 1).get(), top + 1) and torch.equal((x * x).get(), top * top)


def held(shared):
    """Each holder's share, looked at as only a test can: a worker lets none go."""
    return [share.location._objects[share.id_at_location].clone() for share in shared.shares]


def test_shares_are_random_and_add_up(parties):
    x = torch.zeros(1000, dtype=torch.int64)
    for child in CHILDREN:
        shared = parties.place(child)(x)
        parts = held(shared)
        assert torch.equal(sum(parts[:: shared.group.width]), x)
        for part in parts:
            assert part.unique().numel() > 990 and 0.4 < (part < 0).float().mean() < 0.6
    fresh = shared.refresh()
    assert not torch.equal(held(fresh)[0], parts[0]) and torch.equal(fresh.get(), x)
    with pytest.raises(GetNotPermittedError, match="leaves only re-randomised"):
        fresh.shares[0].get()


def test_what_it_is(parties):
    x = parties.place("two")(torch.arange(4))
    assert x.location == x.locations == [parties.alice, parties.bob] and x.crypto_provider is parties.dealer
    assert repr(x.group) == "<Group of sharing-alice, sharing-bob; provider sharing-dealer>"
    assert x.shape == (4,) and x.dtype == torch.int64 and len(x.shares) == 2
    for misuse in (x.tolist, x.numpy, lambda: x.send(parties.carol), lambda: x.move(parties.carol)):
        with pytest.raises(PointerMisuseError, match=r"get\(\)"):
            misuse()
    with pytest.raises(Misuse, match="shared already"):
        x.share(parties.bob, parties.carol)


# -- sharing what is at a worker


def test_a_pointer_is_shared_where_it_is(parties):
    there = torch.tensor([1.5, -2.0]).send(parties.carol)
    shared = there.fix_precision().share(parties.alice, parties.bob, crypto_provider=parties.dealer)
    assert shared.child.location is parties.carol and "located at sharing-carol" in repr(shared)
    here = shared.get()
    assert here.is_secret and here.child.location == [parties.alice, parties.bob], "the first get reveals nothing"
    assert here.get().decode().tolist() == [1.5, -2.0]
    for made in (shared + here, here + shared, shared * 2, (shared * here).relu(), shared[:1]):
        assert made.get().is_secret, "what is made of it is located there too"
        with pytest.raises(sy.errors.Misuse, match=r"located at sharing-carol: get\(\) brings it here"):
            made.decrypt()
    assert (shared + here).get().decrypt().tolist() == [3.0, -4.0] and (here + here).decrypt().tolist() == [3.0, -4.0]


def test_a_plain_gradient_stays_what_it_is(parties):
    w = shared_by(parties, torch.ones(2)).requires_grad_()
    w.sum().backward()
    assert w.decrypt().tolist() == [1.0, 1.0] and w.get().grad is not None


@pytest.mark.parametrize(("value", "factor"), [(1000.0, 1e-3), (1e5, 1e-5), (1000.0, 1e-6), (3.0, 0.7), (-2.5, 3.141592), (800.0, 1e-9), (7.0, 0.25)])
def test_public_factors_keep_their_digits(parties, value, factor):
    x = shared_by(parties, torch.tensor([value, -value]))
    expected = value * factor
    allowed = 2**-15 + abs(expected) * 2**-19
    assert (x * factor).decrypt().sub(torch.tensor([expected, -expected])).abs().max() <= allowed
    assert (x * factor * 2 + 1).decrypt().sub(torch.tensor([expected, -expected]) * 2 + 1).abs().max() <= 2 * allowed


def test_what_waits_is_counted_and_told_of_without_computing_it(parties):
    x = shared_by(parties, torch.ones(3))
    with sy.mpc.count() as cost:
        y = x * x
        assert "has not been asked for" in repr(y) and cost.kernels == 0
    assert cost.rounds == 2 and str(cost).startswith("2 rounds, ") and str(cost).endswith("in 1 kernel")


def test_arguments_that_share_does_not_have_are_refused(parties):
    x = torch.ones(2).fix_precision()
    with pytest.raises(TypeError, match="cryptoprovider"):
        x.share(parties.alice, parties.bob, cryptoprovider=parties.dealer)
    assert x.share([parties.alice, parties.bob], crypto_provider=parties.dealer).decrypt().tolist() == [1.0, 1.0]


def test_a_share_that_is_gone_is_told_of_at_once(parties):
    x, y = shared_by(parties, torch.ones(2)), shared_by(parties, torch.ones(2))
    x._child.shares[0]._handle.consume()
    with pytest.raises(sy.errors.ObjectNotFoundError, match="consumed"):
        (x * y).decrypt()
    assert (y * y).decrypt().tolist() == [1.0, 1.0]


# -- who shares with whom


@pytest.mark.parametrize(
    ("holders", "provider", "text"),
    [
        (["alice"], "dealer", "at least two holders, not 1"),
        (["alice", "alice"], "dealer", "sharing-alice, sharing-alice names one twice"),
        (["alice", "bob"], "alice", "sharing-alice cannot hold shares and provide"),
        ([], "dealer", "at least two holders, not 0"),
    ],
)
def test_groups_that_cannot_be(parties, holders, provider, text):
    with pytest.raises(Misuse, match=text):
        torch.tensor([1]).share(*(getattr(parties, name) for name in holders), crypto_provider=getattr(parties, provider))


def test_holders_of_both_kinds_are_refused(parties, three_nodes):
    node, *_ = three_nodes
    with pytest.raises(Misuse, match="all in this process or all nodes"):
        torch.tensor([1]).share(parties.alice, node, crypto_provider=parties.dealer)
    with pytest.raises(Misuse, match="is a node and the holders are in this process"):
        torch.tensor([1]).share(parties.alice, parties.bob, crypto_provider=node)


def test_protocols(parties):
    for name in ("snn", "fss", "mpc"):
        shared = torch.tensor([5]).share(parties.alice, parties.bob, crypto_provider=parties.dealer, protocol=name)
        assert shared.get().item() == 5
    with pytest.raises(Misuse, match="no protocol 'spdz9' here: snn, fss, mpc"):
        torch.tensor([5]).share(parties.alice, parties.bob, crypto_provider=parties.dealer, protocol="spdz9")
    with pytest.raises(Misuse, match=r"floats are no ring elements: fix_precision\(\)"):
        torch.tensor([5.0]).share(parties.alice, parties.bob, crypto_provider=parties.dealer)
    with pytest.raises(Misuse, match="int32"):
        torch.tensor([5], dtype=torch.int32).share(parties.alice, parties.bob, crypto_provider=parties.dealer)
    with pytest.raises(Misuse, match="no gradient"):
        torch.tensor([5]).share(parties.alice, parties.bob, crypto_provider=parties.dealer, requires_grad=True)


def test_without_a_provider_this_process_provides_and_says_so_once(parties, monkeypatch):
    monkeypatch.setattr(joining, "_warned", set())
    with pytest.warns(UserWarning, match=r"no crypto_provider was named.*sharing-alice, sharing-bob.*share\(\.\.\., crypto_provider=carol\)") as told:
        x = torch.tensor([3]).share(parties.alice, parties.bob)
    assert len(told) == 1 and told[0].filename == __file__
    for share in (
        lambda: torch.ones(1).fix_precision().share(parties.alice, parties.bob), lambda: torch.ones(1).encrypt(workers=[parties.alice, parties.bob]),
        lambda: torch.nn.Linear(1, 1).fix_precision().share(parties.alice, parties.bob),
    ):  # fmt: skip
        joining._warned.clear()
        with pytest.warns(UserWarning, match="no crypto_provider was named") as told:
            share()
        assert [warning.filename for warning in told] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y = torch.tensor([4]).share(parties.alice, parties.bob)
    assert x.crypto_provider is sy.local_worker and (x * y).get().item() == 12


def test_two_groups_do_not_mix(parties):
    x, y = parties.place("two")(torch.arange(3)), parties.place("three")(torch.arange(3))
    for program in (lambda: x + y, lambda: x * y, lambda: x @ y, lambda: torch.cat([x, y]), lambda: x < y, lambda: x.copy_(y)):
        with pytest.raises(TensorsNotCollocatedError, match="share\\(\\) both among the same workers"):
            program()
    with pytest.raises(TensorsNotCollocatedError, match="met a pointer to sharing-alice"):
        x + torch.arange(3).send(parties.alice)
    for program in (lambda: x + torch.tensor([0.5] * 3), lambda: torch.ones(3) * x, lambda: x @ torch.ones(3, 1), lambda: torch.cat([x, torch.ones(1)])):
        with pytest.raises(Misuse, match=r"a torch\.float32 tensor met them: fix_precision\(\)"):
            program()
    plain = torch.zeros(3, dtype=torch.int64)
    for program in (lambda: plain.add_(x), lambda: plain.copy_(x), lambda: plain.mul_(x)):
        with pytest.raises(Misuse, match="would write shares to a plain tensor"):
            program()
    assert not plain.any()
    for program in (lambda: x + 0.5, lambda: x * 0.5, lambda: 0.5 - x):
        with pytest.raises(Misuse, match=r"0\.5 is none: fix_precision\(\)"):
            program()
    with pytest.raises(NotImplementedError, match=r"AdditiveSharingTensor does not know aten\.div\.Tensor"):
        x / 2
    with pytest.raises(Misuse, match="the index is secret"):
        torch.arange(3)[x]


# -- what stays


def weights(parties):
    """How many fixed weights each worker keeps."""
    return [len(worker.transport.session.weights) for worker in parties.all]


def test_nothing_stays_at_the_workers():
    parties = Parties("memory")
    try:
        model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(8, 2))
        model.fix_precision().share(parties.alice, parties.bob, crypto_provider=parties.dealer)
        x = torch.rand(1, 1, 4, 4).fix_precision().share(parties.alice, parties.bob, crypto_provider=parties.dealer)
        with torch.no_grad():
            y = model(x)
            z = (y > 0) * y.amax(1, keepdim=True)
            z.get()
        assert parties.alice.objects_count() > 0 and weights(parties) == [2, 2, 0, 2], "the provider keeps the weights' masks"
        del model, x, y, z
        gc.collect()
        assert [worker.objects_count() for worker in parties.all] == [0, 0, 0, 0] == weights(parties)
    finally:
        parties.close()


def test_training_leaves_nothing(parties):
    gc.collect()
    before = [worker.objects_count() for worker in parties.all]
    w = parties.fix("two")(torch.ones(3, 1)).requires_grad_()
    x = parties.fix("two")(torch.eye(3))
    counts = []
    for _ in range(4):
        loss = ((x @ w).relu() ** 2).mean()
        loss.backward()
        with torch.no_grad():
            w.sub_(w.grad * 0.1)
        w.grad = None
        del loss
        gc.collect()
        counts.append([worker.objects_count() for worker in parties.all])
    assert counts[1:] == counts[:1] * 3
    del w, x
    gc.collect()
    assert [worker.objects_count() for worker in parties.all] == before


@pytest.mark.parametrize("child", CHILDREN)
def test_whole_secrets_become_real_ones(parties, child):
    """What argmax, one_hot and == give, and whole numbers that were shared."""
    place, x, labels = parties.place(child), torch.tensor([[1.0, 3.5, -2.0], [0.5, -1.0, 0.25]]), torch.tensor([1, 2])
    secret, whole = place(x.fix_precision()), place(labels)
    assert torch.equal((torch.nn.functional.one_hot(secret.argmax(1), 3).float() * secret).sum(1).decrypt(), x.max(1).values)
    assert torch.equal((torch.nn.functional.one_hot(secret.argmax(1), 3).fix_precision() * secret).sum(1).decrypt(), x.max(1).values)
    assert (secret.argmax(1) == whole).float().mean().decrypt() == 0.5
    coarse = whole.fix_precision(base=10, precision_fractional=3)
    assert coarse.scale == 1000 and torch.equal(coarse.decrypt(), labels.float()) and torch.equal(whole.double().decrypt(), labels.float())
    with pytest.raises(Misuse, match=r"x.float\(\)"):
        whole.to(torch.int32)


@pytest.mark.parametrize("child", CHILDREN)
def test_whole_secrets_are_compared_with_real_ones(parties, child):
    whole, real = torch.tensor([[3, -2, 0], [7, 1, -5]]), torch.tensor([[3.0, -2.5, 0.25], [7.0, 0.5, -5.0]])
    for base in (2, 10):
        mine, others = parties.place(child)(whole), parties.fix(child, base=base)(real)
        for compare in (torch.eq, torch.ne, torch.lt, torch.le, torch.gt, torch.ge):
            for x, y, left, right in ((mine, others, whole, real), (others, mine, real, whole), (others[0], mine[1, 0], real[0], whole[1, 0])):
                assert torch.equal(compare(x, y).decrypt().bool(), compare(left, right))
    right = 0
    for scores in (parties.fix(child)(real), parties.fix(child)(-real)):  # as PySyft 0.2's encrypted networks counted what they got right
        guess = scores.argmax(dim=1)
        right += guess.eq(parties.fix(child)(torch.tensor([0.0, 2.0])).view_as(guess)).sum()
    assert right.copy().get().float_precision().long().item() == 2
