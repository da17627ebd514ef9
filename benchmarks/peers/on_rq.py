"""RQ: `Queue.enqueue_many` in a pipeline, then each job's latest result; workers that do not fork (`SimpleWorker`)."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from redis import Redis
from rq import Queue

URL = os.environ["BENCH_REDIS_URL"]
# Jobs in one call: a pipeline of ten thousand is held in memory whole.
AT_A_TIME = 1000


def noop(number: int) -> int:
    """Do nothing."""
    return number


class Client:
    """The producer's side."""

    def __init__(self) -> None:
        self.queue = Queue(connection=Redis.from_url(URL))

    def batch(self, count: int) -> list[int]:
        """Enqueue all, then wait for each."""
        jobs: list[Any] = []
        for first in range(0, count, AT_A_TIME):
            numbers = range(first, min(first + AT_A_TIME, count))
            data = [Queue.prepare_data(noop, args=(number,), result_ttl=600) for number in numbers]
            jobs += self.queue.enqueue_many(data)
        return [job.latest_result(timeout=120).return_value for job in jobs]

    def one(self, number: int) -> int:
        """Enqueue one and wait for it."""
        result = self.queue.enqueue(noop, number, result_ttl=600).latest_result(timeout=10)
        assert result is not None
        return int(result.return_value)


@asynccontextmanager
async def opened() -> AsyncIterator[Client]:
    """Connect; connections are made as they are needed."""
    yield Client()
