"""benchmarks/sharing.py with tiny counts: it runs, its results are right, and it says what it did not measure. No figure of speed is judged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def quick(tmp_path: Path, *sections: str) -> list[dict[str, Any]]:
    """The figures of a quick run without peers."""
    file = tmp_path / "figures.json"
    command = [sys.executable, str(BENCHMARKS / "sharing.py"), "--quick", "--repeats", "1", "--no-peers", "--strict", "--json", str(file)]
    for section in sections:
        command += ["--only", section]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert done.returncode == 1, done.stderr  # --strict: a skipped figure is not met
    figures: list[dict[str, Any]] = json.loads(file.read_text())["figures"]
    assert all(figure["ours"] for figure in figures)
    return figures


def must_be_skipped(timed: list[dict[str, Any]], operations: set[str], peers: set[str]) -> None:
    """Beside peers that are turned off."""
    assert {figure["name"].split(" ")[0].rstrip(",") for figure in timed} == operations
    assert {figure["peer_name"] for figure in timed} == peers
    assert all(figure["verdict"] == "SKIPPED" and "turned off" in figure["note"] for figure in timed)


def test_a_quick_run_of_operations(tmp_path: Path) -> None:
    timed = [figure for figure in quick(tmp_path, "elementwise", "matmul", "replicated") if figure["unit"] == "ms"]
    must_be_skipped(timed, {"mul", "compare", "relu", "matmul"}, {"CrypTen", "MP-SPDZ replicated ring", "SPU ABY3"})


def test_a_quick_run_of_networks_and_counts(tmp_path: Path) -> None:
    figures = quick(tmp_path, "lenet", "cnn", "mlp", "counts", "virtual", "xor")
    names = [figure["name"] for figure in figures]
    must_be_skipped([figure for figure in figures if figure["unit"] == "ms"], {"LeNet", "average-pooling"}, {"CrypTen"})

    assert sum(figure["unit"] == "ms CPU" for figure in figures) == 5
    assert sum(figure["name"].startswith("XOR") and figure["unit"] == "s" for figure in figures) == 2
    counted = {figure["name"]: figure for figure in figures if figure["unit"] in ("rounds", "bytes")}
    assert len(counted) == 7, names
    for name in ("LeNet: rounds", "average-pooling CNN: rounds", "MLP 784-128-128-10: rounds", "relu: rounds"):
        assert counted[name]["verdict"] == "met", counted[name]  # right at any speed
    for name in ("relu: an element, each way", "compare: an element, each way"):
        assert counted[name]["verdict"] == "met", counted[name]
