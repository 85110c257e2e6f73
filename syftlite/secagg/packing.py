"""What clients and server tell each other, as bytes: MessagePack of ints and bytes, checked item by item. No types travel.

    stage        to the client                       from the client
    identity     -                                   public key
    advertise    terms                               [seals, masks, own, signature]
    share        {place: [..., signature]}           {place: box}
    mask         {place: box}                        (the masked vector, a tensor)
    confirm      [place, ...]                        signature
    unmask       {place: signature}                  [{place: share}, {place: share}]
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgpack

from syftlite.errors import ProtocolError
from syftlite.secagg.client import Advert, Revealed
from syftlite.secagg.masks import TAG_BYTES
from syftlite.secagg.shamir import SHARE_BYTES
from syftlite.secagg.terms import MAX_CLIENTS, MAX_ITEMS
from syftlite.wire.items import must_be_few
from syftlite.wire.signatures import PUBLIC_BYTES, SIGNATURE_BYTES

MAX_BYTES = 4 << 20
MAX_BOX = 256


def pack(value: Any) -> bytes:
    """Any of the forms above."""
    packed: bytes = msgpack.packb(value)
    return packed


def adverts(packed: bytes) -> dict[int, Advert]:
    """Keys by place."""
    return {place: advert(pack(item)) for place, item in _mapped(packed, lambda v: type(v) is tuple).items()}


def advert(packed: bytes) -> Advert:
    """One client's keys."""
    item = _unpacked(packed)
    sizes = (PUBLIC_BYTES, PUBLIC_BYTES, TAG_BYTES, SIGNATURE_BYTES)
    if type(item) is not tuple or len(item) != 4 or not all(_sized(size)(part) for part, size in zip(item, sizes, strict=True)):
        raise ProtocolError("these are no keys of an aggregation")
    return Advert(*item)


def boxes(packed: bytes) -> dict[int, bytes]:
    """Sealed shares by place."""
    return _mapped(packed, lambda v: type(v) is bytes and len(v) <= MAX_BOX)


def signatures(packed: bytes) -> dict[int, bytes]:
    """Signatures by place."""
    return _mapped(packed, _sized(SIGNATURE_BYTES))


def signature(packed: bytes) -> bytes:
    """One signature."""
    return _one(packed, SIGNATURE_BYTES)


def public(packed: bytes) -> bytes:
    """One public key."""
    return _one(packed, PUBLIC_BYTES)


def places(packed: bytes) -> frozenset[int]:
    """Clients."""
    item = _unpacked(packed)
    if type(item) is not tuple or not all(map(_place, item)) or len(set(item)) != len(item):
        raise ProtocolError("these are no clients of an aggregation")
    return frozenset(item)


def revealed(packed: bytes) -> Revealed:
    """What one client reveals."""
    item = _unpacked(packed)
    if type(item) is not tuple or len(item) != 2:
        raise ProtocolError("this reveals nothing of an aggregation")
    own, keys = (_mapped(pack(part), _sized(SHARE_BYTES)) for part in item)
    return Revealed(own, keys)


def listed(clients: Collection[int]) -> bytes:
    """`places`' form."""
    return pack(sorted(clients))


def _one(packed: bytes, size: int) -> bytes:
    item = _unpacked(packed)
    if not _sized(size)(item):
        raise ProtocolError(f"{size} bytes were expected")
    return item  # type: ignore[no-any-return]


def _sized(size: int) -> Callable[[Any], bool]:
    return lambda v: type(v) is bytes and len(v) == size


def _place(v: Any) -> bool:
    return type(v) is int and 0 <= v < MAX_CLIENTS


def _mapped(packed: bytes, accepts: Callable[[Any], bool]) -> dict[int, Any]:
    item = _unpacked(packed)
    if type(item) is not dict or not all(_place(place) and accepts(value) for place, value in item.items()):
        raise ProtocolError("this is no message of an aggregation")
    return item


def _unpacked(packed: bytes) -> Any:
    if len(packed) > MAX_BYTES:
        raise ProtocolError(f"a message of an aggregation has at most {MAX_BYTES:,} bytes, and this has {len(packed):,}")
    try:
        must_be_few(packed, MAX_ITEMS)
        return msgpack.unpackb(
            packed, use_list=False, strict_map_key=False, max_ext_len=0, max_map_len=MAX_CLIENTS, max_array_len=MAX_CLIENTS, max_str_len=0
        )
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise ProtocolError(f"this is no message of an aggregation: {error}") from None


def packed_map(values: Mapping[int, Any]) -> bytes:
    """A mapping by place, in the order of places."""
    return pack({place: values[place] for place in sorted(values)})
