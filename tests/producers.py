"""Producers to be killed: `python -m tests.producers submit|collect REDIS_URL BATCH_ID`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

from straggler import JobSpec, Producer
from tests.jobs import square

JOBS = 20_000


async def slow_squares() -> AsyncIterator[JobSpec[int]]:
    """Yield jobs over some seconds, so that there is time to be killed in."""
    for number in range(JOBS):
        yield square.spec(number)
        if number % 256 == 0:
            await asyncio.sleep(0.02)


async def submit(producer: Producer, batch_id: str) -> None:
    await producer.submit(slow_squares(), batch_id=batch_id)


async def collect(producer: Producer, batch_id: str) -> None:
    """Print each result's index, and the cursor behind it."""
    batch = await producer.attach(batch_id)
    async for result in batch.as_completed():
        sys.stdout.write(f"{result.index} {batch.cursor}\n")
        sys.stdout.flush()


async def main(what: str, redis_url: str, batch_id: str) -> None:
    async with Producer(redis_url) as producer:
        await {"submit": submit, "collect": collect}[what](producer, batch_id)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
