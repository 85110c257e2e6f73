"""The forms of messages: what each field accepts, and that nothing else does."""

import contextlib

import msgpack
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from syftlite.errors import Misuse, ProtocolError
from syftlite.wire import fields as f
from syftlite.wire import messages as m
from syftlite.wire.fields import MAX_HOLDERS, MAX_ITEMS, MAX_TEXT

ID, NO, TENSOR, SPEC = 5 << 32, 3, (0, (2,), 0), (0, (2,), (1,), 0)

FORM = (("alice", "bob", "carol"), (784,), (((28, 28), 0), ((3,), 7)), (10,), 2, 16, False, 16, (("softmax", (("axis", -1),)),))
SAMPLES = {
    m.HELLO: ((1, 2), 300, "2.13"),
    m.AUTH: ("token", "secret"),
    m.OP: (1, (ID, 2.0), {"alpha": 2}, ID + 1),
    m.PUT: (ID, TENSOR, ("#a", "#b"), "text"),
    m.CHUNK: (1, 10, 0, 10),
    m.DROP: ((ID, ID + 1),),
    m.ASK: (NO, 1, (ID,), None, (ID + 1,)),
    m.GET: (NO, (ID,), True, None),
    m.FILE: (NO, (ID,), "why"),
    m.STATUS: (NO, "ab12"),
    m.FIND: (NO, ("#a",), 0),
    m.DESCRIBE: (ID, ("#a",), "text"),
    m.LIST: (NO, 0),
    m.CLEAR: (NO,),
    m.SYNC: (NO,),
    m.STORE: (NO, ID, "name", ("#a",), "text", True),
    m.INSPECT: (NO, "ab12", True),
    m.TAKE: (NO, "ab12"),
    m.PENDING: (NO, 0),
    m.DECIDE: (NO, "ab12", True, "note"),
    m.PLAN: (ID, 2, ((1, (1, 2), {"alpha": 2}, 3), (2, (3, 1.0), None, (4, None))), (3,)),
    m.RUN: (ID, (ID + 1, ID + 2), ID + 10, (ID + 20,)),
    m.SCAN: (ID, (ID + 1, ID + 2), (0,), ID + 10, (ID + 20,)),
    m.EXPECT: (NO, ((ID, 100), (ID + 1, 0))),
    m.SHIP: (NO, ((ID, ID + 1), (ID + 2, ID + 3)), "ws://127.0.0.1:8777", "ticket"),
    m.ARRIVED: (ID,),
    m.REFER: (ID, "alice", ID + 1),
    m.INVITE: (NO, 7),
    m.JOIN: (7, 0, 2, None, "00ff", ((1, "ws://127.0.0.1:8777", 40000, "ticket"), (2, "", 0, "ticket"))),
    m.REPLICATE: (7, 0, None, ((1, "ws://127.0.0.1:8777", 40000, "ticket"), (2, "", 0, "ticket"))),
    m.JOINED: (NO, 7),
    m.COMPUTE: (7, 2, (ID, ID + 1), {"f": 16, "stride": (1, -1)}, (ID + 2,)),
    m.DEAL: (7, 2, ((2, 3), (), ID), {"f": 16}, (ID + 2,)),
    m.CORRECT: (7, 3, ID),
    m.REVEAL: (7, ID, ID + 1),
    m.SPLIT: (NO, ID, (("ws://127.0.0.1:8777", "ticket", ID + 1), ("", "", ID + 2))),
    m.LEND: (NO, ID, ("ben", "eve")),
    m.SPREAD: (NO, ID, (("ws://127.0.0.1:8777", "ticket", ID + 1), ("", "", ID + 2))),
    m.LEAVE: (7,),
    m.REPLAY: (7, ID, (ID + 1, ID + 2), ID + 10, (ID + 20,)),
    m.SERVE: (7, "model", ((16, ID, (ID + 1,), (20, 4096, 19)),), (ID + 2, 0), FORM, ((0, "ws://127.0.0.1:8777", 40000, "ticket"),), ("ben",)),
    m.ADMIT: (NO, "model", 3),
    m.WATCH: (NO, "model", 0),
    m.RETIRE: (NO, "model"),
    m.ATTACH: (NO, "model", "0123456789abcdef"),
    m.QUERY: (NO, "0123456789abcdef", 1, ID),
    m.MEASURE: (NO, ID, (2, 0.5, None, (0, 1.5), (1, 2.0)), "monday", ID + 1),
    m.MAP: (NO, ID, (ID + 1, ID + 2), 1, (1,), (1.0, 1.1, 0.01), "monday", (ID + 3,)),
    m.BUDGET: (NO, ID),
    m.MEASURED: (NO, (SPEC,), (("icu", "ann", 1.0, 1e-6, 0.5),)),
    m.AGGREGATE: (NO, 3, 1, ID, (ID + 1, ID + 2), None),
    m.GREETING: (1, "alice", 300, "2.13"),
    m.WELCOME: (5, "ann", "scientist", 8 << 30),
    m.ERROR: (NO, 3, "text", 0, 0),
    m.VALUES: (NO, (TENSOR, TENSOR)),
    m.SPECS: (NO, (SPEC, 3, 1.5, True)),
    m.FOUND: (NO, 1, ((ID, SPEC, ("#a",), "text", True, False),)),
    m.DONE: (NO,),
    m.TICKET: (NO, "ticket"),
    m.PROTECT: (NO, ID, "[{}]"),
    m.EXPLAIN: (NO, (ID,)),
    m.POLICY: (NO, "icu", "[{}]"),
    m.EXPLAINED: (NO, "icu: lets go nothing"),
    m.INVITATION: (NO, "ticket", 40000),
    m.STATE: (NO, "ab12", "pending", ""),
    m.MODEL: (NO, 0, FORM),
    m.PROGRESS: (NO, "serving", 3, ("request 3: ann, 1 row, 7.1 ms",)),
    m.CHALLENGE: ("0f" * 32,),
    m.REPORT: (NO, ("ab12", "ann", "why", ("float32[2]",), "pending", 1.5), ("x1 = mm(a, b)",), 9.5, 2, ("owner",)),
    m.RELEASES: (NO, 1, (("ab12", "ann", "why", ("float32[2]",), "pending", 1.5),)),
}
FORMS = {**m.FROM_CLIENT, **m.FROM_WORKER}

