"""SCAN: a program replayed once for each row of some of its operands, by one message; what each replay returns is stacked.

    over = (0,)        operand 0 is (n, ...): replay i gets row i of it; all other operands are the same each time
    results            (n, ...) each

The rows, the replays and the stacks are OPs of the executor, so labels, cost and ownership need no rule of their own. Its ids, behind those
of one replay: a row for each operand of ``over``, then n for each result.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from syftlite._torch import aten
from syftlite.engine import executor
from syftlite.engine.admission import Deferred
from syftlite.engine.marks import Mark, Poison
from syftlite.engine.plans import Program, replay
from syftlite.engine.session import Session
from syftlite.errors import ProtocolError, QuotaExceededError, code_of
from syftlite.ops.table import BY_FUNC
from syftlite.policy.labels import blind, join
from syftlite.wire import messages as m

SELECT, STACK = (BY_FUNC[func].number for func in (aten.select.int, aten.stack.default))


def scan(session: Session, program: Program, operands: Sequence[int], over: Sequence[int], base: int, outs: Sequence[int]) -> None:
    """Replay ``program``, writing its operands as it goes. Raises `ProtocolError` for a malformed message; what fails poisons ``outs``."""
    if session.quick:
        raise Deferred
    if not program.complete or not over or len(outs) != len(program.results) or not all(0 <= place < len(operands) for place in over):
        raise ProtocolError("SCAN names operands or results that its program does not have")
    for out in outs:
        session.claim(out)
    first = base + len(program.made)
    rows = [first + 1 + at for at in range(len(over))]
    try:
        steps = _length(session, [operands[place] for place in over])
        _room(session, steps * len(outs) + len(program.made))
    except (LookupError, ValueError, QuotaExceededError) as error:
        _refuse(session, operands, outs, error)
        return
    behind = first + len(over) + 1
    made = [range(behind + at * steps, behind + (at + 1) * steps) for at in range(len(outs))]
    given = list(operands)
    try:
        for step in range(steps):
            if session.gone:
                raise ProtocolError("the client is gone")
            for row, place in zip(rows, over, strict=True):
                executor.run(session, SELECT, (operands[place], 0, step), None, row)
                given[place] = row
            replay(session, program, given, base, [results[step] for results in made])
            for row in rows:
                session.drop(row)
        for out, results in zip(outs, made, strict=True):
            executor.run(session, STACK, (list(results), 0), None, out)
    finally:
        for number in [*rows, *[result for results in made for result in results]]:
            session.drop(number)


def _refuse(session: Session, operands: Sequence[int], outs: Sequence[int], error: Exception) -> None:
    """Have ``outs`` tell why nothing was replayed, to whoever may read what it would have been made of."""
    label = blind(join(session.objects[number][1].label for number in operands if number in session.objects))
    poison = Poison(code_of(error), str(error), 0, session.executed)
    for out in outs:
        session.put(out, torch.empty(0), Mark(label, poison))


def _room(session: Session, count: int) -> None:
    """Raise `QuotaExceededError` unless ``count`` more objects fit: results stay until they are stacked."""
    if len(session.objects) + count > session.max_objects:
        most = f"{session.max_objects:,} objects are stored at most"
        raise QuotaExceededError(f"this scan makes {count:,} values before they are stacked, and {most}: scan fewer rows at once")


def _length(session: Session, numbers: Sequence[int]) -> int:
    """How many rows these objects have in common; one that has no value leads to one step, which fails as it should."""
    lengths = {len(tensor) if tensor is not None and tensor.dim() else 1 for tensor, _ in map(session.look_up, numbers)}
    if len(lengths) > 1 or not 0 < min(lengths) <= m.SCAN_STEPS:
        raise ValueError(f"a scan goes over operands of equally many rows, 1 to {m.SCAN_STEPS:,}, and these have {sorted(lengths)}")
    return lengths.pop()
