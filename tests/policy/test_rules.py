"""Each rule of a policy, with a control: what happens when the rule is not stated."""

import itertools
import json
import math
from dataclasses import replace
from datetime import date

import pytest
import torch

import syftlite as sy
from syftlite.engine.engine import Engine
from syftlite.engine.session import Role
from syftlite.errors import ConfigurationError, GetNotPermittedError, NotOwnerError, PolicyError
from syftlite.policy.rules import Policy, aggregate_only, allow, approve, dp, from_table, from_tables
from syftlite.policy.terms import Approval, Rate
from syftlite.storage.node_config import toml_reader
from syftlite.testing import Simulator
from syftlite.testing.peer import Peer
from syftlite.wire import messages as m

NUMBERS = itertools.count()
ROWS = torch.randn(60, 2, generator=torch.Generator().manual_seed(3))


class Scene:
    """A node with dataset icu under ``policy``, and carol, a scientist."""

    def __init__(self, policy):
        self.now = 1000.0
        self.simulator = Simulator(seed=0)
        self.name = f"clinic{next(NUMBERS)}"
        self.people = {}
        self.node = self.simulator.node(self.name)
        self.node.policies.clock = lambda: self.now
        self.node.load("icu", ROWS, ["#icu"], policy=policy)

    def who(self, name, role=Role.SCIENTIST):
        if name not in self.people:
            self.people[name] = self.simulator.worker(self.name, name, role=role)
        return self.people[name]


def refused(action):
    with pytest.raises(GetNotPermittedError) as caught:
        action()
    return str(caught.value)


def test_find_hides_as_if_it_were_not_there():
    scene = Scene(replace(aggregate_only(5), find=("dave",)))
    assert scene.who("carol").search("#icu") == scene.who("carol").search("#nothing") == []
    assert len(scene.who("dave").search("#icu")) == 1 and len(scene.who("boss", Role.OWNER).search("#icu")) == 1


def test_compute_names_who_may():
    scene = Scene(replace(aggregate_only(5), compute=("role:owner",)))
    (x,) = scene.who("carol").search("#icu")
    with pytest.raises(PolicyError, match=r"icu \(compute\) does not let carol"):
        x.mean(0).get()
    (x,) = Scene(aggregate_only(5)).who("carol").search("#icu")
    assert torch.allclose(x.mean(0).get(), ROWS.mean(0))


def test_ops_names_classes():
    scene = Scene(replace(aggregate_only(5), ops=("reduce",)))
    (x,) = scene.who("carol").search("#icu")
    assert torch.allclose(x.t().mean(1).get(), ROWS.mean(0))
    with pytest.raises(PolicyError, match="of operators, it allows reduce"):
        (x * 2).mean(0).get()


def test_release_names_who_may():
    scene = Scene(replace(aggregate_only(5), release=("dave",)))
    assert "to dave alone" in refused(scene.who("carol").search("#icu")[0].mean(0).get)
    assert scene.who("dave").search("#icu")[0].mean(0).get().shape == (2,)


def test_rate_and_expiry_follow_the_clock():
    scene = Scene(replace(aggregate_only(5), rate=Rate.parse("2/min"), expires=2000.0))
    (x,) = scene.who("carol").search("#icu")
    for _ in range(2):
        x.mean(0).get()
    refused(x.mean(0).get)
    scene.now += 61
    x.mean(0).get()
    scene.now = 2000.0
    with pytest.raises(PolicyError, match="expired"):
        x.sum(0).get()


@pytest.mark.parametrize(
    "ask", [lambda x: torch.equal(x, x), lambda x: (x > 3).nonzero(), lambda x: x[x > 3], lambda x: sy.dp.count(x[:, 0], epsilon=9.0).get()]
)
def test_a_rate_counts_answers_and_shapes_that_tell_of_values(ask):
    scene = Scene(replace(allow() | dp(100.0), rate=Rate.parse("2/min")))
    (x,) = scene.who("carol").search("#icu")
    for _ in range(2):
        ask(x)
    refused(lambda: ask(x))
    refused(x.get_copy)
    scene.now += 61
    ask(x)
    assert sum(event in ("released", "measured") for event, _ in scene.node.journal.events) == 3


