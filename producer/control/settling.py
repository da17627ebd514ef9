"""Give results to jobs that have none and that no worker can be waited for, those of several chunks in one trip.

This may run twice, in two processes at once, and be cut off anywhere: the `record` script keeps the first result of
each job. A call of it is about one chunk's jobs, so Redis is never held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from redis.exceptions import ResponseError

from producer.control.openjobs import OpenChunk
from producer.spoilt import find_spoilt, types_of
from protocol import keys
from protocol.batches import BatchOptions, BatchStatus
from protocol.chunks import LARGEST_CHUNK
from protocol.clock import RedisClock
from protocol.connection import Call, Scripts
from protocol.errors import BatchLostError
from protocol.recording import encode_common, encode_row, record_rows

# Chunks that one command takes out of the queue: of jobs that run again there is one for each.
_CHUNKS_A_COMMAND = 100


class Share(NamedTuple):
    """Jobs of a chunk that are to get their results: of those that wait, and of those that are held."""

    chunk: OpenChunk
    waiting: Sequence[int]
    held: Sequence[int]

    @property
    def is_all(self) -> bool:
        """Whether no other job of the chunk is without a result."""
        chunk = self.chunk
        return len(self.waiting) + len(self.held) == len(chunk.waiting) + len(chunk.held)


class Settlement:
    """Give results to a batch's jobs.

    Args:
        scripts: The scripts of its Redis.
        status: As its header says.
        options: As it was submitted with.
        clock: Redis' clock.
        ending: Returns what jobs end in, those that a worker has or others: `status`, and that kind's own fields.
    """

    def __init__(
        self,
        scripts: Scripts,
        status: BatchStatus,
        options: BatchOptions,
        clock: RedisClock,
        ending: Callable[[bool], dict[str, Any]],
    ) -> None:
        self._scripts = scripts
        self._redis = scripts.redis
        self._batch_id = status.batch_id
        self._queue = status.queue
        self._options = options
        self._clock = clock
        self._ending = ending

    async def settle(self, shares: Iterable[Share]) -> None:
        """Give results to some jobs of some chunks; one whose jobs all have theirs is no longer waited for.

        Raises:
            BatchLostError: If the batch is gone.
            ProtocolError: If one of its keys is not ours.
        """
        some = [share for share in shares if share.waiting or share.held]
        await self._record(some)
        await self._forget([share.chunk for share in some if share.is_all])

    async def settle_unknown(self, indexes: Sequence[int]) -> None:
        """Give results to jobs of which nothing is known but their indexes."""
        pieces = [indexes[at : at + LARGEST_CHUNK] for at in range(0, len(indexes), LARGEST_CHUNK)]
        await self._record([Share(OpenChunk(0, (), None, (), piece), (), piece) for piece in pieces])

    async def _record(self, shares: Iterable[Share]) -> None:
        """Write a result for each job, where it has none by then."""
        calls = [self._call(chunk, jobs, is_held=False) for chunk, jobs, _ in shares if jobs]
        calls += [self._call(chunk, jobs, is_held=True) for chunk, _, jobs in shares if jobs]
        if calls and min(await self.run(calls)) < 0:
            raise BatchLostError(self._batch_id)

    def _call(self, chunk: OpenChunk, jobs: Sequence[int], *, is_held: bool) -> Call:
        ending, finished_at = self._ending(is_held), round(self._clock.now(), 6)
        function, status = chunk.spec(jobs[0]).function, ending.pop("status")
        return record_rows(
            self._batch_id,
            encode_common(function, None, chunk.enqueued_at, **ending, finished_at=finished_at),
            jobs,
            [status],
            _rows(chunk, jobs, function, status, is_held=is_held),
            was_taken=is_held,
        )

    async def _forget(self, chunks: Sequence[OpenChunk]) -> None:
        """Take chunks whose jobs all have results out of the queue; one that a worker may hold lapses with the batch.

        A worker that claims it at this very moment finds nothing to do, and forgets it, too.
        """
        lapsing = [name for chunk in chunks if chunk.held for name in self._names(chunk)]
        free = [name for chunk in chunks if not chunk.held for name in self._names(chunk)]
        async with self._redis.pipeline(transaction=False) as pipe:
            for name in lapsing:
                for prefix in (keys.ARQ_JOB, keys.ARQ_RETRY):
                    pipe.pexpire(prefix + name, int(self._options.keep_results * 1000))
            for at in range(0, len(free), _CHUNKS_A_COMMAND):
                some = free[at : at + _CHUNKS_A_COMMAND]
                pipe.zrem(keys.queue(self._queue), *some)
                pipe.zrem(keys.leases(self._queue), *some)
                pipe.delete(*(prefix + name for name in some for prefix in (keys.ARQ_JOB, keys.ARQ_RETRY)))
            await pipe.execute(raise_on_error=False)

    def _names(self, chunk: OpenChunk) -> list[str]:
        """Name a chunk, and those in which its jobs run again."""
        retried = (keys.retry_id(self._batch_id, chunk.first, index) for index in chunk.failures)
        return [keys.chunk_id(self._batch_id, chunk.first), *retried]

    async def run(self, calls: Sequence[Call]) -> list[Any]:
        """Run scripts, in one trip; returns their replies.

        Raises:
            ProtocolError: If one stumbled on a key that is not ours.
        """
        try:
            return await self._scripts.run_all(calls)
        except ResponseError as error:
            spoilt = await find_spoilt(self._redis, error, types_of(self._batch_id))
            raise spoilt or error from None


def _rows(chunk: OpenChunk, jobs: Sequence[int], function: str, status: str, *, is_held: bool) -> list[bytes]:
    """Write what each job's result adds to its group's; the status stands in all of them, for who reads no more."""
    if chunk.is_alike and not chunk.failures:
        end = b',"status":"%b"}' % status.encode()
        return [b'{"index":%d%b' % (index, end) for index in jobs]
    return [_row(chunk, index, function, status, is_held=is_held) for index in jobs]


def _row(chunk: OpenChunk, index: int, function: str, status: str, *, is_held: bool) -> bytes:
    spec, fields = chunk.spec(index), {"index": index, "status": status}
    if spec.function != function:
        fields["function"] = spec.function
    if spec.key is not None:
        fields["key"] = spec.key
    if index in chunk.failures:
        fields["attempt"] = chunk.failures[index] + is_held
    return encode_row(**fields)
