"""The `websockets` library by itself, compression off: what a remote runtime could at most be if it did nothing but carry bytes.

    echo   a `websockets.sync` client and a `websockets.asyncio` server in another process, small messages
    put    an asyncio client and the same server: one large message up in 1 MiB fragments, a short answer
    get    a short question, one large message down in 1 MiB fragments
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from typing import Any

from _serve import Command, serve

FRAGMENT = 1 << 20


def _fragments(data: bytes) -> list[memoryview]:
    view = memoryview(data)
    return [view[at : at + FRAGMENT] for at in range(0, len(view), FRAGMENT)]


# -- the server's process


async def _answer(connection: Any) -> None:
    """Answer as the client's first message says: {"answer": size} to every message, or {"get": size} in fragments to every "get"."""
    sizes = json.loads(await connection.recv())
    short, large = bytes(sizes.get("answer", 2)), bytes(sizes.get("get", 0))
    await connection.send(b"ready")
    async for message in connection:
        await connection.send(_fragments(large) if message == "get" else short)


async def _listen() -> None:
    from websockets.asyncio.server import serve as listen

    async with listen(_answer, "127.0.0.1", 0, compression=None, max_size=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


# -- the client's


class _Echo:
    """Both ends' sizes are fixed when a connection opens: one is kept for each pair."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._connections: dict[tuple[int, int], Any] = {}

    def run(self, count: int, request: int, answer: int) -> float:
        """``count`` round trips of a ``request``-byte message and an ``answer``-byte one."""
        from websockets.sync.client import connect

        connection = self._connections.get((request, answer))
        if connection is None:
            connection = self._connections[request, answer] = connect(self.uri, compression=None, max_size=None)
            connection.send(json.dumps({"answer": answer}))
            connection.recv()
        payload, reply = bytes(request), b""
        began = time.perf_counter()
        for _ in range(count):
            connection.send(payload)
            reply = connection.recv()
        seconds = time.perf_counter() - began
        assert len(reply) == answer, (len(reply), answer)
        return seconds


class _Bulk:
    """One warm connection of an asyncio client, whose loop runs only while a command does."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._loop = asyncio.new_event_loop()
        self._connection: Any = None
        self._payload = b""

    async def _open(self, size: int) -> None:
        from websockets.asyncio.client import connect

        if self._connection is None or len(self._payload) != size:
            self._payload = bytes(size)
            self._connection = await connect(self.uri, compression=None, max_size=None)
            await self._connection.send(json.dumps({"get": size}))
            await self._connection.recv()

    async def _transfer(self, size: int, count: int, up: bool) -> float:
        await self._open(size)
        began = time.perf_counter()
        for _ in range(count):
            await self._connection.send(_fragments(self._payload) if up else "get")
            reply = await self._connection.recv()
        seconds = time.perf_counter() - began
        assert len(reply) == (2 if up else size), len(reply)
        return seconds

    def put(self, size: int, count: int) -> float:
        """``count`` messages of ``size`` bytes up, each answered."""
        return self._loop.run_until_complete(self._transfer(size, count, True))

    def get(self, size: int, count: int) -> float:
        """``count`` messages of ``size`` bytes down, each asked for."""
        return self._loop.run_until_complete(self._transfer(size, count, False))


def start() -> tuple[str, dict[str, Command]]:
    """Start the server's process."""
    import websockets

    process = subprocess.Popen([sys.executable, __file__, "--listen"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    uri = f"ws://127.0.0.1:{int(process.stdout.readline())}"
    bulk = _Bulk(uri)
    return websockets.__version__, {"echo": _Echo(uri).run, "put": bulk.put, "get": bulk.get}


if __name__ == "__main__":
    if "--listen" in sys.argv:
        asyncio.run(_listen())
    else:
        serve(start)
