"""TFEWorker and TFECluster: processes at named places, started here or by others, and clients that query what they serve."""

import os
import re
import shlex
import socket
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
import torch

import syftlite as sy
from syftlite.errors import ConfigurationError, Misuse, WorkerNotFoundError
from syftlite.serving.graph import Builder, Input

ROW = (3, 4)
pytestmark = pytest.mark.timeout(600)  # processes that import torch, which takes a busy machine long


def network():
    """Rows (3, 4) in, three scores out."""
    made, layers = torch.Generator().manual_seed(0), Builder(Input(ROW))
    layers.add("flatten", "flat", ["input"])
    layers.add("linear", "hidden", ["flat"], weights={"weight": torch.randn(4, 12, generator=made), "bias": torch.randn(4, generator=made)})
    layers.add("relu", "relu", ["hidden"])
    layers.add("linear", "scores", ["relu"], weights={"weight": torch.randn(3, 4, generator=made)})
    return layers.graph()


NETWORK = network()


def free_ports(count):
    """Ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def workers_at(ports, **options):
    return [sy.TFEWorker(host=f"localhost:{port}", **options) for port in ports]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Where workers leave their tokens."""
    patch = pytest.MonkeyPatch()
    patch.setenv("SYFTLITE_HOME", str(tmp_path_factory.mktemp("home")))
    yield
    patch.undo()


@pytest.fixture(scope="module")
def cluster(home):
    made = sy.TFECluster(*workers_at(free_ports(3)))
    with made:
        yield made
    assert not any(listens(int(worker.uri.rsplit(":", 1)[1])) for worker in made.workers)


@contextmanager
def serving(cluster, requests=None, **options):
    *holders, provider = cluster.nodes
    served = sy.serve(NETWORK, *holders, crypto_provider=provider, num_requests=requests, **options)
    try:
        yield served
    finally:
        served.stop()


def client_of(cluster, **options):
    """As another program makes it: from addresses alone."""
    client = sy.TFEWorker()
    again = sy.TFECluster(*(sy.TFEWorker(host=worker.host) for worker in cluster.workers))
    client.connect_to_model((1, *ROW), (1, 3), again, **options)
    return client


def test_making_starts_nothing():
    ports = free_ports(3)
    cluster = sy.TFECluster(*workers_at(ports))
    assert not any(map(listens, ports)) and not cluster.workers[0]._process
    assert re.fullmatch(r"<TFECluster localhost:\d+, localhost:\d+ hold, localhost:\d+ deals; not started>", repr(cluster))
    assert repr(sy.TFEWorker()) == "<TFEWorker, a client>"
    cluster.stop()


@pytest.mark.parametrize(
    ("host", "uri", "id"),
    [
        ("localhost:4000", "ws://127.0.0.1:4000", "localhost-4000"),
        ("127.0.0.1", "ws://127.0.0.1:4000", "127.0.0.1-4000"),
        ("[::1]:4001", "ws://[::1]:4001", "..1-4001"),
        ("alice.example:4000", "wss://alice.example:4000", "alice.example-4000"),
        ("wss://alice.example:443", "wss://alice.example:443", "alice.example-443"),
    ],
)
def test_addresses(host, uri, id):
    worker = sy.TFEWorker(host=host)
    assert (worker.uri, worker.id, worker.is_local) == (uri, id, "example" not in host)


@pytest.mark.parametrize("host", ["", "localhost:many", "http://localhost:4000", "localhost:4000/path", "localhost:70000"])
def test_what_is_no_address(host):
    with pytest.raises(ConfigurationError, match="is no worker's address"):
        sy.TFEWorker(host=host)


def test_what_is_no_cluster():
    one, two, three = workers_at([4000, 4001, 4000])
    with pytest.raises(ConfigurationError, match="a third that deals for them; it got 2"):
        sy.TFECluster(one, two)
    with pytest.raises(ConfigurationError, match="two workers have one address"):
        sy.TFECluster(one, two, three)
    with pytest.raises(ConfigurationError, match=r"made of TFEWorker\(host="):
        sy.TFECluster(one, two, sy.TFEWorker())


def test_another_machine_is_not_managed_from_here():
    cluster = sy.TFECluster(*workers_at(free_ports(2)), sy.TFEWorker(host="carol.example:4000"))
    with pytest.raises(ConfigurationError, match="carol.example:4000 is another machine.*auto_managed=False"):
        cluster.start()
    assert all(worker._process is None for worker in cluster.workers)


def test_the_command_for_another_machine_has_all_that_is_needed(tmp_path):
    workers = [sy.TFEWorker(host=f"{name}.example:4000", auto_managed=False) for name in ("alice", "bob", "carol")]
    text = workers[0].command(workers[1:])
    assert text.startswith("syftlite worker start --config alice.example-4000.toml")
    assert "syftlite token new OWNER --node alice.example-4000" in text
    settings = tmp_path / "alice.toml"
    settings.write_text("\n".join(line.strip() for line in text.splitlines() if " = " in line))
    from syftlite.storage.node_config import NodeConfig

    config = NodeConfig.read(settings)
    assert (config.id, config.host, config.port) == ("alice.example-4000", "0.0.0.0", 4000)
    assert list(config.peers) == ["wss://bob.example:4000", "wss://carol.example:4000"]


def test_a_port_that_is_taken_is_named(home):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        cluster = sy.TFECluster(*workers_at([port, *free_ports(2)]))
        with pytest.raises(ConfigurationError, match=f"localhost-{port} cannot listen on 127.0.0.1:{port}"):
            cluster.start()
    assert all(worker._process is None for worker in cluster.workers)


