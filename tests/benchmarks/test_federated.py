"""benchmarks/federated.py with tiny counts: it runs, its means are right, and it says what it did not measure. No figure of speed is judged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_a_quick_run_without_peers(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    command = [sys.executable, str(BENCHMARKS / "federated.py"), "--quick", "--repeats", "1", "--no-peers", "--json", str(file)]
    done = subprocess.run([*command, "--only", "simulated", "--only", "secure"], capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    figures = json.loads(file.read_text())["figures"]
    assert [figure["verdict"] for figure in figures] == ["SKIPPED"] * 2 and all(figure["ours"] for figure in figures)
    assert {figure["peer_name"] for figure in figures} == {"Flower"}
