"""benchmarks/sharing.py with tiny counts: it runs, its results are right, and it says what it did not measure. No figure of speed is judged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_a_quick_run_without_peers(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    command = [sys.executable, str(BENCHMARKS / "sharing.py"), "--quick", "--repeats", "1", "--no-peers", "--strict", "--json", str(file)]
    for section in ("elementwise", "matmul", "lenet", "cnn", "mlp", "counts", "virtual", "replicated"):
        command += ["--only", section]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert done.returncode == 1, done.stderr  # --strict: a skipped figure is not met
    figures = json.loads(file.read_text())["figures"]
    names = [figure["name"] for figure in figures]
    assert all(figure["ours"] for figure in figures)

    timed = [figure for figure in figures if figure["unit"] == "ms"]
    assert {figure["name"].split(" ")[0].rstrip(",") for figure in timed} == {"mul", "compare", "relu", "matmul", "LeNet", "average-pooling"}
    assert {figure["peer_name"] for figure in timed} == {"CrypTen", "MP-SPDZ replicated ring", "SPU ABY3"}
    assert all(figure["verdict"] == "SKIPPED" and "turned off" in figure["note"] for figure in timed)

    assert sum(figure["unit"] == "ms CPU" for figure in figures) == 5
    counted = {figure["name"]: figure for figure in figures if figure["unit"] in ("rounds", "bytes")}
    assert len(counted) == 7, names
    for name in ("LeNet: rounds", "average-pooling CNN: rounds", "MLP 784-128-128-10: rounds", "relu: rounds"):
        assert counted[name]["verdict"] == "met", counted[name]  # right at any speed
    for name in ("relu: an element, each way", "compare: an element, each way"):
        assert counted[name]["verdict"] == "met", counted[name]
