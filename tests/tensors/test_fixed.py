"""FixedPrecisionTensor: every operator it knows is as plain torch's within a stated error, over every child; or refused by name."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch
from _sharing import OWN, Parties, assert_close, eighths, expected, mapped_all, samples_of, value
from torch.utils._pytree import tree_leaves

import syftlite as sy
from syftlite._torch import aten
from syftlite.errors import LocalTensorMixedError, Misuse, PointerMisuseError, TensorsNotCollocatedError
from syftlite.ops.table import BY_FUNC
from syftlite.tensors.waiting import Product, Waiting

Fixed = sy.FixedPrecisionTensor
CHILDREN = ("plain", "pointer", "two", "three", "coded", "replicated")
SCALES = {"binary": {}, "decimal": {"base": 10, "precision_fractional": 3}}
SCALE = {"binary": 1 << 16, "decimal": 1000}

SUMS = ("sum", "mean", "cumsum", "mm", "bmm", "mv", "dot", "addmm", "baddbmm", "convolution", "convolution_backward", "scatter_add",
        "index_add", "index_put", "unfold_backward")  # fmt: skip
"""Operators whose errors add up over what they sum."""

UNREADABLE = {aten._local_scalar_dense.default}
"""Operators that would tell a shared value."""
NO_FINITE_RESULT = {aten.empty_like.default, aten.new_empty.default, aten.new_empty_strided.default}
"""Operators whose plain results are whatever was in memory: here they are zeros."""


@pytest.fixture(scope="module")
def parties():
    parties = Parties("fixed")
    yield parties
    parties.close()


def units(func, sample) -> float:
    """The error allowed, in units of 1 / scale: two for each product or division that is rounded, times the other factor."""
    tensors = [t for t in torch.utils._pytree.tree_leaves(tuple(sample)) if isinstance(t, torch.Tensor) and t.numel()]
    largest = max([1.0, *(t.double().abs().max().item() for t in tensors if t.is_floating_point())])
    name = func._schema.name.removeprefix("aten::")
    terms = max([1, *(t.numel() for t in tensors)]) if name in SUMS else 1
    powers = {"pow": largest**2, "addcmul": largest, "addcmul_": largest}.get(name, 1.0)
    return 3 * (1 + largest) * powers * terms


STATED = {"div": 3e-4, "div_": 3e-4, "reciprocal": 3e-4, "rsqrt": 2e-4, "pow": 5e-4}
"""Relative errors that functions of secrets state (docs/encrypted.md), beside their units. A gelu states 2e-4. The pow among the samples
that is no product of its base is x^-1.5 = x^-0.5 x^-1: relative errors of factors add, 2e-4 + 3e-4."""


def allowed(func, sample, scale) -> float:
    """`units`, and what the function's own error is in units."""
    name = func._schema.name.removeprefix("aten::")
    found = [t.double().abs().max().item() for t in tree_leaves(expected(func, sample)) if isinstance(t, torch.Tensor) and t.numel()]
    return units(func, sample) + scale * (STATED.get(name, 0.0) * max(found, default=0.0) + (2e-4 if name == "gelu" else 0.0))


ALL = sorted(set(Fixed.ops), key=str)


@pytest.mark.parametrize(("child", "scale"), [*((child, "binary") for child in CHILDREN), ("plain", "decimal"), ("two", "decimal")])
@pytest.mark.parametrize("func", [f for f in ALL if f not in NO_FINITE_RESULT], ids=str)
def test_every_operator_is_as_plain_torchs(parties, func, child, scale):
    """A table entry without a sample, or one that is refused on all its samples, fails."""
    fix, right = parties.fix(child, **SCALES[scale]), 0
    for sample in samples_of(func, eighths):
        index = (lambda t: t.send(parties.alice) if t.dim() else t) if child == "pointer" else lambda t: t
        given = [mapped_all(part, lambda t, index=index: fix(t) if t.dtype == torch.float32 else index(t)) for part in sample]
        try:
            got = func(*given[0], **given[1])
            found = value(got)
        except (NotImplementedError, Misuse, PointerMisuseError) as refusal:
            assert "does not know" in str(refusal) or "knows" in str(refusal) or isinstance(refusal, Misuse), refusal
            continue
        assert_close(found, expected(func, sample), allowed(func, sample, SCALE[scale]), SCALE[scale])
        right += 1
    assert right or (func in UNREADABLE and child not in ("plain", "pointer")) or (func is aten._to_copy.default)


