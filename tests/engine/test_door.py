"""One connection's way to the engine: handshake, order, quotas, and what it survives."""

import threading

import pytest
import torch

from syftlite._torch import aten
from syftlite.engine import door as door_module
from syftlite.engine.door import Door
from syftlite.engine.engine import Engine
from syftlite.engine.session import Role, Session
from syftlite.errors import (
    AuthenticationError,
    ConfigurationError,
    ObjectNotFoundError,
    ProtocolError,
    ProtocolVersionError,
    QuotaExceededError,
    RemoteError,
    code_of,
)
from syftlite.ops.table import VERSION
from syftlite.testing.peer import Peer, number_of
from syftlite.wire import codec
from syftlite.wire import messages as m
from syftlite.wire.codec import INLINE, Head
from syftlite.wire.connection import State
from syftlite.wire.fields import MAX_TEXT

HELLO = (m.HELLO, m.PROTOCOLS, VERSION, "2.13")
AUTH = (m.AUTH, "token", "right")
ADD, RELU_, TOPK = number_of(aten.add.Tensor), number_of(aten.relu_.default), number_of(aten.topk.default)


@pytest.fixture
def engine():
    return Engine("doored")


@pytest.fixture
def peer(engine):
    return Peer(engine)


def refusal(answers, cls, request=0):
    """The text of the one answer, which must be an ERROR of ``cls``; to request 0, which closes, unless said otherwise."""
    ((kind, number, code, text, _, _),) = answers
    assert (kind, number, code) == (m.ERROR, request, code_of(cls())), text
    return text


def raw(connection, *batch):
    """A frame of ``batch`` as it is, acknowledging nothing."""
    packed = codec.pack(Head(connection.session, connection.sent, 0, 0), batch)
    connection.sent += len(batch)
    return packed


# -- the handshake


def test_the_handshake_tells_both_ends_who_is_there(engine):
    peer = Peer(engine, "ann", shake=False)
    ((kind, protocol, worker, table, torch_version),) = peer.say(HELLO)
    assert (kind, protocol, worker, table, torch_version) == (m.GREETING, 1, "doored", VERSION, str(torch.__version__))
    ((kind, prefix, principal, role, max_bytes),) = peer.say(AUTH)
    assert (kind, principal, role, max_bytes) == (m.WELCOME, "ann", "scientist", engine.max_bytes)
    assert engine.sessions[prefix].principal.name == "ann" and 0 < prefix < 1 << 31


def test_a_version_that_is_not_shared_is_refused_with_both_sides_versions(engine):
    text = refusal(Peer(engine, shake=False).say((m.HELLO, (7, 9), VERSION, "2.13")), ProtocolVersionError)
    assert "(1,)" in text and "(7, 9)" in text and "upgrade" in text
    refusal(Peer(engine, shake=False).say((m.HELLO, (), VERSION, "2.13")), ProtocolVersionError)


def test_a_newer_client_is_answered_in_the_version_that_both_speak(engine):
    ((kind, protocol, *_),) = Peer(engine, shake=False).say((m.HELLO, (2, 1), VERSION + 5, "3.0"))
    assert (kind, protocol) == (m.GREETING, 1)


def test_a_wrong_token_opens_no_session_and_ends_the_connection(engine):
    peer = Peer(engine, shake=False)
    assert "syftlite token new" in refusal(peer.shake("wrong"), AuthenticationError)
    assert peer.door.closing == "AuthenticationError" and list(engine.sessions) == [engine.vault.prefix]
    assert peer.send(raw(peer.connection, AUTH)) == []  # no second guess


@pytest.mark.parametrize("error", [ConfigurationError("/home/owner/tokens.json is broken"), OSError("/home/owner"), KeyError("hash")])
def test_trouble_with_the_owners_tokens_is_told_to_the_log_alone(engine, error, caplog):
    def authenticate(scheme, secret):
        raise error

    peer = Peer(engine, shake=False)
    peer.door.authenticate = authenticate
    text = refusal(peer.shake(), RemoteError)
    assert "owner" in text and "/home" not in text and "hash" not in text
    assert "cannot authenticate" in caplog.text


