"""Logistic regression on rows and answers that nobody sees: fit, predict and summary on shares, beside the same in the open.

    python examples/encrypted_logistic.py            569 tumours of scikit-learn's breast cancer data
    python examples/encrypted_logistic.py --steps 20 --rows 200
    python examples/encrypted_logistic.py --real     alice, bob and carol as nodes in processes of their own

The coefficients stay shared: `predict` answers for rows that nobody sees, `summary` reveals the coefficients, their standard errors and
z values, and nothing else. The errors come from the inverse of X' W X, W = p (1 - p): it is that of the coefficients' covariance
(Hosmer & Lemeshow, "Applied logistic regression", section 2.4), and only this matrix, of features by features, is revealed for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from arguments import at_least
from parties import options, parties, progress

import syftlite as sy


class Row(NamedTuple):
    """One coefficient of a summary."""

    name: str
    coefficient: float
    error: float
    z: float


class LogisticRegression:
    """By gradient descent with momentum and a ridge. ``place`` shares a tensor, or leaves it as it is: the same lines for both."""

    def __init__(self, place: Callable[[torch.Tensor], Any], *, steps: int = 60, rate: float = 1.0, ridge: float = 1e-3) -> None:
        self.place, self.steps, self.rate, self.ridge = place, steps, rate, ridge
        self.weights: Any = None

    def fit(self, x: Any, y: Any, advance: Callable[[], None] = lambda: None) -> LogisticRegression:
        """(n, d) rows and (n, 1) answers of 0 and 1."""
        self.weights = self.place(torch.zeros(x.shape[1], 1))
        moving: Any = self.weights * 0
        for _ in range(self.steps):
            gradient = x.t() @ (self.probabilities(x) - y) / len(x) + self.weights * self.ridge
            moving = moving * 0.9 + gradient
            self.weights = self.weights - moving * (self.rate * 0.1)
            advance()
        return self

    def probabilities(self, x: Any) -> Any:
        """(n, 1): that the answer is 1."""
        return (x @ self.weights).sigmoid()

    def predict(self, x: Any) -> Any:
        """(n, 1): 1 where that is likelier."""
        return x @ self.weights > 0

    def summary(self, x: Any, names: Sequence[str]) -> list[Row]:
        """Coefficients with their standard errors."""
        p = self.probabilities(x)
        information = _open(x.t() @ (x * (p * (1 - p)))) + len(x) * self.ridge * torch.eye(x.shape[1])
        errors = torch.linalg.inv(information.double()).diagonal().sqrt()
        coefficients = _open(self.weights).flatten()
        return [Row(n, w, e, w / e) for n, w, e in zip(names, coefficients.tolist(), errors.tolist(), strict=True)]


def _open(value: Any) -> torch.Tensor:
    found: torch.Tensor = value.decrypt() if isinstance(value, sy.FixedPrecisionTensor) else value
    return found


class Outcome(NamedTuple):
    """Of both fits: what part of the test rows they tell right, and their summaries; seconds on shares."""

    accuracy: float
    plain_accuracy: float
    summary: list[Row]
    plain_summary: list[Row]
    seconds: float


class Data(NamedTuple):
    """Standardised features, the last of them 1, and answers."""

    x: torch.Tensor
    y: torch.Tensor
    names: list[str]


def tumours(rows: int | None, features: int) -> Data:
    """The first features of scikit-learn's breast cancer data, in one fixed order of rows."""
    try:
        from sklearn.datasets import load_breast_cancer
    except ImportError:
        raise SystemExit('the data come with scikit-learn: pip install "syftlite[demo]"') from None
    bunch = load_breast_cancer()
    order = torch.randperm(len(bunch.data), generator=torch.Generator().manual_seed(0))[:rows]
    x, y = torch.as_tensor(bunch.data).float()[order, :features], torch.as_tensor(bunch.target).float()[order].unsqueeze(1)
    x = torch.cat([(x - x.mean(0)) / x.std(0), torch.ones(len(x), 1)], 1)
    return Data(x, y, [*map(str, bunch.feature_names[:features]), "constant"])


def compare(data: Data, steps: int, workers: Sequence[Any]) -> Outcome:
    """Both fits, to three quarters of the rows; the rest is predicted."""
    alice, bob, carol = workers

    def secret(tensor: torch.Tensor) -> Any:
        return tensor.fix_precision().share(alice, bob, crypto_provider=carol)

    half, rest = len(data.x) * 3 // 8, len(data.x) * 3 // 4
    x, y, test = data.x[:rest], data.y[:rest], data.x[rest:]
    began = time.perf_counter()
    rows = torch.cat([secret(x[:half]), secret(x[half:])])  # of two hospitals
    answers = torch.cat([secret(y[:half]), secret(y[half:])])
    model = LogisticRegression(secret, steps=steps)
    with progress(steps, "fitting") as advance:
        model.fit(rows, answers, advance)
    predicted = _open(model.predict(secret(test)))
    summary = model.summary(rows, data.names)
    seconds = time.perf_counter() - began
    plain = LogisticRegression(lambda t: t, steps=steps).fit(x, y)
    scores = [float((p.float() == data.y[rest:]).float().mean()) for p in (predicted, plain.predict(test))]
    return Outcome(scores[0], scores[1], summary, plain.summary(x, data.names), seconds)


def main(arguments: Sequence[str] | None = None) -> Outcome:
    """The program."""
    parser = options(__doc__)
    parser.add_argument("--rows", type=at_least(3), help="the first so many rows only")
    parser.add_argument("--features", type=at_least(0), default=10)
    parser.add_argument("--steps", type=at_least(0), default=60)
    chosen = parser.parse_args(arguments)
    data = tumours(chosen.rows, chosen.features)
    with parties(chosen.real) as workers:
        outcome = compare(data, chosen.steps, workers)
    print(f"{len(data.x)} rows, {chosen.steps} steps, on shares in {outcome.seconds:.2f} s")
    print(f"{'':24}{'on shares':>11}{'error':>9}{'z':>8}{'in the open':>14}{'error':>9}{'z':>8}")
    for a, b in zip(outcome.summary, outcome.plain_summary, strict=True):
        print(f"{a.name:24}{a.coefficient:11.4f}{a.error:9.4f}{a.z:8.2f}{b.coefficient:14.4f}{b.error:9.4f}{b.z:8.2f}")
    print(f"of the test rows told right: {outcome.accuracy:.1%} on shares, {outcome.plain_accuracy:.1%} in the open")
    return outcome


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
