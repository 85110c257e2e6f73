"""Private answers at a worker: who may have them, what they cost, and that nothing else tells of a row."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import count

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import syftlite as sy
from syftlite.dp import mechanisms
from syftlite.dp.ledger import Ledger
from syftlite.engine import measuring
from syftlite.engine.engine import Engine
from syftlite.engine.session import Principal, Role
from syftlite.errors import BudgetExceededError, ConfigurationError, GetNotPermittedError, PlanError
from syftlite.policy import rules
from syftlite.remote import registry
from syftlite.remote.worker import BaseWorker
from syftlite.transports.memory import MemoryTransport, SerializingTransport

number = count()
X = torch.linspace(0, 10, 500)


def guest(policy, tensor=X, wire=False, name="ages", **options) -> tuple[torch.Tensor, Engine]:
    """A scientist's pointer to the dataset, at an owner's engine."""
    engine = Engine(f"owner{next(number)}", **options)
    engine.load(name, tensor, ["#data"], policy=policy)
    return ask(engine, wire), engine


def ask(engine: Engine, wire=False, who="ann") -> torch.Tensor:
    kind = SerializingTransport if wire else MemoryTransport
    registry.known.pop(engine.name, None)
    worker = BaseWorker(engine.name, kind(engine, Principal(who, Role.SCIENTIST)))
    return worker.search("#data")[0]


@pytest.mark.parametrize("wire", [False, True], ids=["memory", "serialize"])
def test_every_question(wire):
    def near(ask, right, within=0.5):
        x, _ = guest(rules.dp(epsilon=30.0), wire=wire)
        assert abs(float(ask(x).get()) - right) < within

    near(lambda x: sy.dp.count(x, epsilon=20), 500, 2)
    near(lambda x: sy.dp.sum(x, bounds=(0, 10), epsilon=20), 2500, 15)
    near(lambda x: sy.dp.mean(x, bounds=(0, 10), epsilon=20), 5)
    near(lambda x: sy.dp.mean(x, epsilon=20), 5)
    near(lambda x: sy.dp.variance(x, bounds=(0, 10), epsilon=20, delta=1e-9), float(X.var()))
    near(lambda x: sy.dp.quantile(x, 0.9, bounds=(0, 10), epsilon=20), 9)
    near(lambda x: sy.dp.count(x > 5, epsilon=20), 250, 2)
    near(lambda x: sy.dp.mean((x * 2).exp().log(), bounds=(0, 20), epsilon=20), 10)  # any function of a row, then asked about
    bins = sy.dp.histogram(guest(rules.dp(epsilon=30.0), wire=wire)[0], edges=range(0, 12, 2), epsilon=20).get()
    assert bins.shape == (5,) and abs(float(bins.sum()) - 500) < 4


def test_what_is_made_of_an_answer_may_leave_too():
    x, _ = guest(rules.dp(epsilon=10.0))
    noised = sy.dp.sum(x, bounds=(0, 10), epsilon=1) / sy.dp.count(x, epsilon=1)
    assert 3 < float(noised.get_copy()) < 7
    with pytest.raises(GetNotPermittedError):
        (noised + x.sum()).get()


@pytest.mark.parametrize("noise", [1e-5, 1e-150, 1e-162, 1e-200, 5e-324])
@pytest.mark.parametrize("batch_size", [None, 250, 499.999])
def test_a_step_with_next_to_no_noise_fits_no_budget(noise, batch_size):
    x, _ = guest(rules.dp(epsilon=100.0), torch.rand(500, 2))
    model = nn.Linear(2, 1).send(x.location)
    optimizer = sy.dp.DPOptimizer(torch.optim.SGD(model.parameters(), lr=1.0), l2_norm_clip=1.0, noise_multiplier=noise, batch_size=batch_size)
    with pytest.raises(BudgetExceededError):
        optimizer.step(lambda row: model(row).sum(), x)
    assert sy.dp.budget(x)[0].spent == 0


@pytest.mark.parametrize("delta", [0.0, 5e-324, 1e-310, 1e-300])
def test_a_budget_of_next_to_no_delta_is_one_of_none(delta):
    x, _ = guest(rules.dp(epsilon=0.5, delta=delta, per_user_epsilon=0.5, per_user_delta=delta))
    assert 300 < float(sy.dp.count(x, epsilon=0.5).get()) < 700
    assert [standing.spent for standing in sy.dp.budget(x)] == [0.5, 0.5]
    with pytest.raises(BudgetExceededError):
        sy.dp.count(x, epsilon=0.1)


def test_what_fails_for_some_values_gives_no_rows_whether_it_fails_or_not():
    """A question that costs more than there is would tell the two apart for nothing, and so bit by bit how large the largest value is."""
    x, _ = guest(rules.dp(epsilon=1.0))
    for scale in (1.0, 1e30):
        with pytest.raises(GetNotPermittedError, match="about rows"):
            sy.dp.count((x * scale).fix_precision().child, epsilon=1e6)


def test_rows_that_were_other_units_are_no_rows_under_a_new_policy():
    """All rows are one person's, as the owner says later: noise for one row would not cover the person."""
    x, engine = guest(rules.dp(epsilon=100.0), torch.ones(200, 2))
    before = x[:, 1] * 1
    owner = BaseWorker("owner", MemoryTransport(engine, Principal("owner", Role.OWNER)))
    owner.set_policy("ages", replace(rules.dp(epsilon=100.0), unit=0))
    with pytest.raises(GetNotPermittedError, match="about rows"):
        sy.dp.sum(before, bounds=(0, 1), epsilon=1.0)
    assert math.isfinite(float(sy.dp.sum(x[:, 1] * 1, bounds=(0, 1), epsilon=1.0).get()))
    owner.close()