def test_queries(cluster):
    rows = torch.randn(5, *ROW)
    wanted = NETWORK.run(rows).numpy()
    with serving(cluster):
        client = client_of(cluster)
        assert repr(client) == "<TFEWorker, a client of 'model'>"
        answer = client.query_model(rows[:1].numpy())
        assert type(answer) is np.ndarray and answer.shape == (1, 3) and answer.dtype == np.float32
        assert np.abs(answer - wanted[:1]).max() < 1e-3
        assert np.abs(client.query_model(rows[0].double().numpy()) - wanted[:1]).max() < 1e-3, "one row without its batch, in float64"
        assert np.abs(client.query_model(rows.tolist()) - wanted).max() < 1e-3, "several rows, as lists"
        assert np.abs(client.query_model(np.asfortranarray(rows.numpy())) - wanted).max() < 1e-3, "R keeps arrays by columns"
        for row in rows:
            client.query_model_async(row[None].numpy())
        for row in wanted:
            assert np.abs(client.query_model_join() - row).max() < 1e-3, "in the order in which they were asked"
        with pytest.raises(Misuse, match="nothing was asked"):
            client.query_model_join()
        with pytest.raises(ValueError):
            client.query_model(np.ones((1, 4, 4)))
        client.stop()


def test_shapes_that_are_not_the_models(cluster):
    with serving(cluster):
        client, workers = sy.TFEWorker(), list(cluster.workers)
        client.connect_to_model([1.0, 3.0, 4.0], [1.0, 3.0], workers)  # R's numbers are reals
        client.connect_to_model((None, 3, 4), (None, 3), *workers)
        with pytest.raises(Misuse, match=r"the model takes \(1, 3, 4\) and gives \(1, 3\), and connect_to_model\(\) says \(1, 4, 3\) and \(1, 3\)"):
            client.connect_to_model((1, 4, 3), (1, 3), cluster)
        with pytest.raises(Misuse, match="connect_to_model.* first"):
            client.query_model(np.ones((1, 3, 4)))
        with pytest.raises(Misuse, match="name all, not 2"):
            client.connect_to_model((1, 3, 4), (1, 3), *workers[:2])


def test_a_number_of_requests_and_again(cluster):
    with serving(cluster, requests=2) as served:
        client = client_of(cluster)
        for _ in range(2):
            client.query_model(np.ones((1, *ROW)))
        assert served.wait(lambda line: None) == 2
        served.serve(num_requests=1)
        assert client.query_model(np.ones((1, *ROW))).shape == (1, 3)
        client.stop()


def test_workers_that_others_start(home, tmp_path):
    """The printed commands are run as they are printed; the cluster connects when they are there, and says how they end."""
    ports, told, processes = free_ports(3), [], []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    cluster = sy.TFECluster(*workers_at(ports, auto_managed=False), timeout=500)

    def say(line):
        told.append(line)
        command = shlex.split(line.splitlines()[1])
        assert command[:3] == ["syftlite", "worker", "start"]
        processes.append(
            subprocess.Popen([sys.executable, "-m", "syftlite.cli", *command[1:]], env=environment, stdout=subprocess.DEVNULL, cwd=tmp_path)
        )

    try:
        cluster.start(say)
        assert len(told) == 3 and [node.id for node in cluster.nodes] == [f"localhost-{port}" for port in ports]
        with serving(cluster):
            client = client_of(cluster)
            assert client.query_model(np.zeros((1, *ROW))).shape == (1, 3)
            client.stop()
        told.clear()
        cluster.stop(told.append)
        assert "still run" in told[0] and [f"localhost:{port}" in line for port, line in zip(ports, told[1:])] == [True] * 3
        assert all(process.poll() is None for process in processes)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(30)


def test_who_is_missing_is_named(home, cluster):
    present = [sy.TFEWorker(host=worker.host, auto_managed=False) for worker in cluster.workers[:2]]
    for worker in cluster.workers[:2]:
        worker.node.close()  # this process has one connection to each
        worker.node = None
    (absent,) = free_ports(1)
    waiting, told = sy.TFECluster(*present, sy.TFEWorker(host=f"localhost:{absent}", auto_managed=False), timeout=0.5), []
    with pytest.raises(WorkerNotFoundError) as caught:
        waiting.start(told.append)
    assert len(told) == 1 and f"syftlite worker start --id localhost-{absent} --port {absent}" in told[0]
    text = str(caught.value)
    assert f"not there after 0.5 s: localhost:{absent}" in text and f"--port {absent}" in text and present[0].host not in text
    waiting.stop(told.append)
    cluster.workers[0].connect(), cluster.workers[1].connect()


def test_a_client_of_nothing_says_what_to_look_for(home):
    client = sy.TFEWorker()
    with pytest.raises(sy.errors.AuthenticationError, match="is it running"):
        client.connect_to_model((1, 1), (1, 1), *workers_at(free_ports(3)))


def test_interrupting_ends_the_waiting(cluster, monkeypatch):
    """Ctrl-C in serve(): no more queries are taken, and it can be served again."""
    keras = pytest.importorskip("keras")
    from syftlite.hooks.keras import ServedModel

    sy.KerasHook(keras)
    model = keras.Sequential([keras.Input(ROW), keras.layers.Flatten(), keras.layers.Dense(3)])
    told = []

    def interrupted(self, say):
        raise KeyboardInterrupt

    model.share(cluster, name="interrupted")
    with monkeypatch.context() as patch:
        patch.setattr(ServedModel, "wait", interrupted)
        assert model.serve(say=told.append) == 0
    assert told == ["interrupted: no more queries are taken"]
    served = model.serve(num_requests=1, wait=False)
    client = client_of(cluster, name="interrupted")
    client.query_model(np.ones((1, *ROW)))
    client.stop()
    assert served.wait(told.append) == 1
    model.stop()
