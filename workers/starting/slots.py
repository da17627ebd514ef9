"""A worker's slots: how many jobs it runs at a time, counted over all its chunks."""

from __future__ import annotations

import asyncio
from collections import deque

# Jobs that end at once hold no slot that counts: so many are taken on as are over within this time, s, but no more
# than one claim brings. What another worker could start now waits no longer for it.
_AHEAD = 0.005
_MOST_AHEAD = 1000


class Slots:
    """Count free slots and let jobs wait for one, first come, first served.

    Args:
        total: How many there are.
        ahead: How many more jobs are taken on, in any case, than there are free slots.

    Attributes:
        waiting: Jobs that are here and have not started.
    """

    def __init__(self, total: int, ahead: int = 0) -> None:
        self.total = total
        self._least_ahead = ahead
        self.free = total
        self.waiting = 0
        self._ahead = 0
        self._typical = 0.0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._freed = asyncio.Event()

    @property
    def used(self) -> int:
        """Jobs that hold a slot."""
        return self.total - self.free

    @property
    def spare(self) -> int:
        """How many more jobs may be taken on: as many as can start at once, or will be over within milliseconds."""
        soon_free = int(self.used * min(1.0, _AHEAD / self._typical)) if self._typical else 0
        return self.free - self.waiting + max(self._least_ahead, self._ahead, soon_free)

    def took(self, seconds: float) -> None:
        """Take note of how long a job has held its slot: of short ones a chunk is there before all its slots are."""
        self._typical += 0.1 * (seconds - self._typical) if self._typical else seconds

    def took_turn(self, pace: float) -> None:
        """Take note of how many jobs/s have ended at once, without awaiting; 0 where the last one did not."""
        self._ahead = min(_MOST_AHEAD, int(pace * _AHEAD))
        self.tell()

    def tell(self) -> None:
        """Let those look again who wait for spare slots."""
        self._freed.set()

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

    async def wait_spare(self, count: int) -> None:
        """Wait until this many jobs may be taken on at once; takes none."""
        while self.spare < min(count, self.total):
            self._freed.clear()
            await self._freed.wait()
