"""Who may send what: default deny by role and scope; key logins bound to one connection; nothing runs for who is refused."""

import itertools

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from syftlite.engine.access import PERMISSIONS, ROLES, Admission, kinds_of
from syftlite.engine.door import Door
from syftlite.engine.engine import Engine
from syftlite.engine.session import Principal, Role
from syftlite.errors import AuthenticationError, NotOwnerError, ProtocolError, ProtocolVersionError, code_of
from syftlite.ops.table import VERSION
from syftlite.storage.users import Users
from syftlite.testing.peer import Peer
from syftlite.wire import login
from syftlite.wire import messages as m
from syftlite.wire.connection import State

SESSION_KINDS = set(m.FROM_CLIENT) - {m.HELLO, m.AUTH, m.CHUNK}


class Counted(Engine):
    """An engine that remembers what it was asked to do."""

    def __init__(self, name="clinic"):
        self.handled = []
        super().__init__(name)

    def handle(self, session, message):
        self.handled.append(message)
        return super().handle(session, message)


@pytest.fixture
def engine():
    return Counted()


# -- roles and scopes


def test_every_message_has_one_permission():
    """A message that stands nowhere is refused to everyone: add new ones to engine/access.py."""
    for kind in SESSION_KINDS:
        assert sum(kind in kinds for kinds in PERMISSIONS.values()) == 1, m.FROM_CLIENT[kind].name
    assert set().union(*PERMISSIONS.values()) == SESSION_KINDS


def test_roles_differ_as_they_say():
    assert kinds_of(Role.OWNER) == SESSION_KINDS
    assert SESSION_KINDS - kinds_of(Role.SCIENTIST) == PERMISSIONS["store"] | PERMISSIONS["decide"]
    for role in (Role.PEER, Role.PROVIDER, Role.AUDITOR):
        assert not kinds_of(role) & {m.GET, m.ASK, m.FIND, m.OP, m.FILE, m.STORE, m.DECIDE}, "reads nothing, decides nothing"
    assert m.DEAL not in kinds_of(Role.PEER) and m.COMPUTE not in kinds_of(Role.AUDITOR)
    assert set(ROLES) == set(Role)


@pytest.mark.parametrize("role", list(Role))
def test_what_a_role_may_not_send_never_runs(engine, monkeypatch, role):
    ran = []
    for kind in SESSION_KINDS - {m.OP}:
        monkeypatch.setitem(engine._handlers, kind, lambda session, *fields, kind=kind: ran.append(kind))
    monkeypatch.setattr("syftlite.engine.executor.run", lambda *args: ran.append(m.OP))
    for kind in SESSION_KINDS:
        ran.clear()
        session = engine.open_session(Principal("ann", role))
        message = (kind, *range(1, len(m.FROM_CLIENT[kind].fields) + 1))
        if kind in kinds_of(role):
            engine.handle(session, message)
            assert ran == [kind]
        elif kind in m.ANSWERED:
            answer = engine.handle(session, message)
            assert answer[:3] == (m.ERROR, 1, code_of(NotOwnerError())) and not ran
        else:
            with pytest.raises(ProtocolError, match="ann"):
                engine.handle(session, message)
            assert not ran


def test_a_scope_narrows_a_role_and_never_widens_it(engine):
    assert kinds_of(Role.AUDITOR, frozenset({"decide", "requests"})) == kinds_of(Role.AUDITOR)
    session = engine.open_session(Principal("ann", Role.SCIENTIST), frozenset({"find"}))
    assert session.kinds == PERMISSIONS["find"] | PERMISSIONS["session"]
    text = engine.handle(session, (m.GET, 1, [], True, None))[3]
    assert "ann's token does not cover 'release'" in text
    assert "only the owner may do this, and ann is a scientist" in engine.handle(session, (m.DECIDE, 1, "x", True, ""))[3]


# -- logging in


def public(key):
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


class Login(Peer):
    """A client that logs in by ``key``, step by step."""

    def __init__(self, engine, users, key, channel=b"", seen=None):
        super().__init__(engine, shake=False)
        self.door = Door(engine, users.authenticate, channel)
        self.key, self.seen = key, channel if seen is None else seen
        self.node = engine.name
        self.offered, self.chosen = m.PROTOCOLS, m.PROTOCOLS[0]

    def claim(self, nonce=None):
        self.mine = nonce or login.nonce()
        self.say((m.HELLO, self.offered, VERSION, "none"))
        (answer,) = self.say((m.AUTH, "key", f"{public(self.key).hex()}:{self.mine}"))
        return answer

    def proof(self, theirs, **changed):
        fields = {"node": self.node, "channel": self.seen, "client_nonce": self.mine, "node_nonce": theirs, "public": public(self.key)}
        fields |= {"offered": self.offered, "chosen": self.chosen} | changed
        return self.key.sign(login.transcript(**fields)).hex()

    def log_in(self, **changed):
        kind, theirs = self.claim()
        assert kind == m.CHALLENGE
        return self.say((m.AUTH, "proof", self.proof(theirs, **changed)))[0]


@pytest.fixture
def key():
    return Ed25519PrivateKey.generate()


@pytest.fixture
def users(key):
    users = Users()
    users.add_key("alice", public(key), scope=["find"])
    return users


