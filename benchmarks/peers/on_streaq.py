"""streaQ: `enqueue_many` in a pipeline, then the tasks that are done, many in one call, until all are there.

`Task.result` waits by a subscription of its own, which takes 0.1 s to close: so one job is waited for by its status.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from streaq import Worker
from streaq.task import TaskStatus

worker: Any = Worker(
    redis_url=os.environ["BENCH_REDIS_URL"],
    concurrency=32,
    serializer=json.dumps,
    deserializer=json.loads,
    anyio_kwargs={"use_uvloop": True},
)


@worker.task(ttl=600, silent=True)  # type: ignore[untyped-decorator]  # its types need its environment
async def noop(number: int) -> int:
    """Do nothing."""
    return number


class Client:
    """The producer's side."""

    async def batch(self, count: int) -> list[int]:
        """Enqueue all, wait until none is left, then read all results."""
        tasks = [noop.enqueue(number) for number in range(count)]
        await worker.enqueue_many(tasks)
        while await worker.queue_size():
            await asyncio.sleep(0.01)
        found: dict[str, int] = {}
        while not all(task.id in found for task in tasks):
            done = await worker.get_tasks_by_status(TaskStatus.DONE, limit=count)
            found = {one.task_id: one.result for one in done}
        return [found[task.id] for task in tasks]

    async def one(self, number: int) -> int:
        """Enqueue one and wait for it."""
        task = await noop.enqueue(number)
        while await task.status() != TaskStatus.DONE:
            await asyncio.sleep(0.0005)
        [newest] = await worker.get_tasks_by_status(TaskStatus.DONE, limit=1)
        assert newest.task_id == task.id
        return int(newest.result)


@asynccontextmanager
async def opened() -> AsyncIterator[Client]:
    """Connect."""
    async with worker:
        yield Client()
