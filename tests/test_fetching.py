"""Plans that one session sends and another fetches, and plans that owners publish."""

import pytest
import torch
from torch import nn

import syftlite as sy
from syftlite.engine.session import Principal, Role
from syftlite.errors import IdNotUniqueError, NotOwnerError, ObjectNotFoundError, PlanError, TensorsNotCollocatedError
from syftlite.remote import offers
from syftlite.remote.worker import BaseWorker
from syftlite.transports.memory import MemoryTransport, SerializingTransport


@pytest.fixture(params=[MemoryTransport, SerializingTransport], ids=["memory", "serialize"])
def session(request, alice):
    """Opens further sessions at alice's engine; their faces have ids of their own, since they are in one process."""
    faces = []

    def opened(name="me", role=Role.OWNER):
        faces.append(BaseWorker(f"{alice.id}-{len(faces)}", request.param(alice.engine, Principal(name, role))))
        return faces[-1]

    yield opened
    for face in faces:
        face.close()


def stateful():
    """A plan with state: x * w + 1."""
    w = torch.tensor([2.0, 3.0])

    @sy.func2plan(args_shape=[(2,)], state=(w,))
    def plan(x):
        return x * w + 1

    return plan, w


def test_a_program_of_pysyft_0_2(alice):
    """`local_worker.fetch_plan(id, location)`, then a call with local tensors."""
    plan, _ = stateful()
    plan.send(alice)
    fetched = sy.local_worker.fetch_plan(plan.id, alice)
    assert fetched.id == plan.id and fetched.is_built and "aten.mul" in fetched.code
    before = len(sy.local_worker._objects)
    assert torch.equal(fetched(torch.tensor([1.0, -1.0])), torch.tensor([3.0, -2.0]))
    assert torch.equal(fetched(torch.tensor([1.0, 0.0]).send(alice)).get(), torch.tensor([3.0, 1.0]))
    copied = sy.local_worker.fetch_plan(plan.id, alice.id, copy=True)
    assert torch.equal(copied(torch.tensor([1.0, -1.0])), torch.tensor([3.0, -2.0]))
    del fetched, copied
    assert len(sy.local_worker._objects) == before


def test_another_session_of_the_same_principal_fetches_and_runs_it(session):
    here, there = session("ann", Role.SCIENTIST), session("ann", Role.SCIENTIST)
    plan, _ = stateful()
    plan.send(here)
    fetched = there.fetch_plan(plan.id)
    x = torch.tensor([1.0, -1.0]).send(there)
    assert torch.equal(fetched(x).get(), torch.tensor([3.0, -2.0]))
    assert all(t.location is there and not t.garbage_collection for t in fetched.state)


def test_nobody_else_finds_it_and_nobody_after_its_session(session):
    here, same, other = session("ann", Role.SCIENTIST), session("ann", Role.SCIENTIST), session("eve", Role.SCIENTIST)
    plan, _ = stateful()
    plan.send(here)
    for worker, wanted in ((other, plan.id), (same, "plan-0"), (same, "")):
        with pytest.raises(ObjectNotFoundError, match=r"plan\.send.*publish_plan"):
            worker.fetch_plan(wanted)
    assert same.fetch_plan(plan.id).is_built
    fresh = session("ann", Role.SCIENTIST)
    here.close()
    with pytest.raises(ObjectNotFoundError):
        fresh.fetch_plan(plan.id)


def test_state_is_shared_or_copied(session):
    here, there = session("ann", Role.SCIENTIST), session("ann", Role.SCIENTIST)
    plan, _ = stateful()
    plan.send(here)
    shared, own = there.fetch_plan(plan.id), there.fetch_plan(plan.id, copy=True)
    (at_work,) = plan._placed.copies[here]
    at_work.zero_()
    x = torch.ones(2)
    assert torch.equal(shared(x.send(there)).get(), torch.ones(2)) and torch.equal(own(x.send(there)).get(), torch.tensor([3.0, 4.0]))
    assert torch.equal(shared(x), torch.ones(2)) and type(own.state[0]) is torch.Tensor
    assert torch.equal(there.fetch_plan(plan.id, copy=True).state[0], torch.zeros(2)), "a copy is of what the state is now"
    with pytest.raises(NotOwnerError):
        shared.state[0].add_(1)


