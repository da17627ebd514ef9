"""From jobs to chunks in Redis: cut into chunks (`producer.cutting`), sent many at a time.

Nothing is held but the chunks on their way, so memory is flat in the size of the batch. A chunk is taken by Redis only
where the batch's jobs end, so a submission that was cut off can be run again from its start: what is there is passed
over.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterable, Mapping, Sequence
from typing import Any

from pydantic_core import to_json
from redis.exceptions import ResponseError

from producer.cutting import LONGEST_WAIT, Chunk, Jobs, cut
from producer.spoilt import find_spoilt, types_of
from protocol import keys
from protocol.batches import BatchOptions
from protocol.chunks import LARGEST_AMONG_WORKERS
from protocol.clock import RedisClock
from protocol.connection import Call, Scripts, encode_payload
from protocol.errors import BatchClosedError, BatchLostError, OptionError, ProtocolError

# Chunks that go out in one trip.
CHUNKS_A_TRIP = 16
# What is cut in one go lets nothing else run on the loop: no more jobs than are in so many chunks of 256.
_JOBS_A_TRIP = 16 * LARGEST_AMONG_WORKERS


def submit_call(
    batch_id: str,
    queue: str,
    options: BatchOptions,
    chunk: Sequence[Any],
    *,
    total: int | None,
    must_exist: bool,
    fields: Mapping[str, str] | None = None,
) -> Call:
    """Make a call of the `submit` script.

    Args:
        batch_id: The batch's id.
        queue: Its queue.
        options: Its options.
        chunk: First index, number of jobs, payload, and jobs of a chunk; empty for none.
        total: How many jobs the batch has in all, which closes it; None leaves it open.
        must_exist: Whether to change nothing if there is no such batch.
        fields: Further fields of a new header.
    """
    args = (
        batch_id,
        queue,
        options.model_dump_json(exclude_defaults=True) if options.model_fields_set else "{}",
        int(options.keep_results * 1000),
        int(keys.OPEN_BATCH_LIFETIME * 1000),
        keys.BATCHES_KEPT,
        "" if total is None else total,
        "" if options.deadline is None else options.deadline,
        int(must_exist),
        header_fields(options, fields or {}),
        *chunk,
    )
    names = (
        keys.batch(batch_id),
        keys.chunks(batch_id),
        keys.queue(queue),
        keys.wake(queue),
        keys.BATCHES,
    )
    return "submit", names, args


def header_fields(options: BatchOptions, fields: Mapping[str, str]) -> bytes:
    """Write the further fields of a new batch's header: a JSON object."""
    tolerance = {} if options.max_failures is None else {"max_failures": str(options.max_failures)}
    return to_json({**tolerance, **fields})


def read_reply(batch_id: str, reply: Sequence[int]) -> tuple[int, bool]:
    """Read what `submit` replied: how many jobs the batch has, and whether it is closed.

    Raises:
        BatchLostError: If it is gone, though it had to be there.
        ProtocolError: If its header is not ours.
        OptionError: If it was opened to be added to.
    """
    present, _, _, closed = reply
    if present == -1:
        raise BatchLostError(batch_id)
    if present == -3:
        raise OptionError(
            f"batch_id {batch_id!r} cannot be: that is an open batch; add to it by `(await producer.attach("
            f"{batch_id!r})).add(jobs)`, or submit under another id"
        )
    if present < 0:
        raise ProtocolError(keys.batch(batch_id), "no header of a batch")
    return present, bool(closed)


