"""celery: `group(...).apply_async()` and `join_native`, its own optimised wait; prefork, few events, no rate limits."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from celery import Celery, group

URL = os.environ["BENCH_REDIS_URL"]

app: Any = Celery("bench", broker=URL, backend=URL)
app.conf.update(
    worker_prefetch_multiplier=64,
    worker_disable_rate_limits=True,
    worker_send_task_events=False,
    task_acks_late=False,
    task_default_delivery_mode="transient",
    broker_pool_limit=10,
    broker_connection_retry_on_startup=True,
    result_expires=600,
)


@app.task(name="noop")  # type: ignore[untyped-decorator]  # celery has no types
def noop(number: int) -> int:
    """Do nothing."""
    return number


class Client:
    """The producer's side."""

    def batch(self, count: int) -> list[int]:
        """Apply a group of all."""
        results = group(noop.s(number) for number in range(count)).apply_async()
        values: list[int] = results.join_native(timeout=120)
        results.forget()
        return values

    def one(self, number: int) -> int:
        """Send one and wait for it."""
        return int(noop.delay(number).get(timeout=10))


@asynccontextmanager
async def opened() -> AsyncIterator[Client]:
    """Connect; connections are made as they are needed."""
    yield Client()
    app.close()