def test_a_rate_counts_each_value_that_leaves_by_one_message():
    scene = Scene(replace(aggregate_only(5), rate=Rate.parse("5/min")))
    carol = scene.who("carol")
    (x,) = carol.search("#icu")
    kept = [x.mean(0), x.sum(0), x.sum(1).sum(0)]
    get = lambda pointers: carol.ask(m.GET, [p._handle.id for p in pointers], False, None)  # noqa: E731
    get(kept)
    refused(lambda: get(kept))
    get(kept[:2])
    refused(lambda: get(kept[:1]))
    assert len(scene.node.policies.history.times("icu", "carol")) == 5
    scene.now += 61
    get(kept)


def test_a_rate_counts_each_value_of_a_request(tmp_path):
    scene = Scene(replace(approve(), rate=Rate.parse("2/min")))
    carol, owner = scene.who("carol"), scene.who("boss", Role.OWNER)
    (x,) = carol.search("#icu")
    for count in (3, 2):
        _, _, release, *_ = carol.ask(m.FILE, [(x + i)._handle.id for i in range(count)], "why")
        owner.ask(m.DECIDE, release, True, "")
        if count == 3:
            refused(lambda release=release: carol.ask(m.TAKE, release))
    assert len(carol.ask(m.TAKE, release)[2]) == 2


def test_what_a_policy_needs_besides_its_rows_counts_towards_the_quota():
    """Of many rows of one byte each it is told which is which."""
    peer = Peer(Engine("full", max_bytes=1_000_000))
    rows, session = torch.zeros(10_000, dtype=torch.int8), peer.door.session
    for number, policy in enumerate((approve(), aggregate_only())):
        before = session.used
        peer.say((m.PUT, peer.id(2 * number), rows, (), ""))
        assert peer.say((m.PROTECT, 1, peer.id(2 * number), json.dumps(policy.tables())))[0][0] == m.DONE
        assert session.used - before == 17 * len(rows)
    peer.say((m.PUT, peer.id(9), torch.zeros(40_000, dtype=torch.int8), (), ""))
    before = session.used
    (answer,) = peer.say((m.PROTECT, 1, peer.id(9), json.dumps(aggregate_only().tables())))
    assert answer[0] == m.ERROR and "more bytes do not fit" in answer[3] and session.used == before
    assert session.objects[peer.id(9)][1].mark is None


def test_an_empty_policy_lets_nothing_go_and_a_name_without_one_neither():
    scene = Scene(Policy())
    assert "icu lets go nothing" in refused(scene.who("carol").search("#icu")[0].mean(0).get)
    assert scene.node.policies.of(["unknown"])["unknown"] == Policy()


def test_a_stricter_policy_holds_for_what_is_there():
    scene = Scene(aggregate_only(5))
    (x,) = scene.who("carol").search("#icu")
    mean = x.mean(0)
    mean.get_copy()
    scene.who("boss", Role.OWNER).set_policy("icu", aggregate_only(1000))
    refused(x.sum(0).get)
    with pytest.raises(NotOwnerError):
        scene.who("carol").set_policy("icu", allow())


def test_a_policy_that_asks_for_more_holds_for_what_is_made_from_then_on():
    scene = Scene(replace(approve(), unit=0))
    carol, boss = scene.who("carol"), scene.who("boss", Role.OWNER)
    (x,) = carol.search("#icu")
    before = x.mean(0)
    boss.set_policy("icu", aggregate_only(5))
    assert scene.node.policies.of(["icu"])["icu"].unit == 0, "whose a row is stays as it was"
    refused(before.get)
    x.mean(0).get()
    scene.node.load("map", ROWS, ["#map"])
    (row,) = carol.search("#map")
    boss.set_policy("map", approve())
    refused(row.get)