def refused(engine, answer):
    assert answer[:3] == (m.ERROR, 0, code_of(AuthenticationError())), answer
    assert engine.handled == [] and list(engine.sessions) == [engine.vault.prefix], "refused before anything ran"


def test_who_owns_a_known_key_is_let_in_within_its_scope(engine, users, key):
    client = Login(engine, users, key, b"certificate")
    welcome = client.log_in()
    assert welcome[0] == m.WELCOME and welcome[2:4] == ("alice", "scientist")
    assert client.door.session.kinds == kinds_of(Role.SCIENTIST, frozenset({"find"}))
    assert client.door.credential in users.current()
    assert engine.journal.events[-1] == ("connected", {"principal": "alice", "role": "scientist", "scheme": "key"})


def test_every_part_of_what_is_signed_matters(engine, users, key):
    changes = {
        "node": "another", "channel": b"another certificate", "client_nonce": login.nonce(), "node_nonce": login.nonce(),
        "public": bytes(32), "offered": (1, 2), "chosen": 0,
    }  # fmt: skip
    for name, value in changes.items():
        refused(engine, Login(engine, users, key, b"certificate").log_in(**{name: value}))
    assert Login(engine, users, key, b"certificate").log_in()[0] == m.WELCOME


def test_an_unknown_key_and_a_wrong_signature_answer_alike(engine, users, key):
    unknown = Login(engine, users, Ed25519PrivateKey.generate()).log_in()
    client = Login(engine, users, key)
    client.claim()
    wrong = client.say((m.AUTH, "proof", "00" * 64))[0]
    assert unknown == wrong
    refused(engine, unknown)


def test_a_signature_from_another_connection_is_worth_nothing(engine, users, key):
    first = Login(engine, users, key)
    _, theirs = first.claim()
    proof = first.proof(theirs)
    second = Login(engine, users, key)
    second.claim(nonce=first.mine)
    refused(engine, second.say((m.AUTH, "proof", proof))[0])
    assert first.say((m.AUTH, "proof", proof))[0][0] == m.WELCOME


def test_someone_between_with_a_certificate_of_his_own_cannot_pass_it_on(engine, users, key):
    refused(engine, Login(engine, users, key, channel=b"the node's", seen=b"the one between's").log_in())


def test_it_is_tried_once_a_connection(engine, users, key):
    client = Login(engine, users, key)
    client.claim()
    refused(engine, client.say((m.AUTH, "key", f"{public(key).hex()}:{login.nonce()}"))[0])
    refused(engine, client.say((m.AUTH, "proof", "00" * 64))[0] if client.door.closing is None else (m.ERROR, 0, code_of(AuthenticationError())))


@pytest.mark.parametrize(
    ("scheme", "secret"),
    [("proof", "00" * 64), ("key", ""), ("key", "aa:bb"), ("key", "zz" * 32 + ":" + "00" * 32), ("key", "00" * 32), ("token", ""), ("", ""), ("ticket", "x")],
)
def test_what_is_no_login_is_refused(engine, users, key, scheme, secret):
    client = Login(engine, users, key)
    client.say((m.HELLO, m.PROTOCOLS, VERSION, "none"))
    refused(engine, client.say((m.AUTH, scheme, secret))[0])


def test_revoked_and_expired_keys_are_unknown(engine, users, key):
    users.revoke_key(public(key).hex())
    refused(engine, Login(engine, users, key).log_in())
    now = [0.0]
    late = Users(clock=lambda: now[0])
    late.add_key("alice", public(key), days=1)
    now[0] = 86_400.0
    refused(engine, Login(engine, late, key).log_in())


def test_a_version_that_is_not_spoken_is_refused_and_nothing_before_the_handshake_runs(engine, users, key):
    client = Login(engine, users, key)
    (answer,) = client.say((m.HELLO, [0, 7], VERSION, "none"))
    assert answer[:3] == (m.ERROR, 0, code_of(ProtocolVersionError()))
    for early in ((m.GET, 1, [5], True, None), (m.AUTH, "token", "x")):
        client = Login(engine, users, key)
        (answer,) = client.say(early)
        assert answer[:3] == (m.ERROR, 0, code_of(ProtocolError()))
    assert engine.handled == []


def test_a_session_without_the_right_to_compute_is_ended_by_an_operator(engine, users, key):
    client = Login(engine, users, key)
    welcome = client.log_in()
    client.connection.state, client.connection.session = State.OPEN, welcome[1]
    (answer,) = client.say((m.PUT, (welcome[1] << 32) + 1, torch.ones(2), [], ""))
    assert answer[0] == m.ERROR and "does not cover 'compute'" in answer[3] and client.door.closing


def test_negative_control_a_transcript_without_the_channel_would_be_passed_on(engine, users, key, monkeypatch):
    real = login.transcript
    monkeypatch.setattr(login, "transcript", lambda node, channel, *rest, **kw: real(node, b"", *rest, **kw))
    assert Login(engine, users, key, channel=b"the node's", seen=b"the one between's").log_in()[0] == m.WELCOME


def test_admissions_by_ticket_and_by_program_cannot_be_revoked_and_others_name_their_credential(users):
    token = users.new("bob")
    assert users.authenticate("token", token).credential.startswith("token:")
    assert Admission(Principal("bob", Role.SCIENTIST)).credential == "" and len(list(itertools.islice(users.current(), 5))) == 2
