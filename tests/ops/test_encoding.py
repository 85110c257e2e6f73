"""Real numbers as ring elements: exact where they fit, refused where they do not, here and at a worker."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import syftlite as sy
from syftlite.ops.encoding import encode, fits, largest

SCALES = st.one_of(st.tuples(st.just(2), st.integers(0, 30)), st.tuples(st.just(10), st.integers(0, 9)), st.tuples(st.integers(3, 99), st.integers(0, 4)))


@given(SCALES, st.data())
def test_every_value_that_fits_is_rounded_and_every_other_refused(scheme, data):
    base, precision = scheme
    limit = largest(base**precision)
    values = data.draw(st.lists(st.floats(-2 * limit, 2 * limit), max_size=5))
    x = torch.tensor(values, dtype=torch.float64)
    if all(abs(v) < limit for v in values):
        assert encode(x, base, precision).tolist() == [round(v * base**precision) for v in values]
    else:
        with pytest.raises(ValueError, match="does not fit"):
            encode(x, base, precision)


@pytest.mark.parametrize(
    "x", [torch.tensor([-(2**63)]), torch.tensor([2.0**40]).bfloat16(), torch.tensor([[1.0, float("nan")], [0, 0]]).t(), torch.full((3,), -torch.inf)]
)
def test_what_does_not_fit_is_refused_whatever_its_dtype(x):
    with pytest.raises(ValueError, match="does not fit"):
        encode(x, 2, 16)


@pytest.mark.parametrize(("base", "precision"), [(1, 3), (-2, 3), (2, 31), (10, 10), (2, 1 << 62), (1 << 62, 1 << 62), (2, -1)])
def test_there_is_no_such_scale_and_nobody_computes_it(base, precision):
    assert not fits(base, precision)
    for device in ("cpu", "meta"):
        with pytest.raises(ValueError, match="base"):
            encode(torch.ones(2, device=device), base, precision)  # a power of 2^62 digits would not end


@pytest.mark.parametrize("worst", [float("nan"), float("inf"), -float("inf"), 2.0**30])
def test_a_worker_refuses_what_does_not_fit_and_says_where(worst):
    alice, bob, carol = (sy.VirtualWorker(id=f"encodes {name}") for name in ("alice", "bob", "carol"))
    x = torch.tensor([1.0, worst]).send(bob)
    for refused in (lambda: x.fix_precision().get(), lambda: (x.fix_precision() + 1).get(), lambda: x.fix_precision().share(alice, bob, crypto_provider=carol).get()):
        with pytest.raises(ValueError, match="does not fit: products of scale"):
            refused()
    with pytest.raises(ValueError, match=r"syftlite.encode.default on encodes bob, written at .*test_encoding.py"):
        x.fix_precision().get()
    assert (x[:1].fix_precision() * 2).get().float_precision().tolist() == [2.0]

