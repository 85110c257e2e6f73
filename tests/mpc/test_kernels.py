"""Every kernel against plain integers, for 2, 3 and 5 holders and to the ends of its range; its rounds and bytes; its refusals."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as nnf
from hypothesis import given, settings
from hypothesis import strategies as st

from syftlite.errors import Misuse
from syftlite.mpc.kernel import RANGES
from syftlite.mpc.kernels import KERNELS, NUMBERS, WeightSpec, requests
from syftlite.mpc.ring import Ring, reveal, share

from .group import Group

TOP = 2**62 - 1
HOLDERS = pytest.mark.parametrize("n", [2, 3, 5])
wide = st.integers(-TOP, TOP) | st.sampled_from([0, 1, -1, TOP, -TOP, 2**47 - 1, -(2**47)])
any_value = wide | st.sampled_from([2**63 - 1, -(2**63), 2**62, -(2**62)])
lists = st.lists(wide, min_size=1, max_size=70)
few = settings(max_examples=12, deadline=None)


def ints(low, high, *shape):
    return torch.randint(low, high, shape)


def test_the_list_is_append_only_and_complete():
    names = ["truncate", "mul", "square", "matmul", "fix_weight", "linear", "conv2d_fixed", "conv2d", "conv2d_input_grad", "conv2d_weight_grad", "negative", "relu", "relu_and_mask", "max_pool2d", "max_pool2d_and_mask", "max_pool2d_grad", "maximum", "minimum", "max", "max_and_mask", "equal", "equal_zero", "select", "refresh", "less", "quotient"]
    functions = ["exp", "curve", "roots", "divide", "softmax", "one_hot", "sort"]
    numbers = {name: number for number, name in [*enumerate(names, 1), *enumerate(functions, 32)]}
    replicated = {f"replicated_{name}": 64 + number for name, number in numbers.items() if name != "fix_weight"}
    assert numbers | replicated == NUMBERS
    assert [kernel.name for _, kernel in sorted(KERNELS.items())] == [*names, *functions, *sorted(replicated, key=NUMBERS.get)]


@HOLDERS
@few
@given(values=lists, f=st.sampled_from([1, 8, 16, 18, 32, 40, 61, 62]))
def test_truncate_is_wrong_by_at_most_one_unit_in_its_whole_range(n, values, f):
    x = torch.tensor([*values, TOP, -TOP - 1])
    error = Group(n).plain("truncate", x, f=f) - (x >> f)
    assert ((error == 0) | (error == 1)).all()
    assert not error[(x & ((1 << f) - 1)) == 0].any()


@HOLDERS
@few
@given(values=lists, divisor=st.integers(3, 2**44 - 1).filter(lambda d: d & (d - 1)) | st.sampled_from([3, 10, 1000, 10**6, 10**12]))
def test_quotients_by_what_is_no_power_of_two(n, values, divisor):
    x = torch.tensor([*values, TOP, -TOP - 1])
    y = Group(n).plain("quotient", x, divisor=divisor)
    for found, value in zip(y.tolist(), x.tolist(), strict=True):
        assert abs(found * divisor - value) <= 2 * divisor + (abs(value) >> 34), (found, value)


@HOLDERS
@few
@given(pairs=st.lists(st.tuples(wide, wide), min_size=1, max_size=70))
def test_ring_products(n, pairs):
    x, y = torch.tensor(pairs).unbind(1)
    group = Group(n)
    assert torch.equal(group.plain("mul", x, y), x * y)
    assert torch.equal(group.plain("square", x), x * x)
    assert torch.equal(group.plain("refresh", x), x)


@HOLDERS
def test_products_truncate_and_broadcast(n):
    group = Group(n)
    x, y = ints(-(2**30), 2**30, 5, 1, 7), ints(-(2**30), 2**30, 4, 1)
    assert torch.equal(group.plain("mul", x, y), x * y)
    for name, plain, operands in (("mul", x * y, (x, y)), ("square", x * x, (x,)), ("mul", x * x, (x, x))):
        error = group.plain(name, *operands, f=16) - (plain >> 16)
        assert ((error == 0) | (error == 1)).all()
    for a, b in (((33, 20), (20, 9)), ((3, 5, 4), (3, 4, 6)), ((2, 3, 5, 4), (4, 6)), ((5, 4), (3, 4, 2)), ((4, 0), (0, 3))):
        x, y = ints(-(2**28), 2**28, *a), ints(-(2**28), 2**28, *b)
        assert torch.equal(group.plain("matmul", x, y), x @ y)
        error = group.plain("matmul", x, y, f=16) - ((x @ y) >> 16)
        assert ((error == 0) | (error == 1)).all()


@HOLDERS
def test_less_with_its_shift_and_its_opposite(n):
    x, y = ints(-(2**40), 2**40, 6, 1), ints(-(2**40), 2**40, 5)
    x[0, 0] = y[0]
    group = Group(n)
    assert torch.equal(group.plain("less", x, y), (x < y).long())
    assert torch.equal(group.plain("less", x, y, f=16, invert=1), (x >= y).long() << 16)
    assert torch.equal(group.plain("negative", x, f=3), (x < 0).long() << 3)
    assert torch.equal(group.plain("negative", x, invert=1), (x >= 0).long())


@HOLDERS
@few
@given(values=st.lists(any_value, min_size=1, max_size=130))
def test_signs_of_every_value(n, values):
    x = torch.tensor(values)
    group = Group(n)
    assert torch.equal(group.plain("negative", x), (x < 0).long())
    assert torch.equal(group.plain("relu", x), x.clamp(min=0))
    y, mask = group.plain("relu_and_mask", x)
    assert torch.equal(y, x.clamp(min=0)) and torch.equal(mask, (x >= 0).long())


@HOLDERS
@few
@given(values=lists, f=st.sampled_from([1, 16, 18, 33]))
def test_relu_that_truncates(n, values, f):
    x = torch.tensor([*values, TOP, -TOP - 1])
    y, mask = Group(n).plain("relu_and_mask", x, f=f)
    error = y - (x.clamp(min=0) >> f)
    assert ((error == 0) | (error == 1)).all()
    assert torch.equal(mask, (x >= 0).long())


@HOLDERS
def test_a_window_of_32_bits_is_right_where_it_says(n):
    """-2^47 <= x <= 2^47 - 2^16, and not below 0 by less than 2^16."""
    x = torch.tensor([-(2**47), -(2**47) + 1, 2**47 - 2**16, 0, 1, 2**16, -(2**16), -(2**16) - 1, -(2**40), 2**40])
    x = torch.cat([x, ints(-(2**47), -(2**16), 500), ints(0, 2**47 - 2**16, 500)])
    group = Group(n)
    assert torch.equal(group.plain("negative", x, low=16), (x < 0).long())
    near = ints(-(2**16), 0, 2000)
    assert ((group.plain("relu", near, low=16, f=16) | 1) == 1).all()  # at most one unit, and only of what rounds up to 0
    share_of_positives = 1 - group.plain("negative", near, low=16).double().mean()
    assert abs(share_of_positives - 0.5) < 0.1


@HOLDERS
@few
@given(pairs=st.lists(st.tuples(wide, wide), min_size=1, max_size=60))
def test_choices(n, pairs):
    x, y = torch.tensor(pairs).unbind(1)
    same = torch.where(ints(0, 2, len(pairs)) == 1, x, y)
    bit = ints(0, 2, len(pairs))
    group = Group(n)
    assert torch.equal(group.plain("maximum", x, y), torch.maximum(x, y))
    assert torch.equal(group.plain("minimum", x, y), torch.minimum(x, y))
    assert torch.equal(group.plain("equal", x, same), (x == same).long())
    assert torch.equal(group.plain("equal_zero", x), (x == 0).long())
    assert torch.equal(group.plain("select", bit, x, y), torch.where(bit == 1, x, y))


def test_equality_sees_every_bit():
    x = torch.tensor([0, *[1 << k for k in range(63)], -(2**63), -1])
    assert Group().plain("equal_zero", x).tolist() == [1] + [0] * 65


@HOLDERS
@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_the_greatest_along_an_axis(n, count):
    group, x = Group(n), ints(-3, 3, 6, count, 5)
    x[0, :, 0] = 2  # ties go to the first
    best, one_hot, index = group.plain("max_and_mask", x, dim=1)
    assert torch.equal(best, x.amax(1)) and torch.equal(group.plain("max", x, dim=-2), x.amax(1))
    assert torch.equal(index, (x == x.amax(1, keepdim=True)).long().argmax(1))
    assert torch.equal(one_hot, nnf.one_hot(index, count).movedim(-1, 1))


CONVOLUTIONS = [
    {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1},
    {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 1), "groups": 2},
    {"stride": (1, 2), "padding": (1, 1), "dilation": (2, 1), "groups": 1},
    {"stride": (2, 2), "padding": (1, 0), "dilation": (1, 2), "groups": 2},
    {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 4},
]


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("conv", CONVOLUTIONS)
def test_convolutions_and_their_gradients(n, conv):
    group = Group(n)
    x, w = ints(-99, 99, 2, 4, 12, 13), ints(-99, 99, 8, 4 // conv["groups"], 3, 2)
    arguments = (None, conv["stride"], conv["padding"], conv["dilation"], conv["groups"])
    want = nnf.conv2d(x.double(), w.double(), *arguments)
    fixed = group.kernel("fix_weight", share(w, n))
    for _ in range(2):  # the same weight again
        assert torch.equal(reveal(group.kernel("conv2d_fixed", share(x, n), fixed, **conv)), want.long())
    assert torch.equal(group.plain("conv2d", x, w, **conv), want.long())
    pooled = nnf.avg_pool2d(want, 3, 2, divisor_override=1).long()
    assert torch.equal(reveal(group.kernel("conv2d_fixed", share(x, n), fixed, pool=(3, 2), **conv)), pooled)
    grad = ints(-9, 9, *want.shape)
    x_grad = torch.nn.grad.conv2d_input(x.shape, w.double(), grad.double(), *arguments[1:]).long()
    w_grad = torch.nn.grad.conv2d_weight(x.double(), w.shape, grad.double(), *arguments[1:]).long()
    assert torch.equal(group.plain("conv2d_input_grad", grad, w, size=(12, 13), **conv), x_grad)
    assert torch.equal(group.plain("conv2d_weight_grad", x, grad, size=(3, 2), **conv), w_grad)


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("kernel,stride,padding", [((2, 2), (2, 2), (0, 0)), ((3, 3), (2, 2), (1, 1)), ((2, 3), (1, 2), (1, 0)), ((1, 1), (2, 2), (0, 0))])
def test_max_pooling_forward_and_backward(n, kernel, stride, padding):
    group, x = Group(n), ints(-9, 9, 2, 3, 8, 9)
    pool = {"kernel": kernel, "stride": stride, "padding": padding}
    plain = x.double().requires_grad_()
    want = nnf.max_pool2d(plain, kernel, stride, padding)
    for more in ({}, {"low": 0}):
        assert torch.equal(group.plain("max_pool2d", x, **pool, **more), want.long())
        best, mask = group.kernel("max_pool2d_and_mask", share(x, n), **pool, **more)
        assert torch.equal(reveal(best), want.long())
    error = group.plain("max_pool2d", x << 20, f=16, relu=1, **pool) - (want.long().clamp(min=0) << 4)
    assert not error.any()
    assert torch.equal(group.plain("max_pool2d", x << 20, f=16, **pool), want.long() << 4)
    grad = ints(-9, 9, *want.shape)
    want.backward(grad.double())
    got = group.kernel("max_pool2d_grad", share(grad, n), mask, size=(8, 9), **pool)
    assert torch.equal(reveal(got), plain.grad.long())


@pytest.mark.parametrize("n", [2, 3])
def test_large_tensors_go_in_pieces_in_the_same_rounds(n, monkeypatch):
    monkeypatch.setattr("syftlite.mpc.pieces.PIECE", 64)
    from syftlite.mpc import kernel

    kernel._dry.cache_clear()
    group, x, y = Group(n), ints(-(2**40), 2**40, 9, 100), ints(-(2**20), 2**20, 9, 100)
    shares = share(x, n), share(y, n)
    assert group.cost("relu", shares[0])[0] == 4 and group.cost("mul", *shares, f=16)[0] == 2 and group.cost("select", shares[0], *shares)[0] == 1
    assert torch.equal(group.plain("relu", x), x.clamp(min=0))
    assert torch.equal(group.plain("mul", x, y), x * y)
    assert torch.equal(group.plain("maximum", x, y), torch.maximum(x, y))
    assert torch.equal(group.plain("relu_and_mask", x)[1], (x >= 0).long())
    kernel._dry.cache_clear()


def test_an_image_that_lies_channels_last_stays_so():
    x = ints(-9, 9, 2, 4, 6, 6)
    shares = [s.contiguous(memory_format=torch.channels_last) for s in share(x, 2)]
    group = Group()
    got = group.kernel("relu", shares)
    assert torch.equal(reveal(got), x.clamp(min=0))
    assert all(y.is_contiguous(memory_format=torch.channels_last) for y in got)


@pytest.mark.parametrize("name,operands,static", [("relu", 1, {"f": 3}), ("negative", 1, {}), ("truncate", 1, {"f": 3}), ("mul", 2, {}), ("equal", 2, {}), ("relu_and_mask", 1, {})])
def test_nothing_of_nothing(name, operands, static):
    group = Group(3)
    out = group.plain(name, *[torch.empty(0, 4, dtype=torch.int64)] * operands, **static)
    assert all(x.shape == (0, 4) for x in (out if isinstance(out, tuple) else (out,)))
    assert not any(group.messages)


# -- rounds and bytes


def test_rounds_and_bytes_of_one_element():
    """Between two holders, each way; the provider's separately."""
    n = 6400
    x = share(ints(-(2**40), 2**40, n), 2)
    group = Group()
    costs = {
        ("mul", 2, (("f", 16),)): (2, 24),
        ("square", 1, ()): (1, 8),
        ("truncate", 1, (("f", 16),)): (1, 8),
        ("negative", 1, ()): (4, 12.25),
        ("negative", 1, (("low", 16),)): (4, 10.25),
        ("relu", 1, ()): (4, 12.25),
        ("relu", 1, (("f", 16),)): (4, 12.25),
        ("relu_and_mask", 1, (("f", 16),)): (4, 12.25),
        ("equal_zero", 1, ()): (4, 10.625),
        ("maximum", 2, ()): (4, 12.25),
        ("select", 3, ()): (1, 16),
        ("refresh", 1, ()): (0, 0),
    }
    for (name, operands, static), (rounds, nbytes) in costs.items():
        got = group.cost(name, *[x] * operands, **dict(static))
        assert got == (rounds, nbytes * n), name


