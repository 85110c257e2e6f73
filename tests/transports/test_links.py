"""Links between members of a group: both ends in threads, in clear and in TLS, with strangers and with ends that go."""

import hashlib
import socket
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from syftlite.errors import SendNotPermittedError, SharingAbortedError
from syftlite.transports import links
from syftlite.transports.links import HEADER, MAGIC, PIECE, STOP, LinkServer, dial
from syftlite.transports.peers import PeerLinks
from syftlite.transports.server import tls_of

TAG = b"round  1"
PATIENCE = 20.0


class Ends:
    """A server for links, and how to call it."""

    def __init__(self, certificate):
        self.tls = None if certificate is None else ssl.create_default_context(cafile=certificate[0])
        self.server = LinkServer("127.0.0.1", None if certificate is None else tls_of(*certificate))
        self.pool = ThreadPoolExecutor(8)
        self.made = []

    def dial(self, ticket, port):
        return self.pool.submit(dial, "127.0.0.1", port, ticket, self.tls)

    def pair(self):
        """(dialler's end, acceptor's end)"""
        ticket, port = self.server.invite()
        dialled = self.dial(ticket, port)
        ends = self.server.accept(ticket), dialled.result(PATIENCE)
        self.made += ends
        return ends[::-1]

    def both(self, one, other):
        """The results of two calls at the same time."""
        futures = [self.pool.submit(one), self.pool.submit(other)]
        return [future.result(PATIENCE) for future in futures]

    def raw(self, port):
        """A stranger's connection."""
        return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)

    def close(self):
        self.server.close()
        for link in self.made:
            link.close("the test has ended")
        self.pool.shutdown()


@pytest.fixture(params=["clear", "tls"])
def ends(request, certificate):
    made = Ends(certificate if request.param == "tls" else None)
    yield made
    made.close()


@pytest.fixture
def clear():
    made = Ends(None)
    yield made
    made.close()


# -- what they are for


def test_both_ends_agree_on_a_secret_of_their_own(ends):
    a, b = ends.pair()
    c, d = ends.pair()
    assert a.secret == b.secret and c.secret == d.secret and a.secret != c.secret and len(a.secret) == 32


@pytest.mark.parametrize("numel", [1, 1000, PIECE // 8 - 1, PIECE // 8, PIECE // 8 + 1, 700_001, 1_500_000])
def test_both_send_and_receive_at_once_whatever_the_size(ends, numel):
    a, b = ends.pair()
    x, y = torch.arange(numel), torch.arange(numel) * -3
    for tag in (b"round  1", b"round  2"):
        got_a, got_b = ends.both(lambda tag=tag: a.swap(x, tag), lambda tag=tag: b.swap(y, tag))
        assert torch.equal(got_a, y) and torch.equal(got_b, x)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64])
def test_messages_have_the_others_dtype_and_shape(ends, dtype):
    a, b = ends.pair()
    x = torch.arange(24).view(2, 3, 4).to(dtype)
    got, _ = ends.both(lambda: a.swap(x, TAG), lambda: b.swap(x + 1, TAG))
    assert got.dtype is dtype and torch.equal(got, x + 1)


@pytest.mark.parametrize("asked", [links.BUFFERS, 1 << 10])
def test_buffers_hold_what_both_ends_send_ahead(ends, monkeypatch, asked):
    """So nobody waits to send: all that may be underway passes in both directions while nobody reads."""
    monkeypatch.setattr(links, "BUFFERS", asked)
    pair = ends.pair()
    if asked < PIECE:
        assert [link._ahead for link in pair] == [PIECE, PIECE], "what is granted is little"
        return
    underway = bytes(sum(link._ahead for link in pair))
    ends.both(*[lambda link=link: link._send(memoryview(underway)) for link in pair])


def test_corrections_arrive_by_number_in_any_order_of_use(ends):
    a, b = ends.pair()
    corrections = b.corrections(1 << 30)
    sent = {number: torch.full((size,), number, dtype=torch.uint8) for number, size in ((3, 10), (1, 3 * PIECE), (2, 0), (9, 77))}
    ends.both(lambda: [a.push(data, number) for number, data in sent.items()], lambda: None)
    for number in (9, 1, 2, 3):
        assert torch.equal(corrections(number, len(sent[number])), sent[number])


def test_corrections_wait_until_there_is_room(ends, monkeypatch):
    monkeypatch.setattr(links, "READ_AHEAD", 1000)
    a, b = ends.pair()
    corrections = b.corrections(1 << 30)
    pushing = ends.pool.submit(lambda: [a.push(torch.full((600,), n, dtype=torch.uint8), n) for n in range(50)])
    for n in range(50):
        assert torch.equal(corrections(n, 600), torch.full((600,), n, dtype=torch.uint8))
        assert corrections._held <= 1600
    pushing.result(PATIENCE)


def test_what_waits_goes_with_its_group(ends, monkeypatch):
    """Nothing that was sent ahead stays, nor whoever read it, when nobody asks for it any more."""
    monkeypatch.setattr(links, "READ_AHEAD", 1000)
    before = {t.ident for t in threading.enumerate()}
    a, b = ends.pair()
    corrections = b.corrections(1 << 30)
    (reader,) = [t for t in threading.enumerate() if t.ident not in before and t.name == "corrections"]
    for n in range(4):
        a.push(torch.zeros(600, dtype=torch.uint8), n)
    assert corrections.here(1, PATIENCE), "the second one fills the room there is"
    b.close("the group is over")
    corrections.close("the group is over")
    reader.join(PATIENCE)
    assert not reader.is_alive() and not corrections._kept
    with pytest.raises(SharingAbortedError, match="the provider is gone"):
        corrections(0, 600)


