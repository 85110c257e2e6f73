"""Who may open what was shared: the session that shared it, whom `reveal_to` names, and nobody else."""

import secrets

import pytest
import torch
from torch import nn

import syftlite as sy
from syftlite.engine import executor
from syftlite.engine.engine import Engine
from syftlite.errors import (
    GetNotPermittedError,
    Misuse,
    NotOwnerError,
    ObjectNotFoundError,
    SendNotPermittedError,
    TensorsNotCollocatedError,
    code_of,
)
from syftlite.remote import custody
from syftlite.testing.peer import Peer, number_of
from syftlite.wire import messages as m

USERS = ("ann", "ben", "eve")
X = torch.tensor([1.5, -2.0, 3.0])


class Scene:
    """Nodes for three holders or two and a provider, and each user's connections to them."""

    def __init__(self):
        tokens = {user: secrets.token_urlsafe(32) for user in USERS}
        self.nodes = [sy.WebsocketServerWorker(id=f"custody {name}", port=0, tokens=tokens, announce=False) for name in "abc"]
        for node in self.nodes:
            node.start(wait=False)
            sy.remote.registry.forget(node)  # its clients are in this process too
        self.workers = {
            user: [sy.BaseWorker(f"{node.id} for {user}", sy.transports.client.SocketTransport(node.uri, token)) for node in self.nodes]
            for user, token in tokens.items()
        }

    def group(self, user, protocol="snn"):
        """What `share` and `find_shared` take to make the group of ``user``."""
        a, b, c = self.workers[user]
        return {"workers": [a, b, c], "protocol": protocol} if protocol == "aby3" else {"workers": [a, b], "crypto_provider": c}

    def share(self, value, user, protocol="snn", **options):
        group = self.group(user, protocol)
        return value.share(*group.pop("workers"), **group, **options)

    def find(self, user, tag, protocol="snn"):
        return sy.find_shared(tag, **self.group(user, protocol))

    def close(self):
        for worker in [w for each in self.workers.values() for w in each]:
            worker.close()
        for node in self.nodes:
            node.close()


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SYFTLITE_HOME", str(tmp_path_factory.mktemp("home")))
        made = Scene()
        yield made
        made.close()


@pytest.mark.parametrize("protocol", ["snn", "aby3"])
def test_whom_reveal_to_names_finds_it_computes_with_it_and_opens_it(scene, protocol):
    x = scene.share(X.fix_precision(base=10), "ann", protocol, reveal_to=["ben"]).tag("#x" + protocol)
    mine = scene.share(X.fix_precision(base=10), "ben", protocol)
    (found,) = scene.find("ben", "#x" + protocol, protocol)
    assert found.get().decode().tolist() == X.tolist() and found.scale == x.scale
    assert torch.allclose((found * mine).relu().get().decode(), (X * X).relu(), atol=2e-3)
    assert not found.child.reveal_to, "what ben makes of it is ben's"
    assert x.child.tags == {"#x" + protocol} and x.child.reveal_to == {"ben"} and "for ben too" in repr(x)
    assert x.get().decode().tolist() == X.tolist()


def test_without_reveal_to_others_find_nothing(scene):
    x = scene.share(torch.arange(4), "ann").tag("#kept")
    lent = scene.share(torch.arange(4), "ann", reveal_to="ben").refresh().tag("#lent")
    assert not scene.find("ben", "#kept") and not scene.find("eve", "#lent") and not scene.find("eve", "#kept")
    for user, tensor in (("ben", x), ("eve", lent)):
        worker, number = scene.workers[user][0], tensor.shares[0].id_at_location
        with pytest.raises(ObjectNotFoundError):
            worker.ask(m.GET, [number], False, None)
    (found,) = scene.find("ben", "#lent")
    with pytest.raises(GetNotPermittedError, match="re-randomised"):
        found.shares[0].get_copy()
    assert [t.get().tolist() for t in scene.find("ann", "#kept")] == [[0, 1, 2, 3]], "one's own is found by any of one's sessions"


