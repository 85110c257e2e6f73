"""Keys that have no owner: everybody can sign for points of small order, so nothing is signed by them."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from syftlite.errors import ConfigurationError
from syftlite.storage.keys import parse_public
from syftlite.storage.node_config import registered_keys
from syftlite.wire.signatures import _PRIME, _SMALL, has_owner, signed_by

D = -121665 * pow(121666, -1, _PRIME) % _PRIME


def encodings():
    """Every way to write a second coordinate of the list, with either sign of the first."""
    for y in sorted(_SMALL):
        for again in (y, y + _PRIME):
            for sign in (0, 1 << 255):
                if again < 1 << 255:
                    yield (again | sign).to_bytes(32, "little")


def of_order(point):
    """How often a point of the curve -x^2 + y^2 = 1 + d x^2 y^2 is to be doubled until it is the neutral one."""
    x, y = point
    for doublings in range(4):
        if (x, y) == (0, 1):
            return 1 << doublings
        product = D * x * x * y * y
        x, y = 2 * x * y * pow(1 + product, -1, _PRIME) % _PRIME, (y * y + x * x) * pow(1 - product, -1, _PRIME) % _PRIME
    return None


def test_the_list_has_all_points_whose_order_divides_eight_and_no_other():
    root = pow(2, (_PRIME - 1) // 4, _PRIME)
    orders = []
    for y in _SMALL:
        square = (y * y - 1) * pow(D * y * y + 1, -1, _PRIME) % _PRIME
        x = pow(square, (_PRIME + 3) // 8, _PRIME)
        x = x if x * x % _PRIME == square else x * root % _PRIME
        assert x * x % _PRIME == square, "it is on the curve"
        orders += [of_order(point) for point in {(x, y), (-x % _PRIME, y)}]
    assert sorted(orders) == [1, 2, 4, 4, 8, 8, 8, 8]


def test_nobody_signs_by_a_key_without_an_owner():
    forged = 0
    for public in encodings():
        assert not has_owner(public)
        for number in range(16):
            signature, message = public + bytes(32), bytes([number])
            assert not signed_by(public, signature, message)
            try:
                Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
                forged += 1
            except Exception:  # of some, one message in eight only
                continue
    assert forged, "the library takes such signatures, so the list is what refuses them"


def test_keys_as_they_are_made_have_owners():
    for number in range(50):
        key = Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)
        public = key.public_key().public_bytes_raw()
        assert has_owner(public) and signed_by(public, key.sign(b"text"), b"text") and not signed_by(public, key.sign(b"text"), b"other")


@pytest.mark.parametrize("read", [parse_public, lambda text: registered_keys({"south": text})])
def test_owners_cannot_register_them(read):
    for public in encodings():
        with pytest.raises(ConfigurationError, match="everybody can sign"):
            read(public.hex())
