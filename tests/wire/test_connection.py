"""The state machine of a connection: what goes in at one end comes out at the other, and nothing else is taken."""

import struct

import msgpack
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from syftlite.errors import FrameTooLargeError, ProtocolError, QuotaExceededError, SyftliteError
from syftlite.ops.dtypes import DTYPES
from syftlite.wire import codec
from syftlite.wire import messages as m
from syftlite.wire.codec import BEFORE_AUTH, INLINE, MAX_FRAME, MAX_HEAD, PIECE, Head
from syftlite.wire.connection import MAX_STREAMS, Connection, State
from syftlite.wire.fields import MAX_ITEMS

SESSION = 77
ID = SESSION << 32


def open_pair():
    """(client, worker), past the handshake."""
    client, worker = Connection(worker=False, reserve=lambda nbytes: None), Connection(worker=True, reserve=lambda nbytes: None)
    for end in (client, worker):
        end.state, end.session = State.OPEN, SESSION
    return client, worker


def frame(end, batch, *, session=SESSION, sequence=None, acknowledged=None, rest=b""):
    """A frame such as ``end`` would send, but for what is given."""
    head = Head(session, end.sent if sequence is None else sequence, end.received if acknowledged is None else acknowledged, 0)
    return codec.pack(head, batch) + rest


def pass_on(sender, receiver, batch):
    return [message for f in sender.frames(batch) for message in receiver.receive(b"".join(f))]


def equal(a, b):
    if isinstance(a, torch.Tensor):
        return a.dtype is b.dtype and a.shape == b.shape and bytes(codec.buffer_of(a)) == bytes(codec.buffer_of(b))
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


ids = st.integers(ID, ID + 1000)
texts = st.text(max_size=12)
tags = st.lists(texts, max_size=3)
numbers = st.integers(0, 1 << 40)
operands = st.lists(ids | st.floats(allow_nan=False) | st.lists(ids, max_size=3) | st.none() | st.booleans(), max_size=4)
named = st.none() | st.dictionaries(texts, st.integers(0, 9) | st.floats(allow_nan=False), max_size=2)
outs = st.none() | ids | st.lists(st.none() | ids, max_size=3)
ports = st.integers(0, 65535)
peers = st.lists(st.tuples(numbers, texts, ports, texts), max_size=3)
shapes = st.lists(numbers, max_size=3).map(tuple)
names = st.text(min_size=1, max_size=12)
streams = st.tuples(st.integers(1, 99), ids, st.lists(ids, max_size=2), st.tuples(numbers, numbers, numbers))
lasts = st.tuples(names, st.lists(st.tuples(names, st.integers(-9, 9)), max_size=2).map(tuple))
forms = st.tuples(
    st.lists(names, min_size=3, max_size=4).map(tuple), shapes, st.lists(st.tuples(shapes, numbers), max_size=2).map(tuple), shapes,
    st.integers(2, 10), st.integers(0, 16), st.booleans(), numbers, st.lists(lasts, max_size=2).map(tuple),
)  # fmt: skip
reals = st.floats(0, 1e6) | st.integers(0, 9)
queries = st.tuples(st.integers(0, 9), reals, st.none() | reals, st.none() | st.tuples(reals, reals), st.lists(reals, max_size=3).map(tuple))
static = st.none() | st.dictionaries(texts, st.integers(-9, 9) | st.tuples(st.integers(-9, 9), st.integers(-9, 9)), max_size=2)


@st.composite
def tensors(draw, most=40):
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    dtype = draw(st.sampled_from(DTYPES))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    raw = torch.randint(0, 2 if dtype is torch.bool else 256, (4**4 * 16,), dtype=torch.uint8, generator=generator)
    tensor = raw.view(dtype)[: torch.Size(shape).numel()].reshape(shape)
    return tensor.transpose(0, 1) if tensor.dim() > 1 and draw(st.booleans()) else tensor


