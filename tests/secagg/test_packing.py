import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syftlite.errors import ProtocolError
from syftlite.secagg import packing
from syftlite.secagg.client import Advert, Revealed
from syftlite.secagg.terms import MAX_CLIENTS, Terms

READERS = [packing.adverts, packing.advert, packing.boxes, packing.signatures, packing.signature, packing.public, packing.places, packing.revealed]


def test_every_form_reads_back():
    advert = Advert(os.urandom(32), os.urandom(32), os.urandom(32), os.urandom(64))
    assert packing.advert(packing.pack(advert)) == advert
    assert packing.adverts(packing.packed_map({3: advert, 1: advert})) == {1: advert, 3: advert}
    assert packing.boxes(packing.packed_map({0: b"box"})) == {0: b"box"}
    assert packing.signatures(packing.packed_map({0: bytes(64)})) == {0: bytes(64)}
    assert packing.places(packing.listed({5, 2})) == {2, 5}
    revealed = Revealed({1: bytes(33)}, {2: bytes(33)})
    assert packing.revealed(packing.pack(revealed)) == revealed


@given(st.sampled_from(READERS), st.binary(max_size=64) | st.recursive(
    st.none() | st.integers() .filter(lambda n: abs(n) < 2**60) | st.binary(max_size=70) | st.text(max_size=3) | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.integers(-3, 20_000), inner, max_size=3),
).map(packing.pack))  # fmt: skip
def test_anything_else_is_refused_with_one_error(reader, packed):
    try:
        reader(packed)
    except ProtocolError:
        pass


BOMBS = {
    "empty arrays": b"\xdc\x27\x10" * 3 + b"\x90" * 90_000,
    "arrays of arrays": packing.pack([[1] * 9_000] * 10),
    "maps": b"\xde\x10\x00" + b"\x01\x80" * 100_000,
    "announced alone": b"\xdd\x00\x02\x00\x00",
    "behind texts": packing.pack([b"x" * n for n in (5, 300, 70_000)] + [[[]] * 90_000]),
}


def test_what_has_too_many_items_is_refused_before_any_is_made():
    for bomb in BOMBS.values():
        for reader in (packing.boxes, Terms.unpack):
            with pytest.raises(ProtocolError, match="80,000 items"):
                reader(bomb)
    many = {place: bytes(64) for place in range(MAX_CLIENTS)}
    assert packing.signatures(packing.packed_map(many)) == many


def test_what_is_too_large_is_refused_before_it_is_read():
    with pytest.raises(ProtocolError, match="at most"):
        packing.boxes(bytes(packing.MAX_BYTES + 1))
