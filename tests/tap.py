"""A way to Redis on which one call of a script is held: before Redis has it, or before its reply is heard."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Self

from protocol import lua


class Tap:
    """Carry bytes between clients on a unix socket and a server on another, and hold one call of its kind.

    Args:
        upstream: The server's socket; ours is beside it.
        script: Which script's call is held.
        word: What stands in the call, too.
        before: Whether it is held before Redis has it; else its reply is.
        nth: Which such call, by when it comes, from 1.

    Attributes:
        is_there: Set once the call, or its reply, is held.
        calls: How many calls of that kind have come.
        passed: Set once what was held has gone on.
    """

    def __init__(self, upstream: Path, script: str, word: str, *, before: bool, nth: int = 1) -> None:
        self.path = upstream.with_suffix(".tap")
        self.url = f"unix://{self.path}"
        self.is_there = asyncio.Event()
        self.calls = 0
        self.passed = asyncio.Event()
        self._upstream = upstream
        self._words = lua.sha(script).encode(), word.encode()
        self._before = before
        self._nth = nth
        self._opened = asyncio.Event()
        self._held: asyncio.StreamWriter | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._accept, self.path)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def open(self) -> None:
        """Let what is held go on."""
        self._opened.set()

    def lose(self) -> None:
        """Lose what is held, and its connection."""
        assert self._held is not None
        self._held.transport.abort()
        self._opened.set()

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
        up = asyncio.create_task(self._carry_up(client_reader, server, client))
        down = asyncio.create_task(self._carry_down(reader, client))
        try:
            await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (up, down):
                task.cancel()
            await asyncio.gather(up, down, return_exceptions=True)

    async def _carry_up(
        self, source: asyncio.StreamReader, to: asyncio.StreamWriter, client: asyncio.StreamWriter
    ) -> None:
        while data := await source.read(1 << 16):
            if all(word in data for word in self._words):
                self.calls += 1
                if self.calls == self._nth:
                    self._held = client
                    if self._before:
                        await self._hold()
            to.write(data)
            await to.drain()
            self._note(client)

    async def _carry_down(self, source: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        while data := await source.read(1 << 16):
            if client is self._held and not self._before:
                await self._hold()
            with contextlib.suppress(OSError):
                client.write(data)
                await client.drain()
            self._note(client)

    def _note(self, client: asyncio.StreamWriter) -> None:
        if client is self._held and self._opened.is_set():
            self.passed.set()

    async def _hold(self) -> None:
        self.is_there.set()
        await self._opened.wait()