FROM_CLIENT = {
    m.OP: st.tuples(numbers, operands, named, outs),
    m.PUT: st.tuples(ids, tensors(), tags, texts),
    m.DROP: st.tuples(st.lists(ids, max_size=9)),
    m.ASK: st.tuples(numbers, numbers, operands, named, st.none() | st.lists(ids, max_size=3)),
    m.GET: st.tuples(numbers, st.lists(ids, max_size=9), st.booleans(), st.none() | texts),
    m.FILE: st.tuples(numbers, st.lists(ids, max_size=9), texts),
    m.STATUS: st.tuples(numbers, texts),
    m.FIND: st.tuples(numbers, tags, numbers),
    m.DESCRIBE: st.tuples(ids, tags, texts),
    m.LIST: st.tuples(numbers, numbers),
    m.CLEAR: st.tuples(numbers),
    m.SYNC: st.tuples(numbers),
    m.STORE: st.tuples(numbers, ids, texts, tags, texts, st.booleans()),
    m.PENDING: st.tuples(numbers, numbers),
    m.DECIDE: st.tuples(numbers, texts, st.booleans(), texts),
    m.INSPECT: st.tuples(numbers, texts, st.booleans()),
    m.TAKE: st.tuples(numbers, texts),
    m.PROTECT: st.tuples(numbers, ids, texts),
    m.EXPLAIN: st.tuples(numbers, st.lists(ids, max_size=3).map(tuple)),
    m.POLICY: st.tuples(numbers, texts, texts),
    m.PLAN: st.tuples(
        ids, numbers, st.lists(st.tuples(numbers, operands.map(tuple), named, outs), max_size=3), st.none() | st.lists(numbers, max_size=3)
    ),
    m.RUN: st.tuples(ids, st.lists(ids, max_size=3), ids, st.lists(ids, max_size=3)),
    m.SCAN: st.tuples(ids, st.lists(ids, max_size=3), st.lists(numbers, max_size=3), ids, st.lists(ids, max_size=3)),
    m.EXPECT: st.tuples(numbers, st.lists(st.tuples(ids, numbers), min_size=1, max_size=3)),
    m.SHIP: st.tuples(numbers, st.lists(st.tuples(ids, ids), min_size=1, max_size=3), texts, texts),
    m.ARRIVED: st.tuples(ids),
    m.REFER: st.tuples(ids, texts, ids),
    m.AGGREGATE: st.tuples(numbers, numbers, numbers, st.none() | ids, st.lists(ids, max_size=3), st.none() | ids),
    m.INVITE: st.tuples(numbers, numbers),
    m.JOIN: st.tuples(numbers, numbers, numbers, st.none() | texts, st.none() | texts, peers),
    m.REPLICATE: st.tuples(numbers, numbers, st.none() | texts, peers),
    m.JOINED: st.tuples(numbers, numbers),
    m.COMPUTE: st.tuples(numbers, numbers, st.lists(ids, max_size=3), static, st.lists(ids, max_size=3)),
    m.DEAL: st.tuples(numbers, numbers, st.lists(ids | shapes, max_size=3), static, st.lists(ids, max_size=3)),
    m.CORRECT: st.tuples(numbers, numbers, ids),
    m.REVEAL: st.tuples(numbers, ids, ids),
    m.SPLIT: st.tuples(numbers, ids, st.lists(st.tuples(texts, texts, ids), max_size=3)),
    m.LEND: st.tuples(numbers, ids, tags),
    m.SPREAD: st.tuples(numbers, ids, st.lists(st.tuples(texts, texts, ids), max_size=6)),
    m.LEAVE: st.tuples(numbers),
    m.REPLAY: st.tuples(numbers, ids, st.lists(ids, max_size=3), ids, st.lists(ids, max_size=3)),
    m.SERVE: st.tuples(numbers, names, st.lists(streams, max_size=2), st.lists(ids, max_size=3), forms, peers, st.none() | st.lists(names, max_size=2)),
    m.ADMIT: st.tuples(numbers, names, st.none() | numbers),
    m.WATCH: st.tuples(numbers, names, st.none() | numbers),
    m.RETIRE: st.tuples(numbers, names),
    m.ATTACH: st.tuples(numbers, names, names),
    m.QUERY: st.tuples(numbers, names, numbers, ids),
    m.MEASURE: st.tuples(numbers, ids, queries, texts, ids),
    m.MAP: st.tuples(numbers, ids, st.lists(ids, max_size=3), numbers, st.lists(numbers, max_size=3), st.tuples(reals, reals, reals), texts, st.lists(ids, max_size=3)),
    m.BUDGET: st.tuples(numbers, ids),
}
specs = st.tuples(st.integers(0, 11), st.just([2, 3]), st.just([3, 1]), st.integers(0, 9)) | st.integers(-9, 9) | st.booleans()
releases = st.tuples(texts, texts, texts, tags, texts, st.floats(0, 1e10))
FROM_WORKER = {
    m.ERROR: st.tuples(st.integers(1, 99), numbers, texts, numbers, numbers),
    m.VALUES: st.tuples(numbers, st.lists(tensors(), max_size=4)),
    m.SPECS: st.tuples(numbers, st.lists(specs, max_size=4)),
    m.FOUND: st.tuples(numbers, numbers, st.lists(st.tuples(ids, specs, tags, texts, st.booleans(), st.booleans()), max_size=3)),
    m.DONE: st.tuples(numbers),
    m.TICKET: st.tuples(numbers, texts),
    m.EXPLAINED: st.tuples(numbers, texts),
    m.INVITATION: st.tuples(numbers, texts, ports),
    m.STATE: st.tuples(numbers, texts, texts, texts),
    m.MODEL: st.tuples(numbers, numbers, forms),
    m.PROGRESS: st.tuples(numbers, texts, numbers, tags),
    m.RELEASES: st.tuples(numbers, numbers, st.lists(releases, max_size=3)),
    m.MEASURED: st.tuples(numbers, st.lists(specs, max_size=4), st.lists(st.tuples(texts, texts, reals, reals, reals), max_size=3)),
    m.REPORT: st.tuples(numbers, releases, tags, st.floats(0, 1e10), numbers, tags),
}


