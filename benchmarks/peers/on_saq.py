"""SAQ: `Queue.map`, and `Queue.apply` for one; both poll for results, here every 10 ms and every 1 ms."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from saq import Queue


async def noop(_: dict[str, Any], *, number: int) -> int:
    """Do nothing."""
    return number


def queue() -> Queue:
    """Connect; more operations at a time than its default of 20 are faster."""
    return Queue.from_url(os.environ["BENCH_REDIS_URL"], max_concurrent_ops=100)


def settings() -> dict[str, Any]:
    """Tell `saq benchmarks.peers.on_saq.settings` what to run."""
    return {"queue": queue(), "functions": [noop], "concurrency": 100}


@dataclass
class Client:
    """The producer's side."""

    queue: Any

    async def batch(self, count: int) -> list[int]:
        """Map the function over all numbers."""
        numbers = [{"number": number} for number in range(count)]
        values: list[int] = await self.queue.map("noop", numbers, timeout=120, poll_interval=0.01)
        return values

    async def one(self, number: int) -> int:
        """Apply it once."""
        return int(await self.queue.apply("noop", number=number, timeout=10, poll_interval=0.001))


@asynccontextmanager
async def opened() -> AsyncIterator[Client]:
    """Connect."""
    connected = queue()
    await connected.connect()
    yield Client(connected)
    await connected.disconnect()
