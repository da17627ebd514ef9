"""Add jobs to an open batch: from a producer, or from a job of the batch itself.

Redis appends them in one step and tells their indexes, so many may add at the same time. A job with a name is added
once, however often it comes; a call without names, too, by the number that its adder gives it.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

from redis.exceptions import ResponseError

from protocol import keys
from protocol.connection import Call, Scripts
from protocol.errors import BatchClosedError, BatchLostError, OptionError, ProtocolError, UsageError
from protocol.jobs import JobSpec, encode_job

Jobs: TypeAlias = Iterable[JobSpec[Any]] | AsyncIterable[JobSpec[Any]] | JobSpec[Any]

# What one call may carry, and how large a chunk is cut from it.
_JOBS_A_CALL = 1000
_BYTES_A_CALL = 1 << 20
_LARGEST_CHUNK = 256


class NewJob(NamedTuple):
    """A job that is to be added.

    Args:
        key: What people call it, if it is known by that; else None.
        text: The job, as JSON.
    """

    key: str | None
    text: bytes


def encode_new(jobs: Iterable[JobSpec[Any]], limit_bytes: int, *, unique: bool, first: int = 0) -> Iterator[NewJob]:
    """Write jobs that are to be added.

    Args:
        jobs: The jobs.
        limit_bytes: Longest arguments of one job, bytes of JSON.
        unique: Whether each is known by its key.
        first: The number of the first of them, for messages.

    Raises:
        UsageError: If a job cannot be; names it by its place among these.
    """
    for number, job in enumerate(jobs, first):
        if not isinstance(job, JobSpec):
            raise UsageError(
                f"job {number} is {job!r}, not a JobSpec: make one with your_job.spec(...) or JobSpec(...)"
            )
        if unique and job.key is None:
            raise OptionError(
                f"job {number}, of {job.function!r}, has no key, and with unique=True jobs are told apart by that: "
                "your_job.spec(..., key=...)"
            )
        try:
            yield NewJob(job.key if unique else None, encode_job(job, limit_bytes))
        except UsageError as error:
            raise type(error)(f"job {number}: {error}") from None


async def portions(jobs: Jobs, limit_bytes: int, *, unique: bool) -> AsyncIterator[list[NewJob]]:
    """Cut jobs into what one call may carry; those of an async source go one by one, as they come.

    Raises:
        UsageError: If a job cannot be; those before its portion are on their way by then.
    """
    if isinstance(jobs, AsyncIterable):
        number = 0
        async for job in jobs:
            yield list(encode_new([job], limit_bytes, unique=unique, first=number))
            number += 1
        return
    portion: list[NewJob] = []
    size = 0
    for new in encode_new([jobs] if isinstance(jobs, JobSpec) else jobs, limit_bytes, unique=unique):
        if portion and (len(portion) == _JOBS_A_CALL or size + len(new.text) > _BYTES_A_CALL):
            yield portion
            portion, size = [], 0
        portion.append(new)
        size += len(new.text)
    if portion:
        yield portion


def name_by_key(new: NewJob) -> str:
    """Name a job by its key; without one it has no name."""
    return "" if new.key is None else f"={new.key}"


class Adder:
    """Add jobs to one batch.

    Args:
        scripts: The scripts of its Redis.
        batch_id: Its id.
        queue: Its queue.
        adder_id: Who adds; for calls of jobs without names.
    """

    def __init__(self, scripts: Scripts, batch_id: str, queue: str, adder_id: str = "") -> None:
        self._scripts = scripts
        self._batch_id = batch_id
        self._queue = queue
        self._adder_id = adder_id
        self._calls = 0

    async def add(self, portion: Sequence[NewJob], name: Callable[[NewJob], str], slots: int) -> list[int]:
        """Add what one call may carry; returns the index of each job. Its calls must not overlap.

        Args:
            portion: The jobs.
            name: Names a job, so that it is not added again; "" for none.
            slots: Slots of the workers, for the size of the chunks.

        Raises:
            BatchClosedError: If the batch takes no more jobs, and has not all of these already.
            BatchLostError: If it is gone.
            ProtocolError: If one of its keys is not ours.
        """
        self._calls += 1
        # At least two chunks for every slot, so that they are spread over all workers.
        size = max(1, min(_LARGEST_CHUNK, -(-len(portion) // (2 * max(1, slots)))))
        named = [(name(new), new.text) for new in portion]
        number = "" if all(text for text, _ in named) else self._calls
        batch_id = self._batch_id
        names = (
            keys.batch(batch_id), keys.chunks(batch_id), keys.queue(self._queue), keys.wake(self._queue),
            keys.names(batch_id),
        )  # fmt: skip
        about = (batch_id, self._queue, int(keys.OPEN_BATCH_LIFETIME * 1000), size, _BYTES_A_CALL)
        jobs = [part for both in named for part in both]
        return self._read(await self._run(("add", names, (*about, self._adder_id, number, *jobs))))

    async def _run(self, call: Call) -> Sequence[int]:
        try:
            [reply] = await self._scripts.run_all([call])
        except ResponseError as error:
            if "WRONGTYPE" in str(error):
                raise ProtocolError(keys.batch(self._batch_id), f"a key of the batch is not ours ({error})") from None
            raise
        return list(reply)

    def _read(self, reply: Sequence[int]) -> list[int]:
        total, *indexes = reply
        if total == -1:
            raise BatchLostError(self._batch_id)
        if total == -2:
            raise ProtocolError(keys.batch(self._batch_id), "no header of a batch")
        if total == -3:
            raise BatchClosedError(self._batch_id, indexes[0])
        return indexes
