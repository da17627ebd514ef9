"""Ctrl-C while a batch is collected: the first leaves it running, a second one, soon after, cancels it."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

from redis.exceptions import RedisError

from producer.batch import Batch
from protocol.errors import StragglerError
from straggler.commands.process import say

# How long a second Ctrl-C is waited for, s.
_SECOND_THOUGHTS = 2.0


async def cancel_if_told_again(batch: Batch[Any]) -> None:
    """Wait a moment for another Ctrl-C, and cancel the batch if it comes; one more breaks that off."""
    # In a task of its own: up to Python 3.11.2 timeouts misbehave in one that was cancelled, as the first Ctrl-C does.
    if await asyncio.create_task(_is_told_again()):
        try:
            count = await asyncio.create_task(batch.cancel(reason="Ctrl-C"))
        except (StragglerError, RedisError) as error:
            say(f"batch {batch.id} could not be cancelled: {error}")
        else:
            say(f"batch {batch.id} is cancelled: {count:,} jobs had no result yet")


async def _is_told_again() -> bool:
    loop, again = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGINT, again.set)
    say(f"press Ctrl-C again within {_SECOND_THOUGHTS:g} s to cancel it")
    try:
        async with asyncio.timeout(_SECOND_THOUGHTS):
            await again.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_signal_handler(signal.SIGINT)
    return True
