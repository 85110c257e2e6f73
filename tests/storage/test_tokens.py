"""Tokens: hashed, expiring, revocable, in a file that commands and a running node share."""

import json
import threading

import pytest

from syftlite.engine.session import Principal, Role
from syftlite.errors import AuthenticationError, ConfigurationError
from syftlite.storage.tokens import Grant, Tokens, announce, discover


@pytest.fixture
def path(tmp_path):
    return tmp_path / "node" / "tokens.json"


def test_a_token_says_who_holds_it(path):
    tokens = Tokens(path)
    alice, owner = tokens.new("alice"), tokens.new("carol", Role.OWNER)
    assert tokens.authenticate("token", alice) == Principal("alice", Role.SCIENTIST)
    assert tokens.authenticate("token", owner) == Principal("carol", Role.OWNER)
    for scheme, secret in (("token", alice[:-1]), ("token", ""), ("token", "ä" * 43), ("key", alice)):
        assert tokens.authenticate(scheme, secret) is None


def test_only_hashes_are_kept_and_only_for_the_user(path):
    token = Tokens(path).new("alice")
    assert token not in path.read_text() and path.stat().st_mode & 0o777 == 0o600
    assert len({Tokens().new("alice") for _ in range(100)}) == 100 and len(token) >= 43


def test_it_expires_by_the_clock(path):
    now = [1000.0]
    tokens = Tokens(path, clock=lambda: now[0])
    token = tokens.new("alice", days=1)
    assert tokens.grants() == [Grant("alice", Role.SCIENTIST, 1000.0 + 86_400)]
    now[0] += 86_399
    assert tokens.authenticate("token", token)
    now[0] += 1
    assert tokens.authenticate("token", token) is None


def test_another_process_sees_what_is_made_and_revoked(path):
    node, command = Tokens(path), Tokens(path)
    first, second, bob = command.new("alice"), command.new("alice"), command.new("bob")
    assert node.authenticate("token", first) and node.authenticate("token", second) and node.authenticate("token", bob)
    assert command.revoke("alice") == 2 and command.revoke("alice") == 0
    assert node.authenticate("token", first) is None and node.authenticate("token", bob)
    path.unlink()
    assert node.authenticate("token", bob) is None


def test_changes_at_the_same_time_are_all_kept(path):
    def make(principal):
        tokens = Tokens(path)
        for number in range(20):
            tokens.new(f"{principal}{number}")

    threads = [threading.Thread(target=make, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {grant.principal for grant in Tokens(path).grants()} == {f"{name}{number}" for name in "abc" for number in range(20)}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "{}",
        "[1]",
        '[{"hash": "a"}]',
        '[{"hash": 1, "principal": "a", "role": "owner", "expires": null}]',
        '[{"hash": "é", "principal": "a", "role": "owner", "expires": null}]',
        '[{"hash": "a", "principal": "a", "role": "king", "expires": null}]',
        '[{"hash": "a", "principal": "a", "role": "owner", "expires": true}]',
        "\x00\xff",
    ],
)
def test_a_damaged_file_lets_nobody_in_and_is_named_to_its_owner(path, text):
    tokens = Tokens(path)
    token = tokens.new("alice")
    path.write_bytes(text.encode("latin-1"))
    assert tokens.authenticate("token", token) is None
    with pytest.raises(ConfigurationError, match=r"tokens\.json is not a token file"):
        Tokens(path)
    with pytest.raises(ConfigurationError, match=r"tokens\.json is not a token file"):
        tokens.new("bob")
    assert path.read_bytes() == text.encode("latin-1")


def test_short_tokens_given_in_a_program_are_refused():
    with pytest.raises(ConfigurationError, match="alice has 5 characters"):
        Tokens.of({"alice": "12345"})
    token = "x" * 32
    assert Tokens.of({"alice": token}).authenticate("token", token) == Principal("alice", Role.SCIENTIST)


# -- on loopback


def test_what_a_node_announces_its_user_finds(tmp_path, monkeypatch):
    monkeypatch.setenv("SYFTLITE_HOME", str(tmp_path / "home"))
    path = announce("127.0.0.1", 8777, {"owner": "o" * 43, "scientist": "s" * 43})
    assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700
    assert discover("localhost", 8777, "owner") == "o" * 43
    assert discover("127.0.0.1", 8777, "scientist") == "s" * 43
    for host, port, role in (("127.0.0.1", 8778, "owner"), ("::1", 8777, "owner"), ("127.0.0.1", 8777, "king")):
        with pytest.raises(AuthenticationError, match="token new NAME"):
            discover(host, port, role)
    path.write_text("{")
    with pytest.raises(AuthenticationError, match="is it running"):
        discover("127.0.0.1", 8777, "owner")
    assert json.loads(announce("::1", 8777, {"owner": "x"}).read_text()) == {"owner": "x"}
