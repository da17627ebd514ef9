"""The other end of a bare round trip: takes what is pushed to `ping` by a blocking pop, and pushes it to `pong`.

    python -m benchmarks.echo URL

Ends with the process that started it.
"""

from __future__ import annotations

import asyncio
import sys

from protocol.reach import connected

PING, PONG = "ping", "pong"


async def echo(url: str) -> None:
    """Answer until the end."""
    async with connected(url) as redis:
        while True:
            taken = await redis.blpop([PING], timeout=0)  # type: ignore[misc]  # redis-py says it may be no awaitable
            await redis.lpush(PONG, taken[1])  # type: ignore[misc]  # as above


if __name__ == "__main__":
    asyncio.run(echo(sys.argv[1]))
