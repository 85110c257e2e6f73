"""Train on a hospital's data without seeing a row of it, and get the model when the hospital says yes.

    python examples/breast_cancer.py            25 epochs; writes breast_cancer.png
    python examples/breast_cancer.py --help

The hospital runs a node in a process of its own: scikit-learn's breast cancer data, 455 patients with 30 measurements each, PRIVATE there.
Alice, in this process, finds it by its tag, trains a network on it, and is refused every value that she could read it from. She asks for
the weights; the hospital approves with `syftlite approve`; she tests the model on 114 patients of her own. The same training in
plain torch, which needs the rows here, comes out the same.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from arguments import at_least, picture
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from safetensors.torch import save_file
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from torch import nn

import syftlite as sy

console = Console(highlight=False)
BATCH = 65


@dataclass
class Outcome:
    """What the demo found; accuracies are of the held-out patients."""

    accuracy: float
    accuracy_in_plain_torch: float
    accuracy_of_the_commoner_answer: float
    losses: list[float]
    losses_in_plain_torch: list[float]
    largest_difference_of_a_weight: float
    refusals: dict[str, str]
    seconds: dict[str, float]


# -- one program, wherever its tensors are


def network() -> nn.Sequential:
    """30 measurements in; the logit of "malignant" out."""
    return nn.Sequential(nn.Linear(30, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 1))


def train(model: nn.Module, X: torch.Tensor, y: torch.Tensor, epochs: int) -> torch.Tensor:
    """Fit ``model`` to ``X`` (n, 30) and ``y`` (n,). Returns each epoch's mean loss, (epochs,). The same lines here and at a worker."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.002, weight_decay=1e-3)
    curve = []
    for _ in range(epochs):
        losses = []
        for start in range(0, len(X), BATCH):
            rows = slice(start, start + BATCH)
            loss = nn.functional.binary_cross_entropy_with_logits(model(X[rows]).squeeze(1), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        curve.append(torch.stack(losses).mean())
    return torch.stack(curve)


def accuracy(model: nn.Module, X: torch.Tensor, y: torch.Tensor) -> float:
    """The share of right answers."""
    with torch.no_grad():
        return ((model(X).squeeze(1) > 0).float() == y).float().mean().item()


# -- the hospital


def prepare(folder: Path, X: np.ndarray, y: np.ndarray) -> Path:
    """The hospital standardises its patients' data, and says what is PRIVATE. Returns its node's settings."""
    mean, scale = X.mean(axis=0), X.std(axis=0)
    rows = torch.tensor((X - mean) / scale, dtype=torch.float32)
    save_file({"X": rows, "y": torch.tensor(y, dtype=torch.float32)}, folder / "patients.safetensors")
    np.save(folder / "scaling.npy", np.stack([mean, scale]))
    settings = folder / "hospital.toml"
    settings.write_text("""
id = "hospital"
port = 0

[[data]]
file = "patients.safetensors"
private = true
tags = ["#breast-cancer"]
description = "455 patients, standardised"

[[data]]
file = "scaling.npy"
private = false
tags = ["#scaling"]
description = "mean and deviation of each column"
""")
    return settings


class Hospital:
    """The data owner, by the commands that it types."""

    def __init__(self, folder: Path) -> None:
        width = str(min(console.width, 120))
        self.environment = {**os.environ, "SYFTLITE_HOME": str(folder / "home"), "COLUMNS": width, "OMP_NUM_THREADS": "1"}
        if console.is_terminal:
            self.environment["FORCE_COLOR"] = "1"

    def _command(self, *words: str) -> list[str]:
        console.print(f"[dim]hospital $[/] [bold]syftlite {escape(shlex.join(words))}[/]", soft_wrap=True)
        return [sys.executable, "-m", "syftlite.cli", *words]

    def run(self, *words: str) -> str:
        """Run ``syftlite words`` to its end and show what it prints. Returns that."""
        done = subprocess.run(self._command(*words), env=self.environment, stdout=subprocess.PIPE, text=True, check=True)
        console.print(Text.from_ansi(done.stdout.rstrip()))
        return done.stdout.strip()

    @contextmanager
    def node(self, settings: Path) -> Iterator[str]:
        """Start the node; gives its address; stops it at the end."""
        command = self._command("worker", "start", "--config", settings.name)
        process = subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE, text=True, cwd=settings.parent)
        assert process.stdout is not None
        uri = ""
        try:
            for line in process.stdout:
                text = Text.from_ansi(line.rstrip())
                console.print(text, soft_wrap=True)
                if "listens on" in text.plain:
                    uri = text.plain.split()[-1]
                if "Ctrl-C" in text.plain:
                    break
            else:
                raise RuntimeError(f"the node ended with code {process.wait()}")
            yield uri
        finally:
            process.terminate()
            process.wait()
            process.stdout.close()


