"""Served models on real nodes: nobody conducts, and whoever is killed, slow or hostile hurts nobody else."""

import os
import signal
import subprocess
import sys
import threading

import pytest
import torch

import syftlite as sy
from serving.models import cnn, mlp, rows
from syftlite.errors import ModelStoppedError, SharingAbortedError, SyftliteError
from syftlite.randomness import random_like
from syftlite.remote.client import open_transport
from syftlite.wire import messages as m

GRAPH = mlp(6, 8, 4)


@pytest.fixture(scope="module")
def cluster():
    """Nodes for all tests that leave them running."""
    cluster = sy.LocalCluster("alice", "bob", "carol", threads=1, timeout=60.0)
    with cluster:
        yield cluster


def addresses(cluster):
    return [worker.transport.uri for worker in cluster.workers[:2]], cluster._tokens["scientist"]


def client(cluster, name="model", **options):
    places, token = addresses(cluster)
    return sy.connect_to_model(*places, name=name, token=token, **options)


def serve(cluster, graph=GRAPH, **options):
    alice, bob, carol = cluster.workers
    return sy.serve(graph, alice, bob, crypto_provider=carol, **options)


def asks(one, seed, wrong, times=25, graph=GRAPH):
    for i in range(times):
        x = rows(1 + i % 3, 6, seed=1000 * seed + i)
        try:
            if not torch.allclose(one.query(x), graph.run(x), atol=1e-3):
                wrong.append((seed, i))
        except Exception as error:
            wrong.append((seed, i, error))