def test_every_kind_is_sent_below():
    assert {*FROM_CLIENT, m.HELLO, m.AUTH, m.CHUNK} == set(m.FROM_CLIENT)
    assert {*FROM_WORKER, m.GREETING, m.WELCOME, m.CHALLENGE, m.CHUNK} == set(m.FROM_WORKER)


def batches(kinds):
    return st.lists(st.one_of([fields.map(lambda f, k=kind: (k, *f)) for kind, fields in kinds.items()]), max_size=12)


@given(st.lists(batches(FROM_CLIENT), max_size=3), st.lists(batches(FROM_WORKER), max_size=3))
def test_all_messages_arrive_in_order_in_both_directions(up, down):
    client, worker = open_pair()
    for batch in up:
        assert equal(pass_on(client, worker, batch), batch)
        assert worker.received == client.sent
    for batch in down:
        assert equal(pass_on(worker, client, batch), batch)
    assert pass_on(client, worker, []) == [] and client.received == worker.sent


@given(st.lists(st.sampled_from([0, 1, INLINE - 1, INLINE, INLINE + 1, PIECE, PIECE + 1, 2 * PIECE + 5]), min_size=1, max_size=4))
@settings(max_examples=25)
def test_tensors_of_all_sizes_arrive_inline_or_in_pieces(sizes):
    client, worker = open_pair()
    values = [torch.arange(size, dtype=torch.int64).to(torch.uint8) for size in sizes]
    for number, value in enumerate(values):
        assert equal(pass_on(client, worker, [(m.PUT, ID + number, value, [], "")]), [(m.PUT, ID + number, value, [], "")])
    assert equal(pass_on(worker, client, [(m.DONE, 1), (m.VALUES, 2, values), (m.DONE, 3)])[1], (m.VALUES, 2, values))
    assert not worker._streams and not client._streams


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_arrives_in_pieces_too(dtype):
    client, worker = open_pair()
    raw = torch.arange(2 * PIECE, dtype=torch.int64).to(torch.uint8)
    value = raw.remainder(2).bool() if dtype is torch.bool else raw.view(dtype)
    assert equal(pass_on(client, worker, [(m.PUT, ID, value.reshape(2, -1), [], "")])[0][2], value.reshape(2, -1))


