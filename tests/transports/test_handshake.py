"""How links begin: tickets and strangers, a foreign end, whom a node calls."""

import contextlib
import errno
import hashlib
import math
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from transports._ends import PATIENCE, TAG, Ends

from syftlite.errors import SendNotPermittedError, SharingAbortedError
from syftlite.transports import handshake, links
from syftlite.transports.handshake import MAGIC, dial
from syftlite.transports.links import STOP
from syftlite.transports.peers import PeerLinks

# -- tickets and strangers


def test_a_ticket_is_for_one_link(ends):
    ticket, port = ends.server.invite()
    first = ends.dial(ticket, port)
    ends.made += [ends.server.accept(ticket), first.result(PATIENCE)]
    with pytest.raises(SharingAbortedError, match="cannot link"):
        ends.dial(ticket, port).result(PATIENCE)
    with pytest.raises(SharingAbortedError, match="unknown, used or too old"):
        ends.server.accept(ticket)


def test_of_those_who_come_with_one_ticket_one_has_a_link(ends, monkeypatch):
    """Also before anybody has taken it: otherwise one ticket would hold any number of descriptors."""
    monkeypatch.setattr(links, "TIMEOUT", 2.0)
    ticket, port = ends.server.invite()
    told = []
    for dialled in [ends.dial(ticket, port) for _ in range(4)]:
        with pytest.raises(SharingAbortedError) as caught:
            ends.made.append(dialled.result(PATIENCE))
            ends.made[-1].swap([torch.zeros(1, dtype=torch.int64)], TAG)
        told.append(str(caught.value))
    assert sum("no sign of life" in why for why in told) == 1, "nobody has taken that one yet, and the others are closed"
    ends.made.append(ends.server.accept(ticket))
    assert [link.secret for link in ends.made].count(ends.made[-1].secret) == 2


def test_a_wrong_ticket_opens_nothing(ends):
    ticket, port = ends.server.invite()
    with pytest.raises(SharingAbortedError, match="cannot link"):
        ends.dial("x" * 43, port).result(PATIENCE)
    ends.made.append(ends.dial(ticket, port))
    assert ends.server.accept(ticket).secret == ends.made.pop().result(PATIENCE).secret, "the right one still does"


def test_a_member_that_does_not_come_is_not_waited_for(clear, monkeypatch):
    monkeypatch.setattr(links, "TIMEOUT", 0.1)
    ticket, _ = clear.server.invite()
    with pytest.raises(SharingAbortedError, match="did not come"):
        clear.server.accept(ticket)
    with pytest.raises(SharingAbortedError, match="unknown"):
        clear.server.accept(ticket)


def test_nobody_there(clear):
    port = clear.server.invite()[1]
    clear.server.close()
    with pytest.raises(SharingAbortedError, match="cannot link to the group's member at 127.0.0.1"):
        dial("127.0.0.1", port, "t" * 43, None)