def test_one_connection_opens_one_session(engine):
    """AUTH after AUTH, before the WELCOME has been framed: the first session must not be left behind."""
    peer = Peer(engine, shake=False)
    peer.say(HELLO)
    peer.door.receive(raw(peer.connection, AUTH))
    assert refusal(peer.send(raw(peer.connection, AUTH))[1:], ProtocolError) == "wait for WELCOME"
    peer.leave()
    assert list(engine.sessions) == [engine.vault.prefix]


def test_nothing_but_the_handshake_comes_before_the_session(engine):
    for batch in ((AUTH,), (HELLO, HELLO), (HELLO, AUTH), ((m.SYNC, 1),), ((m.CHUNK, 1, 8, 0, 8),)):
        peer = Peer(engine, shake=False)
        refusal(peer.send(raw(peer.connection, *batch) + (b"12345678" if batch[0][0] == m.CHUNK else b"")), ProtocolError)
    assert list(engine.sessions) == [engine.vault.prefix]


def test_a_second_hello_is_refused(engine):
    peer = Peer(engine, shake=False)
    peer.say(HELLO)
    refusal(peer.say(HELLO), ProtocolError)
    peer = Peer(engine)
    refusal(peer.say(HELLO), ProtocolError)


# -- messages


def test_messages_run_in_order_and_answers_name_their_requests(peer):
    answers = peer.say(
        (m.PUT, peer.id(1), torch.ones(3), ("#x",), ""),
        (m.OP, ADD, (peer.id(1), 2.0), None, peer.id(2)),
        (m.SYNC, 7),
        (m.GET, 8, (peer.id(2),), True, None),
        (m.LIST, 9, 0),
    )
    assert answers[0] == (m.DONE, 7)
    assert answers[1][:2] == (m.VALUES, 8) and answers[1][2][0].tolist() == [3.0, 3.0, 3.0]
    assert answers[2][:3] == (m.FOUND, 9, 1)


def test_what_is_released_is_framed_before_a_later_message_can_change_it(peer):
    value = torch.full((INLINE,), -1.0)
    answers = peer.say(
        (m.PUT, peer.id(1), value, (), ""), (m.GET, 1, (peer.id(1),), False, None), (m.OP, RELU_, (peer.id(1),), None, None), (m.SYNC, 2)
    )
    assert [a[0] for a in answers] == [m.VALUES, m.DONE] and torch.equal(answers[0][2][0], value)


def test_a_quick_run_stops_at_what_takes_long_and_loses_nothing(engine):
    peer = Peer(engine)
    big = torch.ones(300, 300)
    peer.say((m.PUT, peer.id(1), big, (), ""))
    batch = [(m.OP, ADD, (peer.id(1), 1.0), None, peer.id(2)), (m.OP, ADD, (peer.id(2), 1.0), None, peer.id(3)), (m.SYNC, 1)]
    for frame in peer.connection.frames(batch):
        peer.door.receive(b"".join(frame))
    assert not peer.door.run_quick() and len(peer.door.inbox) == 3 and peer.id(2) not in peer.door.session.objects
    assert peer.settle() == [(m.DONE, 1)]
    assert peer.say((m.GET, 2, (peer.id(3),), True, None))[0][2][0][0, 0] == 3.0


def test_a_pooled_run_gives_its_thread_back_after_a_slice_of_time_and_one_message_at_least(engine, monkeypatch):
    peer = Peer(engine)
    for slice_, left in ((0.0, [2, 1, 0]), (600.0, [0])):
        monkeypatch.setattr("syftlite.engine.door.SLICE", slice_)
        peer.door.inbox.extend((m.SYNC, number) for number in range(3))
        for expected in left:
            peer.door.run(pooled=True)
            assert len(peer.door.inbox) == expected
    assert [answer[1] for answer in peer.door.outbox] == [0, 1, 2] * 2


@pytest.mark.parametrize(
    "message", [(m.FILE, 1, (), "why"), (m.LIST, 1, 0), (m.FIND, 1, (), 0), (m.CLEAR, 1), (m.PENDING, 1, 0)], ids=lambda v: str(v[0])
)
def test_what_meets_the_disk_or_grows_with_the_store_is_never_run_quickly(peer, message):
    for frame in peer.connection.frames([message]):
        peer.door.receive(b"".join(frame))
    assert not peer.door.run_quick() and len(peer.door.inbox) == 1


def test_an_error_answers_its_request_and_the_session_goes_on(peer):
    assert "keep a copy" in refusal(peer.say((m.GET, 5, (peer.id(9),), True, None)), ObjectNotFoundError, request=5)
    assert peer.say((m.SYNC, 6)) == [(m.DONE, 6)]


