"""No program carries one row out of a node; with any one rule removed, some do."""

import pytest
from exfiltration import leaks

from syftlite.policy import call, elementwise, lineage, products, reductions
from syftlite.policy.partition import Aggregate, Partition
from syftlite.policy.rules import aggregate_only, approve, dp

pytestmark = pytest.mark.filterwarnings("ignore")  # operators warn of what they find in random operands

CAMPAIGN = 25
"""Attacks on one node."""
POLICIES = {"default": aggregate_only(5), "generous": aggregate_only(5, ratio=1.0, probes=1000), "dp": dp(epsilon=30), "both": aggregate_only(5) | dp(epsilon=30), "approve": approve()}


def campaigns(policy, seeds):
    """What was found and how many values left, over campaigns with these ``seeds``."""
    found, left = [], 0
    for seed in seeds:
        more, answered = leaks(policy, seed, CAMPAIGN)
        found += [f"seed {seed}: {text}" for text in more]
        left += answered
    return found, left


@pytest.mark.parametrize(
    ("name", "first", "many"), [("default", 0, 20), ("generous", 100, 25), ("both", 200, 15), ("dp", 300, 6), ("approve", 400, 2)]
)
def test_no_attack_carries_a_row_out(name, first, many):
    found, left = campaigns(POLICIES[name], range(first, first + many))
    assert found == [] and left > many // 2, "and not because nothing leaves at all"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["default", "generous", "both", "dp"])
def test_no_attack_of_a_hundred_thousand_carries_a_row_out(name):
    found, _ = campaigns(POLICIES[name], range(20_000, 21_000))
    assert found == []


MODULES = (call, elementwise, lineage, products, reductions)


def everywhere(patch, **names):
    """Put other things in place of what these modules know by ``names``."""
    for name, other in names.items():
        for module in MODULES:
            if hasattr(module, name):
                patch.setattr(module, name, other)


def no_degree(patch):
    """Any function of a row may be summed."""
    everywhere(patch, ANY=99)


def no_gates(patch):
    """Weights and comparisons set nothing apart."""
    everywhere(patch, gates_of=lambda *given, **options: frozenset())


def no_rounding(patch):
    """Rounding is no matter."""
    everywhere(patch, lost=lambda *given: False, uneven=lambda *given: False)


def no_atoms(patch):
    """Releases are not looked at together, nor counted."""
    release = Partition.release
    patch.setattr(
        Partition,
        "release",
        lambda self, frame, selections, elements, terms: release(self, frame, selections, elements, Aggregate(1, 1e9, 10**9)),
    )


@pytest.mark.parametrize("flaw", [no_degree, no_gates, no_rounding, no_atoms])
def test_an_attack_finds_a_rule_that_is_missing(flaw, monkeypatch):
    flaw(monkeypatch)
    assert any(leaks(POLICIES["generous"], seed, CAMPAIGN)[0] for seed in range(30))
