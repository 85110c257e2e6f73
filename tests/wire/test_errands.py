"""Errands: what was written is read, and what is not an errand is a ProtocolError, whatever the bytes."""

import random
import re

import msgpack
import pytest

from syftlite.errors import ProtocolError
from syftlite.wire import errands
from syftlite.wire.errands import DEAL, ERRANDS, FORGET, GONE, HAVE, ORDER, REFUSE, pack, unpack

GOOD = [
    (HAVE, "channel", 3, 16),
    (GONE, "channel"),
    (ORDER, 4, (("channel", 1), ("other", 2))),
    (ORDER, 4, ()),
    (REFUSE, "channel", 3, 25, "why"),
    (FORGET, "channel"),
    (DEAL, 128),
]


@pytest.mark.parametrize("errand", GOOD)
def test_what_was_written_is_read(errand):
    assert unpack(pack(*errand)) == errand


def test_every_kind_is_among_them_and_in_the_docstring():
    drawn = re.findall(r"^\s+(\d) ([A-Z]+) ", errands.__doc__, re.M)
    assert {int(n): name for n, name in drawn} == {kind: form.name for kind, form in ERRANDS.items()} == {e[0]: ERRANDS[e[0]].name for e in GOOD}


@pytest.mark.parametrize(
    "errand",
    [(), (7, 1), (HAVE,), (HAVE, "", 1, 1), (HAVE, "c" * 257, 1, 1), (HAVE, "c", -1, 1), (HAVE, "c", True, 1), (DEAL, 1.0), (ORDER, 1, (("c",),)),
     (ORDER, 1, (("c", 1),) * 5000), (REFUSE, "c", 1, 1, "x" * 5000), {1: 2}, None, "HAVE"],
)  # fmt: skip
def test_another_form_is_refused(errand):
    with pytest.raises(ProtocolError):
        unpack(msgpack.packb(errand))


def test_no_bytes_do_more_than_be_refused():
    rng = random.Random(0)
    for _ in range(20_000):
        data = bytearray(pack(*rng.choice(GOOD)))
        for _ in range(rng.choice((1, 1, 2, 8))):
            place = rng.randrange(len(data) + 1)
            data[place : place + rng.randrange(3)] = rng.randbytes(rng.randrange(4))
        try:
            found = unpack(bytes(data))
        except ProtocolError:
            continue
        assert found[0] in ERRANDS