@pytest.mark.parametrize(
    "message",
    [
        lambda p: (m.OP, ADD, (p.id(1), 1.0), None, p.id(1)),
        lambda p: (m.OP, ADD, (p.id(1), 1.0), None, p.id(0) + (1 << 32)),
        lambda p: (m.OP, ADD, (p.id(1), 1.0), None, -1),
        lambda p: (m.OP, TOPK, (p.id(1), 1), None, (p.id(2), p.id(2))),
        lambda p: (m.OP, TOPK, (p.id(1), 1), None, (p.id(2), p.id(1))),
        lambda p: (m.OP, TOPK, (p.id(1), 1), None, ("a", "b")),
        lambda p: (m.OP, ADD, "args", None, p.id(2)),
        lambda p: (m.OP, ADD, (p.id(1), 1.0), [], p.id(2)),
        lambda p: (m.PUT, p.id(1), torch.ones(1), (), ""),
        lambda p: (m.PUT, 5, torch.ones(1), (), ""),
    ],
)
def test_ids_that_are_not_fresh_ids_of_the_session_end_it(peer, message):
    peer.say((m.PUT, peer.id(1), torch.ones(3), (), ""))
    refusal(peer.say(message(peer)), ProtocolError)
    assert peer.door.closing == "ProtocolError"


def test_after_the_end_nothing_is_taken_and_nothing_runs(peer, engine):
    peer.say((m.PUT, peer.id(1), torch.ones(3), (), ""))
    refusal(peer.send(b"\x00"), ProtocolError)
    sent = len(peer.frames)
    assert peer.send(raw(peer.connection, (m.OP, RELU_, (peer.id(1),), None, None))) == [] and len(peer.frames) == sent
    peer.leave()
    assert not engine.objects


def test_what_was_received_before_a_broken_frame_is_not_run_after_it(peer):
    """The end comes at once: the connection is lost, and the client is told so for all that it has no answer to."""
    for frame in peer.connection.frames([(m.PUT, peer.id(1), torch.ones(3), (), "")]):
        peer.door.receive(b"".join(frame))
    refusal(peer.send(b"\x00"), ProtocolError)
    assert not peer.door.session.objects


def test_an_end_while_a_message_runs_lets_that_message_finish(peer, engine, monkeypatch):
    """The pool's thread runs a message while the loop's thread receives a broken frame."""
    handle = engine.handle

    def handle_and_break(session, message):
        answer = handle(session, message)
        peer.door.receive(b"\x00")
        return answer

    monkeypatch.setattr(engine, "handle", handle_and_break)
    answers = peer.say((m.SYNC, 1), (m.SYNC, 2))
    assert [a[:2] for a in answers] == [(m.ERROR, 0), (m.DONE, 1)] or [a[:2] for a in answers] == [(m.DONE, 1), (m.ERROR, 0)]


# -- plans


def test_a_plan_replays_under_fresh_ids(peer):
    code = ((ADD, (1, 2), None, 3), (ADD, (3, 3), None, 4))
    answers = peer.say(
        (m.PUT, peer.id(1), torch.ones(2), (), ""),
        (m.PLAN, peer.id(2), 2, code[:1], None),
        (m.PLAN, peer.id(2), 2, code[1:], (4,)),
        (m.RUN, peer.id(2), (peer.id(1), peer.id(1)), peer.id(10), (peer.id(20),)),
        (m.GET, 1, (peer.id(20),), False, None),
    )
    assert answers[0][2][0].tolist() == [4.0, 4.0] and sorted(peer.door.session.objects) == [peer.id(1), peer.id(20)]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda p: (m.PLAN, p.id(2), 2, (), None),  # it is complete
        lambda p: (m.PLAN, p.id(3), 1, ((ADD, (1, 1), None, 1),), None),  # a result under an operand's number
        lambda p: (m.PLAN, p.id(3), 1, ((ADD, (1, 1), None, 3), (ADD, (1, 1), None, 2)), None),
        lambda p: (m.PLAN, p.id(3), 1, ((ADD, (1, 1), None, 2),), (9,)),
        lambda p: (m.PLAN, p.id(0) + (1 << 32), 1, (), ()),
        lambda p: (m.PLAN, p.id(1), 1, (), ()),
        lambda p: (m.RUN, p.id(9), (), p.id(10), ()),
        lambda p: (m.RUN, p.id(2), (p.id(1),), p.id(10), (p.id(20),)),
        lambda p: (m.RUN, p.id(2), (p.id(1), p.id(1)), p.id(10), ()),
        lambda p: (m.RUN, p.id(2), (p.id(1), p.id(1)), p.id(10), (p.id(1),)),
        lambda p: (m.RUN, p.id(2), (p.id(1), p.id(1)), p.id(10), (p.id(11),)),  # the number of what it makes
        lambda p: (m.RUN, p.id(2), (p.id(1), p.id(1)), p.id(0), (p.id(20),)),  # ... or of what is there
        lambda p: (m.RUN, p.id(2), (p.id(1), p.id(1)), p.id(10) + (1 << 32), (p.id(20),)),
    ],
)
def test_a_plan_that_breaks_its_form_ends_the_session(peer, wrong):
    plan = (m.PLAN, peer.id(2), 2, ((ADD, (1, 2), None, 3),), (3,))
    assert peer.say((m.PUT, peer.id(1), torch.ones(2), (), ""), plan) == []
    refusal(peer.say(wrong(peer)), ProtocolError)


