"""A way to a Redis that forgets: at one script it notes what is on disk, at a later one it is killed and back there."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Self

from tests.redis_server import RedisServer


class Forgetting:
    """Carry bytes between clients on a unix socket and a server, and count the scripts that clients call.

    Args:
        server: The server; our socket is beside its.
        remember_at: The call before which it still has everything afterwards.
        forget_at: The call in which it is killed, and starts without what was written between the two.

    Attributes:
        has_forgotten: Set once it is back.
    """

    def __init__(self, server: RedisServer, remember_at: int, forget_at: int) -> None:
        self.path = server.socket.with_suffix(".forgetting")
        self.url = f"unix://{self.path}"
        self.has_forgotten = asyncio.Event()
        self._server = server
        self._remember_at, self._forget_at = remember_at, forget_at
        self._calls = 0
        self._going: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._door = await asyncio.start_unix_server(self._accept, self.path)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._door.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, client_reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            reader, server = await asyncio.open_unix_connection(self._server.socket)
            ways = {asyncio.create_task(self._up(client_reader, server)), asyncio.create_task(_carry(reader, client))}
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
                server.transport.abort()
        except (OSError, asyncio.CancelledError):  # asyncio's server logs what its callback lets through
            pass
        finally:
            self._tasks.discard(task)
            client.transport.abort()

    async def _up(self, source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        while data := await source.read(1 << 16):
            async with self._lock:
                before, self._calls = self._calls, self._calls + data.count(b"EVALSHA")
                if before < self._remember_at <= self._calls:
                    await asyncio.to_thread(self._server.remember)
                to.write(data)
                await to.drain()
                if before < self._forget_at <= self._calls:
                    self._going = asyncio.create_task(self._forget())

    async def _forget(self) -> None:
        await asyncio.to_thread(self._server.forget)
        self.has_forgotten.set()


async def _carry(source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(1 << 16):
            to.write(data)
            await to.drain()
