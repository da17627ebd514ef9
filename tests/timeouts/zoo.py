"""The zoo: jobs that misbehave, each in its own way, and what must become of them.

Here are those that await, and never end by themselves; the others are next door.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

from straggler import current_job, job
from tests.timeouts import blocking, ending, plain
from tests.timeouts.rows import FOR_EVER, GRACE, animal

ROOMS = (blocking, ending, plain)
"""The rest of the zoo: importing it is what makes its jobs known."""


@job
async def ordinary(number: int) -> int:
    """Behave: wait a little, return."""
    await asyncio.sleep(number % 20 / 1000)
    return number


@animal("timeout", "cancelled")
async def hangs() -> None:
    """Wait for what never comes."""
    await asyncio.Event().wait()


@animal("timeout", "abandoned")
async def swallows() -> None:
    """Swallow the cancellation, and wait on."""
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(FOR_EVER)
    await asyncio.sleep(FOR_EVER)


@animal("timeout", "abandoned")
async def swallows_again_and_again() -> None:
    """Swallow every cancellation."""
    end = time.monotonic() + FOR_EVER
    while time.monotonic() < end:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(FOR_EVER)


@animal("timeout", "abandoned")
async def shields_for_ever() -> None:
    """Wait behind a shield, whatever comes."""
    inner = asyncio.create_task(asyncio.sleep(FOR_EVER))
    while not inner.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(inner)


@animal("timeout", "cancelled")
async def swallows_and_returns() -> str:
    """Swallow the cancellation, and return a value as if nothing had been."""
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(FOR_EVER)
    return "done"


@animal("timeout", "cancelled")
async def falls_back() -> str:
    """Take our cancellation for the end of its own timeout."""
    try:
        async with asyncio.timeout(FOR_EVER):
            await asyncio.sleep(FOR_EVER)
    except BaseException:  # noqa: BLE001  # that is what it is here for
        return "fallback"
    return "done"


@animal("timeout", "cancelled")
async def cleans_up_in_time() -> None:
    """Clean up within its grace, and re-raise."""
    try:
        await asyncio.sleep(FOR_EVER)
    except asyncio.CancelledError:
        await asyncio.sleep(GRACE / 3)
        raise


@animal("timeout", "cancelled")
async def raises_in_finally() -> None:
    """Raise another error in its cleanup."""
    try:
        await asyncio.sleep(FOR_EVER)
    finally:
        raise ValueError("broken cleanup")


@animal("timeout", "abandoned")
async def sleeps_in_finally() -> None:
    """Clean up for longer than its grace."""
    try:
        await asyncio.sleep(FOR_EVER)
    finally:
        await asyncio.sleep(FOR_EVER)


@animal("timeout", "cancelled")
async def yields_only() -> None:
    """Give the loop back all the time, and never wait."""
    while True:
        await asyncio.sleep(0)


@animal("timeout", "cancelled", also="interrupted")
async def leaks_threads() -> None:
    """Fill the loop's own thread pool with calls that no cancellation reaches; a busy machine starts them slowly."""
    await asyncio.gather(*(asyncio.to_thread(time.sleep, 5) for _ in range(8)))


@animal("timeout", "late", also="interrupted", blocks=True)
async def returns_late() -> str:
    """Return just after the deadline, without ever having given the loop back."""
    while current_job().remaining():
        pass
    return "done"
