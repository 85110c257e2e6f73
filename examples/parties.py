"""What the examples of secret sharing have in common: two holders and a provider, a progress bar, and counts to print."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import syftlite as sy

NAMES = ("alice", "bob", "carol")


@contextmanager
def parties(real: bool) -> Iterator[tuple[Any, Any, Any]]:
    """Alice and bob, who hold shares, and carol, who provides: nodes in processes of their own, or virtual workers. Closed at the end."""
    if real:
        with sy.LocalCluster(*NAMES, threads=1) as nodes:
            yield nodes
        return
    workers = [sy.VirtualWorker(id=name) for name in NAMES]
    try:
        yield workers[0], workers[1], workers[2]
    finally:
        for worker in workers:
            worker.close()


@contextmanager
def progress(total: int, label: str) -> Iterator[Callable[[], None]]:
    """A function to call after each step; on a terminal, and with rich installed, it moves a bar."""
    if not sys.stdout.isatty() or importlib.util.find_spec("rich") is None:
        yield lambda: None
        return
    from rich.progress import Progress

    with Progress(transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda: bar.advance(task)


def options(description: str | None) -> argparse.ArgumentParser:
    """What every one of these programs can be told."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", action="store_true", help="nodes in processes of their own")
    return parser
