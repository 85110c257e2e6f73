"""A program mapped over rows: whatever it does, a row is computed as if it were alone, and counts for no more than the clip."""

from __future__ import annotations

import importlib.util
import math
import warnings
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import syftlite as sy
from syftlite.dp.clipping import Clipper
from syftlite.engine import mapping
from syftlite.engine.engine import Engine
from syftlite.engine.mapping import Mapped
from syftlite.engine.plans import Program
from syftlite.engine.session import Principal, Role, Session
from syftlite.errors import ConfigurationError, PlanError
from syftlite.ops.dtypes import FORMAT_OF, NUMBER_OF
from syftlite.ops.operator import Kind, Result
from syftlite.ops.table import TABLE
from syftlite.policy import rules
from syftlite.remote.worker import BaseWorker
from syftlite.transports.memory import MemoryTransport

_spec = importlib.util.spec_from_file_location("operator_samples", Path(__file__).parent.parent / "ops" / "samples.py")
samples = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(samples)

INTEGERS = (torch.int64, torch.int32, torch.uint8)
STEPS = (1, 2, 5, 11, -1, -2, -3)
ROWS = 3


def asked(policy, tensor):
    """A scientist's pointer to rows of an owner's."""
    engine = Engine(f"mapping owner {id(tensor)}")
    engine.load("rows", tensor, ["#rows"], policy=policy)
    return BaseWorker(engine.name, MemoryTransport(engine, Principal("ann", Role.SCIENTIST))).search("#rows")[0]


class Step:
    """A program of one operator on the tensors of a sample; ``tensors``: theirs, in the order of its operands."""

    def __init__(self, operator, sample):
        self.tensors = []
        args, kwargs = tuple(map(self.wire, sample.args)), {name: self.wire(value) for name, value in sample.kwargs.items()} or None
        bare = [type(given) in (int, bool) and code in "Tt" for given, code in zip(sample.args, operator.codes, strict=False)]
        args = tuple([value] if number else value for value, number in zip(args, bare, strict=True))
        made = operator.func(*map(plain, sample.args), **sample.kwargs)
        first, count = len(self.tensors) + 1, len(made) if isinstance(made, (list, tuple)) else 1
        outs = {Result.NOTHING: None, Result.ONE: first}.get(operator.result, tuple(range(first, first + count)))
        self.program = Program(len(self.tensors))
        self.program.extend(len(self.tensors), ((operator.number, args, kwargs, outs),))
        several = operator.result not in (Result.NOTHING, Result.ONE)
        self.program.finish([o for o, value in zip(outs, made, strict=True) if value is not None] if several else [outs or 1])

    def wire(self, value):
        if isinstance(value, samples.Local):
            return (NUMBER_OF[value.tensor.dtype], value.tensor.item())
        if isinstance(value, torch.Tensor):
            self.tensors.append(value)
            return len(self.tensors)
        if type(value) in (list, tuple):
            return tuple(map(self.wire, value))
        return NUMBER_OF.get(value, FORMAT_OF.get(value, value)) if isinstance(value, (torch.dtype, torch.memory_format)) else value

    def rows(self, data, others):
        session = Session(7, Principal("eve", Role.SCIENTIST), 64 << 20)
        mapped = Mapped(self.program, [*data, *others], len(data), (), 1.0, 1.0, 1.0, 1)
        return mapping._rows(session, mapped, [d.clone() for d in data])


def plain(value):
    if type(value) in (list, tuple) and not isinstance(value, samples.Local):
        return [plain(item) for item in value]
    return value.tensor if isinstance(value, samples.Local) else value.clone() if isinstance(value, torch.Tensor) else value


def stray(tensor, by):
    """Other indices, some of which may be out of bounds; other values."""
    if tensor.dtype in INTEGERS:
        return tensor + (by if tensor.dtype is not torch.uint8 else abs(by))
    return tensor * 2 + 1 if tensor.dtype.is_floating_point else tensor