def test_no_frame_exceeds_its_limit_and_other_messages_pass_between_pieces():
    client, worker = open_pair()
    value = torch.zeros(PIECE)  # 4 MiB
    described, pieces = client.stream(value)
    received = []
    for number, piece in enumerate(pieces):
        assert len(b"".join(piece)) <= MAX_FRAME
        received += worker.receive(b"".join(piece))
        received += pass_on(client, worker, [(m.SYNC, number)])
    received += pass_on(client, worker, [(m.PUT, ID, described, [], "")])
    assert [message[0] for message in received] == [m.SYNC] * 4 + [m.PUT] and equal(received[-1][2], value)


def test_big_batches_are_split_into_frames_that_fit():
    client, worker = open_pair()
    batch = [(m.OP, 1, (ID + i, ID + i), {"alpha": float(i)}, ID + i) for i in range(5000)]
    frames = list(client.frames(batch))
    assert len(frames) > 3 and all(len(b"".join(f)) <= MAX_HEAD + 4 for f in frames)
    received = [message for f in frames for message in worker.receive(b"".join(f))]
    assert received == batch and worker.received == 5000


def test_a_message_too_large_for_any_frame_is_refused_before_anything_is_sent():
    client, worker = open_pair()
    with pytest.raises(FrameTooLargeError):
        list(client.frames([(m.DROP, list(range(ID, ID + 2 * MAX_ITEMS)))]))
    large, small = torch.zeros(INLINE + 1, dtype=torch.uint8), torch.zeros((1,) * 60)
    with pytest.raises(FrameTooLargeError):
        next(worker.frames([(m.VALUES, 1, [large] + [small] * 1000)]))
    assert client.sent == worker.sent == 0


# -- sequence, session, acknowledgement


@pytest.mark.parametrize("wrong", [-2, -1, 1, 2, 1000, 1 << 63])
def test_a_gap_or_a_repetition_closes(wrong):
    client, worker = open_pair()
    pass_on(client, worker, [(m.SYNC, 1)] * 5)
    with pytest.raises(ProtocolError, match="lost, repeated or reordered"):
        worker.receive(frame(client, [(m.SYNC, 2)], sequence=5 + wrong))
    assert worker.state is State.CLOSED
    with pytest.raises(ProtocolError, match="closed"):
        worker.receive(frame(client, [(m.SYNC, 2)]))


@pytest.mark.parametrize("session", [0, SESSION + 1, -1, 1 << 63])
def test_a_foreign_session_closes(session):
    client, worker = open_pair()
    with pytest.raises(ProtocolError, match="session"):
        worker.receive(frame(client, [(m.SYNC, 1)], session=session))


def test_acknowledgements_move_forward_and_never_beyond_what_was_sent():
    client, worker = open_pair()
    pass_on(worker, client, [(m.DONE, 1)] * 3)
    worker.receive(frame(client, [], acknowledged=2))
    assert worker.acknowledged == 2
    for acknowledged in (1, 4, -1):
        client, worker = open_pair()
        pass_on(worker, client, [(m.DONE, 1)] * 3)
        worker.receive(frame(client, [], acknowledged=2))
        with pytest.raises(ProtocolError, match="acknowledges"):
            worker.receive(frame(client, [], acknowledged=acknowledged))


def test_a_frame_is_taken_whole_or_not_at_all():
    client, worker = open_pair()
    with pytest.raises(ProtocolError):
        worker.receive(frame(client, [(m.SYNC, 1), (m.SYNC, -1)]))
    assert worker.state is State.CLOSED


