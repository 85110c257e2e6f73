"""Lineage covers every dependence: change one row of a dataset, and only what labels say of it changes."""

import itertools

import pytest
import torch
from exfiltration import CANARY, ROWS, uncovered

from syftlite._torch import aten
from syftlite.engine import executor
from syftlite.ops.table import BY_FUNC
from syftlite.policy import elementwise, reductions
from syftlite.policy.call import RULES, Given
from syftlite.policy.labels import PUBLIC, Class, private
from syftlite.policy.lineage import ANY, Frame, axis_of, own
from syftlite.policy.propagate import propagate
from syftlite.policy.rules import aggregate_only, dp

pytestmark = pytest.mark.filterwarnings("ignore")  # operators warn of what they find in random operands


@pytest.mark.parametrize("policy", [aggregate_only(5), dp()], ids=["aggregate", "dp"])
def test_labels_cover_what_a_row_changes(policy):
    moved = 0
    for seed in range(12):
        found, some = uncovered(policy, seed, 15, CANARY if seed % 2 else seed)
        assert found == []
        moved += some
    assert moved > 50


def test_a_rule_that_forgets_a_dependence_is_noticed(monkeypatch):
    def forgetful(call):
        label = elementwise.pointwise(call)
        return label._replace(rows=call.labels[id(call.args[0])].rows) if id(call.args[0]) in call.labels else label

    monkeypatch.setitem(RULES, BY_FUNC[aten.cumsum.default].number, forgetful)
    monkeypatch.setitem(RULES, BY_FUNC[aten.amax.default].number, lambda call: PUBLIC)
    assert any(uncovered(dp(), seed, 15, CANARY)[0] for seed in range(30))


def labelled(aggregates=True, n=ROWS):
    frame = Frame("icu", n, aggregates=aggregates)
    torch.manual_seed(1)
    x = torch.randn(n, 3, dtype=torch.float64)
    return x, private("icu", own(frame, x))


def given(overload, args, labels, **kwargs):
    out, operator = overload(*args, **kwargs), BY_FUNC[overload]
    made = propagate(operator, args, kwargs, {id(t): label for t, label in labels}, out)
    exposed = made.label.exposed or any(check(Given(operator, args, out)) for check in made.checks)
    return out, made.label._replace(exposed=exposed)


def test_sums_are_aggregates_of_all_rows_and_maxima_are_not():
    x, label = labelled()
    _, total = given(aten.sum.dim_IntList, [x, [0]], [(x, label)])
    assert total.level is Class.AGG and not total.exposed and {int(s.bits.sum()) for s in total.selections} == {ROWS}
    _, most = given(aten.amax.default, [x, [0]], [(x, label)])
    assert most.level is Class.PRIVATE and most.rows is None
    y, within = given(aten.amax.default, [x, [1]], [(x, label)])
    assert within.rows.degree == ANY and axis_of(within.rows, y).axis == 0


def summed_as(x, label, overload, dim, dtype):
    """Whether a sum, cast as it is made, is an aggregate that may leave; or, along a row, still counts towards one."""
    _, made = given(overload, [x, [dim]], [(x, label)], dtype=dtype)
    counts = made.level is Class.AGG if dim == 0 else made.rows is not None and made.rows.degree < ANY
    return counts and not made.exposed


WHOLE = (torch.int64, torch.int32, torch.uint8, torch.bool)


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("overload", [aten.sum.dim_IntList, aten.mean.dim])
def test_a_sum_that_casts_is_a_step_function_of_each_row(overload, dim):
    """As whole numbers, x / 100 is who is above 100: how many are needs no comparison, and costs none."""
    x, label = labelled()
    for dtype in (torch.float64, torch.float32):
        assert summed_as(x, label, overload, dim, dtype)
    for dtype in (torch.float16, torch.bfloat16, *(WHOLE if overload is aten.sum.dim_IntList else ())):
        assert not summed_as(x, label, overload, dim, dtype), dtype


