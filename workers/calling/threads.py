"""Run plain functions in threads of the worker, for calls that surely end.

A thread cannot be stopped. One whose job has timed out runs on; it is counted with the coroutines that were left
behind, until it ends at last.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class Threads:
    """A worker's threads, started when they are first needed.

    Args:
        limit: How many.
        left_behind: Where threads are kept whose jobs are over while they run on.
    """

    def __init__(self, limit: int, left_behind: set[Any]) -> None:
        self._limit = limit
        self._left_behind = left_behind
        self._pool: ThreadPoolExecutor | None = None

    async def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function in a thread; if this is cancelled, the thread is left behind."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._limit, thread_name_prefix="straggler-thread")
        running = self._pool.submit(contextvars.copy_context().run, function, *args)
        try:
            return await asyncio.wrap_future(running)
        except asyncio.CancelledError:
            if not running.done():
                self._leave(running)
            raise

    def close(self) -> None:
        """Start no more threads; those that run are not waited for."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _leave(self, running: Future[Any]) -> None:
        loop = asyncio.get_running_loop()
        self._left_behind.add(running)

        def forget(ended: Future[Any]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody counts any more
                loop.call_soon_threadsafe(self._left_behind.discard, ended)

        running.add_done_callback(forget)
