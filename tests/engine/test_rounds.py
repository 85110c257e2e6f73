"""Rounds between holders: right when all are honest, and ended for all, without a wait or a wrong value, when one is not."""

import time

import pytest
import torch
from engine._parties import PATIENCE, honest, scene

from syftlite.engine import rounds
from syftlite.engine.rounds import TAG_BYTES, Given
from syftlite.engine.session import Principal, Role, Session
from syftlite.errors import EmptyCryptoPrimitiveStoreError, Misuse, QuotaExceededError, SharingAbortedError, code_of
from syftlite.mpc.dealer import Dealer
from syftlite.mpc.kernel import plan
from syftlite.mpc.kernels import NUMBERS
from syftlite.mpc.party import Party
from syftlite.transports import links
from syftlite.transports.links import HEADER
from syftlite.wire import messages as m

X, Y = torch.tensor([5, -7, 0, 3, -(2**20), 2**20]) * 2**16, torch.tensor([2, 3, -4, 5, 1, -1]) * 2**16
RIGHT = {"mul": (X // 2**16) * Y, "relu": (X // 2**16).clamp(min=0)}
ROUNDS = {"mul": plan(NUMBERS["mul"], [(6,), (6,)], f=16).rounds, "relu": plan(NUMBERS["relu"], [(6,)], f=16).rounds}
ABORTED = code_of(SharingAbortedError())


@pytest.fixture
def parties(monkeypatch):
    monkeypatch.setattr(links, "TIMEOUT", 10.0)
    with scene() as made:
        yield made


def run(parties, kernel):
    """The shares of ``kernel``'s result on fresh shares of X (and Y)."""
    operands = [parties.share(v) for v in ((X, Y) if kernel == "mul" else (X,))]
    return parties.compute(kernel, *operands, f=16)


def right(value, kernel):
    """Whether ``value`` is the kernel's result, but for the last bit that truncation rounds."""
    return bool(((value - RIGHT[kernel]).abs() <= 1).all())


@pytest.mark.parametrize("kernel", ROUNDS)
def test_a_run_is_right_and_has_these_rounds(parties, kernel):
    shares = run(parties, kernel)
    between = [p for p in parties.passed if p.sender == "alice"]
    assert len(between) == ROUNDS[kernel] and right(parties.value(shares), kernel)
    assert parties.broken("alice") is parties.broken("bob") is parties.broken("carol") is None


def test_no_tag_is_used_twice(parties):
    for kernel in ("relu", "mul", "relu", "relu"):
        run(parties, kernel)
    tags = [p.header for p in parties.passed if (p.sender, p.receiver) == ("alice", "bob")]
    assert len(set(tags)) == len(tags) == 3 * ROUNDS["relu"] + ROUNDS["mul"]
    theirs = [p.header for p in parties.passed if (p.sender, p.receiver) == ("bob", "alice")]
    assert tags == theirs, "both holders name each round alike"


# -- one message of one round is not what it should be


def _flipped(passing, last):
    nbytes, tag = HEADER.unpack(passing.header)
    return HEADER.pack(nbytes, bytes([tag[0] ^ 1, *tag[1:]])), passing.payload


def _stale(passing, last):
    return last or (HEADER.pack(len(passing.payload), bytes(TAG_BYTES)), passing.payload)


def _twice(passing, last):
    return (*honest(passing), *honest(passing))


def _shorter(passing, last):
    nbytes, tag = HEADER.unpack(passing.header)
    return HEADER.pack(nbytes - 1, tag), passing.payload[:-1]


def _longer(passing, last):
    nbytes, tag = HEADER.unpack(passing.header)
    return HEADER.pack(nbytes + 8, tag), passing.payload, bytes(8)


def _huge(passing, last):
    _, tag = HEADER.unpack(passing.header)
    return HEADER.pack((1 << 64) - 2, tag), passing.payload


def _garbage(passing, last):
    return (bytes(range(200)),)


def _truncated(passing, last):
    return None


WRONG = {f.__name__[1:]: f for f in (_flipped, _stale, _twice, _shorter, _longer, _huge, _garbage, _truncated)}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize(("kernel", "place"), [(k, i) for k, n in ROUNDS.items() for i in range(n)])
def test_a_wrong_message_in_any_round_ends_the_run_for_all(parties, kernel, place, wrong):
    """The receiver's result is poisoned, in every case; so is the sender's, unless the message was its last; and nobody goes on."""
    run(parties, "mul")  # so that there are earlier messages
    seen = []

    def meddle(passing):
        if passing.sender != "alice" or passing.receiver != "bob":
            return honest(passing)
        seen.append(honest(passing))
        return WRONG[wrong](passing, seen[-2] if len(seen) > 1 else None) if len(seen) == place + 1 else honest(passing)

    parties.meddle = meddle
    shares = run(parties, kernel)
    answers = parties.reveal(shares)
    if wrong == "twice" and place == ROUNDS[kernel] - 1:  # the second copy meets the next run
        assert right(sum(a[2][0] for a in answers), kernel)
        answers = parties.reveal(run(parties, kernel))
    else:
        assert answers[1][0] == m.ERROR and answers[1][2] == ABORTED
        if place + (wrong == "twice") < ROUNDS[kernel] - 1:  # a copy meets the next round
            assert answers[0][0] == m.ERROR and answers[0][2] == ABORTED
    assert parties.broken("bob")
    for answer in parties.reveal(run(parties, kernel)):  # whoever had not heard of it does now
        assert answer[0] == m.ERROR and answer[2] == ABORTED
    assert parties.broken("alice") and parties.broken("bob")
    deadline = time.monotonic() + PATIENCE
    while not parties.broken("carol"):  # the provider waits for nobody: it hears when it sends
        assert time.monotonic() < deadline
        run(parties, kernel)

    parties.meddle = honest
    assert [a[0] for a in parties.join()] == [m.DONE] * 3
    assert right(parties.value(run(parties, kernel)), kernel)


@pytest.mark.parametrize("place", range(7))
def test_a_cut_provider_ends_the_run_for_all(parties, place):
    """The provider's corrections do not come: of the `place`-th kernel, after others went well."""
    dealt = []

    def meddle(passing):
        dealt.append(passing) if passing.sender == "carol" else None
        return None if passing.sender == "carol" and len(dealt) == place + 1 else honest(passing)

    parties.meddle = meddle
    results = [parties.reveal(run(parties, "relu")) for _ in range(place + 2)]
    for answers in results[:place]:
        assert right(sum(a[2][0] for a in answers), "relu")
    for answers in results[place:]:
        assert [a[0] for a in answers] == [m.ERROR] * 2 and {a[2] for a in answers} == {ABORTED}
    parties.meddle = honest
    parties.join()
    assert right(parties.value(run(parties, "relu")), "relu")


def test_a_silent_holder_is_taken_for_gone(monkeypatch):
    monkeypatch.setattr(links, "TIMEOUT", 0.2)
    with scene() as parties:
        outs = tuple(parties.id(name) for name in parties.holders)
        told = parties.told("relu", [parties.share(X)], {"f": 16}, outs)
        del told["bob"]
        parties.say(**told)  # bob is never told
        answer = parties.reveal(outs)[0]
        assert answer[0] == m.ERROR and "no sign of life within 0 s" in answer[3]


def test_no_mask_is_used_again_after_the_group_was_joined_anew(parties):
    """The same program on the same shares, in three epochs: were a mask used twice, messages of two epochs would be equal somewhere."""
    x, y = parties.share(X), parties.share(Y)
    words = []
    for _ in range(3):
        parties.passed.clear()
        outs = [parties.compute("relu", x, f=16), parties.compute("mul", x, y, f=16)]
        assert right(parties.value(outs[0]), "relu") and right(parties.value(outs[1]), "mul")
        epoch = [p.payload[i : i + 8] for p in parties.passed for i in range(0, len(p.payload) - 7, 8)]
        assert len(epoch) > 100 and len({*epoch}) > 0.9 * len(epoch)
        words.append({w for w in epoch if w != bytes(8)})
        tampered = iter([True])
        parties.meddle = lambda passing, first=tampered: None if next(first, False) else honest(passing)
        parties.reveal(parties.compute("relu", x, f=16))  # breaks
        parties.meddle = honest
        parties.join()
    assert not words[0] & words[1] and not words[0] & words[2] and not words[1] & words[2]


def test_masks_used_again_would_be_seen(parties, monkeypatch):
    """The control of the test above: with the same secrets in two epochs, messages repeat."""
    monkeypatch.setattr(Party, "__init__", _fixed_keys(Party.__init__))
    monkeypatch.setattr(Dealer, "__init__", lambda self, keys: _dealer(self, [bytes([i]) * 32 for i in range(len(keys))]))
    x, words = parties.share(X), []
    for _ in range(2):
        parties.join()
        parties.passed.clear()
        parties.compute("relu", x, f=16)
        words.append({p.payload[i : i + 8] for p in parties.passed for i in range(0, len(p.payload) - 7, 8)})
    assert len(words[0] & words[1]) > 20


def _fixed_keys(real):
    return lambda self, index, holders, keys, *rest: real(self, index, holders, keys._replace(provider=bytes([index]) * 32), *rest)


_dealer = Dealer.__init__


# -- corrections that the client brings


def test_given_corrections_are_taken_once_and_stay_on_the_account():
    session = Session(1, Principal("ann", Role.SCIENTIST), max_bytes=1000)
    given, number = Given(), (1 << 32) + 1
    session.put(number, torch.zeros(100, dtype=torch.uint8))
    given.keep(7, lambda: session.take_over(number))
    assert session.used == 100, "it is still in memory"
    with pytest.raises(Misuse, match="already"):
        given.keep(7, lambda: session.take_over(number))
    assert len(given(7, 100)) == 100 and session.used == 0
    with pytest.raises(EmptyCryptoPrimitiveStoreError, match="correlation 7"):
        given(7, 100)
    session.put(number, torch.zeros(50, dtype=torch.uint8))
    given.keep(8, lambda: session.take_over(number))
    given.forget()
    assert session.used == 0


def test_a_client_brings_so_many_corrections(monkeypatch):
    monkeypatch.setattr(rounds, "MAX_GIVEN", 2)
    session = Session(1, Principal("ann", Role.SCIENTIST))
    given, numbers = Given(), [(1 << 32) + n for n in range(1, 4)]
    for number in numbers:
        session.put(number, torch.zeros(0, dtype=torch.uint8))
    for i in range(2):
        given.keep(i, lambda i=i: session.take_over(numbers[i]))
    with pytest.raises(QuotaExceededError, match="start those first"):
        given.keep(2, lambda: session.take_over(numbers[2]))
    assert len(given(0, 0)) == 0 and numbers[2] in session.objects
    given.keep(2, lambda: session.take_over(numbers[2]))
