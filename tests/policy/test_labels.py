"""The join: commutative, associative, idempotent, and never below an operand."""

import numpy
from hypothesis import given
from hypothesis import strategies as st

from syftlite.policy.labels import NONE, PUBLIC, Class, Label, blind, join, private
from syftlite.policy.lineage import Frame, Rows

FRAME = Frame("a", 4)
ROWS = [Rows(FRAME.all, 4), Rows(FRAME.all, 8)]
SELECTIONS = [FRAME.selection(numpy.arange(4) == i, derived=False) for i in range(3)]


def _made(level, sources, rows, selections, exposed):
    return Label(level, sources, rows=rows if level is Class.PRIVATE else None, selections=selections, exposed=exposed)


labels = st.builds(
    _made,
    st.sampled_from(Class),
    st.frozensets(st.sampled_from("abc")),
    st.sampled_from([None, *ROWS]),
    st.frozensets(st.sampled_from(SELECTIONS)),
    st.booleans(),
)


@given(labels, labels, labels)
def test_the_join_is_a_join(a, b, c):
    assert join([a, b]) == join([b, a])
    assert join([a, join([b, c])]) == join([join([a, b]), c]) == join([a, b, c])
    assert join([a, a]) == a == join([a, PUBLIC])
    assert join([a, b]).level >= max(a.level, b.level) and join([a, b]).sources >= a.sources | b.sources
    assert join([a, b]).selections == a.selections | b.selections and join([a, b]).exposed == (a.exposed or b.exposed)
    if a.level is b.level is Class.PRIVATE and a.rows != b.rows:
        assert join([a, b]).rows is None


def test_what_is_private():
    assert private("icu").private and not PUBLIC.private and not join([]).private
    assert join([PUBLIC, private("icu"), private("lab")]).sources == {"icu", "lab"}
    assert not Label(Class.DP, frozenset({"icu"})).private and Label(Class.AGG, frozenset({"icu"})).private
    assert Label(Class.DP, frozenset(), shared=True).private


def test_a_blind_label_has_no_rows_and_all_the_rest():
    seen = private("icu", ROWS[0])
    assert blind(seen) == private("icu") and blind(PUBLIC) is PUBLIC and seen.selections == NONE