def test_the_budget_is_seen_and_ends():
    x, engine = guest(rules.dp(epsilon=1.0, per_user_epsilon=0.5))
    everybody, ann = sy.dp.budget(x)
    assert (everybody.account.epsilon, ann.account.epsilon, ann.account.user) == (1.0, 0.5, "ann")
    assert "1 left of epsilon 1" in str(everybody)
    sy.dp.count(x, epsilon=0.4)
    assert sy.dp.budget(x)[1].left == pytest.approx(0.1, abs=0.02)
    with pytest.raises(BudgetExceededError, match=r"ages for ann: 0\.\d+ left of epsilon 0.5"):
        sy.dp.count(x, epsilon=0.4)
    y = ask(engine, who="bea")
    sy.dp.count(y, epsilon=0.4)
    with pytest.raises(BudgetExceededError, match="ages: "):
        sy.dp.count(ask(engine, who="cid"), epsilon=0.4)


def test_a_question_asked_again_by_its_name_is_free_and_answered_alike():
    x, engine = guest(rules.dp(epsilon=1.0))
    first = sy.dp.count(x, epsilon=0.5, request="monday").get()
    for _ in range(5):
        assert torch.equal(sy.dp.count(x, epsilon=0.5, request="monday").get(), first)
    assert torch.equal(sy.dp.count(ask(engine), epsilon=0.5, request="monday").get(), first)  # from another session too
    assert sy.dp.budget(x)[0].spent == pytest.approx(0.5, rel=0.02)
    with pytest.raises(ConfigurationError, match="another question"):
        sy.dp.count(x, epsilon=0.4, request="monday")


