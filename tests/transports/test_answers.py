"""Who writes a node's answers: the thread that computed them where the socket takes them, the event loop what is left."""

import socket
import ssl
import threading
import time

import pytest
import torch

import syftlite as sy
from syftlite.engine.pending import Pending
from syftlite.storage.tokens import discover
from syftlite.transports import lanes, server_socket
from syftlite.transports.client import SocketTransport
from syftlite.transports.server_socket import ServerSocket
from syftlite.wire import messages as m

TOKEN = "t" * 43


@pytest.fixture
def written(monkeypatch):
    """(thread, bytes) of each answer that the node's end has written."""
    seen = []
    frame = ServerSocket._frame

    def noted(self, parts):
        seen.append((threading.current_thread().name, sum(map(len, parts))))
        frame(self, parts)

    monkeypatch.setattr(ServerSocket, "_frame", noted)
    return seen


class Remote(sy.BaseWorker):
    """A node of this process, under another name."""


def connected(node, token=None, **options):
    transport = SocketTransport(node.uri, token or discover("127.0.0.1", node.port, "scientist"), **options)
    return Remote(f"{node.id} over a socket", transport)


def slow(worker, side=400):
    """A product that no event loop computes."""
    x = torch.randn(side, side)
    return x.send(worker), x


def answered_by_a_lane(written, right):
    """Whether a lane has answered: mostly, but where the question comes behind the product by itself, and late, the event loop does."""
    for _ in range(50):
        written.clear()
        assert right()
        if any(" lane" in name for name, _ in written):
            return True
    return False


def test_who_computed_answers(node, written):
    worker = connected(node)
    pointer, x = slow(worker)
    assert answered_by_a_lane(written, lambda: torch.allclose((pointer @ pointer).get(), x @ x, atol=1e-3))
    worker.close()


def test_what_is_quick_the_event_loop_answers(node, written):
    worker = connected(node)
    pointer = torch.ones(3).send(worker)
    written.clear()
    assert (pointer + pointer).get().tolist() == [2, 2, 2]
    assert written and not any(" lane" in name for name, _ in written)
    worker.close()


def test_an_answer_that_the_socket_does_not_take_at_once_arrives_whole(node, written, monkeypatch):
    """Half of it from the thread that computed, the rest from the event loop, with what others write behind it."""
    keep_alive = server_socket._keep_alive

    def narrow(transport):
        keep_alive(transport)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)

    monkeypatch.setattr(server_socket, "_keep_alive", narrow)
    worker = connected(node)
    pointer, x = slow(worker, 1200)
    for _ in range(3):
        assert answered_by_a_lane(written, lambda: torch.allclose((pointer @ pointer).get(), x @ x, atol=1e-2))
    worker.close()


def test_nobody_else_writes_while_something_waits(node):
    """Neither what a socket left, nor what the event loop has in its buffer, is overtaken."""
    worker = connected(node)
    torch.ones(3).send(worker).get()
    (line,) = node.server._open
    for name, value in (("blocked", True), ("_owed", b"rest"), ("_secure", True)):
        before = getattr(line, name)
        setattr(line, name, value)
        assert not line.write_here((b"an answer",))
        setattr(line, name, before)
    line._protocol.send_close(1000)
    assert not line.write_here((b"an answer",)), "the end of what is sent is the event loop's to write"
    assert line._protocol.data_to_send()
    worker.close()


def test_in_tls_the_event_loop_writes_all(tmp_path, monkeypatch, certificate, written):
    monkeypatch.setenv("SYFTLITE_HOME", str(tmp_path / "home"))
    node = sy.WebsocketServerWorker(
        id="in tls", port=0, cert_path=certificate[0], key_path=certificate[1], tokens={"scientist": TOKEN}
    ).start(wait=False)
    worker = connected(node, TOKEN, tls=ssl.create_default_context(cafile=certificate[0]))
    pointer, x = slow(worker)
    written.clear()
    assert torch.allclose((pointer @ pointer).get(), x @ x, atol=1e-3)
    assert written and not any(" lane" in name for name, _ in written)
    worker.close()
    node.close()