class Submission:
    """One batch's way into Redis.

    Args:
        scripts: The scripts of the Redis to submit to.
        batch_id: The batch's id.
        queue: The queue's name.
        options: The batch's options.
        limit_bytes: Longest arguments of one job, bytes of JSON.
        clock: Redis' clock.
        fields: Further fields of the batch's header.
    """

    def __init__(
        self,
        scripts: Scripts,
        batch_id: str,
        queue: str,
        options: BatchOptions,
        limit_bytes: int,
        clock: RedisClock,
        fields: Mapping[str, str] | None = None,
    ) -> None:
        self._scripts = scripts
        self._batch_id = batch_id
        self._queue = queue
        self._options = options
        self._limit_bytes = limit_bytes
        self._clock = clock
        self._fields = fields
        self._is_begun = False

    async def begin(self) -> None:
        """Open the batch, without jobs, if it is not there.

        Raises:
            ProtocolError: If one of its keys is not ours.
        """
        await self._send([], None)

    async def send(self, jobs: Jobs, largest_chunk: int) -> int:
        """Send all jobs and close the batch.

        Args:
            jobs: In the batch's order.
            largest_chunk: Jobs that travel together at most.

        Returns:
            How many jobs the batch has.

        Raises:
            ArgumentsError: If a job's arguments do not fit; the batch stays open with the jobs before it.
            PayloadTooLargeError: If a job's arguments are too large; as above.
            BatchClosedError: If the batch is closed with fewer jobs.
            BatchLostError: If the batch is gone in the middle.
            ProtocolError: If one of its keys is not ours.
        """
        waiting: list[Chunk] = []
        count, due = 0, 0.0
        async for chunk in cut(jobs, self._limit_bytes, largest_chunk):
            due = due if waiting else time.monotonic() + LONGEST_WAIT
            waiting.append(chunk)
            count += chunk.count
            # A stream's chunk that is not full was cut as nothing more came in time: it waits for no company.
            is_due = isinstance(jobs, AsyncIterable) and (chunk.count < LARGEST_AMONG_WORKERS or time.monotonic() > due)
            if is_due or len(waiting) == CHUNKS_A_TRIP or sum(some.count for some in waiting) >= _JOBS_A_TRIP:
                await self._send(waiting, None)
                waiting = []
        await self._send(waiting, count)
        return count

    async def _send(self, chunks: list[Chunk], total: int | None) -> None:
        """Send chunks in one trip, again where another producer of the same batch got in between; close if `total`."""
        while True:
            sent = time.monotonic()
            reply = await self._run(self._calls(chunks, total))
            present, is_closed = read_reply(self._batch_id, reply)
            self._clock.sync(reply[1], reply[2], sent, time.monotonic())
            self._is_begun = True
            chunks = [chunk for chunk in chunks if chunk.first + chunk.count > present]
            if is_closed and chunks:
                raise BatchClosedError(self._batch_id, present)
            if is_closed or (not chunks and total is None):
                return
            if not chunks or present < chunks[0].first:
                raise BatchLostError(self._batch_id)  # and another producer has begun it anew
            chunks[0].skip(present - chunks[0].first)

    def _calls(self, chunks: list[Chunk], total: int | None) -> list[Call]:
        # One time for the whole trip: results of chunks that share it are recorded together.
        now, last = self._clock.now(), max(0, len(chunks) - 1)
        return [
            submit_call(
                self._batch_id,
                self._queue,
                self._options,
                self._encode(part, now),
                total=total if number == last else None,
                must_exist=self._is_begun or number > 0,
                fields=self._fields,
            )
            for number, part in enumerate(chunks or [None])
        ]

    def _encode(self, chunk: Chunk | None, now: float) -> Sequence[Any]:
        if chunk is None:
            return ()
        payload = encode_payload(self._batch_id, chunk.first, chunk.count, now)
        return chunk.first, chunk.count, payload, chunk.encode()

    async def _run(self, calls: list[Call]) -> Any:
        try:
            return (await self._scripts.run_all(calls))[-1]
        except ResponseError as error:
            shared = {keys.BATCHES: "zset", keys.queue(self._queue): "zset", keys.wake(self._queue): "list"}
            types = {**types_of(self._batch_id), **shared}
            raise await find_spoilt(self._scripts.redis, error, types) or error from None