# -- alice


def attempts(model: nn.Module, X: torch.Tensor, y: torch.Tensor) -> dict[str, str]:
    """Try to read what the rows could be told from. Returns {attempt: the refusal}."""
    first = next(model.parameters())
    loss = nn.functional.binary_cross_entropy_with_logits(model(X[:1]).squeeze(1), y[:1])
    tries: dict[str, Callable[[], object]] = {
        "a row: X[0]": lambda: X[0].get(),
        "a slice, times one: X[:5] * 1": lambda: (X[:5] * 1).get(),
        "one patient's gradient": lambda: torch.autograd.grad(loss, first)[0].get(),
    }
    refusals = {}
    for name, read in tries.items():
        try:
            refusals[name] = f"NOT REFUSED: {read()}"
        except sy.errors.GetNotPermittedError as refusal:
            refusals[name] = str(refusal)
    return refusals


def show(refusals: dict[str, str]) -> None:
    """Print what was refused."""
    table = Table("alice tries to read", "the hospital's node answers", header_style="dim")
    for attempt, refusal in refusals.items():
        table.add_row(escape(attempt), Text(refusal, "red"))
    console.print(table)


def draw(outcome: Outcome, path: Path) -> None:
    """Draw the loss curves and the accuracies to ``path``."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    blue, orange, gray = "#2563eb", "#f59e0b", "#6b7280"
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), width_ratios=(3, 2), layout="constrained")
    epochs = range(1, len(outcome.losses) + 1)
    dot = "o" if len(epochs) == 1 else ""
    left.plot(epochs, outcome.losses, color=blue, linewidth=4, alpha=0.45, marker=dot, markersize=10, label="at the hospital's node")
    left.plot(epochs, outcome.losses_in_plain_torch, color=orange, linewidth=1.6, linestyle="--", marker=dot, label="plain torch")
    left.set(xlabel="epoch", ylabel="training loss (cross-entropy)", ylim=(0, None), title="The same training, with and without the rows")
    left.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    left.legend(frameon=False)
    names = ["at the\nnode", "plain\ntorch", "always\nbenign"]
    values = [outcome.accuracy, outcome.accuracy_in_plain_torch, outcome.accuracy_of_the_commoner_answer]
    bars = right.bar(names, [100 * value for value in values], color=[blue, orange, gray], width=0.6)
    right.bar_label(bars, fmt="%.1f%%", padding=-18, color="white", fontweight="bold")
    right.set(ylim=(0, 103), yticks=range(0, 101, 25), ylabel="right answers (%)", title="114 patients of alice's own")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.25)
        axes.set_axisbelow(True)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> Outcome:
    """Run the demo."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--epochs", type=at_least(1), default=25)
    options.add_argument("--plot", type=picture, default=Path("breast_cancer.png"))
    chosen = options.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="syftlite-demo-") as folder:
        outcome = play(Path(folder), chosen.epochs)
    draw(outcome, chosen.plot)
    report(outcome, chosen.plot)
    return outcome


