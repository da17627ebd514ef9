"""Claim chunks: lease them in one step, and read what is known of their jobs' earlier runs.

An attempt is burnt by a failure of the job's own, and by the death of a worker under it; not by a shutdown, a lost
lease or a neighbour's kill. So a job's attempt is told by its failures and by the crashes noted for its chunk, never by
how often the chunk was claimed.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import uuid4

from pydantic import ValidationError

from protocol import keys
from protocol.batches import BatchOptions
from protocol.chunks import decode_chunk, decode_job
from protocol.clock import RedisClock
from protocol.connection import Call, Payload, Scripts, decode_payload
from protocol.control import Orders, read_orders
from protocol.errors import ProtocolError, explain
from protocol.jobs import JobSpec
from workers import registry
from workers.crashes import Crash, read_crashes
from workers.starting.slots import Slots

logger = logging.getLogger(__name__)

# A claim brings at most this many jobs and chunks, so that the script is short.
_JOBS_A_CLAIM = 1000
_CHUNKS_A_CLAIM = 16
# Where what is due needs processes that are all busy, others are looked for this often, s: at its head, and behind.
LOOK_AGAIN, LOOK_FARTHER = 0.05, 0.25


@dataclass(frozen=True, slots=True)
class Claimed:
    """A chunk as it was claimed.

    Args:
        chunk_id: Its name.
        payload: Where its jobs stand, and which of them are to run.
        options: The batch's options, JSON.
        deadline: The batch's, Unix s.
        jobs: Its jobs, JSON; None if they are gone.
        done: The batch's done bits, from the byte that holds the first job's.
        crashes: The workers that have died under it.
        failures: How often each job has failed that runs again after a failure.
        orders: What was decided since it was submitted.
    """

    chunk_id: str
    payload: Payload
    options: bytes
    deadline: float | None
    jobs: bytes | None
    done: bytes
    crashes: list[Crash]
    failures: dict[int, int]
    orders: Orders | None = None

    def read(self) -> tuple[BatchOptions, Sequence[JobSpec[Any]]]:
        """Read the batch's options, and the chunk's jobs, from `payload.start` on: one that runs again is the only one.

        Raises:
            ProtocolError: If they are not ours, or gone.
        """
        batch_id, first, count = self.payload.batch_id, self.payload.first, self.payload.count
        key = keys.chunks(batch_id)
        if self.jobs is None:
            raise ProtocolError(key, f"field {first} is gone, and with it its jobs")
        try:
            options = _read_options(self.options)
        except ValidationError as error:
            raise ProtocolError(keys.batch(batch_id), f"field options: {explain(error, 1)}") from None
        index = self.payload.index
        jobs = decode_chunk(first, self.jobs, key) if index is None else decode_job(first, index, self.jobs, key)
        if len(jobs) != self.payload.jobs:
            what = f"holds {len(jobs)} jobs instead of {count}" if index is None else f"holds no job {index}"
            raise ProtocolError(key, f"field {first} {what}")
        return options, jobs

    def open_jobs(self) -> list[int]:
        """List the jobs that are to run in this chunk: without a result, and in no chunk of their own."""
        payload = self.payload
        first, index = payload.first, payload.index
        if index is not None:
            return [] if self._is_done(index) else [index]
        every = range(first, first + payload.count)
        if not self.failures and not any(self.done):
            return list(every)
        return [index for index in every if not self._is_done(index) and index not in self.failures]

    def cut(self, kept: int) -> Claimed:
        """Return what is left of it with its first jobs only."""
        return replace(self, payload=replace(self.payload, count=kept))

    def crashes_under(self, index: int) -> list[Crash]:
        """List the deaths of workers under a job."""
        return [crash for crash in self.crashes if crash.is_under(index)]

    def attempt(self, index: int) -> int:
        """Count a job's attempts, the coming one included."""
        if not self.crashes and not self.failures:
            return 1
        return 1 + self.failures.get(index, 0) + sum(not crash.doubtful for crash in self.crashes_under(index))

    def _is_done(self, index: int) -> bool:
        byte = index // 8 - self.payload.first // 8
        return byte < len(self.done) and bool(self.done[byte] & (0x80 >> index % 8))


class Found(NamedTuple):
    """What a claim has brought.

    Args:
        chunks: Leased now.
        next_due: When the next chunk is due, ms from now; -1 if there is none.
        did_not_fit: Jobs of a due chunk that needs more free slots, and that cannot be cut.
        until: When the leases end, on the monotonic clock.
        lacks_processes: Whether there is room yet, but what is due needs processes, which are all busy.
        has_found_others: Whether something that needs none was found behind that.
    """

    chunks: list[Claimed]
    next_due: float
    did_not_fit: int
    until: float
    lacks_processes: bool = False
    has_found_others: bool = False


