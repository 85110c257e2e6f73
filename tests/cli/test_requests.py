"""`syftlite requests`, `approve`, `deny`, between a scientist and an owner who share nothing but the node."""

import numpy as np
import pytest
import torch

import syftlite as sy


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
    for words in (("requests",), ("approve", request.id), ("deny", request.id)):
        assert "only hospital's owner may" in hospital.run(*words, code=1, token=token).stderr
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
