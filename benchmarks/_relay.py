"""A relay that makes loopback a wide area: bytes go on 20 ms after they came, each way, and come no faster than 350 Mbit/s.

    with far() as beyond:        a process of its own, that ends with the block
        beyond(port)             a port that leads to ``port`` of this machine, the long way

    near end -> loopback -> recv, at most RATE -> wait ONE_WAY -> loopback -> far end        each connection and direction by itself

Both connections to the relay are fast and short, so nobody's window or slow start counts: a link's best case.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

ONE_WAY = 0.020
"""Seconds: a round trip takes 40 ms."""
RATE = 350e6 / 8
"""Bytes a second."""
CHUNK = 1 << 16
AHEAD = 0.002
"""Seconds that a sender may be ahead of the rate: the next chunks make up for a sleep that was too long."""


def _deliver(line: queue.SimpleQueue[tuple[float, bytes]], to: socket.socket) -> None:
    """Hand on each chunk when its time has come; an empty one ends it."""
    with contextlib.suppress(OSError):
        while True:
            due, chunk = line.get()
            time.sleep(max(0.0, due - time.monotonic()))
            if not chunk:
                break
            to.sendall(chunk)
        to.shutdown(socket.SHUT_WR)


def _carry(come: socket.socket, to: socket.socket) -> None:
    """All that comes, at `RATE`, `ONE_WAY` later."""
    line: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
    threading.Thread(target=_deliver, args=(line, to), daemon=True).start()
    sent = 0.0  # when the last byte has left
    chunk = b"first"
    while chunk:
        try:
            chunk = come.recv(CHUNK)
        except OSError:
            chunk = b""
        now = time.monotonic()
        sent = max(sent, now) + len(chunk) / RATE
        line.put((sent + ONE_WAY, chunk))
        if sent > now + AHEAD:
            time.sleep(sent - now)


def _accept(server: socket.socket, port: int) -> None:
    while True:
        near, _ = server.accept()
        far = socket.create_connection(("127.0.0.1", port))
        for sock in (near, far):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for ends in ((near, far), (far, near)):
            threading.Thread(target=_carry, args=ends, daemon=True).start()


def relay() -> None:
    """Relay to each port that is asked for, until the input ends."""
    for asked in sys.stdin:
        server = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=_accept, args=(server, int(asked)), daemon=True).start()
        print(server.getsockname()[1], flush=True)


@contextlib.contextmanager
def far() -> Iterator[Callable[[int], int]]:
    """A function that gives a port of the relay for one that something listens on."""
    command = [sys.executable, __file__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None

        def beyond(port: int) -> int:
            print(port, file=process.stdin, flush=True)
            return int(process.stdout.readline())  # type: ignore[union-attr]

        yield beyond


if __name__ == "__main__":
    relay()
