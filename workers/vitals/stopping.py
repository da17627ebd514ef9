"""Waits that end: whatever waits when a worker is told to stop waits no longer, nor what has its time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Stopping:
    """Whether a worker was told to stop. Its main task waits through it for all that may not come."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        # The task that waits for something else, while it does.
        self._waiting: asyncio.Task[Any] | None = None

    @property
    def is_set(self) -> bool:
        """Whether the worker was told to stop."""
        return self._event.is_set()

    def set(self) -> None:
        """Tell it."""
        self._event.set()
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.cancel()

    async def unless_set(self, wanted: Coroutine[Any, Any, T]) -> T | None:
        """Wait for something, but no longer than until the worker is told to stop: then None, and it is cancelled.

        It takes no task of its own: two of them and their end were a tenth of a lone job's way.
        """
        if self.is_set:
            wanted.close()
            return None
        waiting = self._waiting = asyncio.current_task()
        try:
            return await wanted
        except asyncio.CancelledError:
            if not self.is_set or waiting is None or waiting.uncancel() > 0:
                raise
            return None
        finally:
            self._waiting = None

    async def until_set(self, work: Coroutine[Any, Any, None], farewell: float) -> None:
        """Let work go on until the worker is told to stop, and then come to its end within `farewell` s."""
        working, stopping = asyncio.create_task(work), asyncio.create_task(self._event.wait())
        try:
            await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({working}, timeout=farewell)
        finally:
            for task in (working, stopping):
                task.cancel()
            await asyncio.gather(working, stopping, return_exceptions=True)
        if not working.cancelled():
            working.result()


async def within(seconds: float, wait: Callable[..., Awaitable[None]], *args: Any) -> None:
    """Wait for something, but no longer than so many seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await wait(*args)
