"""A worker's hand on the queue, for tests of what it says to Redis: each call may be sent twice."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any

from producer.batch import Batch
from protocol.attempts import encode_attempt
from protocol.clock import RedisClock
from protocol.connection import Call, Scripts
from protocol.jobs import JobSpec
from protocol.recording import Over, encode_common, encode_row, record_rows
from workers.claims import Claimed, Claims
from workers.ending.retries import Deferred, Retries
from workers.leases import Leases


async def streamed(jobs: Iterable[JobSpec[Any]]) -> AsyncIterator[JobSpec[Any]]:
    """Yield jobs as a stream, which travels in as few chunks as can be."""
    for job in jobs:
        yield job


class TwiceScripts(Scripts):
    """Send the next call of a script a second time, as if its first reply had been lost.

    Attributes:
        between: What happens between the two; None sends each call once.
        replies: Both replies.
    """

    between: Callable[[], Awaitable[None]] | None = None
    replies: tuple[list[Any], list[Any]]

    async def run_all(self, calls: Sequence[Call]) -> list[Any]:
        first = await super().run_all(calls)
        if self.between is None:
            return first
        between, self.between = self.between, None
        await between()
        second = await super().run_all(calls)
        self.replies = first, second
        return second


class Hand:
    """A worker's hand on the queue: what it says to Redis, and no jobs."""

    def __init__(self, redis: Any, name: str, lease: float = 10.0) -> None:
        self.name = name
        self.scripts = TwiceScripts(redis)
        clock = RedisClock()
        self.claims = Claims(self.scripts, "default", name, clock, lease)
        self.leases = Leases(self.scripts, "default", name, clock, dict, lambda _: None, lease)
        self.retries = Retries(self.scripts, "default", name)

    async def claim(self, room: int = 100) -> list[Claimed]:
        return (await self.claims._run(self.claims._call(room, room, room, may_exceed=False))).chunks

    async def record(
        self,
        batch: Batch[Any],
        *indexes: int,
        status: str = "success",
        over: Sequence[tuple[str, int, str]] = (),
        place: str = "",
    ) -> int:
        rows = [encode_row(index=index, status=status, value=index) for index in indexes]
        common = encode_common("square", self.name, 1.0)
        leaving = Over("default", self.name, [(*chunk, place) for chunk in over]) if over else None
        call = record_rows(batch.id, common, indexes, [status] * len(rows), rows, over=leaving)
        return int(await self.scripts.run(*call))

    async def retry(self, claimed: Claimed, index: int, failures: int = 1, delay: float = 0) -> None:
        attempt = encode_attempt(attempt=failures, status="failure", worker=self.name, finished_at=5.0, message="no")
        await self.retries.write([Deferred(claimed.chunk_id, claimed.payload, index, failures, delay, attempt)])
