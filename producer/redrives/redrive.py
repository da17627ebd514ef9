"""A redrive: a new batch of some jobs of another one, with the arguments and options that they were submitted with.

First it is written down which jobs these are (`producer.redrives.origins`); then the batch is begun, linked to its
parent in the same step; then its jobs are copied from the parent's chunks, as they stand there. Each step may be cut
off and run again: who gives the same `batch_id` goes on where the first was.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from itertools import groupby
from operator import itemgetter
from typing import Any
from uuid import uuid4

from redis.exceptions import ResponseError

from producer.control.callbacks import encode_callback
from producer.cutting import Chunk
from producer.redrives.origins import CHUNKS_A_PAGE, PLACES_A_PAGE, Selection, read_places, write_selection
from producer.spoilt import find_spoilt, naming, types_of
from producer.status import parse_options, parse_status, read_header, read_status
from producer.submission import CHUNKS_A_TRIP, header_fields, read_reply, submit_call
from producer.tracing import stamped
from protocol import keys
from protocol.batches import BatchOptions, checked_id
from protocol.batches import options as make_options
from protocol.chunks import LARGEST_AMONG_WORKERS, decode_chunk
from protocol.clock import RedisClock
from protocol.connection import Call, Scripts, encode_payload
from protocol.errors import BatchClosedError, BatchLostError, BatchNotFoundError, OptionError, ProtocolError
from protocol.jobs import JobSpec

# Options that a job may have of its own; one that a redrive is given holds for all its jobs.
_OF_JOBS = ("timeout", "queue_timeout", "deadline", "heartbeat_timeout")
# Longest arguments of an `on_complete` job, bytes of JSON.
_CALLBACK_BYTES = 1 << 20


class Redrive:
    """One redrive's way into Redis.

    Args:
        scripts: The scripts of its Redis.
        parent_id: The batch whose jobs they are.
        batch_id: The new batch's id; None for a random one.
        on_complete: The new batch's.
        overrides: Options that are not to be the parent's; a job's own value of one of these counts no more.

    Attributes:
        batch_id: The new batch's id.
        queue: The queue that its jobs go to, the parent's.
        options: The new batch's.

    Raises:
        OptionError: If there can be no such batch.
    """

    def __init__(
        self,
        scripts: Scripts,
        parent_id: str,
        batch_id: str | None,
        on_complete: JobSpec[Any] | None,
        overrides: Mapping[str, Any],
    ) -> None:
        make_options(**overrides)
        self.batch_id = checked_id(batch_id)
        self.queue = ""
        self.options = BatchOptions()
        self._scripts = scripts
        self._redis = scripts.redis
        self._parent_id = parent_id
        self._on_complete = on_complete
        self._overrides = overrides
        self._dropped = {name: None for name in _OF_JOBS if name in overrides}
        self._clock = RedisClock()
        self._count = 0

    async def run(self, selection: Selection) -> None:
        """Choose the jobs, unless the batch is there already, and send those that it does not have yet.

        Raises:
            OptionError: If there is another batch of that id.
            ArgumentsError: If `on_complete` does not fit its function.
            BatchLostError: If one of the two batches is gone.
            BatchClosedError: If the new batch's deadline has passed in the middle.
            ProtocolError: If one of their keys is not ours.
        """
        await self._take_over()
        chosen = f"{keys.origins(self.batch_id)}:{uuid4().hex}"
        if not await self._redis.exists(keys.batch(self.batch_id)):
            await write_selection(self._redis, self._parent_id, selection, chosen)
        present = await self._begin(chosen)
        await self._send(present)

    async def _take_over(self) -> None:
        """Read the parent's queue and options, which are the new batch's where nothing else is asked for."""
        try:
            header = await read_header(self._redis, self._parent_id)
        except BatchNotFoundError:
            raise BatchLostError(self._parent_id) from None
        self.queue = parse_status(self._parent_id, header).queue
        inherited = parse_options(self._parent_id, header).model_dump(exclude_defaults=True)
        inherited.pop("trace", None)
        self.options = stamped(make_options(**{**inherited, **self._overrides}))

    def _fields(self) -> dict[str, str]:
        """Write the further fields of the new batch's header."""
        fields = {"parent": self._parent_id}
        if self._on_complete is not None:
            about = (self._on_complete, self.batch_id, self.queue, self.options)
            fields["on_complete"] = encode_callback(*about, _CALLBACK_BYTES)
        return fields

    async def _begin(self, chosen: str) -> int:
        """Begin the batch, if it is not there; returns how many jobs it has by now."""
        options = self.options
        names = (keys.batch(self.batch_id), keys.origins(self.batch_id), chosen, keys.batch(self._parent_id))
        args = (
            self.batch_id,
            self.queue,
            options.model_dump_json(exclude_defaults=True),
            int(options.keep_results * 1000),
            int(keys.OPEN_BATCH_LIFETIME * 1000),
            keys.BATCHES_KEPT,
            "" if options.deadline is None else options.deadline,
            header_fields(options, self._fields()),
        )
        sent = time.monotonic()
        self._count, seconds, microseconds, present = await self._run([("redrive", names, args)])
        self._clock.sync(seconds, microseconds, sent, time.monotonic())
        if self._count == -1:
            raise BatchLostError(self._parent_id)
        if self._count == -2:
            raise OptionError(
                f"batch_id {self.batch_id!r} is another batch, no redrive of {self._parent_id!r}: choose another id"
            )
        return int(present)

    async def _send(self, present: int) -> None:
        """Send jobs from where the batch ends, again from there whenever another producer of it got in between."""
        while True:
            async with aclosing(self._chunks(present)) as chunks:
                waiting: list[Chunk] = []
                async for chunk in chunks:
                    waiting.append(chunk)
                    present = chunk.first + chunk.count
                    if len(waiting) < CHUNKS_A_TRIP and present < self._count:
                        continue
                    found, is_closed = await self._submit(waiting)
                    if is_closed:
                        return
                    if found != present:
                        present = found
                        break
                    waiting = []
            if present >= self._count:
                await self._submit([])
                return

    async def _submit(self, chunks: list[Chunk]) -> tuple[int, bool]:
        """Send chunks in one trip; the last one closes the batch."""
        now, last = self._clock.now(), max(0, len(chunks) - 1)
        calls = [
            submit_call(
                self.batch_id,
                self.queue,
                self.options,
                self._encode(chunk, now),
                total=self._count if number == last else None,
                must_exist=True,
            )
            for number, chunk in enumerate(chunks or [None])
        ]
        present, is_closed = read_reply(self.batch_id, await self._run(calls))
        if is_closed and present < self._count:
            raise BatchClosedError(self.batch_id, present)
        return present, is_closed

    def _encode(self, chunk: Chunk | None, now: float) -> tuple[Any, ...]:
        if chunk is None:
            return ()
        payload = encode_payload(self.batch_id, chunk.first, chunk.count, now)
        return chunk.first, chunk.count, payload, chunk.encode()

    async def _chunks(self, at: int) -> AsyncGenerator[Chunk, None]:
        chunk = Chunk(at)
        async with aclosing(self._jobs(at)) as jobs:
            async for job in jobs:
                chunk.put(job)
                if chunk.count >= LARGEST_AMONG_WORKERS or chunk.is_full:
                    yield chunk
                    chunk = Chunk(chunk.first + chunk.count)
        if chunk.count:
            yield chunk

    async def _jobs(self, at: int) -> AsyncGenerator[bytes, None]:
        """Read the jobs from one on, a few of the parent's chunks at a time."""
        while at < self._count:
            places = await read_places(self._redis, self.batch_id, at, min(PLACES_A_PAGE, self._count - at))
            at += len(places)
            groups = [(first, [index for index, _ in group]) for first, group in groupby(places, itemgetter(1))]
            for begin in range(0, len(groups), CHUNKS_A_PAGE):
                page = dict(groups[begin : begin + CHUNKS_A_PAGE])
                for (first, indexes), jobs in zip(page.items(), await self._read_chunks(list(page)), strict=True):
                    for index in indexes:
                        yield self._copy(jobs[index - first])

    async def _read_chunks(self, firsts: list[int]) -> list[Any]:
        key = keys.chunks(self._parent_id)
        with naming(key):
            found = await self._redis.hmget(key, [str(first) for first in firsts])  # type: ignore[misc]  # typed for both
        for first, data in zip(firsts, found, strict=True):
            if data is None:
                await self._say_why_it_is_gone(first)
        return [decode_chunk(first, data, key) for first, data in zip(firsts, found, strict=True)]

    async def _say_why_it_is_gone(self, first: int) -> None:
        try:
            await read_status(self._redis, self._parent_id)
        except BatchNotFoundError:
            raise BatchLostError(self._parent_id) from None
        raise ProtocolError(keys.chunks(self._parent_id), f"field {first} is gone, and with it its jobs")

    def _copy(self, job: JobSpec[Any]) -> bytes:
        # As it was written: its arguments were validated then, and are JSON values now, which no function is to judge.
        return job.model_copy(update=self._dropped).model_dump_json(exclude_defaults=True).encode()

    async def _run(self, calls: list[Call]) -> Any:
        try:
            return (await self._scripts.run_all(calls))[-1]
        except ResponseError as error:
            types = {**types_of(self.batch_id), **types_of(self._parent_id)}
            raise await find_spoilt(self._redis, error, types) or error from None