class Claims:
    """Claim chunks of a queue for a worker.

    Args:
        scripts: The scripts of the Redis that holds the queue.
        queue: The queue's name.
        worker_id: Who claims.
        clock: Redis' clock.
        lease: How long a lease lasts, s.
        places: The worker's places in processes, if anybody else could start what waits for one.
    """

    def __init__(
        self,
        scripts: Scripts,
        queue: str,
        worker_id: str,
        clock: RedisClock,
        lease: float,
        places: Slots | None = None,
    ) -> None:
        self._scripts = scripts
        self._keys = (keys.queue(queue), keys.wake(queue), keys.claim(worker_id))
        self._worker_id = worker_id
        self._clock = clock
        self._lease = lease
        self._places = places
        self._awaited: Call | None = None
        # How far to look past what needs processes, and when next.
        self._look_from = 0
        self._next_look = 0.0

    async def due(self, slots: Slots) -> Found:
        """Lease chunks that are due, as many of their jobs as there is room for."""
        may_exceed = slots.has_half(slots.soon_over)
        plain, look_from = (0, 0), -1
        if self._places is not None:
            plain = max(0, self._places.room), self._places.piece
            look_from = self._look_from if time.monotonic() >= self._next_look else -1
        call = self._call(
            max(0, slots.room), slots.whole, slots.piece, may_exceed=may_exceed, plain=plain, look_from=look_from
        )
        found = await self._run(call)
        if look_from >= 0:
            self._next_look = 0.0 if found.has_found_others else time.monotonic() + LOOK_FARTHER
        return found

    async def when_woken(self, slots: Slots, timeout: float) -> Found:
        """Wait for a token, `timeout` s at most, then lease chunks that are due, in the same trip to Redis.

        Whoever cancels it must `recall` it.
        """
        # What stands empty now still does then: a slot is taken by nothing but what is claimed here.
        empty, whole = slots.empty, slots.whole if slots.ahead else 0
        may_exceed = empty > 0 and slots.has_half(0)
        places = self._places
        plain = (0, 0) if places is None else (max(0, places.free - places.waiting), places.piece)
        call = self._awaited = self._call(empty + slots.ahead, whole, slots.piece, may_exceed=may_exceed, plain=plain)
        sent = time.monotonic()
        reply = await self._scripts.run_when_pushed(self._keys[1], timeout, call)
        # Of a claim that may have run the same chunks come again, at once.
        found = await self._run(call) if reply is None else self._found(reply, sent)
        self._awaited = None
        return found

    async def recall(self) -> Found:
        """Take back a claim that was to wait for a token; returns what it has leased. It will lease no more."""
        call, self._awaited = self._awaited, None
        if call is None:
            return Found([], -1, 0, 0.0)
        return await self._run(self._call(0, 0, 0, may_exceed=False, token=call[2][9]))

    async def named(self, chunk_id: str, slots: Slots) -> tuple[Claimed | None, float]:
        """Lease the chunk of this name, which arq's own worker has taken, or what there is room for of its jobs.

        Returns:
            The chunk, None if there is no such one, and when the lease ends, on the monotonic clock.
        """
        room = max(1, slots.room)
        plain = (0, 0) if self._places is None else (max(1, self._places.room),) * 2
        found = await self._run(self._call(room, 0, room, may_exceed=True, name=chunk_id, plain=plain))
        return (found.chunks[0] if found.chunks else None), found.until

    def _call(
        self,
        room: int,
        soon_over: int,
        piece: int,
        *,
        may_exceed: bool,
        name: str = "",
        token: str | None = None,
        plain: tuple[int, int] = (0, 0),
        look_from: int = -1,
    ) -> Call:
        lease_ms, lifetime_ms = int(self._lease * 1000), int(keys.OPEN_BATCH_LIFETIME * 1000)
        limits = (room, soon_over, piece, int(may_exceed), _CHUNKS_A_CLAIM, _JOBS_A_CLAIM)
        # A reply may be lost on its way: with the same token the same chunks come again.
        token = token or uuid4().hex
        plain_names = "" if self._places is None else registry.plain_names()
        kinds = (*plain, plain_names, look_from)
        return "claim", self._keys, (self._worker_id, lease_ms, *limits, lifetime_ms, token, name, *kinds)

    async def _run(self, call: Call) -> Found:
        sent = time.monotonic()
        return self._found(await self._scripts.run(*call), sent)

    def _found(self, reply: Any, sent: float) -> Found:
        seconds, microseconds, next_due, did_not_fit, lacks, others, look_from, *replies = reply
        self._clock.sync(seconds, microseconds, sent, time.monotonic())
        until = self._clock.monotonic(seconds, microseconds) + self._lease
        if look_from >= 0:
            self._look_from = look_from
        chunks = [claimed for claimed in map(_read, replies) if claimed]
        return Found(chunks, next_due, did_not_fit, until, bool(lacks), bool(others))


# A batch's chunks share them, and most batches have none but the defaults.
_read_options = lru_cache(64)(BatchOptions.model_validate_json)


def _read(reply: list[Any]) -> Claimed | None:
    name = reply[0].decode(errors="replace")
    try:
        payload = decode_payload(reply[1], keys.ARQ_JOB + name)
    except ProtocolError as error:
        _say_dropped(name, str(error))
        return None
    if len(reply) == 2:
        _say_dropped(name, "it names jobs that its batch does not have")
        return None
    _, _, options, deadline, jobs, done, crashes, orders, *failures = reply
    return Claimed(
        name,
        payload,
        options,
        _number(deadline),
        jobs,
        done or b"",
        read_crashes(crashes),
        dict(_pairs(failures)),
        read_orders(orders),
    )


def _say_dropped(name: str, problem: str) -> None:
    logger.warning(
        "chunk %s is dropped from the queue: %s", name, problem, extra={"event": "chunk.dropped", "chunk": name}
    )


def _number(data: bytes | None) -> float | None:
    try:
        return None if data is None else float(data)
    except ValueError:
        return None


def _pairs(flat: list[Any]) -> Iterator[tuple[int, int]]:
    for index, failures in zip(flat[::2], flat[1::2], strict=True):
        with contextlib.suppress(ValueError):
            yield int(index), int(failures)