def reached(operator, most=4):
    """What rows beside one with stray indices are not what they are alone, or what it is although alone it fails."""
    found = []
    for sample in samples.samples(operator)[:most]:
        try:
            step = Step(operator, sample)
        except Exception:  # a sample of which no program is made
            continue
        if not any(t.dtype in INTEGERS for t in step.tensors):
            continue
        for by in STEPS:
            data = [torch.stack([t, stray(t, by), t]) for t in step.tensors]
            try:
                together = step.rows(data, [])
            except Exception:  # so all are computed with zeros in place of the one that fails
                continue
            for i in range(ROWS):
                try:
                    alone = step.rows([d[i : i + 1] for d in data], [])[0]
                except Exception:
                    found.append((by, i, "fails alone"))
                    continue
                if not torch.allclose(together[i], alone, rtol=1e-3, atol=1e-4, equal_nan=True):
                    found.append((by, i, "differs"))
    return found


INDEXED = [o for o in TABLE if o is not None and not o.dynamic and o.number not in mapping.REACHING and o.kind is not Kind.RANDOM]


@pytest.mark.filterwarnings("ignore")
def test_no_operator_lets_a_row_reach_another_one():
    """torch maps some operators by laying rows side by side: there an index beyond the one ends in the other, or in memory of nobody's."""
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert not {operator.name: found[:3] for operator in INDEXED if (found := reached(operator))}


@pytest.mark.filterwarnings("ignore")
def test_without_a_look_at_the_indices_it_would(monkeypatch):
    """The control: an embedding of one row's table finds the next row's."""
    monkeypatch.setattr(mapping, "check_mapped", lambda number, operands: None)
    (embedding,) = [o for o in INDEXED if o.name == "aten.embedding.default"]
    assert ("fails alone") in {what for _, _, what in reached(embedding)}


def test_no_row_is_counted_by_others():
    """Every row looks up what row 7 has, in a table that is its own row."""
    table = torch.stack([torch.arange(20.0), torch.zeros(20), torch.ones(20)], 1)
    table[7, 1] = 1.0
    x = asked(rules.dp(epsilon=1e9), table)
    look = lambda row: F.embedding(((7 - row[0]) * row[2]).long().reshape(1), row[1:2].reshape(1, 1)).reshape(1)  # noqa: E731
    assert float(sy.dp.map_sum(look, x, clip=1.0, noise_multiplier=1e-2).get()) == pytest.approx(1.0, abs=0.3)


def test_what_no_map_keeps_apart_is_refused():
    x = asked(rules.dp(epsilon=1e9), torch.randn(9, 3))
    with pytest.raises(PlanError, match="another row"):
        sy.dp.map_sum(lambda row: row.index_fill(0, row[:1].long() * 0, 1.0), x, clip=1.0, noise_multiplier=1.0)
    assert sy.dp.budget(x)[0].spent == 0


def test_the_least_whole_number_by_minus_one_counts_as_zero():
    """The machine's division would stop the node."""
    rows = torch.tensor([[6, 2], [torch.iinfo(torch.int64).min, -1], [9, 3]])
    x = asked(rules.dp(epsilon=1e9), rows)
    total = sy.dp.map_sum(lambda row: torch.div(row[:1], row[1:] + (row[1:] == 0), rounding_mode="trunc"), x, clip=9.0, noise_multiplier=1e-3).get()
    assert float(total) == pytest.approx(6.0, abs=0.5)


def test_what_freed_memory_held_is_no_rows(monkeypatch):
    x = asked(rules.dp(epsilon=1e9), torch.randn(50, 64))
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    torch.use_deterministic_algorithms(True)  # torch fills fresh memory with NaN, which would count as zero
    try:
        total = sy.dp.map_sum(lambda row: torch.empty_like(row) + 1, x, clip=8.0, noise_multiplier=1e-3).get()
    finally:
        torch.use_deterministic_algorithms(False)
    torch.testing.assert_close(total, torch.full((64,), 50.0, dtype=torch.float64), atol=0.5, rtol=0)


WIDE, CONSTANT = torch.randn(4000, 1, generator=torch.Generator().manual_seed(0)), torch.randn(4000, generator=torch.Generator().manual_seed(1))


def last_bit(count):
    """A product whose last bits depend on how many rows are computed side by side."""
    return torch.vmap(lambda row: ((CONSTANT + row * 0).reshape(1, -1) @ WIDE).reshape(1))(torch.zeros(count))[0]


