"""Items on their way from a thread, whose source may block, to an event loop in another."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Iterable
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")


class Handover(Generic[T]):
    """Hand items over; the loop is woken once for all that came meanwhile.

    Args:
        loop: Where they go.
        ahead: How many may be on their way.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, ahead: int) -> None:
        self._loop = loop
        self._ahead = ahead
        self._arrived = asyncio.Event()
        self._changed = threading.Condition()
        self._items: deque[T] = deque()
        self._ended = False
        self._stopped = False
        self._error: BaseException | None = None

    def fill(self, items: Iterable[T]) -> None:
        """Put all items, in the thread that they come from; what the source raises is raised on the loop's side.

        Raises:
            BaseException: What is no Exception, such as a KeyboardInterrupt; the loop's side is cancelled.
        """
        try:
            for item in items:
                with self._changed:
                    self._changed.wait_for(lambda: self._stopped or len(self._items) < self._ahead)
                    if self._stopped:
                        return
                    self._items.append(item)
                    if len(self._items) == 1:
                        self._wake()
        except Exception as error:  # noqa: BLE001  # raised again on the loop's side
            self._error = error
        except BaseException:
            self._error = asyncio.CancelledError()
            raise
        finally:
            with self._changed:
                self._ended = True
                self._wake()

    async def stream(self) -> AsyncGenerator[T, None]:
        """Yield all items, on the loop."""
        try:
            while items := await self._take():
                for item in items:
                    yield item
            if self._error is not None:
                raise self._error
        finally:
            self.stop()

    def stop(self) -> None:
        """Let the thread end at its next item."""
        with self._changed:
            self._stopped = True
            self._changed.notify()

    async def _take(self) -> list[T]:
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

    def _wake(self) -> None:
        with suppress(RuntimeError):  # the loop is gone
            self._loop.call_soon_threadsafe(self._arrived.set)
