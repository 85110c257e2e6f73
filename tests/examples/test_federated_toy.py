"""The classic lessons on a toy dataset."""

import importlib
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module("federated_toy")


def test_both_models_learn_and_nothing_is_left(example, capsys):
    dataset, aggregated = example.main()
    printed = capsys.readouterr().out
    assert len(dataset) == 20 and dataset[-1] < 0.05 * dataset[0]
    assert len(aggregated) == 10 and aggregated[-1] < aggregated[0] / 2
    assert "on 4 batches at bob, alice" in printed and "left at the workers: [0, 0, 0]" in printed