def test_both_ends_accept_only_what_the_other_may_say():
    for kind in (*m.FROM_WORKER, 0, 99):
        if kind not in m.FROM_CLIENT:
            client, worker = open_pair()
            with pytest.raises(ProtocolError, match="not allowed here"):
                worker.receive(frame(client, [(kind, 1)]))
    for kind in (*m.FROM_CLIENT, m.GREETING, m.WELCOME):
        if kind != m.CHUNK:
            client, worker = open_pair()
            with pytest.raises(ProtocolError, match="not allowed here"):
                client.receive(frame(worker, [(kind, 1)]))


def test_an_op_of_another_length_or_kind_of_list_is_checked_too():
    for op in ((m.OP,), (m.OP, 1), (m.OP, 1, (), None), (m.OP, 1, (), None, None, None), (float(m.OP), 1, (), None, None)):
        client, worker = open_pair()
        with pytest.raises(ProtocolError):
            worker.receive(frame(client, [op]))


# -- before the session


HELLO, AUTH = (m.HELLO, (1,), 300, "2.13"), (m.AUTH, "token", "secret")


def test_the_handshake_has_one_order():
    for state, accepted in ((State.GREETING, HELLO), (State.AUTHENTIC, AUTH)):
        for message in (HELLO, AUTH, (m.SYNC, 1), (m.OP, 1, (), None, None), (m.CHUNK, 1, 9, 0, 9)):
            worker = Connection(worker=True)
            worker.state = state
            bytes_ = frame(worker, [message], session=0, rest=b"x" * 9 if message[0] == m.CHUNK else b"")
            if message is accepted:
                assert worker.receive(bytes_) == [message]
            else:
                with pytest.raises(ProtocolError):
                    worker.receive(bytes_)


def test_a_client_in_the_handshake_takes_no_answers_to_questions():
    for message in ((m.DONE, 1), (m.VALUES, 1, ()), (m.STATE, 1, "", "", ""), (m.CHUNK, 1, 9, 0, 9)):
        client = Connection(worker=False, reserve=lambda nbytes: None)
        with pytest.raises(ProtocolError, match="GREETING, WELCOME, CHALLENGE, ERROR"):
            client.receive(frame(client, [message], session=0, rest=b"x" * 9 if message[0] == m.CHUNK else b""))


@pytest.mark.parametrize("batch", [(), (HELLO, HELLO), (HELLO, AUTH), (HELLO,) * 50])
def test_before_the_session_a_frame_is_one_message(batch):
    worker = Connection(worker=True)
    with pytest.raises(ProtocolError, match="one message"):
        worker.receive(frame(worker, batch, session=0))


def test_before_the_session_a_frame_is_small():
    for padding, refused in ((BEFORE_AUTH - 30, False), (BEFORE_AUTH, True)):
        worker = Connection(worker=True)
        bytes_ = frame(worker, [(m.HELLO, (1,), 300, "x" * padding)], session=0)
        assert (len(bytes_) > BEFORE_AUTH) is refused
        if refused:
            with pytest.raises(FrameTooLargeError, match=str(BEFORE_AUTH)):
                worker.receive(bytes_)
        else:
            worker.receive(bytes_)
    worker = Connection(worker=True)
    with pytest.raises(FrameTooLargeError):  # a large head in a small frame: the limit on the head is the same
        worker.receive(struct.pack("<I", BEFORE_AUTH + 1) + b"\x00")


def test_before_the_session_the_head_names_none():
    worker = Connection(worker=True)
    with pytest.raises(ProtocolError, match="session"):
        worker.receive(frame(worker, [HELLO], session=1))


def test_in_the_session_a_frame_has_a_limit_too():
    client, worker = open_pair()
    with pytest.raises(FrameTooLargeError):
        worker.receive(frame(client, [(m.SYNC, 1)], rest=bytes(MAX_FRAME)))


# -- buffers and streams


def chunk(end, stream, total, offset, length, body=None):
    return frame(end, [(m.CHUNK, stream, total, offset, length)], rest=bytes(length) if body is None else body)


