"""Operands for which torch's kernels would leave their tensors: each is refused before the kernel runs, and each rule has its case here."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
import torch

from syftlite._torch import aten as A
from syftlite.engine import executor
from syftlite.engine.bounds import SHAPES, VALUES
from syftlite.engine.marks import Mark
from syftlite.engine.session import Principal, Role, Session
from syftlite.ops.dtypes import NUMBER_OF
from syftlite.ops.operator import Kind, Result
from syftlite.ops.table import BY_FUNC, TABLE

ones = torch.ones
SECRET = 7_654_321


class Here:
    """A session that runs operators on tensors as they are given."""

    def __init__(self) -> None:
        self.session = Session(3, Principal("eve", Role.SCIENTIST), 1 << 28)
        self.ids = count((3 << 32) + 1)

    def put(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            number = next(self.ids)
            self.session.put(number, value)
            return number
        if isinstance(value, torch.dtype):
            return NUMBER_OF[value]
        return [self.put(v) for v in value] if isinstance(value, list) else value

    def run(self, func: Any, args: list[Any], kwargs: dict[str, Any] | None = None) -> Mark | None:
        """Run ``func``; the mark of its first result or target: None if all went well."""
        operator = BY_FUNC[func]
        wire, named = [self.put(a) for a in args], {k: self.put(v) for k, v in (kwargs or {}).items()} or None
        outs: Any = next(self.ids)
        if operator.result is not Result.ONE:
            outs = None if operator.result is Result.NOTHING else tuple(next(self.ids) for _ in range(3))[: len(operator.func._schema.returns)]
            outs = outs if operator.result is not Result.LIST else (next(self.ids),)
        if operator.dynamic:
            executor.evaluate(self.session, operator.number, wire, named, lambda label: None)
            return None
        executor.run(self.session, operator.number, wire, named, outs)
        return self.session.objects[wire[0] if outs is None else outs if type(outs) is int else outs[0]][1].mark


def refusal(func: Any, args: list[Any], kwargs: dict[str, Any] | None = None) -> str:
    """Why ``func`` was refused; empty if it ran."""
    try:
        mark = Here().run(func, args, kwargs)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "" if mark is None or mark.poison is None else mark.poison.text


# -- indices: each case is (what an index must stay below, whether negatives count from the end, operands around an index tensor)

Case = tuple[int, bool, Callable[[torch.Tensor], list[Any]]]


def image(*shape: int) -> torch.Tensor:
    return torch.arange(float(torch.Size(shape).numel())).reshape(shape)


INDEXED: dict[Any, Case] = {
    A.index_select.default: (4, False, lambda i: [ones(4, 2), 0, i]),
    A.gather.default: (4, False, lambda i: [ones(4), 0, i]),
    A.scatter.src: (4, False, lambda i: [ones(4), 0, i, ones(len(i))]),
    A.scatter.value: (4, False, lambda i: [ones(4), 0, i, 2.0]),
    A.scatter_.src: (4, False, lambda i: [ones(4), 0, i, ones(len(i))]),
    A.scatter_.value: (4, False, lambda i: [ones(4), 0, i, 2.0]),
    A.scatter_add.default: (4, False, lambda i: [ones(4), 0, i, ones(len(i))]),
    A.scatter_add_.default: (4, False, lambda i: [ones(4), 0, i, ones(len(i))]),
    A.scatter_reduce.two: (4, False, lambda i: [ones(4), 0, i, ones(len(i)), "amax"]),
    A.index_add.default: (4, False, lambda i: [ones(4, 2), 0, i, ones(len(i), 2)]),
    A.index_add_.default: (4, False, lambda i: [ones(4, 2), 0, i, ones(len(i), 2)]),
    A.index_copy.default: (4, False, lambda i: [ones(4, 2), 0, i, ones(len(i), 2)]),
    A.index_copy_.default: (4, False, lambda i: [ones(4, 2), 0, i, ones(len(i), 2)]),
    A.index_fill.int_Scalar: (4, True, lambda i: [ones(4, 2), 0, i, 2.0]),
    A.index_fill_.int_Scalar: (4, True, lambda i: [ones(4, 2), 0, i, 2.0]),
    A.index.Tensor: (4, True, lambda i: [ones(4, 2), [i]]),
    A.index_put.default: (4, True, lambda i: [ones(4, 2), [i], ones(2)]),
    A.index_put_.default: (4, True, lambda i: [ones(4, 2), [i], ones(2), True]),
    A.take.default: (8, True, lambda i: [ones(4, 2), i]),
    A.put.default: (8, True, lambda i: [ones(4, 2), i, ones(len(i))]),
    A.embedding.default: (4, False, lambda i: [ones(4, 2), i]),
    A.embedding_dense_backward.default: (4, False, lambda i: [ones(len(i), 2), i, 4, -1, True]),
    A.nll_loss_forward.default: (4, False, lambda i: [ones(len(i), 4), i, None, 1, -100]),
    A.nll_loss_backward.default: (4, False, lambda i: [ones(()), ones(len(i), 4), i, None, 1, -100, ones(())]),
    A.nll_loss2d_forward.default: (4, False, lambda i: [ones(1, 4, 1, len(i)), i.reshape(1, 1, -1), None, 0, -100]),
    A.nll_loss2d_backward.default: (4, False, lambda i: [ones(1, 1, len(i)), ones(1, 4, 1, len(i)), i.reshape(1, 1, -1), None, 0, -100, ones(())]),
    A.max_pool2d_with_indices_backward.default: (
        16, False, lambda i: [ones(1, 1, len(i)), ones(1, 1, 16), [1, 5], [1, 5], [0, 0], [1, 1], False, i.reshape(1, 1, -1)],
    ),
    A.max_pool3d_with_indices_backward.default: (
        16, False, lambda i: [ones(1, 1, 1, len(i)), ones(1, 1, 1, 16), [1, 1, 5], [1, 1, 5], [0] * 3, [1] * 3, False, i.reshape(1, 1, 1, -1)],
    ),
    A.adaptive_max_pool2d_backward.default: (16, False, lambda i: [ones(1, 1, len(i)), ones(1, 1, 16), i.reshape(1, 1, -1)]),
    A.adaptive_max_pool3d_backward.default: (16, False, lambda i: [ones(1, 1, 1, len(i)), ones(1, 1, 1, 16), i.reshape(1, 1, 1, -1)]),
    A.searchsorted.Tensor: (3, False, lambda i: [ones(3), ones(2)]),
}  # fmt: skip


def test_every_operator_that_takes_indices_has_a_case() -> None:
    taking = {o.func for o in BY_FUNC.values() if {"index", "indices", "target", "sorter"} & set(o.keywords) and o.kind in (Kind.INDEX, Kind.POOL)}
    assert taking == set(INDEXED)


@pytest.mark.parametrize("func", INDEXED, ids=str)
def test_an_index_out_of_bounds_poisons(func: Any) -> None:
    bound, wraps, operands = INDEXED[func]
    for at in range(3):
        for bad in (bound, bound + SECRET, -bound - 1, -SECRET, 1 << 40, -(1 << 63), (1 << 63) - 1, *(() if wraps else (-2,))):
            index = torch.tensor([0, 1, 2])
            kwargs = {"sorter": index} if func is A.searchsorted.Tensor else None
            assert refusal(func, operands(index), kwargs) == ""
            index = index.clone()
            index[at] = bad
            kwargs = {"sorter": index} if func is A.searchsorted.Tensor else None
            assert refusal(func, operands(index), kwargs), f"{bad} passed"


@pytest.mark.parametrize("func", [f for f in INDEXED if BY_FUNC[f].number in VALUES], ids=str)
def test_our_own_checks_tell_no_value(func: Any) -> None:
    bound, _, operands = INDEXED[func]
    index = torch.tensor([0, bound + SECRET, 1])
    assert str(SECRET) not in refusal(func, operands(index), {"sorter": index} if func is A.searchsorted.Tensor else None).replace(",", "")


@pytest.mark.parametrize("backward", [A.nll_loss_backward.default, A.nll_loss2d_backward.default])
def test_the_ignored_class_is_no_index(backward: Any) -> None:
    _, _, operands = INDEXED[backward]
    assert refusal(backward, operands(torch.tensor([0, -100, 2]))) == ""


# -- operands that do not fit one another: seen to crash the kernel, or to read what lies behind a tensor

x4, g4 = image(2, 3, 6, 6), image(2, 3, 3, 3)
pool = [[2, 2], [2, 2], [0, 0], [1, 1], False]
conv = [[1, 1], [0, 0], [1, 1], False, [0, 0], 1]
norm = [ones(3), ones(3), ones(3), ones(3)]
signal = ones(3, dtype=torch.complex64)
UNFIT: list[tuple[Any, list[Any]]] = [
    (A.reflection_pad1d_backward.default, [ones(2, 2, 8), ones(2, 3, 5), [1, 2]]),
    (A.reflection_pad2d_backward.default, [ones(2, 3, 8, 7), ones(5, 3, 5, 4), [1, 2, 2, 1]]),
    (A.replication_pad1d_backward.default, [ones(2, 3, 8), ones(2, 13, 5), [1, 2]]),
    (A.replication_pad2d_backward.default, [ones(3, 7, 6), ones(13, 6, 5), [0, 1, 1, 0]]),
    (A.max_pool2d_with_indices_backward.default, [ones(2, 3, 2, 3), x4, *pool, torch.zeros(2, 3, 3, 3, dtype=torch.int64)]),
    (A.max_pool2d_with_indices_backward.default, [g4, x4, *pool, torch.zeros(1, 3, 3, 3, dtype=torch.int64)]),
    (A.max_pool3d_with_indices_backward.default, [ones(4, 2, 2, 2, 2), ones(1, 2, 4, 4, 4), [2] * 3, [2] * 3, [0] * 3, [1] * 3, False,
                                                  torch.zeros(1, 2, 2, 2, 2, dtype=torch.int64)]),
    (A.avg_pool2d_backward.default, [ones(2, 2, 5, 5), ones(1, 2, 5, 5), [3, 3], [1, 1], [1, 1], True, False, 3]),
    (A.avg_pool3d_backward.default, [ones(3, 2, 2, 2, 2), ones(1, 2, 4, 4, 4), [2] * 3, [2] * 3, [0] * 3, False, True, None]),
    (A.adaptive_max_pool2d_backward.default, [ones(9, 3, 2, 3), x4, torch.zeros(2, 3, 2, 3, dtype=torch.int64)]),
    (A.adaptive_max_pool3d_backward.default, [ones(9, 3, 2, 3, 2), ones(2, 3, 6, 6, 6), torch.zeros(2, 3, 2, 3, 2, dtype=torch.int64)]),
    (A.adaptive_max_pool3d_backward.default, [ones(2, 3, 2, 3, 2), ones(2, 3, 6, 6, 6), torch.zeros(1, 3, 2, 3, 2, dtype=torch.int64)]),
    (A.replication_pad3d_backward.default, [ones(3, 7, 6, 4), ones(13, 6, 5, 4), [0, 0, 0, 1, 1, 0]]),
    (A.reflection_pad3d_backward.default, [ones(3, 7, 6, 4), ones(13, 6, 5, 4), [0, 0, 0, 1, 1, 0]]),
    (A.reflection_pad3d_backward.default, [ones(1, 0, 4, 4), ones(1, 4, 4, 4), [0, 0, 0, 0, -2, -2]]),  # it leaves its result unwritten
    *[(A.grid_sampler_2d.default, [ones(1, 1, 4, 4), ones(1, 2, 2, 2), *modes, False]) for modes in ((3, 0), (-1, 0), (0, 3), (0, -1), (1 << 40, 0))],
    *[(A.grid_sampler_3d.default, [ones(1, 1, 4, 4, 4), ones(1, 2, 2, 2, 3), *modes, False]) for modes in ((2, 0), (0, 3))],
    (A.grid_sampler_2d.default, [ones(1, 1, 4, 4), ones(1, 2, 2, 2).double(), 0, 0, False]),
    (A.grid_sampler_2d_backward.default, [ones(1, 1, 1, 1), ones(1, 1, 4, 4), ones(1, 2, 2, 2), 0, 0, False, [True, True]]),
    (A.grid_sampler_2d_backward.default, [ones(1, 1, 2, 2).double(), ones(1, 1, 4, 4), ones(1, 2, 2, 2), 0, 0, False, [True, True]]),
    (A.grid_sampler_3d_backward.default, [ones(1, 1, 1, 1, 1), ones(1, 1, 4, 4, 4), ones(1, 2, 2, 2, 3), 0, 0, False, [True, True]]),
    (A._adaptive_avg_pool2d_backward.default, [ones(3, 9, 2, 3), x4]),
    (A._adaptive_avg_pool3d_backward.default, [ones(11, 2, 2, 2, 1), ones(1, 2, 4, 4, 4)]),
    (A._softmax_backward_data.default, [ones(2, 3, 4), ones(1, 3, 4), -1, torch.float32]),
    (A._log_softmax_backward_data.default, [ones(3, 4), ones(()), 1, torch.float32]),
    (A._log_softmax_backward_data.default, [ones(3, 4), ones(3, 4), 1, torch.float64]),
    (A.nll_loss_forward.default, [ones(4, 3), torch.zeros(4, dtype=torch.int64), ones(2), 1, -100]),
    (A.nll_loss_backward.default, [ones(()), ones(9, 3), torch.zeros(4, dtype=torch.int64), None, 1, -100, ones(())]),
    (A.nll_loss_backward.default, [ones(2), ones(4, 3), torch.zeros(4, dtype=torch.int64), None, 0, -100, ones(())]),
    (A.nll_loss2d_forward.default, [ones(1, 3, 2, 2), torch.zeros(1, 2, 2, dtype=torch.int64), ones(1), 1, -100]),
    (A.nll_loss2d_backward.default, [ones(1, 2, 2), ones(1, 3, 2, 2), torch.zeros(1, 2, 2, dtype=torch.int64), ones(1), 0, -100, ones(())]),
    (A.native_batch_norm.default, [x4, ones(1), *norm[1:], True, 0.1, 1e-5]),
    (A.native_batch_norm.default, [x4, *norm[:2], ones(2), ones(3), True, 0.1, 1e-5]),
    (A.native_batch_norm.default, [x4, None, None, None, None, False, 0.1, 1e-5]),
    (A.native_batch_norm.default, [ones(4), None, None, None, None, True, 0.1, 1e-5]),
    (A.native_batch_norm.default, [ones(2, 0, 4), None, None, None, None, True, 0.1, 1e-5]),
    (A.native_batch_norm_backward.default, [ones(2, 3), x4, ones(3), *norm, True, 1e-5, [True] * 3]),
    (A.native_batch_norm_backward.default, [x4, x4, ones(1), *norm, True, 1e-5, [True] * 3]),
    (A.native_batch_norm_backward.default, [x4, x4, ones(3), None, None, None, None, True, 1e-5, [True] * 3]),
    (A.native_layer_norm_backward.default, [ones(2, 3, 4), ones(2, 3, 4), [4], ones(2, 3, 1), ones(()), None, None, [True, False, False]]),
    (A.native_layer_norm_backward.default, [ones(1, 3, 4), ones(2, 3, 4), [4], ones(2, 3, 1), ones(2, 3, 1), None, None, [True, False, False]]),
    (A.native_group_norm.default, [ones(2, 6, 4), ones(6), ones(6), 2, 6, 4, 0, 1e-5]),
    (A.native_group_norm.default, [ones(2, 6, 4), ones(5), ones(6), 2, 6, 4, 3, 1e-5]),
    (A.native_group_norm_backward.default, [ones(2, 6, 4), ones(2, 6, 4), ones(2, 1), ones(2, 3), ones(6), 2, 6, 4, 3, [True] * 3]),
    (A.convolution_backward.default, [ones(1, 4, 4, 4), x4, ones(4, 3, 3, 3), None, *conv, [True, True, False]]),
    (A.convolution_backward.default, [ones(2, 4, 4, 4), x4, ones(4, 3, 3, 3), [9], *conv, [True] * 3]),
    (A.unfold_backward.default, [ones(9, 3), [6], 0, 3, 2]),
    (A.embedding_dense_backward.default, [ones(9, 3), torch.zeros(4, dtype=torch.int64), 6, -1, False]),
    (A.empty_strided.default, [[2], [1 << 40]]),
    (A.new_empty_strided.default, [ones(1), [2], [9]]),
    (A._fft_c2r.default, [signal, [0], 0, 1 << 20]), (A._fft_c2r.default, [signal, [0], 0, 0]), (A._fft_c2r.default, [ones(3), [0], 0, 4]),
    (A._fft_c2c.default, [signal, [0, 0], 0, True]), (A._fft_c2c.default, [signal, [1], 0, True]), (A._fft_c2c.default, [signal, [], 0, True]),
    (A._fft_c2c.default, [signal[:0], [0], 0, True]), (A._fft_r2c.default, [ones(3), [0], 7, True]), (A._fft_r2c.default, [signal, [0], 0, True]),
    (A._fft_r2c.default, [ones(3).half(), [0], 0, True]),
    *[(A.lu_unpack.default, [ones(3, 3), p]) for p in (ones(0).int(), ones(2).int(), ones(3).long(), ones(2, 3).int())],
    (A.lu_unpack.default, [ones(3), ones(3).int()]),
    *[(A.linalg_lu_solve.default, [ones(3, 3), p, ones(3, 1)]) for p in (ones(0).int(), ones(2).int(), ones(3).long())],
]  # fmt: skip


@pytest.mark.parametrize("func, args", UNFIT, ids=lambda v: str(v) if not isinstance(v, list) else "")
def test_operands_that_do_not_fit_are_refused(func: Any, args: list[Any]) -> None:
    assert refusal(func, args)


def test_every_shape_rule_has_a_case_and_is_asked() -> None:
    assert {BY_FUNC[func].number for func, _ in UNFIT} == set(SHAPES)
    # small pointwise operators are admitted without a price, and views without any: such a rule would be passed over
    assert not [TABLE[n] for n in SHAPES if TABLE[n].kind in (Kind.POINTWISE, Kind.VIEW)]  # type: ignore[union-attr]


def test_geometry_is_read_in_the_schemas_order_however_it_is_sent() -> None:
    named = {"divisor_override": None, "count_include_pad": True, "ceil_mode": False, "padding": [0, 0], "stride": [2, 2], "kernel_size": [2, 2]}
    assert refusal(A.avg_pool2d_backward.default, [g4, x4], named) == ""
    assert refusal(A.avg_pool2d_backward.default, [ones(2, 3, 9, 9), x4], named)


# -- values other than indices

RESAMPLED = [(o.func, next(n for n in (1, 2, 3) if f"{n}d" in o.name)) for o in BY_FUNC.values() if "upsample" in o.name and "_backward" not in o.name]


def resampled(func: Any, dims: int, scale: Any) -> list[tuple[Any, list[Any], dict[str, Any]]]:
    """``func`` and its gradient, told of a ``scale`` that does not take 3 to 6."""
    backward = getattr(A, func._schema.name.removeprefix("aten::") + "_backward").default
    rest = [False] if "align_corners" in BY_FUNC[func].keywords else []
    return [(func, [ones(1, 1, *[3] * dims), [6] * dims, *rest, *[2.0] * (dims - 1), scale], {}),
        (backward, [ones(1, 1, *[6] * dims), [6] * dims, [1, 1, *[3] * dims], *rest, *[2.0] * (dims - 1), scale], {})]  # fmt: skip


CRAFTED: list[tuple[Any, list[Any], dict[str, Any]]] = [
    *[case for func, dims in RESAMPLED for scale in (1e-300, -2.0, float("nan"), float("inf"), 0.0) for case in resampled(func, dims, scale)],
    (A.upsample_nearest2d.default, [ones(1, 1, 3, 3), [6, 6]], {"scales_w": -2.0}),
    (A.mode.default, [image(40).masked_fill(torch.arange(40) % 3 == 0, float("nan"))], {}),
    (A.unique_dim.default, [image(40, 1).masked_fill(torch.arange(40).view(-1, 1) % 3 == 0, float("nan")), 0], {}),
    *[(A.multinomial.default, [torch.tensor(chances), 2, True], {}) for chances in ([-1.0, 2.0], [float("nan"), 1.0], [float("inf"), 1.0], [0.0, 0.0])],
    *[(f, [ones(1, 1, 3, 3), [6, 6], *extra, h, w], {}) for f, extra in ((A.upsample_nearest2d.default, []), (A.upsample_bilinear2d.default, [False]))
      for h, w in ((1e-300, 2.0), (2.0, -2.0), (float("nan"), 2.0), (float("inf"), 2.0), (0.0, 2.0), (2.0, 1e300))],
    *[(f, [ones(1, 1, 6, 6), [6, 6], [1, 1, 3, 3], *extra, 2.0, w], {})
      for f, extra in ((A.upsample_nearest2d_backward.default, []), (A.upsample_bilinear2d_backward.default, [False]))
      for w in (1e-300, -2.0, float("nan"))],
    (A.smooth_l1_loss_backward.default, [torch.zeros((), dtype=torch.int64), *[torch.zeros(40, dtype=torch.int64)] * 2, 1, 0.5], {}),
    (A.repeat_interleave.Tensor, [torch.tensor([10, -5])], {"output_size": 5}),
    (A.repeat_interleave.Tensor, [torch.tensor([1, 2])], {"output_size": 2}),
    (A.repeat_interleave.Tensor, [torch.full((4,), 1 << 62)], {}),
    (A.div.Tensor_mode, [torch.full((3,), -(1 << 63)), torch.tensor([1, -1, 2])], {"rounding_mode": "trunc"}),
    (A.div.Scalar_mode, [torch.full((3,), -(1 << 31), dtype=torch.int32), -1], {"rounding_mode": "trunc"}),
    (A.div_.Tensor_mode, [torch.full((3,), -(1 << 63)), torch.tensor(-1)], {"rounding_mode": "trunc"}),
    (A.bernoulli.default, [torch.tensor([0.5, 2.0])], {}),
    (A.bincount.default, [torch.tensor([1 << 40])], {}),
    (A.bincount.default, [torch.tensor([1]), None, 1 << 40], {}),
    (A.unbind.int, [ones(1).expand(1 << 30)], {}),
    (A.split.Tensor, [ones(1).expand(1 << 30), 1], {}),
    (A.unsafe_split.Tensor, [ones(1).expand(1 << 30), 1], {}),
    *[(A.lu_unpack.default, [torch.eye(3), torch.tensor(p, dtype=torch.int32)], {}) for p in ([0, 2, 3], [1, 4, 3], [1, -2, 3])],
    *[(A.linalg_lu_solve.default, [torch.eye(3), torch.tensor(p, dtype=torch.int32), ones(3, 1)], {}) for p in ([0, 2, 3], [1, 1 << 30, 3])],
    (A.binary_cross_entropy.default, [ones(4), ones(3, 4), None, 0], {}),
    (A.binary_cross_entropy_backward.default, [ones(3, 4), ones(3, 1, 4), ones(3, 4), None, 0], {}),
    *[(o.func, [ones(4, 3)] * sum(p.code == "T" for p in o.parameters), {"reduction": 9}) for o in BY_FUNC.values()
      if "reduction" in o.keywords and "nll" not in o.name],
]  # fmt: skip


@pytest.mark.parametrize("func, args, kwargs", CRAFTED, ids=lambda v: str(v) if isinstance(v, torch._ops.OpOverload) else "")
def test_crafted_values_are_refused(func: Any, args: list[Any], kwargs: dict[str, Any]) -> None:
    assert refusal(func, args, kwargs)


def test_a_refused_draw_takes_as_many_random_numbers_as_success() -> None:
    """The next ones must not tell of chances that are PRIVATE."""
    for rows, replacement in (([0.5, 0.5], True), ([0.5, 0.5], False)):
        nexts = []
        for chances in (torch.tensor(rows), torch.tensor([-1.0, 2.0])):
            torch.manual_seed(4)
            refusal(A.multinomial.default, [chances, 2, replacement])
            nexts.append(torch.rand(3))
        assert torch.equal(*nexts)


def test_every_value_rule_has_a_case() -> None:
    assert set(VALUES) <= {BY_FUNC[f].number for f, _, _ in CRAFTED} | {BY_FUNC[f].number for f in INDEXED}


@pytest.mark.parametrize("size, scale", [(3, 2.0), (5, 0.5), (10, 0.7), (3, 1.5), (7, 3.3), (224, 0.3)])
def test_the_scales_that_torch_itself_sends_pass(size: int, scale: float) -> None:
    out = int(size * scale)
    for extra, func in (([], A.upsample_nearest2d.default), ([False], A.upsample_bilinear2d.default)):
        assert refusal(func, [ones(1, 1, size, size), [out, out], *extra, scale, scale]) == ""


@pytest.mark.parametrize("size", [(0, 5, 9), (2, 0, 0), (3, 0, 2), (0,)])
def test_the_strides_that_torch_gives_what_is_empty_pass(size: tuple[int, ...]) -> None:
    for given in (ones(*size), ones(*size).movedim(0, -1)):
        assert refusal(A.empty_strided.default, [list(given.shape), list(given.stride())]) == ""
        assert refusal(A.new_empty_strided.default, [ones(1), list(given.shape), list(given.stride())]) == ""
    assert refusal(A.empty_strided.default, [list(size), [1 << 40] * len(size)]) or size == (0,)


@pytest.mark.parametrize("lowest", [torch.int8, torch.int16, torch.int32, torch.int64])
def test_integer_division_never_traps(lowest: torch.dtype) -> None:
    """The least integer divided by -1, and anything by 0, would stop a process that divides as the machine does."""
    least = torch.full((40,), torch.iinfo(lowest).min, dtype=lowest)
    trunc = {"rounding_mode": "trunc"}
    for func, named in ((A.floor_divide.default, {}), (A.div.Tensor_mode, trunc), (A.remainder.Tensor, {}), (A.fmod.Tensor, {})):
        refusal(func, [least, torch.full_like(least, -1)], named)
        refusal(func, [least, [NUMBER_OF[lowest], -1]], named)
        assert "Zero" in refusal(func, [least, torch.zeros_like(least)], named)
    assert refusal(A.div.Tensor_mode, [least + 1, torch.full_like(least, -1)], trunc) == ""
    assert refusal(A.div.Tensor_mode, [least, torch.full_like(least, 3)], trunc) == ""


# -- values that another session writes


CHANGED = {
    "pooling": (A.max_pool2d_with_indices_backward.default, [ones(1, 1, 2, 2), ones(1, 1, 4, 4), [2, 2], [2, 2], [0, 0], [1, 1], False], 7),
    "gather": (A.gather.default, [torch.arange(8.0), 0], 2),
    "index_put": (A.index_put.default, [torch.zeros(6), ones(1)], 1),
    "masked_select": (A.masked_select.default, [torch.arange(6.0)], 1),
    "sort": (A.sort.default, [], 0),
}


@pytest.mark.parametrize("name", CHANGED)
def test_what_another_session_may_write_is_copied_before_it_is_looked_at(name, monkeypatch):
    """Between the check and the kernel, or in the midst of it, the session that owns an index may point it anywhere."""
    func, args, place = CHANGED[name]
    here, lender = Here(), Session(4, Principal("eve", Role.SCIENTIST))
    held = {
        "pooling": torch.tensor([[[[0, 2], [8, 10]]]]),
        "index_put": torch.tensor([True, False] * 3),
        "masked_select": torch.tensor([True, False] * 3),
    }.get(name, torch.tensor([3, 1, 2]))
    lent = lender.put(4 << 32, held)
    number = next(here.ids)
    here.session.alias(number, held, lent)
    wire = [here.put(a) for a in args]
    wire.insert(place, [number] if name == "index_put" else number)
    seen: list[torch.Tensor] = []

    def kernel(*values: Any) -> Any:
        held.fill_(1)
        flat = [part for value in values for part in (value if isinstance(value, list) else [value])]
        seen.extend(part for part in flat if isinstance(part, torch.Tensor) and part.shape == held.shape and part.dtype == held.dtype)
        return func(*values)

    operator, kept = BY_FUNC[func], held.clone()
    monkeypatch.setattr(operator, "bare", kernel)
    if operator.dynamic:
        executor.evaluate(here.session, operator.number, wire, None, lambda label: None)
    else:
        outs: Any = next(here.ids) if operator.result is Result.ONE else (next(here.ids), next(here.ids))
        executor.run(here.session, operator.number, wire, None, outs)
        assert here.session.objects[outs if type(outs) is int else outs[0]][1].mark is None
    assert any(torch.equal(part, kept) for part in seen) and not torch.equal(held, kept)


def test_an_owners_dataset_is_not_copied():
    here, vault = Here(), Session(4, Principal("owner", Role.OWNER))
    vault.steady = True
    index, number = torch.tensor([3, 1, 2]), next(here.ids)
    here.session.alias(number, index, vault.put(4 << 32, index))
    here.session.max_bytes = 200
    assert here.run(A.gather.default, [torch.arange(8.0), 0, number]) is None


def test_a_copy_counts_against_the_quota():
    here, lender = Here(), Session(4, Principal("eve", Role.SCIENTIST))
    index, number = torch.zeros(1000, dtype=torch.int64), next(here.ids)
    here.session.alias(number, index, lender.put(4 << 32, index))
    here.session.max_bytes = 7_000  # the result's 4,000 would fit
    mark = here.run(A.gather.default, [torch.arange(8.0), 0, number])
    assert mark is not None and mark.poison is not None and "8,032 more bytes do not fit" in mark.poison.text


@pytest.mark.parametrize("wrong", [3, 156, 255])
def test_classes_in_bytes_are_bounded_too(bob, wrong):
    """156 is what -100, the class that is ignored, would be as a byte."""
    target = torch.tensor([0, wrong], dtype=torch.uint8).send(bob)
    x, one = torch.randn(2, 3).send(bob), torch.ones(()).send(bob)
    for made in (A.nll_loss_forward(x, target, None, 1, -100)[0], A.nll_loss_backward(one, x, target, None, 1, -100, one)):
        with pytest.raises(IndexError, match="out of bounds"):
            made.get()


# -- places that a pool has found itself


def _pooled_gradient(pool: list[Any], plane: tuple[int, int], before: Callable[[Here, int], int]) -> tuple[bool, str]:
    """Whether the places were looked at before the gradient of a max pool, and why it was refused. ``before``: what is done to them."""
    here, looked = Here(), []
    x = here.put(torch.arange(98.0).view(1, 2, 7, 7))
    values, places, gradient = (next(here.ids) for _ in range(3))
    executor.run(here.session, BY_FUNC[A.max_pool2d_with_indices.default].number, (x, *pool), None, (values, places))
    places = before(here, places)
    given = here.put(ones(here.session.objects[values][0].shape))
    rest = [*pool, *[[2, 2], [2, 2], [0, 0], [1, 1], False][len(pool) :]]
    aminmax, torch.aminmax = torch.aminmax, lambda index: looked.append(index) or aminmax(index)
    try:
        args = (given, here.put(ones(1, 2, *plane)), *rest, places)
        executor.run(here.session, BY_FUNC[A.max_pool2d_with_indices_backward.default].number, args, None, gradient)
    finally:
        torch.aminmax = aminmax
    mark = here.session.objects[gradient][1].mark
    return bool(looked), "" if mark is None or mark.poison is None else mark.poison.text


def _as_they_are(here: Here, places: int) -> int:
    return places


def _written(here: Here, places: int) -> int:
    executor.run(here.session, BY_FUNC[A.fill_.Scalar].number, (places, 1 << 40), None, None)
    return places


def _written_through_a_view(here: Here, places: int) -> int:
    view = next(here.ids)
    executor.run(here.session, BY_FUNC[A.view.default].number, (places, [-1]), None, view)
    executor.run(here.session, BY_FUNC[A.fill_.Scalar].number, (view, 1 << 40), None, None)
    return places


def _of_another(here: Here, places: int) -> int:
    return here.put(torch.full_like(here.session.objects[places][0], 1 << 40))


@pytest.mark.parametrize(
    ("pool", "plane", "before", "looked", "why"),
    [
        ([[2, 2]], (7, 7), _as_they_are, False, ""),
        ([[2, 2], [2, 2], [1, 1]], (7, 7), _as_they_are, False, ""),
        ([[2, 2], [2, 2], [0, 0], [2, 2]], (7, 7), _as_they_are, False, ""),
        ([[2, 2], [2, 2], [1, 1], [3, 3]], (7, 7), _as_they_are, True, ""),
        ([[2, 2]], (6, 6), _as_they_are, True, "out of bounds"),
        ([[2, 2]], (7, 7), _written, True, "out of bounds"),
        ([[2, 2]], (7, 7), _written_through_a_view, True, "out of bounds"),
        ([[2, 2]], (7, 7), _of_another, True, "out of bounds"),
    ],
)
def test_places_that_a_pool_has_found_are_looked_at_once(pool: Any, plane: Any, before: Any, looked: bool, why: str) -> None:
    seen, refused = _pooled_gradient(pool, plane, before)
    assert seen is looked and why in refused and bool(why) is bool(refused)
