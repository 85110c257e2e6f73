"""workers/data_owner.py as an operator starts it: a process of its own, a real socket."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import syftlite as sy
from syftlite.storage.node_config import NodeConfig

WORKER = Path(__file__).parents[2] / "workers" / "data_owner.py"


def test_it_serves_what_its_settings_list_and_lets_nothing_private_go(machine):
    np.save(machine.folder / "rows.npy", np.arange(6, dtype="float32").reshape(3, 2))
    (machine.folder / "names.csv").write_text("code\n1\n2\n")
    settings = machine.folder / "hospital.toml"
    settings.write_text("""
        id = "hospital"
        port = 0
        [[data]]
        file = "rows.npy"
        private = true
        tags = ["#rows", "#2024"]
        [[data]]
        file = "names.csv"
        private = false
    """)
    node = machine.spawn([sys.executable, str(WORKER), str(settings)])
    assert "#2024 #rows: [3, 2] torch.float32, PRIVATE" in node.said or "#rows #2024: [3, 2] torch.float32, PRIVATE" in node.said
    assert "#names: [2, 1] torch.int64\n" in node.said

    alice = node.connect(node.token("alice"))
    (rows,), (names,) = alice.search("#rows"), alice.search("#names")
    assert torch.equal(names.get(), torch.tensor([[1], [2]])) and names.description == "columns: code"
    model = torch.nn.Linear(2, 1).send(alice)
    model(rows).sum().backward()
    for made in (rows[0], rows[:1] * 1, model.weight.grad):
        with pytest.raises(sy.errors.GetNotPermittedError, match="PRIVATE"):
            made.get()
    request = rows.mean().request("the mean")
    node.run("approve", request.id)
    assert request.wait() == "approved"
    alice.close()

    code, _, errors = node.signal(signal.SIGTERM)
    assert code == 0 and "Traceback" not in errors


def test_beyond_loopback_without_tls_it_ends_with_code_2(machine):
    settings = machine.folder / "open.toml"
    settings.write_text('host = "0.0.0.0"')
    done = subprocess.run([sys.executable, WORKER, settings], capture_output=True, text=True, env=machine.environment)
    assert done.returncode == 2 and done.stdout == ""
    assert "refusing to listen on 0.0.0.0" in done.stderr and "Traceback" not in done.stderr


def test_the_settings_beside_it_start_a_node_on_this_machine_only(machine, monkeypatch):
    monkeypatch.setenv("SYFTLITE_HOME", str(machine.home))
    node = sy.WebsocketServerWorker.from_config(NodeConfig.read(WORKER.with_suffix(".toml")))
    try:
        assert (node.id, node.server.host, node.port) == ("data-owner", "127.0.0.1", 8777)
        assert node.listing() == []
    finally:
        node.close()


def test_it_is_short():
    assert len(WORKER.read_text().splitlines()) < 60
