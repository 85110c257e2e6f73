"""Linear regression on rows and targets that nobody sees: fitted on shares, and compared with the fit in the open.

    python examples/encrypted_regression.py                 442 patients of scikit-learn's diabetes data
    python examples/encrypted_regression.py --rows 100 --steps 50
    python examples/encrypted_regression.py --real          alice, bob and carol as nodes in processes of their own

Two hospitals hold rows each. Each shares its own with alice and bob; the rows are put together as shares, and gradient descent runs on
them. Only the coefficients are reconstructed, at the end. Rows are standardised before they are shared, by means that both hospitals know.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from arguments import at_least, finite
from parties import options, parties, progress


class Outcome(NamedTuple):
    """Coefficients (features + 1) from shares, the same steps in the open, least squares, and R^2 of the first and the last."""

    encrypted: torch.Tensor
    plain: torch.Tensor
    exact: torch.Tensor
    r2: float
    r2_exact: float
    seconds: float


def diabetes(rows: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Standardised features (rows, 11), the last of them 1, and standardised targets (rows, 1)."""
    try:
        from sklearn.datasets import load_diabetes
    except ImportError:
        raise SystemExit('the data come with scikit-learn: pip install "syftlite[demo]"') from None
    bunch = load_diabetes()
    x, y = torch.as_tensor(bunch.data).float()[:rows], torch.as_tensor(bunch.target).float()[:rows].unsqueeze(1)
    x, y = (x - x.mean(0)) / x.std(0), (y - y.mean()) / y.std()
    return torch.cat([x, torch.ones(len(x), 1)], 1), y


def descend(x: Any, y: Any, weights: Any, steps: int, rate: float, advance: Any = lambda: None) -> Any:
    """Gradient descent on the mean squared error: the same lines for shares and in the open."""
    for _ in range(steps):
        weights = weights - x.t() @ (x @ weights - y) / len(x) * rate
        advance()
    return weights


def r2(x: torch.Tensor, y: torch.Tensor, weights: torch.Tensor) -> float:
    """The share of the targets' variance that ``weights`` explain."""
    return 1 - (((x @ weights - y) ** 2).sum() / ((y - y.mean()) ** 2).sum()).item()


def fit(x: torch.Tensor, y: torch.Tensor, alice: Any, bob: Any, carol: Any, steps: int, rate: float) -> Outcome:
    """Fit on shares, and in the open."""

    def secret(tensor: torch.Tensor) -> Any:
        return tensor.fix_precision().share(alice, bob, crypto_provider=carol)

    half = len(x) // 2
    began = time.perf_counter()
    rows = torch.cat([secret(x[:half]), secret(x[half:])])
    targets = torch.cat([secret(y[:half]), secret(y[half:])])
    with progress(steps, "fitting") as advance:
        weights = descend(rows, targets, secret(torch.zeros(x.shape[1], 1)), steps, rate, advance)
    encrypted = weights.get().decode()
    seconds = time.perf_counter() - began
    plain = descend(x, y, torch.zeros(x.shape[1], 1), steps, rate)
    exact = torch.linalg.lstsq(x, y).solution
    return Outcome(encrypted, plain, exact, r2(x, y, encrypted), r2(x, y, exact), seconds)


def main(arguments: Sequence[str] | None = None) -> Outcome:
    """The program."""
    parser = options(__doc__)
    parser.add_argument("--rows", type=at_least(2), help="the first so many patients only")
    parser.add_argument("--steps", type=at_least(0), default=200)
    parser.add_argument("--rate", type=finite, default=0.25)
    chosen = parser.parse_args(arguments)
    x, y = diabetes(chosen.rows)
    with parties(chosen.real) as (alice, bob, carol):
        outcome = fit(x, y, alice, bob, carol, chosen.steps, chosen.rate)
    print(f"{len(x)} rows, {chosen.steps} steps in {outcome.seconds:.2f} s")
    print(f"largest difference of a coefficient from the same steps in the open: {(outcome.encrypted - outcome.plain).abs().max():.1e}")
    print(f"R^2: {outcome.r2:.4f} on shares, {outcome.r2_exact:.4f} by least squares in the open")
    return outcome


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
