"""Who waits for something scarce, a slot or a process: first come, first served."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class Turns:
    """Wait for turns, and pass them on. True while anybody may be waiting."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[asyncio.Future[None], Callable[[], bool] | None]] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    async def wait(self, give_back: Callable[[], object], use: Callable[[], bool] | None = None) -> None:
        """Wait for a turn.

        Args:
            give_back: What becomes of the turn of one who was cancelled just as it came.
            use: Uses a turn there and then, as it comes, without an end to the waiting; false if it cannot.
        """
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, use))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                give_back()
            raise

    def pass_on(self) -> bool:
        """Give a turn to who waits longest; False if nobody waits."""
        while self._waiting:
            turn, use = self._waiting.popleft()
            if turn.done():
                continue
            if use is not None and use():
                self._waiting.append((turn, use))
            else:
                turn.set_result(None)
            return True
        return False