@pytest.mark.parametrize("rest", [b"", b"1234567", b"123456789"])
def test_bytes_too_few_or_too_many_are_refused(rest):
    client, worker = open_pair()
    with pytest.raises(ProtocolError):
        worker.receive(frame(client, [(m.PUT, ID, (0, (2,), 0), (), "")], rest=rest))
    client, worker = open_pair()
    with pytest.raises(ProtocolError, match="belong to no tensor"):
        worker.receive(frame(client, [(m.SYNC, 1)], rest=rest or b"1"))


BAD_STREAMS = {
    "stream 0": [(0, 8, 0, 4)],
    "an empty piece": [(1, 8, 0, 0)],
    "a piece longer than the frame": [(1, 8, 0, 8, b"1234")],
    "a piece shorter than the frame": [(1, 8, 0, 4, b"12345678")],
    "a piece beyond the total": [(1, 8, 0, 9)],
    "a start in the middle": [(1, 8, 4, 4)],
    "an overlap": [(1, 8, 0, 4), (1, 8, 2, 4)],
    "a gap": [(1, 12, 0, 4), (1, 12, 8, 4)],
    "another total": [(1, 8, 0, 4), (1, 9, 4, 4)],
    "a second start": [(1, 8, 0, 4), (1, 8, 0, 4)],
    "more than its total": [(1, 8, 0, 8), (1, 8, 8, 1)],
    "an end of none": [(3, 8, 0, 4), (1, 8, 4, 0)],
    "an end in the middle": [(1, 8, 0, 4), (1, 8, 2, 0)],
    "an end of another total": [(1, 8, 0, 4), (1, 9, 4, 0)],
    "an end at the start": [(1, 8, 0, 4), (1, 8, 0, 0)],
    "an end with bytes": [(1, 8, 0, 4), (1, 8, 4, 0, b"1")],
    "more after its end": [(1, 8, 0, 4), (1, 8, 4, 0), (1, 8, 4, 4)],
    "a piece too long": [(1, 1 << 30, 0, PIECE + 1)],
    "a total that overflows": [(1, 1 << 63, 0, 4)],
}


@pytest.mark.parametrize("pieces", BAD_STREAMS.values(), ids=BAD_STREAMS)
def test_a_stream_that_does_not_add_up_is_refused(pieces):
    client, worker = open_pair()
    *good, last = pieces
    for piece in good:
        worker.receive(chunk(client, *piece))
        client.sent += 1
    with pytest.raises(ProtocolError):
        worker.receive(chunk(client, *last))
    assert not worker._streams


def test_a_tensor_takes_a_whole_stream_of_its_size_once():
    for pieces, described in (
        ([], (0, (2,), 1)),
        ([(1, 8, 0, 4)], (0, (2,), 1)),
        ([(1, 8, 0, 8)], (0, (3,), 1)),
        ([(1, 8, 0, 8)], (0, (2,), 2)),
        ([(1, 8, 0, 8)], (0, (2,), True)),
        ([(1, 8, 0, 8)], (0, (2,), -1)),
        ([(1, 8, 0, 8)], (0, (2,), None)),
        ([(1, 8, 0, 8)], (0, (0,), 1)),
    ):
        client, worker = open_pair()
        for piece in pieces:
            worker.receive(chunk(client, *piece))
            client.sent += 1
        with pytest.raises(ProtocolError):
            worker.receive(frame(client, [(m.PUT, ID, described, (), "")]))
    client, worker = open_pair()
    worker.receive(chunk(client, 1, 8, 0, 8))
    client.sent += 1
    twice = [(m.PUT, ID, (0, (2,), 1), (), ""), (m.PUT, ID + 1, (0, (2,), 1), (), "")]
    with pytest.raises(ProtocolError, match="stream 1"):
        worker.receive(frame(client, twice))


def test_only_so_many_streams_are_open_at_once():
    client, worker = open_pair()
    for stream in range(1, MAX_STREAMS + 1):
        worker.receive(chunk(client, stream, 8, 0, 4))
        client.sent += 1
    with pytest.raises(ProtocolError, match=str(MAX_STREAMS)):
        worker.receive(chunk(client, MAX_STREAMS + 1, 8, 0, 4))


