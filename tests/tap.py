"""A way to Redis on which one call of a script is held: before Redis has it, or before its reply is heard."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from protocol import lua
from tests.relay import Relay


class Tap(Relay):
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
        super().__init__(upstream)
        self.is_there = asyncio.Event()
        self.calls = 0
        self.passed = asyncio.Event()
        self._words = lua.sha(script).encode(), word.encode()
        self._before = before
        self._nth = nth
        self._opened = asyncio.Event()
        self._held: asyncio.StreamWriter | None = None

    def open(self) -> None:
        """Let what is held go on."""
        self._opened.set()

    def lose(self) -> None:
        """Lose what is held, and its connection."""
        assert self._held is not None
        self._held.transport.abort()
        self._opened.set()

    async def carry_up(
        self, source: asyncio.StreamReader, to: asyncio.StreamWriter, client: asyncio.StreamWriter
    ) -> None:
        """Hold the call, if that is wanted."""
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

    async def carry_down(self, source: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        """Hold its reply, if that is wanted."""
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
