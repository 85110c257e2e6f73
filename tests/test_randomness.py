"""Streams against published vectors, purposes apart from each other, forks refused."""

import ast
import os
from pathlib import Path

import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

import syftlite
from syftlite import randomness
from syftlite.errors import ForkedConnectionError
from syftlite.randomness import Source, Stream, derive, digest, random_bits, random_like

KEY = bytes.fromhex("feffe9928665731c6d6a8f9467308308")
NONCE = bytes.fromhex("cafebabefacedbaddecaf888")
PLAIN = "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255"
CIPHER = "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091473f5985"
purposes = st.recursive(st.integers() | st.text(max_size=8) | st.binary(max_size=8), lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=6)


def test_the_stream_is_aes_128_in_counter_mode():
    """Test case 3 of McGrew & Viega, "The Galois/Counter Mode of Operation"; and SP 800-38A's counter mode, from the block that GCM begins with."""
    keystream = Stream(KEY, NONCE).take(64)
    plain = torch.tensor(list(bytes.fromhex(PLAIN)), dtype=torch.uint8)
    assert bytes((keystream ^ plain).tolist()).hex() == CIPHER
    counter = Cipher(algorithms.AES(KEY), modes.CTR(NONCE + (2).to_bytes(4, "big"))).encryptor()
    n = (1 << 19) + 5
    assert bytes(Stream(KEY, NONCE).take(n).numpy()) == counter.update(bytes(n))


def test_a_key_is_changed_before_its_counters_run_out(monkeypatch):
    monkeypatch.setattr(randomness, "_A_KEY", 100)
    local = randomness._Local()
    local.take(60)
    first = local.stream
    local.take(40)
    assert local.stream is first
    local.take(1)
    assert local.stream is not first and local.taken == 1


def test_a_stream_goes_on_where_it_stopped_and_across_its_chunks():
    whole, parts = Stream(KEY), Stream(KEY)
    n = (1 << 18) + 48
    assert torch.equal(whole.take(2 * n + 16), torch.cat([parts.take(n), parts.take(16), parts.take(n)]))
    assert torch.equal(Stream(KEY).take(1 << 19)[: 1 << 18], Stream(KEY).take(1 << 18))


def test_derive_is_hkdf_sha256_of_the_purpose():
    assert derive(bytes(32), "zero", 1) == derive(bytes(32), "zero", 1)
    keys = {derive(bytes(32), *p) for p in (("zero", 1), ("zero", 2), ("zero", "1"), ("deal", 1), (("zero", 1),), ("zero", (1,)))}
    assert len(keys) == 6
    assert len(derive(bytes(32), "session", length=32)) == 32
    assert derive(bytes(32), "zero", 1) != derive(b"\1" + bytes(31), "zero", 1)


@given(purposes, purposes)
def test_different_purposes_have_different_streams(one, other):
    source = Source(bytes(range(32)))
    assert torch.equal(source.take(32, one), source.take(32, one))
    assert torch.equal(source.take(32, one), source.take(32, other)) == (repr(one) == repr(other))
    assert (digest(one) == digest(other)) == (repr(one) == repr(other))


def test_a_prefix_of_a_purpose_is_another_purpose():
    source = Source(bytes(32))
    taken = [source.take(16, *p) for p in ((1,), (1, 2), (12,), ("1",), ("1, 2",), (b"1",), ((1,),))]
    assert len({bytes(t.tolist()) for t in taken}) == len(taken)


def test_what_is_no_plain_value_is_refused_as_a_purpose():
    for bad in (1.5, True, None, [1], torch.Size([1])):
        with pytest.raises(TypeError, match="purpose"):
            Source(bytes(32)).take(16, bad)


def test_keys_of_the_wrong_length_are_refused():
    with pytest.raises(ValueError, match="16 bytes"):
        Stream(bytes(32))
    with pytest.raises(ValueError, match="32 bytes"):
        Source(bytes(16))


def test_local_randomness_is_fresh_and_fills_all_bits():
    a, b = random_like((64, 64)), random_like((64, 64))
    assert a.shape == (64, 64) and a.dtype == torch.int64 and not torch.equal(a, b)
    ones = torch.stack([(a >> k) & 1 for k in range(64)]).sum((1, 2)).double()
    assert ((ones - 2048).abs() < 8 * 32).all()
    assert random_like((3,), torch.int16).dtype == torch.int16
    bits = random_bits(4096)
    assert set(bits.tolist()) == {0, 1} and abs(int(bits.sum()) - 2048) < 8 * 32
    with pytest.raises(TypeError, match="integers"):
        random_like((3,), torch.float32)


def test_after_a_fork_shared_streams_refuse_and_local_ones_differ():
    source = Source(bytes(32))
    before = source.take(16, "x")
    random_like((4,))
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            source.take(16, "x")
        except ForkedConnectionError as error:
            if "in the child" in str(error):
                os.write(write, random_like((32,), torch.uint8).numpy().tobytes())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    drawn = os.read(read, 32)
    os.close(read)
    assert len(drawn) == 32, "the child was refused"
    assert drawn != random_like((32,), torch.uint8).numpy().tobytes()
    assert torch.equal(source.take(16, "x"), before)


def test_no_other_generator_is_used_where_secrets_are():
    """torch's has 32 bits of seed and a state that its output tells."""
    root = Path(syftlite.__file__).parent
    drawn = ("rand", "randint", "randn", "randperm", "bernoulli", "normal", "manual_seed", "Generator", "seed", "random", "random_", "uniform_", "normal_")
    for path in [root / "randomness.py", *sorted((root / "mpc").glob("*.py"))]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                assert node.attr not in drawn and not node.attr.startswith("rand"), f"{path.name}:{node.lineno}"
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {getattr(node, "module", None), *[alias.name for alias in node.names]}
                assert not names & {"random", "numpy.random", "secrets"}, f"{path.name}:{node.lineno}"
