"""workers/model_server.py as a model's owner starts it: a process of its own, holders that are nodes, a client that knows nothing else."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import syftlite as sy

WORKER = Path(__file__).parents[2] / "workers" / "model_server.py"


def test_it_serves_the_model_of_a_file_and_ends_when_it_has_served_enough(machine):
    keras = pytest.importorskip("keras", reason='pip install "syftlite[keras]"')
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, activation="relu"), keras.layers.Dense(3)])
    model.save(machine.folder / "small.keras")
    x = torch.randn(2, 4)
    cluster = sy.LocalCluster("server one", "server two", "server three", threads=1)
    with cluster:
        uris, token = [worker.transport.uri for worker in cluster.workers], cluster._tokens["scientist"]
        settings = machine.folder / "small.toml"
        settings.write_text(
            f'model = "small.keras"\nholders = ["{uris[0]}", "{uris[1]}"]\nprovider = "{uris[2]}"\ntoken = "{token}"\nname = "small"\nnum_requests = 2\n'
        )
        server = subprocess.Popen([sys.executable, WORKER, settings], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=machine.environment)
        said = server.stdout.readline()
        assert "<ServedModel 'small' at server one, server two; provider server three" in said, server.stderr.read()
        with sy.connect_to_model(*uris[:2], name="small", token=token) as client, torch.no_grad():
            for rows in (x, x[:1]):
                assert torch.allclose(client.query(rows), torch.as_tensor(model(rows.numpy())).cpu(), atol=1e-3)
        out, errors = server.communicate(timeout=60)
        assert server.returncode == 0 and "Traceback" not in errors, errors
        assert [line.split(", ")[1] for line in out.splitlines() if line.startswith("request")] == ["2 rows", "1 row"]


def test_settings_that_lead_nowhere_end_with_code_2(machine):
    settings = machine.folder / "wrong.toml"
    settings.write_text('model = "none.keras"\nholders = []\n')
    done = subprocess.run([sys.executable, WORKER, settings], capture_output=True, text=True, env=machine.environment)
    assert done.returncode == 2 and done.stdout == "" and "Traceback" not in done.stderr
    assert "wrong.toml" in done.stderr


def test_it_is_short():
    assert len(WORKER.read_text().splitlines()) < 60