def test_every_source_must_agree():
    scene = Scene(aggregate_only(5))
    scene.node.load("ward", ROWS * 2, ["#ward"], policy=approve())
    carol = scene.who("carol")
    (x,), (y,) = carol.search("#icu"), carol.search("#ward")
    assert "ward lets go what its owner approved" in refused((x.mean(0) + y.mean(0)).get)


def test_refusals_that_tell_are_counted_and_end():
    scene = Scene(aggregate_only(5, probes=3))
    (x,) = scene.who("carol").search("#icu")
    for _ in range(10):
        refused(x[:3].sum(0).get)  # which rows are taken is public: it tells nothing
    x.mean(0).get()
    for _ in range(3):
        refused((x[:, 0] > float(ROWS[:, 0].sort().values[-3])).sum().get)
    refused(x.sum(0).get)
    scene.who("boss", Role.OWNER).forgive("icu")
    assert x.sum(0).get().shape == (2,)


def test_units_are_counted_not_rows():
    rows = torch.cat([ROWS, torch.arange(60).div(15, rounding_mode="floor")[:, None].float()], 1)
    scene = Scene(aggregate_only(5))
    scene.node.load("people", rows, ["#people"], policy=replace(aggregate_only(5), unit=2))
    scene.node.load("rows", rows, ["#rows"], policy=aggregate_only(5))
    carol = scene.who("carol")
    refused(carol.search("#people")[0][:, :2].mean(0).get)
    assert carol.search("#rows")[0][:, :2].mean(0).get().shape == (2,)


def test_private_tensors_keep_their_policy_here_and_there():
    x = ROWS.private(aggregate_only(5))
    for read in (lambda: float((x * 2).sum()), (x + x).numpy, x.tolist, lambda: bool((x > 0).any())):
        refused(read)
    bob = sy.VirtualWorker(id="rules bob")
    pointer = x.send(bob)
    assert torch.allclose(pointer.mean(0).get(user="carol"), ROWS.mean(0))
    refused(lambda: pointer[:2].sum(0).get(user="carol"))
    with pytest.raises(GetNotPermittedError, match="public tensor cannot hold"):
        torch.zeros(60, 2).copy_(x)
    assert repr(x).startswith("PrivateTensor") and str(ROWS[0, 0].item())[:6] not in repr(x)


def test_the_explanation_does_not_look_at_the_value():
    (x,) = Scene(aggregate_only(5)).who("carol").search("#icu")
    assert x.mean(0).explain_release() == x[:1].explain_release() == (x > 100).explain_release()


def test_combinations_mean_what_they_say_or_are_errors():
    both = aggregate_only(5) | approve()
    assert both.aggregate and both.approve and list((dp() & approve()).parts()) == [dp(), approve()]
    for wrong in (lambda: aggregate_only(5) | aggregate_only(6), lambda: allow("carol") | approve()):
        with pytest.raises(ConfigurationError):
            wrong()
    assert aggregate_only(10).strict(aggregate_only(5)) and not aggregate_only(5).strict(aggregate_only(10))
    assert (aggregate_only(5) & approve()).strict(approve()) and not both.strict(approve()) and Policy().strict(both)


def test_tables_say_the_same_again():
    for policy in (
        aggregate_only(7) | dp(1.0) | approve(2),
        allow("carol"),
        Policy(rate=Rate(3, 60.0), ops=("reduce",), unit=1),
        dp() & approve(),
    ):
        assert from_tables("icu", policy.tables()) == policy


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ({"aggregate": {"min_unit": 3}}, "min_unit is no term"),
        ({"aggregate": {"min_units": 1}}, "2 or more"),
        ({"aggregate": 5}, "is true, or a table"),
        ({"relase": ["a"]}, "relase is no rule"),
        ({"ops": ["magic"]}, "magic is no class"),
        ({"rate": "20 per h"}, "a rate is"),
        ({"expires": "tomorrow"}, "is a date"),
        ({"dp": {"epsilon": True}}, "is a number"),
    ],
)
def test_a_table_that_means_nothing_is_named(table, text):
    with pytest.raises(ConfigurationError, match=text):
        from_table("icu", table)


