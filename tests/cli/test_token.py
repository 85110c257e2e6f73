"""`syftlite token`: printed once, listed, expiring, revoked; a running node follows."""

import re
import time

import pytest

import syftlite as sy
from syftlite.storage.users import Users


def test_a_token_is_printed_alone_and_opens_the_door(hospital):
    made = hospital.machine.run("token", "new", "tessa", "--node", "hospital")
    token = made.stdout.strip()
    assert re.fullmatch(r"[\w-]{43}", token) and made.stdout == f"{token}\n"
    assert "tessa" in made.stderr and token not in made.stderr
    worker = hospital.connect(token)
    assert worker.principal == "tessa" and worker.id == "hospital"
    with pytest.raises(sy.errors.NotOwnerError, match="tessa, a scientist"):
        worker.approve("any")
    worker.close()
    assert hospital.machine.run("token", "revoke", "tessa", "--node", "hospital").stdout == "1 token of tessa revoked\n"
    with pytest.raises(sy.errors.AuthenticationError, match="unknown, revoked or expired"):
        hospital.connect(token)


def test_an_owner_elsewhere_has_a_token_too(hospital):
    token = hospital.token("second-owner", "--role", "owner")
    hospital.run("requests", token=token)


def test_the_list_shows_who_and_how_long_and_no_token(machine):
    machine.run("token", "new", "alice", "--node", "n")
    machine.run("token", "new", "bob", "--node", "n", "--days", "0.5")
    Users(machine.home / "nodes/n/node.db", clock=lambda: time.time() - 1e6).new("carol", days=1)
    machine.run("token", "new", "dora", "--node", "n", "--role", "owner")
    rows = [line.split() for line in machine.run("token", "list", "--node", "n").stdout.splitlines()]
    assert rows[0] == ["name", "role", "valid"]
    assert rows[1] == ["alice", "scientist", "until", "revoked"]
    assert rows[2][:3] == ["bob", "scientist", "until"] and re.fullmatch(r"\d{4}-\d\d-\d\d", rows[2][3])
    assert rows[3][:3] == ["carol", "scientist", "expired"]
    assert rows[4][:2] == ["dora", "owner"]


def test_a_token_file_elsewhere(machine):
    path = machine.folder / "tokens.json"
    token = machine.run("token", "new", "alice", "--file", path).stdout.strip()
    assert Users(path).authenticate("token", token).principal.name == "alice"
    assert "alice" in machine.run("token", "list", "--file", path).stdout
    assert not (machine.home / "nodes").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("new", "owner"), "choose another name"),
        (("new", "scientist"), "choose another name"),
        (("new", "a/b"), "a principal's name"),
        (("new", "alice", "--days", "0"), "--days"),
        (("new", "alice", "--node", "../x"), "a node's id"),
        (("list", "--node", "none"), "no node of this machine is called 'none'"),
        (("revoke", "alice", "--node", "none"), "no node of this machine is called 'none'"),
    ],
)
def test_what_cannot_be_is_said_and_makes_nothing(machine, words, says):
    assert says in machine.run("token", *words, code=2).stderr
    assert not list(machine.home.rglob("*.db"))


def test_revoking_nobody_is_an_error(machine):
    machine.run("token", "new", "alice")
    assert "'bob' has no token" in machine.run("token", "revoke", "bob", code=2).stderr
    assert "alice" in machine.run("token", "list").stdout


def test_a_name_that_no_node_has_had_is_told_of(machine):
    assert "no node hopital has run on this machine so far" in machine.run("token", "new", "alice", "--node", "hopital").stderr
    assert "has run" not in machine.run("token", "new", "bob", "--node", "hopital").stderr
    assert "no node lab has run" in machine.run("user", "add", "alice", "--node", "lab").stderr
