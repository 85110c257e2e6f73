import os

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syftlite.errors import ConfigurationError, ProtocolError
from syftlite.secagg import Terms
from syftlite.secagg.terms import sparse


def terms(count=4, **options):
    return Terms.of(bytes(16), {f"c{i}": bytes([i // 256, i % 256]) * 16 for i in range(count)}, 10, **options)


def test_terms_travel_and_every_field_is_in_their_digest():
    first = terms(max_weight=3.0)
    assert Terms.unpack(first.pack()) == first
    others = [terms(), terms(5), terms(minimum=4), terms(clip=2.0), terms(threshold=4, minimum=2), terms(fraction_bits=4)]
    assert len({t.digest for t in [first, *others]}) == 7


@settings(deadline=None)
@given(st.binary(max_size=200) | st.builds(lambda at, to: _flip(terms().pack(), at, to), st.integers(0, 150), st.integers(0, 255)))
def test_what_is_no_terms_is_refused_or_sound(packed):
    try:
        read = Terms.unpack(packed)
    except (ProtocolError, ConfigurationError):
        return
    assert Terms.unpack(read.pack()) == read


def _flip(packed, at, to):
    at %= len(packed)
    return packed[:at] + bytes([to]) + packed[at + 1 :]


def test_terms_that_protect_nobody_are_refused():
    for options, match in [
        ({"minimum": 1}, "a sum of one"),
        ({"threshold": 1}, "threshold of 1"),
        ({"threshold": 5}, "threshold of 5"),
        ({"neighbours": 9}, "9 neighbours"),
        ({"neighbours": 0, "threshold": 1}, "0 neighbours"),  # no mask but its own, and its whole secret in its one share
        ({"count": 12, "neighbours": 2, "threshold": 2}, "cut off"),
        ({"count": 1026, "neighbours": 1025}, "1025 neighbours"),
    ]:
        with pytest.raises(ConfigurationError, match=match):
            terms(**options)
    with pytest.raises(ConfigurationError, match="different keys"):
        Terms.of(bytes(16), {"a": bytes(32), "b": bytes(32)}, 1)
    with pytest.raises(ProtocolError):
        Terms.unpack(msgpack.packb([1, 2]))


def test_a_sparse_graph_is_regular_symmetric_and_nobodys_choice():
    some = terms(100)
    assert some.neighbours == sparse(100) < 99
    graph = some.graph(range(100), os.urandom(32))
    assert all(len(set(near)) == some.neighbours and u not in near for u, near in graph.items())
    assert all(u in graph[v] for u, near in graph.items() for v in near)
    assert graph != some.graph(range(100), os.urandom(32))


def test_neighbours_grow_slowly():
    counts = [sparse(n) for n in (65, 1000, 10_000)]
    assert counts == sorted(counts) and counts[-1] < 150