@pytest.mark.parametrize("field", ["find", "compute", "release", "share", "ops"])
def test_a_text_is_no_list_of_names_and_none_is_part_of_another(field):
    with pytest.raises(ConfigurationError, match=f"{field} is a list of texts"):
        Policy(free=True, **{field: "reduce"})
    with pytest.raises(ConfigurationError, match="list of texts"):
        allow(["carol", "dave"])
    assert Policy(**{field: ["reduce"]}) == Policy(**{field: ("reduce",)}) == Policy(**{field: {"reduce"}})
    assert not Policy(release=["carol"], free=True).permits("release", "c", "scientist")


def test_what_a_file_may_say_may_be_said_in_python():
    table = {"aggregate": True, "dp": {"epsilon": 2}, "approve": {"quorum": 2}, "rate": "20/h", "expires": date(2030, 1, 31)}
    assert Policy(**table) == from_table("icu", table) and Policy(**table).rate == Rate(20, 3600.0)
    for wrong in ({"approve": 3}, {"aggregate": 10}, {"dp": {"eps": 1}}, {"rate": "often"}, {"dp": {"per_user_epsilon": 0}}):
        with pytest.raises(ConfigurationError):
            Policy(**wrong)
    for wrong in ({"epsilon": math.inf}, {"per_user_epsilon": -1.0}, {"per_user_delta": 1.0}):
        with pytest.raises(ConfigurationError):
            dp(**wrong)
    with pytest.raises(ConfigurationError):
        Rate(5, 7200.0)


def test_what_lets_less_go_is_the_stricter_one():
    people = Policy(aggregate=aggregate_only().aggregate, unit="patient")
    orders = [
        (aggregate_only(), Policy(free=True)), (people, aggregate_only()), (allow("carol"), allow()),
        (Policy(release=["carol"], dp=True), Policy(release=["carol", "dave"], free=True)),
        (dp(4, 1e-6, 1.0), dp(4, 1e-6, 1.0, 1e-5)), (dp(4, 1e-6, 1.0, 1e-9), dp(4, 1e-6, 1.0)), (dp(4, 1e-6, 1.0), dp(4, 1e-6)),
        (Policy(rate="20/h"), Policy(rate="480/d")), (approve(2), approve()),
    ]  # fmt: skip
    for one, other in orders:
        assert one.strict(other) and not other.strict(one) and one.strict(one), (one, other)
    for one, other in ((people, replace(people, unit="visit")), (allow("carol"), allow("dave")), (dp(), approve())):
        assert not one.strict(other) and not other.strict(one), (one, other)


def test_a_policy_in_a_file_is_read_as_it_was():
    made = Policy(release=["O'Brien", 'a "b" \\', "Zoë"], unit="patient", ops=["reduce"], aggregate=True, dp=dp(2.0, 1e-7, 0.5).dp, rate="5/min")
    assert from_table("icu", toml_reader().loads(made.toml())) == made
    assert from_table("icu", toml_reader().loads(replace(made, unit=3).toml())) == replace(made, unit=3)


def test_quorum_is_stated():
    assert approve(2).approve == Approval(2)


def test_a_larger_quorum_holds_at_once_for_what_is_decided_and_for_what_is_fetched():
    scene = Scene(approve())
    (icu,) = scene.who("carol").search("#icu")
    early, late = icu.sum(0), icu.mean(0)
    asked = [value.request("study") for value in (early, late)]
    ann, bob = (scene.who(name, Role.OWNER) for name in ("ann", "bob"))
    ann.approve(asked[0].id)
    ann.set_policy("icu", approve(2))
    for fetch in (early.get, asked[0].get):
        refused(fetch)
    ann.approve(asked[1].id)
    assert asked[1].refresh() == "pending"
    refused(late.get)
    bob.approve(asked[1].id)
    assert late.get().shape == (2,)