def test_the_tables_own_samples_are_for_operators_that_no_worker_runs():
    assert not set(OWN) & set(BY_FUNC)


@pytest.mark.parametrize("child", ["plain", "two"])  # that a public term is added once, among three too: tests/remote/test_sharing.py
@pytest.mark.parametrize("secret", ["first", "others"])
@pytest.mark.parametrize("func", [f for f in ALL if f not in NO_FINITE_RESULT | UNREADABLE], ids=str)
def test_public_operands_on_either_side(parties, func, secret, child):
    """Where some operands are public, the result is right, or it is refused; it is never garbage."""
    fix = parties.fix(child)
    for sample in samples_of(func, eighths):
        seen = []

        def some(tensor, seen=seen):
            if tensor.dtype != torch.float32:
                return tensor
            seen.append(tensor)
            return fix(tensor) if (len(seen) == 1) == (secret == "first") else tensor

        given = [mapped_all(part, some) for part in sample]
        if len(seen) < 2:
            continue
        try:
            found = value(func(*given[0], **given[1]))
        except (NotImplementedError, Misuse):
            continue
        assert_close(found, expected(func, sample), allowed(func, sample, SCALE["binary"]), SCALE["binary"])


@pytest.mark.parametrize("func", sorted(NO_FINITE_RESULT, key=str), ids=str)
def test_uninitialised_memory_is_zeros(parties, func):
    x = parties.fix("two")(torch.ones(2, 3))
    given = {aten.empty_like.default: (), aten.new_empty.default: ([4, 5],), aten.new_empty_strided.default: ([4, 5], [5, 1])}[func]
    made = func(x, *given)
    assert isinstance(made, Fixed) and made.decode().tolist() == torch.zeros(made.shape).tolist()
    made.copy_(x) if made.shape == x.shape else None
    assert made.is_secret == (made.shape == x.shape)


# -- what waits, views, and writing in place

W = torch.tensor([0.5, 0.25, 2.0])


def waits_for_a_product(x, w):
    z = x * w
    w.add_(1)
    return z, w


def waits_for_a_division(x, w):
    z = x / 2
    x.add_(1)
    return z, x


def writes_to_a_view_of_what_waits(x, w):
    z = x * w
    v = z[0:2]
    v.add_(1)
    return z, v


def writes_to_what_waits_and_has_a_view(x, w):
    z = x * w
    v = z[0:2]
    z.add_(1)
    return z, v


def detached_while_it_waits(x, w):
    z = x * w
    d = z.detach()
    z.mul_(2)
    return z, d


def relu_then_zero(x, w):
    z = x.relu()
    x.zero_()
    return z, x


def several_writes(x, w):
    z = (x * w).relu()
    w.mul_(x)
    x.copy_(w)
    return z, w, x


def view_of_a_view(x, w):
    z = x.view(3, 1)
    z[0] = 5.0
    z.t().mul_(2)
    return x, z


def fill_after_mean(x, w):
    m = x.mean()
    x.fill_(2.0)
    return m, x


def relu_in_place(x, w):
    r = torch.nn.functional.relu(x, inplace=True)
    return r, x


def relu_in_place_with_a_view(x, w):
    v = x[1:]
    r = torch.nn.functional.relu(x, inplace=True)
    return r, x, v


def relu_in_place_on_what_waits(x, w):
    z = x * w
    r = torch.nn.functional.relu(z, inplace=True)
    z.add_(1)
    return r, z


def split_and_write(x, w):
    a, b = x.split([1, 2])
    b.mul_(3)
    return a, b, x


