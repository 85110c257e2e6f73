"""Identity over real sockets: keys over TLS and loopback, revocation that closes what is open."""

import ssl

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import syftlite as sy
from syftlite.engine.session import Role
from syftlite.errors import AuthenticationError, ConfigurationError, ConnectionLostError
from syftlite.remote import registry
from syftlite.storage.keys import key_of, load_key, new_key, public_of
from syftlite.storage.users import Users
from syftlite.transports import server
from syftlite.transports.client import SocketTransport
from syftlite.wire import messages as m


@pytest.fixture(autouse=True)
def often(monkeypatch):
    monkeypatch.setattr(server, "REVIEW_SECONDS", 0.02)


@pytest.fixture
def key(tmp_path):
    return new_key(tmp_path / "alice.key")


@pytest.fixture
def users(tmp_path, key):
    users = Users(tmp_path / "node.db")
    users.add_key("alice", public_of(key))
    return users


@pytest.fixture(params=["loopback", "tls"])
def place(request, users, certificate):
    """(a running node, how to call it)"""
    secure = request.param == "tls"
    cert, keyfile = certificate if secure else (None, None)
    node = sy.WebsocketServerWorker(id="kept", port=0, cert_path=cert, key_path=keyfile, tokens=users, announce=False).start(wait=False)
    context = ssl.create_default_context(cafile=cert) if secure else None
    yield node, context
    node.close()


def reach(place, secret):
    node, context = place
    return SocketTransport(node.uri, secret, tls=context)


def test_a_key_opens_a_session_that_works(place, key):
    transport = reach(place, key)
    worker = sy.BaseWorker(f"by-key{id(key)}", transport)
    assert transport.principal == "alice"
    assert torch.equal((torch.ones(2).send(worker) + 1).get(), torch.full((2,), 2.0))
    transport.close()


def test_another_key_does_not(place):
    with pytest.raises(AuthenticationError, match="unknown, revoked or expired"):
        reach(place, Ed25519PrivateKey.generate())


def ended(transport):
    """Wait for the node to end the session; what it said."""
    with pytest.raises(ConnectionLostError) as lost:
        while True:
            transport.ask(m.SYNC)
    return str(lost.value)


def test_revoking_closes_what_is_open_and_leaves_others(place, users, key):
    token = users.new("bob")
    by_key, by_token, other = reach(place, key), reach(place, token), reach(place, users.new("carol"))
    users.revoke("bob")
    assert "revoked or has expired" in ended(by_token)
    users.revoke_key(public_of(key).hex())
    assert "revoked or has expired" in ended(by_key)
    other.ask(m.SYNC)
    other.close()
    for secret in (token, key):
        with pytest.raises(AuthenticationError):
            reach(place, secret)
    events = [(event, record["principal"]) for event, record in place[0].engine.journal.events if event == "cut off"]
    assert events == [("cut off", "bob"), ("cut off", "alice")]


def test_it_ends_with_its_token(certificate):
    now = [0.0]
    users = Users(clock=lambda: now[0])
    token = users.new("alice", days=1)
    node = sy.WebsocketServerWorker(id="kept", port=0, tokens=users, announce=False).start(wait=False)
    transport = SocketTransport(node.uri, token)
    transport.ask(m.SYNC)
    now[0] = 86_400.0
    assert "expired" in ended(transport)
    node.close()


def test_connect_takes_the_file_of_a_key(users, tmp_path):
    node = sy.WebsocketServerWorker(id="kept", port=0, tokens=users, announce=False).start(wait=False)
    registry.forget(node)  # in one process a node and its client cannot share the registry's name
    worker = sy.connect(node.uri, key=tmp_path / "alice.key")
    assert (worker.principal, worker.transport.role) == ("alice", Role.SCIENTIST.value)
    worker.close()
    with pytest.raises(ConfigurationError, match="'kept', not 'other'"):
        sy.connect(node.uri, id="other", key=tmp_path / "alice.key")
    sy.connect(node.uri, id="kept", key=tmp_path / "alice.key").close()
    node.close()


def test_a_key_file_must_be_a_key_and_its_user_s_alone(tmp_path):
    path = tmp_path / "k" / "node.key"
    key = key_of(path)
    assert path.stat().st_mode & 0o777 == 0o600 and public_of(load_key(path)) == public_of(key) == public_of(key_of(path))
    with pytest.raises(ConfigurationError, match="there already"):
        new_key(path)
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="read by others"):
        load_key(path)
    path.write_text("no key")
    path.chmod(0o600)
    for wrong in (path, tmp_path / "missing"):
        with pytest.raises(ConfigurationError, match="no private key"):
            load_key(wrong)
