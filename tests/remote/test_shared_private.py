"""Shares of PRIVATE data: they compute in the groups that the policy names, and the value passes its owner's gate."""

from dataclasses import replace

import pytest
import torch

import syftlite as sy
from syftlite.engine import holder
from syftlite.errors import ApprovalRequiredError, GetNotPermittedError, PolicyError, SendNotPermittedError
from syftlite.policy.rules import approve
from syftlite.storage.tokens import discover
from syftlite.transports.client import SocketTransport
from syftlite.wire.messages import SYNC

VALUES = torch.arange(-3, 3)


def connect(node, role):
    return sy.BaseWorker(f"to {node.id} as {role}", SocketTransport(node.uri, discover("127.0.0.1", node.port, role)))


class Scene:
    """Nodes clinic, whose dataset scores is PRIVATE, bob and dealer, which clinic knows, and eve, which it does not; and a scientist."""

    def __init__(self, folder):
        self.nodes = {name: sy.WebsocketServerWorker(id=f"shares {name}", port=0) for name in ("bob", "dealer", "eve")}
        known = {name: self.nodes[name].public_key for name in ("bob", "dealer")}
        self.clinic = self.nodes["clinic"] = sy.WebsocketServerWorker(id="shares clinic", port=0, registered=known, folder=folder)
        self.clinic.load(VALUES, "#scores", name="scores", policy=replace(approve(), share=("bob", "dealer")))
        self.clinic.load(VALUES, "#kept", name="kept", private=True)
        narrow = replace(approve(), share=("bob", "dealer"), ops=("elementwise",))
        self.clinic.load(VALUES, "#narrow", name="narrow", policy=narrow)
        self.workers = {}
        for name, node in self.nodes.items():
            node.start(wait=False)
            self.workers[name] = connect(node, "scientist")
        self.owner = connect(self.clinic, "owner")

    def shared(self, *holders, provider="dealer", tag="#scores"):
        (x,) = self.workers["clinic"].search(tag)
        return x.share(*[self.workers[name] for name in holders], crypto_provider=self.workers[provider]).get()

    def close(self):
        for worker in (*self.workers.values(), self.owner):
            worker.close()
        for node in self.nodes.values():
            node.close()


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SYFTLITE_HOME", str(tmp_path_factory.mktemp("home")))
        made = Scene(tmp_path_factory.mktemp("clinic"))
        yield made
        made.close()


def test_shares_of_private_data_compute_and_reach_nobody_without_approval(scene):
    x = scene.shared("clinic", "bob")
    y = (x * x + x).sum()
    with pytest.raises(GetNotPermittedError, match="scores"):
        y.get()
    with pytest.raises(GetNotPermittedError, match="re-randomised"):
        y.shares[0].get()
    with pytest.raises(ApprovalRequiredError) as caught:
        y.get(reason="a sum of squares")
    request = caught.value.request
    with pytest.raises(GetNotPermittedError):
        request.get()
    (asked,) = [r for r in scene.owner.requests() if r.id == request.requests[0].id]
    assert asked.reason == "a sum of squares"
    scene.owner.approve(asked.id)
    assert request.get().item() == int((VALUES * VALUES + VALUES).sum())
    with pytest.raises(GetNotPermittedError):
        y.get()


def test_layers_ask_for_what_is_inside_them_and_get_it_back_as_theirs(scene):
    (x,) = scene.workers["clinic"].search("#scores")
    y = x.fix_precision().share(scene.workers["clinic"], scene.workers["bob"], crypto_provider=scene.workers["dealer"]).get() * 0.5
    assert "scores: lets go" in y.explain_release() and "public" not in y.explain_release()
    with pytest.raises(ApprovalRequiredError) as caught:
        y.get(reason="halves")
    for request in (caught.value.request, y.request("once more")):
        scene.owner.approve(request.requests[0].id)
        assert request.get().float_precision().tolist() == [v / 2 for v in VALUES.tolist()]
    with pytest.raises(ApprovalRequiredError) as caught:
        (x.fix_precision() + 1).get(reason="one more")
    assert caught.value.request.refresh() == "pending"
    scene.owner.approve(caught.value.request)
    assert caught.value.request.get().float_precision().tolist() == [v + 1.0 for v in VALUES.tolist()]


