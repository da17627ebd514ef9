"""Jobs that wait as asyncio alone runs them, in a process of its own: no queue, no timeout that is kept, no result.

    python -m benchmarks.naps semaphore 5000 100      # each in `wait_for`, 100 at a time
    python -m benchmarks.naps loop 5000 100           # nothing but 100 tasks that sleep again and again

Prints the seconds that it took. What a queue adds to that is what it costs; what is missing here to the ideal, no queue
on this machine can reach.
"""

from __future__ import annotations

import asyncio
import sys
import time

NAP = 0.02


async def by_semaphore(count: int, slots: int) -> float:
    """Run so many jobs of 20 ms, so many at a time, each in `wait_for`; returns how long it took, s."""
    free = asyncio.Semaphore(slots)

    async def one() -> None:
        async with free:
            await asyncio.wait_for(asyncio.sleep(NAP), 300)

    started = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(count)))
    return time.perf_counter() - started


async def by_loop(count: int, slots: int) -> float:
    """Sleep as often, in as many tasks as there are slots; returns how long it took, s."""
    left = iter(range(count))

    async def slot() -> None:
        for _ in left:
            await asyncio.sleep(NAP)

    started = time.perf_counter()
    await asyncio.gather(*(slot() for _ in range(slots)))
    return time.perf_counter() - started


if __name__ == "__main__":
    way = {"semaphore": by_semaphore, "loop": by_loop}[sys.argv[1]]
    print(asyncio.run(way(int(sys.argv[2]), int(sys.argv[3]))))
