"""Three hospitals: policy, private training, secure aggregation, ledgers and trails in one run over real nodes."""

import importlib
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module("three_hospitals")


def test_they_learn_within_their_budgets_and_can_prove_it(example, tmp_path, capsys):
    outcome = example.main(["--plot", str(tmp_path / "study.png")])
    printed = capsys.readouterr().out
    assert outcome.history[-1].metrics["accuracy"] > 0.85 and outcome.plain > 0.9
    assert 3 <= len(outcome.history) < 20 and all(len(r.clients) == 3 for r in outcome.history)
    for name in ("north", "east", "south"):
        assert outcome.history[-1].spent[name] <= outcome.spent[name] <= 4.0
        assert outcome.records[name] > 5 * len(outcome.history) and f"{name}'s trail: {outcome.records[name]} records, none changed" in printed
        assert f"{name}: BudgetExceededError" in printed
    assert "a mean, without noise: it derives from PRIVATE data of north (patients)" in printed
    assert (tmp_path / "study.png").read_bytes()[:4] == b"\x89PNG"