def test_rounds_and_bytes_of_a_comparison_alone():
    """The sign as XOR shares: 3 rounds, 12.1 bytes; of more than 65,536 elements 6 rounds, 19 bytes."""
    from syftlite.mpc.comparison import sign_bits

    group, x = Group(), share(ints(-(2**40), 2**40, 6400), 2)
    group.run(sign_bits, x)
    assert (group.parties[0].rounds, group.parties[0].sent) == (3, 12.125 * 6400)
    group, x = Group(), share(torch.zeros(64 * 1025, dtype=torch.int64), 2)
    group.run(sign_bits, x)
    assert (group.parties[0].rounds, group.parties[0].sent) == (6, 19 * 64 * 1025)


@HOLDERS
@pytest.mark.parametrize("tree", [(2, 2), (4, 2), (4, 4), (2, 4, 2)], ids=str)
@pytest.mark.parametrize("width", [8, 16, 32, 64])
def test_all_trees_compare_alike(n, tree, width, monkeypatch):
    from syftlite.mpc import comparison, selection

    for module in (comparison, selection):
        monkeypatch.setattr(module, "tree_of", lambda width, words, many=tree: tree)
    group = Group(n, ring=Ring(width))
    top = 1 << (width - 1)
    near = torch.arange(-50, 51)  # c and r agree in their upper bits
    x = torch.cat([ints(-top, top - 1, 300), near, torch.tensor([top - 1, -top, top // 2, -top // 2])])
    out = group.run(comparison.negative, share(x, n))
    assert torch.equal(group.parties[0].ring.signed(sum(out)), (x < 0).long())


def test_what_the_provider_sends_for_one_element():
    from syftlite.mpc.correlations import size

    n = 6400
    for (name, static), nbytes in {("relu", ()): 60.125, ("relu", (("f", 16),)): 72.125, ("negative", ()): 52.125, ("equal_zero", ()): 46.875, ("mul", (("f", 16),)): 18}.items():
        _, asked = requests(NUMBERS[name], [(n,)] * len(KERNELS[NUMBERS[name]].operands), **dict(static))
        assert sum(size(kind, args)[1] for kind, args in asked) == nbytes * n, name


def lenet(group, x, weights, low=-1):
    for w in weights[:2]:
        x = group.kernel("max_pool2d", group.kernel("conv2d_fixed", x, w), kernel=(2, 2), stride=(2, 2), f=16, relu=1, low=low)
    x = group.kernel("relu", group.kernel("linear", [s.reshape(-1, 256) for s in x], weights[2]), f=16, low=low)
    return group.kernel("linear", x, weights[3], f=16)


def small_cnn(group, x, weights, low=-1):
    for w in weights[:3]:
        x = group.kernel("relu", group.kernel("conv2d_fixed", x, w, padding=(1, 1), pool=(2, 2)), f=18, low=low)
    return group.kernel("linear", [s.reshape(-1, 576) for s in x], weights[3], f=16)


def plain_lenet(x, w):
    for k in w[:2]:
        x = nnf.max_pool2d(nnf.conv2d(x, k), 2).relu()
    return (x.reshape(-1, 256) @ w[2]).relu() @ w[3]


def plain_small_cnn(x, w):
    for k in w[:3]:
        x = nnf.avg_pool2d(nnf.conv2d(x, k, padding=1), 2).relu()
    return x.reshape(-1, 576) @ w[3]


@pytest.mark.parametrize("low", [-1, 16])
@pytest.mark.parametrize(
    "network,plain,shapes,rounds",
    [
        (lenet, plain_lenet, [(16, 1, 5, 5), (16, 16, 5, 5), (256, 100), (100, 10)], 33),
        (small_cnn, plain_small_cnn, [(16, 1, 3, 3), (32, 16, 3, 3), (64, 32, 3, 3), (576, 10)], 17),
    ],
)
def test_networks(network, plain, shapes, rounds, low):
    group, images = Group(), torch.rand(3, 1, 28, 28)
    weights = [torch.randn(shape) / math.prod(shape[1:] if len(shape) == 4 else shape[:1]) ** 0.5 for shape in shapes]
    encoded = [(x.double() * 2**16).round().long() for x in (images, *weights)]
    fixed = [group.kernel("fix_weight", share(w, 2)) for w in encoded[1:]]
    before = group.parties[0].rounds
    got = reveal(network(group, share(encoded[0], 2), fixed, low)) / 2**16
    assert group.parties[0].rounds - before == rounds
    assert (got - plain(images, weights)).abs().max() < 2e-3


# -- refusals, and dry runs


@pytest.mark.parametrize(
    "name,specs,static,text",
    [
        ("truncate", [(3,)], {}, "f is an int, not None"),
        ("truncate", [(3,)], {"f": 63}, "not within 0 ... 62"),
        ("truncate", [(3,)], {"f": True}, "f is an int"),
        ("truncate", [(3,)], {"f": 1.0}, "f is an int"),
        ("truncate", [(3,)], {"f": [1]}, "f is an int"),
        ("truncate", [(3,)], {"f": 1, "g": 2}, "no argument g"),
        ("mul", [(3,), (4,)], {}, "do not broadcast"),
        ("matmul", [(3, 4), (3, 4)], {}, "cannot be multiplied"),
        ("matmul", [(3,), (3, 4)], {}, "cannot be multiplied"),
        ("mul", [(1 << 20, 1), (1 << 20,)], {}, "smaller batches"),
        ("linear", [(2, 3), WeightSpec((4, 5), 0)], {}, "does not multiply"),
        ("conv2d_fixed", [(1, 3, 8, 8), WeightSpec((4, 2, 3, 3), 0)], {}, "does not fit an image of 3 channels"),
        ("conv2d_fixed", [(1, 3, 2, 2), WeightSpec((4, 3, 3, 3), 0)], {}, "larger than the padded image"),
        ("conv2d_fixed", [(3, 8, 8), WeightSpec((4, 3, 3, 3), 0)], {}, "four dimensions"),
        ("conv2d_fixed", [(1, 3, 8, 8), WeightSpec((4, 3, 3, 3), 0)], {"stride": (0, 1)}, "stride"),
        ("conv2d_fixed", [(1, 3, 8, 8), WeightSpec((4, 3, 3, 3), 0)], {"stride": 1}, "a pair of ints"),
        ("conv2d_fixed", [(1 << 14, 3, 512, 512), WeightSpec((4, 3, 3, 3), 0)], {"padding": (64, 64)}, "smaller batches"),
        ("conv2d_input_grad", [(1, 4, 6, 6), (4, 3, 3, 3)], {"size": (9, 8)}, "is not that of"),
        ("conv2d_weight_grad", [(1, 3, 8, 8), (1, 4, 6, 5)], {"size": (3, 3)}, "is not that of"),
        ("max_pool2d", [(1, 3, 8, 8)], {"kernel": (2, 2), "stride": (2, 2), "padding": (2, 0)}, "at most half"),
        ("max_pool2d", [(1, 3, 1, 8)], {"kernel": (2, 2), "stride": (2, 2)}, "larger than"),
        ("max_pool2d_grad", [(1, 3, 4, 4), (1, 3, 4, 4, 3)], {"size": (8, 8), "kernel": (2, 2), "stride": (2, 2)}, "does not belong"),
        ("max_pool2d_grad", [(1, 3, 4, 4), (1, 3, 4, 4, 4)], {"size": (7, 8), "kernel": (2, 2), "stride": (2, 2)}, "not a gradient"),
        ("max", [(3, 4)], {"dim": 2}, "axis 2"),
        ("max", [(3, 0)], {"dim": 1}, "axis 1"),
        ("equal", [(3,), (4,)], {}, "equal of"),
        ("negative", [(3,)], {"low": 33}, "not within -1 ... 32"),
        ("quotient", [(3,)], {"divisor": 1}, "divisor = 1 is not within 2"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_drawn(name, specs, static, text):
    with pytest.raises((ValueError, Misuse), match=text):
        requests(NUMBERS[name], specs, **static)
    if all(not isinstance(s, WeightSpec) and math.prod(s) < 1 << 16 for s in specs):
        group = Group()
        with pytest.raises((ValueError, Misuse), match=text):
            group.kernel(name, *[share(torch.zeros(s, dtype=torch.int64), 2) for s in specs], **static)
        assert [p.number for p in group.parties] == [0, 0] and not group.asked and not group.messages[0]


def test_operands_of_the_wrong_kind_are_refused():
    group = Group()
    x = share(torch.zeros(3, 3, dtype=torch.int64), 2)
    weight = group.kernel("fix_weight", x)
    for bad in (lambda: group.kernel("linear", x, x), lambda: group.kernel("relu", weight), lambda: group.kernel("mul", x), lambda: requests(199, [])):
        with pytest.raises(Misuse):
            bad()
    with pytest.raises(Misuse, match="int64"):
        group.kernel("relu", [s.float() for s in x])
    assert [p.number for p in group.parties] == [1, 1]


EXAMPLES = [
    ("truncate", [(5, 3)], {"f": 16}),
    ("mul", [(5, 3), (3,)], {"f": 16}),
    ("square", [(7,)], {"f": 1}),
    ("matmul", [(2, 5, 3), (3, 4)], {}),
    ("conv2d", [(2, 4, 8, 8), (6, 2, 3, 3)], {"groups": 2, "f": 16}),
    ("conv2d_input_grad", [(2, 6, 6, 6), (6, 4, 3, 3)], {"size": (8, 8)}),
    ("conv2d_weight_grad", [(2, 4, 8, 8), (2, 6, 6, 6)], {"size": (3, 3)}),
    ("less", [(5, 1), (4,)], {"f": 16, "invert": 1}),
    ("negative", [(130,)], {"low": 16}),
    ("relu", [(2, 65)], {"f": 40}),
    ("relu_and_mask", [(2, 65)], {}),
    ("max_pool2d", [(2, 4, 8, 8)], {"kernel": (3, 3), "stride": (2, 2), "padding": (1, 1), "f": 16, "relu": 1}),
    ("max_pool2d_and_mask", [(2, 4, 8, 8)], {"kernel": (2, 2), "stride": (2, 2)}),
    ("max_pool2d_grad", [(2, 4, 4, 4), (2, 4, 4, 4, 4)], {"size": (8, 8), "kernel": (2, 2), "stride": (2, 2)}),
    ("maximum", [(4, 1), (5,)], {}),
    ("minimum", [(4, 1), (5,)], {"low": 0}),
    ("max", [(4, 5)], {"dim": 0}),
    ("max_and_mask", [(4, 5)], {"dim": 1}),
    ("equal", [(4, 1), (5,)], {}),
    ("equal_zero", [(4,)], {}),
    ("select", [(4, 1), (5,), (4, 5)], {}),
    ("refresh", [(4,)], {}),
    ("quotient", [(5, 3)], {"divisor": 1000}),
]


@pytest.mark.parametrize("name,shapes,static", EXAMPLES, ids=[e[0] for e in EXAMPLES])
def test_a_dry_run_foretells_results_and_requests(name, shapes, static):
    group = Group(3)
    out = group.kernel(name, *[share(ints(-3, 3, *s), 3) for s in shapes], **static)
    columns = out if isinstance(out, tuple) else (out,)
    specs, asked = requests(NUMBERS[name], shapes, **static)
    assert [tuple(c[0].shape) for c in columns] == list(specs)
    assert group.asked == list(asked)


def test_a_dry_run_of_weights():
    group, weight = Group(), ints(-3, 3, 6, 4)
    group.plain("square", weight)
    specs, asked = requests(NUMBERS["fix_weight"], [(6, 4)])
    assert specs == (WeightSpec((6, 4), 0),) and asked == (("weight", ((6, 4),)),)
    fixed = group.kernel("fix_weight", share(weight, 2))
    assert fixed[0].number == fixed[1].number == 1
    x = ints(-3, 3, 2, 5, 6)
    assert torch.equal(reveal(group.kernel("linear", share(x, 2), fixed)), x @ weight)
    specs, asked = requests(NUMBERS["linear"], [(2, 5, 6), WeightSpec((6, 4), 1)])
    assert specs == ((2, 5, 4),) and group.asked[2:] == list(asked)


def test_every_kernel_has_an_example_and_every_argument_a_range():
    functions = {name for name, number in NUMBERS.items() if 32 <= number < 64}
    assert {e[0] for e in EXAMPLES} | {"fix_weight", "linear", "conv2d_fixed"} | functions == {n for n in NUMBERS if NUMBERS[n] < 64}
    theirs = Path(__file__).with_name("test_functions.py").read_text()
    assert all(f'"{name}"' in theirs for name in functions)
    assert {a for k in KERNELS.values() for a in k.defaults} == set(RANGES)


def test_a_forgotten_weight_is_named():
    group = Group()
    fixed = group.kernel("fix_weight", share(ints(-3, 3, 6, 4), 2))
    assert group.dealer.weights == 1
    group.dealer.forget(0)
    group.dealer.forget(0)
    assert group.dealer.weights == 0
    with pytest.raises(Misuse, match="fix the weight again"):
        group.kernel("linear", share(ints(-3, 3, 2, 6), 2), fixed)
