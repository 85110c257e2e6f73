"""What the examples are asked in vain is told by their parsers, at once."""

import importlib
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(
    ("example", "words", "told"),
    [
        ("breast_cancer", ["--epochs", "0"], "0 is too few: 1 or more"),
        ("breast_cancer", ["--plot", "no-such-folder/a.png"], "there is no folder no-such-folder"),
        ("encrypted_inference", ["--digits", "--first", "0"], "0 is too few"),
        ("encrypted_logistic", ["--rows", "1"], "1 is too few: 3 or more"),
        ("encrypted_regression", ["--rows", "1"], "1 is too few: 2 or more"),
        ("encrypted_regression", ["--rate", "nan"], "'nan' is no number"),
        ("encrypted_training", ["--epochs", "0"], "0 is too few"),
        ("encrypted_training", ["--plot", "."], "it is a folder"),
        ("millionaires", ["--wealth", "nan", "2"], "'nan' is no number"),
        ("mnist_cnn", ["--first", "x"], "'x' is no whole number"),
        ("split_learning", ["--batch", "0"], "0 is too few"),
        ("three_hospitals", ["--rounds", "0"], "0 is too few"),
        ("trusted_aggregator", ["--owners", "0"], "0 is too few"),
        ("xor_reservoir", ["--steps", "-1"], "-1 is too few: 0 or more"),
    ],
)
def test_what_cannot_be_done_is_told_at_once(monkeypatch, capsys, example, words, told):
    monkeypatch.syspath_prepend(EXAMPLES)
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(example).main(words)
    assert ended.value.code == 2 and told in capsys.readouterr().err