def at_once(*tasks):
    threads = [threading.Thread(target=task) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_two_hundred_queries_of_eight_clients_each_get_their_own(cluster):
    served = serve(cluster, batch=8)
    clients, wrong = [client(cluster) for _ in range(8)], []
    at_once(*[lambda one=one, seed=seed: asks(one, seed, wrong) for seed, one in enumerate(clients)])
    assert not wrong
    assert served.served == 200
    lines = []
    served.pause()
    served.wait(lines.append)
    assert any(" in a batch of " in line for line in lines), "queries of several clients run together"
    with pytest.raises(ModelStoppedError):
        clients[0].query(rows(1, 6))
    for one in clients:
        one.close()


OWNER = """
import sys, syftlite as sy
from serving.models import mlp
uris, token = sys.argv[1:4], sys.argv[4]
alice, bob, carol = (sy.connect(uri, token=token) for uri in uris)
sy.serve(mlp(6, 8, 4), alice, bob, crypto_provider=carol, name="left behind", batch=4)
"""


def test_the_owner_may_go_away(cluster):
    uris = [worker.transport.uri for worker in cluster.workers]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(os.path.dirname(__file__)), *sys.path])}
    done = subprocess.run([sys.executable, "-c", OWNER, *uris, cluster._tokens["scientist"]], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    x = rows(3, 6)
    with client(cluster, "left behind") as one:
        for _ in range(3):
            assert torch.allclose(one.query(x), GRAPH.run(x), atol=1e-3)


def test_a_client_that_vanishes_or_never_asks_the_other_holder_hurts_nobody(cluster):
    serve(cluster, batch=4)
    places, token = addresses(cluster)
    one, wrong = client(cluster), []
    half = []
    for place in places:  # shares at one holder that never come to the other
        transport = open_transport(place, token)
        transport.ask(m.ATTACH, "model", f"half a client at {place}")
        for number in range(1, 65):
            transport.put((transport.prefix << 32) + number, random_like((1, 6)), (), "")
            half.append((transport, transport.begin(m.QUERY, f"half a client at {place}", number, (transport.prefix << 32) + number)))
        transport.put((transport.prefix << 32) + 100, random_like((1, 6)), (), "")
        with pytest.raises(SyftliteError, match="64 queries of this client wait"):
            transport.ask(m.QUERY, f"half a client at {place}", 100, (transport.prefix << 32) + 100)
    gone = client(cluster)
    waiting = [gone.query_async(rows(2, 6)) for _ in range(8)]
    for holder in gone.holders:
        holder.transport._socket.shut()  # as if its process was killed
    asks(one, 1, wrong)
    assert not wrong
    with pytest.raises(SharingAbortedError, match="is gone"):
        waiting[-1].get()
    for transport in {id(t): t for t, _ in half}.values():
        transport.close()
    asks(one, 2, wrong)
    assert not wrong


def test_a_hostile_client_is_told_and_gets_nothing(cluster):
    serve(cluster, batch=4)
    places, token = addresses(cluster)
    honest, wrong = client(cluster), []
    transports = [open_transport(place, token) for place in places]
    for transport in transports:
        transport.ask(m.ATTACH, "model", "eve")
        with pytest.raises(RuntimeError, match="channel taken"):
            transport.ask(m.ATTACH, "model", honest._channel)
        with pytest.raises(RuntimeError, match="no such channel"):
            transport.ask(m.QUERY, honest._channel, 7, 1)
    ids = [transport.prefix << 32 for transport in transports]

    def put(number, *values):
        for transport, base, value in zip(transports, ids, values, strict=True):
            transport.put(base + number, value, (), "")

    def query(number, at):
        return [transport.begin(m.QUERY, "eve", number, base + at) for transport, base in zip(transports, ids, strict=True)]

    put(1, random_like((1, 6)), random_like((2, 6)))  # not of one shape
    for transport, request in zip(transports, query(1, 1), strict=True):
        with pytest.raises(RuntimeError, match=r"the holders have 1 and \[2\] rows"):
            transport.finish(request, 20)
    for number, value, told in [
        (2, torch.zeros(1, 6), "int64"),
        (3, random_like((1, 7)), "1 to 4 rows of shape"),
        (4, random_like((5, 6)), "1 to 4 rows of shape"),
        (5, random_like((0, 6)), "1 to 4 rows of shape"),
    ]:
        put(number, value, value)
        for transport, request in zip(transports, query(number, number), strict=True):
            with pytest.raises(RuntimeError, match=told):
                transport.finish(request, 20)
    put(6, random_like((1, 6)), random_like((1, 6)))
    for transport, request in zip(transports, query(1, 6), strict=True):
        with pytest.raises(RuntimeError, match="numbers of a channel count up"):
            transport.finish(request, 20)
    for transport, base in zip(transports, ids, strict=True):
        with pytest.raises(SyftliteError):
            transport.ask(m.RETIRE, "no such model")
        with pytest.raises(SyftliteError, match="not there"):
            transport.ask(m.QUERY, "eve", 9, base + 99)
    asks(honest, 3, wrong)
    assert not wrong
    for transport in transports:
        transport.close()


def test_a_killed_worker_is_named_with_what_to_do():
    """A provider, a holder, and the holder that leads, one after the other; those that are left serve again."""
    mortal = sy.LocalCluster("anna", "ben", "cleo", "dora", "emil", threads=1, timeout=60.0)
    with mortal as workers:
        named = {worker.id: worker for worker in workers}
        for first, second, third, killed in [("anna", "ben", "emil", "emil"), ("anna", "dora", "cleo", "dora"), ("anna", "ben", "cleo", "anna")]:
            holders, model = (named[first], named[second]), f"until {killed} is killed"
            served = sy.serve(GRAPH, *holders, crypto_provider=named[third], batch=2, name=model)
            one = sy.connect_to_model(*[w.transport.uri for w in holders], name=model, token=mortal._tokens["scientist"], timeout=60.0)
            one.query(rows(1, 6))
            mortal.process(killed).kill()
            mortal.process(killed).wait()
            with pytest.raises(SharingAbortedError, match=rf"{killed}.*`syftlite worker start --id {killed}`.*owner serve it\s+again"):
                for _ in range(200):  # what the provider dealt before is still used
                    one.query(rows(1, 6))
            with pytest.raises(SyftliteError, match=killed):
                served.wait()
            one.close()


def test_a_holder_that_stands_still_is_named(cluster):
    serve(cluster, batch=2)
    one = client(cluster)
    one.query(rows(1, 6))
    one.timeout = 2.0
    process = cluster.process("bob")
    process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(SharingAbortedError, match=r"bob \(ws://.*no answer within 2 s, and no sign of life.*`syftlite worker start --id bob`"):
            one.query(rows(1, 6))
    finally:
        process.send_signal(signal.SIGCONT)
    one.timeout = 30.0
    assert torch.allclose(one.query(rows(1, 6)), GRAPH.run(rows(1, 6)), atol=1e-3)
    one.close()


def test_large_batches_and_images(cluster):
    graph = cnn()
    serve(cluster, graph, batch=32)
    x = rows(70, 8, 8, 1)
    with client(cluster) as one:
        assert torch.allclose(one.query(x), graph.run(x), atol=2e-3)
        assert "(rows, 8, 8, 1) -> (rows, 3)" in repr(one)
