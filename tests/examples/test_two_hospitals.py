"""Two hospitals and a researcher, over real nodes."""

import importlib
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module("two_hospitals")


def test_mock_request_approval_and_proof(example, capsys):
    means = example.main()
    printed = capsys.readouterr().out
    rows = torch.cat([example.patients(1, 400), example.patients(2, 250)])
    assert torch.allclose(means, rows.mean(0), atol=1e-3)
    counts = example.analysis(rows)[2:]
    assert all(f" {int(count)}\n" in printed for count in counts)
    for text in (
        "north: 400 patients stay here; a twin of 200 is found by #mock #patients-mock",
        "south: the result is PRIVATE; request",
        "scientist asks for float32[6] from patients: means and ages for study 12",
        'dataset("patients")',
        "denied request",
        "ask for fewer numbers",
        "released: approved as",
        "north: mean age about",
        "south: it would cost more than is left: patients:",
        "scientist asked for a private mean at epsilon 0.4: told with noise",
        "north's trail:",
        "none changed",
    ):
        assert text in printed, printed
    assert printed.count("denied: ask for fewer numbers") == 2
