"""Ctrl-C while a batch is collected: the first leaves it running, a second one, soon after, cancels it."""

from __future__ import annotations

import asyncio
import signal
from typing import Any, Self

from redis.exceptions import RedisError

from producer.batch import Batch
from protocol.errors import StragglerError
from straggler.commands.process import say

# How long a second Ctrl-C is waited for, s.
_SECOND_THOUGHTS = 2.0


class Interrupts:
    """Listen to Ctrl-C, in the task that collects: the first cancels that task, a second one is remembered.

    Listened is from the start, not only once the first has been answered: two may come within a millisecond.
    """

    def __init__(self) -> None:
        self._collecting: asyncio.Task[Any] | None = None  # until it is cancelled
        self._again = asyncio.Event()
        self._before: Any = None

    def __enter__(self) -> Self:
        self._collecting = asyncio.current_task()
        self._before = signal.getsignal(signal.SIGINT)
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        if asyncio.get_running_loop().remove_signal_handler(signal.SIGINT):
            signal.signal(signal.SIGINT, self._before)

    async def cancel_if_told_again(self, batch: Batch[Any]) -> None:
        """Wait a moment for another Ctrl-C, and cancel the batch if it comes; one more breaks that off."""
        # In tasks of their own: up to Python 3.11.2 timeouts misbehave in one that was cancelled, as this one was.
        is_told_again = await asyncio.create_task(self._is_told_again())
        self.__exit__()
        if is_told_again:
            try:
                count = await asyncio.create_task(batch.cancel(reason="Ctrl-C"))
            except (StragglerError, RedisError) as error:
                say(f"batch {batch.id} could not be cancelled: {error}")
            else:
                say(f"batch {batch.id} is cancelled: {count:,} jobs had no result yet")

    def _hear(self) -> None:
        if self._collecting is None:
            self._again.set()
        else:
            self._collecting.cancel()
            self._collecting = None

    async def _is_told_again(self) -> bool:
        say(f"press Ctrl-C again within {_SECOND_THOUGHTS:g} s to cancel it")
        try:
            async with asyncio.timeout(_SECOND_THOUGHTS):
                await self._again.wait()
        except TimeoutError:
            return False
        return True