@pytest.mark.parametrize(("holders", "provider"), [(("clinic", "eve"), "dealer"), (("clinic", "bob"), "eve")])
def test_they_take_part_in_no_group_with_a_stranger(scene, holders, provider):
    x = scene.shared(*holders, provider=provider)
    with pytest.raises(SendNotPermittedError, match="known here by their keys"):
        (x * x).get()


def test_without_that_check_they_would(scene, monkeypatch):
    monkeypatch.setattr(holder.Holder, "_may_compute", lambda *given: None)
    x = scene.shared("clinic", "eve")
    with pytest.raises(GetNotPermittedError):
        (x * x).get()


def test_kernels_are_of_classes_that_a_policy_may_leave_out(scene):
    x = scene.shared("clinic", "bob", tag="#narrow")
    with pytest.raises(GetNotPermittedError, match="narrow"):
        (x * x).get()
    for refused in (lambda x: x.view(2, 3) @ x.view(3, 2), lambda x: x.max()):
        x = scene.shared("clinic", "bob", tag="#narrow")
        with pytest.raises(PolicyError, match=r"the policy of narrow \(ops\) does not allow (matmul|max).*it allows elementwise"):
            refused(x).get()
    x = scene.shared("clinic", "bob", tag="#narrow")
    plan = sy.func2plan(args_shape=[tuple(x.shape)])(lambda x: x.view(2, 3) @ x.view(3, 2))
    with pytest.raises(PolicyError, match="does not allow matmul"):
        plan(x).get()


def test_the_owner_is_among_the_holders_and_its_policy_shares(scene):
    with pytest.raises(SendNotPermittedError, match="among the holders"):
        scene.shared("bob", "eve")
    with pytest.raises(GetNotPermittedError):
        scene.shared("clinic", "bob", tag="#kept")


@pytest.mark.parametrize(
    ("fails", "why"),
    [(lambda x: torch.floor_divide(x * 0 + 5, x), "ZeroDivision"), (lambda x: (1.0 / x).fix_precision(), "does not fit")],  # one is zero
)
def test_whether_what_was_shared_had_failed_is_told_only_to_whom_the_value_is(scene, fails, why):
    (x,) = scene.workers["clinic"].search("#scores")
    failed = fails(x)
    shared = failed.share(scene.workers["clinic"], scene.workers["bob"], crypto_provider=scene.workers["dealer"]).get()
    y = shared * shared
    with pytest.raises(GetNotPermittedError, match="scores"):
        y.get()
    request = y.request("quotients")
    scene.owner.approve(request.requests[0].id)
    with pytest.raises((RuntimeError, ValueError), match=why):
        request.get()


# -- three holders of two shares each


def three(scene):
    return [scene.workers[name] for name in ("clinic", "bob", "dealer")]


def test_private_data_is_not_shared_so_that_two_others_could_rebuild_it(scene):
    (x,) = scene.workers["clinic"].search("#scores")
    with pytest.raises(SendNotPermittedError, match="two others could rebuild it.*Share it with a crypto_provider"):
        x.share(*three(scene), protocol="aby3")


def smuggled(scene):
    """What is made of the clinic's share of its data as if that were a component of replicated shares."""
    x = scene.shared("clinic", "bob")
    y = torch.zeros(6, dtype=torch.int64).share(*three(scene), protocol="aby3")
    (made,) = y.group.compute("refresh", [(x.shares[0], *y.shares[1:])])
    return sy.ReplicatedSharingTensor.of(made, y.group)


def test_a_share_of_private_data_is_no_operand_among_three(scene):
    with pytest.raises(SendNotPermittedError, match="no group of replicated shares"):
        smuggled(scene).get()


def test_without_that_check_two_others_would_hold_all_of_what_is_made_of_it(scene, monkeypatch):
    """None of what they hold is labelled: at their nodes nothing keeps it."""
    monkeypatch.setattr(holder.Holder, "_may_compute", lambda *given: None)
    made = smuggled(scene)
    for share, name in zip(made.shares[2:], ("bob", "bob", "dealer", "dealer"), strict=True):
        scene.workers[name].ask(SYNC)
        (cell,) = [s.objects[share.id_at_location][1] for s in scene.nodes[name].engine.sessions.values() if share.id_at_location in s.objects]
        assert not cell.label.sources