@pytest.mark.parametrize("dim", [0, 1])
def test_a_sum_of_whole_numbers_in_wider_ones_is_their_sum(dim):
    frame = Frame("icu", ROWS, aggregates=True)
    x = torch.randint(0, 100, (ROWS, 3), dtype=torch.int32, generator=torch.Generator().manual_seed(0))
    label = private("icu", own(frame, x))
    assert all(summed_as(x, label, aten.sum.dim_IntList, dim, dtype) for dtype in (None, torch.int64, torch.float32))
    assert not summed_as(x, label, aten.sum.dim_IntList, dim, torch.uint8)


@pytest.mark.parametrize("dim", [0, 1])
def test_a_sum_in_fewer_bits_of_what_lies_far_from_zero_is_exposed(dim):
    x, label = labelled()
    far, lies = given(aten.add.Tensor, [x, torch.tensor(1e9, dtype=torch.float64)], [(x, label)])
    assert summed_as(far, lies, aten.sum.dim_IntList, dim, torch.float64)
    assert not summed_as(far, lies, aten.sum.dim_IntList, dim, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_written_in_fewer_bits_has_no_degree(dtype):
    """Ones of all rows, times what lies far from zero: in 32 bits, its steps."""
    x, label = labelled()
    far, lies = given(aten.add.Tensor, [x, torch.tensor(1e9, dtype=torch.float64)], [(x, label)])
    all_rows, holds = given(aten.gt.Scalar, [x, -1e9], [(x, label)])
    ones, counts = given(aten._to_copy.default, [all_rows], [(all_rows, holds)], dtype=dtype)
    assert counts.rows.degree == 0
    written = given(aten.mul_.Tensor, [ones, far], [(ones, counts), (far, lies)])[1]
    assert (written.rows.degree < ANY) == (dtype is torch.float64)


CASTS = {
    "a product": (aten.mul.Tensor, lambda x: [x, torch.tensor([1.0])]),
    "a product with a number": (aten.mul.Tensor, lambda x: [x, 1.0]),
    "a quotient": (aten.div.Tensor, lambda x: [x, torch.tensor([1])]),
    "a sum": (aten.add.Tensor, lambda x: [x, torch.tensor([0.0])]),
    "a choice": (aten.where.self, lambda x: [torch.ones(1, dtype=torch.bool), x, torch.zeros(1)]),
}


@pytest.mark.parametrize("case", CASTS)
@pytest.mark.parametrize("far", [0, 2**40])
def test_whole_numbers_that_become_floats_far_from_zero_are_exposed(case, far):
    overload, args = CASTS[case]
    frame = Frame("icu", ROWS, aggregates=True)
    x = torch.randint(0, 100, (ROWS, 3), generator=torch.Generator().manual_seed(0)) + far
    label = private("icu", own(frame, x))
    made = given(overload, args(x), [(x, label)])[1]
    assert (made.rows.degree < ANY and not made.exposed) == (far == 0)


def test_views_show_their_part():
    x, label = labelled()
    axis = axis_of(label.rows, x.t()[:2, 4:20:3])
    assert axis.axis == 1 and list(axis.along.rows) == [4, 7, 10, 13, 16, 19]
    assert axis_of(label.rows, x[5]) is None and axis_of(label.rows, x.view(-1)) is None
    assert axis_of(label.rows, x.diagonal()) is None and axis_of(label.rows, x.view(6, 8, 3)) is None
    assert axis_of(label.rows, x[:, 1]).axis == 0 and axis_of(label.rows, x[:, None].expand(ROWS, 9, 3)).axis == 0


def test_products_count_degrees():
    x, label = labelled()
    squared, two = given(aten.mul.Tensor, [x, x], [(x, label)])
    assert two.rows.degree == 2
    _, three = given(aten.mul.Tensor, [squared, x], [(squared, two), (x, label)])
    assert three.rows.degree == ANY
    _, summed = given(aten.sum.default, [squared], [(squared, two)])
    assert summed.level is Class.AGG
    _, gram = given(aten.mm.default, [x.t(), x], [(x.t(), label), (x, label)])
    assert gram.level is Class.PRIVATE, "the transposed operand was another object, and unlabelled operands are public weights of 48 values"
    turned = x.t()
    _, gram = given(aten.mm.default, [turned, x], [(turned, label), (x, label)])
    assert gram.level is Class.AGG


@pytest.mark.parametrize("exponent", [2, 2.0, 1, 1.0, 0, 3, -1, 0.5, 2.5])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.int64])
def test_a_square_is_the_product_of_two_and_other_powers_are_no_polynomials_of_a_row(exponent, dtype):
    x, label = labelled()
    x, label = given(aten._to_copy.default, [x], [(x, label)], dtype=dtype) if dtype is not torch.float64 else (x, label)
    if dtype is torch.int64 and exponent == -1:
        return
    _, power = given(aten.pow.Tensor_Scalar, [x, exponent], [(x, label)])
    same = {2: given(aten.mul.Tensor, [x, x], [(x, label)])[1], 1: label}.get(exponent)
    if same is None or (dtype is torch.int64 and isinstance(exponent, float)):
        assert power.rows is None or power.rows.degree == ANY
    elif same.rows.degree < ANY:
        assert power.rows.degree == same.rows.degree and power.rows.gates == same.rows.gates and power.exposed == same.exposed
    else:
        assert power.rows is None or power.rows.degree == ANY


