"""benchmarks/_relay.py takes as long as it says, and the steps that go by way of it are right. No figure of speed is judged."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def of_benchmarks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The modules beside the benchmarks are found, in place of others of their names, and forgotten again."""
    names = [path.stem for path in BENCHMARKS.glob("*.py")]
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield
    for name in names:
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("of_benchmarks")
def test_the_relay_takes_its_time() -> None:
    """A byte there and back takes 40 ms at least; 4 MB come as they were sent, at no more than 350 Mbit/s."""
    import _relay

    sent = bytes(range(256)) * (1 << 14)
    server = socket.create_server(("127.0.0.1", 0))

    def echo() -> None:
        end, _ = server.accept()
        with end:
            while chunk := end.recv(1 << 16):
                end.sendall(chunk)

    threading.Thread(target=echo, daemon=True).start()
    with server, _relay.far() as beyond, socket.create_connection(("127.0.0.1", beyond(server.getsockname()[1]))) as end:
        trips = []
        for _ in range(5):
            began = time.monotonic()
            end.sendall(b"x")
            assert end.recv(1) == b"x"
            trips.append(time.monotonic() - began)
        assert min(trips) >= 2 * _relay.ONE_WAY

        began = time.monotonic()
        threading.Thread(target=end.sendall, args=(sent,), daemon=True).start()
        got = bytearray()
        while len(got) < len(sent):
            got += end.recv(1 << 16)
        assert got == sent
        assert time.monotonic() - began >= 2 * _relay.ONE_WAY + len(sent) / _relay.RATE - 2 * _relay.AHEAD


@pytest.mark.usefixtures("of_benchmarks")
def test_a_step_over_a_wan() -> None:
    import _relay
    import _wan

    names = [f"far{i}" for i in range(3)]
    with _relay.far() as beyond, _wan.Parties(cluster=_wan.FarApart(*names, beyond=beyond)) as parties:
        case = parties.case("train D", 1)  # its loss is compared at every step
        cost = parties.cost(case)
        assert cost.rounds == 35
        assert parties.run(case) >= cost.rounds * _relay.ONE_WAY, "no message came too early"


@pytest.mark.usefixtures("of_benchmarks")
def test_its_nodes_have_names_that_no_other_sections_nodes_have() -> None:
    """One run has all sections, and their nodes stay."""
    from _parties import node_names
    from _wan import NODES

    assert len(set(NODES)) == 3 and not set(NODES) & {*node_names(5), *node_names(3, replicated=True)}
