"""XOR, learnt by a network whose data, targets and weights are all encrypted: the demo of 2017.

    python examples/xor_reservoir.py                       250 steps, two holders and a provider in this process
    python examples/xor_reservoir.py --decimal             at base 10 with three digits, as the demo had it
    python examples/xor_reservoir.py --real                alice, bob and carol as nodes in processes of their own

A reservoir of 256 random features makes XOR linear; the layer on top of it learns by gradient descent, on shares alone. The loss is opened
every 50 steps, and nothing else is. At three decimal digits an update of 0.4 units would be lost if it were rounded to the nearest:
truncation that rounds up with the right probability still learns.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from arguments import at_least
from parties import options, parties, progress

import syftlite as sy

INPUT = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
TARGET = [[0.0], [1.0], [1.0], [0.0]]
BANDS = {0: (2.0, 2.0), 50: (0.773, 1.123), 100: (0.318, 0.655), 150: (0.131, 0.384), 200: (0.054, 0.224)}
"""Between which losses 90% of 400 reservoirs have theirs, at each of these steps, in floats."""


class Outcome(NamedTuple):
    """The losses by step, the predictions at the end, and the seconds it took."""

    losses: dict[int, float]
    predictions: list[float]
    seconds: float


def reservoir(size: int = 256, seed: int = 0) -> torch.Tensor:
    """Random features (4, size) of the four inputs."""
    generator = torch.Generator().manual_seed(seed)
    return torch.relu(INPUT @ torch.randn(2, size, generator=generator))


def learn(features: torch.Tensor, alice: Any, bob: Any, carol: Any, steps: int = 250, rate: float = 1e-3, **scheme: int) -> Outcome:
    """Gradient descent on shares."""

    def secret(tensor: torch.Tensor) -> Any:
        return tensor.fix_precision(**scheme).share(alice, bob, crypto_provider=carol)

    data, target, model = secret(features), secret(sy.FloatTensor(TARGET)), secret(sy.zeros(features.shape[1], 1))
    losses = {}
    began = time.perf_counter()
    with progress(steps, "learning") as advance:
        for step in range(steps):
            pred = data.mm(model)
            grad = pred - target
            update = data.transpose(0, 1).mm(grad)
            model = model - update * rate
            if step % 50 == 0:
                losses[step] = grad.get().decode().abs().sum().item()
            advance()
    predictions = data.mm(model).get().decode().flatten().tolist()
    return Outcome(losses, predictions, time.perf_counter() - began)


def main(arguments: Sequence[str] | None = None) -> Outcome:
    """The program."""
    parser = options(__doc__)
    parser.add_argument("--decimal", action="store_true", help="base 10 and three digits, in place of 2**-16")
    parser.add_argument("--seed", type=int, default=0, help="of the reservoir")
    parser.add_argument("--steps", type=at_least(0), default=250)
    chosen = parser.parse_args(arguments)
    scheme = {"base": 10, "precision_fractional": 3} if chosen.decimal else {}
    with parties(chosen.real) as (alice, bob, carol):
        outcome = learn(reservoir(seed=chosen.seed), alice, bob, carol, chosen.steps, **scheme)
    for step, loss in outcome.losses.items():
        print(f"step {step:3}: loss {loss:.3f}")
    print("predictions:", *(round(p) for p in outcome.predictions), f"in {outcome.seconds:.2f} s")
    return outcome


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
