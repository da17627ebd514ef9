"""What the jobs of one worker share, e.g. an HTTP session: made at first use, closed with the worker.

A worker enters its `Resources` into the context of the chunks that it runs, and with that into all their jobs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from typing import Any, TypeVar, cast

logger = logging.getLogger(__name__)

T = TypeVar("T")

_current: ContextVar[Resources] = ContextVar("straggler_resources")

# A worker that is told to stop must not hang on a peer that never says goodbye.
_LONGEST_CLOSE = 5.0


class Resources:
    """Hold what was made, and close it in reverse order."""

    def __init__(self) -> None:
        self._made: dict[Callable[[], Any], Any] = {}
        self._making = asyncio.Lock()
        self._stack = AsyncExitStack()

    def enter(self) -> None:
        """Let `shared` find these resources for the rest of the current task, and in the tasks that it starts."""
        _current.set(self)

    async def get(self, make: Callable[[], AbstractAsyncContextManager[T]]) -> T:
        """Return what `make` made, entered; it is called once."""
        if make not in self._made:
            async with self._making:
                if make not in self._made:
                    self._made[make] = await self._stack.enter_async_context(make())
        return cast("T", self._made[make])

    async def close(self) -> None:
        """Close all; what cannot be closed is logged and left."""
        try:
            async with asyncio.timeout(_LONGEST_CLOSE):
                await self._stack.aclose()
        except Exception:  # the worker has run its jobs: nothing is lost
            logger.exception("what jobs shared could not be closed", extra={"event": "worker.close_failed"})


@asynccontextmanager
async def shared(make: Callable[[], AbstractAsyncContextManager[T]]) -> AsyncIterator[T]:
    """Yield what `make` makes: in a worker the one that all its jobs share, elsewhere one for this call alone.

    Args:
        make: Called without arguments, on the event loop; the function itself is the name of what it makes.
    """
    resources = _current.get(None)
    if resources is not None:
        yield await resources.get(make)
        return
    async with make() as own:
        yield own
