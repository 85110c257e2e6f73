"""A lane: one session's messages, in its order, off the event loop's thread unless they take microseconds.

While a lane computes, the event loop goes on reading (its session's frames wait in the door's inbox), answering pings and serving
other lanes. What a message released is written to the socket before the next message runs, so that nothing can change it on the way.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor

from websockets.asyncio.server import ServerConnection

from syftlite.engine.door import Door
from syftlite.wire.codec import INLINE

MAX_BACKLOG = 20_000


class Lane:
    """Drives ``door``'s messages: inline while they are quick, otherwise on ``pool``; answers go out on ``socket``."""

    def __init__(self, door: Door, socket: ServerConnection, pool: Executor) -> None:
        self.door, self.socket, self.pool = door, socket, pool
        self._pump: asyncio.Task[None] | None = None

    async def feed(self, frame: bytes) -> None:
        """Take in one frame; returns when the lane has room for another."""
        door = self.door
        door.receive(frame)
        if self._pump is None or self._pump.done():
            if door.quick:
                while door.inbox or door.outbox:
                    waiting = len(door.inbox)
                    door.run(quick=True)
                    await self._answer()
                    if door.inbox and len(door.inbox) == waiting:
                        break
            if door.inbox or door.outbox:
                self._pump = asyncio.create_task(self._run())
        if len(door.inbox) > MAX_BACKLOG and self._pump is not None:
            await asyncio.wait([self._pump])

    async def _run(self) -> None:
        door, loop = self.door, asyncio.get_running_loop()
        while door.inbox or door.outbox:
            await loop.run_in_executor(self.pool, self._compute)
            await self._answer()

    def _compute(self) -> None:
        self.door.run(quick=False)

    async def _answer(self) -> None:
        for frame in self.door.frames():
            if len(frame) == 1:
                await self.socket.send(frame[0])
            elif sum(map(len, frame)) <= INLINE:
                await self.socket.send(b"".join(frame))
            else:
                await self.socket.send(frame)
        if self.door.closing is not None:
            await self.socket.close(1008, self.door.closing)

    async def stop(self) -> None:
        """Let the message that is running end, carry out no other, and close the session."""
        self.door.closing = self.door.closing or "gone"
        if self._pump is not None:
            await asyncio.gather(self._pump, return_exceptions=True)
        self.door.leave()
