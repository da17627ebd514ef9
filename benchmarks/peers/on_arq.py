"""arq: no bulk call; `enqueue_job` and `Job.result` gathered, a few hundred at a time; a poll delay of 1 ms."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from arq import create_pool
from arq.connections import RedisSettings
from arq.jobs import Job

REDIS = RedisSettings.from_dsn(os.environ["BENCH_REDIS_URL"])
POLL_DELAY = 0.005
AT_A_TIME = 200


async def noop(_: dict[str, Any], number: int) -> int:
    """Do nothing."""
    return number


class WorkerSettings:
    """What `arq benchmarks.peers.on_arq.WorkerSettings` reads."""

    functions = (noop,)
    redis_settings = REDIS
    max_jobs = 50
    poll_delay = POLL_DELAY
    # Results that are kept for longer cost it nothing.
    keep_result = 60


@dataclass
class Client:
    """The producer's side."""

    pool: Any

    async def batch(self, count: int) -> list[int]:
        """Enqueue all, then wait for each."""
        values: list[int] = []
        jobs: list[Job] = []
        for first in range(0, count, AT_A_TIME):
            numbers = range(first, min(first + AT_A_TIME, count))
            jobs += await asyncio.gather(*(self.pool.enqueue_job("noop", number) for number in numbers))
        for first in range(0, count, AT_A_TIME):
            values += await asyncio.gather(*(job.result(poll_delay=0.01) for job in jobs[first : first + AT_A_TIME]))
        return values

    async def one(self, number: int) -> int:
        """Enqueue one and wait for it."""
        job = await self.pool.enqueue_job("noop", number)
        return int(await job.result(poll_delay=POLL_DELAY))


@asynccontextmanager
async def opened() -> AsyncIterator[Client]:
    """Connect."""
    pool = await create_pool(REDIS)
    yield Client(pool)
    await pool.aclose()
