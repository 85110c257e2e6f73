"""The sandbox lesson."""

import importlib
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module("sandbox_search")


def test_data_is_found_and_learned_from(example, capsys):
    errors = example.main()
    printed = capsys.readouterr().out
    assert len(errors) == 30 and errors[-1] < errors[0] / 3
    assert "five numbers: tensor([1, 2, 3, 4, 5]), still there: tensor([1, 2, 3, 4, 5])" in printed
    assert "theo: (74, 10) patients" in printed and printed.count("patients") == 6
