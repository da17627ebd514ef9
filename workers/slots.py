"""A worker's slots: how many jobs it runs at a time, counted over all its chunks."""

from __future__ import annotations

import asyncio
from collections import deque


class Slots:
    """Count free slots and let jobs wait for one, first come, first served.

    Args:
        total: How many there are.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.free = total
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._freed = asyncio.Event()

    @property
    def used(self) -> int:
        """Jobs that hold a slot."""
        return self.total - self.free

    def try_take(self) -> bool:
        """Take a slot if one is free and nobody waits for it."""
        if self.free and not self._waiting:
            self.free -= 1
            return True
        return False

    async def take(self) -> None:
        """Take a slot, as soon as one is free."""
        if self.try_take():
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give()
            raise

    def give(self) -> None:
        """Give a slot back, to who waits longest."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.free += 1
        self._freed.set()

    async def wait_free(self, count: int) -> None:
        """Wait until this many slots are free at once; takes none."""
        while self.free < min(count, self.total):
            self._freed.clear()
            await self._freed.wait()
