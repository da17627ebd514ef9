"""`Batch`: a handle on a batch in Redis, from which its results are collected."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from producer.collect import Cursor, read, read_present
from producer.running import read_running
from producer.watch import Watch
from protocol.batches import BatchOptions, BatchStatus
from protocol.connection import Scripts
from protocol.errors import OptionError
from protocol.results import Result

R = TypeVar("R")

FIRST_COMPLETED = asyncio.FIRST_COMPLETED
FIRST_EXCEPTION = asyncio.FIRST_EXCEPTION
ALL_COMPLETED = asyncio.ALL_COMPLETED


# How many of the slowest jobs a batch's status names.
_SLOWEST = 5


class _Raise:
    def __repr__(self) -> str:
        return "RAISE"


RAISE = _Raise()
"""`gather(default=RAISE)`: raise for the first job that did not succeed."""


class Waited(NamedTuple, Generic[R]):
    """What `Batch.wait` returns: results in order of completion, and the indexes of the jobs that have none yet."""

    done: list[Result[R]]
    pending: list[int]


class Batch(Generic[R]):
    """A batch in Redis. It goes on whatever becomes of this handle; others may be attached to it at the same time.

    Args:
        scripts: The scripts of its Redis.
        batch_id: Its id.
        queue: The queue that its jobs wait in.
        options: As it was submitted with.
        cursor: Where `as_completed` begins; by default before the first result.
        is_there: Whether it is known to be in Redis; if not, it is found as soon as it is.
    """

    def __init__(
        self,
        scripts: Scripts,
        batch_id: str,
        queue: str,
        options: BatchOptions,
        cursor: str | None = None,
        *,
        is_there: bool = True,
    ) -> None:
        self._redis = scripts.redis
        self.id = batch_id
        self.queue = queue
        self.options = options
        self._cursor = Cursor.parse(cursor) if cursor else Cursor()
        self._watch = Watch(scripts, batch_id, queue, is_there=is_there)

    def __repr__(self) -> str:
        return f"<Batch {self.id}>"

    @property
    def cursor(self) -> str:
        """Where `as_completed` is: give it to `Producer.attach` to go on from there in another process."""
        return str(self._cursor)

    def as_completed(self, timeout: float | None = None) -> AsyncIterator[Result[R]]:
        """Yield results as they are recorded, until the batch is complete.

        Every result comes once: a second loop over the same handle goes on where the first was left (`cursor`).
        Leaving the loop cancels nothing. Once the batch's deadline has passed, whoever collects sees to it that each
        job has its result, even if all workers are gone. That there are none is logged, after a second without a
        result.

        Args:
            timeout: Longest time in all, s.

        Raises:
            TimeoutError: If the time is up; the batch goes on.
            BatchLostError: If the batch is gone.
            ProtocolError: If one of its keys in Redis is not ours.
        """
        return read(self._redis, self.id, self._cursor, self._watch, timeout)

    async def wait(
        self,
        timeout: float | None = None,
        return_when: Literal["FIRST_COMPLETED", "FIRST_EXCEPTION", "ALL_COMPLETED"] = "ALL_COMPLETED",
    ) -> Waited[R]:
        """Wait like `asyncio.wait`: never raises for a slow job, cancels nothing.

        Args:
            timeout: Longest wait, s.
            return_when: `FIRST_COMPLETED`, `FIRST_EXCEPTION` (the first result but a success) or `ALL_COMPLETED`.

        Raises:
            OptionError: If `return_when` is none of the three.
        """
        if return_when not in (FIRST_COMPLETED, FIRST_EXCEPTION, ALL_COMPLETED):
            raise OptionError(f"return_when={return_when!r}: use FIRST_COMPLETED, FIRST_EXCEPTION or ALL_COMPLETED")
        done: list[Result[R]] = []
        cursor = Cursor()
        try:
            async for result in read(self._redis, self.id, cursor, self._watch, timeout):
                done.append(result)
                if _is_reached(return_when, result):
                    break
        except TimeoutError:  # what was recorded in time is told, even with no time to wait at all
            done += [result async for result in read_present(self._redis, self.id, cursor)]
        total = (await self._watch.status()).total
        return Waited(done, sorted(set(range(total)) - {result.index for result in done}))

    async def results(self) -> list[Result[R]]:
        """Wait for the whole batch and return all results, in order of submission."""
        found = [result async for result in read(self._redis, self.id, Cursor(), self._watch)]
        return sorted(found, key=lambda result: result.index)

    async def gather(self, default: Any = RAISE) -> list[R | Any]:
        """Wait for the whole batch and return all values, in order of submission.

        Args:
            default: Stands in for the value of each job that did not succeed.

        Raises:
            UnsuccessfulError: Without a default, for the first job that did not succeed: JobTimeoutError, ...
        """
        results = await self.results()
        if default is RAISE:
            return [result.unwrap() for result in results]
        return [result.value if result.status == "success" else default for result in results]

    async def status(self) -> BatchStatus:
        """Count the batch's jobs by where they are, and name the slowest of those at work.

        A few small reads, however large the batch is.

        Raises:
            BatchLostError: If the batch is gone.
            ProtocolError: If its header is not ours.
        """
        found = await self._watch.status()
        if not found.running:
            return found
        slowest = await read_running(self._redis, found.queue, self.id)
        return found.model_copy(update={"slowest": tuple(slowest[:_SLOWEST])})

    async def workers(self) -> int:
        """Count the live workers of the batch's queue.

        Raises:
            As `status`.
        """
        return await self._watch.workers()


def _is_reached(return_when: str, result: Result[Any]) -> bool:
    if return_when == FIRST_COMPLETED:
        return True
    return return_when == FIRST_EXCEPTION and result.status != "success"
