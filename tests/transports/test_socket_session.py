"""A session over a real websocket: the client's shell and the node's, in one process or several."""

import asyncio
import gc
import itertools
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from websockets.protocol import State
from websockets.server import ServerProtocol

import syftlite as sy
from syftlite.errors import (
    AuthenticationError,
    ConfigurationError,
    ConnectionLostError,
    ForkedConnectionError,
    IdNotUniqueError,
    ObjectNotFoundError,
    OperatorNotReviewedError,
    ProtocolVersionError,
    QuotaExceededError,
)
from syftlite.remote.handle import HEAVY
from syftlite.storage.tokens import discover
from syftlite.transports import socket as sockets
from syftlite.transports.client import SocketTransport
from syftlite.transports.socket import WebsocketClient
from syftlite.wire import messages as m
from syftlite.wire.fields import MAX_ITEMS


@pytest.fixture
def session(node):
    """A scientist's transport to ``node``: several may share a process, unlike workers, whose ids are unique."""
    opened = []

    def connect(role="scientist", **options):
        opened.append(SocketTransport(node.uri, discover("127.0.0.1", node.port, role), **options))
        return opened[-1]

    yield connect
    for transport in opened:
        transport.close()


@pytest.fixture
def remote(session):
    """A worker over a socket, under a name of its own."""
    return Remote(session())


class Remote(sy.BaseWorker):
    def __init__(self, transport):
        super().__init__(f"remote{id(transport)}", transport)


def wait_until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.001)


