"""Messages: the protocol on one screen. A message is a list: its kind, then its fields. Numbers are append only.

    scientist -> worker                                          answered by
     1 HELLO     protocols, table, torch                         GREETING
     2 AUTH      scheme, secret                                  WELCOME      or CHALLENGE, and then AUTH again
     3 OP        operator, args, kwargs, outs                    -            a promise: failures poison `outs`
     4 PUT       id, tensor, tags, description                   -
     5 CHUNK     stream, total, offset, length                   -            a piece of a large tensor, ahead of its message
     6 DROP      ids                                             -
     7 ASK       request, operator, args, kwargs, outs           SPECS        an op whose result's shape depends on values
     8 GET       request, ids, take, user                        VALUES       all of them or none
     9 FILE      request, ids, reason                            STATE        ask the owner to release
    10 STATUS    request, release                                STATE
    69 TAKE      request, release                                VALUES       what was approved, once
    17 PENDING   request, skip                                   RELEASES     one's own; an owner's and an auditor's: all
    11 FIND      request, tags, skip                             FOUND        objects that carry all tags (or have the id)
    12 DESCRIBE  id, tags, description                           -
    13 LIST      request, skip                                   FOUND
    14 CLEAR     request                                         DONE
    15 SYNC      request                                         DONE         everything before it has run
    19 PLAN      id, arity, code, results                        -            OPs with relative ids; results ends it, nil: more follow
    20 RUN       plan, operands, base, outs                      -            a replay: one message
    21 EXPECT    request, id, bytes                              TICKET       a value will come from another worker (engine/arrivals.py)
    22 SHIP      request, id, uri, ticket, to                    DONE         send an object to another worker, under its id there
    23 ARRIVED   id                                              -            take in what came
    24 REFER     id, worker, to                                  -            store a pointer to object `to` of another worker
    25 SCAN      plan, operands, over, base, outs                -            a replay for each row of the operands `over`
    sharing groups (engine/sharing.py)
    48 INVITE    request, group                                  INVITATION   a member may link to this one
    49 JOIN      group, index, holders, place, key, peers        -            as holder, or (index = holders) as provider
    71 REPLICATE group, index, place, peers                      -            as one of three holders of replicated shares
    50 JOINED    request, group                                  DONE         the links are there
    51 COMPUTE   group, kernel, operands, static, outs           -            a holder's part of a kernel (mpc/kernels.py)
    52 DEAL      group, kernel, operands, static, outs           -            the provider's: shapes, or ids of fixed weights
    53 CORRECT   group, correlation, id                          -            a correction, from a client that is the provider
    54 REVEAL    group, id, out                                  -            a share, re-randomised so that it may leave
    55 SPLIT     request, id, places                             DONE         shares of an object to [uri, ticket, id] of each holder
    72 SPREAD    request, id, places                             DONE         the same of replicated shares: two places a holder
    73 LEND      request, id, readers                            DONE         users of these names find it, too, and compute with it
    56 LEAVE     group                                           -
    57 REPLAY    group, plan, operands, base, outs               -            a member's part of a plan over shares: one message
    served models (engine/serving.py)
    58 SERVE     group, model, streams, state, form, peers, clients  -        the group's links and weights become a model of this node's
    59 ADMIT     request, model, count                           DONE         take so many more requests (nil: any number, 0: none)
    60 WATCH     request, model, seen                            PROGRESS     when more than `seen` are served or none are taken; nil: now
    61 RETIRE    request, model                                  DONE         forget the model
    62 ATTACH    request, model, channel                         MODEL        a client's channel: 128 random bits, the same at each holder
    63 QUERY     request, channel, number, id                    VALUES       a share of an input, for the re-randomised share of the output
    secure aggregation (engine/aggregation.py)
    90 AGGREGATE request, stage, round, payload, vector, weight  VALUES       a stage of a client's part
    policies (docs/policy.md)
    93 PROTECT   request, id, policy                            DONE         an object of one's own becomes a dataset under a policy (JSON)
    94 EXPLAIN   request, ids                                   EXPLAINED    what would let them go
    private answers (engine/measuring.py)
    64 MEASURE   request, id, query, number, out                 MEASURED     query: [kind, epsilon, delta, bounds, grid]
    65 MAP       request, plan, operands, over, wrt, terms, number, outs     MEASURED     terms: [clip, noise, rate]
    66 BUDGET    request, id                                     MEASURED     how the accounts of what it derives from stand
    the owner only
    95 POLICY    request, dataset, policy                       DONE         put a dataset under a policy; "": count its refusals anew
    16 STORE     request, id, name, tags, description, private   DONE         makes an uploaded tensor a dataset
    18 DECIDE    request, release, approve, note                 STATE
    68 INSPECT   request, release, values                        REPORT       or VALUES: what would leave
    worker -> scientist
    33 GREETING  protocol, worker, table, torch
    34 WELCOME   session, principal, role, max_bytes
    35 ERROR     request, code, text, operator, origin           request 0: the connection closes
    36 VALUES    request, tensors
    37 SPECS     request, specs
    38 FOUND     request, total, objects                         those after the first `skip`, as many as fit
    39 DONE      request
    40 STATE     request, release, state, note
    41 RELEASES  request, total, releases                        likewise, the undecided ones first
    42 TICKET    request, ticket
    43 INVITATION request, ticket, port
    47 EXPLAINED request, text
    44 MODEL     request, index, form
    45 PROGRESS  request, state, served, lines                   `lines` tell of the last ones served
    70 REPORT    request, release, program, expires, quorum, votes
    46 CHALLENGE nonce                                           to a login by key (login.py)
    67 MEASURED  request, specs, accounts                        accounts: [dataset, user, epsilon, delta, spent]

Ids are 63 bits: the session's 31 random bits, then a 32-bit counter. `origin` is the sequence number of the message that failed.
The forms of args and outs are in ops/operator.py; a tensor's, in codec.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from syftlite.errors import Misuse, ProtocolError
from syftlite.ops.dtypes import DTYPES

PROTOCOLS: tuple[int, ...] = (1,)
"""Protocol versions spoken here, best first."""

HELLO, AUTH, OP, PUT, CHUNK, DROP, ASK, GET, FILE, STATUS, FIND, DESCRIBE, LIST, CLEAR, SYNC, STORE, PENDING, DECIDE = range(1, 19)
PLAN, RUN, EXPECT, SHIP, ARRIVED, REFER, SCAN = range(19, 26)
GREETING, WELCOME, ERROR, VALUES, SPECS, FOUND, DONE, STATE, RELEASES, TICKET, INVITATION, MODEL, PROGRESS = range(33, 46)
CHALLENGE = 46
INSPECT, TAKE, REPORT, REPLICATE, SPREAD, LEND = range(68, 74)
INVITE, JOIN, JOINED, COMPUTE, DEAL, CORRECT, REVEAL, SPLIT, LEAVE, REPLAY = range(48, 58)
SERVE, ADMIT, WATCH, RETIRE, ATTACH, QUERY = range(58, 64)
AGGREGATE = 90
PROTECT, EXPLAIN, POLICY, EXPLAINED = 93, 94, 95, 47
MEASURE, MAP, BUDGET, MEASURED = range(64, 68)
KERNELS_FROM = 1 << 16
"""In a PLAN, numbers from here on are kernels: a holder's COMPUTE, or the provider's DEAL."""

Message = Sequence[Any]
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


def _count(v: Any) -> bool:
    return type(v) is int and 0 <= v <= MAX_ID


def _maybe_count(v: Any) -> bool:
    return v is None or _count(v)


def _flag(v: Any) -> bool:
    return type(v) is bool


def _text(v: Any) -> bool:
    return type(v) is str and len(v) <= MAX_TEXT


def _maybe_text(v: Any) -> bool:
    return v is None or _text(v)


def _many(item: Check) -> Check:
    return lambda v: type(v) in (list, tuple) and len(v) <= MAX_ITEMS and all(map(item, v))


def _tags(v: Any) -> bool:
    return _texts(v) and sum(map(len, v)) <= MAX_TEXT


def _operands(v: Any) -> bool:
    return type(v) in (list, tuple) and len(v) <= 64


def _named(v: Any) -> bool:
    return v is None or (type(v) is dict and len(v) <= 64)


def _outs(v: Any) -> bool:
    return v is None or _count(v) or _many(lambda o: o is None or _count(o))(v)


def _scalar(v: Any) -> bool:
    return type(v) in (bool, int, float)


def _described(v: Any) -> bool:  # [dtype, shape, stream]: the connection checks them as it reads the tensor
    return type(v) is tuple and len(v) == 3


def _spec(v: Any) -> bool:  # [dtype, shape, stride, offset], or a number
    if _scalar(v):
        return True
    if type(v) not in (list, tuple) or len(v) != 4 or not (_counts(v[1]) and _counts(v[2]) and _count(v[3])):
        return False
    return type(v[0]) is int and 0 <= v[0] < len(DTYPES) and len(v[1]) == len(v[2]) <= MAX_DIMS


def _object(v: Any) -> bool:  # [id, spec, tags, description, private, borrowed]
    return (
        type(v) in (list, tuple)
        and len(v) == 6
        and _count(v[0])
        and _spec(v[1])
        and _texts(v[2])
        and _text(v[3])
        and _flag(v[4])
        and _flag(v[5])
    )


def _release(v: Any) -> bool:  # [release, principal, reason, what, state, filed at (s)]
    return type(v) in (list, tuple) and len(v) == 6 and all(map(_text, v[:3])) and _texts(v[3]) and _text(v[4]) and _scalar(v[5])


def _counts(v: Any) -> bool:
    return type(v) in (list, tuple) and len(v) <= MAX_ITEMS and all([type(i) is int and 0 <= i <= MAX_ID for i in v])  # noqa: C419  a generator takes twice as long


_texts = _many(_text)


def _whole(v: Any) -> bool:
    return type(v) is int and -MAX_ID <= v <= MAX_ID


def _argument(v: Any) -> bool:
    return _whole(v) or (type(v) is tuple and len(v) <= 8 and all(map(_whole, v)))


def _static(v: Any) -> bool:  # a kernel's static arguments: ints and pairs; the kernel checks them
    return v is None or (type(v) is dict and len(v) <= 16 and all(map(_argument, v.values())))


def _shaped(v: Any) -> bool:  # a shape, or the id of a fixed weight
    return _count(v) or (type(v) is tuple and len(v) <= MAX_DIMS and _counts(v))


def _peer(v: Any) -> bool:  # [index, uri, port, ticket]
    return type(v) is tuple and len(v) == 4 and _count(v[0]) and _text(v[1]) and _count(v[2]) and v[2] < 1 << 16 and _text(v[3])


def _place(v: Any) -> bool:  # [uri, ticket, id]
    return type(v) is tuple and len(v) == 3 and _text(v[0]) and _text(v[1]) and _count(v[2])


def _few(item: Check) -> Check:
    return lambda v: type(v) in (list, tuple) and len(v) <= MAX_HOLDERS and all(map(item, v))


def _maybe_counts(v: Any) -> bool:
    return v is None or _counts(v)


def _real(v: Any) -> bool:
    return type(v) in (int, float)


def _query(v: Any) -> bool:  # [kind, epsilon, delta or nil, [low, high] or nil, numbers]
    return (
        type(v) is tuple
        and len(v) == 5
        and _count(v[0])
        and _real(v[1])
        and (v[2] is None or _real(v[2]))
        and (v[3] is None or (type(v[3]) is tuple and len(v[3]) == 2 and all(map(_real, v[3]))))
        and _many(_real)(v[4])
    )


def _terms(v: Any) -> bool:  # [clip, noise multiplier, sampling rate]
    return type(v) is tuple and len(v) == 3 and all(map(_real, v))


def _account(v: Any) -> bool:  # [dataset, user, epsilon, delta, spent]
    return type(v) in (list, tuple) and len(v) == 5 and _text(v[0]) and _text(v[1]) and all(map(_real, v[2:]))


def _step(v: Any) -> bool:  # [operator, args, kwargs, outs]
    return type(v) is tuple and len(v) == 4 and _count(v[0]) and type(v[1]) is tuple and _named(v[2]) and _outs(v[3])


def _name(v: Any) -> bool:
    return type(v) is str and 0 < len(v) <= MAX_NAME


def _maybe_names(v: Any) -> bool:
    return v is None or (type(v) is tuple and len(v) <= MAX_CLIENTS and all(map(_name, v)))


def _stream(v: Any) -> bool:  # [rows, plan, constants, [correlations, bytes, number of the last one sent] of one run]
    return (
        type(v) is tuple
        and len(v) == 4
        and _count(v[0])
        and 0 < v[0] <= MAX_ROWS
        and _count(v[1])
        and _counts(v[2])
        and type(v[3]) is tuple
        and len(v[3]) == 3
        and _counts(v[3])
    )


def _last(v: Any) -> bool:  # [operator, [[argument, value], ...]]: what the client does to what it reconstructs
    return (
        type(v) is tuple
        and len(v) == 2
        and _name(v[0])
        and type(v[1]) is tuple
        and len(v[1]) <= 8
        and all(type(a) is tuple and len(a) == 2 and _name(a[0]) and _argument(a[1]) for a in v[1])
    )


def _shape(v: Any) -> bool:
    return type(v) is tuple and len(v) < MAX_DIMS and _counts(v)


def _input(v: Any) -> bool:  # [shape, numbers or 0]
    return type(v) is tuple and len(v) == 2 and _shape(v[0]) and _count(v[1])


def _served(v: Any) -> bool:  # [members, row's shape, inputs, output's shape, base, precision, whole, rows, last]
    return (
        type(v) is tuple
        and len(v) == 9
        and type(v[0]) is tuple
        and 3 <= len(v[0]) <= MAX_HOLDERS + 1
        and all(map(_name, v[0]))
        and _shape(v[1])
        and type(v[2]) is tuple
        and len(v[2]) <= 64
        and all(map(_input, v[2]))
        and _shape(v[3])
        and _count(v[4])
        and 2 <= v[4] <= 1 << 30
        and _count(v[5])
        and v[5] <= 30
        and _flag(v[6])
        and _count(v[7])
        and type(v[8]) is tuple
        and len(v[8]) <= 8
        and all(map(_last, v[8]))
    )


class Form(NamedTuple):
    """The name of a message kind and a check for each of its fields."""

    name: str
    fields: tuple[Check, ...]


FROM_CLIENT: dict[int, Form] = {
    HELLO: Form("HELLO", (_counts, _count, _text)),
    AUTH: Form("AUTH", (_text, _text)),
    OP: Form("OP", (_count, _operands, _named, _outs)),
    PUT: Form("PUT", (_count, _described, _tags, _text)),
    CHUNK: Form("CHUNK", (_count, _count, _count, _count)),
    DROP: Form("DROP", (_counts,)),
    ASK: Form("ASK", (_count, _count, _operands, _named, _maybe_counts)),
    GET: Form("GET", (_count, _counts, _flag, _maybe_text)),
    FILE: Form("FILE", (_count, _counts, _text)),
    STATUS: Form("STATUS", (_count, _text)),
    FIND: Form("FIND", (_count, _texts, _count)),
    DESCRIBE: Form("DESCRIBE", (_count, _tags, _text)),
    LIST: Form("LIST", (_count, _count)),
    CLEAR: Form("CLEAR", (_count,)),
    SYNC: Form("SYNC", (_count,)),
    STORE: Form("STORE", (_count, _count, _text, _tags, _text, _flag)),
    PENDING: Form("PENDING", (_count, _count)),
    PLAN: Form("PLAN", (_count, _count, _many(_step), _maybe_counts)),
    RUN: Form("RUN", (_count, _counts, _count, _counts)),
    SCAN: Form("SCAN", (_count, _counts, _counts, _count, _counts)),
    EXPECT: Form("EXPECT", (_count, _count, _count)),
    SHIP: Form("SHIP", (_count, _count, _text, _text, _count)),
    ARRIVED: Form("ARRIVED", (_count,)),
    REFER: Form("REFER", (_count, _text, _count)),
    INVITE: Form("INVITE", (_count, _count)),
    JOIN: Form("JOIN", (_count, _count, _count, _maybe_text, _maybe_text, _few(_peer))),
    REPLICATE: Form("REPLICATE", (_count, _count, _maybe_text, _few(_peer))),
    JOINED: Form("JOINED", (_count, _count)),
    COMPUTE: Form("COMPUTE", (_count, _count, _few(_count), _static, _few(_count))),
    DEAL: Form("DEAL", (_count, _count, _few(_shaped), _static, _few(_count))),
    CORRECT: Form("CORRECT", (_count, _count, _count)),
    REVEAL: Form("REVEAL", (_count, _count, _count)),
    SPLIT: Form("SPLIT", (_count, _count, _few(_place))),
    SPREAD: Form("SPREAD", (_count, _count, _few(_place))),
    LEND: Form("LEND", (_count, _count, _tags)),
    LEAVE: Form("LEAVE", (_count,)),
    REPLAY: Form("REPLAY", (_count, _count, _counts, _count, _counts)),
    SERVE: Form("SERVE", (_count, _name, _few(_stream), _counts, _served, _few(_peer), _maybe_names)),
    ADMIT: Form("ADMIT", (_count, _name, _maybe_count)),
    WATCH: Form("WATCH", (_count, _name, _maybe_count)),
    RETIRE: Form("RETIRE", (_count, _name)),
    ATTACH: Form("ATTACH", (_count, _name, _name)),
    QUERY: Form("QUERY", (_count, _name, _count, _count)),
    AGGREGATE: Form("AGGREGATE", (_count, _count, _count, _maybe_count, _counts, _maybe_count)),
    PROTECT: Form("PROTECT", (_count, _count, _text)),
    EXPLAIN: Form("EXPLAIN", (_count, _counts)),
    POLICY: Form("POLICY", (_count, _text, _text)),
    INSPECT: Form("INSPECT", (_count, _text, _flag)),
    TAKE: Form("TAKE", (_count, _text)),
    MEASURE: Form("MEASURE", (_count, _count, _query, _text, _count)),
    MAP: Form("MAP", (_count, _count, _counts, _count, _counts, _terms, _text, _counts)),
    BUDGET: Form("BUDGET", (_count, _count)),
    DECIDE: Form("DECIDE", (_count, _text, _flag, _text)),
}

FROM_WORKER: dict[int, Form] = {
    CHUNK: FROM_CLIENT[CHUNK],
    GREETING: Form("GREETING", (_count, _text, _count, _text)),
    WELCOME: Form("WELCOME", (_count, _text, _text, _count)),
    ERROR: Form("ERROR", (_count, _count, _text, _count, _count)),
    VALUES: Form("VALUES", (_count, _many(_described))),
    SPECS: Form("SPECS", (_count, _many(_spec))),
    FOUND: Form("FOUND", (_count, _count, _many(_object))),
    DONE: Form("DONE", (_count,)),
    TICKET: Form("TICKET", (_count, _text)),
    INVITATION: Form("INVITATION", (_count, _text, _count)),
    MODEL: Form("MODEL", (_count, _count, _served)),
    PROGRESS: Form("PROGRESS", (_count, _text, _count, _texts)),
    EXPLAINED: Form("EXPLAINED", (_count, _text)),
    REPORT: Form("REPORT", (_count, _release, _texts, _scalar, _count, _texts)),
    CHALLENGE: Form("CHALLENGE", (_text,)),
    MEASURED: Form("MEASURED", (_count, _many(_spec), _many(_account))),
    STATE: Form("STATE", (_count, _text, _text, _text)),
    RELEASES: Form("RELEASES", (_count, _count, _many(_release))),
}

ANSWERED = frozenset({ASK, GET, FILE, STATUS, FIND, LIST, CLEAR, SYNC, STORE, PENDING, DECIDE, EXPECT, SHIP, INVITE, JOINED, SPLIT, SPREAD})
ANSWERED |= {LEND, ADMIT, WATCH, RETIRE, ATTACH, QUERY, AGGREGATE, PROTECT, EXPLAIN, POLICY, INSPECT, TAKE, MEASURE, MAP, BUDGET}
"""Kinds whose first field is a request number that the answer repeats."""


def check(message: Any, forms: dict[int, Form]) -> None:
    """Raise `ProtocolError`, naming kind and field, unless ``message`` has one of ``forms``."""
    if type(message) not in (list, tuple) or not message or type(message[0]) is not int:
        raise ProtocolError("a message is a list whose first item is its kind")
    form = forms.get(message[0])
    if form is None:
        raise ProtocolError(f"kind {message[0]} is not allowed here; allowed: {', '.join(f.name for f in forms.values())}")
    if len(message) != len(form.fields) + 1:
        raise ProtocolError(f"{form.name} has {len(form.fields)} fields, got {len(message) - 1}")
    for position, (accepts, value) in enumerate(zip(form.fields, message[1:], strict=True), 1):
        if not accepts(value):
            raise ProtocolError(f"{form.name}: field {position} has the wrong form")


def must_be_sendable(*message: Any) -> None:
    """Raise `Misuse` for a message with its user's own words that a worker would end the session for."""
    try:
        check(message, FROM_CLIENT)
    except ProtocolError as error:
        limits = f"a text, and all tags of one object together, have at most {MAX_TEXT:,} characters, a list {MAX_ITEMS:,} items"
        raise Misuse(f"{error}: {limits}") from None