def augmented(x, w):
    z = x
    x += w
    x *= w
    x /= 4
    x -= 1
    return z, x


def of_itself(x, w):
    x[0], x[1:] = x[1] * 1.0, w[1:] - x[0]
    return (x,)


def expanded(x, w):
    e = x.expand(2, 3)
    x.add_(1)
    return e, x


def transposed_in_place(x, w):
    z = torch.outer(x, w)
    z.t_()
    z.unsqueeze_(0)
    return z, z.squeeze(0) @ x


PROGRAMS = (waits_for_a_product, waits_for_a_division, writes_to_a_view_of_what_waits, writes_to_what_waits_and_has_a_view, detached_while_it_waits,
            relu_then_zero, several_writes, view_of_a_view, fill_after_mean, relu_in_place, relu_in_place_with_a_view,
            relu_in_place_on_what_waits, split_and_write, augmented, of_itself, expanded, transposed_in_place)  # fmt: skip


@pytest.mark.parametrize("child", CHILDREN)
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_programs_that_write_in_place(parties, program, child):
    x = torch.tensor([1.0, -2.0, 3.0])
    want = program(x.clone(), W.clone())
    fix = parties.fix(child)
    for mine, theirs in zip(program(fix(x.clone()), fix(W.clone())), want, strict=True):
        assert_close(mine, theirs, 40, 1 << 16)


def test_a_public_tensor_takes_shared_values(parties):
    x = parties.fix("two")(torch.tensor([1.0, 2.0]))
    begun = torch.zeros_like(x)
    assert not begun.is_secret
    begun += x
    assert begun.is_secret and begun.get().decode().tolist() == [1.0, 2.0]
    begun = torch.zeros_like(x)
    begun[0] = x[1]
    assert begun.is_secret and begun.get().decode().tolist() == [2.0, 0.0]
    begun = torch.zeros_like(x)
    part = begun[:1]
    begun += x
    assert part.is_secret and part.get().decode().tolist() == [1.0]
    assert begun.get().decode().tolist() == [1.0, 2.0]
    begun = torch.zeros_like(x)
    detached = begun.detach()
    begun += x
    assert detached.is_secret and detached.get().decode().tolist() == [1.0, 2.0]
    with pytest.raises(Misuse, match="would write fixed-precision values to a plain tensor"):
        torch.zeros(2).add_(x)


def test_writing_does_not_fail_for_what_others_wait_for(parties):
    """What waits for workers that are gone is an error for who reads it, and for nobody else."""
    others = Parties("gone")
    lost = others.fix("two")(torch.ones(2)) * others.fix("two")(torch.ones(2))
    others.close()
    x = parties.fix("two")(torch.ones(2))
    x.add_(1)
    assert x.get().decode().tolist() == [2.0, 2.0]
    for _ in range(2):
        with pytest.raises(RuntimeError, match="closed|is not there"):
            lost.get()


def test_an_error_that_waits_for_its_reader_keeps_no_frames():
    def issue(f):
        raise RuntimeError("gone")

    x = torch.ones(2).fix_precision()
    lost = Fixed.of(Waiting(Product(x.ring, issue, x.shape)), x.attributes())

    def write():
        local = torch.nn.Identity()
        x.add_(1)
        return weakref.ref(local)

    def read():
        local = torch.nn.Identity()
        with pytest.raises(RuntimeError, match="gone"):
            lost.decode()
        return weakref.ref(local)

    written, seen = write(), read()
    read()
    gc.collect()
    assert written() is None and seen() is None
    assert x.decode().tolist() == [2.0, 2.0]


# -- what it is


