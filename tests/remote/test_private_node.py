"""Private answers over a real socket, from a node that remembers what they cost."""

from __future__ import annotations

import secrets

import pytest
import torch

import syftlite as sy
from syftlite.errors import BudgetExceededError
from syftlite.policy import rules
from syftlite.remote import registry


def test_a_restarted_node_goes_on_with_the_budget_and_answers_the_same_again(tmp_path, monkeypatch):
    monkeypatch.setenv("SYFTLITE_HOME", str(tmp_path / "home"))
    folder = tmp_path / "clinic"
    token = secrets.token_urlsafe(32)
    answers = []
    for _ in range(2):
        node = sy.WebsocketServerWorker(id="clinic", port=0, folder=folder, tokens={"ann": token}).start(wait=False)
        node.engine.load("ages", torch.linspace(20, 90, 1000), ["#ages"], policy=rules.dp(epsilon=1.0))
        registry.forget(node)  # its client is in this process too
        client = sy.connect(node.uri, token)
        ages = client.search("#ages")[0]
        answers.append(float(sy.dp.mean(ages, bounds=(0, 120), epsilon=0.8, request="first").get()))
        assert sy.dp.budget(ages)[0].left == pytest.approx(0.2, abs=0.05)
        with pytest.raises(BudgetExceededError, match="left of epsilon 1"):
            sy.dp.mean(ages, bounds=(0, 120), epsilon=0.8)
        with pytest.raises(sy.errors.GetNotPermittedError):
            ages.get_copy()
        client.close()
        node.close()
    assert answers[0] == answers[1] and abs(answers[0] - 55) < 10
