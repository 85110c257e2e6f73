"""What the commands share: the options, and measuring, showing and saving what was asked for."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import websockets
from _measure import Figure, publish, save, table
from _peers import Settings
from rich.console import Console

import syftlite as sy

Section = Callable[[Settings], list[Figure]]


def _arguments(description: str, sections: Mapping[str, Section], long: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--only", action="append", choices=[*sections], help="measure this section alone; may be given again")
    parser.add_argument("--quick", action="store_true", help="tiny counts: whether everything runs, not how fast")
    parser.add_argument("--long", action="store_true", help=long)
    parser.add_argument("--repeats", type=int, default=None, help="turns of ours and peer (7; 2 with --quick)")
    parser.add_argument("--json", type=Path, help="also write everything, samples included, to this file")
    parser.add_argument("--markdown", type=Path, help="also put the figures between the marks in this file, such as docs/benchmarks.md")
    parser.add_argument("--peers-python", default=sys.executable, help="the Python that has the peers installed (this one)")
    parser.add_argument("--no-peers", action="store_true", help="leave the peers out: their figures are SKIPPED, which is not met")
    parser.add_argument("--strict", action="store_true", help="exit with 1 unless every figure is met")
    return parser.parse_args()


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    cpu = platform.processor() or "unknown CPU"
    information = Path("/proc/cpuinfo")
    if information.exists():
        models = [line.split(":", 1)[1].strip() for line in information.read_text().splitlines() if line.startswith("model name")]
        cpu = models[0] if models else cpu
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "websockets": websockets.__version__,
        "syftlite": sy.__version__,
        "date": time.strftime("%Y-%m-%d"),
        "load before": round(os.getloadavg()[0], 1),
    }


def main(description: str, sections: Mapping[str, Section], long: str) -> int:
    """Measure what was asked for, show it, save it. ``long`` says what --long adds."""
    arguments = _arguments(description, sections, long)
    torch.set_num_threads(1)
    settings = Settings(python=None if arguments.no_peers else arguments.peers_python, long=arguments.long)
    if arguments.quick:
        settings.repeats, settings.scale = 2, 100
    settings.repeats = arguments.repeats or settings.repeats
    console, described = Console(), machine()
    if not console.is_terminal:
        console = Console(width=160)
    figures: list[Figure] = []
    console.print(", ".join(f"{key} {value}" for key, value in described.items()))
    for name in arguments.only or sections:
        began = time.monotonic()
        with console.status(name):
            figures += sections[name](settings)
        console.print(f"[dim]{name}: {time.monotonic() - began:.0f} s[/dim]")
    console.print(table(figures))
    for figure in figures:
        if figure.note:
            console.print(f"[dim]{figure.name}: {figure.note}[/dim]", highlight=False)
    missed = [f for f in figures if not f.met]
    remark = " (tiny counts: no measurement)" if arguments.quick else ""
    console.print(f"{len(figures) - len(missed)} of {len(figures)} figures met{remark}")
    described["load after"] = round(os.getloadavg()[0], 1)
    if arguments.json:
        save(arguments.json, described, figures)
    if arguments.markdown:
        publish(arguments.markdown, described, figures)
    return 1 if arguments.strict and missed else 0