def test_the_chain(parties):
    x = parties.fix("two")(torch.tensor([1.5, -2.0]))
    shares = x.child
    assert isinstance(shares, sy.AdditiveSharingTensor) and isinstance(shares.child, sy.MultiPointerTensor)
    assert shares.parent is x and shares.child.parent is shares and x.parent is None
    lines = repr(x).splitlines()
    assert lines[0] == "FixedPrecisionTensor | 2**-16" and "AdditiveSharingTensor | fixed-alice, fixed-bob; provider fixed-dealer" in lines[1]
    assert len(lines) == 4 and all("PointerTensor | me:" in line for line in lines[2:])
    got = x.get()
    assert isinstance(got, Fixed) and got.child.tolist() == [98304, -131072] and got.decode().tolist() == [1.5, -2.0]
    assert repr(got) == "FixedPrecisionTensor | 2**-16\n    -> tensor([  98304, -131072])"
    assert x.shape == (2,) and x.dtype == torch.float32 and x.location == [parties.alice, parties.bob]


def test_what_no_product_can_be_is_flagged(parties):
    x = torch.tensor([2.0**29, 3.0]).fix_precision().share(parties.alice, parties.bob, crypto_provider=parties.dealer)
    got = (x + x).get()
    with pytest.warns(UserWarning, match=r"1 of 2 values are 1.07374e\+09 or more in magnitude, which no product at scale 2\*\*16 can be"):
        assert got.decode().tolist() == [2.0**30, 6.0]  # a sum may be
    assert x.get().decode().tolist() == [2.0**29, 3.0]


def test_reading():
    x = torch.tensor([[0.1, -3.0]]).fix_precision(base=10, precision_fractional=3)
    assert x.child.tolist() == [[100, -3000]]
    for read in (x.float_precision, x.float_prec, x.decode):
        assert torch.equal(read(), torch.tensor([[0.1, -3.0]]))
    assert x.tolist() == [[pytest.approx(0.1), -3.0]] and x.numpy().dtype.name == "float32" and x[0, 1].item() == -3.0
    assert f"{x[0, 1]:.1f}" == "-3.0" and bool(x[0, 0] > 0)
    assert x.fix_precision() is x is x.fix_prec()


@pytest.mark.parametrize("values", [[1.0, -2.5, 0.1], [], 3.25, [[1e-5], [2.0**29]]])
@pytest.mark.parametrize("scale", SCALES)
def test_a_round_trip_is_exact_to_half_a_unit(values, scale):
    x = torch.tensor(values)
    back = x.fix_precision(**SCALES[scale]).decode()
    assert back.shape == x.shape and back.dtype == torch.float32
    assert ((back.double() - x.double()).abs() <= 0.5 / SCALE[scale] + 1e-7 * x.double().abs()).all()


@pytest.mark.parametrize(("digits", "scale"), [(0, 1), *((n, 10**n) for n in range(1, 7)), *((n, 2**n) for n in range(7, 31))])
def test_few_digits_without_a_base_are_decimal(digits, scale):
    module = torch.nn.Linear(1, 1).fix_precision(precision_fractional=digits)
    for x in (torch.tensor([0.5, -0.25]).fix_precision(precision_fractional=digits), module.weight, torch.ones(1).fix_prec_(precision_fractional=digits)):
        assert x.base**x.precision_fractional == scale


def test_deep_copies_are_apart(parties):
    x = parties.fix("two")(torch.tensor([1.0, 2.0])).requires_grad_()
    (x * x).sum().backward()
    twin = copy.deepcopy(x)
    with torch.no_grad():
        x.add_(1)
    assert twin.requires_grad and twin.get().decode().tolist() == [1.0, 2.0] and twin.grad.get().decode().tolist() == [2.0, 4.0]


# -- refusals

REFUSED = {
    "erf": lambda x: x.erf(), "round": lambda x: x.round(decimals=1), "sin": lambda x: x.sin(), "nonzero": lambda x: x.nonzero(),
    "randn_like": lambda x: torch.randn_like(x),
    "bitwise_and": lambda x: x & x, "allclose": lambda x: torch.allclose(x, x), "equal": lambda x: torch.equal(x, x),
    "_unique2": lambda x: x.unique(), "cummax": lambda x: x.cummax(0),
}  # fmt: skip