def test_strangers_that_hold_all_descriptors_end_nothing(clear, monkeypatch):
    """`accept` fails while there is no descriptor left; afterwards members link as before."""
    ticket, port = clear.server.invite()
    failed, real = threading.Semaphore(0), socket.socket.accept

    def accept(listener):
        if failed._value < 3:
            failed.release()
            raise OSError(errno.EMFILE, "too many open files")
        return real(listener)

    monkeypatch.setattr(handshake, "AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(socket.socket, "accept", accept)
    clear.made.append(clear.dial(ticket, port))  # wakes whoever is in the real one
    with contextlib.suppress(SharingAbortedError):
        clear.made += [clear.server.accept(ticket), clear.made.pop().result(PATIENCE)]
    again, port = clear.server.invite()
    found = clear.dial(again, port)
    clear.made += [clear.server.accept(again), found.result(PATIENCE)]
    assert failed._value == 3


def closed(sock):
    """Whether the other end closes without having said anything but an alert of TLS."""
    try:
        while said := sock.recv(100):
            assert said[0] == 21
    except ConnectionResetError:
        pass
    return True


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\n\r\n", MAGIC, bytes(111), MAGIC + b"\xff" * 107, MAGIC + b"x" * 107])
def test_strangers_are_shown_the_door(ends, monkeypatch, said):
    """Silent, of another protocol, half a hello, garbage, no ASCII, an unknown ticket."""
    ticket, port = ends.server.invite()
    with monkeypatch.context() as hurried:
        hurried.setattr(handshake, "STRANGER_SECONDS", 0.2)
        with ends.raw(port) as stranger:
            stranger.sendall(said)
            assert closed(stranger)
    dialled = ends.dial(ticket, port)
    ends.made += [ends.server.accept(ticket), dialled.result(PATIENCE)]


def test_a_byte_now_and_then_buys_no_time(clear, monkeypatch):
    monkeypatch.setattr(handshake, "STRANGER_SECONDS", 0.3)
    _, port = clear.server.invite()
    with clear.raw(port) as stranger:
        stranger.settimeout(0.02)
        for _ in range(1000):
            try:
                stranger.sendall(b"S")
                if stranger.recv(1) == b"":
                    return
            except TimeoutError:
                continue
            except OSError:
                return
        pytest.fail("a thousand bytes were waited for, one by one")


def test_only_so_many_strangers_are_listened_to(clear, monkeypatch):
    monkeypatch.setattr(clear.server, "_strangers", threading.BoundedSemaphore(3))
    ticket, port = clear.server.invite()
    silent = [clear.raw(port) for _ in range(3)]
    with clear.raw(port) as one_more:
        assert closed(one_more)
    for stranger in silent:
        stranger.close()
    while True:  # their places are free again as soon as their ends have been seen
        dialled = clear.dial(ticket, port)
        if dialled.exception(PATIENCE) is None:
            break
    clear.made += [clear.server.accept(ticket), dialled.result()]


def test_a_flood_of_invitations_forgets_the_oldest(clear):
    first, _ = clear.server.invite()
    for _ in range(1000):
        clear.server.invite()
    with pytest.raises(SharingAbortedError, match="too old"):
        clear.server.accept(first)


@pytest.fixture
def wait_asked(clear, monkeypatch):
    """Has the time pass in which who was invited must be asked for. The server looks at its watch every twentieth of a second."""
    ahead = [0.0]
    monkeypatch.setattr(handshake, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + ahead[0]))
    with monkeypatch.context() as at_first:
        at_first.setattr(handshake, "ASKED_SECONDS", 0.1)
        clear.server.invite()
    return lambda: ahead.__setitem__(0, ahead[0] + handshake.ASKED_SECONDS + 1.0)


def until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.parametrize("came", [False, True])
def test_whom_nobody_asks_for_is_let_go_in_time(clear, wait_asked, came):
    ticket, port = clear.server.invite()
    late = clear.dial(ticket, port).result(PATIENCE) if came else None
    wait_asked()
    until(lambda: not clear.server._open)  # nobody has to invite again, or come
    with pytest.raises(SharingAbortedError, match="too old"):
        clear.server.accept(ticket)
    if late is None:
        with pytest.raises(SharingAbortedError):
            clear.dial(ticket, port).result(PATIENCE)
    else:
        with pytest.raises(SharingAbortedError, match="nobody waits for it any more"):
            late.swap([torch.zeros(1, dtype=torch.int64).numpy()], TAG)


def test_whoever_is_asked_for_in_time_may_come_later(clear, wait_asked):
    other, _ = clear.server.invite()
    ticket, port = clear.server.invite()
    with ThreadPoolExecutor(1) as pool:
        accepted = pool.submit(clear.server.accept, ticket)
        until(lambda: clear.server._open[ticket].until == math.inf)
        wait_asked()
        until(lambda: other not in clear.server._open)
        clear.made.append(clear.dial(ticket, port).result(PATIENCE))
        clear.made.append(accepted.result(PATIENCE))


# -- a foreign end, from docs/protocol.md alone


def derive(key, *purpose, length=16):
    return HKDF(SHA256(), length, salt=None, info=repr(purpose).encode()).derive(key)


class Foreign:
    """A dialler that shares no code with handshake.py; ``lie``: spoils its proof, or its name."""

    def __init__(self, sock, ticket, *, lie=""):
        private = X25519PrivateKey.generate()
        mine = private.public_key().public_bytes_raw() + bytes(range(32))
        sock.sendall(b"SYFT" + ticket.encode() + mine)
        answer = b""
        while len(answer) < 176 and (part := sock.recv(176 - len(answer))):
            answer += part
        key = private.exchange(X25519PublicKey.from_public_bytes(answer[:32]))
        self.secret = derive(key, "link", ticket, mine + answer[:64], length=32)
        assert answer[64:80] == derive(self.secret, "proof", "acceptor")
        signed = b"syftlite link " + derive(self.secret, "name", "acceptor", length=32)
        Ed25519PublicKey.from_public_bytes(answer[80:112]).verify(answer[112:], signed)
        key = Ed25519PrivateKey.generate()
        self.name = key.public_key().public_bytes_raw()
        signature = key.sign(b"syftlite link " + derive(self.secret, "name", "dialler", length=32))
        proof = derive(self.secret, "proof", "dialler")
        said = {"": (proof, signature), "proof": (bytes(16), signature), "name": (proof, key.sign(b"syftlite link"))}[lie]
        sock.sendall(said[0] + self.name + said[1])


