"""A TCP proxy before Redis, whose clients can be cut off."""

from __future__ import annotations

import asyncio
from typing import Literal

# hold: bytes wait, and travel once the cut is over, as TCP's retransmissions do after a partition.
# drop: bytes are lost; a connection that has lost some is reset once the cut is over.
# reset: connections are reset at once, and so is every new one.
Cut = Literal["hold", "drop", "reset"]


class Proxy:
    """Carry bytes between clients on a loopback port and a server on another.

    Args:
        port: Where clients connect.
        upstream: The server's port.
    """

    def __init__(self, port: int, upstream: int) -> None:
        self._port = port
        self._upstream = upstream
        self._mode: Cut | None = None
        self._flows = asyncio.Event()
        self._flows.set()
        self._links: dict[asyncio.StreamWriter, bool] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)

    async def close(self) -> None:
        """Listen no longer, and reset all connections."""
        self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def cut(self, mode: Cut) -> None:
        """Cut all clients off."""
        self._mode = mode
        if mode == "reset":
            self._reset(list(self._links))
        else:
            self._flows.clear()

    def heal(self) -> None:
        """Let bytes flow again."""
        self._mode = None
        self._reset([writer for writer, has_lost in self._links.items() if has_lost])
        self._flows.set()

    @staticmethod
    def _reset(writers: list[asyncio.StreamWriter]) -> None:
        for writer in writers:
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.CancelledError):  # asyncio's server logs what its callback lets through
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._mode == "reset":
            return
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        self._links[writer] = False
        up = asyncio.create_task(self._carry(reader, server_writer, writer))
        down = asyncio.create_task(self._carry(server_reader, writer, writer))
        try:
            await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
            await self._flows.wait()  # who is cut off does not hear of the other's end either
        finally:
            for task in (up, down):
                task.cancel()
            await asyncio.gather(up, down, return_exceptions=True)
            del self._links[writer]
            server_writer.transport.abort()

    async def _carry(self, source: asyncio.StreamReader, to: asyncio.StreamWriter, link: asyncio.StreamWriter) -> None:
        while data := await source.read(1 << 16):
            if self._mode == "drop":
                self._links[link] = True
                continue
            await self._flows.wait()
            to.write(data)
            await to.drain()