@pytest.mark.parametrize("child", ["plain", "two"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_secret_form_is_refused_by_name(parties, name, child):
    x = parties.fix(child)(torch.tensor([1.0, 2.0, 4.0]))
    with pytest.raises(NotImplementedError, match=rf"FixedPrecisionTensor (does not know|knows) aten\.{name}\b"):
        REFUSED[name](x)


def test_a_shared_value_is_not_read_by_accident(parties):
    x = parties.fix("two")(torch.tensor([1.0]))
    for read in (bool, float, int, lambda v: v.item(), lambda v: f"{v[0]:.2f}", lambda v: 1 if v > 0 else 0):
        with pytest.raises(PointerMisuseError, match=r"get\(\) reconstructs it"):
            read(x)
    for read in (lambda v: v.tolist(), lambda v: v.numpy(), lambda v: v.float_precision()):
        with pytest.raises(Misuse, match=r"get\(\) first"):
            read(x)


@pytest.mark.parametrize("worst", [float("nan"), float("inf"), -float("inf"), 2.0**30, 1e12])
def test_values_that_do_not_fit_are_refused(worst):
    with pytest.raises(ValueError, match=r"does not fit: products of scale 2\*\*16 stay below 1\.07374e\+09"):
        torch.tensor([1.0, worst]).fix_precision()


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 1e30])
def test_public_operands_that_do_not_fit_are_refused(parties, number):
    x = parties.fix("two")(torch.ones(2))
    for program in (lambda: x * number, lambda: x + number, lambda: x + torch.tensor([0.0, number]), lambda: x * torch.tensor([1.0, number])):
        with pytest.raises(ValueError, match=r"a public operand of .* does not fit in ring elements of scale 65536"):
            program()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"base": 1}, "whole numbers from 2"),
        ({"base": 2, "precision_fractional": 31}, r"base \*\* precision at most 2\^30"),
        ({"precision_fractional": -1}, "whole numbers"),
        ({"precision_fractional": 2.5}, "whole numbers"),
        ({"dtype": torch.int32}, "ring elements are 64 bits"),
    ],
)
def test_schemes_that_there_are_not(options, text):
    with pytest.raises(Misuse, match=text):
        torch.ones(1).fix_precision(**options)


def test_what_cannot_meet_does_not(parties):
    x = parties.fix("two")(torch.ones(2))
    with pytest.raises(Misuse, match=r"operands of scale 2\*\*16 and 10\*\*3: fix_precision\(\) both alike"):
        x + parties.fix("two", base=10)(torch.ones(2))
    with pytest.raises(TensorsNotCollocatedError, match="share\\(\\) both among the same workers"):
        x * parties.fix("three")(torch.ones(2))
    with pytest.raises(TensorsNotCollocatedError, match="a shared tensor met a pointer to fixed-alice"):
        x + parties.fix("pointer")(torch.ones(2))
    with pytest.raises(Misuse, match="met a PointerTensor: fix_precision\\(\\) it too"):
        x + torch.ones(2).send(parties.alice)
    with pytest.raises(Misuse, match="met a AdditiveSharingTensor"):
        x + x.child
    with pytest.raises(LocalTensorMixedError, match="send\\(\\) it there first"):
        parties.fix("pointer")(torch.ones(2)) + torch.ones(2)
    with pytest.raises(Misuse, match="complex"):
        torch.ones(2, dtype=torch.complex64).fix_precision()
    with pytest.raises(ValueError, match="mean of no elements"):
        x[:0].mean()
    for dtype in (torch.int64, torch.float16):
        with pytest.raises(Misuse, match="stands for floats"):
            x.to(dtype)


WRITES = {
    "copy_": lambda x, y: x.copy_(y),
    "item": lambda x, y: x.__setitem__(0, y[0]),
    "mask": lambda x, y: x.__setitem__(torch.tensor([True, False]), y[:1]),
    "fill_": lambda x, y: x.fill_(y[0]),
    "view": lambda x, y: x[:1].copy_(y[1:]),
}