def state_of(pid):
    """The state letter of a process, as the kernel tells it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2]
    except (FileNotFoundError, ProcessLookupError):
        return "gone"


def test_of_a_chain_of_large_results_a_node_keeps_two_at_a_time(remote, node):
    """Although their messages go together: hundreds of results would take its memory, and find its caches cold."""
    x = torch.zeros(HEAVY // 4).send(remote)
    assert x.get_copy()[0] == 0
    session = node.engine.sessions[remote.transport.prefix]
    session.max_bytes = session.used + 3 * x.nbytes
    for _ in range(100):
        x = x + 1
    assert x.get_copy()[0] == 100 and session.used <= session.max_bytes
    remote.transport.flush()
    kept = [x + 1 for _ in range(5)]
    with pytest.raises(QuotaExceededError):
        kept[-1].get()


def test_what_is_dropped_in_any_number_is_not_counted(remote):
    x = torch.ones(2).send(remote)
    remote.drops.extend([remote.next_id()] * 2 * MAX_ITEMS)  # of nothing, but before what goes now
    del x
    assert remote.objects_count() == 0


def test_a_program_runs_there(remote):
    x = torch.arange(6.0).reshape(2, 3).send(remote)
    model = torch.nn.Linear(3, 2).send(remote)
    optimizer = torch.optim.Adam(model.parameters())
    for _ in range(3):
        optimizer.zero_grad()
        loss = model(x).pow(2).mean()
        loss.backward()
        optimizer.step()
    assert loss.item() > 0
    assert model.get().weight.shape == (2, 3)
    with pytest.raises(IndexError, match=r"test_socket_session\.py:\d+"):
        torch.nn.functional.embedding(torch.tensor([9]).send(remote), x).get()
    assert torch.equal(x.get(), torch.arange(6.0).reshape(2, 3))


@pytest.mark.parametrize("numel", [0, 1, 16_384, 16_385, 300_000, 1_500_000])
def test_tensors_of_all_sizes_cross(remote, numel):
    x = torch.randn(numel)
    pointer = x.send(remote)
    assert torch.equal((pointer + 0).get(), x)
    assert torch.equal(pointer.get(), x)


def test_objects_go_when_pointers_do(remote, node):
    x = torch.ones(3).send(remote)
    for _ in range(1000):
        y = x + 1
    del x, y
    gc.collect()
    wait_until(lambda: node.objects_count() == 0)


@pytest.mark.parametrize("numel", [1000, 600_000])
def test_what_is_deleted_makes_room_for_what_is_sent_next(remote, node, numel):
    session = node.engine.sessions[remote.transport.prefix]
    session.max_bytes = 6 * numel
    for value in range(3):
        x = torch.full((numel,), float(value)).send(remote)
        assert x[-1].get() == value
        del x


def test_what_nobody_flushes_is_flushed(remote, node):
    x = torch.ones(3).send(remote)
    wait_until(lambda: node.objects_count() == 1)
    x.add_(1)
    engine = node.engine.sessions[remote.transport.prefix]
    wait_until(lambda: engine.executed >= 2)
    assert x.id_at_location in engine.objects


def test_threads_share_a_session(remote):
    wrong = []

    def work(value):
        x = torch.full((50_000,), float(value)).send(remote)
        for i in range(50):
            got = (x + i).get()
            if not torch.equal(got, torch.full((50_000,), float(value + i))):
                wrong.append((value, i))

    threads = [threading.Thread(target=work, args=(v,)) for v in range(6)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert not wrong


def test_many_clients_each_in_its_own_namespace(session, node):
    workers = [Remote(session()) for _ in range(30)]
    pointers = [torch.full((2,), float(i)).send(w) for i, w in enumerate(workers)]
    assert [p.get_copy()[0].item() for p in pointers] == list(range(30))
    foreign = pointers[1].id_at_location
    with pytest.raises(ObjectNotFoundError) as foreign_error:
        workers[0].ask(m.GET, [foreign], False, None)
    with pytest.raises(ObjectNotFoundError) as missing_error:
        workers[0].ask(m.GET, [foreign + 10_000], False, None)
    assert str(foreign_error.value).replace(str(foreign), "") == str(missing_error.value).replace(str(foreign + 10_000), "")
    assert len(node.engine.sessions) == 32


@pytest.mark.parametrize("numel", [2, 1 << 20])
def test_whoever_sends_when_the_end_is_met_is_told_of_it_too(session, numel, monkeypatch):
    transport = session()

    def stumble(frames):
        transport._fail(ConnectionLostError("the node left"))  # the thread that reads
        raise IndexError("pop from an empty deque")

    for within in ("send", "send_all"):
        monkeypatch.setattr(transport._socket, within, stumble)
    with pytest.raises(ConnectionLostError, match=r"the node left\. Pointers"):
        transport.put((transport.prefix << 32) + 1, torch.zeros(numel), (), "")
        transport.flush()


def test_a_session_ends_with_its_connection(session, node):
    before = len(node.engine.sessions)
    transport = session()
    worker = Remote(transport)
    x = torch.ones(2).send(worker)
    x.get_copy()
    transport.close()
    wait_until(lambda: len(node.engine.sessions) == before)
    for use in (lambda: x + 1, x.get, lambda: torch.ones(1).send(worker)):
        with pytest.raises(ConnectionLostError, match="connect again"):
            use()
    assert "PointerTensor" in repr(x)


def test_others_go_on_while_a_session_closes(session, node, monkeypatch):
    """It may have a million objects, and its last record may wait for the disk."""
    close, closing, go_on = node.engine.close_session, threading.Event(), threading.Event()

    def slow(ended):
        closing.set()
        assert go_on.wait(60)
        close(ended)

    stays, leaves = Remote(session()), session()
    monkeypatch.setattr(node.engine, "close_session", slow)
    leaves.close()
    try:
        assert closing.wait(20)
        assert torch.ones(2).send(stays).get().tolist() == [1.0, 1.0]
        assert torch.ones(2).send(Remote(session(timeout=20))).get().tolist() == [1.0, 1.0]
    finally:
        go_on.set()
    wait_until(lambda: leaves.prefix not in node.engine.sessions)


def test_calls_work_inside_a_running_event_loop(remote):
    async def main():
        return (torch.ones(2).send(remote) + 1).get()

    assert torch.equal(asyncio.run(main()), torch.full((2,), 2.0))


@pytest.fixture
def interruptible():
    """SIGINT raises KeyboardInterrupt: a process that was started in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupted_wait_leaves_the_connection_in_step(remote, node, monkeypatch, interruptible):
    x = torch.ones(2).send(remote)
    x.get_copy()
    go, handle = threading.Event(), node.engine.handle
    monkeypatch.setattr(node.engine, "handle", lambda session, message: go.wait(60) and handle(session, message))

    def interrupt():
        wait_until(lambda: remote.transport._turns.leader)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    y = x * 2
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        y.get()
    go.set()
    thread.join()
    assert torch.equal((torch.ones(2).send(remote) * 3).get(), torch.full((2,), 3.0))


