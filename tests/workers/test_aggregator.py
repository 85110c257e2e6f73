"""workers/aggregator.py as an operator starts it: processes of its own, real sockets, PRIVATE rows, and kill -9 at whom it may hit."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import syftlite as sy
from syftlite.federated.checkpoint import load
from syftlite.remote.process import NodeProcess
from syftlite.secagg import Identity

WORKER = Path(__file__).parents[2] / "workers" / "aggregator.py"


def start(machine, settings):
    process = subprocess.Popen(
        [sys.executable, WORKER, settings], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=machine.environment
    )
    machine.processes.append(process)
    return process


@pytest.fixture
def owners(machine, monkeypatch):
    """Three nodes with PRIVATE rows that know each other: two in this process, and "east" in its own."""
    monkeypatch.setenv("SYFTLITE_HOME", str(machine.home))
    x, y = torch.randn(60, 4), torch.randint(0, 2, (60,))
    identities = {name: Identity() for name in ("north", "east", "south")}
    known = {name: identity.public for name, identity in identities.items()}
    east = NodeProcess("east", threads=1, identity=identities["east"], aggregates_with=known)
    east.kept = identities["east"], known
    nodes: list[sy.WebsocketServerWorker] = []
    try:
        for i, name in enumerate(("north", "south")):
            node = sy.WebsocketServerWorker(id=name, port=0, identity=identities[name], aggregates_with=known).start(wait=False)
            nodes.append(node)
            node.load(x[20 * i : 20 * i + 20], "#x", private=True)
            node.load(y[20 * i : 20 * i + 20], "#y", private=True)
        owner = sy.WebsocketClientWorker(port=east.port, role="owner")
        owner.store(x[40:], "#x", name="x", private=True)
        owner.store(y[40:], "#y", name="y", private=True)
        owner.close()
        yield east, [*[node.uri for node in nodes], f"ws://127.0.0.1:{east.port}"]
    finally:
        east.stop()
        for node in nodes:
            node.close()


def test_whoever_is_killed_the_run_goes_on_and_nothing_is_lost(machine, owners):
    """The aggregator is killed in the middle of its rounds, then an owner's node: started again, it does the rounds that are missing,
    without that owner."""
    east, uris = owners
    settings = machine.folder / "study.toml"
    settings.write_text(f'owners = {uris}\ndata = ["#x", "#y"]\nlayers = [4, 8, 2]\nrounds = 100000\nmodel = "study.safetensors"\n')
    first = start(machine, settings)
    said = first.stdout.readline()
    assert said.startswith("round 1, 3 clients in"), said + first.stderr.read()  # no loss: the owners' rows are PRIVATE
    first.stdout.readline()
    first.kill()
    first.communicate()
    done = len(load(machine.folder / "study.safetensors").told["rounds"])
    assert done >= 2

    east.process.kill()
    east.process.wait()
    settings.write_text(settings.read_text().replace("100000", str(done + 2)))
    second = start(machine, settings)
    out, errors = second.communicate()
    lines = out.splitlines()
    assert second.returncode == 0 and "Traceback" not in errors, errors
    assert lines[0].startswith(f"without {uris[2]}: cannot connect")
    assert [line.split(" in ")[0] for line in lines[1:3]] == [f"round {done + 1}, 2 clients", f"round {done + 2}, 2 clients"]
    assert lines[3].startswith(f"{done + 2} rounds are done")
    rounds = load(machine.folder / "study.safetensors").told["rounds"]
    assert [len(r["clients"]) for r in rounds] == [3] * done + [2, 2]


def until(process, wanted, lines=400):
    """The first line of what ``process`` says that has ``wanted``."""
    for _ in range(lines):
        said = process.stdout.readline()
        if wanted in said:
            return said
        assert said, process.stderr.read()
    raise AssertionError(f"{wanted} is nowhere in {lines} lines")


def test_an_owner_that_is_back_takes_part_again_and_too_few_are_waited_for(machine, owners):
    east, uris = owners
    settings = machine.folder / "study.toml"
    text = f'owners = {uris[1:]}\ndata = ["#x", "#y"]\nlayers = [4, 8, 2]\nrounds = 100000\nmodel = "m.safetensors"\npause = 0.2\n'
    settings.write_text(text)
    program = start(machine, settings)
    until(program, ", 2 clients in")
    east.process.kill()
    east.process.wait()
    until(program, "waiting, ")
    assert uris[2] in until(program, "1 owners are up, and 2 are needed")
    again = NodeProcess("east", port=east.port, threads=1, identity=east.kept[0], aggregates_with=east.kept[1])
    try:
        owner = sy.WebsocketClientWorker(port=again.port, role="owner")
        owner.store(torch.randn(20, 4), "#x", name="x", private=True)
        owner.store(torch.randint(0, 2, (20,)), "#y", name="y", private=True)
        owner.close()
        assert uris[2] in until(program, " again")
        until(program, ", 2 clients in")
    finally:
        program.kill()
        again.stop()


def test_it_waits_no_longer_than_its_patience(machine, owners):
    east, uris = owners
    settings = machine.folder / "study.toml"
    text = f'owners = {uris[1:]}\ndata = ["#x", "#y"]\nlayers = [4, 2]\nrounds = 100000\nmodel = "m.safetensors"\npause = 0.1\npatience = 1.0\n'
    settings.write_text(text)
    program = start(machine, settings)
    until(program, ", 2 clients in")
    east.process.kill()
    east.process.wait()
    _, errors = program.communicate()
    assert program.returncode == 2 and "are needed" in errors and "Traceback" not in errors, errors


def test_settings_that_lead_nowhere_end_with_code_2(tmp_path, monkeypatch, capsys):
    settings = tmp_path / "wrong.toml"
    settings.write_text('owners = ["ws://127.0.0.1:9"]\ntoken = "t"\ndata = ["#x", "#y"]\nmodel = "m"\nlayers = [2, 2]\nrounds = 1\n')
    monkeypatch.setattr(sys, "argv", [str(WORKER), str(settings)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(WORKER), run_name="__main__")
    printed = capsys.readouterr()
    assert ended.value.code == 2 and "without ws://127.0.0.1:9: cannot connect" in printed.out
    assert "wrong.toml: a federation needs clients" in printed.err


def test_it_is_short():
    assert len(WORKER.read_text().splitlines()) < 60
