"""The command itself: help, errors, exit codes, and what it says when its extra is missing."""

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

import syftlite
from syftlite.cli.app import cli
from syftlite.cli.common import lines, output, plain, table
from syftlite.cli.naming import address
from syftlite.errors import ConfigurationError, RequestNotFoundError


def commands(group, path=()):
    for name, command in group.commands.items():
        yield (*path, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


def test_the_commands_are_these():
    assert {" ".join(path) for path in commands(cli)} == {
        "worker", "worker start", "worker identity",
        "token", "token new", "token list", "token revoke",
        "user", "user add", "user list", "user revoke", "user key", "user key new", "user key add", "user key revoke",
        "data", "data add", "data mock", "ls",
        "policy", "policy lint", "policy test", "policy diff", "policy simulate",
        "requests", "inspect", "approve", "deny",
        "audit", "audit show", "audit verify", "audit export",
    }  # fmt: skip


@pytest.mark.parametrize("module", ["syftlite", "syftlite.cli"])
def test_it_is_a_module_to_run(module):
    done = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"syftlite, version {syftlite.__version__}\n"


@pytest.mark.parametrize("path", [(), *commands(cli)], ids=" ".join)
def test_each_explains_itself(path):
    result = CliRunner().invoke(cli, [*path, "--help"])
    assert result.exit_code == 0 and "Usage:" in result.output
    command = cli
    for name in path:
        command = command.commands[name]
    assert command.help
    assert all(not isinstance(p, click.Option) or p.help or p.name in ("role",) for p in command.params)


def test_the_version():
    assert syftlite.__version__ in CliRunner().invoke(cli, ["--version"]).output


@pytest.mark.parametrize(("error", "code"), [(ConfigurationError("a [bold]bad[/] setting"), 2), (RequestNotFoundError("none\nhere"), 1)])
def test_an_error_is_its_text_and_a_code(monkeypatch, error, code):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr("syftlite.cli.common.WebsocketClientWorker", fail)
    result = CliRunner().invoke(cli, ["ls"])
    assert result.exit_code == code and result.stdout == ""
    assert result.stderr == f"Error: {error}\n"


def test_a_mistyped_command_or_option_is_named():
    for words in (["approv", "x"], ["approve"], ["ls", "--nod", "x"], ["worker", "start", "--port", "70000"]):
        result = CliRunner().invoke(cli, words)
        assert result.exit_code == 2 and "Usage:" in result.stderr


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_its_extra_it_says_what_to_install(missing):
    program = f"import sys; sys.modules[{missing!r}] = None; from syftlite.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == f'the command needs {missing}: pip install "syftlite[cli]"\n'


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("127.0.0.1:8777", ("127.0.0.1", 8777, False)),
        ("localhost", ("localhost", 8777, False)),
        ("[::1]:9", ("::1", 9, False)),
        ("ws://127.0.0.1:9", ("127.0.0.1", 9, False)),
        ("wss://127.0.0.1", ("127.0.0.1", 8777, True)),
        ("10.0.0.1:9", ("10.0.0.1", 9, True)),
        ("hospital.example", ("hospital.example", 8777, True)),
        ("wss://hospital.example:9/", ("hospital.example", 9, True)),
    ],
)
def test_addresses(text, where):
    assert address(text) == where


@pytest.mark.parametrize("text", ["", ":8777", "http://x", "x:y", "x:99999", "ws://", "x/y", "[::1"])
def test_what_is_no_address_is_said(text):
    with pytest.raises(click.BadParameter, match="no node's address"):
        address(text)


@pytest.mark.parametrize("columns", [None, "60", "80", "200"])
def test_what_is_copied_from_a_table_is_whole(monkeypatch, columns):
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    shown = table("tags", "description", "id", whole=("id",))
    shown.add_row("#patients", "columns: " + ", ".join(f"column{i}" for i in range(30)), "8308836769252501234")
    console = output()
    with console.capture() as said:
        console.print(shown)
    assert "8308836769252501234" in said.get() and "…" not in said.get()
    assert columns is None or max(map(len, said.get().splitlines())) <= int(columns)


def test_text_from_strangers_cannot_steer_or_fool_a_terminal():
    for hostile in ("\x1b[2J", "\r", "\n", "\x07", "\u202e", "\u200b", "\x9b31m", "\x00", "\ud800"):
        assert plain(f"a{hostile}b").encode() and not set(plain(f"a{hostile}b")) & set(hostile) - set("[2J31m")
    assert plain("größe 東京 ½") == "größe 東京 ½"
    assert lines("one\x1b\ntwo") == "one\ufffd\ntwo"
