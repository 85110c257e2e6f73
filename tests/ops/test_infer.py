"""Inference: rules by hand agree with torch, keys tell apart what has other results, the cache stays bounded."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from syftlite._torch import aten as A
from syftlite.errors import Misuse
from syftlite.ops.infer import BY_HAND, Cache, DataDependent, freeze, infer, key_of, rests
from syftlite.ops.operator import Operator
from syftlite.ops.spec import Spec
from syftlite.ops.table import BY_FUNC

shapes = st.lists(st.integers(0, 4), max_size=4)
index = st.integers(-6, 6) | st.sampled_from([(1 << 63) - 1, -(1 << 63)])


def outcome(call: Any) -> Any:
    """What ``call`` gives; only that it raises, where it does."""
    try:
        return call()
    except (IndexError, RuntimeError, ValueError):
        return "refused"


@given(shapes, st.integers(-5, 5), index)
@settings(deadline=None, max_examples=300)
def test_select_by_hand_is_torchs(shape: list[int], dim: int, at: int) -> None:
    tensor = torch.zeros([2, *shape])[1]
    mine = outcome(lambda: BY_HAND[A.select.int](Spec.of(tensor), dim, at))
    assert mine == outcome(lambda: Spec.of(A.select.int(tensor, dim, at)))


@given(shapes.filter(len), st.integers(-5, 5), st.none() | index, st.none() | index, st.integers(-1, 3))
@settings(deadline=None, max_examples=300)
def test_slice_by_hand_is_torchs(shape: list[int], dim: int, start: int | None, end: int | None, step: int) -> None:
    tensor = torch.zeros([2, *shape])[1]
    mine = outcome(lambda: BY_HAND[A.slice.Tensor](Spec.of(tensor), dim, start, end, step))
    assert mine == outcome(lambda: Spec.of(A.slice.Tensor(tensor, dim, start, end, step)))


def test_a_key_tells_apart_what_has_other_results() -> None:
    x = Spec.contiguous((2, 3), torch.float32)
    add, arange, summed = (BY_FUNC[f] for f in (A.add.Tensor, A.arange.default, A.sum.dim_IntList))
    assert key_of(add, [x, 2.5], {}) == key_of(add, [x, 7.5], {}), "a float does not change a shape"
    assert key_of(arange, [2.5], {}) != key_of(arange, [7.5], {}), "but where it is the size"
    assert key_of(add, [x, 1], {}) != key_of(add, [x, True], {}) != key_of(add, [x, 1.0], {})
    assert key_of(summed, [x, [0]], {}) != key_of(summed, [x, [1]], {}) != key_of(summed, [x, [0], True], {})
    assert key_of(summed, [x, [0]], {"dtype": torch.float64}) != key_of(summed, [x, [0]], {})
    assert key_of(arange, [float("nan")], {}) == key_of(arange, [float("nan")], {})
    with pytest.raises(Misuse, match="Spec"):
        freeze([torch.ones(1)])


def test_what_depends_on_values_is_not_inferred() -> None:
    x, mask = Spec.contiguous((2, 3), torch.float32), Spec.contiguous((2,), torch.bool)
    for func, args in ((A.nonzero.default, [x]), (A.index.Tensor, [x, [mask]]), (A.masked_select.default, [x, mask]), (A._unique2.default, [x])):
        with pytest.raises(DataDependent):
            infer(BY_FUNC[func], args, {})
    rows = Spec.contiguous((5,), torch.int64)
    assert infer(BY_FUNC[A.index.Tensor], [x, [rows]], {}) is Spec.contiguous((5, 3), torch.float32)


def test_errors_are_torchs_own() -> None:
    x, y = Spec.contiguous((2, 3), torch.float32), Spec.contiguous((4, 5), torch.float32)
    with pytest.raises(RuntimeError, match="must match|broadcast"):
        infer(BY_FUNC[A.add.Tensor], [x, y], {})
    with pytest.raises(RuntimeError, match="reduction dim|mat1"):
        infer(BY_FUNC[A.mm.default], [x, y], {})


@pytest.mark.parametrize("operator", [o for o in BY_FUNC.values() if o.inplace and o.codes[:2] == ("T", "T")], ids=str)
def test_what_an_operator_writes_keeps_its_shape(operator: Operator) -> None:
    """Refused as torch refuses it, and what is known of others of that spec stays true: some meta kernels resize what they write."""
    given = {"rounding_mode": "floor"} if "rounding_mode" in operator.keywords else {}
    for dtype in (torch.float64, torch.int64, torch.bool):
        shapes = [(5, 1), *[(5,)] * (operator.codes.count("T") - 1)]
        specs = [Spec.contiguous(shape, dtype) for shape in shapes]
        with contextlib.suppress(RuntimeError, TypeError, NotImplementedError):
            assert operator.func(*[torch.ones(shape, dtype=dtype) for shape in shapes], **given).shape == (5, 1)
            raise AssertionError(f"{operator} is tried with operands that it refuses")
        with pytest.raises((RuntimeError, TypeError)):
            infer(operator, specs, given)
        assert [spec.meta.shape for spec in specs] == shapes


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float32])
def test_what_a_batch_norm_keeps_is_of_its_parameters_dtype(kind: torch.dtype) -> None:
    x, learnt = torch.randn(4, 3).bfloat16(), torch.ones(3, dtype=kind)
    for learned in ((None, None, learnt, learnt), (learnt, None, None, None), (None, learnt, None, None), (None,) * 4):
        made = torch.native_batch_norm(x, *learned, True, 0.1, 1e-5)
        specs: list[Any] = [None if t is None else Spec.of(t) for t in (x, *learned)]
        assert infer(BY_FUNC[A.native_batch_norm.default], [*specs, True, 0.1, 1e-5], {}) == tuple(map(Spec.of, made))


def test_the_cache_is_bounded() -> None:
    cache = Cache(limit=3)
    for number in range(10):
        cache.put(number, number)
        assert cache.get(number) == number and len(cache.entries) <= 3


@pytest.mark.parametrize(
    ("func", "operands", "expected"),
    [
        (A.div.Tensor, (torch.ones(2).int(), 2), True),
        (A.sqrt.default, (torch.ones(2).bool(),), True),
        (A.stack.default, ([torch.ones(2).int()],), False),
        (A.div.Tensor, (torch.ones(2).int(), torch.ones(2).double()), False),
        (A.sqrt.default, (torch.ones(2).half(),), False),
        (A.add.Tensor, (torch.ones(2).int(), 2), False),
    ],
    ids=str,
)
def test_whose_results_are_of_the_default_dtype(func: Any, operands: Any, expected: bool) -> None:
    def spec(value: Any) -> Any:
        return [spec(v) for v in value] if isinstance(value, list) else Spec.of(value) if isinstance(value, torch.Tensor) else value

    specs, operator = [spec(value) for value in operands], BY_FUNC[func]
    assert rests(operator, specs, infer(operator, specs, {})) is expected
    said = infer(BY_FUNC[A._to_copy.default], [Spec.of(torch.ones(2).int())], {"dtype": torch.float32})
    assert not rests(BY_FUNC[A._to_copy.default], [Spec.of(torch.ones(2).int()), torch.float32], said)
