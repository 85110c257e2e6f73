"""A real node in its own process, further clients of it, and a relay that counts what passes between.

    client <----> relay <----> node        every websocket message's size, each way
"""

from __future__ import annotations

import gc
import itertools
import os
import socket
import threading
from collections.abc import Generator
from pathlib import Path
from types import TracebackType

from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

import syftlite as sy
from syftlite.transports.client import SocketTransport

_number = itertools.count()


def client(uri: str, token: str, transport: type[SocketTransport] = SocketTransport) -> sy.BaseWorker:
    """Another session at a node, under a name of its own here, so that one process can have several."""
    return sy.BaseWorker(f"client {next(_number)}", transport(uri, token))


class Node:
    """A one-node cluster, with what further clients need to reach it."""

    def __init__(self) -> None:
        self._cluster = sy.LocalCluster(f"node {next(_number)}", threads=1)

    def __enter__(self) -> Node:
        (self.worker,) = self._cluster.start()
        self.pid = self._cluster.process(self.worker.id).pid
        self.port = self.worker.port
        self.uri = f"ws://127.0.0.1:{self.port}"
        self.token = self._cluster._tokens["scientist"]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._cluster.stop()


def resident(pid: int | None = None) -> float:
    """MiB of memory that process ``pid`` (this one, after a collection) occupies."""
    if pid is None:
        gc.collect()
    pages = int(Path(f"/proc/{pid or 'self'}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class Tap:
    """Reads one direction of a websocket as it passes; ``sizes`` holds the payload bytes of each data message so far."""

    def __init__(self, *, masked: bool) -> None:
        self.sizes: list[int] = []
        self._reader = StreamReader()
        self._parser = self._parse(masked)
        next(self._parser)

    def _parse(self, masked: bool) -> Generator[None, None, None]:
        while (yield from self._reader.read_line(8192)).strip():
            pass
        size = 0
        while True:
            frame = yield from Frame.parse(self._reader.read_exact, mask=masked)
            if frame.opcode in (Opcode.BINARY, Opcode.TEXT, Opcode.CONT):
                size += len(frame.data)
                if frame.fin:
                    self.sizes.append(size)
                    size = 0

    def feed(self, data: bytes) -> None:
        """Take in the next bytes."""
        self._reader.feed_data(data)
        next(self._parser)


class Relay:
    """Passes one connection on to ``port``; ``sent`` and ``answered`` are its two directions, as the client sees them."""

    def __init__(self, port: int) -> None:
        self.sent, self.answered = Tap(masked=True), Tap(masked=False)
        self._to = port
        self._door = socket.create_server(("127.0.0.1", 0))
        self.uri = f"ws://127.0.0.1:{self._door.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        near, _ = self._door.accept()
        self._door.close()
        far = socket.create_connection(("127.0.0.1", self._to))
        for end in (near, far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=self._pass, args=(near, far, self.sent), daemon=True).start()
        threading.Thread(target=self._pass, args=(far, near, self.answered), daemon=True).start()

    @staticmethod
    def _pass(source: socket.socket, target: socket.socket, tap: Tap) -> None:
        try:
            while data := source.recv(1 << 16):
                tap.feed(data)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:  # one side broke; the other learns it from its own socket
            pass
