"""taskiq with taskiq-redis: no bulk call; `kiq` gathered, `taskiq.gather` for the results; a list as its queue."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from taskiq import gather
from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend

URL = os.environ["BENCH_REDIS_URL"]
CONNECTIONS = 100
AT_A_TIME = 200

results: Any = RedisAsyncResultBackend(URL, result_ex_time=600, max_connection_pool_size=CONNECTIONS)
broker = ListQueueBroker(URL, max_connection_pool_size=CONNECTIONS).with_result_backend(results)


@broker.task(task_name="noop")  # type: ignore[untyped-decorator]  # its types need its environment
async def noop(number: int) -> int:
    """Do nothing."""
    return number


class Client:
    """The producer's side."""

    async def batch(self, count: int) -> list[int]:
        """Kick all, then gather their results."""
        values: list[int] = []
        tasks: list[Any] = []
        for first in range(0, count, AT_A_TIME):
            numbers = range(first, min(first + AT_A_TIME, count))
            tasks += await asyncio.gather(*(noop.kiq(number) for number in numbers))
        for first in range(0, count, AT_A_TIME):
            found = await gather(*tasks[first : first + AT_A_TIME], timeout=120, periodicity=0.01)
            values += [result.return_value for result in found]
        return values

    async def one(self, number: int) -> int:
        """Kick one and wait for it."""
        task = await noop.kiq(number)
        return int((await task.wait_result(check_interval=0.001, timeout=10)).return_value)


@asynccontextmanager
async def opened() -> AsyncIterator[Client]:
    """Connect."""
    await broker.startup()
    yield Client()
    await broker.shutdown()