def play(folder: Path, epochs: int) -> Outcome:
    """Both parts, the hospital's and alice's."""
    began = time.perf_counter()
    bunch = load_breast_cancer()
    patients, own, diagnoses, own_y = train_test_split(bunch.data, 1.0 - bunch.target, test_size=114, random_state=0, stratify=bunch.target)
    hospital = Hospital(folder)
    seconds: dict[str, float] = {}

    console.rule("[bold]the hospital starts its node, and lets alice in", align="left")
    with hospital.node(prepare(folder, patients, diagnoses)) as uri:
        at = ("--node", uri.removeprefix("ws://"))
        token = hospital.run("token", "new", "alice", "--node", "hospital", "--days", "1")
        seconds["node and token"] = time.perf_counter() - began

        console.rule("[bold]alice trains where the data is", align="left")
        node = sy.connect(uri, token=token)
        (X,), (y,), (scaling,) = node.search("#breast-cancer", "#X"), node.search("#breast-cancer", "#y"), node.search("#scaling")
        console.print(f"X = {X!r}\ny = {y!r}", soft_wrap=True, markup=False)
        mean, scale = scaling.get().numpy()  # public: alice may read it
        own_X = torch.tensor((own - mean) / scale, dtype=torch.float32)
        own_target = torch.tensor(own_y, dtype=torch.float32)

        started = time.perf_counter()
        torch.manual_seed(0)
        model = network().send(node)
        curve = train(model, X, y, epochs)
        node.objects_count()  # whatever is read waits for all that was asked for before: now it is trained
        seconds["training at the node"] = time.perf_counter() - started
        refusals = attempts(model, X, y)
        show(refusals)
        requests = [model.request(reason="the trained network, for study 12"), curve.request(reason="its loss by epoch, for the plot")]
        console.print(f"alice asks for the weights and the loss curve: requests {requests[0].id} and {requests[1].id}\n")

        console.rule("[bold]the hospital decides", align="left")
        started = time.perf_counter()
        hospital.run("requests", *at)
        hospital.run("approve", requests[0].id, requests[1].id, "--note", "good luck", *at)
        seconds["three commands"] = time.perf_counter() - started

        console.rule("[bold]alice gets the model, and tests it on patients of her own", align="left")
        for request in requests:
            request.wait()
        model.get()
        losses = curve.get().tolist()
        node.close()

    # What only someone who has the rows could do: the same lines, here.
    started = time.perf_counter()
    rows = torch.tensor((patients - patients.mean(axis=0)) / patients.std(axis=0), dtype=torch.float32)
    torch.manual_seed(0)
    plain = network()
    plain_losses = train(plain, rows, torch.tensor(diagnoses, dtype=torch.float32), epochs).tolist()
    seconds["training in plain torch"] = time.perf_counter() - started
    seconds["all of it"] = time.perf_counter() - began
    return Outcome(
        accuracy=accuracy(model, own_X, own_target),
        accuracy_in_plain_torch=accuracy(plain, own_X, own_target),
        accuracy_of_the_commoner_answer=max(own_y.mean(), 1 - own_y.mean()),
        losses=losses,
        losses_in_plain_torch=plain_losses,
        largest_difference_of_a_weight=max(
            (a - b).abs().max().item() for a, b in zip(model.parameters(), plain.parameters(), strict=True)
        ),
        refusals=refusals,
        seconds=seconds,
    )


def report(outcome: Outcome, plot: Path) -> None:
    """Print the outcome."""
    table = Table("", "at the hospital's node", "plain torch, from the rows", header_style="dim")
    table.add_row("right answers", f"[bold]{outcome.accuracy:.1%}", f"[bold]{outcome.accuracy_in_plain_torch:.1%}")
    table.add_row("loss, last epoch", f"{outcome.losses[-1]:.6f}", f"{outcome.losses_in_plain_torch[-1]:.6f}")
    at_node, here = outcome.seconds["training at the node"], outcome.seconds["training in plain torch"]
    table.add_row("training", f"{at_node:.2f} s", f"{here:.2f} s")
    console.print(table)
    console.print(f"largest difference of a weight: {outcome.largest_difference_of_a_weight:.1e}")
    console.print(f"wrote {plot}; {outcome.seconds['all of it']:.1f} s in all\n", markup=False)


if __name__ == "__main__":
    torch.set_num_threads(1)  # a network this small is slower on several
    main()
