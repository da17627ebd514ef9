"""Close a batch whose deadline has passed: each of its jobs without a result gets a TimeoutResult.

The workers do so for what they hold; this is for what nobody holds any more, or ever did. It may run twice, in two
collectors at once, and be cut off anywhere: the `record` script keeps the first result of each job. Chunks are read a
few at a time, and recorded in groups, so Redis is never held.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from redis.exceptions import ResponseError

from producer.cutting import LARGEST_CHUNK
from producer.spoilt import find_spoilt, naming, raise_named, types_of
from producer.status import read_status
from producer.submission import read_reply, submit_call
from protocol import keys
from protocol.batches import BatchOptions, BatchStatus
from protocol.chunks import decode_chunk
from protocol.clock import RedisClock
from protocol.connection import Call, Scripts, decode_payload
from protocol.errors import BatchLostError, BatchNotFoundError, ProtocolError
from protocol.jobs import JobSpec
from protocol.results import Stopped, encode_row

logger = logging.getLogger(__name__)

# Chunks in one reply: each holds up to 256 jobs or about 1 MiB.
_CHUNKS_A_PAGE = 8
# Jobs whose bits are looked at in one step of the last sweep.
_BITS_A_PAGE = 1 << 16
_UNKNOWN: JobSpec[Any] = JobSpec(function="unknown")


@dataclass(slots=True)
class _OpenJob:
    """A job that has no result."""

    index: int
    spec: JobSpec[Any]
    is_held: bool
    failures: int = 0


@dataclass(frozen=True, slots=True)
class _OpenChunk:
    """A chunk of which some jobs have no result."""

    first: int
    enqueued_at: float | None
    jobs: list[_OpenJob]


class Expiry:
    """Close a batch.

    Args:
        scripts: The scripts of its Redis.
        status: As its header says.
        options: As it was submitted with.
        clock: Redis' clock.
    """

    def __init__(self, scripts: Scripts, status: BatchStatus, options: BatchOptions, clock: RedisClock) -> None:
        self._scripts = scripts
        self._redis = scripts.redis
        self._status = status
        self._batch_id = status.batch_id
        self._options = options
        self._clock = clock
        self._total = status.total
        self._limit = options.deadline or max(0.0, (status.deadline or 0.0) - status.created_at)

    async def run(self, *, is_final: bool) -> None:
        """Give results to jobs that have none.

        Args:
            is_final: Whether to all of them; else only to those that no worker holds.

        Raises:
            BatchLostError: If the batch is gone.
            ProtocolError: If one of its keys is not ours.
        """
        logger.info(
            "the deadline of batch %s has passed", self._batch_id,
            extra={"event": "batch.deadline", "batch": self._batch_id},
        )  # fmt: skip
        if not self._status.closed:
            await self._close()
        async for page in self._chunks():
            for chunk in await self._open_chunks(page):
                await self._expire(chunk, is_final=is_final)
        if is_final:
            await self._sweep()
            await self._check()

    async def _close(self) -> None:
        """Close the batch with the jobs that it has by now; its producer is told when it comes with more."""
        call = submit_call(self._batch_id, self._status.queue, self._options, (), total=self._total, must_exist=True)
        self._total, _ = read_reply(self._batch_id, await self._run(call))

    async def _chunks(self) -> AsyncIterator[dict[bytes, bytes]]:
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

    async def _open_chunks(self, page: dict[bytes, bytes]) -> list[_OpenChunk]:
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
            jobs = [_OpenJob(index, spec, bool(held)) for index, spec in enumerate(specs, first)]
            jobs = [job for job in jobs if job.index < self._total and not _is_set(bits, job.index - first // 8 * 8)]
            found.append(_OpenChunk(first, enqueued_at, jobs))
        return [chunk for chunk in found if chunk.jobs]

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
            return [_UNKNOWN] * min(count, LARGEST_CHUNK), enqueued_at

    async def _look_for_retries(self, chunk: _OpenChunk) -> None:
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

    async def _expire(self, chunk: _OpenChunk, *, is_final: bool) -> None:
        """Record that time is up for a chunk's jobs."""
        await self._look_for_retries(chunk)
        expired = [job for job in chunk.jobs if is_final or not job.is_held]
        if not expired:
            return
        await self._record(expired, chunk.enqueued_at)
        if len(expired) == len(chunk.jobs):
            await self._forget(chunk)

    async def _record(self, jobs: Sequence[_OpenJob], enqueued_at: float | None) -> None:
        """Write a TimeoutResult for each job, where it has no result by then."""
        function, batch_id = jobs[0].spec.function, self._batch_id
        common = encode_row(function=function, enqueued_at=enqueued_at)
        rows = b",\n".join(self._row(job, function) for job in jobs)
        indexes = ",".join(str(job.index) for job in jobs)
        statuses = ",".join("timeout" for _ in jobs)
        names = (keys.batch(batch_id), keys.done(batch_id), keys.results(batch_id), keys.chunks(batch_id))
        args = (common, int(keys.OPEN_BATCH_LIFETIME * 1000), indexes, statuses, rows)
        if await self._run(("record", names, args)) < 0:
            raise BatchLostError(batch_id)

    def _row(self, job: _OpenJob, function: str) -> bytes:
        fields: dict[str, Any] = {"index": job.index, "status": "timeout"}
        if job.spec.function != function:
            fields["function"] = job.spec.function
        if job.spec.key is not None:
            fields["key"] = job.spec.key
        if job.failures:
            fields["attempt"] = job.failures + job.is_held
        stopped: Stopped = "abandoned" if job.is_held else "not started"
        now = round(self._clock.now(), 6)
        return encode_row(**fields, finished_at=now, limit=self._limit, phase="batch", stopped=stopped)

    async def _forget(self, chunk: _OpenChunk) -> None:
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
                pipe.zrem(keys.queue(self._status.queue), *chunk_ids)
                pipe.delete(*names)
            await pipe.execute(raise_on_error=False)

    async def _sweep(self) -> None:
        """Report what no chunk tells of: jobs whose chunk is gone, or is not ours."""
        done = keys.done(self._batch_id)
        for begin in range(0, self._total, _BITS_A_PAGE):
            end = min(begin + _BITS_A_PAGE, self._total)
            with naming(done):
                bits = await self._redis.getrange(done, begin // 8, (end - 1) // 8)
            left = [
                _OpenJob(index, _UNKNOWN, is_held=True)
                for index in range(begin, end)
                if not _is_set(bits, index - begin)
            ]
            for at in range(0, len(left), LARGEST_CHUNK):
                await self._record(left[at : at + LARGEST_CHUNK], None)

    async def _check(self) -> None:
        """Make sure that the batch is complete now: what would keep it from that for ever must not be waited for."""
        try:
            found = await read_status(self._redis, self._batch_id)
        except BatchNotFoundError:
            raise BatchLostError(self._batch_id) from None
        if not found.complete:
            raise ProtocolError(
                keys.done(self._batch_id),
                f"all {self._total:,} jobs are marked as done, and {found.done:,} of {found.total:,} were counted",
            )

    async def _run(self, call: Call) -> Any:
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


def _is_set(bits: bytes, number: int) -> bool:
    return number // 8 < len(bits) and bool(bits[number // 8] & (0x80 >> number % 8))


def _is_number(field: Any) -> bool:
    return isinstance(field, bytes) and field.isdigit() and len(field) < 10