HOSTILE = [
    None,
    True,
    -1,
    1 << 63,
    (1 << 64) - 1,
    0.5,
    float("nan"),
    float("inf"),
    "x" * (MAX_TEXT + 1),
    b"bytes",
    (),
    (None,),
    (True,),
    (-1,),
    ("a", 1),
    (1.0,),
    ((),),
    (1,) * (MAX_ITEMS + 1),
    ("x" * 100,) * 100,
    {},
    {"a": 1},
    {b"a": 1},
    {str(i): i for i in range(65)},
    msgpack.Timestamp(1),
    msgpack.ExtType(5, b"x"),
]


def test_every_kind_has_a_sample_and_a_number_of_its_own():
    assert set(SAMPLES) == set(FORMS)
    assert sorted(m.FROM_CLIENT) == [*range(1, 26), *range(48, 67), m.INSPECT, m.TAKE, 71, 72, 73, 90, 93, 94, 95]
    assert sorted(m.FROM_WORKER) == [m.CHUNK, *range(33, 48), m.MEASURED, m.REPORT]


@pytest.mark.parametrize("kind", SAMPLES, ids=lambda kind: FORMS[kind].name)
def test_samples_are_accepted_as_tuples_and_as_lists(kind):
    m.check((kind, *SAMPLES[kind]), FORMS)
    m.check([kind, *SAMPLES[kind]], FORMS)