def test_what_was_made_of_several_is_for_whom_all_of_them_name(scene):
    x, y = (scene.share(X.fix_precision(), "ann", reveal_to=names) for names in (["ben", "eve"], ["ben"]))
    kept = scene.share(X.fix_precision(), "ann")
    for made, names in (
        (x + y, {"ben"}), (x * y, {"ben"}), (x.relu(), {"ben", "eve"}), (torch.cat([x, y]), {"ben"}), (x * 2 + 1, {"ben", "eve"}),
        (x * X, {"ben", "eve"}), (x * kept, set()), (torch.stack([x, kept]), set()), (x.softmax(0), {"ben", "eve"}), (x[0], {"ben", "eve"}),
        (x.child.refresh(), {"ben", "eve"}), (x.detach().clone(), {"ben", "eve"}), (torch.maximum(x, y), {"ben"}),
    ):  # fmt: skip
        assert (made.child if isinstance(made, sy.FixedPrecisionTensor) else made).reveal_to == names
    part, rows = x[:2], x.view(3, 1)
    part[0] = kept[0]
    assert x.child.reveal_to == rows.child.reveal_to == part.child.reveal_to == set(), "what was written to a view of it"
    y += kept
    assert y.child.reveal_to == set(), "what was written to it"


def test_what_a_training_step_writes_is_for_whom_its_data_are(scene):
    model = nn.Linear(3, 2)
    scene.share(model.fix_precision(), "ann", reveal_to=["ben", "eve"], requires_grad=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    @sy.func2plan(state=(model, optimizer))
    def step(x):
        optimizer.zero_grad()
        loss = model(x).pow(2).sum()
        loss.backward()
        optimizer.step()
        return loss

    for names, want in ((["ben", "eve"], {"ben", "eve"}),) * 3 + ((["ben"], {"ben"}), ([], set()), (["ben", "eve"], set())):
        loss = step(scene.share(torch.ones(2, 3).fix_precision(), "ann", reveal_to=names))
        assert loss.child.reveal_to == want and all(p.child.reveal_to == want for p in model.parameters())


def test_what_was_tagged_for_users_takes_nothing_that_is_not_for_them(scene):
    """They have found it, or may at any moment: it cannot be taken back."""
    for look in (lambda x: x, lambda x: x[:1], lambda x: x.detach().view(3, 1)):
        x = scene.share(torch.arange(3), "ann", reveal_to=["ben", "eve"]).tag("#narrow")
        part = look(x)
        with pytest.raises(Misuse, match="tagged for eve"):
            part += scene.share(torch.full(part.shape, 1000), "ann", reveal_to=["ben"])
        (found,) = scene.find("ben", "#narrow")
        assert found.get().tolist() == [0, 1, 2] and x.reveal_to == {"ben", "eve"}
        part += scene.share(torch.full(part.shape, 1000), "ann", reveal_to=["ben", "eve"])
        part += 1
        for worker in scene.workers["ann"]:
            worker.ask(m.SYNC)
        assert found.get()[0] == 1001
        del x, part, found


def test_a_recorded_step_writes_nothing_narrower_to_what_was_tagged(scene):
    model = nn.Linear(3, 1, bias=False)
    scene.share(model.fix_precision(), "ann", reveal_to=["ben"], requires_grad=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    @sy.func2plan(state=(model, optimizer))
    def step(x):
        optimizer.zero_grad()
        loss = model(x).sum()
        loss.backward()
        optimizer.step()
        return loss

    allowed, kept = (scene.share(torch.ones(2, 3).fix_precision(), "ann", reveal_to=names) for names in (["ben"], []))
    for _ in range(3):
        step(allowed)
    model.weight.detach().tag("#weights")
    before = model.weight.detach().get().decode()
    with pytest.raises(Misuse, match="tagged for ben"):
        step(kept)
    assert torch.equal(model.weight.detach().get().decode(), before)
    step(allowed)
    assert not torch.equal(model.weight.detach().get().decode(), before)


def test_a_weight_that_was_opened_masked_keeps_its_custody(scene):
    """Its masked form is not shared; what a layer gives is for whom the weight is, too."""
    for make, rows in ((lambda: nn.Linear(3, 2, bias=False), torch.ones(1, 3)), (lambda: nn.Conv2d(1, 1, 2, bias=False), torch.ones(1, 1, 3, 3))):
        model = scene.share(make().fix_precision(), "ann")
        x = scene.share(rows.fix_precision(), "ann", reveal_to=["ben"])
        infer = sy.func2plan(state=(model,))(lambda x, model=model: model(x))
        with torch.no_grad():
            for out in (model(x), model(x), *(infer(x) for _ in range(3))):
                assert out.child.reveal_to == set()


def test_plans_and_modules_keep_it(scene):
    model = nn.Linear(3, 2)
    with torch.no_grad():
        want = model(X)
    scene.share(model.fix_precision(), "ann", reveal_to=["ben"])
    infer = sy.func2plan(state=(model,))(lambda x: model(x))
    for names in (["ben", "eve"], []):
        x = scene.share(X.fix_precision(), "ann", reveal_to=names)
        for _ in range(3):
            out = infer(x)
            assert out.child.reveal_to == set(names) & {"ben"}
    out = infer(scene.share(X.fix_precision(), "ann", reveal_to="ben")).tag("#out")
    (found,) = scene.find("ben", "#out")
    assert torch.allclose(found.get().decode(), want, atol=1e-3) and out.shape == found.shape


def test_what_others_shared_is_not_written_to(scene):
    kept = scene.share(torch.arange(3), "ann", reveal_to=["ben"]).tag("#read")
    (found,) = scene.find("ben", "#read")
    with pytest.raises(NotOwnerError):
        found.add_(1).get()
    assert kept.get().tolist() == [0, 1, 2]


def test_it_stays_as_long_as_its_owner_keeps_it(scene):
    x = scene.share(torch.arange(3), "ann", reveal_to=["ben"]).tag("#gone")
    (found,) = scene.find("ben", "#gone")
    del x
    for worker in scene.workers["ann"]:
        worker.ask(m.SYNC)
    assert not scene.find("ben", "#gone") and found.get().tolist() == [0, 1, 2], "who has found it, has it"


def test_located_tensors_stay_located_in_plans_too(scene):
    a, b, c = scene.workers["ann"]
    there = torch.tensor([4.0, 5.0]).send(c)
    provider = sy.VirtualWorker(id="custody provider")
    shared = there.fix_precision().share(a, b, crypto_provider=provider, reveal_to=["ben"])
    double = sy.func2plan()(lambda x: x * 2)
    for made in (shared, shared * 2, *(double(shared) for _ in range(3))):
        assert made.child.location is c and made.child.reveal_to == {"ben"}
        with pytest.raises(Misuse, match="get\\(\\) brings it here"):
            made.tag("#early")
    assert shared.get().get().decode().tolist() == [4.0, 5.0] and shared.get().child.reveal_to == {"ben"}


def test_what_was_found_is_not_lent(scene):
    lent = scene.share(torch.arange(3), "ann", reveal_to=["ben"]).tag("#again")
    (found,) = scene.find("ben", "#again")
    with pytest.raises(NotOwnerError, match="by the session that it is of"):
        scene.workers["ben"][0].ask(m.LEND, found.shares[0].id_at_location, ["eve"])
    assert lent.get().tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("tags", "of"),
    [
        (["share-of:" + "0" * 32 + ":0:2", "share-of:" + "0" * 32 + ":0:2"], "one place twice"),
        (["share-of:" + "0" * 32 + ":0:2", "share-of:" + "1" * 32 + ":1:2"], "two names"),
        (["share-of:" + "0" * 32 + ":0:3", "share-of:" + "0" * 32 + ":1:3"], "another number of places"),
        (["share-of:" + "0" * 32 + ":0:2:10:99", "share-of:" + "0" * 32 + ":1:2:10:99"], "a scale that there is not"),
        (["share-of:" + "0" * 32 + ":0:2:10:3", "share-of:" + "0" * 32 + ":1:2:10:4"], "two scales"),
        (["share-of:" + "0" * 32 + ":0:2", "share-of:" + "0" * 32 + ":1:2:"], "no such mark"),
    ],
    ids=lambda v: v.replace(" ", "-") if isinstance(v, str) else "",
)
def test_marks_that_do_not_fit_are_no_tensor(scene, tags, of):
    kept = [torch.arange(3).send(w).tag("#forged", tag) for w, tag in zip(scene.workers["ann"][:2], tags, strict=True)]
    assert not scene.find("ann", "#forged")
    del kept


def test_bad_arguments_name_the_remedy(scene):
    for wrong in (5, [scene.workers["ann"][0]], [""], None):
        with pytest.raises(Misuse, match='reveal_to names users of the holders, such as reveal_to=\\["ben"\\]'):
            scene.share(torch.arange(3), "ann", reveal_to=wrong)
    x = scene.share(torch.arange(3), "ann", reveal_to=["ben"]).tag("#apart")
    (found,) = scene.find("ben", "#apart")
    with pytest.raises(TensorsNotCollocatedError):
        found + scene.share(torch.arange(3), "ben", "aby3")
    assert x.shape == found.shape


class Found:
    """What one session of a user has, and what another has found of it; a PRIVATE dataset beside them."""

    def __init__(self):
        self.engine = Engine("found")
        self.engine.load("icu", torch.full((3,), 77.0), ["#icu"], private=True)
        self.owner, self.other = Peer(self.engine, "ann"), Peer(self.engine, "ann")
        self.number = self.owner.id(1)
        self.owner.say((m.PUT, self.number, torch.zeros(3), ("#mine",), ""), (m.FIND, 1, ("#icu",), 0))

    def find(self):
        return [row[0] for row in self.other.say((m.FIND, 1, ("#mine",), 0))[0][3]]

    def write(self, target=None):
        self.owner.say((m.OP, number_of(torch.ops.aten.copy_.default), (target or self.number, self.engine.names["icu"]), None, None))

    def read(self):
        return self.other.say((m.GET, 2, (self.number,), False, None))[0]


@pytest.mark.parametrize("view", [False, True])
def test_private_data_is_not_written_to_what_another_session_has_found(view):
    """Its lane may be reading it this moment: there is no telling which bytes it would see before the label."""
    found = Found()
    target = None
    if view:
        target = found.owner.id(2)
        found.owner.say((m.OP, number_of(torch.ops.aten.view.default), (found.number, (3,)), None, target))
    assert found.find() == [found.number]
    held = found.engine.sessions[found.other.door.session.prefix].objects[found.number][0]
    found.write(target)
    assert held.tolist() == [0, 0, 0]
    for answer in (found.read(), found.owner.say((m.GET, 3, (found.number,), False, None))[0]):
        assert answer[:3:2] == (m.ERROR, code_of(SendNotPermittedError())) and "clone()" in answer[3], "why it failed is no secret"


def test_without_that_it_would_be_read(monkeypatch):
    monkeypatch.setattr(executor, "_close", lambda written, mark: None)
    found = Found()
    found.find()
    held = found.engine.sessions[found.other.door.session.prefix].objects[found.number][0]
    found.write()
    assert held.tolist() == [77, 77, 77]


def test_what_is_about_to_become_private_is_not_found(monkeypatch):
    found, seen, real = Found(), [], executor._store

    def store(*args):
        seen.append(found.find())  # the bytes are there, the label is not
        return real(*args)

    monkeypatch.setattr(executor, "_store", store)
    found.write()
    monkeypatch.undo()
    assert seen == [[]] and found.find() == [found.number] and found.read()[0] == m.ERROR


def test_public_data_is_written_to_what_was_found():
    found = Found()
    found.find()
    found.owner.say((m.OP, number_of(torch.ops.aten.add_.Tensor), (found.number, 5.0), None, None))
    assert found.read()[2][0].tolist() == [5, 5, 5]


def test_what_was_lent_and_became_private_is_for_its_owner_to_show(monkeypatch):
    found = Found()
    ben = Peer(found.engine, "ben")
    assert found.owner.say((m.LEND, 1, found.number, ("ben",)))[0][0] == m.DONE
    found.write()
    assert [row[0] for row in ben.say((m.FIND, 1, ("#mine",), 0))[0][3]] == []


def test_custody_joins():
    located = custody.Custody("there", frozenset({"a", "b"}))

    class Made:
        def __init__(self, of):
            self.custody = of

    join = lambda *each: custody.joined(map(Made, each))  # noqa: E731
    assert join() is custody.KNOWN and join(custody.OWN, custody.OWN) is custody.OWN and join(custody.OWN, custody.KNOWN) is custody.OWN
    assert join(located, custody.KNOWN) is located
    assert join(custody.OWN, located) == ("there", frozenset()) and join(located, custody.for_users("b")) == ("there", {"b"})
