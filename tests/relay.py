"""A way to a server on a unix socket, on a socket beside its own; tests do on it what a network does."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Self


class Relay:
    """Carry bytes between clients and a server.

    Args:
        upstream: The server's socket; ours is beside it.

    Attributes:
        url: Ours, as a Redis' URL.
    """

    def __init__(self, upstream: Path) -> None:
        self._path = upstream.with_suffix(".relay")
        self.url = f"unix://{self._path}"
        self._upstream = upstream
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._accept, self._path)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def carry_up(
        self, source: asyncio.StreamReader, to: asyncio.StreamWriter, client: asyncio.StreamWriter
    ) -> None:
        """Carry what a client says."""
        await _carry(source, to)

    async def carry_down(self, source: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        """Carry what the server says."""
        await _carry(source, client)

    async def _accept(self, client_reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            reader, server = await asyncio.open_unix_connection(self._upstream)
            try:
                await self._serve(client_reader, client, reader, server)
            finally:
                server.transport.abort()
        except (OSError, asyncio.CancelledError):  # asyncio's server logs what its callback lets through
            pass
        finally:
            self._tasks.discard(task)
            client.transport.abort()

    async def _serve(
        self,
        client_reader: asyncio.StreamReader,
        client: asyncio.StreamWriter,
        reader: asyncio.StreamReader,
        server: asyncio.StreamWriter,
    ) -> None:
        up = asyncio.create_task(self.carry_up(client_reader, server, client))
        down = asyncio.create_task(self.carry_down(reader, client))
        try:
            await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (up, down):
                task.cancel()
            await asyncio.gather(up, down, return_exceptions=True)


async def _carry(source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(1 << 16):
            to.write(data)
            await to.drain()
