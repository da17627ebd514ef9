"""dramatiq: `group(...).run()` and `get_results(block=True)`, which waits for each result by a blocking pop."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

URL = os.environ["BENCH_REDIS_URL"]

broker = RedisBroker(url=URL)
broker.add_middleware(Results(backend=RedisBackend(url=URL)))
dramatiq.set_broker(broker)


@dramatiq.actor(store_results=True)  # type: ignore[untyped-decorator]  # its types need its environment
def noop(number: int) -> int:
    """Do nothing."""
    return number


class Client:
    """The producer's side."""

    def batch(self, count: int) -> list[int]:
        """Run a group of all."""
        group = dramatiq.group([noop.message(number) for number in range(count)]).run()
        return list(group.get_results(block=True, timeout=120_000))

    def one(self, number: int) -> int:
        """Send one and wait for it."""
        return int(noop.send(number).get_result(block=True, timeout=10_000))


@asynccontextmanager
async def opened() -> AsyncIterator[Client]:
    """Connect; connections are made as they are needed."""
    yield Client()
    broker.close()
