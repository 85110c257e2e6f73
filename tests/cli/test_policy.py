"""`syftlite policy`: read, compare and try policies."""

import json

import pytest
from click.testing import CliRunner

from syftlite.cli.app import cli
from syftlite.storage.node_config import NodeConfig

GOOD = """
[dataset.icu]
unit = "patient"
aggregate = { min_units = 10 }
dp = { epsilon = 2, delta = 1e-6 }
release = ["carol"]
rate = "20/h"
expires = 2100-01-31
"""


def run(*args):
    return CliRunner().invoke(cli, ["policy", *map(str, args)])


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "node.toml"
    path.write_text(GOOD)
    return path


def test_a_file_is_read(good):
    policy = NodeConfig.read(good).policies["icu"]
    assert policy.aggregate.min_units == 10 and policy.dp.epsilon == 2 and policy.unit == "patient" and policy.rate.count == 20


def test_lint_passes_what_is_meant_and_warns_of_the_rest(good, tmp_path):
    assert run("lint", good).exit_code == 0
    doubtful = tmp_path / "doubtful.toml"
    doubtful.write_text(
        "[dataset.a]\n[dataset.b]\nfree = true\naggregate = { min_units = 2 }\n[dataset.c]\nunit = 1\ndp = { epsilon = 50 }\n"
    )
    result = run("lint", doubtful)
    assert result.exit_code == 1
    for text in ("lets nothing go", "everybody may have everything", "min_units = 2", "epsilon = 50", "more than 64 numbers are refused"):
        assert text in result.output


@pytest.mark.parametrize("right", ["find", "compute", "release"])
@pytest.mark.parametrize("way", ["free", "aggregate", "dp", "approve"])
def test_lint_tells_ways_from_names(tmp_path, right, way):
    """They look alike: release = ["dp"] lets a user go ahead who is called dp."""
    path = tmp_path / "node.toml"
    path.write_text(f'[dataset.a]\nunit = 0\ndp = true\n{right} = ["carol", "{way}"]\n')
    result = run("lint", path)
    assert result.exit_code == 1 and f"{right} names who may, and {way} is a way" in result.output and "40" not in result.output


def test_test_says_who_may_what(good):
    assert "nothing" in run("test", good, "--as", "scientist:dave").output
    assert "10 units" in " ".join(run("test", good, "--as", "scientist:carol").output.split())


def test_diff_notices_what_is_looser(good, tmp_path):
    looser = tmp_path / "looser.toml"
    looser.write_text(GOOD.replace("min_units = 10", "min_units = 5"))
    assert run("diff", good, looser).exit_code == 1 and "looser" in run("diff", good, looser).output
    assert run("diff", looser, good).exit_code == 0 and "stricter" in run("diff", looser, good).output
    assert run("diff", good, good).output == ""


def test_diff_sees_units_and_policies_that_go_or_come(good, tmp_path):
    def written(text):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.toml"
        path.write_text(text)
        return path

    rows = run("diff", good, written(GOOD.replace('unit = "patient"', "")))
    assert rows.exit_code == 1 and "looser" in rows.output and '- unit = "patient"' in rows.output
    free = GOOD + "[dataset.ward]\nfree = true\n"
    assert run("diff", good, written(free)).exit_code == 1 and run("diff", written(free), good).exit_code == 0
    approved = run("diff", good, written(GOOD + "[dataset.ward]\napprove = { quorum = 2 }\n"))
    assert approved.exit_code == 0 and "ward: new, stricter" in approved.output
    gone = run("diff", written("[dataset.a]\naggregate = true\nrelease = [\"carol\"]\n"), written("[dataset.b]\napprove = true\n"))
    assert gone.exit_code == 1 and "a: gone: approval only, neither" in gone.output
    assert run("diff", written(GOOD + "[dataset.ward]\nfree = true\n"), written(GOOD + "[dataset.ward]\naggregate = true\n")).exit_code == 0


def test_simulate_reads_a_journal(good, tmp_path):
    journal = tmp_path / "journal.jsonl"
    lines = [{"event": "refused", "record": {"principal": who, "sources": ["icu"]}} for who in ("carol", "dave")]
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    output = run("simulate", good, journal).output
    assert "carol" in output and "dave" in output and "nothing" in output
    journal.write_text("nonsense\n")
    assert run("simulate", good, journal).exit_code == 2