@pytest.mark.parametrize("combined", [
    lambda rows, people: rows & people, lambda rows, people: people & rows, lambda rows, people: rows & (rows & people),
    lambda rows, people: replace(rows, also=(people,)),
])  # fmt: skip
def test_whose_rows_are_is_heeded_in_whichever_part_of_a_policy_it_stands(combined):
    rows = torch.stack([torch.arange(200.0) // 10, torch.rand(200)], 1)
    every = rules.dp(epsilon=1000.0)
    x, engine = guest(combined(every, replace(every, unit=0)), rows)
    answers = torch.stack([sy.dp.count(x[:, 1], epsilon=1.0).get() for _ in range(40)])
    assert answers.std() > 5  # 14; a row alone would have 1.4
    with pytest.raises(ConfigurationError, match="different units"):
        replace(every, unit=0) & replace(every, unit=1)
    assert engine.policies.inherited(["ages"]).unit is None


def test_by_its_name_one_question_is_answered_alone_about_the_rows_it_was_asked_about():
    x, engine = guest(rules.dp(epsilon=20.0), torch.stack([X, X + 5], 1))
    factor = torch.tensor([1.0, 2.0])

    def mean(rows, column):
        rows.exp()  # what else a session does is no part of it
        return sy.dp.mean(rows[:, column], bounds=(0, 15), epsilon=1, request="mean")

    def mapped(rows, factor, plan=lambda row, factor: (row * factor).sum()):
        return sy.dp.map_sum(plan, rows, factor.send(rows.location), clip=40.0, noise_multiplier=1.0, request="sum")

    first = mean(x, 0).get(), mapped(x, factor).get()
    y = ask(engine)
    assert torch.equal(mean(y, 0).get(), first[0]) and torch.equal(mapped(y, factor).get(), first[1])
    others = (
        lambda: mean(y, 1), lambda: mapped(y, factor * 2), lambda: mapped(y * 2, factor), lambda: mapped(y, factor, lambda row, f: row.sum()),
    )  # fmt: skip
    for other in others:
        with pytest.raises(ConfigurationError, match="another question"):
            other()


def test_a_refusal_that_noise_decided_is_not_drawn_again_under_one_charge(monkeypatch):
    x, engine = guest(rules.dp(epsilon=1.0), torch.arange(20.0))
    real, drawn = mechanisms.estimated_bounds, []
    monkeypatch.setattr(mechanisms, "estimated_bounds", lambda *given: drawn.append(1) or real(*given))
    for _ in range(3):
        with pytest.raises(ConfigurationError, match="could not be estimated"):
            sy.dp.mean(x, epsilon=0.01, request="again")
    assert len(drawn) == 1 and sy.dp.budget(x)[0].spent == pytest.approx(0.01, rel=0.3)
    monkeypatch.setattr(Ledger, "commit", lambda self, key, result: self.abandon(key))
    for _ in range(3):
        with pytest.raises(ConfigurationError, match="could not be estimated"):
            sy.dp.mean(x, epsilon=0.01, request="unkept")
    assert len(drawn) == 4, "who does not keep it draws again"


def test_a_rate_holds_for_questions_at_the_same_time(monkeypatch):
    """Another one is answered while the first is charged: that one is told later, under the same charge."""
    now = [1000.0]
    x, engine = guest(replace(rules.dp(epsilon=9.0), rate="1/h"), clock=lambda: now[0])
    y, real = ask(engine), Ledger.reserve

    def meanwhile(*given):
        monkeypatch.setattr(Ledger, "reserve", real)
        sy.dp.count(y, epsilon=1.0)
        return real(*given)

    monkeypatch.setattr(Ledger, "reserve", meanwhile)
    with pytest.raises(GetNotPermittedError):
        sy.dp.count(x, epsilon=1.0, request="mine")
    now[0] += 3601
    spent = sy.dp.budget(x)[0].spent
    assert sy.dp.count(x, epsilon=1.0, request="mine").get() > 400
    now[0] += 3601
    assert sy.dp.budget(x)[0].spent == spent


def test_costs_do_not_depend_on_values():
    spent = set()
    for tensor in (X, X * 0, X + math.nan):
        x, _ = guest(rules.dp(epsilon=5.0), tensor)
        sy.dp.mean(x, bounds=(0, 1), epsilon=1, delta=1e-9)
        spent.add(sy.dp.budget(x)[0].spent)
    assert len(spent) == 1


@pytest.mark.parametrize(
    "mixed",
    [
        lambda x: x - x.mean(),
        lambda x: x.sort()[0],
        lambda x: x.flip(0).cumsum(0),
        lambda x: x.roll(1) * x,
        lambda x: x.max().expand(500),
        lambda x: torch.cat([x[:1]] * 500),
    ],
)
def test_what_mixes_rows_is_no_row(mixed):
    x, _ = guest(rules.dp(epsilon=5.0) | rules.aggregate_only())
    try:
        made = mixed(x)
    except RuntimeError:
        return
    if made.shape == x.shape:
        try:
            sy.dp.sum(made, bounds=(0, 1), epsilon=1)
        except GetNotPermittedError:
            return
        spent = sy.dp.budget(x)[0]
        assert spent.spent > 0  # only the same row many times may pass, with noise for all of them
        assert "cat" in mixed.__code__.co_names


@pytest.mark.parametrize("policy", [rules.approve(), rules.aggregate_only()])
def test_other_policies_have_no_such_way(policy):
    x, _ = guest(policy)
    with pytest.raises(GetNotPermittedError):
        sy.dp.count(x, epsilon=0.1)
    with pytest.raises(GetNotPermittedError):
        sy.dp.map_sum(lambda row: row, x, clip=1, noise_multiplier=1)


def test_several_rows_of_a_unit_get_noise_for_all_of_them():
    table = torch.stack([torch.arange(300) // 3, torch.ones(300)], 1)
    from dataclasses import replace

    x, _ = guest(replace(rules.dp(epsilon=1e6), unit=0), table)
    answers = torch.tensor([float(sy.dp.count(x[:, 1], epsilon=1.0).get()) for _ in range(300)])
    assert 2.3 < float((answers - 300).abs().mean()) < 3.8  # discrete Laplace of scale 3
    with pytest.raises(ConfigurationError, match="several rows"):
        optimizer, loss = learner(x, batch_size=10)
        optimizer.step(loss, x, x[:, 1].long())


def rotated(x, times):
    """The rows of ``x`` in so many orders, side by side: each is at as many places."""
    return [x.index_select(0, torch.arange(len(x)).roll(j).send(x.location)) for j in range(times)]


@pytest.mark.parametrize("unit", [None, 0])
def test_a_unit_whose_rows_are_at_several_places_gets_noise_for_all_of_them(unit, monkeypatch):
    """One row comes in several operands at other places, so it is in as many of the rows that are mapped."""
    seen = []
    monkeypatch.setattr(measuring, "run", lambda session, mapped, shapes: seen.append(mapped.rows_per_unit) or [torch.zeros(1)])
    table = torch.stack([torch.arange(30) // 2, torch.randn(30)], 1)
    x, _ = guest(rules.Policy(dp=rules.Budget(1e9), unit=unit), table)
    weight = nn.Parameter(torch.zeros(1)).send(x.location)
    optimizer = sy.dp.DPOptimizer(torch.optim.SGD([weight], lr=1.0), l2_norm_clip=1.0, noise_multiplier=1.0)
    optimizer.step(lambda *rows: (weight * sum(row.sum() for row in rows)).sum(), x[:, 1:], x[:, :1], *rotated(x, 5))
    assert seen == [5 if unit is None else 6], "a unit of two rows that follow each other is at one place more"


def test_a_sample_of_rows_that_are_at_several_places_is_none_of_units():
    x, _ = guest(rules.dp(epsilon=1e9), torch.randn(30, 2))
    weight = nn.Parameter(torch.zeros(1)).send(x.location)
    optimizer = sy.dp.DPOptimizer(torch.optim.SGD([weight], lr=1.0), l2_norm_clip=1.0, noise_multiplier=1.0, batch_size=10)
    with pytest.raises(ConfigurationError, match="none of units"):
        optimizer.step(lambda a, b: (weight * (a + b)).sum(), *rotated(x, 2))


def test_answers_are_kept_for_one_principal_whatever_its_name():
    engine = Engine(f"owner{next(number)}")
    engine.load("ages", X, ["#data"], policy=rules.dp(epsilon=10.0))
    answers = [sy.dp.count(ask(engine, who=who), epsilon=1.0, request=key).get() for who, key in (("a/b", "c"), ("a", "b/c"))]
    assert sy.dp.budget(ask(engine))[0].spent > 1.2 and len(answers) == 2, "each was charged"


def test_public_data_costs_nothing(bob):
    x = X.send(bob)
    assert abs(float(sy.dp.mean(x, bounds=(0, 10), epsilon=1.0).get()) - 5) < 1
    assert sy.dp.budget(x) == []


# -- any function of a row


@pytest.mark.parametrize("wire", [False, True], ids=["memory", "serialize"])
def test_a_mapped_sum(wire):
    table = torch.randn(300, 4)
    x, _ = guest(rules.dp(epsilon=1e6), table, wire)
    weight = torch.randn(4).send(x.location)
    outer, dot = sy.dp.map_sum(lambda row, w: (torch.outer(row, row), (row * w).sum()), x, weight, clip=100.0, noise_multiplier=1e-3)
    torch.testing.assert_close(outer.get().float(), table.T @ table, atol=1.0, rtol=0)
    assert dot.get().shape == ()


def test_no_row_counts_for_more_than_the_clip():
    table = torch.zeros(50, 2)
    table[7] = torch.tensor([3e8, 4e8])
    x, _ = guest(rules.dp(epsilon=1e6), table)
    total = sy.dp.map_sum(lambda row: row, x, clip=5.0, noise_multiplier=1e-3).get()
    torch.testing.assert_close(total, torch.tensor([3.0, 4.0], dtype=torch.float64), atol=0.1, rtol=0)


def test_a_row_cannot_reach_another_one():
    """A plan sees one row: what would mix rows has none to mix with."""
    x, _ = guest(rules.dp(epsilon=1e6), torch.arange(20.0).view(10, 2))
    total = sy.dp.map_sum(lambda row: row - row.mean(0), x, clip=100.0, noise_multiplier=1e-3).get()
    torch.testing.assert_close(total, torch.tensor([-5.0, 5.0], dtype=torch.float64), atol=0.5, rtol=0)


def test_a_row_that_fails_counts_as_zero_and_tells_nobody():
    rows = torch.tensor([0, 1, 99, 2, -7, 1])
    table = torch.tensor([[1.0], [10.0], [100.0]])
    x, _ = guest(rules.dp(epsilon=1e6), rows)
    there = table.send(x.location)
    total = sy.dp.map_sum(lambda row, t: F.embedding(row, t), x, there, clip=100.0, noise_multiplier=1e-3).get()
    assert float(total) == pytest.approx(121, abs=1)


def test_a_plan_that_cannot_be_mapped_fails_before_it_costs():
    x, _ = guest(rules.dp(epsilon=1.0), torch.randn(20, 3))
    private = x[:, 0]
    with pytest.raises(PlanError, match="public"):
        sy.dp.map_sum(lambda row, other: row + other.sum(), x, private, clip=1.0, noise_multiplier=10.0)
    assert sy.dp.budget(x)[0].spent == 0


def learner(x, batch_size=None, noise=1.0):
    model = nn.Sequential(nn.Linear(x.shape[1], 8), nn.Tanh(), nn.Linear(8, 2)).send(x.location)
    optimizer = sy.dp.DPOptimizer(torch.optim.SGD(model.parameters(), lr=0.5), l2_norm_clip=1.0, noise_multiplier=noise, batch_size=batch_size)
    return optimizer, lambda x, y: F.cross_entropy(model(x), y)


def test_training_a_model_where_the_data_is():
    inputs = torch.randn(400, 5)
    x, engine = guest(rules.dp(epsilon=50.0, delta=1e-5), inputs)
    engine.load("labels", (inputs.sum(1) > 0).long(), ["#labels"], policy=rules.dp(epsilon=50.0, delta=1e-5))
    y = x.location.search("#labels")[0]
    model = nn.Linear(5, 2).send(x.location)
    optimizer = sy.dp.DPOptimizer(torch.optim.SGD(model.parameters(), lr=0.5), l2_norm_clip=1.0, noise_multiplier=1.0, batch_size=100)
    for _ in range(30):
        optimizer.step(lambda x, y: F.cross_entropy(model(x), y), x, y)
    spent = sy.dp.budget(x)[0].spent
    assert optimizer.epsilon(1e-5) <= spent < optimizer.epsilon(1e-5) * 1.3
    model = model.get()  # what private answers made may leave
    assert float((model(inputs).argmax(1) == (inputs.sum(1) > 0)).double().mean()) > 0.8


def test_training_stops_with_the_budget():
    x, _ = guest(rules.dp(epsilon=1.0, delta=1e-5), torch.randn(100, 3))
    optimizer, loss = learner(x)
    with pytest.raises(BudgetExceededError, match="left of epsilon"):
        for _ in range(30):
            optimizer.step(lambda x: loss(x, torch.zeros(1, dtype=torch.long).send(x.location)), x)


def test_gradients_are_those_of_a_local_step():
    """With hardly any noise, the remote step is the local one: the same clip, the same sum."""
    inputs, labels = torch.randn(60, 3), torch.randint(0, 2, (60,))
    x, engine = guest(rules.dp(epsilon=1e9), inputs)
    engine.load("labels", labels, ["#labels"], policy=rules.dp(epsilon=1e9))
    models = [nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    models[1].send(x.location)
    for model, data in ((models[0], (inputs, labels)), (models[1], (x, x.location.search("#labels")[0]))):
        optimizer = sy.dp.DPOptimizer(torch.optim.SGD(model.parameters(), lr=1.0), l2_norm_clip=0.1, noise_multiplier=1e-4)
        optimizer.step(lambda x, y, model=model: F.cross_entropy(model(x), y), *data)
    for ours, theirs in zip(models[0].parameters(), models[1].get().parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
