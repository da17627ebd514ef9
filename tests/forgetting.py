"""A way to a Redis that forgets: at one script it notes what is on disk, at a later one it is killed and back there."""

from __future__ import annotations

import asyncio

from tests.redis_server import RedisServer
from tests.relay import Relay


class Forgetting(Relay):
    """Carry bytes between clients on a unix socket and a server, and count the scripts that clients call.

    Args:
        server: The server; our socket is beside its.
        remember_at: The call before which it still has everything afterwards.
        forget_at: The call in which it is killed, and starts without what was written between the two.

    Attributes:
        has_forgotten: Set once it is back.
    """

    def __init__(self, server: RedisServer, remember_at: int, forget_at: int) -> None:
        super().__init__(server.socket)
        self.has_forgotten = asyncio.Event()
        self._redis = server
        self._remember_at, self._forget_at = remember_at, forget_at
        self._calls = 0
        self._going: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()

    async def carry_up(
        self, source: asyncio.StreamReader, to: asyncio.StreamWriter, client: asyncio.StreamWriter
    ) -> None:
        """Count the calls, and let the server remember and forget."""
        while data := await source.read(1 << 16):
            async with self._lock:
                before, self._calls = self._calls, self._calls + data.count(b"EVALSHA")
                if before < self._remember_at <= self._calls:
                    await asyncio.to_thread(self._redis.remember)
                to.write(data)
                await to.drain()
                if before < self._forget_at <= self._calls:
                    self._going = asyncio.create_task(self._forget())

    async def _forget(self) -> None:
        await asyncio.to_thread(self._redis.forget)
        self.has_forgotten.set()
