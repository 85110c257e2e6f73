"""What policy and audit cost: the same pipelined program on PRIVATE rows under a policy, audited on disk, and on public ones, in one run.

    python benchmarks/policy.py [--only SECTION] [--quick] [--repeats N] [--json FILE] [--markdown FILE] [--strict]

How to read it is in docs/design/policy.md.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

from _main import Section, main
from _measure import Figure, Goal, compared, in_turns
from _peers import Settings

import syftlite as sy
from syftlite.wire.messages import SYNC

FRAME = 100
"""Operators a frame."""
NODE = """
import sys, torch, syftlite as sy
torch.set_num_threads(1)
node = sy.WebsocketServerWorker(id="priced", port=0, folder=sys.argv[1])
rows = torch.randn(64, 4)
node.load(rows, "#private", name="icu", policy=sy.policy.aggregate_only(10))
node.load(rows, "#approve", name="ward", private=True)
node.load(rows, "#public", name="open")
node.start(wait=False)
print(node.port, flush=True)
sys.stdin.read()
node.close()
"""


def _program(worker: sy.BaseWorker, tag: str, count: int) -> Callable[[], float]:
    """us an operator: scale, shift, product, comparison, again and again, ``FRAME`` operators a frame."""
    (rows,) = worker.search(tag)

    def run() -> float:
        worker.ask(SYNC)
        began = time.perf_counter()
        for _ in range(count // FRAME):
            for _ in range(FRAME // 4):
                a = rows * 0.5
                b = a + 1.0
                c = a + b
                c = c * 2.0
            worker.ask(SYNC)
        return (time.perf_counter() - began) / count * 1e6

    return run


def throughput(settings: Settings) -> list[Figure]:
    """Operators that all work on labelled values, each with one record in the audit trail a frame."""
    count = settings.count(5_000)
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"SYFTLITE_HOME": f"{folder}/home"}
        os.environ["SYFTLITE_HOME"] = environment["SYFTLITE_HOME"]
        node = subprocess.Popen(
            [sys.executable, "-c", NODE, f"{folder}/node"], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            assert node.stdout is not None
            worker = sy.WebsocketClientWorker(port=int(node.stdout.readline()), id="priced")
            tags = {"#private": "aggregate_only and audit", "#approve": "approve and audit"}
            off, *on = in_turns(settings.repeats, *(_program(worker, tag, count) for tag in ("#public", *tags)))
            for name, ours in zip(tags.values(), on, strict=True):
                figures.append(
                    compared(f"pipelined, {FRAME} ops a frame, {name}", "us", Goal("<=", 1 / 0.75, "x"), ours, "public", off, gain=False)
                )
            worker.close()
        finally:
            node.communicate("")
    return figures


SECTIONS: dict[str, Section] = {section.__name__: section for section in (throughput,)}

if __name__ == "__main__":
    sys.exit(main(__doc__.split("\n", 1)[0], SECTIONS, long="nothing"))