def test_least_squares_and_its_gradient_leave_however_they_are_written():
    w = torch.tensor([[0.5]])
    residual = ROWS[:, :1] @ w - ROWS[:, 1:]
    loss, gradient = residual.square().mean(), 2 * ROWS[:, :1].T @ residual
    for squared in (lambda r: r**2, lambda r: r.pow(2), lambda r: r.square(), lambda r: r * r):
        (icu,) = Scene(aggregate_only(5)).who("carol").search("#icu")
        held = w.clone().requires_grad_().send(icu.location)
        remote = icu[:, :1] @ held - icu[:, 1:]
        squared(remote).sum().backward()
        torch.testing.assert_close(held.grad.get(), gradient)
        torch.testing.assert_close(squared(remote.detach()).mean().get(), loss)
    (icu,) = Scene(aggregate_only(5)).who("carol").search("#icu")
    for other in (lambda x: x**4, lambda x: x**-1, lambda x: (x**2) ** 2):
        refused(other(icu).sum(0).get)


def test_sums_of_products_leave_however_they_are_written_and_a_row_does_not():
    row = torch.eye(len(ROWS))[3]
    for product in (
        lambda x: torch.einsum("nd,ne->de", x, x), lambda x: torch.bmm(x.T[None], x[None]), lambda x: torch.vdot(x[:, 0], x[:, 1]),
        lambda x: torch.einsum("bnd,bne->bde", x.view(-1, 2, 1).transpose(0, 1), x.view(-1, 2, 1).transpose(0, 1)),
    ):  # fmt: skip
        (icu,) = Scene(aggregate_only(5)).who("carol").search("#icu")
        torch.testing.assert_close(product(icu).get(), product(ROWS))
    for product in (lambda x, w: torch.bmm(w[None, None], x[None]), lambda x, w: torch.vdot(w, x[:, 0]), lambda x, w: torch.einsum("n,nd->d", w, x)):
        (icu,) = Scene(aggregate_only(5)).who("carol").search("#icu")
        refused(product(icu, row.send(icu.location)).get)


LOSSES = {
    "a mean": lambda r: (r * r).mean(),
    "of columns' means": lambda r: r.square().mean(0).sum(),
    "its root": lambda r: r.square().mean().sqrt(),
    "linear": lambda r: r.mean(),
    "a sum of it": lambda r: r.sum(),
    "mse": lambda r: torch.nn.functional.mse_loss(r, torch.zeros_like(r)),
    "mean by hand": lambda r: r.square().sum() / len(r),
}