@pytest.mark.skipif(float(last_bit(300)) == float(last_bit(1)), reason="this machine's products have the same last bits")
@pytest.mark.parametrize("trained", [False, True], ids=["map", "gradients"])
def test_a_row_that_fails_changes_no_other(trained):
    """What all rows give says how many are computed side by side: that must not tell whether one has failed."""

    def total(bad):
        rows = torch.zeros(300, 4)
        rows[5, 0] = bad
        x = asked(rules.dp(epsilon=1e9), rows)
        wide, constant, table, usual, weight = (
            t.send(x.location) for t in (WIDE, CONSTANT, torch.zeros(2, 1), last_bit(300), nn.Parameter(torch.zeros(1)))
        )

        def told(row, constant, wide, usual, table):
            product = ((constant + row[1] * 0).reshape(1, -1) @ wide).reshape(1)
            return (product - usual) * 1e8 + 1 + F.embedding(row[0].long().reshape(1), table).reshape(1)

        if not trained:
            return float(sy.dp.map_sum(told, x, constant, wide, usual, table, clip=1.0, noise_multiplier=1e-2).get())
        optimizer = sy.dp.DPOptimizer(torch.optim.SGD([weight], lr=1.0), l2_norm_clip=1.0, noise_multiplier=1e-2)
        optimizer.step(lambda row: (weight * told(row[0], constant, wide, usual, table)).sum(), x)
        return -300 * float(weight.get().detach())

    assert abs(total(0.0) - total(99.0)) < 2


def test_random_numbers_drawn_afterwards_tell_of_no_row_that_failed():
    def after(value):
        rows = asked(rules.dp(epsilon=10.0, delta=1e-5), torch.tensor([1.0, 2.0, value, 0.0]))
        table = torch.ones(5, 1).send(rows.location)
        torch.manual_seed(0)
        sy.dp.map_sum(lambda row, t: F.embedding(row.long().view(1), t) * torch.rand_like(t[:1]), rows, table, clip=1.0, noise_multiplier=5.0)
        return torch.rand(2)

    assert torch.equal(after(3.0), after(7.0))


@pytest.mark.parametrize("planted", [False, True])
def test_random_numbers_drawn_meanwhile_are_those_that_would_have_been(monkeypatch, planted):
    """By another session, on another thread: from what it gets it could make out where in a map's stream it is, and so which rows failed."""
    rows, real, drawn = asked(rules.dp(epsilon=10.0, delta=1e-5), torch.tensor([1.0, 2.0, 3.0, 0.0])), mapping._rows, []
    if planted:
        monkeypatch.setattr(mapping, "apart", nullcontext)

    def meanwhile(*of):
        drawn.append(torch.rand(()).item())
        found = real(*of)
        drawn.append(torch.rand(()).item())
        return found

    monkeypatch.setattr(mapping, "_rows", meanwhile)
    torch.manual_seed(0)
    sy.dp.map_sum(lambda row: row * torch.bernoulli(torch.full_like(row, 0.5)), rows, clip=1.0, noise_multiplier=5.0)
    torch.manual_seed(0)
    sy.dp.map_sum(lambda row: row, rows, clip=1.0, noise_multiplier=5.0)
    half = len(drawn) // 2
    assert half >= 3 and (drawn[:half] == drawn[half:]) is not planted


def test_a_row_that_fails_counts_as_zero_in_training_too():
    table = torch.tensor([[1.0], [2.0]])
    rows = torch.tensor([0, 1, 7, 1])
    x = asked(rules.dp(epsilon=1e9), rows)
    there, weight = table.send(x.location), nn.Parameter(torch.zeros(1)).send(x.location)
    optimizer = sy.dp.DPOptimizer(torch.optim.SGD([weight], lr=1.0), l2_norm_clip=10.0, noise_multiplier=1e-4)
    optimizer.step(lambda row: (weight * (F.embedding(row, there) + 3)).sum(), x)
    assert -4 * float(weight.get().detach()) == pytest.approx(4 + 5 + 5, abs=0.1)


# -- norms


