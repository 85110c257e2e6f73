"""TLS: what a node beyond loopback needs."""

import socket

import pytest
import torch

import syftlite as sy
from syftlite.errors import AuthenticationError, ConfigurationError, ConnectionLostError

TOKEN = "t" * 43


@pytest.fixture
def tls_node(certificate):
    cert, key = certificate
    node = sy.WebsocketServerWorker(
        host="0.0.0.0", port=0, id="tls-node", cert_path=cert, key_path=key, tokens={"carol": TOKEN}
    ).start(wait=False)
    yield node
    node.close()


def test_a_session_over_tls(tls_node, certificate):
    # In one process a node and its client cannot share the registry's name: connect below the worker's face.
    import ssl

    from syftlite.transports.client import SocketTransport

    context = ssl.create_default_context(cafile=certificate[0])
    transport = SocketTransport(f"wss://127.0.0.1:{tls_node.port}", TOKEN, tls=context)
    worker = sy.BaseWorker("over-tls", transport)
    x = torch.randn(700_000)
    pointer = x.send(worker)
    assert torch.equal((pointer * 2).get(), x * 2) and torch.equal(pointer.get(), x)
    assert (transport.principal, transport.role) == ("carol", "scientist")
    worker.close()
    with pytest.raises(AuthenticationError):
        SocketTransport(f"wss://127.0.0.1:{tls_node.port}", "wrong", tls=context)


def test_an_unknown_certificate_is_refused(tls_node):
    with pytest.raises(ConnectionLostError, match=r"certificate.* name the file of it: ca="):
        sy.connect(f"wss://127.0.0.1:{tls_node.port}", token=TOKEN)


def test_what_is_wrong_with_an_address_or_a_certificate_is_said(tls_node, certificate):
    for host, ca, error, told in [
        ("127.0.0.2", certificate[0], ConnectionLostError, "Use an address that its certificate names"),
        ("127.0.0.1", "nowhere.crt", ConfigurationError, "cannot read the certificate nowhere.crt: No such file"),
    ]:
        with pytest.raises(error, match=told):
            sy.connect(f"wss://{host}:{tls_node.port}", token=TOKEN, ca=ca)
    plain = sy.WebsocketServerWorker(id="no-tls", port=0).start(wait=False)
    with pytest.raises(ConnectionLostError, match="begins with ws://"):
        sy.connect(f"wss://127.0.0.1:{plain.port}", token=TOKEN, ca=certificate[0], timeout=5)
    plain.close()


def test_plain_bytes_to_the_tls_port_are_refused(tls_node):
    with pytest.raises(ConnectionLostError, match="begins with wss://"):
        sy.connect(f"ws://127.0.0.1:{tls_node.port}", token=TOKEN, timeout=5)
    with socket.create_connection(("127.0.0.1", tls_node.port), timeout=10) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\n\r\n")
        try:
            assert b"HTTP" not in raw.recv(100)
        except ConnectionResetError:
            pass


def test_half_a_pair_is_named(certificate):
    with pytest.raises(ConfigurationError, match="both"):
        sy.WebsocketServerWorker(id="half", port=0, cert_path=certificate[0])
    with pytest.raises(ConfigurationError, match="cannot use certificate"):
        sy.WebsocketServerWorker(id="half", port=0, cert_path=certificate[0], key_path="/nowhere")


def test_an_address_that_is_none():
    for uri in ("http://host:1", "hospital", "ws://"):
        with pytest.raises(ConfigurationError, match="wss://host:8777"):
            sy.connect(uri)
