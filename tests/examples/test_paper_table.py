"""The article's table, on small tables made here: every cell is filled, and virtual workers and nodes reach what plain torch reaches."""

import importlib
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_every_mode_learns(monkeypatch, capsys):
    monkeypatch.syspath_prepend(EXAMPLES)
    example, tables = importlib.import_module("paper_table"), importlib.import_module("tables")
    torch.manual_seed(0)
    x = torch.randn(180, 3)
    made = {
        "boston": tables.Table(x, 20 + 5 * (x[:, 0] - x[:, 1]), ("a", "b", "c")),
        "pima": tables.Table(x, (x[:, 0] > 0).long(), ("a", "b", "c")),
    }
    monkeypatch.setattr(example, "load", made.__getitem__)
    monkeypatch.setattr(example, "EPOCHS", 3)
    found = example.main([])
    assert set(found) == {(name, mode) for name in made for mode in ("plain", "virtual", "websocket", "DP")}
    for name in made:
        for mode in ("virtual", "websocket"):
            assert found[name, mode].score == pytest.approx(found[name, "plain"].score, rel=0.1)
        assert 0 < found[name, "DP"].epsilon < 20
    assert found["boston", "DP"].score < 30 and found["pima", "DP"].score > 0.8  # prices vary by 50, and half are right by chance
    assert "| DP, epsilon " in capsys.readouterr().out