def test_a_provider_that_is_quiet_for_long_is_not_taken_for_gone(ends, monkeypatch):
    """The limit is on being waited for: between two computations an hour may pass."""
    monkeypatch.setattr(links, "TIMEOUT", 0.05)
    a, b = ends.pair()
    corrections = b.corrections(1000)
    threading.Event().wait(0.3)  # not for anything to happen: for nothing to
    monkeypatch.setattr(links, "TIMEOUT", PATIENCE)
    a.push(torch.ones(8, dtype=torch.uint8), 1)
    assert torch.equal(corrections(1, 8), torch.ones(8, dtype=torch.uint8))


# -- what goes wrong between them


@pytest.mark.parametrize("wrong", ["tag", "longer", "shorter"])
def test_a_message_of_another_round_or_size_is_refused(ends, wrong):
    a, b = ends.pair()
    x = torch.arange(10)
    other = {"tag": (x, b"round  2"), "longer": (torch.arange(11), TAG), "shorter": (torch.arange(9), TAG)}[wrong]
    failed = [ends.pool.submit(a.swap, x, TAG), ends.pool.submit(b.swap, *other)]
    for future in failed:
        with pytest.raises(SharingAbortedError, match="out of step"):
            future.result(PATIENCE)


def test_the_other_end_hears_why_one_stops(clear):
    a, b = clear.pair()
    waiting = clear.pool.submit(a.swap, torch.arange(3), TAG)
    b.close("the quota is used up, " * 100)
    with pytest.raises(SharingAbortedError, match="another member stopped: the quota is used up") as info:
        waiting.result(PATIENCE)
    assert len(str(info.value)) < 600
    with pytest.raises(SharingAbortedError):
        a.push(torch.zeros(1 << 20, dtype=torch.uint8), 1)


def test_an_end_that_goes_without_a_word_ends_the_other(ends):
    a, b = ends.pair()
    waiting = ends.pool.submit(a.swap, torch.arange(3), TAG)
    b._socket.shutdown(socket.SHUT_RDWR)
    with pytest.raises(SharingAbortedError, match="broke|stopped|out of step"):
        waiting.result(PATIENCE)


def test_a_silent_end_is_waited_for_no_longer_than_the_limit(ends, monkeypatch):
    monkeypatch.setattr(links, "TIMEOUT", 0.2)
    a, b = ends.pair()
    with pytest.raises(SharingAbortedError, match="no sign of life"):
        ends.pool.submit(a.swap, torch.arange(3), TAG).result(PATIENCE)
    assert b.secret


def test_an_end_that_does_not_read_is_waited_for_no_longer_either(ends, monkeypatch):
    monkeypatch.setattr(links, "TIMEOUT", 0.2)
    a, b = ends.pair()
    with pytest.raises(SharingAbortedError, match="no sign of life"):
        ends.pool.submit(a.push, torch.zeros(64 << 20, dtype=torch.uint8), 1).result(PATIENCE)
    assert b.secret


def test_closing_here_wakes_who_waits_here(ends):
    a, _ = ends.pair()
    waiting = ends.pool.submit(a.swap, torch.arange(3), TAG)
    a.close("enough")
    a.close("twice is as good as once")
    with pytest.raises(SharingAbortedError):
        waiting.result(PATIENCE)


def test_a_correction_of_any_size_is_not_taken(ends):
    a, b = ends.pair()
    corrections = b.corrections(1000)
    a._send(HEADER.pack((1 << 64) - 2, bytes(8)))
    with pytest.raises(SharingAbortedError, match="of at most 1,000"):
        corrections(0, 8)


def test_a_reason_of_any_length_is_cut(clear):
    a, b = clear.pair()
    a._socket.sendall(HEADER.pack(STOP, (1 << 40).to_bytes(8, "little")) + b"x" * 5000)
    with pytest.raises(SharingAbortedError) as info:
        clear.pool.submit(b.swap, torch.arange(3), TAG).result(PATIENCE)
    assert len(str(info.value)) < 600


# -- tickets and strangers


def test_a_ticket_is_for_one_link(ends):
    ticket, port = ends.server.invite()
    first = ends.dial(ticket, port)
    ends.made += [ends.server.accept(ticket), first.result(PATIENCE)]
    with pytest.raises(SharingAbortedError, match="cannot link"):
        ends.dial(ticket, port).result(PATIENCE)
    with pytest.raises(SharingAbortedError, match="unknown, used or too old"):
        ends.server.accept(ticket)


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
    monkeypatch.setattr(links, "STRANGER_SECONDS", 0.2)
    ticket, port = ends.server.invite()
    with ends.raw(port) as stranger:
        stranger.sendall(said)
        assert closed(stranger)
    dialled = ends.dial(ticket, port)
    ends.made += [ends.server.accept(ticket), dialled.result(PATIENCE)]


def test_a_byte_now_and_then_buys_no_time(clear, monkeypatch):
    monkeypatch.setattr(links, "STRANGER_SECONDS", 0.3)
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


# -- a foreign end, from docs/protocol.md alone


def derive(key, *purpose, length=16):
    return HKDF(SHA256(), length, salt=None, info=repr(purpose).encode()).derive(key)


class Foreign:
    """A dialler that shares no code with links.py; ``lie``: spoils its proof, or its name."""

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
        swapped = clear.pool.submit(link.swap, torch.tensor([1, 2]), TAG)
        tag = hashlib.blake2b(b"d" * 16 + (3).to_bytes(4, "little"), digest_size=8).digest()
        sock.sendall((16).to_bytes(8, "little") + TAG + (7).to_bytes(8, "little") + (8).to_bytes(8, "little"))
        assert swapped.result(PATIENCE).tolist() == [7, 8] and len(tag) == 8
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