def test_shared_state_is_not_where_the_inputs_are(session, bob):
    here, there = session(), session()
    plan, _ = stateful()
    plan.send(here)
    with pytest.raises(TensorsNotCollocatedError, match="state is at"):
        there.fetch_plan(plan.id)(torch.ones(2).send(bob))
    assert torch.equal(there.fetch_plan(plan.id, copy=True)(torch.ones(2).send(bob)).get(), torch.tensor([3.0, 4.0]))


def test_a_training_plan_goes_on_from_where_it_is(session):
    here, there = session("ann", Role.SCIENTIST), session("ann", Role.SCIENTIST)
    torch.manual_seed(1)
    model = nn.Linear(2, 1).send(here)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)

    @sy.func2plan(state=(model, optimizer))
    def step(x, y):
        optimizer.zero_grad()
        loss = (model(x) - y).pow(2).mean()
        loss.backward()
        optimizer.step()
        return loss

    x, y = torch.randn(8, 2), torch.randn(8, 1)
    inputs = x.send(here), y.send(here)
    for _ in range(3):
        step(*inputs)
    step.send(here)
    fetched = there.fetch_plan(step.id, copy=True)
    theirs = [fetched(x.send(there), y.send(there)).item() for _ in range(3)]
    ours = [step(*inputs).item() for _ in range(3)]
    assert theirs == pytest.approx(ours, rel=1e-5) and theirs[2] < theirs[0]
    assert fetched.get().state[0].shape == (1, 2) and not isinstance(fetched.state[0], sy.PointerTensor)


def test_nested_arguments_and_results(session):
    here, there = session(), session()

    @sy.func2plan()
    def f(batch, scale):
        return {"sum": batch["x"].sum(), "both": [batch["x"] * scale, batch["y"][0]]}

    batch = {"x": torch.ones(2), "y": (torch.zeros(3),)}
    f.build(batch, 2.0).send(here)
    out = there.fetch_plan(f.id)(batch, 2.0)
    assert out["sum"] == 2 and torch.equal(out["both"][0], torch.full((2,), 2.0)) and torch.equal(out["both"][1], torch.zeros(3))


def test_what_was_not_recorded_cannot_be_made_up(session):
    plan, _ = stateful()
    plan.send(session())
    fetched = session().fetch_plan(plan.id, copy=True)
    with pytest.raises(PlanError, match=r"fetched without its function, for inputs float32\[2\]"):
        fetched(torch.ones(3))
    with pytest.raises(PlanError, match="given none"):
        fetched()


def test_a_plan_that_no_file_holds_runs_and_is_not_offered(alice):
    import collections

    Pair = collections.namedtuple("Pair", "a b")

    @sy.func2plan()
    def f(pair):
        return pair.a + pair.b

    given = Pair(torch.ones(1), torch.ones(1))
    f.build(given).send(alice)
    assert f(Pair(given.a.send(alice), given.b.send(alice))).item() == 2
    with pytest.raises(ObjectNotFoundError):
        alice.fetch_plan(f.id)


def test_sending_again_offers_it_as_it_is_now_and_get_withdraws_it(alice):
    plan, w = stateful()
    plan.send(alice)
    plan.build(torch.ones(3, 2)).send(alice)
    assert torch.equal(alice.fetch_plan(plan.id)(torch.ones(3, 2)), torch.tensor([3.0, 4.0]).expand(3, 2))
    plan.get()
    with pytest.raises(ObjectNotFoundError):
        alice.fetch_plan(plan.id)


