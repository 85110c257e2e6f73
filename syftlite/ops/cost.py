"""Cost rules: what an operator will allocate and compute, from its operands' specs, before it runs.

    kind        work (elementary operations)                       workspace (bytes beyond the result)
    matmul      result elements x contracted size                  -
    conv        result elements x weight elements / out channels   operands of torch's int and slow paths: 2 x unfolded input
    sort        elements x 16                                      2 x operand
    view        0                                                  -
    all others  elements read and written                          -
"""

from __future__ import annotations

from typing import Any, NamedTuple

from syftlite.ops.infer import Specs
from syftlite.ops.operator import Kind, Operator
from syftlite.ops.spec import Spec

QUICK = 1 << 15
"""Work below which an operator takes microseconds: such messages run on the event loop's thread."""


class Cost(NamedTuple):
    """``work`` in elementary operations, ``nbytes`` that the operator may hold at its peak, result included."""

    work: int
    nbytes: int


def _walk(values: Any) -> list[Spec]:
    found: list[Spec] = []
    for value in values:
        if type(value) is Spec:
            found.append(value)
        elif type(value) is list or type(value) is tuple:
            found += _walk(value)
    return found


def cost(operator: Operator, operands: list[Any], results: Specs) -> Cost:
    """The cost of running ``operator`` on ``operands`` (a `Spec` for each tensor) with these ``results``."""
    reads, writes = _walk(operands), _walk([results])
    result = sum(s.elements for s in writes)
    nbytes = sum(s.nbytes for s in writes)
    kind = operator.kind
    if kind is Kind.VIEW:
        return Cost(0, 0)
    if kind is Kind.MATMUL:
        return Cost(result * max((s.shape[-1] for s in reads if s.shape), default=1), nbytes)
    if kind is Kind.CONV:
        weight = operands[[p.name for p in operator.parameters].index("weight")]
        window = max(1, weight.elements // max(weight.shape[0], 1))
        biggest = max([*reads, *writes], key=lambda s: s.elements)
        return Cost((result + reads[0].elements) * window, nbytes + 2 * biggest.nbytes * min(window, 1024))
    touched = result + sum(s.elements for s in reads)
    if kind is Kind.SORT:
        return Cost(touched * 16, nbytes + 2 * sum(s.nbytes for s in reads))
    return Cost(touched, nbytes)
