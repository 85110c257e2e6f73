"""benchmarks/remote.py with tiny counts: it runs, finds nothing wrong, and says what it did not measure. No figure of speed is judged."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def _module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def _named(figures: list[dict[str, Any]], beginning: str) -> list[dict[str, Any]]:
    found = [figure for figure in figures if figure["name"].startswith(beginning)]
    assert found, beginning
    return found


@pytest.mark.timeout(300)
def test_a_quick_run_without_peers(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    command = [sys.executable, str(BENCHMARKS / "remote.py"), "--quick", "--repeats", "1", "--no-peers", "--strict", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=290)
    assert done.returncode == 1, done.stderr  # --strict: a skipped figure is not met
    figures = json.loads(file.read_text())["figures"]

    sections = ("pointer op", "blocking op", "pipelined", "16 MB put", "16 MB get", "training step", "objects", "RSS slope", "10 clients")
    for section in sections:
        assert all(figure["ours"] for figure in _named(figures, section))

    for figure in _named(figures, "training step"):  # both ways of counting saw the same
        assert figure["note"] == "over 5 steps: 5 questions, 5 messages from the node"

    skipped = [figure for figure in figures if figure["verdict"] == "SKIPPED"]
    assert {figure["peer_name"].split(" ")[0] for figure in skipped} == {"websockets", "torch", "Ray", "asyncio"}
    assert all(figure["met"] is None and figure["ratio"] is None and "SKIPPED" in figure["note"] for figure in skipped)
    assert "SKIPPED" in done.stdout

    for counted in ("training step", "objects left", "10 clients at once: errors", "10 clients at once: foreign"):
        assert {figure["verdict"] for figure in _named(figures, counted)} == {"met"}, counted  # right at any speed


def test_a_peer_that_is_not_installed_says_which(tmp_path: Path) -> None:
    peers = _module("_peers")
    program = tmp_path / "absent.py"
    program.write_text(
        f"import sys; sys.path.insert(0, {str(BENCHMARKS / 'peers')!r})\n"
        "from _serve import serve\n"
        "def start():\n    import a_module_that_nobody_has\n"
        "serve(start)\n"
    )
    with pytest.raises(peers.PeerMissing, match="a_module_that_nobody_has is not installed"):
        peers.Peer(sys.executable, str(program))


def test_a_peer_that_breaks_says_why(tmp_path: Path) -> None:
    peers = _module("_peers")
    program = tmp_path / "broken.py"
    program.write_text("raise RuntimeError('no port is free')")
    with pytest.raises(peers.PeerMissing, match="no port is free"):
        peers.Peer(sys.executable, str(program))


def test_ratio_is_the_median_of_the_turns_and_the_goal_judges_it() -> None:
    measure = _module("_measure")
    faster = measure.compared("f", "us", measure.Goal(">=", 2, "x"), [1.0, 2.0, 1.0], "peer", [3.0, 4.0, 1.0], gain=True)
    assert (faster.ratio, faster.met) == (2.0, True)
    slower = measure.compared("f", "us", measure.Goal("<=", 2, "x"), [1.0, 9.0], "peer", [3.0], gain=False)
    assert (slower.ratio, slower.met) == (pytest.approx((1 / 3 + 3) / 2), True)
    assert not measure.judged("f", "op/s", measure.Goal(">=", 100), [99.0, 101.0, 98.0]).met


def test_turns_alternate_after_one_that_does_not_count() -> None:
    measure = _module("_measure")
    calls: list[str] = []

    def run(name: str) -> float:
        calls.append(name)
        return float(len(calls))

    samples = measure.in_turns(2, lambda: run("a"), lambda: run("b"))
    assert calls == ["a", "b"] * 3
    assert samples == [[3.0, 5.0], [4.0, 6.0]]


def test_figures_replace_what_stands_between_the_marks(tmp_path: Path) -> None:
    measure = _module("_measure")
    page = tmp_path / "page.md"
    page.write_text(f"before\n{measure.BEGIN}\nold\n{measure.END}\nafter\n")
    figures = [measure.compared("f", "us", measure.Goal("<=", 6, "x"), [4.0, 6.0], "add", [1.0, 1.0], gain=False, note="a note")]
    for _ in range(2):
        measure.publish(page, {"cpu": "two"}, figures)
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert text.count("| f | add | 1  (1..1) | 5  (4..6) | us | 5.00x | <= 6x | met |") == 1
    assert "- f: a note" in text


def test_slope_is_least_squares() -> None:
    assert _module("_measure").slope([(0, 1.0), (1, 3.0), (2, 5.0)]) == pytest.approx(2.0)


def test_the_relay_counts_messages_and_their_bytes() -> None:
    from websockets.frames import Frame, Opcode

    tap = _module("_node").Tap(masked=False)
    frames = [
        Frame(Opcode.BINARY, b"abc", fin=False),
        Frame(Opcode.PING, b"not data"),
        Frame(Opcode.CONT, b"de"),
        Frame(Opcode.BINARY, b"f"),
    ]
    data = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n" + b"".join(f.serialize(mask=False) for f in frames)
    for at in range(0, len(data), 7):
        tap.feed(data[at : at + 7])
    assert tap.sizes == [5, 1]
