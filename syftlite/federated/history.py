"""What a federation has done: a row for each round, for people, for plots and for TensorBoard."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from syftlite.errors import ConfigurationError, DependencyError


@dataclass
class RoundResult:
    """One round. ``loss``: the clients' mean training loss, weighted by rows; None where no client's may be read. ``clients``: by name, of
    those in the aggregate. ``dropped``: by name, why not. ``metrics``: what the evaluation gave. ``spent``: by name, the epsilon that an
    owner's account has spent so far, where training is private. ``clipped``: by name, the share of a client's values that a secure sum cut
    to its ``clip``; no name where nothing was. ``evaluated``: by name, what the model is worth on each client's rows, if that was asked."""

    number: int
    loss: float | None
    clients: dict[str, float | None]
    seconds: float
    dropped: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    spent: dict[str, float] = field(default_factory=dict)
    clipped: dict[str, float] = field(default_factory=dict)
    evaluated: dict[str, dict[str, float]] = field(default_factory=dict)

    def __str__(self) -> str:
        told = [f"round {self.number}", f"{len(self.clients)} clients"]
        told += [f"loss {self.loss:.4f}"] if self.loss is not None else []
        told += [f"{name} {value:.4f}" for name, value in self.metrics.items()]
        told += [f"epsilon {max(self.spent.values()):.2f} spent"] if self.spent else []
        told += [f"up to {max(self.clipped.values()):.2%} of an update clipped"] if self.clipped else []
        told += [f"without {', '.join(f'{name} ({why})' for name, why in self.dropped.items())}"] if self.dropped else []
        return ", ".join(told) + f" in {self.seconds:.2f} s"


class History:
    """The rounds so far, in order."""

    def __init__(self, rounds: list[RoundResult] | None = None) -> None:
        self.rounds = rounds or []

    def append(self, result: RoundResult) -> None:
        """Add a round."""
        self.rounds.append(result)

    def __len__(self) -> int:
        return len(self.rounds)

    def __iter__(self) -> Iterator[RoundResult]:
        return iter(self.rounds)

    def __getitem__(self, at: int) -> RoundResult:
        return self.rounds[at]

    def series(self) -> dict[str, list[tuple[int, float]]]:
        """Curves by name: "loss", the metrics, "loss/CLIENT", "epsilon/CLIENT" and "evaluated METRIC/CLIENT"; each (round, value)."""
        curves: dict[str, list[tuple[int, float]]] = {}
        for r in self.rounds:
            values = {"loss": r.loss, **r.metrics, **{f"loss/{name}": loss for name, loss in r.clients.items()}}
            values |= {f"epsilon/{name}": spent for name, spent in r.spent.items()}
            values |= {f"evaluated {metric}/{name}": value for name, told in r.evaluated.items() for metric, value in told.items()}
            for name, value in values.items():
                if value is not None:
                    curves.setdefault(name, []).append((r.number, value))
        return curves

    def plot(self, path: str | Path) -> Path:
        """Draw the curves to an image file: the loss, thin lines for each client's, and the metrics on the right. Where training is
        private, what it has cost stands below."""
        if not self.rounds:
            raise ConfigurationError("there is nothing to draw yet: fit() first, this history has no rounds")
        figure_module = _needs("matplotlib.figure", "demo")
        curves = self.series()
        costs = {name: points for name, points in curves.items() if name.startswith("epsilon/")}
        losses = {name: points for name, points in curves.items() if name == "loss" or name.startswith("loss/")}
        figure = figure_module.Figure(figsize=(8, 7 if costs else 4.5), layout="constrained")
        left = figure.add_subplot(2 if costs else 1, 1, 1)
        right = left.twinx() if losses else left
        for name, points in losses.items():
            style = {"color": "black", "label": "training loss"} if name == "loss" else {"color": "grey", "linewidth": 0.5, "markersize": 3}
            left.plot(*zip(*points, strict=True), marker=".", **style)
        for name, points in curves.items():
            if "/" not in name and name not in losses:
                right.plot(*zip(*points, strict=True), linestyle="--", marker=".", label=name)
        if losses:
            left.set_ylabel("training loss (grey: each client's)")
        right.set_ylabel("evaluation")
        left.set_xlabel("round")
        left.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        if any(axes.get_legend_handles_labels()[1] for axes in figure.axes):
            figure.legend(loc="outside upper center", ncols=4)
        if costs:
            below = figure.add_subplot(2, 1, 2, sharex=left)
            for name, points in costs.items():
                below.plot(*zip(*points, strict=True), marker=".", label=name.removeprefix("epsilon/"))
            below.set(xlabel="round", ylabel="epsilon spent")
            below.legend()
        figure.savefig(path, dpi=120)
        return Path(path)

    def tensorboard(self, folder: str | Path) -> None:
        """Write the curves as a file of events that TensorBoard reads."""
        _needs("tensorboard", "tensorboard")
        writer = _needs("torch.utils.tensorboard", "tensorboard").SummaryWriter(str(folder))
        for name, points in self.series().items():
            for number, value in points:
                writer.add_scalar(name, value, number)
        writer.close()

    def as_rows(self) -> list[dict[str, Any]]:
        """Plain values, for a checkpoint."""
        return [asdict(r) for r in self.rounds]

    def __repr__(self) -> str:
        return "\n".join(["<History>", *map(str, self.rounds)])


def _needs(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise DependencyError(f'this needs {module.split(".")[0]}: pip install "syftlite[{extra}]"') from None


@contextmanager
def shown(rounds: int, wanted: bool) -> Iterator[Callable[[RoundResult], None]]:
    """A function to call after each round: on a terminal with rich installed it moves a bar."""
    try:
        from rich.console import Console
        from rich.progress import Progress
    except ImportError:
        yield lambda result: None
        return
    console = Console()
    if not wanted or not console.is_terminal:
        yield lambda result: None
        return
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("rounds", total=rounds)

        def advance(result: RoundResult) -> None:
            bar.console.print(str(result), highlight=False)
            bar.advance(task)

        yield advance