# Of the hostile values, by position in HOSTILE, those that a field takes for what they are.
HARMLESS = {
    f.count: [],
    f.maybe_count: [None],
    f.flag: [True],
    f.text: [],
    f.maybe_text: [None],
    f.counts: [()],
    f.texts: [(), ("x" * 100,) * 100],
    f.tags: [()],
    f.operands: [v for v in HOSTILE if type(v) is tuple and len(v) <= 64],
    f.named: [None, {}, {"a": 1}, {b"a": 1}],
    f.outs: [None, (), (None,)],
    f.maybe_counts: [None, ()],
    f.described: [],
    f.name: [],
    f.maybe_count: [None],
    f.maybe_names: [None, (), ("x" * 100,) * 100],
    f.served: [],
    f.query: [],
    f.terms: [],
    FORMS[m.MEASURED].fields[2]: [()],
    f.release: [],
    f.pairs: [],
    f.scalar: [v for v in HOSTILE if type(v) in (bool, int, float)],
    f.static: [None, {}, {"a": 1}, {b"a": 1}],
    FORMS[m.DEAL].fields[2]: [(), ((),)],  # shapes: of a number, too
}
LISTS = {kind: [()] for kind in (m.JOIN, m.REPLICATE, m.COMPUTE, m.DEAL, m.SPLIT, m.SPREAD, m.SERVE)} | {m.SPECS: [(), (True,), (-1,), (1.0,)], m.MEASURED: [(), (True,), (-1,), (1.0,)], m.VALUES: [()], m.FOUND: [()], m.RELEASES: [()], m.PLAN: [()]}


@pytest.mark.parametrize("kind", SAMPLES, ids=lambda kind: FORMS[kind].name)
def test_every_field_refuses_what_it_is_not(kind):
    for position, accepts in enumerate(FORMS[kind].fields):
        allowed = HARMLESS[accepts] if accepts in HARMLESS else LISTS[kind]
        for value in HOSTILE:
            fields = [*SAMPLES[kind][:position], value, *SAMPLES[kind][position + 1 :]]
            if any(value is v or (type(value) is type(v) and value == v) for v in allowed):
                m.check((kind, *fields), FORMS)
            else:
                with pytest.raises(ProtocolError, match=FORMS[kind].name):
                    m.check((kind, *fields), FORMS)


@pytest.mark.parametrize("kind", SAMPLES, ids=lambda kind: FORMS[kind].name)
def test_a_field_too_many_or_too_few_is_refused(kind):
    for fields in (SAMPLES[kind][:-1], (*SAMPLES[kind], 0)):
        with pytest.raises(ProtocolError, match="fields"):
            m.check((kind, *fields), FORMS)


def test_what_sharing_messages_name_is_bounded():
    m.check((m.COMPUTE, 7, 2, (ID,) * MAX_HOLDERS, None, (ID,)), m.FROM_CLIENT)
    peer = (1, "ws://127.0.0.1:8777", 40000, "ticket")
    for message in (
        (m.COMPUTE, 7, 2, (ID,) * (MAX_HOLDERS + 1), None, (ID,)),
        (m.COMPUTE, 7, 2, (ID,), {"f": "16"}, (ID,)),
        (m.COMPUTE, 7, 2, (ID,), {"f": 1.0}, (ID,)),
        (m.COMPUTE, 7, 2, (ID,), {"stride": [1, 1]}, (ID,)),
        (m.COMPUTE, 7, 2, (ID,), {"stride": (1,) * 9}, (ID,)),
        (m.COMPUTE, 7, 2, (ID,), {str(i): 1 for i in range(17)}, (ID,)),
        (m.DEAL, 7, 2, ((-1,),), None, (ID,)),
        (m.DEAL, 7, 2, ((1,) * 65,), None, (ID,)),
        (m.JOIN, 7, 0, 2, None, None, (peer,) * (MAX_HOLDERS + 1)),
        (m.JOIN, 7, 0, 2, None, None, ((1, "ws://h", 1 << 16, "t"),)),
        (m.JOIN, 7, 0, 2, None, None, ((1, "ws://h", 1),)),
        (m.REPLICATE, 7, 0, None, (peer,) * (MAX_HOLDERS + 1)),
        (m.SPLIT, NO, ID, (("ws://h", "t"),)),
        (m.SPREAD, NO, ID, (("ws://h", "t"),)),
    ):
        with pytest.raises(ProtocolError, match=FORMS[message[0]].name):
            m.check(message, m.FROM_CLIENT)


