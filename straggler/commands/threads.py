"""Read a blocking source, such as stdin, beside the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from typing import TypeVar

from straggler.handover import Handover

T = TypeVar("T")

# What is read ahead, at most.
_AHEAD = 4096


async def in_thread(items: Iterable[T]) -> AsyncIterator[T]:
    """Iterate in a thread, and yield here what it yields as it comes; raises what it raises.

    The thread is a daemon: one that waits for input which never comes keeps no process alive.
    """
    handover: Handover[T] = Handover(asyncio.get_running_loop(), _AHEAD)
    threading.Thread(target=handover.fill, args=(items,), name="straggler-reader", daemon=True).start()
    async with aclosing(handover.stream()) as stream:
        async for item in stream:
            yield item
