"""The provider of a group: what its session's DEAL and REPLAY do, from shapes alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from syftlite.engine.groups import FixedWeight, Member, Static, placing, priced
from syftlite.engine.plans import Program
from syftlite.engine.session import Session
from syftlite.errors import Misuse, ProtocolError
from syftlite.mpc.dealer import Dealer
from syftlite.mpc.kernel import WeightSpec
from syftlite.mpc.replicated_kernels import REPLICATED


class Provider(Member):
    """The provider: deals what holders ask for, by shape alone. ``sink`` (a correlation's number, kind, args) sees to it that it is dealt,
    and that the last holder has what it needs of it."""

    def __init__(self, dealer: Dealer, sink: Callable[..., None], close: Callable[[str], None]) -> None:
        super().__init__(close)
        self.dealer, self.sink = dealer, sink
        self.number = 0

    def replay(self, session: Session, program: Program, operands: Sequence[int], base: int) -> None:
        """Deal for a whole program over shares."""
        if not program.complete or len(operands) != program.arity:
            raise ProtocolError(f"REPLAY gives {len(operands)} operands to a program of another form")
        shift = base - program.arity
        place = placing(operands, shift)

        for step in program.kernels:
            given = [place(o) if type(o) is int else o for o in step.operands]
            self.deal(session, step.kernel, given, step.static, [place(out) for out in step.outs])
        for relative in program.made:
            session.drop(relative + shift)

    def deal(self, session: Session, number: int, operands: Sequence[Any], static: Static, outs: Sequence[int]) -> None:
        """Deal for one kernel. ``operands``: shapes, and ids of fixed weights."""
        self.check()
        try:
            if number > REPLICATED:
                raise Misuse(f"kernel {number} is of replicated shares, which have no provider")
            specs: list[Any] = [session.weights[o].weight if type(o) is int else tuple(o) for o in operands]
            planned = priced(session, number, specs, static, (len(self.dealer.sources) + 1) // 2)  # a holder's has room for two parts
            for fixed in [session.weights[o] for o in operands if type(o) is int]:
                session.charge(fixed.grown(self.dealer.nbytes(fixed.weight)))
            first = self.number
            for kind, args in planned.requests:
                self.sink(self.number, kind, *args)
                self.number += 1
            for out, result in zip(outs, planned.results, strict=True):
                if isinstance(result, WeightSpec):
                    made = WeightSpec(result.shape, first + result.number)
                    session.charge(nbytes := self.dealer.nbytes(made))
                    session.weights[session.claim(out)] = FixedWeight(made, nbytes, partial(self.dealer.forget, made.number))
        except ProtocolError:
            raise
        except Exception as error:
            self.leave(f"the provider failed: {error}")
