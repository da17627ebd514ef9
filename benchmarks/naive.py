"""No-op jobs as people run them without a queue: `asyncio.gather` over `wait_for`, in a process of its own.

    python -m benchmarks.naive 100000

Prints the seconds that it took. The function is a plain one, none of ours around it.
"""

from __future__ import annotations

import asyncio
import sys
import time


async def noop(number: int) -> int:
    """Do nothing."""
    return number


async def by_gather(count: int) -> float:
    """Run so many jobs, each with a timeout; returns how long it took, s."""
    started = time.perf_counter()
    results = await asyncio.gather(*(asyncio.wait_for(noop(number), 300) for number in range(count)))
    took = time.perf_counter() - started
    assert results == list(range(count))
    return took


async def warm(count: int) -> float:
    """Run a few first."""
    await by_gather(1000)
    return await by_gather(count)


if __name__ == "__main__":
    print(asyncio.run(warm(int(sys.argv[1]))))
