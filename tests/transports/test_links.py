"""Links between members of a group: both ends in threads, in clear and in TLS, and with ends that go."""

import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from transports._ends import PATIENCE, TAG, until

from syftlite.engine.room import Room
from syftlite.errors import SharingAbortedError
from syftlite.mpc.rounds import message_bytes
from syftlite.transports import links
from syftlite.transports.links import HEADER, STOP
from syftlite.transports.stretches import PIECE, pieces


def hurried(ends, monkeypatch, seconds):
    """A pair that has been made in peace, and now waits for no longer than that."""
    pair = ends.pair()
    monkeypatch.setattr(links, "TIMEOUT", seconds)
    for link in pair:
        links.ready(link._socket)
    return pair


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
        (got_a,), (got_b,) = ends.both(lambda tag=tag: a.swap([x], tag), lambda tag=tag: b.swap([y], tag))
        assert torch.equal(got_a, y) and torch.equal(got_b, x)


@pytest.mark.parametrize("sizes", [(3, 5, 14), (PIECE - 8, 7, 9), (PIECE, PIECE + 1, 1), (700_001, 8, 3_000_000), (1,) * (3 * links.AT_ONCE)])
def test_a_message_of_several_parts_arrives_as_such(ends, sizes):
    """Wherever a piece of what is sent ends; and it has the bytes that are counted."""
    a, b = ends.pair()
    x = [(torch.arange(size) % 251).to(torch.uint8) for size in sizes]
    y = [part + 1 for part in x]
    x[1], y[1] = (part.view(-1).numpy().view(np.int8) for part in (x[1], y[1]))
    got_a, got_b = ends.both(lambda: a.swap(x, TAG), lambda: b.swap(y, TAG))
    for got, sent in ((got_a, y), (got_b, x)):
        assert isinstance(got[1], np.ndarray) and got[1].dtype == np.int8 and (got[1] == sent[1]).all()
        assert all(torch.equal(g, s) for i, (g, s) in enumerate(zip(got, sent, strict=True)) if i != 1)
    assert sum(len(stretch) for piece in pieces(x) for stretch in piece) == message_bytes(x) == sum(-(-size // 8) * 8 for size in sizes)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64])
def test_messages_have_the_others_dtype_and_shape(ends, dtype):
    a, b = ends.pair()
    x = torch.arange(24).view(2, 3, 4).to(dtype)
    (got,), _ = ends.both(lambda: a.swap([x], TAG), lambda: b.swap([x + 1], TAG))
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
    corrections = b.corrections(1 << 30, Room())
    sent = {number: torch.full((size,), number, dtype=torch.uint8) for number, size in ((3, 10), (1, 3 * PIECE), (2, 0), (9, 77))}
    ends.both(lambda: [a.push(data, number) for number, data in sent.items()], lambda: None)
    for number in (9, 1, 2, 3):
        assert torch.equal(corrections(number, len(sent[number])), sent[number])


def test_a_small_one_reaches_who_waits_for_it(ends):
    """However high the level is from which on the thread that reads ahead is woken."""
    a, b = ends.pair()
    corrections = b.corrections(1 << 30, Room())
    waiting = ends.pool.submit(corrections, 0, 10)
    until(lambda: corrections._reading)
    a.push(torch.ones(10, dtype=torch.uint8), 0)
    assert len(waiting.result(PATIENCE)) == 10


def test_a_provider_who_is_ahead_need_not_wait(ends):
    """Nobody asks for what it deals, and it is more than all buffers hold."""
    a, b = ends.pair()
    corrections = b.corrections(1 << 30, Room())
    size = links.BUFFERS
    ends.pool.submit(lambda: [a.push(torch.full((size,), n, dtype=torch.uint8), n) for n in range(8)]).result(PATIENCE)
    assert corrections._held >= 2 * size
    for n in reversed(range(8)):
        assert torch.equal(corrections(n, size), torch.full((size,), n, dtype=torch.uint8))
    assert corrections._held == 0


def test_a_number_is_dealt_once(ends):
    a, b = ends.pair()
    corrections = b.corrections(1 << 30, room := Room())
    for _ in range(2):
        a.push(torch.ones(600, dtype=torch.uint8), 1)
    with pytest.raises(SharingAbortedError, match="deals correlation 1 twice"):
        corrections(2, 600)
    assert len(corrections(1, 600)) == 600 and room.held == 0


def test_whether_one_is_here_is_looked_for_even_in_no_time(ends):
    a, b = ends.pair()
    corrections = b.corrections(1 << 30, Room())
    assert not corrections.here(1, 0)
    a.push(torch.ones(600, dtype=torch.uint8), 1)
    until(lambda: corrections.here(1, 0))


def test_a_correction_has_its_time_piece_by_piece(ends, monkeypatch):
    """A holder that reads slowly, but reads, is not taken for gone: in TLS, too, whose calls have a time for all that they send."""
    monkeypatch.setattr(links, "BUFFERS", PIECE)
    a, b = hurried(ends, monkeypatch, 1.0)
    pushing = ends.pool.submit(a.push, torch.zeros(40 * PIECE, dtype=torch.uint8), 1)
    b._header(PATIENCE)
    for _ in range(40):
        threading.Event().wait(0.05)  # so all of it takes twice the limit
        b._fill(memoryview(bytearray(PIECE)))
    pushing.result(PATIENCE)


def test_what_nobody_waits_for_stays_in_the_kernel_while_it_has_room(clear):
    """So the thread that reads ahead is not woken by each."""
    a, b = clear.pair()
    corrections = b.corrections(1 << 30, room := Room())
    for n in range(20):
        a.push(torch.ones(1000, dtype=torch.uint8), n)
    threading.Event().wait(0.3)  # not for anything to happen: for nothing to
    assert room.held == 0
    assert len(corrections(19, 1000)) == 1000 and room.held == 19_000


def test_who_was_answered_soon_looks_before_it_sleeps(clear, monkeypatch):
    """And who was not sleeps at once."""
    a, b = clear.pair()
    x = torch.arange(3)
    monkeypatch.setattr(links, "LOOK", PATIENCE)
    a._looks = b._looks = True  # also on one core
    clear.both(lambda: a.swap([x], TAG), lambda: b.swap([x], TAG))
    assert a._prompt and b._prompt
    monkeypatch.setattr(links, "LOOK", 0.01)
    waiting = clear.pool.submit(a.swap, [x], TAG)
    until(lambda: not a._prompt)  # it has looked long enough, and sleeps
    b.swap([x], TAG)
    waiting.result(PATIENCE)
    assert not a._prompt


def test_corrections_wait_until_there_is_room(ends):
    a, b = ends.pair()
    corrections = b.corrections(1 << 30, Room(1000))
    pushing = ends.pool.submit(lambda: [a.push(torch.full((600,), n, dtype=torch.uint8), n) for n in range(50)])
    for n in range(50):
        assert torch.equal(corrections(n, 600), torch.full((600,), n, dtype=torch.uint8))
        assert corrections._held <= 1600
    pushing.result(PATIENCE)


def test_all_groups_of_a_session_share_its_room(ends):
    """Providers of one client's choosing fill no more of a node's memory by being many; and nobody waits for ever for the others' room."""
    room = Room(1000)
    pairs = [ends.pair() for _ in range(5)]
    groups = [b.corrections(1 << 30, room) for _, b in pairs]
    for n, (a, _) in enumerate(pairs):
        a.push(torch.full((600,), n, dtype=torch.uint8), 0)
        if n == 0:
            assert groups[0].here(0, PATIENCE)
    threading.Event().wait(0.3)  # not for anything to happen: for nothing to
    assert room.held == 600
    for n in (3, 1, 0, 4, 2):
        assert torch.equal(groups[n](0, 600), torch.full((600,), n, dtype=torch.uint8))
    assert room.held == 0


def test_one_larger_than_the_room_comes_when_it_is_waited_for(ends):
    """And none larger than what is: a provider of a client's choosing may send what it likes."""
    a, b = ends.pair()
    corrections = b.corrections(1 << 30, room := Room(1000))
    a.push(torch.ones(5000, dtype=torch.uint8), 0)
    assert not corrections.here(0, 0.3) and room.held == 0
    assert len(corrections(0, 5000)) == 5000 and room.held == 0
    a.push(torch.ones(6000, dtype=torch.uint8), 1)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(corrections, 1, 5000)
        threading.Event().wait(0.3)  # for nothing to happen
        assert room.held == 0
        corrections.close("the end")
        with pytest.raises(SharingAbortedError, match="the end"):
            waiting.result(PATIENCE)


def test_what_a_served_model_waits_for_comes_though_others_have_taken_the_room(ends):
    """Models of one session each have a stock, asked for by the holder itself: that of one must not stop another."""
    room = Room(1000)
    pairs = [ends.pair() for _ in range(3)]
    stocks = [b.corrections(1 << 30, room) for _, b in pairs]
    for (a, _), stock in zip(pairs, stocks, strict=True):
        a.push(torch.ones(900, dtype=torch.uint8), 0)
        assert stock.here(0, PATIENCE)
    assert room.held == 2700
    for stock in stocks:
        assert len(stock(0, 900)) == 900
    assert room.held == 0


def test_what_came_before_the_provider_went_is_there(ends):
    a, b = ends.pair()
    corrections = b.corrections(1 << 30, room := Room(1000))
    a.push(torch.ones(600, dtype=torch.uint8), 0)
    assert corrections.here(0, PATIENCE)
    a.close("done")
    with pytest.raises(SharingAbortedError, match="the provider is gone"):
        corrections(1, 600)
    assert len(corrections(0, 600)) == 600 and room.held == 0


def test_what_waits_goes_with_its_group(ends):
    """Nothing that was sent ahead stays, nor whoever read it, when nobody asks for it any more."""
    before = set(threading.enumerate())
    a, b = ends.pair()
    corrections = b.corrections(1 << 30, room := Room(1000))
    (reader,) = [t for t in threading.enumerate() if t not in before and t.name == "corrections"]
    for n in range(4):
        a.push(torch.zeros(600, dtype=torch.uint8), n)
    assert corrections.here(0, PATIENCE) and room.held <= 1200, "the second one came while the first was waited for, or there is no room"
    b.close("the group is over")
    corrections.close("the group is over")
    reader.join(PATIENCE)
    assert not reader.is_alive() and not corrections._kept and room.held == 0
    with pytest.raises(SharingAbortedError, match="the provider is gone"):
        corrections(0, 600)


def test_a_provider_that_is_quiet_for_long_is_not_taken_for_gone(ends, monkeypatch):
    """The limit is on being waited for: between two computations an hour may pass."""
    a, b = hurried(ends, monkeypatch, 0.05)
    corrections = b.corrections(1000, Room())
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
    a, b = hurried(ends, monkeypatch, 0.2)
    with pytest.raises(SharingAbortedError, match="no sign of life"):
        ends.pool.submit(a.swap, torch.arange(3), TAG).result(PATIENCE)
    assert b.secret


def test_an_end_that_does_not_read_is_waited_for_no_longer_either(ends, monkeypatch):
    a, b = hurried(ends, monkeypatch, 0.2)
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
    corrections = b.corrections(1000, Room())
    a._send(HEADER.pack((1 << 64) - 2, bytes(8)))
    with pytest.raises(SharingAbortedError, match="of at most 1,000"):
        corrections(0, 8)


def test_a_reason_of_any_length_is_cut(clear):
    a, b = clear.pair()
    a._socket.sendall(HEADER.pack(STOP, (1 << 40).to_bytes(8, "little")) + b"x" * 5000)
    with pytest.raises(SharingAbortedError) as info:
        clear.pool.submit(b.swap, torch.arange(3), TAG).result(PATIENCE)
    assert len(str(info.value)) < 600
