"""Deadlines that nobody misses but who never comes, however slow the machine is."""

import pytest

from syftlite.federated.crew import Crew


@pytest.fixture
def only_one_is_late(monkeypatch):
    """A deadline begins when all are done, but for one where there are as many as is told, or more."""
    wait, told = Crew.wait, []

    def others_first(crew, futures, seconds, *given):
        while len(futures) - len(wait(crew, futures, 0.02)) > (len(futures) >= told[-1]):
            pass
        return wait(crew, futures, seconds, *given)

    def begin(least):
        told.append(least)
        monkeypatch.setattr(Crew, "wait", others_first)

    return begin
