"""huey: `task.map` and the result group's `get(blocking=True)`; results announce themselves (`notify_result`)."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from huey import RedisHuey

app: Any = RedisHuey("bench", url=os.environ["BENCH_REDIS_URL"], notify_result=True)


@app.task()  # type: ignore[untyped-decorator]  # huey has no types
def noop(number: int) -> int:
    """Do nothing."""
    return number


class Client:
    """The producer's side."""

    def batch(self, count: int) -> list[int]:
        """Map the function over all numbers."""
        values: list[int] = noop.map(range(count)).get(blocking=True, timeout=120)
        return values

    def one(self, number: int) -> int:
        """Enqueue one and wait for it."""
        return int(noop(number).get(blocking=True, timeout=10))


@asynccontextmanager
async def opened() -> AsyncIterator[Client]:
    """Connect; connections are made as they are needed."""
    yield Client()
