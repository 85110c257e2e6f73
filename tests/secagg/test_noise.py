import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from syftlite.errors import ConfigurationError
from syftlite.secagg import Identity, Terms
from syftlite.secagg import noise as module
from syftlite.secagg.encoding import Encoding

MEMBERS = {f"client-{i}": Identity().public for i in range(6)}


@pytest.fixture
def silent(monkeypatch):
    """No noise is drawn: what is left is what a client itself adds."""
    monkeypatch.setattr(module, "drawn", lambda sigma, values: torch.zeros(values, dtype=torch.int64))


@given(st.integers(1, 300), st.floats(1e-3, 1e3), st.floats(1e-6, 1e6), st.integers(0, 24), st.integers(0, 2**31))
def test_no_vector_is_longer_than_the_noise_is_for(values, clip, size, bits, seed):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "drawn", lambda sigma, count: torch.zeros(count, dtype=torch.int64))
        vector = torch.randn(values, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * size
        ring, _ = Encoding(3, clip, bits, sigma=10.0).encode(vector)
    assert sum(int(v) ** 2 for v in ring) <= module.sensitivity(clip, bits, values) ** 2


def test_a_short_vector_passes_and_a_long_one_keeps_its_direction(silent):
    encoding = Encoding(2, clip=5.0, sigma=100.0)
    assert encoding.encode(torch.tensor([3.0, 4.0]) / 2)[0].tolist() == [3 << 15, 4 << 15]
    assert encoding.encode(torch.tensor([30.0, 40.0]))[0].tolist() == [3 << 16, 4 << 16]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_counts_as_nothing_and_is_not_told(silent, bad):
    ring, clipped = Encoding(2, clip=1.0, sigma=100.0).encode(torch.tensor([1.0, bad, 9.0]))
    assert ring.tolist() == [0, 0, 0] and clipped == 0.0
    assert Encoding(2, clip=1.0, sigma=100.0).encode(torch.full((3,), 50.0))[1] == 0.0, "nor what was clipped"


def test_terms_say_how_much_noise_a_sum_has():
    terms = Terms.of(bytes(16), MEMBERS, 10_000, clip=2.0, noise_multiplier=1.5)
    assert Terms.unpack(terms.pack()) == terms and terms.noise_multiplier == pytest.approx(1.5)
    assert Terms.of(bytes(16), MEMBERS, 10_000).noise_multiplier == 0.0
    added = sum(terms.encoding.encode(torch.zeros(10_000))[0].double() for _ in range(terms.minimum))
    wanted = 1.5 * (2.0 * 2**16 + math.sqrt(10_000) / 2)
    assert abs(float(added.std()) / wanted - 1) < 0.06, "8 standard errors"
    assert not torch.equal(terms.encoding.encode(torch.zeros(9))[0], terms.encoding.encode(torch.zeros(9))[0])


@pytest.mark.parametrize("options,match", [
    ({"sigma": 3.9}, "4 to 2"), ({"sigma": 2.0**41}, "4 to 2"), ({"sigma": -1.0}, "4 to 2"), ({"sigma": math.nan}, "4 to 2"), ({"sigma": math.inf}, "4 to 2"),
    ({"sigma": 100.0, "max_weight": 10.0}, "average without weights"),
])  # fmt: skip
def test_noise_that_would_not_do_is_refused(options, match):
    with pytest.raises(ConfigurationError, match=match):
        Encoding(3, **options)


@given(st.integers(2, 1000), st.floats(0.01, 1e4), st.integers(0, 24), st.floats(4.0, 2.0**39))
def test_no_sum_with_its_noise_wraps(clients, clip, bits, sigma):
    encoding = Encoding(clients, clip, bits, sigma=sigma)
    largest = clients * (clip * 2**bits + 0.5) + 16 * sigma * math.sqrt(clients)
    assert largest <= torch.iinfo(encoding.dtype).max
