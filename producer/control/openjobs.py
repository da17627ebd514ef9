"""Find a batch's jobs that have no result: a page of chunks at a time, in two trips, or four where jobs run again."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from producer.spoilt import naming, raise_named
from protocol import keys
from protocol.chunks import LARGEST_CHUNK, Calls, decode_chunk
from protocol.connection import ArqRedis, decode_payload
from protocol.errors import ProtocolError
from protocol.jobs import JobSpec

logger = logging.getLogger(__name__)

# Chunks in one reply: each holds up to 1,000 jobs or about 1 MiB.
_CHUNKS_A_PAGE = 8
# Redis keeps a hash of so many short fields as a list, and looks through all of it for each field that it is asked for.
_SMALL_HASH = 512
UNKNOWN: JobSpec[Any] = JobSpec(function="unknown")

Page = dict[bytes, bytes]
"""Some chunks: index of the first job, and the jobs."""


@dataclass(slots=True)
class OpenChunk:
    """A chunk of which some jobs have no result.

    Args:
        first: Index of its first job.
        specs: Its jobs; none where they cannot be read.
        enqueued_at: When they were submitted, Unix s; None if that is not known.
        waiting: Its jobs without a result that no worker has, in order.
        held: Those that one has.
        failures: How often those have failed that run again, each in a chunk of its own.
    """

    first: int
    specs: Sequence[JobSpec[Any]]
    enqueued_at: float | None
    waiting: Sequence[int]
    held: Sequence[int]
    failures: dict[int, int] = field(default_factory=dict)

    @property
    def is_alike(self) -> bool:
        """Whether its jobs differ in nothing but their arguments."""
        specs = self.specs
        return not specs or (isinstance(specs, Calls) and len(specs.kinds) == 1 and not specs.kinds[0].own)

    def spec(self, index: int) -> JobSpec[Any]:
        """Tell what a job is, but not its arguments where it travels in a row, as to make each would take 6 us."""
        if isinstance(self.specs, Calls):
            return self.specs.bare_job(index - self.first)
        return self.specs[index - self.first] if self.specs else UNKNOWN

    def holder(self, batch_id: str, index: int) -> str:
        """Name the chunk in which a job runs: this one, or after a failure one of its own."""
        if index in self.failures:
            return keys.retry_id(batch_id, self.first, index)
        return keys.chunk_id(batch_id, self.first)


class OpenJobs:
    """Find a batch's jobs that have no result.

    Args:
        redis: Where it is.
        batch_id: Its id.
        total: How many jobs it has.
    """

    def __init__(self, redis: ArqRedis, batch_id: str, total: int) -> None:
        self._redis = redis
        self._batch_id = batch_id
        self._total = total

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

    async def find(self, page: Page) -> list[OpenChunk]:
        """Find the jobs without a result in a page of chunks, and whether a worker holds them."""
        numbered = {int(field): data for field, data in page.items() if field.isdigit() and len(field) < 11}
        done = keys.done(self._batch_id)
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.hlen(keys.retries(self._batch_id))
            for first in numbered:
                chunk_id = keys.chunk_id(self._batch_id, first)
                pipe.exists(keys.ARQ_IN_PROGRESS + chunk_id)
                pipe.get(keys.ARQ_JOB + chunk_id)
                pipe.getrange(done, first // 8, (first + LARGEST_CHUNK) // 8)
            retried, *replies = await pipe.execute(raise_on_error=False)
        found = []
        for (first, data), held, payload, bits in zip(
            numbered.items(), replies[::3], replies[1::3], replies[2::3], strict=True
        ):
            raise_named(bits, done)
            specs, count, enqueued_at = self._read_chunk(first, data, payload)
            indexes = without_result(bits, first // 8 * 8, first, min(first + count, self._total))
            if indexes:
                found.append(OpenChunk(first, specs, enqueued_at, () if held else indexes, indexes if held else ()))
        # Where another type of value stands, nothing tells which jobs run again.
        if found and isinstance(retried, int) and retried:
            await self._look_for_retries(found, is_small=retried <= _SMALL_HASH)
        return found

    def _read_chunk(self, first: int, data: bytes, payload: Any) -> tuple[Sequence[JobSpec[Any]], int, float | None]:
        """Read a chunk's jobs, their number, which its payload tells, too, and when it was enqueued."""
        count, enqueued_at = 0, None
        if isinstance(payload, bytes):
            try:
                read = decode_payload(payload, keys.ARQ_JOB)
                count, enqueued_at = read.count, read.enqueued_at
            except ProtocolError:
                count = 0
        try:
            specs = decode_chunk(first, data, keys.chunks(self._batch_id))
        except ProtocolError as error:
            logger.warning("%s", error, extra={"event": "batch.unreadable", "batch": self._batch_id})
            return (), min(count, LARGEST_CHUNK), enqueued_at
        return specs, len(specs), enqueued_at

    async def _look_for_retries(self, chunks: Sequence[OpenChunk], *, is_small: bool) -> None:
        """Find the jobs that have failed before: each waits or runs as a chunk of its own, which has its own lease."""
        failures = await self._failures(
            [i for chunk in chunks for i in (*chunk.waiting, *chunk.held)], is_small=is_small
        )
        for chunk in chunks:
            chunk.failures = {i: failures[i] for i in (*chunk.waiting, *chunk.held) if i in failures}
        retried = [(chunk, index) for chunk in chunks for index in chunk.failures]
        async with self._redis.pipeline(transaction=False) as pipe:
            for chunk, index in retried:
                pipe.exists(keys.ARQ_IN_PROGRESS + chunk.holder(self._batch_id, index))
            replies = await pipe.execute()
        running = {index for (_, index), is_held in zip(retried, replies, strict=True) if is_held}
        for chunk in chunks:
            held = running.union(chunk.held) - (chunk.failures.keys() - running)
            indexes = sorted((*chunk.waiting, *chunk.held))
            chunk.waiting = [index for index in indexes if index not in held]
            chunk.held = [index for index in indexes if index in held]

    async def _failures(self, indexes: list[int], *, is_small: bool) -> dict[int, int]:
        """Tell which of these jobs have failed before, and how often; a small hash tells of others, too."""
        key = keys.retries(self._batch_id)
        if is_small:
            told = (await self._redis.hgetall(key)).items()  # type: ignore[misc]  # typed for both clients
        else:
            async with self._redis.pipeline(transaction=False) as pipe:
                for at in range(0, len(indexes), LARGEST_CHUNK):
                    pipe.hmget(key, indexes[at : at + LARGEST_CHUNK])
                replies = await pipe.execute()
            told = zip(indexes, (count for reply in replies for count in reply), strict=True)
        return {int(index): int(count) for index, count in told if _is_number(count)}


def without_result(bits: bytes, begin: int, start: int, stop: int) -> Sequence[int]:
    """List the jobs, start <= index < stop, whose bit is not set; the first bit is that of the job `begin`."""
    if not any(bits[(start - begin) // 8 : (stop - 1 - begin) // 8 + 1]):
        return range(start, stop)
    return [index for index in range(start, stop) if not _is_set(bits, index - begin)]


def _is_set(bits: bytes, number: int) -> bool:
    return number // 8 < len(bits) and bool(bits[number // 8] & (0x80 >> number % 8))


def _is_number(field: Any) -> bool:
    return isinstance(field, bytes) and field.isdigit() and len(field) < 11
