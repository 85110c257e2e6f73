"""What --node names: a node's name, or where it listens, in every command that has it."""

import os

import click
import pytest

from cli.test_app import commands
from syftlite.cli.app import cli
from syftlite.cli.naming import HERE, listening, named
from syftlite.errors import ConfigurationError
from syftlite.storage.home import node_folder
from syftlite.storage.tokens import announce

TALKING = {"data add", "data mock", "ls", "requests", "inspect", "approve", "deny"}


@pytest.fixture
def at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("SYFTLITE_HOME", str(tmp_path / "home"))


def with_node():
    for path in commands(cli):
        command = cli
        for name in path:
            command = command.commands[name]
        for option in command.params:
            if option.name == "node" and "--node" in option.opts:
                yield " ".join(path), option


def test_every_command_reads_it_alike(at_home):
    node_folder("hospital")
    announce("127.0.0.1", 9123, {"owner": "x"}, "hospital")
    found = dict(with_node())
    assert found.keys() > TALKING and len(found) > 15
    for name, option in found.items():
        context = click.Context(click.Command(name))
        spelled = ("hospital", "127.0.0.1:9123", "localhost:9123", "ws://127.0.0.1:9123")
        meant = {option.callback(context, option, text) for text in spelled}
        assert len({str(m).replace("localhost", "127.0.0.1") for m in meant}) == 1, name
        assert option.default == HERE


def test_a_name_leads_to_where_its_node_listened_last(at_home, monkeypatch):
    with pytest.raises(click.BadParameter, match="no node's address"):
        listening("../x")
    node_folder("hospital")
    with pytest.raises(ConfigurationError, match="does not run"):
        listening("hospital")
    stamps = iter((1.0, 3.0, 2.0))
    for port, node in ((1, "hospital"), (2, "hospital"), (3, "lab")):
        stamp = next(stamps)
        os.utime(announce("127.0.0.1", port, {}, node, secure=port == 2), (stamp, stamp))
    assert listening("hospital") == ("127.0.0.1", 2, True)
    assert listening("lab") == ("127.0.0.1", 3, False)
    assert listening("elsewhere") == ("elsewhere", 8777, True)


def test_an_address_leads_to_the_name_of_the_node_there(at_home):
    assert named(HERE) == "node"
    announce("127.0.0.1", 8777, {}, "hospital")
    announce("::1", 9, {}, "six")
    assert named(HERE) == named("localhost") == named("127.0.0.1") == "hospital" and named("[::1]:9") == "six"
    assert named("unborn") == "unborn"
    node_folder("localhost")
    assert named("localhost") == "localhost"
    for text in ("127.0.0.1:9", "wss://hospital.example:8777", "127.0.0.2"):
        with pytest.raises(ConfigurationError, match="give its name there"):
            named(text)


def test_a_file_that_is_no_announcement_misleads_nobody(at_home):
    path = announce("127.0.0.1", 8777, {}, "hospital")
    for text in ("{", "[]", "{}"):
        path.write_text(text)
        assert named(HERE) == "node" and listening("hospital") == ("hospital", 8777, True)


def test_commands_of_both_kinds_take_both_forms(hospital):
    run, where = hospital.machine.run, hospital.uri.removeprefix("ws://")
    assert "at hospital" in run("token", "new", "nadia", "--node", where).stderr
    for form in ("hospital", where, hospital.uri):
        assert "nadia" in run("user", "list", "--node", form).stdout
        run("ls", "--node", form), run("audit", "verify", "--node", form)
    run("token", "revoke", "nadia", "--node", hospital.uri)