@pytest.mark.parametrize("scale", [1e-30, 1e-170, 1e-250, 1e100])
def test_a_row_counts_for_no_more_than_the_clip_however_small_it_is(scale):
    rows = torch.zeros(50, 3, dtype=torch.float64)
    rows[7] = torch.tensor([3.0, 4.0, 0.0])
    x = asked(rules.dp(epsilon=1e9), rows)
    total = sy.dp.map_sum(lambda row: row * scale, x, clip=scale * 1e-5, noise_multiplier=1e-3).get() / (scale * 1e-5)
    torch.testing.assert_close(total, torch.tensor([0.6, 0.8, 0.0], dtype=torch.float64), atol=0.01, rtol=0)


DOUBLE = torch.float64
TINY = {
    "squares that are nothing": (lambda w, x: F.linear(x * 1e-23, w) * 1e19, torch.float32),
    "... in double precision": (lambda w, x: F.linear(x * 1e-170, w) * 1e165, DOUBLE),
    "... of a parameter's own": (lambda w, x: (w * x * 1e-23 * 1e19), torch.float32),
    "factors below the smallest number": (lambda w, x: F.linear(x * 3e38, w) * 6e-8, torch.float32),
    "inputs beyond all measure": (lambda w, x: F.linear(x * 1e30, w) * 1e3, torch.float32),
}


@pytest.mark.parametrize("case", TINY)
@pytest.mark.parametrize("clip", [2.0**-40, 1e-7, 1.0])
def test_gradients_count_for_no_more_than_the_clip_however_small_their_factors_are(case, clip):
    loss, dtype = TINY[case]
    weight = nn.Parameter(torch.zeros(1, 4, dtype=dtype))
    (found,), _ = Clipper([weight]).sums(lambda x: loss(weight, x).sum(), [torch.randn(1, 4, dtype=dtype)], clip)
    assert float(torch.linalg.vector_norm(found.double())) <= clip


@pytest.mark.parametrize("long", [False, True], ids=["rows", "inner products"])
@pytest.mark.parametrize("layer", ["linear", "embedding"])
def test_terms_that_cancel_take_nothing_of_other_rows(monkeypatch, layer, long):
    """One example adds to the sum what cancels, but for rounding: that must not be the sum of the others."""
    if long:
        monkeypatch.setattr("syftlite.dp.layers.LARGEST", 0)
    scales = torch.ones(6, 3)
    scales[3] = torch.tensor([1e10, 1.0, -1e10])
    weight = nn.Parameter(torch.zeros(2, 1))
    if layer == "embedding":
        positions, function = torch.zeros(6, 3, dtype=torch.long), lambda i, s: (F.embedding(i, weight) * s[..., None]).sum()
    else:
        positions, function = torch.ones(6, 3, 1), lambda i, s: (F.linear(i, weight)[..., :1] * s[..., None]).sum()
    sums = [Clipper([weight]).sums(function, [positions[keep], scales[keep]], 1.0)[0][0] for keep in (torch.arange(6), torch.arange(6) != 3)]
    assert float(torch.linalg.vector_norm(sums[0] - sums[1])) <= 1 + 1e-3


@pytest.mark.parametrize("clip", [1e-30, 1e30, math.nan])
def test_clips_beyond_what_sums_are_exact_for_are_refused(clip):
    with pytest.raises(ConfigurationError):
        sy.dp.DPOptimizer(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0), l2_norm_clip=clip, noise_multiplier=1.0)


def test_a_loss_that_stops_a_gradient_is_refused_there_unless_nothing_comes_of_it():
    """A node differentiates operators, which do not tell where autograd was stopped."""
    bob = sy.VirtualWorker(id="stops")
    model = torch.nn.Linear(3, 1).send(bob)
    optimizer = sy.dp.DPOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), l2_norm_clip=1.0, noise_multiplier=1.0)
    rows, told = torch.randn(8, 3).send(bob), []

    def looks(x):
        told.append(model(x).detach())
        return model(x.detach()).sigmoid().sum()

    optimizer.step(looks, rows)
    assert told
    with pytest.raises(PlanError, match=r"uses detach\(\) of what depends on the parameters, at .*test_mapping.py"):
        optimizer.step(lambda x: (model(x) * model(x).detach()).sum(), rows)

    def held(x):
        with torch.no_grad():
            weight = model(x) * 2
        return (model(x) * weight).sum()

    with pytest.raises(PlanError, match=r"under torch.no_grad\(\)"):
        optimizer.step(held, rows)