@pytest.mark.parametrize("read", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_a_mean_has_the_gradient_of_its_sum_over_a_public_count(name, read):
    (icu,) = Scene(aggregate_only(5)).who("carol").search("#icu")
    held, loss = torch.tensor([[0.5]]), LOSSES[name]
    w, there = held.clone().requires_grad_(), held.clone().requires_grad_().send(icu.location)
    loss(ROWS[:, :1] @ w - ROWS[:, 1:]).backward()
    remote = loss(icu[:, :1] @ there - icu[:, 1:])
    if read:  # what is known of it by then is known of what is made of it
        assert remote.get_copy().shape == ()
    remote.backward()
    torch.testing.assert_close(there.grad.get(), w.grad)


def _written(weights, row):
    weights[row].fill_(1.0)
    return weights


ALIKE = {
    "like a sum": lambda x: torch.ones_like(x.sum()).expand(60) * 1.0,
    "like rows": lambda x: torch.ones_like(x.sum(1)),
    "filled": lambda x: torch.full_like(x.sum(1), 0.5),
    "an aggregate": lambda x: x.square().mean().expand(60) / 7,
}
APART = {
    "written": lambda w, row, one: _written(w * 0, row),
    "added": lambda w, row, one: (w * 0).index_add_(0, row, one[:1]),
    "copied": lambda w, row, one: w.copy_(one),
    "multiplied": lambda w, row, one: w * one,
    "chosen": lambda w, row, one: torch.where(one > 0, w, w * 0),
    "counted": lambda w, row, one: w.cumsum(0),
    "told": lambda w, row, one: (w.cumsum(0) / w).round().eq(4).float(),
    "together": lambda w, row, one: torch.cat([w[:3] * 0, w[3:4], w[4:] * 0]),
    "drawn": lambda w, row, one: torch.rand_like(w),
    "each by itself": lambda w, row, one: torch._foreach_mul([w], [one])[0],
}


@pytest.mark.parametrize("apart", APART)
@pytest.mark.parametrize("alike", ALIKE)
def test_weights_that_were_all_alike_set_no_row_apart(alike, apart):
    (icu,) = Scene(aggregate_only(5)).who("carol").search("#icu")
    one = torch.zeros(60)
    one[3] = 1.0
    weights = ALIKE[alike](icu)
    assert (icu.T @ (weights * 1)).get().shape == (2,)
    weights = APART[apart](weights, torch.tensor([3]).send(icu.location), one.send(icu.location))
    refused((icu.T @ weights).get)
    refused((icu * weights[:, None]).sum(0).get)


@pytest.mark.parametrize(
    ("dataset", "policy", "why"),
    [
        ("icu", replace(aggregate_only(5), unit="nobody"), "no column 'nobody' for its unit; it has no names"),
        ("told", replace(aggregate_only(5), unit="nobody"), "no column 'nobody' for its unit; it has whose, what"),
        ("told", replace(aggregate_only(5), unit=7), "no column 7 for its unit"),
        ("told", replace(aggregate_only(5) & dp(), unit="nobody"), "no column 'nobody'"),
        ("open", None, "public"),
    ],
)
def test_what_cannot_be_a_datasets_policy_is_refused_before_it_is_on_record(dataset, policy, why):
    scene = Scene(aggregate_only(5))
    scene.node.load("told", ROWS, ["#told"], "columns: whose, what", policy=approve())
    scene.node.load("open", ROWS, ["#open"])
    noted, before = [], scene.node.policies.of(["icu", "told"])
    scene.node.journal.append = lambda *told: noted.append(told)
    boss = scene.who("boss", Role.OWNER)
    with pytest.raises(ConfigurationError, match=why):
        boss.forgive(dataset) if policy is None else boss.set_policy(dataset, policy)
    assert noted == [] and scene.node.policies.of(["icu", "told"]) == before


@pytest.mark.parametrize("policy", [aggregate_only(5), aggregate_only(5) & dp()])
def test_a_policy_that_is_set_names_its_unit_by_a_columns_name_or_number(policy):
    rows = torch.cat([torch.arange(60.0).div(2, rounding_mode="floor")[:, None], ROWS[:, :1]], 1)
    units = []
    for unit in ("whose", 0):
        scene = Scene(approve())
        scene.node.load("told", rows, ["#told"], "columns: whose, what", policy=approve())
        scene.who("boss", Role.OWNER).set_policy("told", replace(policy, unit=unit))
        units.append(scene.node.policies.of(["told"])["told"].unit)
        (x,) = scene.who("carol").search("#told")
        refused(x[:9].mean(0).get)  # of five people, one of them by half
    assert units == [0, 0]


@pytest.mark.parametrize("terms", [("a",), (None,), (1.0, "a"), (1.0, None), (1.0, 1e-6, "a"), ([1.0],)])
def test_a_budget_is_of_numbers(terms):
    with pytest.raises(ConfigurationError, match=r"is a number, not"):
        dp(*terms)