class Line:
    """A socket that takes what it is told to."""

    blocked = False

    def __init__(self, here):
        self.here, self.written = here, []

    def write(self, frame):
        self.written.append(frame)

    def write_here(self, frame):
        if self.here:
            self.written.append(frame)
        return self.here

    def read_on(self, yes):
        pass


class Door:
    """Answers what is put into its inbox, on whose thread ever it runs."""

    closing, waits = None, True
    waiting = 0

    def __init__(self):
        self.inbox, self.outbox, self.runs = [], [], []
        self.engine = type("Engine", (), {"name": "nobody"})

    def receive(self, frame):
        self.inbox.append(frame)

    def run_quick(self):
        return False

    def run(self, pooled=False):
        self.runs.append(threading.current_thread().name)
        while self.inbox:
            work = self.inbox.pop(0)
            self.outbox.append(work() if callable(work) else work)

    def post(self, answer):
        self.outbox.append(answer)

    def frames(self):
        answers, self.outbox = self.outbox, []
        yield from answers

    def leave(self):
        self.left = True


def test_an_answer_that_is_lost_ends_the_connection(monkeypatch):
    """What comes after it must not take its place, and the lane's thread lives on."""
    door, line, loop = Door(), Line(True), Loop()
    line.ended = []
    line.end = line.ended.append
    monkeypatch.setattr(line, "write_here", lambda frame: 1 / 0)
    lane = lanes.Lane(door, line, None, None, loop)
    lane.feed("answer")
    settled(lane)
    assert line.ended and door.closing and line.written == []
    lane._own.do(None)


def test_reading_that_stops_when_the_lane_has_just_ended_goes_on(monkeypatch):
    door, line, loop = Door(), Line(True), Loop()
    reading = []
    line.read_on = reading.append
    lane = lanes.Lane(door, line, None, None, loop)
    monkeypatch.setattr(lane, "advance", lambda: None)  # it computes when it is looked at, and has ended when reading stops
    door.waiting = lanes.MAX_WAITING + 1
    lane.feed("answer")
    assert reading == [False]
    monkeypatch.undo()
    door.waiting, door.inbox = 0, []
    lane._paused = False
    door.waiting = lanes.MAX_WAITING + 1
    line.read_on = lambda yes: (reading.append(yes), setattr(door, "waiting", 0))
    lane.feed("another")
    settled(lane)
    assert reading[-2:] == [False, True]
    lane._own.do(None)


class Loop:
    """Does at once what it is called for, and counts."""

    def __init__(self):
        self.called = 0
        self.lock = threading.RLock()

    def call_soon_threadsafe(self, action, *args):
        with self.lock:
            self.called += 1
            action(*args)


def settled(lane):
    deadline = time.monotonic() + 20
    while not lane.idle:
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.parametrize("here", [True, False])
def test_the_event_loop_is_woken_for_what_is_left_alone(here):
    door, line, loop = Door(), Line(here), Loop()
    lane = lanes.Lane(door, line, None, None, loop)
    lane.feed("answer")
    settled(lane)
    assert line.written == ["answer"] and loop.called == (not here)
    lane._own.do(None)


def test_an_answer_that_comes_later_is_not_lost_while_the_lane_computes():
    door, line, loop = Door(), Line(True), Loop()
    lane = lanes.Lane(door, line, None, None, loop)
    begun, go = threading.Event(), threading.Event()

    def work():
        begun.set()
        assert go.wait(20)
        return "the other"

    lane.feed(work)
    assert begun.wait(20)
    pending = Pending()
    pending.then(lane._later)
    pending.settle((m.DONE, 7))
    assert line.written == []
    go.set()
    deadline = time.monotonic() + 20
    while len(line.written) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert line.written == ["the other", (m.DONE, 7)]
    lane._own.do(None)
