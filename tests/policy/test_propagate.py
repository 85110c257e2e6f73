"""Lineage covers every dependence: change one row of a dataset, and only what labels say of it changes."""

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


def test_a_storage_written_in_part_has_no_rows_any_more():
    _, label = labelled()
    over = executor._over(label, label)
    assert over.rows is None and over.level is Class.PRIVATE
