"""Users: tokens hashed, keys public, both expiring and revocable, in a database that commands and a running node share."""

import json
import threading

import pytest

from syftlite.engine.access import Admission
from syftlite.engine.session import Principal, Role
from syftlite.errors import ConfigurationError
from syftlite.storage.users import Grant, Users

ALICE = Principal("alice", Role.SCIENTIST)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "node" / "node.db"


def who(users, secret, scheme="token"):
    found = users.authenticate(scheme, secret)
    return found and found.principal


def test_a_token_says_who_holds_it(path):
    users = Users(path)
    alice, owner = users.new("alice"), users.new("carol", Role.OWNER)
    assert who(users, alice) == ALICE and who(users, owner) == Principal("carol", Role.OWNER)
    for scheme, secret in (("token", alice[:-1]), ("token", ""), ("token", "ä" * 43), ("key", alice), ("proof", alice), ("key", "é")):
        assert who(users, secret, scheme) is None


def test_only_hashes_are_kept_and_only_for_the_user(path):
    users = Users(path)
    token = users.new("alice")
    users.database.close()
    assert token.encode() not in b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert path.stat().st_mode & 0o777 == 0o600
    assert len({Users().new("alice") for _ in range(20)}) == 20 and len(token) >= 43


def test_it_expires_by_the_clock(path):
    now = [1000.0]
    users = Users(path, clock=lambda: now[0])
    token = users.new("alice", days=1)
    assert users.grants() == [Grant("alice", Role.SCIENTIST, 1000.0 + 86_400)]
    credential = users.authenticate("token", token).credential
    now[0] += 86_399
    assert credential in users.current()
    now[0] += 1
    assert who(users, token) is None and credential not in users.current()


def test_another_process_sees_what_is_made_and_revoked(path):
    node, command = Users(path), Users(path)
    first, second, bob = command.new("alice"), command.new("alice"), command.new("bob")
    assert who(node, first) and who(node, second) and who(node, bob) and len(node.current()) == 3
    assert command.revoke("alice") == 2 and command.revoke("alice") == 0
    assert who(node, first) is None and who(node, bob) and len(node.current()) == 1


def test_a_scope_is_kept_with_the_token_and_must_be_of_permissions(path):
    users = Users(path)
    token = users.new("alice", scope=["find", "requests"])
    assert users.authenticate("token", token) == Admission(ALICE, frozenset({"find", "requests"}), users.authenticate("token", token).credential)
    for wrong in (["fly"], ["find", "session"], []):
        with pytest.raises(ConfigurationError, match="no permission; there are"):
            users.new("alice", scope=wrong)


def test_a_key_is_its_owner_s_until_it_is_revoked(path):
    users, public = Users(path), bytes(range(32))
    users.add_key("alice", public, days=3)
    assert who(users, public.hex(), "key") == ALICE and who(users, public.hex()) is None
    assert [(g.kind, g.label) for g in users.grants()] == [("key", public.hex()[:16])]
    with pytest.raises(ConfigurationError, match="alice's: revoke it there first"):
        users.add_key("bob", public)
    assert users.revoke_key("0001") is None and users.revoke_key("ff" * 8) is None
    assert users.revoke_key(public.hex()[:8]) == "alice" and who(users, public.hex(), "key") is None


def test_a_role_is_not_changed_in_passing(path):
    users = Users(path)
    token = users.new("alice")
    with pytest.raises(ConfigurationError, match="a scientist already: revoke"):
        users.new("alice", Role.OWNER)
    assert who(users, token) == ALICE and len(users.grants()) == 1
    users.revoke("alice")
    users.new("alice", Role.OWNER)
    assert who(users, token) is None


def test_changes_at_the_same_time_are_all_kept(path):
    Users(path)

    def make(principal):
        users = Users(path)
        for number in range(5):
            users.new(f"{principal}{number}")

    threads = [threading.Thread(target=make, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {grant.principal for grant in Users(path).grants()} == {f"{name}{number}" for name in "abc" for number in range(5)}


def test_a_database_that_fails_lets_nobody_in(path, caplog):
    users = Users(path)
    token = users.new("alice")
    users.database.rows("select 1")
    with users.database.transaction() as run:
        run("alter table credentials rename to elsewhere")
    assert who(users, token) is None and "nobody can connect" in caplog.text


def test_short_tokens_given_in_a_program_are_refused():
    with pytest.raises(ConfigurationError, match="alice has 5 characters"):
        Users.of({"alice": "12345"})
    token = "x" * 32
    assert who(Users.of({"alice": token}), token) == ALICE


# -- what earlier versions left

OLD = [
    {"hash": "3ba3f5f43b92602683c19aee62a20342b084dd5971ddd33808d81a328879a547", "principal": "alice", "role": "scientist", "expires": None},
    {"hash": "81b637d8fcd2c6da6359e6963113a1170de795e4b725b84d1e0b4cfd9ec58ce9", "principal": "bob", "role": "owner", "expires": 5.0},
]  # of "a", long expired of "b": SHA-256 of one letter each


def test_a_token_file_is_taken_in_once(tmp_path):
    import hashlib

    old = tmp_path / "tokens.json"
    rows = [{**OLD[0], "hash": hashlib.sha256(b"a" * 43).hexdigest()}, OLD[1]]
    old.write_text(json.dumps(rows))
    users = Users(old)
    assert who(users, "a" * 43) == ALICE and [g.principal for g in users.grants()] == ["alice", "bob"]
    assert not old.exists() and json.loads((tmp_path / "tokens.json.migrated").read_text()) == rows
    assert (tmp_path / "tokens.db").exists()
    users.revoke("alice")
    assert who(Users(old), "a" * 43) is None, "what was revoked does not come back"


def test_a_crash_before_the_renaming_does_no_harm(tmp_path):
    old = tmp_path / "tokens.json"
    old.write_text(json.dumps(OLD))
    Users(old)
    (tmp_path / "tokens.json.migrated").rename(old)
    assert len(Users(old).grants()) == 2


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
def test_a_damaged_token_file_lets_nobody_in_and_is_named(tmp_path, text):
    old = tmp_path / "tokens.json"
    old.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigurationError, match=r"tokens\.json is not a token file"):
        Users(old)
    assert old.read_bytes() == text.encode("latin-1")
