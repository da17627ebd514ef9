"""The jobs that the benchmarks run."""

from __future__ import annotations

import asyncio

from straggler import job


@job
async def noop(number: int) -> int:
    """Do nothing."""
    return number


@job
async def nap(seconds: float) -> None:
    """Wait, as a call to somewhere does."""
    await asyncio.sleep(seconds)


@job
async def work(number: int, *, hangs: bool = False) -> int:
    """Return at once, or never."""
    if hangs:
        await asyncio.Event().wait()
    return number
