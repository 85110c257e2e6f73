"""A client written from docs/protocol.md alone: no import of syftlite, none of torch."""

import json
import os
import struct
from pathlib import Path

import msgpack
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

ADD, FLOAT32 = 1, 0
HELLO, AUTH, OP, PUT, CHUNK, GET, GREETING, WELCOME, ERROR, VALUES = 1, 2, 3, 4, 5, 8, 33, 34, 35, 36
PIECE, INLINE = 1 << 20, 64 << 10


class Client:
    """One session over ``socket``; `put`, `add` and `get` are all it can."""

    def __init__(self, socket, token):
        self.socket = socket
        self.session = self.sent = self.received = self.counter = self.request = self.stream = 0
        self.streams = {}
        self.send([HELLO, [1], 1000, "none"])
        kind, protocol, self.worker, self.table, _ = self.receive()
        assert (kind, protocol) == (GREETING, 1) and self.table > ADD
        self.send([AUTH, "token", token])
        welcome = self.receive()
        if welcome[0] == ERROR:
            raise PermissionError(welcome[2], welcome[3])
        _, self.session, self.principal, self.role, self.max_bytes = welcome

    def send(self, *batch, rest=b""):
        head = msgpack.packb([self.session, self.sent, self.received, 0, batch])
        self.sent += len(batch)
        self.socket.send(struct.pack("<I", len(head)) + head + rest)

    def receive(self):
        """The next message that is no CHUNK, its tensors as arrays."""
        while True:
            frame = self.socket.recv()
            (length,) = struct.unpack_from("<I", frame)
            session, sequence, acknowledged, _, batch = msgpack.unpackb(frame[4 : 4 + length])
            assert (session, sequence) == (self.session, self.received) and acknowledged <= self.sent
            self.received += len(batch)
            (message,), rest = batch, frame[4 + length :]
            if message[0] == CHUNK:
                _, stream, total, offset, size = message
                self.streams.setdefault(stream, bytearray(total))[offset : offset + size] = rest
                continue
            if message[0] == VALUES:
                message[2] = [self.array(described, rest) for described in message[2]]
            return message

    def array(self, described, rest):
        dtype, shape, stream = described
        assert dtype == FLOAT32
        return np.frombuffer(self.streams.pop(stream) if stream else rest, "<f4").reshape(shape)

    def fresh(self):
        self.counter += 1
        return self.session * 2**32 + self.counter

    def put(self, array):
        number, data, stream = self.fresh(), array.astype("<f4").tobytes(), 0
        if len(data) > INLINE:
            self.stream = stream = self.stream + 1
            for offset in range(0, len(data), PIECE):
                piece = data[offset : offset + PIECE]
                self.send([CHUNK, stream, len(data), offset, len(piece)], rest=piece)
        self.send([PUT, number, [FLOAT32, list(array.shape), stream], [], ""], rest=b"" if stream else data)
        return number

    def add(self, x, y):
        number = self.fresh()
        self.send([OP, ADD, [x, y], None, number])
        return number

    def get(self, number):
        self.request += 1
        self.send([GET, self.request, [number], True, None])
        answer = self.receive()
        if answer[0] == ERROR:
            raise LookupError(answer[2], answer[3])
        assert answer[:2] == [VALUES, self.request]
        return answer[2][0]


@pytest.fixture
def socket(node):
    with connect(node.uri, compression=None, max_size=1_093_632) as socket:
        yield socket


@pytest.fixture
def client(node, socket):
    announced = Path(os.environ["SYFTLITE_HOME"]) / "run" / f"127.0.0.1-{node.port}.json"
    return Client(socket, json.loads(announced.read_text())["scientist"])


@pytest.mark.parametrize("shape", [(3,), (2, 3), (1000, 1000)], ids=str)
def test_it_puts_adds_and_gets(node, client, shape):
    assert (client.role, client.worker) == ("scientist", node.id)
    x, y = np.arange(np.prod(shape), dtype="f4").reshape(shape), np.full(shape, 0.5, "f4")
    total = client.add(client.put(x), client.put(y))
    assert np.array_equal(client.get(total), x + y)
    with pytest.raises(LookupError) as taken:
        client.get(total)
    assert taken.value.args[0] == 3


def test_it_reads_an_error_of_the_operation_that_failed(client):
    bad = client.add(client.put(np.zeros(2)), client.put(np.zeros(3)))
    client.send([GET, 9, [bad], True, None])
    kind, request, code, text, operator, origin = client.receive()
    assert (kind, request, code, operator, origin) == (ERROR, 9, 64, ADD, 2)  # the third message of the session
    assert "size of tensor" in text


def test_a_wrong_token_is_error_11_and_closes(socket):
    with pytest.raises(PermissionError) as refused:
        Client(socket, "0" * 43)
    assert refused.value.args[0] == 11


def test_a_broken_frame_is_error_17_and_closes_with_1008(client):
    client.socket.send(b"\x00\x00\x00")
    kind, request, code, *_ = client.receive()
    assert (kind, request, code) == (ERROR, 0, 17)
    with pytest.raises(ConnectionClosed) as closed:
        client.socket.recv()
    assert closed.value.rcvd.code == 1008


def test_a_browser_is_answered_with_403(node):
    with pytest.raises(InvalidStatus) as refused, connect(node.uri, origin="https://example.org"):
        pass
    assert refused.value.response.status_code == 403


def test_fragments_do_not_matter_and_text_is_ignored(client):
    number = client.put(np.ones(2))
    client.socket.send("a text message")
    head = msgpack.packb([client.session, client.sent, client.received, 0, [[GET, 1, [number], True, None]]])
    frame = struct.pack("<I", len(head)) + head
    client.socket.send([frame[i : i + 3] for i in range(0, len(frame), 3)])
    client.sent += 1
    assert client.receive()[2][0].tolist() == [1.0, 1.0]


def test_a_fragmented_text_message_is_ignored_whole(client):
    client.socket.send(["a text", " message", ""])
    assert client.get(client.put(np.ones(2))).tolist() == [1.0, 1.0]


def test_before_the_session_a_message_over_its_limit_is_not_even_read(socket):
    with pytest.raises(ConnectionClosed) as closed:
        socket.send(bytes(5000))
        socket.recv()
    assert closed.value.rcvd.code == 1009


def test_fragments_together_have_the_same_limit(socket):
    with pytest.raises(ConnectionClosed) as closed:
        socket.send([b"x" * 100] * 50)
        socket.recv()
    assert closed.value.rcvd.code == 1009
