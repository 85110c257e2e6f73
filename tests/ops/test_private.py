"""PRIVATE sticks to every result and every written operand of every operator, and a check that could not fail would be noticed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
from bench import Bench
from placing import walk
from samples import Sample, samples

from syftlite.engine import executor
from syftlite.engine.marks import Mark
from syftlite.errors import GetNotPermittedError, ProtocolError, code_of
from syftlite.ops.infer import depends_on_values
from syftlite.ops.operator import Operator, Result
from syftlite.ops.table import BY_FUNC
from syftlite.policy.labels import PUBLIC
from syftlite.wire import messages as m

OPERATORS = list(BY_FUNC.values())
REFUSED = code_of(GetNotPermittedError())


def leaks(operator: Operator, sample: Sample, which: int, flaw: Any = nullcontext) -> list[str]:
    """What of a call with tensor operand ``which`` PRIVATE a scientist could read. ``flaw``: a context in which the call runs."""
    bench = Bench()
    position = iter(range(1000))
    args, kwargs = bench.wire(operator, sample, lambda t: bench.put_private(t) if next(position) == which else bench.put(t))
    if operator.dynamic:
        answer = bench.say(m.ASK, 1, operator.number, args, kwargs, () if operator.result is Result.VALUE else [bench.id()])
        assert answer is not None
        refused = [] if answer[:3] == (m.ERROR, 1, REFUSED) else [f"ASK told {answer}"]
        if depends_on_values(operator, [bench.stored(a) for a in args]):
            with pytest.raises(ProtocolError, match="ASK"):
                bench.run(operator, args, kwargs)
            return refused
    targets = bench.written(operator, args, kwargs)
    with flaw():
        results = bench.run(operator, args, kwargs)
    found = []
    for number in (*results, *targets):
        mark = bench.cell(number).mark
        if mark is not None and mark.poison is not None:
            found.append(f"failed: {mark.poison.text}")
        elif not bench.cell(number).label.private or bench.ask_value(number)[:1] + bench.ask_value(number)[2:3] != (m.ERROR, REFUSED):
            found.append(f"{number} is {bench.cell(number).label}")
    if not operator.wrote(args):
        stats = bench.ids([v for name, v in operator.named(args, kwargs or {}).items() if name in operator.writes])
        found += [f"{n} was not written" for n in stats if bench.cell(n).label.private and n != bench.ids([args, kwargs or {}])[which]]
    return found


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda o: o.name.removeprefix("aten."))
def test_private_sticks(operator: Operator) -> None:
    for sample in (samples(operator)[0], samples(operator)[-1]):
        for which, _ in enumerate(walk(sample.args, sample.kwargs)):
            assert leaks(operator, sample, which) == []


@pytest.mark.parametrize("flaw", ["join forgets", "results unmarked", "targets unmarked"])
def test_the_check_above_notices_a_dropped_label(flaw: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = executor._store

    def careless(session: Any, operator: Any, operands: Any, outs: Any, out: Any, mark: Any) -> None:
        if flaw == "targets unmarked":
            operands.written = None
        store(session, operator, operands, outs, out, None if flaw == "results unmarked" else mark)

    @contextmanager
    def planted() -> Iterator[None]:
        with monkeypatch.context() as patch:
            if flaw == "join forgets":
                patch.setattr(executor, "_labelled", lambda *given: Mark(PUBLIC, None))
                patch.setattr(executor, "join", lambda labels: PUBLIC)
            else:
                patch.setattr(executor, "_store", careless)
            yield

    noticed = []
    for operator in OPERATORS:
        sample = samples(operator)[0]
        last = len(list(walk(sample.args, sample.kwargs))) - 1
        fresh = operator.result is Result.ONE and not operator.aliases and not operator.dynamic and last >= 0
        if (operator.writes and last > 0) if flaw == "targets unmarked" else fresh:
            noticed.append((operator, leaks(operator, sample, last, planted)))
    assert len(noticed) > 20 and all(found for _, found in noticed), [o for o, found in noticed if not found]
