"""The demo, end to end: a node in a process of its own, the owner's real commands, a model that is as good as plain torch's."""

import importlib
import struct
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def demo(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module("breast_cancer")


def test_the_demo(demo, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = demo.main(["--epochs", "8", "--plot", str(tmp_path / "plot.png")])
    printed = capsys.readouterr().out

    assert outcome.accuracy == pytest.approx(outcome.accuracy_in_plain_torch, abs=0.01)
    assert outcome.accuracy > 0.93 > outcome.accuracy_of_the_commoner_answer + 0.25
    assert outcome.losses == pytest.approx(outcome.losses_in_plain_torch, rel=1e-4)
    assert outcome.losses == sorted(outcome.losses, reverse=True) and len(outcome.losses) == 8
    assert outcome.largest_difference_of_a_weight < 1e-4

    assert len(outcome.refusals) == 3
    for attempt, refusal in outcome.refusals.items():
        assert "PRIVATE data of hospital" in refusal, attempt
    commands = ("syftlite worker start --config", "syftlite token new alice", "syftlite requests", "syftlite approve")
    for text in (*commands, "pending", "approved", "alice may take once", f"{outcome.accuracy:.1%}"):
        assert text in printed
    assert "NOT REFUSED" not in printed

    header = (tmp_path / "plot.png").read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", header[16:])
    assert width >= 1000 and height >= 500
    assert [path.name for path in tmp_path.iterdir()] == ["plot.png"]
