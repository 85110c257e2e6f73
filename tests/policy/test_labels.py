"""The join: commutative, associative, idempotent, and never below an operand."""

from hypothesis import given
from hypothesis import strategies as st

from syftlite.policy.labels import PUBLIC, Class, Label, join, private

labels = st.builds(Label, st.sampled_from(Class), st.frozensets(st.sampled_from("abc")))


@given(labels, labels, labels)
def test_the_join_is_a_join(a, b, c):
    assert join([a, b]) == join([b, a])
    assert join([a, join([b, c])]) == join([join([a, b]), c]) == join([a, b, c])
    assert join([a, a]) == a == join([a, PUBLIC])
    assert join([a, b]).level >= max(a.level, b.level) and join([a, b]).sources >= a.sources | b.sources


def test_what_is_private():
    assert private("icu").private and not PUBLIC.private and not join([]).private
    assert join([PUBLIC, private("icu"), private("lab")]).sources == {"icu", "lab"}
