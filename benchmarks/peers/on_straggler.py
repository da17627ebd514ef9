"""straggler itself, measured as its peers are."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from benchmarks.jobs import noop
from straggler import Producer


@dataclass
class Client:
    """The producer's side."""

    producer: Producer

    async def batch(self, count: int) -> list[int]:
        """Submit a batch and gather its values."""
        return await (await self.producer.submit(noop.map(range(count)))).gather()

    async def one(self, number: int) -> int:
        """Submit one job."""
        [value] = await (await self.producer.submit([noop.spec(number)])).gather()
        return int(value)


@asynccontextmanager
async def opened() -> AsyncIterator[Client]:
    """Connect."""
    async with Producer(os.environ["BENCH_REDIS_URL"]) as producer:
        yield Client(producer)
