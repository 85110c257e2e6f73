"""Errands: what the members of a served model tell each other, over their own links. A list like a message: a kind, then its fields.

    holder -> holder 0
     1 HAVE      channel, number, rows            a query's share has come
     2 GONE      channel                          its client is gone
    holder 0 -> holder
     3 ORDER     rows, queries                    run these ([channel, number] each) as one batch of so many rows, now
     4 REFUSE    channel, number, code, text      this query is not run
     5 FORGET    channel                          none of its queries will be ordered: the answer to GONE
    last holder -> provider
     6 DEAL      rows                             deal for one more run of so many rows
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgpack

from syftlite.errors import ProtocolError
from syftlite.wire import fields as f
from syftlite.wire.items import must_be_few
from syftlite.wire.messages import Form, check

HAVE, GONE, ORDER, REFUSE, FORGET, DEAL = range(1, 7)
MAX_ERRAND = 1 << 20
MAX_QUERIES = 4096
"""In one batch."""
MAX_ITEMS = 8 + 3 * MAX_QUERIES


def _query(v: Any) -> bool:
    return type(v) is tuple and len(v) == 2 and f.name(v[0]) and f.count(v[1])


def _queries(v: Any) -> bool:
    return type(v) is tuple and len(v) <= MAX_QUERIES and all(map(_query, v))


ERRANDS: dict[int, Form] = {
    HAVE: Form("HAVE", (f.name, f.count, f.count)),
    GONE: Form("GONE", (f.name,)),
    ORDER: Form("ORDER", (f.count, _queries)),
    REFUSE: Form("REFUSE", (f.name, f.count, f.count, f.text)),
    FORGET: Form("FORGET", (f.name,)),
    DEAL: Form("DEAL", (f.count,)),
}


def pack(*errand: Any) -> bytes:
    """``errand`` as bytes.

    >>> unpack(pack(DEAL, 8))
    (6, 8)
    """
    packed: bytes = msgpack.packb(errand)
    return packed


def unpack(data: bytes) -> Sequence[Any]:
    """The errand in ``data``, checked. Raises `ProtocolError`, nothing else."""
    try:
        must_be_few(data, MAX_ITEMS)
        errand = msgpack.unpackb(data, use_list=False, max_map_len=0, max_bin_len=0, max_ext_len=0)
    except (ValueError, RecursionError, msgpack.UnpackException) as error:
        raise ProtocolError(f"an errand is MessagePack: {type(error).__name__}") from None
    check(errand, ERRANDS)
    found: Sequence[Any] = errand
    return found
