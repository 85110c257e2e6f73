"""What a message's fields may be: checks of decoded values' forms, and the limits that they keep. Who uses a value checks what it means."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from syftlite.ops.dtypes import DTYPES

MAX_ID = (1 << 63) - 1
MAX_ITEMS = 4096
MAX_TEXT = 4096
MAX_DIMS = 64
MAX_HOLDERS = 64
MAX_NAME = 256
MAX_CLIENTS = 4096
"""That a model is for, by name."""
MAX_ROWS = 4096
"""Of one batch of a served model."""

Check = Callable[[Any], bool]


def count(v: Any) -> bool:
    return type(v) is int and 0 <= v <= MAX_ID


def maybe_count(v: Any) -> bool:
    return v is None or count(v)


def flag(v: Any) -> bool:
    return type(v) is bool


def text(v: Any) -> bool:
    return type(v) is str and len(v) <= MAX_TEXT


def maybe_text(v: Any) -> bool:
    return v is None or text(v)


def many(item: Check) -> Check:
    return lambda v: type(v) in (list, tuple) and len(v) <= MAX_ITEMS and all(map(item, v))


def tags(v: Any) -> bool:
    return texts(v) and sum(map(len, v)) <= MAX_TEXT


def operands(v: Any) -> bool:
    return type(v) in (list, tuple) and len(v) <= 64


def named(v: Any) -> bool:
    return v is None or (type(v) is dict and len(v) <= 64)


def outs(v: Any) -> bool:
    return v is None or count(v) or many(lambda o: o is None or count(o))(v)


def scalar(v: Any) -> bool:
    return type(v) in (bool, int, float)


def described(v: Any) -> bool:  # [dtype, shape, stream]: the connection checks them as it reads the tensor
    return type(v) is tuple and len(v) == 3


def spec(v: Any) -> bool:  # [dtype, shape, stride, offset], or a number
    if scalar(v):
        return True
    if type(v) not in (list, tuple) or len(v) != 4 or not (counts(v[1]) and counts(v[2]) and count(v[3])):
        return False
    return type(v[0]) is int and 0 <= v[0] < len(DTYPES) and len(v[1]) == len(v[2]) <= MAX_DIMS


def object(v: Any) -> bool:  # [id, spec, tags, description, private, borrowed]
    return (
        type(v) in (list, tuple)
        and len(v) == 6
        and count(v[0])
        and spec(v[1])
        and texts(v[2])
        and text(v[3])
        and flag(v[4])
        and flag(v[5])
    )


def release(v: Any) -> bool:  # [release, principal, reason, what, state, filed at (s)]
    return type(v) in (list, tuple) and len(v) == 6 and all(map(text, v[:3])) and texts(v[3]) and text(v[4]) and scalar(v[5])


def counts(v: Any) -> bool:
    return type(v) in (list, tuple) and len(v) <= MAX_ITEMS and all([type(i) is int and 0 <= i <= MAX_ID for i in v])  # noqa: C419  a generator takes twice as long


texts = many(text)


def whole(v: Any) -> bool:
    return type(v) is int and -MAX_ID <= v <= MAX_ID


def argument(v: Any) -> bool:
    return whole(v) or (type(v) is tuple and len(v) <= 8 and all(map(whole, v)))


def static(v: Any) -> bool:  # a kernel's static arguments: ints and pairs; the kernel checks them
    return v is None or (type(v) is dict and len(v) <= 16 and all(map(argument, v.values())))


def shaped(v: Any) -> bool:  # a shape, or the id of a fixed weight
    return count(v) or (type(v) is tuple and len(v) <= MAX_DIMS and counts(v))


def peer(v: Any) -> bool:  # [index, uri, port, ticket]
    return type(v) is tuple and len(v) == 4 and count(v[0]) and text(v[1]) and count(v[2]) and v[2] < 1 << 16 and text(v[3])


def pairs(v: Any) -> bool:  # [[count, count], ...], one at least
    return type(v) in (list, tuple) and 0 < len(v) <= MAX_ITEMS and all(counts(pair) and len(pair) == 2 for pair in v)


def place(v: Any) -> bool:  # [uri, ticket, id]
    return type(v) is tuple and len(v) == 3 and text(v[0]) and text(v[1]) and count(v[2])


def few(item: Check) -> Check:
    return lambda v: type(v) in (list, tuple) and len(v) <= MAX_HOLDERS and all(map(item, v))


def maybe_counts(v: Any) -> bool:
    return v is None or counts(v)


def real(v: Any) -> bool:
    return type(v) in (int, float)


def query(v: Any) -> bool:  # [kind, epsilon, delta or nil, [low, high] or nil, numbers]
    return (
        type(v) is tuple
        and len(v) == 5
        and count(v[0])
        and real(v[1])
        and (v[2] is None or real(v[2]))
        and (v[3] is None or (type(v[3]) is tuple and len(v[3]) == 2 and all(map(real, v[3]))))
        and many(real)(v[4])
    )


def terms(v: Any) -> bool:  # [clip, noise multiplier, sampling rate]
    return type(v) is tuple and len(v) == 3 and all(map(real, v))


def account(v: Any) -> bool:  # [dataset, user, epsilon, delta, spent]
    return type(v) in (list, tuple) and len(v) == 5 and text(v[0]) and text(v[1]) and all(map(real, v[2:]))


def step(v: Any) -> bool:  # [operator, args, kwargs, outs]
    return type(v) is tuple and len(v) == 4 and count(v[0]) and type(v[1]) is tuple and named(v[2]) and outs(v[3])


def name(v: Any) -> bool:
    return type(v) is str and 0 < len(v) <= MAX_NAME


def maybe_names(v: Any) -> bool:
    return v is None or (type(v) is tuple and len(v) <= MAX_CLIENTS and all(map(name, v)))


def stream(v: Any) -> bool:  # [rows, plan, constants, [correlations, bytes, number of the last one sent] of one run]
    return (
        type(v) is tuple
        and len(v) == 4
        and count(v[0])
        and 0 < v[0] <= MAX_ROWS
        and count(v[1])
        and counts(v[2])
        and type(v[3]) is tuple
        and len(v[3]) == 3
        and counts(v[3])
    )


def last(v: Any) -> bool:  # [operator, [[argument, value], ...]]: what the client does to what it reconstructs
    return (
        type(v) is tuple
        and len(v) == 2
        and name(v[0])
        and type(v[1]) is tuple
        and len(v[1]) <= 8
        and all(type(a) is tuple and len(a) == 2 and name(a[0]) and argument(a[1]) for a in v[1])
    )


def shape(v: Any) -> bool:
    return type(v) is tuple and len(v) < MAX_DIMS and counts(v)


def input(v: Any) -> bool:  # [shape, numbers or 0]
    return type(v) is tuple and len(v) == 2 and shape(v[0]) and count(v[1])


def served(v: Any) -> bool:  # [members, row's shape, inputs, output's shape, base, precision, whole, rows, last]
    return (
        type(v) is tuple
        and len(v) == 9
        and type(v[0]) is tuple
        and 3 <= len(v[0]) <= MAX_HOLDERS + 1
        and all(map(name, v[0]))
        and shape(v[1])
        and type(v[2]) is tuple
        and len(v[2]) <= 64
        and all(map(input, v[2]))
        and shape(v[3])
        and count(v[4])
        and 2 <= v[4] <= 1 << 30
        and count(v[5])
        and v[5] <= 30
        and flag(v[6])
        and count(v[7])
        and type(v[8]) is tuple
        and len(v[8]) <= 8
        and all(map(last, v[8]))
    )