@pytest.mark.parametrize("child", ["plain", "two", "replicated"])
@pytest.mark.parametrize("write", WRITES.values(), ids=list(WRITES))
def test_another_scale_is_not_written(parties, write, child):
    x, coarse = parties.fix(child)(torch.ones(2)), parties.fix(child, precision_fractional=8)(torch.full((2,), 3.0))
    for to, written in ((x, coarse), (coarse, x)):
        with pytest.raises(Misuse, match=r"operands of scale 2\*\*\d+ and 2\*\*\d+: fix_precision\(\) both alike"):
            write(to, written)
    assert value([x, coarse])[0].tolist() == [1, 1] and value(coarse)[0].tolist() == [3, 3]


def test_a_model_loads_no_other_scale():
    model, other = (torch.nn.Linear(2, 2).fix_precision(**scheme) for scheme in ({}, {"base": 10}))
    with pytest.raises(RuntimeError, match=r"operands of scale 2\*\*16 and 10\*\*3"):
        model.load_state_dict(other.state_dict())


@pytest.mark.parametrize("index", [lambda x: torch.arange(3.0)[x], lambda x: x[x], lambda x: torch.nn.functional.embedding(x, torch.ones(2, 3))])
def test_secret_indices_are_refused(parties, index):
    with pytest.raises((Misuse, NotImplementedError, IndexError, RuntimeError), match=r"ind(ex|ices)|whole numbers|scalar types"):
        index(parties.fix("two")(torch.tensor([0.0, 1.0])))


# -- ranges


@pytest.mark.parametrize("count", [72, 442, 1000])
def test_means_of_products_have_room(parties, count):
    """The sum of ``count`` squares waits with the scale twice: it is divided before it is multiplied."""
    x = torch.linspace(-30, 30, count)
    shared = parties.fix("two")(x)
    assert_close((shared**2).mean(), (x**2).mean(), 3 + 300 * 2**-18 * 2**16, 1 << 16)
    assert_close((shared * shared).sum() / 3, (x**2).sum() / 3, 3 + (x**2).sum().item() / 3 * 2**-18 * 2**16, 1 << 16)
    assert_close(shared * 0.5 * 0.25 * 1000, x * 125, 3000, 1 << 16)


@pytest.mark.parametrize("divisor", [3, 7, 100, 999, 65537])
def test_division_by_public_numbers(parties, divisor):
    x = torch.tensor([1000.0, -3.0, 0.0, 100000.0])
    assert_close(parties.fix("three")(x) / divisor, x / divisor, 2 + 100000 / divisor * 2**-18 * 2**16, 1 << 16)


def test_of_several_workers_each_has_its_own(parties):
    x = torch.tensor([1.5, -2.0])
    for values in ((x + 1).send(parties.alice, parties.bob).fix_precision() - 1).decrypt(), x.send(parties.alice, parties.bob).fix_precision().get():
        assert [value(v)[0].tolist() for v in values] == [[1.5, -2.0]] * 2
    assert x.send(parties.alice, parties.bob).fix_precision().decrypt(sum_results=True).tolist() == [3.0, -4.0]


@pytest.mark.parametrize("child", ["two", "three", "replicated"])
@pytest.mark.parametrize("divisor", [3, 7, 300, 1000])
def test_what_is_public_is_as_exact_beside_a_quotient(parties, divisor, child):
    """A quotient is off by 2^-18 of itself: what is added to it before it is divided would be off by as much."""
    x, chosen = torch.tensor([0.5, -1.0, 100.0]), torch.tensor([True, False, True])
    for program in (
        lambda x: x / divisor + 500, lambda x: x / divisor - 500 + 500, lambda x: torch.cat([x / divisor, torch.tensor([500.0])]),
        lambda x: torch.where(chosen, x / divisor, 500.0), lambda x: (x / divisor).masked_fill(chosen, 500.0), lambda x: x.mean() - 500.0,
        lambda x: torch.nn.functional.pad(x / divisor, (0, 1), value=500.0), lambda x: (x / divisor - 500).relu(), lambda x: x / divisor * 2 + 1,
    ):  # fmt: skip
        assert_close(program(parties.fix(child)(x)), program(x.double()), 5, 1 << 16)
