"""Cost rules: what they predict is never less than what torch's allocator sees, and memory bombs are refused before anything is allocated."""

from __future__ import annotations

import bisect
import gc
import time
from typing import Any

import pytest
import torch
from bench import Bench
from placing import local, tensors
from samples import samples
from torch.profiler import ProfilerActivity, profile, record_function

from syftlite._torch import aten as A
from syftlite.engine import admission, executor
from syftlite.engine.bounds import check_values
from syftlite.errors import QuotaExceededError, code_of
from syftlite.ops.cost import QUICK, cost, dynamic_cost
from syftlite.ops.infer import DataDependent, depends_on_values, infer
from syftlite.ops.operator import Kind, Operator, Result
from syftlite.ops.spec import Spec
from syftlite.ops.table import BY_FUNC, TABLE
from syftlite.wire import messages as m

SCALAR = 16
"""Bytes of a temporary that holds one number: not counted."""


def expanded(value: Any) -> Any:
    """One element, seen as a whole tensor."""
    if isinstance(value, torch.Tensor) and value.numel() > 1:
        return value.reshape(-1)[:1].reshape([1] * value.dim()).expand(value.shape)
    return [expanded(v) for v in value] if isinstance(value, list) else value


def reversed_dims(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.dim() > 1:
        return value.transpose(0, -1).contiguous().transpose(0, -1)
    return [reversed_dims(v) for v in value] if isinstance(value, list) else value


def as_specs(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return Spec.of(value)
    return [as_specs(v) for v in value] if isinstance(value, list) else value


def calls(operator: Operator) -> list[tuple[str, list[Any], dict[str, Any]]]:
    """Samples three ways: as they are, in another order of dimensions, expanded from one element. What is written to stays."""
    found = []
    given = samples(operator)
    for layout, chosen in ((lambda v: v, given), (reversed_dims, given[:3] + given[-2:]), (expanded, given[:3] + given[-2:])):
        for sample in chosen:
            args, kwargs = local(sample)
            for position, parameter in enumerate(operator.parameters[: len(args)]):
                if parameter.name not in operator.writes:
                    args[position] = layout(args[position])
            found.append((layout.__name__, args, kwargs))
    return found


def predicted(operator: Operator, args: list[Any], kwargs: dict[str, Any]) -> int:
    specs, named = [as_specs(a) for a in args], {k: as_specs(v) for k, v in kwargs.items()}
    operands = operator.named(specs, named)
    try:
        return cost(operator, operands, infer(operator, specs, named)).nbytes
    except DataDependent:
        return dynamic_cost(operator, operands).nbytes + check_values(operator.number, operator.named(args, kwargs))


def test_no_operator_holds_more_than_its_rule_says() -> None:
    found = []
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        for operator in TABLE[1:]:
            assert operator is not None
            for layout, args, kwargs in calls(operator):
                with record_function(f"call {len(found)}"):
                    try:
                        operator.func(*args, **kwargs)
                    except RuntimeError:
                        continue  # a layout that this operator refuses
                found.append((operator, layout, args, kwargs))
    peaks = peak_bytes(profiler)
    over = []
    for number, (operator, layout, args, kwargs) in enumerate(found):
        try:
            bound = predicted(operator, args, kwargs)
        except RuntimeError:
            continue  # the meta kernel refuses it: so does the worker
        if operator.kind is not Kind.VIEW and peaks[number] > bound:
            shapes = [(tuple(t.shape), str(t.dtype)) for t in tensors(args)]
            over.append(f"{operator}, {layout}: {peaks[number]} bytes, the rule says {bound}: {shapes}")
    assert not over, "\n".join(over)


def peak_bytes(profiler: Any) -> list[int]:
    """The most that each recorded call held at once."""
    events = list(profiler.profiler.kineto_results.events())
    calls = sorted((int(e.name()[5:]), e.start_ns(), e.start_ns() + e.duration_ns()) for e in events if e.name().startswith("call "))
    memory = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]" and abs(e.nbytes()) > SCALAR)
    times = [t for t, _ in memory]
    found: dict[int, int] = {}
    for number, start, end in calls:
        held = most = 0
        for _, nbytes in memory[bisect.bisect_left(times, start) : bisect.bisect_right(times, end)]:
            held += nbytes
            most = max(most, held)
        found[number] = most
    return [found[n] for n in range(len(found))]


# -- ordinary work fits

LAYERS: list[tuple[Any, list[Any], float]] = [
    (A.convolution.default, [(64, 3, 224, 224), (64, 3, 7, 7), None, [2, 2], [3, 3], [1, 1], False, [0, 0], 1], 2.0),
    (A.convolution.default, [(64, 256, 56, 56), (64, 256, 1, 1), None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1], 2.0),
    (A.convolution_backward.default, [(64, 64, 112, 112), (64, 3, 224, 224), (64, 3, 7, 7), [64], [2, 2], [3, 3], [1, 1], False, [0, 0], 1, [True] * 3], 2.0),
    (A.native_batch_norm.default, [(64, 256, 56, 56), (256,), (256,), (256,), (256,), True, 0.1, 1e-5], 1.0),
    (A.mm.default, [(4096, 4096), (4096, 4096)], 0.1),
    (A.add.Tensor, [(1 << 28,), (1 << 28,)], 1.0),
    (A.mean.dim, [(1 << 29, 2), [0]], 0.01),
    (A.gather.default, [(1 << 20, 100), 1, (1 << 20, 1)], 0.05),
    (A._log_softmax.default, [(1 << 16, 1000), 1, False], 1.0),
]  # fmt: skip


@pytest.mark.parametrize("func, operands, gigabytes", LAYERS, ids=lambda v: getattr(v, "__name__", ""))
def test_ordinary_layers_are_not_priced_out(func: Any, operands: list[Any], gigabytes: float) -> None:
    operator = BY_FUNC[func]
    kinds = [torch.int64 if p.name == "index" else torch.float32 for p in operator.parameters]
    specs = [Spec.contiguous(v, kind) if type(v) is tuple else v for v, kind in zip(operands, kinds, strict=False)]
    assert cost(operator, operator.named(specs, {}), infer(operator, specs, {})).nbytes <= gigabytes * (1 << 30)


# -- memory bombs

HUGE = 1 << 36


class Bombs(Bench):
    """Objects of a few bytes that look large."""

    def wide(self, *shape: int, dtype: torch.dtype = torch.float32) -> int:
        """One element, expanded to ``shape``."""
        small = self.put(torch.ones([1] * len(shape), dtype=dtype))
        (seen,) = self.run(BY_FUNC[A.expand.default], [small, list(shape)], None)
        return seen

    def small(self, *shape: int, dtype: torch.dtype = torch.float32) -> int:
        """A real tensor of ``shape``."""
        return self.put(torch.ones(shape, dtype=dtype))


I64, I32, U8, BOOL = torch.int64, torch.int32, torch.uint8, torch.bool
BOMBS: dict[str, Any] = {
    "expand, clone": lambda b: (A.clone.default, [b.wide(HUGE)]),
    "expand, cast": lambda b: (A._to_copy.default, [b.wide(HUGE)], {"dtype": 1}),
    "unfold, clone": lambda b: (A.clone.default, b.run(BY_FUNC[A.unfold.default], [b.small(60_000), 0, 30_000, 1], None)),
    "outer sum": lambda b: (A.add.Tensor, [b.small(1000, 1), b.wide(1, HUGE)]),
    "elementwise on one shape": lambda b: (A.mul.Tensor, [b.wide(HUGE), b.wide(HUGE)]),
    "promotion makes copies": lambda b: (A.eq.Tensor, [b.wide(1 << 19, dtype=U8), b.wide(1 << 19, dtype=I32)]),
    "in place, operands cast": lambda b: (A.add_.Tensor, [b.small(1 << 19), b.wide(1 << 19, dtype=torch.float64)]),
    "where": lambda b: (A.where.self, [b.wide(HUGE, dtype=BOOL), b.small(1), b.small(1)]),
    "mean loss": lambda b: (A.mse_loss.default, [b.wide(HUGE), b.small(1), 1]),
    "entropy": lambda b: (A.binary_cross_entropy_with_logits.default, [b.wide(HUGE), b.wide(HUGE), None, None, 1]),
    "sum of bytes": lambda b: (A.sum.default, [b.wide(HUGE, dtype=U8)]),
    "sum in doubles": lambda b: (A.sum.dim_IntList, [b.wide(2, HUGE), [1]], {"dtype": 1}),
    "largest of an expanded one": lambda b: (A.max.default, [b.wide(HUGE)]),
    "median": lambda b: (A.median.default, [b.wide(HUGE)]),
    "log-sum-exp": lambda b: (A.logsumexp.default, [b.wide(HUGE), [0]]),
    "softmax": lambda b: (A._softmax.default, [b.wide(HUGE), 0, False]),
    "cumulative": lambda b: (A.cumsum.default, [b.wide(1 << 24), 0]),
    "norm": lambda b: (A.linalg_vector_norm.default, [b.wide(HUGE), 3]),
    "many roots": lambda b: (A._foreach_sqrt.default, [[b.wide(1 << 18)] * 500]),
    "a root beside nothing": lambda b: (A._foreach_sqrt.default, [[b.small(0), b.wide(HUGE)]]),
    "full": lambda b: (A.full.default, [[HUGE], 1.0]),
    "zeros": lambda b: (A.zeros.default, [[1 << 18, 1 << 18]]),
    "empty": lambda b: (A.empty.memory_format, [[HUGE]]),
    "new_full": lambda b: (A.new_full.default, [b.small(1), [HUGE], 1.0]),
    "zeros_like": lambda b: (A.zeros_like.default, [b.wide(HUGE)]),
    "arange": lambda b: (A.arange.default, [HUGE]),
    "arange after a short one": lambda b: (b.run(BY_FUNC[A.arange.default], [2.5], None), (A.arange.default, [float(HUGE)]))[1],
    "linspace": lambda b: (A.linspace.default, [0, 1, HUGE]),
    "eye": lambda b: (A.eye.default, [1 << 18]),
    "randn": lambda b: (A.randn.default, [[HUGE]]),
    "randperm": lambda b: (A.randperm.default, [HUGE]),
    "dropout": lambda b: (A.native_dropout.default, [b.wide(HUGE), 0.5, True]),
    "repeat": lambda b: (A.repeat.default, [b.small(2), [HUGE]]),
    "pad": lambda b: (A.constant_pad_nd.default, [b.small(2), [HUGE, 0], 0.0]),
    "cat": lambda b: (A.cat.default, [[b.wide(1 << 18)] * 64]),
    "stack": lambda b: (A.stack.default, [[b.wide(1 << 18)] * 64]),
    "diag_embed": lambda b: (A.diag_embed.default, [b.small(1 << 16)]),
    "tril": lambda b: (A.tril.default, [b.wide(1 << 18, 1 << 18)]),
    "roll": lambda b: (A.roll.default, [b.wide(HUGE), [1]]),
    "slice_backward": lambda b: (A.slice_backward.default, [b.small(1), [HUGE], 0, 0, 1, 1]),
    "select_backward": lambda b: (A.select_backward.default, [b.small(), [HUGE], 0, 0]),
    "im2col": lambda b: (A.im2col.default, [b.wide(1, 1, 4000, 4000), [9, 9], [1, 1], [4, 4], [1, 1]]),
    "reflection": lambda b: (A.reflection_pad2d.default, [b.wide(1, 9000, 9000), [8000] * 4]),
    "outer product": lambda b: (A.mm.default, [b.small(1 << 16, 1), b.small(1, 1 << 16)]),
    "bmm of expanded": lambda b: (A.bmm.default, [b.wide(1 << 20, 64, 64), b.wide(1 << 20, 64, 64)]),
    "sum of bmm": lambda b: (A.addbmm.default, [b.small(64, 64), b.wide(1 << 20, 64, 64), b.wide(1 << 20, 64, 64)]),
    "addmm": lambda b: (A.addmm.default, [b.small(1), b.small(1 << 16, 1), b.small(1, 1 << 16)]),
    "conv, padding": lambda b: (A.convolution.default, [b.small(1, 1, 1, 1), b.small(1, 1, 1, 1), None, [1, 1], [1 << 16, 1 << 16], [1, 1], False, [0, 0], 1]),
    "conv of integers": lambda b: (A.convolution.default, [b.wide(1, 1, 999, 999, dtype=I64), b.small(1, 1, 9, 9, dtype=I64), None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1]),
    "conv, transposed": lambda b: (A.convolution.default, [b.small(1, 1, 9, 9), b.small(1, 1, 1, 1), None, [1 << 15, 1 << 15], [0, 0], [1, 1], True, [0, 0], 1]),
    "conv of doubles": lambda b: (A.convolution.default, [b.wide(4, 4, 512, 512, dtype=torch.float64), b.small(1, 4, 8, 8, dtype=torch.float64), None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1]),
    "pool": lambda b: (A._adaptive_avg_pool2d.default, [b.small(1, 1, 1), [1 << 18, 1 << 18]]),
    "pooled expanded": lambda b: (A.avg_pool2d.default, [b.wide(1, 1 << 16, 1 << 16), [1 << 14, 1 << 14]]),
    "upsample": lambda b: (A.upsample_nearest2d.default, [b.small(1, 1, 1, 1), [1 << 18, 1 << 18]]),
    "bilinear": lambda b: (A.upsample_bilinear2d.default, [b.small(1, 1, 1, 1), [1 << 18, 1 << 18], False]),
    "norm of expanded": lambda b: (A.native_layer_norm.default, [b.wide(1 << 20, 64), [64], None, None, 1e-5]),
    "gather": lambda b: (A.gather.default, [b.small(1, 1), 1, b.wide(1, HUGE, dtype=I64)]),
    "rows": lambda b: (A.index_select.default, [b.wide(2, 1 << 20), 0, b.small(5000, dtype=I64)]),
    "embedding": lambda b: (A.embedding.default, [b.wide(2, 1 << 12), b.wide(1 << 16, dtype=I64)]),
    "embedding's gradient": lambda b: (A.embedding_dense_backward.default, [b.small(1, 1), b.put(torch.zeros(1, dtype=I64)), HUGE, -1, False]),
    "one-hot": lambda b: (A.scatter.value, [b.wide(1 << 20, 1 << 16), 1, b.small(1 << 10, 1, dtype=I64), 1.0]),
    "index_put of int32": lambda b: (A.index_put.default, [b.small(4), [b.wide(HUGE, dtype=I32)], b.small()]),
    "take": lambda b: (A.take.default, [b.small(4), b.wide(HUGE, dtype=I64)]),
    "isin": lambda b: (A.isin.Tensor_Tensor, [b.wide(HUGE, dtype=I64), b.small(3, dtype=I64)]),
    "inverse of expanded": lambda b: (A.linalg_inv_ex.default, [b.wide(1 << 13, 1 << 13)]),
    "inverses of a wide batch": lambda b: (A.linalg_inv_ex.default, [b.wide(1 << 30, 2, 2)]),
    "one system, many right sides": lambda b: (A.linalg_solve_triangular.default, [b.small(400, 400), b.wide(1 << 14, 400, 1)], {"upper": True}),
    "all of Q": lambda b: (A.linalg_qr.default, [b.small(1 << 16, 1), "complete"]),
    "all of U": lambda b: (A._linalg_svd.default, [b.small(1 << 16, 1), True]),
    "pivots as a matrix": lambda b: (A.lu_unpack.default, [b.small(1 << 16, 1), b.put(torch.ones(1, dtype=I32))]),
    "eigenvectors": lambda b: (A._linalg_eigh.default, [b.wide(1 << 12, 1 << 12)]),
    "transform of expanded": lambda b: (A._fft_r2c.default, [b.wide(HUGE), [0], 0, True]),
    "outer sum of complex numbers": lambda b: (A.complex.default, [b.small(1 << 16, 1), b.small(1 << 16)]),
    "sort": lambda b: (A.sort.default, [b.wide(HUGE)]),
    "topk": lambda b: (A.topk.default, [b.wide(HUGE), 1]),
    "histogram": lambda b: (A.histc.default, [b.small(1), HUGE]),
    "nonzero": lambda b: (A.nonzero.default, [b.wide(1, 1, 1, 1, 1, 1, 1 << 17)]),
    "masked_select": lambda b: (A.masked_select.default, [b.wide(HUGE), b.small(1, dtype=BOOL)]),
    "mask beside indices": lambda b: (A.index.Tensor, [b.wide(5000, 1), [b.small(5000, dtype=BOOL), b.put(torch.zeros(5000, 1, dtype=I64))]]),
    "bincount": lambda b: (A.bincount.default, [b.put(torch.tensor([HUGE]))]),
    "repeat_interleave": lambda b: (A.repeat_interleave.Tensor, [b.put(torch.tensor([HUGE]))]),
    "repeats that wrap around": lambda b: (A.repeat_interleave.Tensor, [b.put(torch.full((4,), 1 << 62))]),
    "unique": lambda b: (A._unique2.default, [b.wide(HUGE)]),
    "resampled by axes": lambda b: (A._upsample_bilinear2d_aa.default, [b.wide(1, 1, 1 << 15, 1), [1, 1 << 15], False]),
    "enlarged line": lambda b: (A.upsample_linear1d.default, [b.small(1, 1, 1), [HUGE], False]),
    "enlarged volume": lambda b: (A.upsample_nearest3d.default, [b.small(1, 1, 1, 1, 1), [1 << 12] * 3]),
    "points of a grid": lambda b: (A.grid_sampler_2d.default, [b.small(1, 1, 1, 1), b.wide(1, 1 << 18, 1 << 18, 2), 0, 0, False]),
    "gradient of a grid's input": lambda b: (A.grid_sampler_2d_backward.default, [b.wide(1, 1, 1, 1), b.wide(1, 1, 1 << 18, 1 << 18), b.small(1, 1, 1, 2), 0, 0, False, [True, True]]),
    "draws": lambda b: (A.multinomial.default, [b.small(2), HUGE, True]),
    "draws of a wide one": lambda b: (A.multinomial.default, [b.wide(1 << 22), 1]),
    "places": lambda b: (A.nonzero_static.default, [b.small(1)], {"size": HUGE}),
    "running maximum": lambda b: (A.cummax.default, [b.wide(HUGE), 0]),
    "most frequent": lambda b: (A.mode.default, [b.wide(HUGE), 0]),
    "stable sort": lambda b: (A.sort.stable, [b.wide(HUGE)], {"stable": True}),
    "unique columns": lambda b: (A.unique_dim.default, [b.wide(1 << 18, 1), 0]),
    "mantissas": lambda b: (A.frexp.Tensor, [b.wide(HUGE)]),
    "padded volume": lambda b: (A.replication_pad3d.default, [b.wide(1, 9, 9, 9), [4000] * 6]),
    "unique rows": lambda b: (A.unique_consecutive.default, [b.wide(1 << 18, 1), False, False, 0]),
}  # fmt: skip


@pytest.mark.parametrize("bomb", BOMBS)
def test_memory_bombs_are_refused_before_anything_is_allocated(bomb: str) -> None:
    bench = Bombs(max_bytes=4 << 20)
    func, args, *named = BOMBS[bomb](bench)
    operator, kwargs = BY_FUNC[func], named[0] if named else None
    if operator.result is Result.LIST:
        outs: Any = tuple(bench.id() for _ in args[0])
    else:
        outs = bench.outs(operator, args)
    used = bench.session.used
    gc.collect()  # not within what is timed
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler, record_function("call 0"):
        started = time.thread_time()
        if operator.dynamic and depends_on_values(operator, bench.stored(args)):
            answer = bench.say(m.ASK, 1, operator.number, args, kwargs, [bench.id()])
            assert answer is not None and answer[0] == m.ERROR
            code, text = answer[2:4]
        else:
            executor.run(bench.session, operator.number, args, kwargs, outs)
            mark = bench.cell(args[0] if outs is None else outs if type(outs) is int else outs[0]).mark
            assert mark is not None and mark.poison is not None, "it ran"
            code, text = mark.poison.code, mark.poison.text
        took = time.thread_time() - started
    assert code == code_of(QuotaExceededError()), text
    assert peak_bytes(profiler) == [0] or max(peak_bytes(profiler)) < 1024
    assert took < 0.1 and bench.session.used == used


@pytest.mark.parametrize("func, rest", [(A.unbind.int, [0]), (A.split.Tensor, [1, 0]), (A.unsafe_split.Tensor, [1, 0])])
def test_more_views_than_a_message_names_are_never_made(func: Any, rest: list[Any]) -> None:
    bench = Bombs()
    outs = [bench.id(), bench.id()]
    executor.run(bench.session, BY_FUNC[func].number, [bench.wide(HUGE), *rest], None, outs)
    mark = bench.cell(outs[0]).mark
    assert mark is not None and mark.poison is not None and "results" in mark.poison.text


def test_results_count_by_what_they_hold() -> None:
    """A mean loss of torch's keeps the storage of the elementwise one: not here."""
    bench = Bombs()
    loss = bench.run(BY_FUNC[A.mse_loss.default], [bench.small(1000), bench.small(1000), 1], None)[0]
    assert bench.tensor(loss).untyped_storage().nbytes() == 4 == bench.cell(loss).nbytes


def test_strides_may_leave_no_gaps() -> None:
    bench = Bombs()
    for func, args in ((A.empty_strided.default, [[2], [1 << 40]]), (A.new_empty_strided.default, [bench.small(1), [2, 2], [100, 1]])):
        (out,) = bench.run(BY_FUNC[func], args, None)
        mark = bench.cell(out).mark
        assert mark is not None and mark.poison is not None and "gaps" in mark.poison.text


def test_the_cache_of_prices_does_not_keep_long_lists() -> None:
    bench = Bombs()
    xs = [bench.small(1) for _ in range(600)]
    before = len(admission._prices.entries)
    bench.run(BY_FUNC[A.stack.default], [xs], None)
    assert len(admission._prices.entries) <= before


def test_a_small_networks_operators_are_quick() -> None:
    """What takes microseconds stays on the event loop's thread."""
    for func, operands in (
        (A.addmm.default, [(16,), (32, 30), (30, 16)]),
        (A.mm.default, [(30, 32), (32, 16)]),
        (A._log_softmax.default, [(32, 10), 1, False]),
        (A.native_layer_norm.default, [(32, 64), [64], (64,), (64,), 1e-5]),
    ):
        operator = BY_FUNC[func]
        specs = [Spec.contiguous(v, torch.float32) if type(v) is tuple else v for v in operands]
        assert cost(operator, operator.named(specs, {}), infer(operator, specs, {})).work <= QUICK
    big = [Spec.contiguous(s, torch.float32) for s in ((256, 256), (256, 256))]
    assert cost(BY_FUNC[A.mm.default], {"self": big[0], "mat2": big[1]}, big[0]).work > QUICK