def test_a_replay_costs_what_its_messages_cost_whatever_their_numbers_are(peer):
    """Numbers up to 2^60: what is cleared afterwards is what was made, not all that lies between."""
    peer.say((m.PUT, peer.id(1), torch.ones(2), (), ""))
    peer.say((m.PLAN, peer.id(2), 1, ((ADD, (1, 1), None, 1 << 31),), (1 << 31,)))
    answers = peer.say((m.RUN, peer.id(2), (peer.id(1),), peer.id(10), (peer.id(20),)), (m.GET, 1, (peer.id(20),), False, None))
    assert answers[0][2][0].tolist() == [2.0, 2.0]


def test_plans_count_towards_the_quota():
    peer = Peer(Engine("small", max_bytes=1 << 20))
    code = ((ADD, (1, (0,) * 4000), None, None),) * 2
    for number in range(4):
        peer.say((m.PLAN, peer.id(number), 1, code, ()))
    session = peer.door.session
    assert len(session.programs) == 2 and 0 < session.used <= 1 << 20
    peer.say((m.DROP, tuple(session.programs)))
    assert not session.programs and session.used == 0


# -- deliveries


def delivery(engine, ticket):
    """A connection opened with ``ticket``; its session's ids do not matter."""
    peer = Peer(engine, shake=False)
    peer.say(HELLO)
    ((kind, prefix, *_),) = peer.say((m.AUTH, "ticket", ticket))
    assert kind == m.WELCOME
    peer.connection.state, peer.connection.session = State.OPEN, prefix
    return peer


def test_a_ticket_is_good_for_one_delivery_and_nothing_else(peer, engine):
    ((_, _, ticket),) = peer.say((m.EXPECT, 1, ((peer.id(1), 8),)))
    sender = delivery(engine, ticket)
    assert sender.say((m.PUT, peer.id(1), torch.ones(2), (), ""), (m.SYNC, 5)) == [(m.DONE, 5)]
    assert peer.say((m.ARRIVED, peer.id(1)), (m.GET, 2, (peer.id(1),), False, None))[0][2][0].tolist() == [1.0, 1.0]
    for wrong in ((m.LIST, 1, 0), (m.FIND, 1, (), 0), (m.GET, 1, (peer.id(1),), True, None), (m.PUT, peer.id(2), torch.ones(1), (), "")):
        ((_, _, ticket),) = peer.say((m.EXPECT, 1, ((peer.id(3), 8),)))
        refusal(delivery(engine, ticket).say(wrong), ProtocolError)


def test_a_used_or_unknown_ticket_opens_nothing(peer, engine):
    ((_, _, ticket),) = peer.say((m.EXPECT, 1, ((peer.id(1), 8),)))
    delivery(engine, ticket)
    for secret in (ticket, "", "x" * 43):
        stranger = Peer(engine, shake=False)
        stranger.say(HELLO)
        refusal(stranger.say((m.AUTH, "ticket", secret)), AuthenticationError)