def test_ids_of_plans_of_two_processes_do_not_meet():
    ids = {stateful()[0].id for _ in range(50)}
    assert len(ids) == 50 and all(len(i) == len("plan-") + 12 for i in ids)


# -- published


def test_the_owner_publishes_a_plan_for_everyone(session):
    owner, ann = session("owner", Role.OWNER), session("ann", Role.SCIENTIST)
    plan, w = stateful()
    owner.publish_plan(plan, "#scorer")
    w.zero_()
    for wanted in (plan.id, "#scorer"):
        fetched = ann.fetch_plan(wanted)
        assert torch.equal(fetched(torch.ones(2)), torch.tensor([3.0, 4.0])), "with the state that it was published with"
        assert torch.equal(fetched(torch.ones(2).send(ann)).get(), torch.tensor([3.0, 4.0]))
    owner.close()
    assert ann.fetch_plan("#scorer").is_built
    with pytest.raises(NotOwnerError):
        ann.publish_plan(plan)


def test_two_plans_of_one_tag_are_fetched_by_id(session):
    owner, ann = session("owner", Role.OWNER), session("ann", Role.SCIENTIST)
    plans = [stateful()[0] for _ in range(2)]
    for plan in plans:
        owner.publish_plan(plan, "#scorer")
    with pytest.raises(IdNotUniqueError, match="2 plans.*by its id"):
        ann.fetch_plan("#scorer")
    assert ann.fetch_plan(plans[1].id).id == plans[1].id


def test_it_runs_on_private_data_and_tells_nothing(session):
    owner, ann = session("owner", Role.OWNER), session("ann", Role.SCIENTIST)
    plan, _ = stateful()
    owner.publish_plan(plan, "#scorer")
    owner.store(torch.tensor([7.0, 8.0]), "#secret", name="secret", private=True)
    (secret,) = ann.search("#secret")
    result = ann.fetch_plan("#scorer")(secret)
    with pytest.raises(sy.errors.GetNotPermittedError):
        result.get()


@pytest.mark.parametrize("raw", [b"", b"\x01", b"\x00\x00\x00\x00\x00", b"\x01\xff\xff\xff\xff", b"\x00\x00\x00\x00\x00syftplan\xff\xff\xff\xff"])
def test_what_only_looks_like_an_offer_is_refused(alice, raw):
    alice.load(torch.frombuffer(bytearray(raw), dtype=torch.uint8) if raw else torch.zeros(0, dtype=torch.uint8), offers.TAG, "#fake")
    with pytest.raises(PlanError):
        alice.fetch_plan("#fake")


def test_an_offer_whose_state_is_gone_says_so(alice):
    plan, _ = stateful()
    plan.send(alice)
    plan._placed.copies.clear()
    with pytest.raises(ObjectNotFoundError, match=r"state of .* is gone"):
        alice.fetch_plan(plan.id)


def test_over_sockets_an_owner_publishes_and_a_scientist_fetches():
    cluster = sy.LocalCluster("fetching-node", threads=1)
    try:
        (ann,) = cluster.start()
        plan, _ = stateful()
        plan.send(ann)
        assert torch.equal(ann.fetch_plan(plan.id)(torch.ones(2).send(ann)).get(), torch.tensor([3.0, 4.0]))
        ann.close()
        owner = cluster.connect("fetching-node", "owner")
        owner.publish_plan(plan, "#scorer")
        owner.close()
        ann = cluster.connect("fetching-node")
        with pytest.raises(ObjectNotFoundError):
            ann.fetch_plan("#another")
        fetched = ann.fetch_plan("#scorer")
        assert torch.equal(fetched(torch.ones(2).send(ann)).get(), torch.tensor([3.0, 4.0]))
        assert torch.equal(fetched(torch.ones(2)), torch.tensor([3.0, 4.0]))
        ann.close()
    finally:
        cluster.stop()