@pytest.mark.parametrize("message", [(), None, 15, "SYNC", (15.0, 1), (True, 1), ("15", 1), {15: 1}, (99, 1), (-15, 1), ((15,), 1)])
def test_what_is_no_message_is_refused(message):
    with pytest.raises(ProtocolError):
        m.check(message, FORMS)


@pytest.mark.parametrize(
    "spec",
    [
        (12, (2,), (1,), 0),
        (-1, (2,), (1,), 0),
        (True, (2,), (1,), 0),
        (0, (2, 2), (1,), 0),
        (0, (1,) * 65, (1,) * 65, 0),
        (0, (-2,), (1,), 0),
        (0, (2,), (1,), -1),
        (0, (2,), (1,)),
    ],
)
def test_a_spec_that_no_tensor_has_is_refused(spec):
    with pytest.raises(ProtocolError, match="SPECS"):
        m.check((m.SPECS, 1, (spec,)), m.FROM_WORKER)


def test_the_form_of_results_is_an_id_or_a_list_of_them():
    for outs in (None, ID, (ID, None), ()):
        m.check((m.OP, 1, (ID,), None, outs), m.FROM_CLIENT)
    for outs in (1 << 63, -1, (1 << 63,), ((ID,),), "a"):
        for message in ((m.OP, 1, (ID,), None, outs), (m.ASK, NO, 1, (ID,), None, outs)):
            with pytest.raises(ProtocolError):
                m.check(message, m.FROM_CLIENT)


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=6).map(tuple) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=20,
)


@given(st.sampled_from(sorted(FORMS)), st.lists(anything, max_size=6))
def test_no_content_raises_anything_but_protocol_errors(kind, fields):
    with contextlib.suppress(ProtocolError):
        m.check((kind, *fields), FORMS)


@given(anything)
def test_no_value_in_a_message_place_raises_anything_else(value):
    with pytest.raises(ProtocolError):
        m.check(value if type(value) is not tuple else (*value, "no kind")[:1], FORMS)


def test_a_users_own_words_are_refused_before_they_end_the_session():
    m.must_be_sendable(m.FIND, 1, ["#a"], 0)
    for message in ((m.FIND, 1, ["x" * 5000], 0), (m.DESCRIBE, ID, ("x" * 3000, "y" * 3000), ""), (m.FILE, 1, list(range(5000)), "why")):
        with pytest.raises(Misuse, match="at most 4,096"):
            m.must_be_sendable(*message)


@pytest.mark.parametrize(
    "call",
    [
        lambda bob, x: x.describe("a" * 5000),
        lambda bob, x: x.tag("t" * 5000),
        lambda bob, x: x.tag(*map(str, range(5000))),
        lambda bob, x: bob.search("t" * 5000),
        lambda bob, x: torch.ones(2).tag("t" * 5000).send(bob),
        lambda bob, x: x.request("r" * 5000),
        lambda bob, x: x.get(user="u" * 5000),
    ],
)
def test_words_too_many_are_an_error_of_that_call_alone(bob, call):
    x = torch.ones(3).send(bob)
    with pytest.raises(Misuse, match="at most 4,096"):
        call(bob, x)
    assert x.get().tolist() == [1.0, 1.0, 1.0]


def test_a_tensor_that_does_not_travel_is_an_error_of_that_call_alone(bob):
    x = torch.ones(3).send(bob)
    for call in (lambda: torch.ones(2, dtype=torch.uint16).send(bob), lambda: x.to(torch.uint16), lambda: torch.ones((1,) * 65).send(bob)):
        with pytest.raises(Misuse, match="does not travel"):
            call()
    assert x.get().tolist() == [1.0, 1.0, 1.0]