def test_an_answer_may_have_more_large_values_than_that():
    client, worker = open_pair()
    values = [torch.full((INLINE + 1,), n, dtype=torch.uint8) for n in range(MAX_STREAMS + 2)]
    assert equal(pass_on(worker, client, [(m.VALUES, 2, values)]), [(m.VALUES, 2, values)])
    assert not client._streams


def test_streams_together_stay_within_what_is_granted():
    asked = []

    def reserve(nbytes):
        asked.append(nbytes)
        if nbytes > 20:
            raise QuotaExceededError("20 bytes are granted")

    client, worker = open_pair()
    worker.reserve = reserve
    received = []
    for stream in (1, 2, 3):
        for offset in (0, 4):
            received += worker.receive(chunk(client, stream, 8, offset, 4))
            client.sent += 1
    assert asked == [8, 16, 24]
    for stream in (1, 2, 3):
        received += worker.receive(frame(client, [(m.PUT, ID + stream, (0, (2,), stream), (), "")]))
        client.sent += 1
    assert [isinstance(message[2], QuotaExceededError) for message in received] == [False, False, True]
    assert worker.receive(frame(client, [(m.SYNC, 1)])) == [(m.SYNC, 1)]  # the connection lives on


@pytest.mark.parametrize("sent", [4, 8])
def test_a_stream_that_is_given_up_counts_no_more(sent):
    asked = []
    client, worker = open_pair()
    worker.reserve = asked.append
    for stream in range(1, 2 * MAX_STREAMS):
        worker.receive(chunk(client, stream % 3 + 1, 8, 0, 4))
        client.sent += 1
        for _ in range(4, sent, 4):
            worker.receive(chunk(client, stream % 3 + 1, 8, 4, 4))
            client.sent += 1
        (head,) = client.give_up(stream % 3 + 1, 8, sent)
        assert worker.receive(head) == [] and not worker._streams
    assert set(asked) == {8}
    assert worker.receive(frame(client, [(m.SYNC, 1)])) == [(m.SYNC, 1)]


def test_a_refused_stream_takes_no_memory_and_must_add_up_all_the_same():
    def reserve(nbytes):
        raise QuotaExceededError("nothing is granted")

    client, worker = open_pair()
    worker.reserve = reserve
    worker.receive(chunk(client, 1, 1 << 50, 0, 4))
    assert worker._streams[1].raw is None
    client.sent += 1
    with pytest.raises(ProtocolError, match="its next CHUNK"):
        worker.receive(chunk(client, 1, 1 << 50, 8, 4))


def test_a_size_that_no_memory_holds_is_a_refusal_of_that_stream():
    client, worker = open_pair()
    worker.receive(chunk(client, 1, (1 << 62) - 1, 0, 4))
    assert isinstance(worker._streams[1].refusal, QuotaExceededError)


# -- anything at all


@given(st.binary(max_size=300), st.booleans(), st.sampled_from([State.GREETING, State.AUTHENTIC, State.OPEN]))
def test_random_bytes_raise_nothing_but_protocol_errors(raw, worker, state):
    end = Connection(worker=worker, reserve=lambda nbytes: None)
    end.state = state
    for attempt in (raw, struct.pack("<I", len(raw)) + raw, frame(end, [], session=0) + raw):
        try:
            end.receive(attempt)
        except SyftliteError as error:
            assert isinstance(error, ProtocolError)
            return


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats() | st.text(max_size=4) | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=16,
)


@given(st.lists(st.tuples(st.sampled_from([*m.FROM_CLIENT, *m.FROM_WORKER]), st.lists(anything, max_size=6)), max_size=4), st.booleans())
def test_random_messages_raise_nothing_but_protocol_errors(batch, worker):
    end = Connection(worker=worker, reserve=lambda nbytes: None)
    end.state, end.session = State.OPEN, SESSION
    packed = msgpack.packb((SESSION, 0, 0, 0, [(kind, *fields) for kind, fields in batch]))
    try:
        end.receive(struct.pack("<I", len(packed)) + packed + b"\x01" * 24)
    except SyftliteError as error:
        assert isinstance(error, ProtocolError)