def test_the_documented_handshake_and_messages(clear):
    ticket, port = clear.server.invite()
    with clear.raw(port) as sock:
        foreign = Foreign(sock, ticket)
        link = clear.server.accept(ticket)
        clear.made.append(link)
        assert link.secret == foreign.secret and link.member == foreign.name
        swapped = clear.pool.submit(link.swap, [torch.tensor([1, 2])], TAG)
        tag = hashlib.blake2b(b"d" * 16 + (3).to_bytes(4, "little"), digest_size=8).digest()
        sock.sendall((16).to_bytes(8, "little") + TAG + (7).to_bytes(8, "little") + (8).to_bytes(8, "little"))
        assert swapped.result(PATIENCE)[0].tolist() == [7, 8] and len(tag) == 8
        assert sock.recv(32, socket.MSG_WAITALL) == (16).to_bytes(8, "little") + TAG + (1).to_bytes(8, "little") + (2).to_bytes(8, "little")
        sock.sendall(STOP.to_bytes(8, "little") + (4).to_bytes(8, "little") + b"rain")
        with pytest.raises(SharingAbortedError, match="stopped: rain"):
            clear.pool.submit(link.swap, torch.tensor([1]), TAG).result(PATIENCE)


@pytest.mark.parametrize("lie", ["proof", "name"])
def test_a_wrong_proof_opens_nothing(clear, monkeypatch, lie):
    ticket, port = clear.server.invite()
    with clear.raw(port) as sock:
        Foreign(sock, ticket, lie=lie)
        assert closed(sock)
    monkeypatch.setattr(links, "TIMEOUT", 0.1)
    with pytest.raises(SharingAbortedError, match="did not come"):
        clear.server.accept(ticket)


def test_whoever_answers_without_the_proof_is_not_believed():
    """Somebody who has the port but not the ticket, as after a restart, or an end that answers with its own key for another's."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:

        def impostor():
            sock, _ = listener.accept()
            with sock:
                sock.recv(111, socket.MSG_WAITALL)
                sock.sendall(X25519PrivateKey.generate().public_key().public_bytes_raw() + bytes(32) + bytes(16) + bytes(96))
                return sock.recv(1)

        served = pool.submit(impostor)
        with pytest.raises(SharingAbortedError, match="proof is wrong"):
            dial("127.0.0.1", listener.getsockname()[1], "t" * 43, None)
        assert served.result(PATIENCE) == b"", "nothing was sent to it"


def test_a_public_key_of_small_order_is_refused():
    """It would make the agreed secret one that everybody knows."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:

        def impostor():
            sock, _ = listener.accept()
            with sock:
                sock.recv(111, socket.MSG_WAITALL)
                sock.sendall(bytes(80))

        served = pool.submit(impostor)
        with pytest.raises(SharingAbortedError, match="cannot link"):
            dial("127.0.0.1", listener.getsockname()[1], "t" * 43, None)
        served.result(PATIENCE)


# -- whom a node calls


def test_a_node_dials_only_whom_its_owner_allows():
    peers = PeerLinks(["wss://lab.example:8777"])
    for uri in ("ws://127.0.0.1:1", "wss://elsewhere.example:8777", "http://lab.example"):
        with pytest.raises(SendNotPermittedError, match=r"peers=\["):
            peers.dial(uri, 1, "t" * 43)
    with pytest.raises(SendNotPermittedError, match="in clear"):
        PeerLinks(["ws://lab.example:8777"]).dial("ws://lab.example:8777", 1, "t" * 43)


def test_a_certificate_for_somebody_else_is_refused(certificate):
    ends = Ends(certificate)
    try:
        ticket, port = ends.server.invite()
        with pytest.raises(SharingAbortedError, match="(?i)certificate"):
            dial("127.0.0.1", port, ticket, ssl.create_default_context())
        with pytest.raises(SharingAbortedError, match="cannot link"):
            dial("127.0.0.1", port, ticket, None)  # in clear
    finally:
        ends.close()
