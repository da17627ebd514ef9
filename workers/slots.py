"""A worker's slots: how many jobs it runs at a time, counted over all its chunks."""

from __future__ import annotations

import asyncio
from collections import deque


class Slots:
    """Count free slots and let jobs wait for them, first come, first served.

    Args:
        total: How many there are.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._free = total
        self._waiting: deque[tuple[asyncio.Future[None], int]] = deque()
        self._freed = asyncio.Event()

    @property
    def free(self) -> int:
        """Slots that a job may have at once: none while somebody waits."""
        return 0 if self._waiting else self._free

    @property
    def used(self) -> int:
        """Slots that are held."""
        return self.total - self._free

    def try_take(self) -> bool:
        """Take a slot if one is free and nobody waits for it."""
        if self.free:
            self._free -= 1
            return True
        return False

    async def take(self, count: int = 1) -> None:
        """Take a slot, or so many at once, as soon as they are free."""
        if self.free >= count:
            self._free -= count
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, count))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give(count)
            else:
                self.give(0)  # who waits behind may go
            raise

    def give(self, count: int = 1) -> None:
        """Give slots back, to who waits longest."""
        self._free += count
        while self._waiting and (self._waiting[0][0].done() or self._waiting[0][1] <= self._free):
            turn, wanted = self._waiting.popleft()
            if not turn.done():
                self._free -= wanted
                turn.set_result(None)
        self._freed.set()

    async def wait_free(self, count: int) -> None:
        """Wait until this many slots are free at once; takes none."""
        while self.free < min(count, self.total):
            self._freed.clear()
            await self._freed.wait()
