"""Samples, goals and figures: what a measurement is, when it is met, and how it is shown.

    sample in turns:  A B A B ...     a shared machine drifts, so each of ours is compared with the peer's beside it
    ratio          =  median over turns of (ours / peer)  or  (peer / ours), as the goal says
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

Run = Callable[[], float]
"""Measures once and returns the figure."""


def in_turns(repeats: int, *runs: Run) -> list[list[float]]:
    """``repeats`` samples of each run, taken A B A B, after one of each that does not count."""
    samples: list[list[float]] = [[] for _ in runs]
    for turn in range(repeats + 1):
        for run, taken in zip(runs, samples, strict=True):
            value = run()
            if turn:
                taken.append(value)
    return samples


@dataclass(frozen=True)
class Goal:
    """``sense`` is "<=" or ">="; ``suffix`` says what the bound counts."""

    sense: str
    bound: float
    suffix: str = ""

    def met(self, value: float) -> bool:
        """Whether ``value`` reaches the goal."""
        return value <= self.bound if self.sense == "<=" else value >= self.bound

    def __str__(self) -> str:
        return f"{self.sense} {self.bound:,g}{self.suffix}"


@dataclass
class Figure:
    """One line of the table. ``met`` is None when the peer was missing, which is not met."""

    name: str
    unit: str
    goal: Goal
    ours: list[float] = field(default_factory=list)
    peer: list[float] = field(default_factory=list)
    peer_name: str = ""
    ratio: float | None = None
    met: bool | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        """met, NOT MET or SKIPPED."""
        return {True: "met", False: "NOT MET", None: "SKIPPED"}[self.met]


def compared(
    name: str, unit: str, goal: Goal, ours: list[float], peer_name: str, peer: list[float], *, gain: bool, note: str = ""
) -> Figure:
    """A figure judged by its ratio. ``gain``: the ratio says how much better ours is in time (peer / ours), else ours / peer."""
    pairs = list(zip(ours, peer * len(ours) if len(peer) == 1 else peer, strict=True))
    ratio = statistics.median(b / a if gain else a / b for a, b in pairs)
    return Figure(name, unit, goal, ours, peer, peer_name, ratio, goal.met(ratio), note)


def judged(name: str, unit: str, goal: Goal, ours: Sequence[float], value: float | None = None, note: str = "") -> Figure:
    """A figure judged by itself: ``value``, or else the median of ``ours``."""
    return Figure(name, unit, goal, list(ours), met=goal.met(statistics.median(ours) if value is None else value), note=note)


def skipped(name: str, unit: str, goal: Goal, peer_name: str, why: str, ours: Sequence[float] = ()) -> Figure:
    """A figure whose peer is missing."""
    return Figure(name, unit, goal, list(ours), peer_name=peer_name, note=f"SKIPPED: {why}")


def number(value: float) -> str:
    """``value`` in three or four digits, or whole with separators."""
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.3g}"


def spread(samples: Sequence[float]) -> str:
    """Median and range."""
    if not samples:
        return "-"
    middle = number(statistics.median(samples))
    return middle if len(samples) == 1 else f"{middle}  [dim]{number(min(samples))}..{number(max(samples))}[/dim]"


def table(figures: Sequence[Figure]) -> Table:
    """The figures as a table."""
    shown = Table(title="median and range over the turns; the ratio is the median of the turns' ratios")
    for column in ("figure", "peer", "peer's", "ours", "unit", "ratio", "goal", ""):
        shown.add_column(column, justify="right" if column in ("peer's", "ours", "ratio", "goal") else "left")
    colour = {True: "green", False: "red", None: "yellow"}
    for f in figures:
        ratio = "-" if f.ratio is None else f"{f.ratio:.2f}x"
        verdict = f"[{colour[f.met]}]{f.verdict}[/]"
        shown.add_row(f.name, f.peer_name or "-", spread(f.peer), spread(f.ours), f.unit, ratio, str(f.goal), verdict)
    return shown


def save(path: Path, machine: dict[str, Any], figures: Sequence[Figure]) -> None:
    """Everything as JSON, samples included."""
    rows = [{**asdict(f), "goal": str(f.goal), "verdict": f.verdict} for f in figures]
    path.write_text(json.dumps({"machine": machine, "figures": rows}, indent=1) + "\n")


BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"


def publish(path: Path, machine: dict[str, Any], figures: Sequence[Figure]) -> None:
    """Replace what stands between the marks in the Markdown file ``path`` by the machine and a table of the figures."""
    lines = [", ".join(f"{key} {value}" for key, value in machine.items()), ""]
    lines += ["| figure | peer | peer's | ours | unit | ratio | goal | |", "|---|---|---|---|---|---|---|---|"]
    for f in figures:
        ratio = "-" if f.ratio is None else f"{f.ratio:.2f}x"
        cells = [f.name, f.peer_name or "-", spread(f.peer), spread(f.ours), f.unit, ratio, str(f.goal), f.verdict]
        lines.append("| " + " | ".join(cells).replace("[dim]", "(").replace("[/dim]", ")") + " |")
    notes = [f"- {f.name}: {f.note}" for f in figures if f.note]
    text = path.read_text()
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    path.write_text("\n".join([before + BEGIN, "", *lines, "", *notes, "", END]) + after)


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Least squares slope of y over x."""
    result: float = statistics.linear_regression(*zip(*points, strict=True)).slope
    return result
