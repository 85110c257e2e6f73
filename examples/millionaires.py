"""The millionaires' problem: who is richer, without either telling what they own?

    python examples/millionaires.py
    python examples/millionaires.py --wealth 5000000 4999999.5
    python examples/millionaires.py --real              alice, bob and carol as nodes in processes of their own

Each fortune is split into two random shares, one at alice and one at bob. They compare shares, with correlated randomness from carol, who
sees neither. One bit is revealed: the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from arguments import finite
from parties import options, parties

import syftlite as sy


class Outcome(NamedTuple):
    """Whether the first is richer, and what it took."""

    first_is_richer: bool
    rounds: int
    sent: int


def compare(first: float, second: float, real: bool = False) -> Outcome:
    """Compare two fortunes, to a penny and a bit: multiples of 2**-7."""
    with parties(real) as (alice, bob, carol):
        among = {"workers": (alice, bob), "crypto_provider": carol, "precision_fractional": 7}
        a_shared = torch.tensor(first, dtype=torch.float64).encrypt(**among)
        b_shared = torch.tensor(second, dtype=torch.float64).encrypt(**among)
        with sy.mpc.count() as cost:
            richer = a_shared > b_shared
        return Outcome(bool(richer.decrypt()), cost.rounds, cost.sent)


def main(arguments: Sequence[str] | None = None) -> Outcome:
    """The program."""
    parser = options(__doc__)
    parser.add_argument("--wealth", type=finite, nargs=2, default=[3_200_000.0, 4_700_000.0], metavar=("FIRST", "SECOND"))
    chosen = parser.parse_args(arguments)
    outcome = compare(*chosen.wealth, real=chosen.real)
    print("the first is richer" if outcome.first_is_richer else "the first is not richer")
    print(f"{outcome.rounds} rounds between alice and bob, {outcome.sent} bytes each way; each sent one more share, of the answer, here")
    return outcome


if __name__ == "__main__":
    main()
