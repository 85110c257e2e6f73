"""What it costs that data is PRIVATE: labels, policy and the audit trail on disk, beside the same operators on public data of one node.

    python benchmarks/audit.py

    frame     100 small operators a frame, sent without waiting, and one wait at the end: public, then PRIVATE
    release   from an approved request to its value: one synced, signed record and one transaction
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch
from _main import main
from _measure import Figure, Goal, compared, judged
from _node import client
from _peers import Settings

import syftlite as sy
from syftlite.wire import messages as m

OPERATORS = 100
FRAMES = 200


def throughput(worker: sy.BaseWorker, tag: str, frames: int) -> float:
    """Thousands of operators a second, `OPERATORS` a frame."""
    (x,) = worker.search(tag)
    began = time.perf_counter()
    for _ in range(frames):
        made = [x * 2 for _ in range(OPERATORS)]
        worker.transport.flush()
        del made
    worker.ask(m.SYNC)
    return frames * OPERATORS / (time.perf_counter() - began) / 1e3


def frame(settings: Settings) -> list[Figure]:
    """PRIVATE beside public, in turns."""
    frames = max(4, FRAMES // settings.scale)
    with tempfile.TemporaryDirectory() as folder:
        cluster = sy.LocalCluster("audited", threads=1, folder=Path(folder))
        cluster.start(connect=False)
        try:
            with cluster.session("audited", "owner") as owner:
                owner.store(torch.ones(10, 3), "#open", name="open")
                owner.store(torch.ones(10, 3), "#kept", name="kept", private=True)
            process = cluster._processes["audited"]
            worker = client(f"ws://127.0.0.1:{process.port}", cluster._tokens["scientist"])
            public, private = [], []
            for turn in range(settings.repeats + 1):
                for tag, taken in (("#open", public), ("#kept", private)):
                    value = throughput(worker, tag, frames)
                    if turn:
                        taken.append(value)
            worker.close()
            lines = (Path(folder) / "audited" / "journal.jsonl").read_text().count('"event":"frame"')
        finally:
            cluster.stop()
    note = f"{lines:,} records for {(settings.repeats + 1) * frames:,} PRIVATE frames"
    goal = Goal(">=", 0.75, "x public")
    return [compared("100 operators a frame, pipelined", "k ops/s", goal, private, "public data", public, gain=False, note=note)]


def release(settings: Settings) -> list[Figure]:
    """From `get` of an approved object to its value."""
    taken = []
    with tempfile.TemporaryDirectory() as folder:
        cluster = sy.LocalCluster("audited", threads=1, folder=Path(folder))
        cluster.start(connect=False)
        try:
            with cluster.session("audited", "owner") as owner:
                owner.store(torch.ones(10, 3), "#kept", name="kept", private=True)
            process = cluster._processes["audited"]
            uri = f"ws://127.0.0.1:{process.port}"
            scientist, owner = client(uri, cluster._tokens["scientist"]), client(uri, cluster._tokens["owner"])
            (x,) = scientist.search("#kept")
            for _ in range(settings.repeats + 1):
                request = x.mean(0).request("means")
                owner.approve(request.id)
                began = time.perf_counter()
                request.get()
                taken.append((time.perf_counter() - began) * 1e3)
            scientist.close()
            owner.close()
        finally:
            cluster.stop()
    return [judged("an approved value, to its reader", "ms", Goal("<=", 50), taken[1:])]


if __name__ == "__main__":
    raise SystemExit(main(__doc__ or "", {"frame": frame, "release": release}, "nothing"))
