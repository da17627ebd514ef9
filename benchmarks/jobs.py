"""The jobs that the benchmarks run."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from straggler import current_job, job


@job
async def noop(number: int) -> int:
    """Do nothing."""
    return number


@job
async def pause(seconds: float) -> None:
    """Wait, as a call to somewhere does."""
    await asyncio.sleep(seconds)


@job
def plain_pause(seconds: float) -> None:
    """Wait in a process, as a plain function."""
    time.sleep(seconds)


@job
async def may_hang(number: int, hangs: bool) -> int:  # noqa: FBT001  # rows of arguments have no keywords
    """Return at once, or never."""
    if hangs:
        await asyncio.Event().wait()
    return number


@job
async def rough(number: int) -> int:
    """Never return in one of twenty cases, fail at first in another."""
    if number % 20 == 0:
        await asyncio.Event().wait()
    if number % 20 == 1 and current_job().attempt == 1:
        raise ValueError(number)
    return number


@job
async def fetch_page(url: str, retries: int = 0) -> int:
    """Do nothing, called as jobs are that fetch pages."""
    return len(url) + retries


@job
async def keep_document(number: int, document: dict[str, Any]) -> int:  # it is to travel
    """Do nothing with much."""
    return number