@pytest.mark.parametrize("within", ["_framed", "_take"])
def test_an_interrupted_transfer_leaves_the_connection_in_step(remote, monkeypatch, interruptible, within):
    """Ctrl-C comes while half a piece is on its way out, or taken in."""
    big, small = torch.randn(1 << 21), torch.ones(2).send(remote)
    there, link = big.send(remote), remote.transport._socket
    small.get_copy(), there[:1].get()
    whole, calls = getattr(link, within), itertools.count(1)

    def interrupted(*given):
        if next(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return whole(*given)

    monkeypatch.setattr(link, within, interrupted)
    with pytest.raises(KeyboardInterrupt):
        big.send(remote) if within == "_framed" else there.get_copy()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler and next(calls) > 3
    assert torch.equal((small + 1).get(), torch.full((2,), 2.0)) and torch.equal(there.get_copy(), big)
    assert torch.equal(big.send(remote).get(), big)


@pytest.mark.parametrize("stops", [KeyboardInterrupt, ZeroDivisionError])
def test_an_upload_that_is_broken_off_is_forgotten_there(session, stops):
    worker = Remote(session())
    big = torch.zeros(1 << 22, dtype=torch.uint8)
    for count in range(100):  # more than may be open at once

        def progress(sent, count=count):
            if sent >= (1 << 20) * (1 + count % 4):
                raise stops

        with pytest.raises(stops):
            worker.put(worker.next_id(), big, (), "", progress)
    assert torch.equal(big.send(worker).get(), big)
    assert worker.objects_count() == 0


def test_no_more_threads_upload_at_once_than_a_node_takes(session, monkeypatch):
    for module in ("transports.client", "wire.connection"):
        monkeypatch.setattr(f"syftlite.{module}.MAX_STREAMS", 1)
    worker, big, other = Remote(session()), torch.zeros(1 << 21, dtype=torch.uint8), []
    thread = threading.Thread(target=lambda: other.append(worker.send(big + 1)))

    def progress(sent):
        if not thread.ident:
            thread.start()
            thread.join(0.02)

    worker.put(worker.next_id(), big, (), "", progress)
    thread.join()
    assert torch.equal(other[0].get(), big + 1) and worker.objects_count() == 1


def test_a_fork_closes_the_child_s_end_only(remote):
    x = torch.ones(2).send(remote)
    x.get_copy()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            x.get()
            text = "no error"
        except ForkedConnectionError as error:
            text = str(error)
        os.write(writer, text.encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert "connect again" in os.read(reader, 10_000).decode()
    os.close(reader), os.close(writer)
    assert torch.equal(x.get(), torch.ones(2))


def test_other_lanes_go_on_while_one_computes(session):
    busy, idle = Remote(session()), Remote(session())
    x = torch.randn(900, 900).send(busy)
    for _ in range(20):
        x = x @ x * 1e-3
    done = threading.Event()
    thread = threading.Thread(target=lambda: (x.get(), done.set()))
    thread.start()
    answers = 0
    while not done.is_set():
        assert torch.equal((torch.ones(2).send(idle) + 1).get(), torch.full((2,), 2.0))
        answers += 1
    thread.join()
    assert answers > 3


# -- who is let in


def test_wrong_tokens_are_refused(node):
    for token in ("", "x" * 43, discover("127.0.0.1", node.port, "scientist")[:-1]):
        with pytest.raises(AuthenticationError, match="token new"):
            SocketTransport(node.uri, token)
    assert len(node.engine.sessions) == 2


def test_the_token_file_is_its_user_s_alone(node):
    path = node._announced
    assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700
    with sy.WebsocketServerWorker(id=f"{node.id}-other", port=0):
        pass
    node.close()
    assert not path.exists()
    with pytest.raises(AuthenticationError, match="left none"):
        sy.connect(node.uri)


def test_an_unknown_protocol_is_refused_by_name(node, monkeypatch):
    monkeypatch.setattr(m, "PROTOCOLS", (99,))
    transport = None
    monkeypatch.setattr("syftlite.engine.door.m.PROTOCOLS", (99,))

    class Old(SocketTransport):
        def _exchange(self, message):
            return super()._exchange((m.HELLO, (1,), 1, "2.0") if message[0] == m.HELLO else message)

    with pytest.raises(ProtocolVersionError, match="upgrade"):
        transport = Old(node.uri, "token")
    assert transport is None


def test_an_operator_that_the_node_lacks_is_refused_at_the_call(remote):
    remote.transport.table = 2
    remote.transport.cast = remote.transport._cast_if_known
    x = torch.ones(2).send(remote)
    assert torch.equal((x + x).get(), torch.full((2,), 2.0)), "operator 1 it has"
    with pytest.raises(OperatorNotReviewedError, match="older syftlite"):
        x.relu()
    assert torch.equal(x.get(), torch.ones(2))


def raw_upgrade(node, *headers):
    with socket.create_connection(("127.0.0.1", node.port), timeout=10) as raw:
        lines = [
            "GET / HTTP/1.1", f"Host: 127.0.0.1:{node.port}", "Upgrade: websocket", "Connection: Upgrade",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13", *headers,
        ]  # fmt: skip
        raw.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        return raw.recv(4096)


def test_browsers_are_turned_away(node):
    assert raw_upgrade(node).startswith(b"HTTP/1.1 101")
    assert raw_upgrade(node, "Origin: http://127.0.0.1:8080").startswith(b"HTTP/1.1 403")
    assert raw_upgrade(node, "Origin: null").startswith(b"HTTP/1.1 403")


def test_random_bytes_do_not_disturb_others(node, remote):
    x = torch.ones(2).send(remote)
    generator = torch.Generator().manual_seed(1)
    for _ in range(40):
        with socket.create_connection(("127.0.0.1", node.port), timeout=10) as raw:
            raw.sendall(bytes(torch.randint(0, 256, (500,), generator=generator).tolist()))
    assert torch.equal((x + x).get(), torch.full((2,), 2.0))


def test_an_oversized_message_closes_that_connection_only(node, session, remote):
    x = torch.ones(2).send(remote)
    x.get_copy()
    rude = session()
    with pytest.raises(ConnectionLostError):
        rude._socket.send([b"\0" * (4 << 20)])
        rude.ask(m.SYNC)
    assert torch.equal((x + x).get(), torch.full((2,), 2.0))


def test_bytes_that_break_the_protocol_end_the_session_with_the_reason(session):
    rude = session()
    rude._socket.send([b"\xff" * 64])
    with pytest.raises(ConnectionLostError, match="ended the session|closed the connection"):
        rude.ask(m.SYNC)


def test_beyond_loopback_it_needs_tls_and_tokens():
    for options in ({}, {"tokens": {"bob": "t" * 43}}):
        with pytest.raises(ConfigurationError, match="TLS.*tokens|loopback"):
            sy.WebsocketServerWorker(host="0.0.0.0", port=0, id="open", **options)
    with pytest.raises(ConfigurationError, match="characters"):
        sy.WebsocketServerWorker(port=0, id="open", tokens={"bob": "short"})


def test_a_taken_port_is_named(node):
    with pytest.raises(ConfigurationError, match=f"{node.port}"):
        sy.WebsocketServerWorker(id=f"{node.id}-2", port=node.port).start(wait=False)


def test_a_node_that_listens_may_be_started_again(node):
    port = node.port
    assert node.start(wait=False) is node and node.port == port
    SocketTransport(node.uri, discover("127.0.0.1", port, "scientist")).close()


def test_nothing_listens_there():
    with pytest.raises(ConnectionLostError, match="Is the node running"):
        SocketTransport("ws://127.0.0.1:9", "token", timeout=5)


def test_one_id_is_one_worker(node, monkeypatch):
    with pytest.raises(IdNotUniqueError, match="choose another id"):
        sy.connect(node.uri)


def test_ctrl_c_loses_nothing_that_was_queued(remote, interruptible):
    """It comes while what is queued is made a batch."""
    x = torch.zeros(2).send(remote)
    x.get_copy()
    turns = itertools.count(1)

    class Sites(list):
        def __setitem__(self, at, site):
            if next(turns) == 3:
                os.kill(os.getpid(), signal.SIGINT)
            super().__setitem__(at, site)

    remote.transport.sites = Sites(remote.transport.sites)
    with pytest.raises(KeyboardInterrupt):
        for _ in range(6):
            x.add_(1)
        x.get_copy()
    assert next(turns) > 3 and x.get_copy().tolist() == [6.0, 6.0]


# -- when things break


@pytest.fixture
def full():
    """A websocket whose other end, a socket and its protocol, takes no bytes; a thread that is sending more than fit into buffers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=lambda: made.append(_accepted(server.accept()[0])))
        made, errors = [], []
        thread.start()
        link = WebsocketClient(f"ws://127.0.0.1:{server.getsockname()[1]}", timeout=60.0)
        thread.join()

    def send():
        try:
            link.send([bytes(32 << 20)])
        except ConnectionLostError as error:
            errors.append(str(error))

    thread = threading.Thread(target=send)
    thread.start()
    wait_until(lambda: not select.select([], [link._socket], [], 0)[1])
    yield link, *made[0], thread, errors
    made[0][0].close()
    thread.join()
    link.close()


def _accepted(raw):
    protocol = ServerProtocol()
    while protocol.state is State.CONNECTING:
        protocol.receive_data(raw.recv(1 << 16))
        for request in protocol.events_received():
            protocol.send_response(protocol.accept(request))
        _say(raw, protocol)
    return raw, protocol


def _say(raw, protocol):
    for data in protocol.data_to_send():
        raw.sendall(data)


def test_answers_are_read_though_a_pong_cannot_be_sent(full):
    """The other end may take nothing more before its answers are read."""
    link, raw, protocol, _, _ = full
    protocol.send_ping(b"alive?"), protocol.send_binary(b"answer"), _say(raw, protocol)
    got = []
    wait_until(lambda: got.extend(link.receive(1.0)) or got)
    assert got == [b"answer"]


@pytest.mark.parametrize("signs", [True, False])
def test_a_node_that_gives_signs_of_life_may_take_its_time_to_read(full, monkeypatch, signs):
    link, raw, protocol, thread, errors = full
    ahead = [0.0]
    monkeypatch.setattr(sockets, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + ahead[0]))
    for _ in range(3 * signs):
        before = link.pulled
        protocol.send_ping(b""), _say(raw, protocol)
        wait_until(lambda before=before: link.pulled > before)
        ahead[0] += 40.0
    while thread.is_alive():
        if signs:
            if select.select([raw], [], [], 0.05)[0]:  # it may have written all, and be about to end
                raw.recv(1 << 20)
        else:
            ahead[0] += 40.0
            thread.join(0.2)
    assert [error.split(" ", 1)[1] for error in errors] == ([] if signs else ["took no bytes for 60.0 s"])


def test_a_silent_node_is_given_up_after_the_timeout():
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(ConnectionLostError, match="0.2 s"):
        SocketTransport(f"ws://127.0.0.1:{server.getsockname()[1]}", "token", timeout=0.2)


def test_a_node_that_dies_in_an_operation_gives_a_clear_error():
    cluster = sy.LocalCluster("mortal", threads=1)
    (worker,) = cluster.start()
    try:
        x = torch.randn(1200, 1200).send(worker)
        x.get_copy()
        for _ in range(200):
            x = x @ x
        killer = threading.Timer(0.2, cluster.process("mortal").kill)
        killer.start()
        with pytest.raises(ConnectionLostError, match="mortal|closed|broke"):
            x.get()
        with pytest.raises(ConnectionLostError):
            x + 1
        killer.join()
    finally:
        cluster.stop()


def test_a_worker_whose_session_has_ended_makes_room_for_the_next():
    """As its error says: connect again."""
    with sy.LocalCluster("phoenix", threads=1) as (first,):
        with pytest.raises(IdNotUniqueError, match="phoenix"):
            sy.LocalCluster("phoenix", threads=1).start()
        x = torch.ones(2).send(first)
        x.get_copy()
        first.transport.close()
        with sy.LocalCluster("phoenix", threads=1) as (second,):
            assert torch.equal(torch.ones(2).send("phoenix").get(), torch.ones(2)) and sy.local_worker.get_worker("phoenix") is second
            with pytest.raises(ConnectionLostError):
                x.get()
            first.close()
            assert sy.local_worker.get_worker("phoenix") is second


def test_a_stopped_node_is_noticed_within_the_timeout():
    cluster = sy.LocalCluster("frozen", threads=1)
    (worker,) = cluster.start()
    try:
        x = torch.ones(2).send(worker)
        x.get_copy()
        worker.transport.timeout = 1.0
        cluster.process("frozen").send_signal(signal.SIGSTOP)
        wait_until(lambda: state_of(cluster.process("frozen").pid) == "T")
        with pytest.raises(ConnectionLostError, match="sign of life"):
            x.get()
    finally:
        cluster.process("frozen").send_signal(signal.SIGCONT)
        cluster.stop()


def test_a_cluster_is_gone_when_its_program_is_killed():
    program = """
import syftlite as sy, sys, time
cluster = sy.LocalCluster(2, threads=1)
cluster.start()
print(*(cluster.process(n).pid for n in cluster.names), flush=True)
time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    pids = [int(p) for p in parent.stdout.readline().split()]
    parent.kill()
    parent.wait()
    parent.stdout.close()

    assert len(pids) == 2
    wait_until(lambda: all(state_of(p) in ("gone", "Z") for p in pids))


def test_a_cluster_names_what_it_cannot_do():
    for names in ((), ("a", "a"), (0,)):
        with pytest.raises(ConfigurationError):
            sy.LocalCluster(*names)


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="sets the limit of another process")
def test_strangers_who_take_all_descriptors_stop_nobody_and_fill_no_log(capfd):
    cluster = sy.LocalCluster("besieged")
    with cluster as (worker,):
        pid, (_, hard) = cluster.process("besieged").pid, resource.getrlimit(resource.RLIMIT_NOFILE)
        used = len(os.listdir(f"/proc/{pid}/fd"))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 32, hard))
        x = torch.ones(3).send(worker)
        address = worker.transport.uri.split("//")[1].split(":")
        strangers = [socket.create_connection((address[0], int(address[1]))) for _ in range(100)]
        try:
            for _ in range(300):
                assert torch.equal((x + 1).get(), torch.full((3,), 2.0))
            late = SocketTransport(worker.transport.uri, cluster._tokens["owner"], timeout=30)
            assert late.ask(m.FIND, (), 0)[2] == 0
            late.close()
        finally:
            for stranger in strangers:
                stranger.close()
    assert capfd.readouterr().err.count("no file descriptor is left") <= 1
