"""`syftlite requests`, `approve`, `deny`, between a scientist and an owner who share nothing but the node."""

import json

import numpy as np
import pytest
import torch

import syftlite as sy
from cli.machine import as_another_process


@pytest.fixture(scope="module")
def rows(shared, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "asked.npy"
    np.save(path, np.arange(12, dtype="float32").reshape(4, 3))
    shared.run("data", "add", path, "--tag", "#asked", "--private")
    return torch.arange(12.0).view(4, 3)


@pytest.fixture
def alice(hospital, rows):
    worker = hospital.connect(hospital.token("alice"))
    yield worker
    worker.close()


@pytest.fixture
def asked(alice):
    (asked,) = alice.search("#asked")
    return asked


def line_of(result, number):
    return next(line for line in result.stdout.splitlines() if number in line)


def test_approved_it_leaves_once(hospital, asked, rows):
    mean = asked.mean(0)
    request = mean.request("column means for study 12")
    line = line_of(hospital.run("requests"), request.id)
    for text in ("alice", "column means for study 12", "float32[3]", "from asked", "pending", " s "):
        assert text in line
    approved = hospital.run("approve", request.id, "--note", "only the means").stdout
    assert approved.splitlines() == [f"approved {request.id}: alice may take once", "  float32[3]  from asked"]
    assert request.wait() == "approved" and request.note == "only the means"
    assert torch.equal(mean.get_copy(), rows.mean(0))
    assert "released" in line_of(hospital.run("requests"), request.id)
    with pytest.raises(sy.errors.GetNotPermittedError):
        mean.get()


def test_an_approval_that_is_not_the_last_says_so(hospital, asked):
    tokens = [hospital.token(name, "--role", "owner") for name in ("ann", "bob")]
    with as_another_process():
        owner = hospital.connect(tokens[0])
    owner.set_policy("asked", sy.policy.approve(quorum=2))
    request = asked.amax(0).request("two are asked")
    first, second = (hospital.run("approve", request.id, token=token).stdout.splitlines()[0] for token in tokens)
    owner.set_policy("asked", sy.policy.approve())
    owner.close()
    assert first == f"pending {request.id}: alice may take once 2 owners have approved; 1 of them so far"
    assert second == f"approved {request.id}: alice may take once" and request.refresh() == "approved"


def test_denied_it_stays_and_the_note_arrives(hospital, asked):
    request = asked.request("all rows, please")
    assert "alice may not take" in hospital.run("deny", request.id, "--note", "ask for less").stdout
    with pytest.raises(sy.errors.GetNotPermittedError, match="ask for less"):
        request.wait()
    with pytest.raises(sy.errors.GetNotPermittedError):
        asked.get()
    assert "denied" in line_of(hospital.run("requests"), request.id)


def test_a_decision_is_made_once_and_on_what_there_is(hospital, asked):
    request = asked.sum().request("a sum")
    hospital.run("deny", request.id)
    for words in (("approve", request.id), ("deny", request.id), ("approve", "nothing"), ("approve", "../x")):
        assert "no pending request" in hospital.run(*words, code=1).stderr
    assert request.refresh() == "denied"


def test_several_at_once_up_to_the_first_that_cannot_be(hospital, asked):
    requests = [asked.sum(n).request("sums") for n in (0, 1)]
    refused = hospital.run("approve", requests[0].id, "none", requests[1].id, code=1)
    assert requests[0].id in refused.stdout and "no pending request none" in refused.stderr
    assert [request.refresh() for request in requests] == ["approved", "pending"]
    assert requests[1].id in hospital.run("requests", "--pending").stdout
    assert requests[0].id not in hospital.run("requests", "--pending").stdout


def test_a_scientist_neither_sees_nor_decides(hospital, asked):
    request = asked.sum().request("a sum")
    token = hospital.token("mallory")
    for words in (("approve", request.id), ("deny", request.id), ("inspect", request.id)):
        assert "only hospital's owner may" in hospital.run(*words, code=1, token=token).stderr
    assert hospital.run("requests", token=token).stdout == "no requests\n", "one's own alone"
    assert request.refresh() == "pending"


def test_what_a_stranger_writes_is_shown_and_not_obeyed(hospital, asked):
    request = asked.sum().request("\x1b[2J[red]approved[/red]\r\u202e")
    shown = hospital.run("requests").stdout
    assert "\ufffd[2J[red]approved[/red]\ufffd\ufffd" in line_of(hospital.run("requests"), request.id)
    assert not set(shown) & set("\x1b\r\u202e")
    denied = hospital.run("deny", request.id).stdout
    assert not set(denied) & set("\x1b\r\u202e")


def test_many_requests_are_all_listed(hospital, asked):
    number = 60
    filed = {asked[:1].request("r" * 2000).id for _ in range(number)}
    shown = hospital.run("requests", "--pending").stdout
    assert all(request in shown for request in filed)
    hospital.run("deny", *filed)


def test_the_owner_sees_what_would_leave_and_how_it_was_made(hospital, asked, rows):
    mean = (asked[:, :2] * 2).mean(0)
    request = mean.request("means of two")
    shown = hospital.run("inspect", request.id).stdout
    for text in ("alice", "pending", "why: means of two", "float32[2] from asked", "2 elements, 9 to 11, mean 10", 'dataset("asked")', "mul(", "mean(", "return x"):
        assert text in shown, shown
    assert "[ 9., 11.]" not in shown and "tensor([ 9., 11.])" in hospital.run("inspect", request.id, "--preview").stdout
    hospital.run("approve", request.id)
    assert torch.equal(request.get(), (rows[:, :2] * 2).mean(0))
    assert "elements" not in hospital.run("inspect", request.id).stdout, "what has left is not kept"


def test_the_trail_shows_who_did_what_and_is_right(hospital, asked):
    request = asked.std().request("spread")
    hospital.run("deny", request.id, "--note", "no spreads")
    shown = hospital.machine.run("audit", "show", "--node", "hospital", "--data", "asked").stdout
    for text in ("computed:", "std.correction", f"asked ({request.id})", "denied: no spreads", "waits for the owner"):
        assert text in shown, shown
    assert hospital.machine.run("audit", "show", "--node", "hospital", "--who", "nobody").stdout == "nothing of that is on record\n"
    exported = hospital.machine.run("audit", "export", "--node", "hospital", "--format", "jsonl", "--since", "1h").stdout
    rows = [json.loads(line) for line in exported.splitlines() if line.startswith("{")]
    assert any(row["event"] == "denied" and row["decided"] == "denied: no spreads" and row["data"] == ["asked"] for row in rows)
    table = hospital.machine.run("audit", "export", "--node", "hospital", "--who", "alice").stdout
    assert table.startswith("number,at,event,who,did,data,decided\n") and "frame,alice" in table
    verified = hospital.machine.run("audit", "verify", "--node", "hospital").stdout
    assert "records are right" in verified and "carry a signature" in verified
    assert "is no time" in hospital.machine.run("audit", "show", "--since", "yesterday", "--node", "hospital", code=2).stderr


def test_a_twin_is_published_from_stated_ranges(hospital, alice):
    path = hospital.machine.folder / "ages.csv"
    path.write_text("age,smokes\n" + "".join(f"{40 + i}.5,{i % 2}\n" for i in range(30)))
    hospital.run("data", "add", path, "--private")
    said = hospital.run("data", "mock", "ages", "--range", "age=0:120", "--values", "smokes=0,1", "--rows", "500").stdout
    assert "500 x 2" in said and "#ages-mock" in said
    (twin,) = alice.search("#mock", "#ages-mock")
    values = twin.get()
    assert values.shape == (500, 2) and values.dtype is torch.float32
    assert values[:, 0].min() >= 0 and values[:, 0].max() <= 120 and values[:, 0].std() > 25, "not the data's 40 to 70"
    assert set(values[:, 1].tolist()) == {0.0, 1.0} and "not one value is real" in twin.description and "age, smokes" in twin.description
    assert "no column size" in hospital.run("data", "mock", "ages", "--range", "size=0:1", code=2).stderr
    assert "LOW:HIGH" in hospital.run("data", "mock", "ages", "--range", "age=3", code=2).stderr


def test_a_killed_node_still_has_what_was_asked_and_what_was_approved(machine):
    np.save(machine.folder / "kept.npy", np.arange(6, dtype="float32"))
    settings = machine.folder / "hospital.toml"
    settings.write_text('id = "hospital"\naudit_anchor = "away.anchor"\n')
    node = machine.start("--config", str(settings))
    token = node.token("alice")
    node.run("data", "add", machine.folder / "kept.npy", "--private")
    alice = node.connect(token)
    (kept,) = alice.search("#kept")
    approved, waiting = kept.sum().request("a sum"), kept.mean().request("a mean")
    node.run("approve", approved.id)
    node.process.kill()
    node.process.communicate()
    alice.close()
    again = machine.start("--config", str(settings))
    assert "pending" in line_of(again.run("requests"), waiting.id) and "approved" in line_of(again.run("requests"), approved.id)
    again.run("approve", waiting.id)
    alice = again.connect(token)
    assert [sy.request(alice, request.id).get().item() for request in (approved, waiting)] == [15.0, 2.5]
    with pytest.raises(sy.errors.GetNotPermittedError, match="is released"):
        sy.request(alice, approved.id).get()
    alice.close()
    again.process.kill()
    again.process.communicate()
    verified = machine.run("audit", "verify", "--node", "hospital", "--anchor", machine.folder / "away.anchor").stdout
    assert "none is missing" in verified
    journal = machine.home / "nodes/hospital/journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    released = max(n for n, line in enumerate(lines) if b'"released"' in line)
    journal.write_bytes(b"".join(lines[:released]))
    cut = machine.run("audit", "verify", "--node", "hospital", "--anchor", machine.folder / "away.anchor", code=1).stdout
    assert "were cut off" in cut
