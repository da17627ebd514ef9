"""Read a blocking source, such as stdin, beside the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")

# What is read ahead, at most.
_AHEAD = 4096


async def in_thread(items: Iterable[T]) -> AsyncIterator[T]:
    """Iterate in a thread, and yield here what it yields as it comes; raises what it raises.

    The thread is a daemon: one that waits for input which never comes keeps no process alive.
    """
    handover: _Handover[T] = _Handover(asyncio.get_running_loop())
    threading.Thread(target=handover.fill, args=(items,), name="straggler-reader", daemon=True).start()
    try:
        while batch := await handover.take():
            for item in batch:
                yield item
        if handover.error is not None:
            raise handover.error
    finally:
        handover.stop()


class _Handover(Generic[T]):
    """Items on their way from a thread to the loop, which is woken once for all that came meanwhile."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._arrived = asyncio.Event()
        self._changed = threading.Condition()
        self._items: deque[T] = deque()
        self._ended = False
        self._stopped = False
        self.error: BaseException | None = None

    def fill(self, items: Iterable[T]) -> None:
        """Put all items, in the thread."""
        try:
            for item in items:
                with self._changed:
                    self._changed.wait_for(lambda: self._stopped or len(self._items) < _AHEAD)
                    if self._stopped:
                        return
                    self._items.append(item)
                    if len(self._items) == 1:
                        self._wake()
        except BaseException as error:  # noqa: BLE001  # raised again on the loop's side
            self.error = error
        finally:
            with self._changed:
                self._ended = True
                self._wake()

    async def take(self) -> list[T]:
        """Return what has come, at least one item; nothing at the end."""
        while True:
            with self._changed:
                items = list(self._items)
                self._items.clear()
                self._arrived.clear()
                self._changed.notify()
                if items or self._ended:
                    return items
            await self._arrived.wait()

    def stop(self) -> None:
        """Let the thread end at its next item."""
        with self._changed:
            self._stopped = True
            self._changed.notify()

    def _wake(self) -> None:
        with suppress(RuntimeError):  # the loop is gone
            self._loop.call_soon_threadsafe(self._arrived.set)