def test_one_row_hidden_in_a_column_of_zeros_is_seen():
    x, label = labelled()
    x[:, 1] = 0.0
    x[CANARY, 1] = 5.0
    _, total = given(aten.sum.dim_IntList, [x, [0]], [(x, label)])
    assert total.exposed
    turned = x.t()
    _, gram = given(aten.mm.default, [turned, x], [(turned, label), (x, label)])
    assert gram.exposed


def test_without_the_look_at_contributions_it_is_not(monkeypatch):
    monkeypatch.setattr(reductions, "uneven", lambda *given: False)
    x, label = labelled()
    x[:, 1] = 0.0
    x[CANARY, 1] = 5.0
    assert not given(aten.sum.dim_IntList, [x, [0]], [(x, label)])[1].exposed


@pytest.mark.parametrize("overload", [aten.where.self, aten.masked_fill.Scalar])
def test_a_column_of_booleans_that_chooses_is_a_selection(overload):
    """Without that `where(a, where(b, where(c, ...)))` would count any conjunction of columns, and differences of two such counts a person."""
    column = torch.arange(ROWS) % 5 < 3
    label = private("icu", own(Frame("icu", ROWS, aggregates=True), column))
    ones, of_ones = given(aten.ones_like.default, [column], [(column, label)], dtype=torch.float64)
    args = [column, ones, torch.zeros((), dtype=torch.float64)] if overload is aten.where.self else [ones, column, 0.0]
    out, chosen = given(overload, args, [(column, label), (ones, of_ones)])
    assert chosen.rows.degree == 0 and not chosen.exposed
    assert {int(s.bits.sum()) for s in chosen.rows.gates} == {int((~column).sum())} and all(s.derived for s in chosen.rows.gates)
    _, total = given(aten.sum.default, [out], [(out, chosen)])
    assert total.level is Class.AGG and chosen.rows.gates <= total.selections


def test_what_a_constant_was_before_rows_were_written_to_it_is_not_known():
    """Weights of rows, as they are after `weights.mul_(column)`, tell of the column: whether a sum is refused then would tell of one row."""
    frame = Frame("icu", ROWS, aggregates=True)
    for overload, places in itertools.product((aten.mul_.Tensor, aten.add_.Tensor, aten.sub_.Tensor), ([5], [6])):
        column = torch.arange(ROWS).remainder(2).double()
        label = private("icu", own(frame, column))
        weights = torch.ones(ROWS, dtype=torch.float64)
        weights[places] = 2.0
        out, made = given(overload, [weights, column], [(column, label)])
        assert made.rows.degree == ANY and not made.rows.gates and not made.exposed
        assert given(aten.sum.default, [out], [(out, made)])[1].level is Class.PRIVATE


@pytest.mark.parametrize("overload", [aten.add.Tensor, aten.sub.Tensor])
def test_a_constant_with_nan_hides_no_rounding(overload):
    x, label = labelled()
    for constant in ([2.0**60, 0.0, 0.0], [2.0**60, float("nan"), 0.0]):
        c = torch.tensor(constant, dtype=torch.float64)
        _, made = given(overload, [x, c], [(x, label)])
        assert made.exposed


def test_a_storage_written_in_part_has_no_rows_any_more():
    _, label = labelled()
    over = executor._over(label, label)
    assert over.rows is None and over.level is Class.PRIVATE
