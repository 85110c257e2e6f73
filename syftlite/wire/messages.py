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
    21 EXPECT    request, parcels                                TICKET       values will come from another worker (engine/arrivals.py)
    22 SHIP      request, parcels, uri, ticket                   DONE         send objects to another worker: [id here, id there] of each
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

from collections.abc import Sequence
from typing import Any, NamedTuple

from syftlite.errors import Misuse, ProtocolError
from syftlite.wire import fields as f
from syftlite.wire.fields import MAX_ITEMS, MAX_TEXT, Check

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

SCAN_STEPS = 1 << 14
"""Rows that one SCAN goes over, at most."""

Message = Sequence[Any]


class Form(NamedTuple):
    """The name of a message kind and a check for each of its fields."""

    name: str
    fields: tuple[Check, ...]


FROM_CLIENT: dict[int, Form] = {
    HELLO: Form("HELLO", (f.counts, f.count, f.text)),
    AUTH: Form("AUTH", (f.text, f.text)),
    OP: Form("OP", (f.count, f.operands, f.named, f.outs)),
    PUT: Form("PUT", (f.count, f.described, f.tags, f.text)),
    CHUNK: Form("CHUNK", (f.count, f.count, f.count, f.count)),
    DROP: Form("DROP", (f.counts,)),
    ASK: Form("ASK", (f.count, f.count, f.operands, f.named, f.maybe_counts)),
    GET: Form("GET", (f.count, f.counts, f.flag, f.maybe_text)),
    FILE: Form("FILE", (f.count, f.counts, f.text)),
    STATUS: Form("STATUS", (f.count, f.text)),
    FIND: Form("FIND", (f.count, f.texts, f.count)),
    DESCRIBE: Form("DESCRIBE", (f.count, f.tags, f.text)),
    LIST: Form("LIST", (f.count, f.count)),
    CLEAR: Form("CLEAR", (f.count,)),
    SYNC: Form("SYNC", (f.count,)),
    STORE: Form("STORE", (f.count, f.count, f.text, f.tags, f.text, f.flag)),
    PENDING: Form("PENDING", (f.count, f.count)),
    PLAN: Form("PLAN", (f.count, f.count, f.many(f.step), f.maybe_counts)),
    RUN: Form("RUN", (f.count, f.counts, f.count, f.counts)),
    SCAN: Form("SCAN", (f.count, f.counts, f.counts, f.count, f.counts)),
    EXPECT: Form("EXPECT", (f.count, f.pairs)),
    SHIP: Form("SHIP", (f.count, f.pairs, f.text, f.text)),
    ARRIVED: Form("ARRIVED", (f.count,)),
    REFER: Form("REFER", (f.count, f.text, f.count)),
    INVITE: Form("INVITE", (f.count, f.count)),
    JOIN: Form("JOIN", (f.count, f.count, f.count, f.maybe_text, f.maybe_text, f.few(f.peer))),
    REPLICATE: Form("REPLICATE", (f.count, f.count, f.maybe_text, f.few(f.peer))),
    JOINED: Form("JOINED", (f.count, f.count)),
    COMPUTE: Form("COMPUTE", (f.count, f.count, f.few(f.count), f.static, f.few(f.count))),
    DEAL: Form("DEAL", (f.count, f.count, f.few(f.shaped), f.static, f.few(f.count))),
    CORRECT: Form("CORRECT", (f.count, f.count, f.count)),
    REVEAL: Form("REVEAL", (f.count, f.count, f.count)),
    SPLIT: Form("SPLIT", (f.count, f.count, f.few(f.place))),
    SPREAD: Form("SPREAD", (f.count, f.count, f.few(f.place))),
    LEND: Form("LEND", (f.count, f.count, f.tags)),
    LEAVE: Form("LEAVE", (f.count,)),
    REPLAY: Form("REPLAY", (f.count, f.count, f.counts, f.count, f.counts)),
    SERVE: Form("SERVE", (f.count, f.name, f.few(f.stream), f.counts, f.served, f.few(f.peer), f.maybe_names)),
    ADMIT: Form("ADMIT", (f.count, f.name, f.maybe_count)),
    WATCH: Form("WATCH", (f.count, f.name, f.maybe_count)),
    RETIRE: Form("RETIRE", (f.count, f.name)),
    ATTACH: Form("ATTACH", (f.count, f.name, f.name)),
    QUERY: Form("QUERY", (f.count, f.name, f.count, f.count)),
    AGGREGATE: Form("AGGREGATE", (f.count, f.count, f.count, f.maybe_count, f.counts, f.maybe_count)),
    PROTECT: Form("PROTECT", (f.count, f.count, f.text)),
    EXPLAIN: Form("EXPLAIN", (f.count, f.counts)),
    POLICY: Form("POLICY", (f.count, f.text, f.text)),
    INSPECT: Form("INSPECT", (f.count, f.text, f.flag)),
    TAKE: Form("TAKE", (f.count, f.text)),
    MEASURE: Form("MEASURE", (f.count, f.count, f.query, f.text, f.count)),
    MAP: Form("MAP", (f.count, f.count, f.counts, f.count, f.counts, f.terms, f.text, f.counts)),
    BUDGET: Form("BUDGET", (f.count, f.count)),
    DECIDE: Form("DECIDE", (f.count, f.text, f.flag, f.text)),
}

FROM_WORKER: dict[int, Form] = {
    CHUNK: FROM_CLIENT[CHUNK],
    GREETING: Form("GREETING", (f.count, f.text, f.count, f.text)),
    WELCOME: Form("WELCOME", (f.count, f.text, f.text, f.count)),
    ERROR: Form("ERROR", (f.count, f.count, f.text, f.count, f.count)),
    VALUES: Form("VALUES", (f.count, f.many(f.described))),
    SPECS: Form("SPECS", (f.count, f.many(f.spec))),
    FOUND: Form("FOUND", (f.count, f.count, f.many(f.object))),
    DONE: Form("DONE", (f.count,)),
    TICKET: Form("TICKET", (f.count, f.text)),
    INVITATION: Form("INVITATION", (f.count, f.text, f.count)),
    MODEL: Form("MODEL", (f.count, f.count, f.served)),
    PROGRESS: Form("PROGRESS", (f.count, f.text, f.count, f.texts)),
    EXPLAINED: Form("EXPLAINED", (f.count, f.text)),
    REPORT: Form("REPORT", (f.count, f.release, f.texts, f.scalar, f.count, f.texts)),
    CHALLENGE: Form("CHALLENGE", (f.text,)),
    MEASURED: Form("MEASURED", (f.count, f.many(f.spec), f.many(f.account))),
    STATE: Form("STATE", (f.count, f.text, f.text, f.text)),
    RELEASES: Form("RELEASES", (f.count, f.count, f.many(f.release))),
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
        raise ProtocolError(f"kind {message[0]} is not allowed here; allowed: {', '.join(form.name for form in forms.values())}")
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
