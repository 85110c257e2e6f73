"""A program ends whatever its threads are doing, none of them inside torch when the interpreter goes."""

import ast
import contextlib
import gc
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from subprocess import PIPE

import pytest

import syftlite
from syftlite._threads import Daemon
from syftlite.federated.crew import Crew

PACKAGE = Path(syftlite.__file__).parent
PLAIN = {"_threads.py": 0, "transports/handshake.py": 2, "remote/node.py": 1}
"""Threads that do without, by module: strangers' handshakes hold no tensor, and a node's end is waited for."""

BUSY = """
import threading, torch
from syftlite._threads import Daemon
over = threading.Event()
def work():
    while not over.is_set():
        [torch.zeros(3) for _ in range(50)]
for _ in range(4):
    Daemon(work, "busy", over.set)
"""

TOLD = """
import atexit, threading
from syftlite import _threads
atexit.unregister(_threads.farewell)
atexit.register(lambda: print("outlasted by", [t.name for t in threading.enumerate() if isinstance(t, _threads.Daemon)], flush=True))
atexit.register(_threads.farewell)
"""

OWNERS = (
    TOLD
    + """
import sys, syftlite as sy
nodes = [sy.WebsocketServerWorker(id=name, port=0).start(wait=False) for name in ("ann", "ben", "cy")]
print(*(node.port for node in nodes), flush=True)
sys.stdin.readline()
print(len({t.name for t in threading.enumerate() if isinstance(t, _threads.Daemon)}), "kinds", flush=True)
"""
)

SCIENTIST = (
    TOLD
    + """
import sys, torch, syftlite as sy
from torch import nn
from syftlite.federated import Federation
ann, ben, cy = (sy.WebsocketClientWorker(port=int(port)) for port in sys.argv[1:])
served = sy.serve(nn.Linear(3, 1).eval(), ann, ben, crypto_provider=cy, input_shape=(3,))
owners = [sy.VirtualWorker(id=f"owner{i}") for i in range(2)]
kept = [torch.randn(8, n).tag(tag).send(owner) for owner in owners for tag, n in (("#x", 3), ("#y", 1))]
Federation(owners, lambda: nn.Linear(3, 1), data=("#x", "#y"), loss=nn.MSELoss(), aggregation="secure").fit(1)
far = torch.zeros(30, 30).send(cy)
x = torch.randn(10_000).fix_precision().share(ann, ben, crypto_provider=cy)
x.relu().get()
print("computing", flush=True)
try:
    while True:
        x, far = x.relu(), far @ far
except (sy.errors.ConnectionLostError, sy.errors.SharingAbortedError) as error:
    print(type(error).__name__, flush=True)
"""
)


@contextlib.contextmanager
def program(text, *given):
    with subprocess.Popen([sys.executable, "-c", text, *given], stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def ended(process):
    """What ``process`` still says before it ends as it should."""
    out, errors = process.communicate()
    assert process.returncode == 0, errors
    return out.splitlines()


STRAGGLER = """
import torch, syftlite as sy
from syftlite.federated import Federation
parts = [sy.BaseDataset(torch.randn(n, 5), torch.randint(0, 3, (n,))) for n in (100, 60_000)]
print(Federation(parts, lambda: torch.nn.Linear(5, 3), batch_size=8, deadline=1).fit(1)[0])
"""


def test_a_program_ends_while_a_client_trains():
    with program(STRAGGLER) as process:
        (said,) = ended(process)
        assert said.startswith("round 1, 1 clients, loss") and "(not done within 1 s)" in said


@pytest.mark.parametrize("turn", range(3))
def test_a_program_ends_while_threads_compute(turn):
    with program(BUSY) as process:
        assert ended(process) == []


BACKLOG = """
import atexit, torch, syftlite as sy
from syftlite.storage.tokens import discover
from syftlite.transports.client import SocketTransport
node = sy.WebsocketServerWorker(id="own", port=0)
done = 0
handle = node.engine.handle
def counted(*given):
    global done
    done += 1
    return handle(*given)
node.engine.handle = counted
atexit.register(lambda: print(done))
node.start(wait=False)
x = torch.zeros(1000, 1000).send(sy.BaseWorker("face", SocketTransport(node.uri, discover("127.0.0.1", node.port, "scientist"))))
for _ in range(8000):
    x @ x
"""


def test_a_program_ends_whatever_its_node_has_yet_to_compute():
    with program(BACKLOG) as process:
        (done,) = ended(process)
        assert 0 < int(done) < 8000


def test_programs_end_with_all_that_they_left_open_in_the_middle_of_it(tmp_path, monkeypatch):
    """Nodes with links between them, and who computes there: with a served model, a federation's clients, messages on their way."""
    monkeypatch.setenv("SYFTLITE_HOME", str(tmp_path))
    with program(OWNERS) as owners, program(SCIENTIST, *owners.stdout.readline().split()) as scientist:
        assert scientist.stdout.readline() == "computing\n", scientist.stderr.read()
        kinds, outlasted = ended(owners)
        assert int(kinds.split()[0]) >= 9 and outlasted == "outlasted by []"
        lost, outlasted = ended(scientist)
        assert lost in ("ConnectionLostError", "SharingAbortedError") and outlasted == "outlasted by []"


def test_a_crews_idle_thread_keeps_nothing_of_its_work():
    class Given:
        pass

    given, crew = Given(), Crew(1, 1)
    seen, future = weakref.ref(given), crew.submit(lambda g: None, given)
    assert future.result(60) is None
    del given, future
    assert crew.submit(int).result(60) == 0  # by then the thread has come back for more
    gc.collect()
    assert seen() is None
    crew.leave()


def test_no_thread_is_started_in_another_way():
    found = {}
    for path in PACKAGE.rglob("*.py"):
        calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)]
        if count := sum(n.func.attr == "Thread" for n in calls):
            found[path.relative_to(PACKAGE).as_posix()] = count
    assert found == {name: count for name, count in PLAIN.items() if count}
    assert issubclass(Daemon, threading.Thread)
