"""The examples of secret sharing: right answers on virtual workers, and on nodes."""

import importlib
from pathlib import Path

import pytest
import torch

import syftlite as sy

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    yield importlib.import_module
    assert not {"alice", "bob", "carol"} & set(sy.remote.registry.known), "workers are closed"


@pytest.mark.parametrize(("first", "second"), [(3.5, 7.25), (5_000_000, 4_999_999.5), (-3, -4), (2, 2)])
def test_millionaires(example, capsys, first, second):
    outcome = example("millionaires").main(["--wealth", str(first), str(second)])
    assert outcome.first_is_richer == (first > second) and outcome.rounds <= 7
    assert capsys.readouterr().out.startswith("the first is richer" if first > second else "the first is not richer")


def test_millionaires_on_nodes(example):
    assert not example("millionaires").main(["--real"]).first_is_richer


@pytest.mark.parametrize("scheme", [[], ["--decimal"]], ids=["binary", "decimal"])
@pytest.mark.parametrize("seed", [0, 2])
def test_xor_inside_the_bands(example, capsys, scheme, seed):
    xor = example("xor_reservoir")
    outcome = xor.main(["--seed", str(seed), *scheme])
    assert list(outcome.losses) == [0, 50, 100, 150, 200]
    for step, (low, high) in xor.BANDS.items():
        assert low <= outcome.losses[step] <= high, (step, outcome.losses)
    assert [round(p) for p in outcome.predictions] == [0, 1, 1, 0]
    printed = capsys.readouterr().out
    assert "step   0: loss 2.000" in printed and "predictions: 0 1 1 0" in printed


def test_xor_on_nodes(example):
    outcome = example("xor_reservoir").main(["--steps", "51", "--real"])
    assert outcome.losses[0] == 2.0 and 0.7 < outcome.losses[50] < 1.2


def test_regression_is_as_in_the_open(example, capsys):
    outcome = example("encrypted_regression").main(["--steps", "120"])
    assert torch.allclose(outcome.encrypted, outcome.plain, atol=2e-3) and outcome.encrypted.shape == (11, 1)
    assert outcome.r2 == pytest.approx(outcome.r2_exact, abs=0.01) and outcome.r2 > 0.5
    assert f"R^2: {outcome.r2:.4f} on shares" in capsys.readouterr().out


def test_regression_on_nodes(example):
    outcome = example("encrypted_regression").main(["--rows", "60", "--steps", "8", "--real"])
    assert torch.allclose(outcome.encrypted, outcome.plain, atol=2e-3)


@pytest.mark.parametrize(("network", "rounds"), [("mlp", 18), ("cnn", 26)])
def test_inference_is_as_in_the_open(example, capsys, network, rounds):
    outcome = example("encrypted_inference").main(["--digits", "--network", network, "--first", "100", "--batch", "50", "--epochs", "20"])
    assert outcome.agreement >= 0.99 and outcome.accuracy > 0.85
    assert outcome.rounds <= rounds + 2, "the weights are opened in the first batch"
    assert f"{outcome.agreement:.2%} agree" in capsys.readouterr().out


def test_inference_on_nodes(example):
    assert example("encrypted_inference").main(["--digits", "--first", "20", "--batch", "10", "--epochs", "1", "--real"]).agreement == 1.0


def test_inference_without_data_says_what_to_type(example, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        example("encrypted_inference").main([])
    assert ended.value.code == 1 and "python examples/data.py mnist" in capsys.readouterr().err


def test_training_on_shares_is_as_in_the_open(example, capsys, tmp_path):
    picture = tmp_path / "loss.png"
    outcome = example("encrypted_training").main(["--epochs", "1", "--images", "512", "--plot", str(picture)])
    assert max(abs(a - b) for a, b in zip(outcome.encrypted, outcome.plain, strict=True)) < 0.02
    assert abs(outcome.accuracy - outcome.plain_accuracy) <= 0.01
    assert outcome.rounds <= 120 and picture.stat().st_size > 5000
    assert f"{outcome.accuracy:.2%} trained on shares" in capsys.readouterr().out


def test_training_by_adam_of_a_few_steps(example):
    outcome = example("encrypted_training").main(["--optimizer", "adam", "--steps", "6", "--batch", "128"])
    assert len(outcome.encrypted) == 6 and max(abs(a - b) for a, b in zip(outcome.encrypted, outcome.plain, strict=True)) < 0.01


def test_training_of_convolutions_on_nodes(example):
    outcome = example("encrypted_training").main(["--network", "cnn", "--epochs", "1", "--images", "256", "--real"])
    assert max(abs(a - b) for a, b in zip(outcome.encrypted, outcome.plain, strict=True)) < 0.02


@pytest.mark.slow
@pytest.mark.parametrize(("network", "optimizer"), [("mlp", "sgd"), ("mlp", "adam"), ("cnn", "sgd")])
def test_training_reaches_the_accuracy_of_the_open(example, network, optimizer):
    """On MNIST if it was fetched (python examples/data.py mnist), else on scikit-learn's digits."""
    data = example("data")
    try:
        data.load("mnist")
        arguments = ["--data", "mnist", "--epochs", "2", "--batch", "128"]
    except data.DataError:
        arguments = ["--epochs", "8"]
    outcome = example("encrypted_training").main([*arguments, "--network", network, "--optimizer", optimizer])
    assert abs(outcome.accuracy - outcome.plain_accuracy) <= 0.005 and outcome.accuracy > 0.9


def test_logistic_regression_is_as_in_the_open(example, capsys):
    outcome = example("encrypted_logistic").main(["--rows", "200", "--steps", "20", "--features", "5"])
    assert outcome.accuracy == pytest.approx(outcome.plain_accuracy, abs=0.03) and outcome.accuracy > 0.8
    for a, b in zip(outcome.summary, outcome.plain_summary, strict=True):
        assert a.name == b.name and a.coefficient == pytest.approx(b.coefficient, abs=5e-3) and a.error == pytest.approx(b.error, rel=0.02)
    assert "mean radius" in capsys.readouterr().out