def test_deliveries_count_towards_the_quota_until_they_are_taken_in():
    """Otherwise a client that delivers to itself, and takes nothing in, could fill the memory."""
    engine = Engine("small", max_bytes=1000)
    peer = Peer(engine)
    for number in (1, 2):
        ((_, _, ticket),) = peer.say((m.EXPECT, 1, ((peer.id(number), 400),)))
        delivery(engine, ticket).say((m.PUT, peer.id(number), torch.ones(100), (), ""))
    refusal(peer.say((m.EXPECT, 1, ((peer.id(3), 400),))), QuotaExceededError, request=1)
    peer.say((m.ARRIVED, peer.id(1)), (m.DROP, (peer.id(1),)))
    assert peer.say((m.EXPECT, 1, ((peer.id(3), 400),)))[0][0] == m.TICKET


def fitting(sizes, put_first):
    """A session of 1,000 bytes at which values of ``sizes`` are expected; then one of 400 bytes is uploaded, before or after they come."""
    peer = Peer(Engine("small", max_bytes=1000))
    upload = (m.PUT, peer.id(99), torch.ones(100), (), "")
    ((_, _, ticket),) = peer.say((m.EXPECT, 1, tuple((peer.id(n), size) for n, size in enumerate(sizes))))
    if put_first:
        peer.say(upload)
    delivery(peer.door.engine, ticket).say(*[(m.PUT, peer.id(n), torch.ones(size // 4), (), "") for n, size in enumerate(sizes)])
    if not put_first:
        peer.say(upload)
    peer.say(*[(m.ARRIVED, peer.id(n)) for n in range(len(sizes))])
    return peer, peer.door.session


@pytest.mark.parametrize("put_first", [True, False])
@pytest.mark.parametrize("sizes", [(1000,), (300, 304), (600,), (200, 400)])
def test_uploads_and_what_is_expected_fit_the_quota_together(sizes, put_first):
    peer, session = fitting(sizes, put_first)
    answers = peer.say(*[(m.GET, n, (peer.id(n),), False, None) for n in (*range(len(sizes)), 99)])
    fits = sum(sizes) + 400 <= 1000
    assert [a[0] for a in answers] == [m.VALUES] * len(sizes) + [m.VALUES if fits else m.ERROR]
    assert session.used == sum(sizes) + 400 * fits
    peer.say((m.DROP, (*map(peer.id, range(len(sizes))), peer.id(99))))
    assert session.used == 0


def test_what_is_expected_and_never_comes_gives_its_room_back():
    now = [0.0]
    peer = Peer(Engine("small", max_bytes=1000, clock=lambda: now[0]))
    session, full = peer.door.session, ((peer.id(1), 600), (peer.id(2), 400))
    for given_up in ((m.DROP, (peer.id(1), peer.id(2))), (m.ARRIVED, peer.id(1))):
        peer.say((m.EXPECT, 1, full))
        assert session.used == 1000
        peer.say(given_up, (m.DROP, (peer.id(1), peer.id(2))))
        assert session.used == 0
    for _ in range(2):
        ((_, _, ticket),) = peer.say((m.EXPECT, 1, full))  # again: the former ticket is for nothing
    now[0] = 121.0
    peer.say((m.PUT, peer.id(3), torch.ones(250), (), ""))
    assert peer.say((m.GET, 2, (peer.id(3),), True, None))[0][0] == m.VALUES and session.used == 0
    stranger = Peer(peer.door.engine, shake=False)
    stranger.say(HELLO)
    refusal(stranger.say((m.AUTH, "ticket", ticket)), AuthenticationError)


def test_what_is_expected_anew_comes_by_the_later_ticket_alone(peer, engine):
    ((_, _, old),), ((_, _, new),) = (peer.say((m.EXPECT, 1, ((peer.id(1), nbytes),))) for nbytes in (8, 400))
    stranger = Peer(engine, shake=False)
    stranger.say(HELLO)
    refusal(stranger.say((m.AUTH, "ticket", old)), AuthenticationError)
    assert peer.door.session.used == 400
    delivery(engine, new).say((m.PUT, peer.id(1), torch.ones(100), (), ""))
    peer.say((m.ARRIVED, peer.id(1)))
    assert peer.say((m.GET, 1, (peer.id(1),), True, None))[0][2][0].shape == (100,)


def test_an_upload_that_has_begun_leaves_the_rest_of_the_quota_to_what_is_expected():
    peer = Peer(Engine("small", max_bytes=5 * INLINE))
    first = next(peer.connection.frames([(m.PUT, peer.id(1), torch.ones(INLINE), (), "")]))  # 4 INLINE, without their PUT
    peer.send(b"".join(first))
    refusal(peer.say((m.EXPECT, 1, ((peer.id(2), 2 * INLINE),))), QuotaExceededError, request=1)
    assert peer.say((m.EXPECT, 1, ((peer.id(2), INLINE),)))[0][0] == m.TICKET


@pytest.mark.parametrize("upload_first", [True, False])
def test_an_upload_that_begins_while_values_are_expected_holds_nothing_twice(monkeypatch, upload_first):
    """They are taken in by different threads: what one has been granted is there before it is looked at."""
    peer = Peer(Engine("small", max_bytes=5 * INLINE))
    session, reserve = peer.door.session, Session.reserve
    first = b"".join(next(peer.connection.frames([(m.PUT, peer.id(1), torch.ones(INLINE), (), "")])))
    both = [lambda: peer.door.receive(first), lambda: peer.door.engine.handle(session, (m.EXPECT, 1, ((peer.id(2), 4 * INLINE),)))]
    one, other = both if upload_first else both[::-1]

    def meanwhile(self, nbytes):
        monkeypatch.setattr(Session, "reserve", reserve)
        reserve(self, nbytes)
        other()

    monkeypatch.setattr(Session, "reserve", meanwhile)
    one()
    assert session.used + peer.door.connection.opened == 4 * INLINE


def test_what_a_ticket_has_brought_leaves_its_connection_no_room_for_more():
    peer = Peer(Engine("small", max_bytes=5 * INLINE))
    ((_, _, ticket),) = peer.say((m.EXPECT, 1, ((peer.id(1), 2 * INLINE), (peer.id(2), 2 * INLINE))))
    sender = delivery(peer.door.engine, ticket)
    for number, left in ((1, 2), (2, 0)):
        sender.say((m.PUT, peer.id(number), torch.ones(INLINE // 2), (), ""))
        sender.send(b"".join(next(sender.connection.frames([(m.PUT, 3, torch.ones(INLINE // 2), (), "")]))))
        assert sender.door.connection.opened == left * INLINE
        sender.send(b"".join(sender.connection.give_up(sender.connection._next_stream, 2 * INLINE, 2 * INLINE)))
    assert peer.say((m.ARRIVED, peer.id(1)), (m.ARRIVED, peer.id(2)), (m.SYNC, 2)) == [(m.DONE, 2)]
    assert not peer.door.session.objects[peer.id(1)][1].poisoned and not peer.door.session.objects[peer.id(2)][1].poisoned


def test_an_arrival_takes_no_id_that_is_taken_or_another_session_s(engine):
    for number in (lambda peer: peer.id(1), lambda peer: 7, lambda peer: (peer.prefix ^ 1) << 32):
        peer = Peer(engine)
        peer.say((m.PUT, peer.id(1), torch.ones(2), (), ""))
        refusal(peer.say((m.ARRIVED, number(peer))), ProtocolError)
        assert peer.door.session.used == 8


def test_a_delivery_larger_than_announced_is_refused_as_it_comes():
    engine = Engine("small")
    peer = Peer(engine)
    for tensor in (torch.ones(101), torch.ones(INLINE)):
        ((_, _, ticket),) = peer.say((m.EXPECT, 1, ((peer.id(1), 400),)))
        sender = delivery(engine, ticket)
        sender.say((m.PUT, peer.id(1), tensor, (), ""))
        sender.leave()
        assert not engine.arrivals._arrived and not sender.door.connection._streams


def test_what_arrives_after_its_session_has_ended_is_dropped(peer, engine):
    ((_, _, ticket),) = peer.say((m.EXPECT, 1, ((peer.id(1), 8),)))
    sender = delivery(engine, ticket)
    peer.leave()
    sender.say((m.PUT, peer.id(1), torch.ones(2), (), ""))
    assert not engine.arrivals._arrived


def test_others_come_in_while_it_is_looked_for_what_a_closed_session_protected(peer, engine, monkeypatch):
    """All that is stored is looked through, and whoever logs in does on the event loop's thread."""
    sources, came = engine._sources, []

    def look():
        comes = threading.Thread(target=lambda: came.append(Peer(engine)), daemon=True)
        comes.start()
        comes.join(5)
        return sources()

    peer.say((m.PUT, peer.id(1), torch.ones(4, 2), (), ""), (m.PROTECT, 1, peer.id(1), '[{"aggregate": true}]'))
    assert peer.door.session.protected
    monkeypatch.setattr(engine, "_sources", look)
    peer.leave()
    assert came and not engine.policies._frames


# -- limits


def test_an_upload_beyond_the_quota_poisons_its_id_and_no_more():
    engine = Engine("small", max_bytes=3 * INLINE)
    peer = Peer(engine)
    large, small = torch.ones(INLINE), torch.ones(4)
    peer.say((m.PUT, peer.id(1), large, (), ""), (m.PUT, peer.id(2), small, (), ""))
    assert not peer.door.connection._streams
    refusal(peer.say((m.GET, 1, (peer.id(1),), True, None)), QuotaExceededError, request=1)
    assert torch.equal(peer.say((m.GET, 2, (peer.id(2),), True, None))[0][2][0], small)


def test_uploads_that_wait_to_be_run_count_towards_the_quota():
    engine = Engine("small", max_bytes=10 * INLINE)
    peer = Peer(engine)
    large = torch.ones(INLINE)  # 4 INLINE
    for number in range(4):
        for frame in peer.connection.frames([(m.PUT, peer.id(number), large, (), "")]):
            peer.door.receive(b"".join(frame))
    assert peer.door.waiting == 8 * INLINE  # two are here, two were turned away as they came
    answers = peer.say(*[(m.GET, number, (peer.id(number),), False, None) for number in range(4)])
    assert [a[0] for a in answers] == [m.VALUES, m.VALUES, m.ERROR, m.ERROR] and peer.door.waiting == 0


def test_a_view_that_is_larger_than_its_storage_is_not_copied_out_beyond_the_quota():
    peer = Peer(Engine("small", max_bytes=1 << 20))
    peer.say((m.PUT, peer.id(1), torch.ones(1), (), ""))
    peer.say((m.OP, number_of(aten.expand.default), (peer.id(1), (1 << 40,)), None, peer.id(2)))
    peer.say((m.OP, number_of(aten.expand.default), (peer.id(1), (1 << 20, 2)), None, peer.id(3)))
    peer.say((m.PLAN, peer.id(4), 2, ((number_of(aten.mul.Tensor), (1, 2), None, 3),), (3,)))
    peer.say((m.PLAN, peer.id(6), 1, ((number_of(aten.expand.default), (1, (1 << 40,)), None, 2),), (2,)))
    for kind, *fields in (
        (m.GET, 1, (peer.id(2),), False, None),
        (m.FILE, 1, (peer.id(2),), "why"),
        (m.SHIP, 1, ((peer.id(3), 1),), "ws://127.0.0.1:1", "ticket"),
        (m.MEASURE, 1, peer.id(2), (1, 1.0, None, (0.0, 1.0), ()), "key", peer.id(5)),
        (m.MAP, 1, peer.id(4), (peer.id(3), peer.id(1)), 1, (), (1.0, 1.0, 1.0), "key", (peer.id(5),)),
        (m.MAP, 1, peer.id(6), (peer.id(1),), 1, (), (1.0, 1.0, 1.0), "key", (peer.id(5),)),
    ):
        refusal(peer.say((kind, *fields)), QuotaExceededError, request=1)
    with pytest.raises(QuotaExceededError):
        peer.door.session.take_over(peer.id(2))
    assert peer.say((m.SYNC, 2)) == [(m.DONE, 2)]


def test_a_frame_full_of_questions_makes_no_heap_of_answers(peer, monkeypatch):
    most = 0
    frames = Door.frames

    def watched(self):
        nonlocal most
        most = max(most, len(self.outbox), 300 * sum(a[0] == m.FOUND for a in self.outbox[:-1]))
        return frames(self)

    monkeypatch.setattr(Door, "frames", watched)
    peer.say(*[(m.PUT, peer.id(i), torch.ones(1), ("#tag",), "text") for i in range(500)])
    assert len(peer.say(*[(m.LIST, i, 0) for i in range(50)])) == 50
    assert len(peer.say(*[(m.SYNC, i) for i in range(1000)])) == 1000
    assert most <= door_module.MAX_ANSWERS


def test_failed_results_are_stored_too_and_bounded(peer, monkeypatch):
    monkeypatch.setattr(door_module, "GRACE", 10)
    peer.door.session.max_objects = 5
    ops = [(m.OP, 0, (), None, peer.id(i)) for i in range(16)]
    assert peer.say(*ops[:15]) == []
    assert "delete pointers" in refusal(peer.say(ops[15]), QuotaExceededError)


def test_a_stored_error_keeps_no_more_text_than_it_can_tell(peer):
    peer.say((m.OP, ADD, (), {"x" * 20_000: 1}, peer.id(1)))
    assert len(peer.door.session.objects[peer.id(1)][1].mark.poison.text) == MAX_TEXT


@pytest.mark.parametrize("tags", [("x" * 4000,), ("",) * 4000, ("x" * 100,) * 40])
def test_every_object_fits_a_listing_whatever_its_tags(peer, tags):
    for number in range(20):
        peer.say((m.PUT, peer.id(number), torch.ones((1,) * 60), tags, "\N{GRINNING FACE}" * MAX_TEXT))
    rows, total = [], 1
    while len(rows) < total:
        ((_, _, total, page),) = peer.say((m.LIST, 1, len(rows)))
        assert page
        rows += page
    assert [row[0] for row in rows] == [peer.id(i) for i in range(20)]


def test_the_owner_sees_every_request_whatever_a_scientist_files(engine):
    ann, owner = Peer(engine), Peer(engine, "boss", Role.OWNER)
    ann.say((m.PUT, ann.id(1), torch.ones((1,) * 60), (), ""))
    filed = [ann.say((m.FILE, 1, (ann.id(1),) * 2000, "\N{GRINNING FACE}" * MAX_TEXT))[0][2] for _ in range(5)]
    owner.say((m.DECIDE, 1, filed[0], False, ""))
    rows, total = [], 1
    while len(rows) < total:
        ((_, _, total, page),) = owner.say((m.PENDING, 1, len(rows)))
        assert page
        rows += page
    assert sorted(row[0] for row in rows) == sorted(filed) and rows[-1][4] == "denied"
    assert rows[0][3][-1] == "and 1980 more"


def test_an_answer_that_fits_no_frame_is_an_error_of_that_request(peer):
    peer.say(*[(m.PUT, peer.id(i), torch.ones((1,) * 60), (), "") for i in range(1000)])
    text = refusal(peer.say((m.GET, 1, tuple(peer.id(i) for i in range(1000)), True, None)), QuotaExceededError, request=1)
    assert "fewer" in text
    assert len(peer.say((m.GET, 2, tuple(peer.id(i) for i in range(300)), True, None))[0][2]) == 300


def test_a_number_without_a_form_on_the_wire_is_an_error_of_that_request(peer):
    peer.say((m.PUT, peer.id(1), torch.ones((), dtype=torch.complex64), (), ""))
    refusal(peer.say((m.ASK, 1, number_of(aten._local_scalar_dense.default), (peer.id(1),), None, ())), TypeError, request=1)


def test_an_answer_that_cannot_be_sent_ends_the_connection_with_a_word(peer, engine, monkeypatch, caplog):
    monkeypatch.setattr(engine, "handle", lambda session, message: (m.STATE, 1, object(), "", ""))
    assert "internal error" in refusal(peer.say((m.SYNC, 1)), RemoteError)
    assert "internal error" in caplog.text and "object" not in refusal_text(peer)


def refusal_text(peer):
    return codec.unpack(peer.frames[-1])[1][0][3]


def test_an_error_of_the_engine_itself_ends_the_connection_with_a_word(peer, engine, monkeypatch, caplog):
    def broken(session, message):
        raise KeyError("of the engine's own")

    monkeypatch.setattr(engine, "handle", broken)
    assert "own" not in refusal(peer.say((m.SYNC, 1)), RemoteError)
    assert "of the engine's own" in caplog.text


def test_leaving_closes_the_session_once_and_drops_what_waits(peer, engine):
    for frame in peer.connection.frames([(m.PUT, peer.id(1), torch.ones(3), (), "")]):
        peer.door.receive(b"".join(frame))
    peer.leave()
    peer.leave()
    peer.door.run()
    assert list(engine.sessions) == [engine.vault.prefix] and not peer.door.inbox
    assert peer.door.connection.state is State.OPEN and peer.send(raw(peer.connection, (m.SYNC, 1))) == []
