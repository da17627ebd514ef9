"""An event loop in a thread of its own, on which other threads run coroutines and wait for them."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, wait
from typing import Any, Generic, TypeVar

from protocol.errors import StragglerError, UsageError

T = TypeVar("T")

# A coroutine that is cancelled, as its caller waits no longer, gets this long, s, to end.
_FAREWELL = 5.0


class Portal:
    """A loop in a thread, which is started by the first call and ends with `close`.

    The thread is a daemon: a script that ends without `close` ends all the same.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._is_closed = False
        self._pid = os.getpid()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop, which runs.

        Raises:
            UsageError: If it is closed, or another process's.
        """
        if os.getpid() != self._pid:  # its thread stayed there
            raise UsageError(
                "this producer is that of the process from which this one was forked: make another one here"
            )
        with self._lock:
            if self._is_closed:
                raise UsageError("this producer is closed: use it inside its 'with', or make another one")
            if self._loop is None:
                self._loop = self._start()
            return self._loop

    def call(self, work: Coroutine[Any, Any, T], feed: Callable[[Future[Any]], None] | None = None) -> T:
        """Run a coroutine on the loop, and wait for it; returns what it returns, raises what it raises.

        Whatever ends the wait before, such as Ctrl-C, cancels it.

        Args:
            work: The coroutine.
            feed: What to do here meanwhile; it is given what the coroutine will end in.

        Raises:
            UsageError: If this is the loop's own thread, which would wait for itself; or it is closed.
            StragglerError: If it was closed in the middle, by another thread.
        """
        try:
            loop = self._loop_for_others()
        except UsageError:
            work.close()
            raise
        call = _Call(work)
        loop.call_soon_threadsafe(call.start)
        try:
            if feed is not None:
                feed(call.outcome)
            return call.outcome.result()
        except asyncio.CancelledError:
            raise StragglerError("the producer was closed while this call waited; batches go on") from None
        except BaseException:
            if not call.outcome.done():
                loop.call_soon_threadsafe(call.cancel)
                wait([call.outcome], timeout=_FAREWELL)
            raise

    def close(self) -> None:
        """End the loop, with all that still runs on it, and the thread; those of another process go on."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            self._is_closed = True
            thread, loop = self._thread, self._loop
        if thread is not None and loop is not None and thread.is_alive():
            loop.call_soon_threadsafe(self._stop.set)
            thread.join()

    def _loop_for_others(self) -> asyncio.AbstractEventLoop:
        loop = self.loop
        if threading.current_thread() is self._thread:
            raise UsageError("a sync producer cannot be used on its own event loop: use straggler.Producer there")
        return loop

    def _start(self) -> asyncio.AbstractEventLoop:
        started: Future[asyncio.AbstractEventLoop] = Future()

        async def stay() -> None:
            started.set_result(asyncio.get_running_loop())
            await self._stop.wait()

        self._thread = threading.Thread(target=asyncio.run, args=(stay(),), name="straggler-sync", daemon=True)
        self._thread.start()
        return started.result()


class _Call(Generic[T]):
    """One coroutine on its way through the portal."""

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self.outcome: Future[T] = Future()
        self._work = work
        self._task: asyncio.Task[T] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._work)
        self._task.add_done_callback(self._settle)

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _settle(self, task: asyncio.Task[T]) -> None:
        if task.cancelled():
            self.outcome.set_exception(asyncio.CancelledError())
        elif error := task.exception():
            self.outcome.set_exception(error)
        else:
            self.outcome.set_result(task.result())
