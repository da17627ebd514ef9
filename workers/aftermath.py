"""Settle what a dead worker process has left: the job under which it died, and the chunks that it held.

The job that held the loop of a process that was killed for it has its timeout. One under which a process died by itself
runs again, and is lost when that happens for the third time. All other jobs run again elsewhere at once, no attempt
burnt.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from redis.exceptions import RedisError

from protocol import keys
from protocol.connection import RedisClock, Scripts, decode_payload
from protocol.errors import ProtocolError
from protocol.jobs import decode_chunk
from protocol.results import encode_common, encode_row
from workers.pulse import Current, Pulse

logger = logging.getLogger(__name__)

# A job that has killed its worker so often is not tried again.
MOST_CRASHES = 3
# Leases that are looked through for those of a dead worker: more than are held at a time, but by very many workers.
_CHUNKS_A_LOOK = 1000
# How Redis says that another kind of value stands in a key.
_WRONG_TYPE = "WRONGTYPE"


class Aftermath:
    """Settle dead processes' jobs.

    Args:
        scripts: The scripts of the Redis that holds the queue.
        queue: The queue's name.
    """

    def __init__(self, scripts: Scripts, queue: str) -> None:
        self._scripts = scripts
        self._redis = scripts.redis
        self._queue = queue
        self._clock = RedisClock()

    async def settle(self, pulse: Pulse, current: Current | None, ending: str, *, killed: bool) -> None:
        """Record what the current job ended in, and hand all chunks back; tries until Redis answers.

        Args:
            pulse: The dead process's memory.
            current: The job that held its loop.
            ending: How it ended, e.g. `signal SIGSEGV`.
            killed: Whether it was killed because the current job held its loop.
        """
        failures = 0
        while True:
            try:
                await self._settle(pulse, current, ending, killed=killed)
            except (RedisError, OSError) as error:
                if _WRONG_TYPE in str(error):  # trying again would never help
                    _say_unreadable(error)
                    if current is None:
                        return
                    current = None  # the chunks are handed back all the same
                    continue
                if failures == 0:
                    logger.warning(
                        "a dead worker's jobs wait for Redis: %s", error, extra={"event": "aftermath.waiting"}
                    )
                failures += 1
                await asyncio.sleep(min(1.0, 0.05 * 2 ** min(failures, 10)))
            else:
                return

    async def _settle(self, pulse: Pulse, current: Current | None, ending: str, *, killed: bool) -> None:
        if current is not None and current.chunk_id:
            try:
                await self._conclude(current, pulse.worker_id, ending, killed=killed)
            except (ProtocolError, ValueError, IndexError) as error:
                _say_unreadable(error)
        await self._hand_back(pulse)

    async def _conclude(self, current: Current, worker_id: str, ending: str, *, killed: bool) -> None:
        batch_id, _, first = current.chunk_id.rpartition(":")
        name = f"job {batch_id}:{current.index}"
        if killed:
            own: dict[str, Any] = {"status": "timeout", "limit": current.limit, "phase": "running", "stopped": "killed"}
            logger.warning("%s held its worker's loop: timed out", name, extra={"event": "job.killed", "job": name})
        else:
            crashes = await self._count_crash(batch_id, current.index, worker_id)
            logger.warning(
                "a worker process ended (%s) under %s, crash %d of %d", ending, name, crashes, MOST_CRASHES,
                extra={"event": "job.crash", "job": name},
            )  # fmt: skip
            if crashes < MOST_CRASHES:
                return
            own = {
                "status": "lost",
                "attempt": crashes,
                "reason": f"its worker process ended under it {crashes} times, last by {ending}",
            }
        await self._record(current, batch_id, int(first), worker_id, own)

    async def _count_crash(self, batch_id: str, index: int, worker_id: str) -> int:
        # By worker, not by a counter: a reply may be lost, and the same crash told twice is still one.
        key = keys.crashes(batch_id)
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(key, worker_id, str(index))
            pipe.pexpire(key, int(keys.OPEN_BATCH_LIFETIME * 1000))
            pipe.hvals(key)
            *_, crashes = await pipe.execute()
        return int(crashes.count(str(index).encode()))

    async def _record(self, current: Current, batch_id: str, first: int, worker_id: str, own: dict[str, Any]) -> None:
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.hget(keys.chunks(batch_id), str(first))
            pipe.get(keys.ARQ_JOB + current.chunk_id)
            pipe.get(keys.ARQ_RETRY + current.chunk_id)
            pipe.time()
            jobs, payload, attempt, (seconds, microseconds) = await pipe.execute()
        if jobs is None or payload is None:
            return  # the batch is gone
        job = decode_chunk(batch_id, first, jobs, keys.chunks(batch_id)).jobs[current.index - first]
        *_, enqueued_at = decode_payload(payload, keys.ARQ_JOB + current.chunk_id)
        now = seconds + microseconds / 1e6
        times = {"started_at": round(now - (time.monotonic() - current.started), 6), "finished_at": round(now, 6)}
        row = encode_row(index=current.index, key=job.key, **times, **own)
        common = encode_common(job.function, worker_id, int(attempt or 1), enqueued_at)
        names = (keys.batch(batch_id), keys.done(batch_id), keys.results(batch_id), keys.chunks(batch_id))
        lifetime = int(keys.OPEN_BATCH_LIFETIME * 1000)
        await self._scripts.run("record", names, (common, lifetime, current.index, own["status"], row))

    async def _hand_back(self, pulse: Pulse) -> None:
        # What it had just claimed may not stand in its memory yet.
        chunks = list(dict.fromkeys([*pulse.chunks(), *await self._claimed_by(pulse.worker_id)]))
        if not chunks or not pulse.worker_id:
            return
        async with self._redis.pipeline(transaction=False) as pipe:
            for chunk_id in chunks:
                pipe.get(keys.ARQ_JOB + chunk_id)
            payloads = await pipe.execute()
        args: list[Any] = [pulse.worker_id, int(keys.OPEN_BATCH_LIFETIME * 1000)]
        for chunk_id, payload in zip(chunks, payloads, strict=True):
            try:
                batch_id, first, count, _ = decode_payload(payload or b"", keys.ARQ_JOB + chunk_id)
            except ProtocolError:  # gone with its batch, or not ours: there is nothing to run again
                continue
            args += [chunk_id, batch_id, first, count, "again"]
        await self._scripts.run("release", (keys.queue(self._queue), keys.wake(self._queue)), args)

    async def _claimed_by(self, worker_id: str) -> list[str]:
        # A leased chunk is due at the end of its lease, so those of all workers stand next behind the present.
        seconds, microseconds = await self._redis.time()
        now_ms = seconds * 1000 + microseconds // 1000
        found = await self._redis.zrangebyscore(keys.queue(self._queue), now_ms, "+inf", start=0, num=_CHUNKS_A_LOOK)
        if not found:
            return []
        names = [chunk.decode(errors="replace") for chunk in found]
        holders = await self._redis.mget([keys.ARQ_IN_PROGRESS + name for name in names])
        return [name for name, holder in zip(names, holders, strict=True) if holder == worker_id.encode()]


def _say_unreadable(error: Exception) -> None:
    logger.warning("a dead worker's job or chunks cannot be read: %s", error, extra={"event": "aftermath.unreadable"})
