"""Give results to jobs that have none and that no worker can be waited for: found chunk by chunk, recorded in groups.

This may run twice, in two processes at once, and be cut off anywhere: the `record` script keeps the first result of
each job. Chunks are read a few at a time, so Redis is never held.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from redis.exceptions import ResponseError

from producer.spoilt import find_spoilt, naming, raise_named, types_of
from protocol import keys
from protocol.batches import BatchOptions, BatchStatus
from protocol.chunks import LARGEST_CHUNK, decode_chunk
from protocol.clock import RedisClock
from protocol.connection import Call, Scripts, decode_payload
from protocol.errors import BatchLostError, ProtocolError
from protocol.jobs import JobSpec
from protocol.recording import encode_common, encode_row, record_rows

logger = logging.getLogger(__name__)

# Chunks in one reply: each holds up to 1,000 jobs or about 1 MiB.
_CHUNKS_A_PAGE = 8
UNKNOWN: JobSpec[Any] = JobSpec(function="unknown")

Page = dict[bytes, bytes]
"""Some chunks: index of the first job, and the jobs."""


@dataclass(slots=True)
class OpenJob:
    """A job that has no result.

    Args:
        index: Which.
        spec: What it is.
        is_held: Whether a worker has it.
        failures: How often it has failed.
    """

    index: int
    spec: JobSpec[Any]
    is_held: bool
    failures: int = 0


@dataclass(frozen=True, slots=True)
class OpenChunk:
    """A chunk of which some jobs have no result."""

    first: int
    enqueued_at: float | None
    jobs: list[OpenJob]

    def holder(self, batch_id: str, job: OpenJob) -> str:
        """Name the chunk in which a job runs: this one, or after a failure one of its own."""
        return keys.retry_id(batch_id, self.first, job.index) if job.failures else keys.chunk_id(batch_id, self.first)


class Settlement:
    """Find a batch's jobs that have no result, and give them one.

    Args:
        scripts: The scripts of its Redis.
        status: As its header says.
        options: As it was submitted with.
        clock: Redis' clock.
        ending: Returns a job's result: its `status` and that kind's own fields.
    """

    def __init__(
        self,
        scripts: Scripts,
        status: BatchStatus,
        options: BatchOptions,
        clock: RedisClock,
        ending: Callable[[OpenJob], dict[str, Any]],
    ) -> None:
        self._scripts = scripts
        self._redis = scripts.redis
        self._batch_id = status.batch_id
        self._queue = status.queue
        self._options = options
        self._clock = clock
        self._total = status.total
        self._ending = ending

    async def pages(self) -> AsyncIterator[Page]:
        """Page through the chunks; there are none where another type of value stands, and the sweep does the rest."""
        key, cursor = keys.chunks(self._batch_id), 0
        while True:
            try:
                with naming(key):
                    cursor, page = await self._redis.hscan(key, cursor, count=_CHUNKS_A_PAGE)
            except ProtocolError as error:
                logger.warning("%s", error, extra={"event": "batch.unreadable", "batch": self._batch_id})
                return
            yield page
            if cursor == 0:
                return

    async def named(self, firsts: Iterable[int]) -> AsyncIterator[Page]:
        """Page through the chunks whose first jobs have these indexes."""
        wanted = sorted(firsts)
        for at in range(0, len(wanted), _CHUNKS_A_PAGE):
            some = wanted[at : at + _CHUNKS_A_PAGE]
            with naming(keys.chunks(self._batch_id)):
                found = await self._redis.hmget(keys.chunks(self._batch_id), some)  # type: ignore[misc]  # typed for both clients
            yield {b"%d" % first: data for first, data in zip(some, found, strict=True) if data is not None}

    async def open_chunks(self, page: Page) -> list[OpenChunk]:
        """Find the jobs without a result in a page of chunks, and whether a worker holds them."""
        numbered = {int(field): data for field, data in page.items() if field.isdigit() and len(field) < 11}
        done = keys.done(self._batch_id)
        async with self._redis.pipeline(transaction=False) as pipe:
            for first in numbered:
                chunk_id = keys.chunk_id(self._batch_id, first)
                pipe.exists(keys.ARQ_IN_PROGRESS + chunk_id)
                pipe.get(keys.ARQ_JOB + chunk_id)
                pipe.getrange(done, first // 8, (first + LARGEST_CHUNK) // 8)
            replies = await pipe.execute(raise_on_error=False)
        found = []
        for (first, data), held, payload, bits in zip(
            numbered.items(), replies[::3], replies[1::3], replies[2::3], strict=True
        ):
            raise_named(bits, done)
            specs, enqueued_at = self._read_chunk(first, data, payload)
            jobs = [OpenJob(index, spec, bool(held)) for index, spec in enumerate(specs, first)]
            jobs = [job for job in jobs if job.index < self._total and not is_set(bits, job.index - first // 8 * 8)]
            found.append(OpenChunk(first, enqueued_at, jobs))
        found = [chunk for chunk in found if chunk.jobs]
        for chunk in found:
            await self._look_for_retries(chunk)
        return found

    def _read_chunk(self, first: int, data: bytes, payload: Any) -> tuple[Sequence[JobSpec[Any]], float | None]:
        """Read a chunk's jobs and when it was enqueued; of jobs that cannot be read at least how many there are."""
        count, enqueued_at = 0, None
        if isinstance(payload, bytes):
            try:
                read = decode_payload(payload, keys.ARQ_JOB)
                count, enqueued_at = read.count, read.enqueued_at
            except ProtocolError:
                count = 0
        try:
            return decode_chunk(first, data, keys.chunks(self._batch_id)), enqueued_at
        except ProtocolError as error:
            logger.warning("%s", error, extra={"event": "batch.unreadable", "batch": self._batch_id})
            return [UNKNOWN] * min(count, LARGEST_CHUNK), enqueued_at

    async def _look_for_retries(self, chunk: OpenChunk) -> None:
        """Find the jobs that have failed before: each waits or runs as a chunk of its own, which has its own lease."""
        indexes = [job.index for job in chunk.jobs]
        try:
            with naming(keys.retries(self._batch_id)):
                counts = await self._redis.hmget(keys.retries(self._batch_id), indexes)  # type: ignore[misc]  # typed for both
        except ProtocolError:
            return
        retried = [(job, int(count)) for job, count in zip(chunk.jobs, counts, strict=True) if _is_number(count)]
        if not retried:
            return
        async with self._redis.pipeline(transaction=False) as pipe:
            for job, _ in retried:
                pipe.exists(keys.ARQ_IN_PROGRESS + keys.retry_id(self._batch_id, chunk.first, job.index))
            replies = await pipe.execute()
        for (job, failures), held in zip(retried, replies, strict=True):
            job.failures, job.is_held = failures, bool(held)

    async def settle(self, chunk: OpenChunk, jobs: Sequence[OpenJob]) -> None:
        """Give results to some jobs of a chunk; one whose jobs all have theirs is no longer waited for."""
        if not jobs:
            return
        for is_held in (True, False):
            some = [job for job in jobs if job.is_held is is_held]
            if some:
                await self.record(some, chunk.enqueued_at)
        if len(jobs) == len(chunk.jobs):
            await self._forget(chunk)

    async def record(self, jobs: Sequence[OpenJob], enqueued_at: float | None) -> None:
        """Write a result for each job, where it has none by then; all of them are held, or none."""
        function = jobs[0].spec.function
        endings = [self._ending(job) for job in jobs]
        call = record_rows(
            self._batch_id,
            encode_common(function, None, enqueued_at),
            [job.index for job in jobs],
            [ending["status"] for ending in endings],
            [self._row(job, function, ending) for job, ending in zip(jobs, endings, strict=True)],
            was_taken=jobs[0].is_held,
        )
        if await self.run(call) < 0:
            raise BatchLostError(self._batch_id)

    def _row(self, job: OpenJob, function: str, ending: dict[str, Any]) -> bytes:
        fields: dict[str, Any] = {"index": job.index}
        if job.spec.function != function:
            fields["function"] = job.spec.function
        if job.spec.key is not None:
            fields["key"] = job.spec.key
        if job.failures:
            fields["attempt"] = job.failures + job.is_held
        return encode_row(**fields, **ending, finished_at=round(self._clock.now(), 6))

    async def _forget(self, chunk: OpenChunk) -> None:
        """Take a chunk whose jobs all have results out of the queue; one that a worker may hold lapses with the batch.

        A worker that claims it at this very moment finds nothing to do, and forgets it, too.
        """
        retried = [keys.retry_id(self._batch_id, chunk.first, job.index) for job in chunk.jobs if job.failures]
        chunk_ids = [keys.chunk_id(self._batch_id, chunk.first), *retried]
        names = [prefix + chunk_id for chunk_id in chunk_ids for prefix in (keys.ARQ_JOB, keys.ARQ_RETRY)]
        async with self._redis.pipeline(transaction=False) as pipe:
            if any(job.is_held for job in chunk.jobs):
                for name in names:
                    pipe.pexpire(name, int(self._options.keep_results * 1000))
            else:
                pipe.zrem(keys.queue(self._queue), *chunk_ids)
                pipe.zrem(keys.leases(self._queue), *chunk_ids)
                pipe.delete(*names)
            await pipe.execute(raise_on_error=False)

    async def run(self, call: Call) -> Any:
        """Run one script; returns its reply.

        Raises:
            ProtocolError: If it stumbled on a key that is not ours.
        """
        try:
            [reply] = await self._scripts.run_all([call])
        except ResponseError as error:
            spoilt = await find_spoilt(self._redis, error, types_of(self._batch_id))
            raise spoilt or error from None
        return reply


def is_set(bits: bytes, number: int) -> bool:
    """Whether a bit of a bitmap is set."""
    return number // 8 < len(bits) and bool(bits[number // 8] & (0x80 >> number % 8))


def _is_number(field: Any) -> bool:
    return isinstance(field, bytes) and field.isdigit() and len(field) < 10
