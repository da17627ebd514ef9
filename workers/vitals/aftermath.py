"""Settle what a dead worker process has left, and hold what a blocked one cannot: chunks, and the job at work.

The job that held the loop of a process that was killed for it has its timeout. One under which a process died by itself
has that noted, and is lost the third time it happens; where nobody held the loop, that is noted for all jobs that had
started. All chunks run again elsewhere at once.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from redis.exceptions import ResponseError

from protocol import keys
from protocol.attempts import encode_attempt
from protocol.batches import BatchOptions
from protocol.chunks import decode_chunk
from protocol.connection import Payload, Scripts, decode_payload
from protocol.errors import ProtocolError, explain
from protocol.recording import encode_common, encode_row, record_rows
from workers.crashes import Crash, read_crashes
from workers.ending.outcomes import TimedOut
from workers.ending.retries import Deferred, Retries, delay_before_retry
from workers.timing.clocks import whole_limit
from workers.vitals.pulse import Current, Pulse

logger = logging.getLogger(__name__)

# Leases that are looked through for those of a dead worker: more than are held at a time, but by very many workers.
_CHUNKS_A_LOOK = 1000
# The script looks at each job that a chunk has.
_JOBS_A_RELEASE = 1000
_LIFETIME_MS = int(keys.OPEN_BATCH_LIFETIME * 1000)


@dataclass(frozen=True, slots=True)
class Death:
    """How a worker process ended.

    Args:
        ending: How, e.g. `signal SIGSEGV`.
        current: The job that held its loop.
        killed: Whether it was killed because that job held its loop.
        in_order: Whether it left by itself, as it should: then it was nobody's doing.
    """

    ending: str
    current: Current | None = None
    killed: bool = False
    in_order: bool = False


class Aftermath:
    """Settle dead processes' jobs.

    Args:
        scripts: The scripts of the Redis that holds the queue.
        queue: The queue's name.
        lease: How long a lease lasts, s.

    Attributes:
        recorded: How many results it has recorded itself, by function and status.
    """

    def __init__(self, scripts: Scripts, queue: str, lease: float = 10.0) -> None:
        self._scripts = scripts
        self._redis = scripts.redis
        self._queue = queue
        self.lease = lease
        self.recorded: Counter[tuple[str, str]] = Counter()

    async def renew(self, pulse: Pulse) -> float:
        """Renew the leases of a process that a job keeps from it: its other jobs are not to stop for that.

        Returns:
            Until when, on the monotonic clock.
        """
        sent = time.monotonic()
        args = (pulse.worker_id, int(self.lease * 1000), *pulse.chunks())
        await self._scripts.run("renew", (keys.queue(self._queue),), args)
        return sent + self.lease

    async def settle(self, pulse: Pulse, death: Death) -> None:
        """Record what the current job ended in, and hand all chunks back.

        Args:
            pulse: The dead process's memory.
            death: How it ended.
        """
        if not pulse.worker_id:
            return
        try:
            # What it had just claimed may not stand in its memory yet, and has not started.
            begun = {**dict.fromkeys(await self._claimed_by(pulse.worker_id), 0), **pulse.chunks()}
            payloads = await self._payloads(begun)
            if death.killed:
                await self._time_out(pulse.worker_id, death, payloads)
            await self._hand_back(pulse.worker_id, death, begun, payloads)
        except ResponseError as error:
            _say_unreadable(error)

    async def _payloads(self, chunks: Iterable[str]) -> dict[str, Payload]:
        """Read where the jobs of these chunks stand; what is gone, or not ours, is not to run again."""
        names = list(chunks)
        async with self._redis.pipeline(transaction=False) as pipe:
            for chunk_id in names:
                pipe.get(keys.ARQ_JOB + chunk_id)
            found = await pipe.execute(raise_on_error=False)
        payloads = {}
        for chunk_id, payload in zip(names, found, strict=True):
            if isinstance(payload, bytes):
                try:
                    payloads[chunk_id] = decode_payload(payload, keys.ARQ_JOB + chunk_id)
                except ProtocolError as error:
                    _say_unreadable(error)
        return payloads

    async def _time_out(self, worker_id: str, death: Death, payloads: dict[str, Payload]) -> None:
        """Record the timeout of the job that held the loop, or let it run again."""
        current = death.current
        if current is None or current.chunk_id not in payloads:
            return
        payload = payloads[current.chunk_id]
        name = f"{payload.batch_id}:{current.index}"
        logger.warning(
            "job %s held its worker's loop: timed out", name,
            extra={"event": "job.killed", "batch": payload.batch_id, "job": name},
        )  # fmt: skip
        try:
            await self._conclude(worker_id, current, payload)
        except (ProtocolError, ResponseError, ValueError, IndexError) as error:
            _say_unreadable(error)

    async def _conclude(self, worker_id: str, current: Current, payload: Payload) -> None:
        batch_id, first = payload.batch_id, payload.first
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.hget(keys.batch(batch_id), "options")
            pipe.hget(keys.chunks(batch_id), str(first))
            pipe.hget(keys.retries(batch_id), str(current.index))
            pipe.hget(keys.crashes(batch_id), current.chunk_id)
            pipe.time()
            encoded, jobs, failures, crashes, (seconds, microseconds) = await pipe.execute()
        if encoded is None or jobs is None:
            return  # the batch is gone
        job = decode_chunk(first, jobs, keys.chunks(batch_id))[current.index - first]
        failed = int(failures or 0)
        options = _options(batch_id, encoded)
        limit = whole_limit(current.phase, current.limit, job, options.deadline)
        outcome = TimedOut(limit, current.phase, "killed")
        died = [crash for crash in read_crashes(crashes) if crash.is_under(current.index)]
        now = seconds + microseconds / 1e6
        ended = {
            "status": "timeout",
            "attempt": 1 + failed + sum(not crash.doubtful for crash in died),
            "started_at": round(now - (time.monotonic() - current.started), 6),
            "finished_at": round(now, 6),
            "limit": outcome.limit,
            "phase": outcome.phase,
            "stopped": outcome.stopped,
        }
        delay = delay_before_retry(outcome, options, None, failed)
        if delay is not None:
            attempt = encode_attempt(worker=worker_id, **ended)
            again = Deferred(current.chunk_id, payload, current.index, failed + 1, delay, attempt)
            await Retries(self._scripts, self._queue, worker_id).write([again])
            return
        row = encode_row(index=current.index, key=job.key, **ended)
        common = encode_common(job.function, worker_id, payload.enqueued_at)
        if await self._scripts.run(*record_rows(batch_id, common, [current.index], ["timeout"], [row])) > 0:
            self.recorded[job.function, "timeout"] += 1

    async def _hand_back(
        self, worker_id: str, death: Death, begun: dict[str, int], payloads: dict[str, Payload]
    ) -> None:
        seconds, microseconds = await self._redis.time()
        now = seconds + microseconds / 1e6
        args: list[Any] = []
        jobs = 0
        for chunk_id, payload in payloads.items():
            crash = _crash(worker_id, death, now, chunk_id, payload, begun[chunk_id])
            outcome = "again" if crash is None else crash.model_dump_json()
            if args and jobs + payload.jobs > _JOBS_A_RELEASE:
                await self._release(worker_id, args)
                args, jobs = [], 0
            args += [chunk_id, payload.batch_id, payload.first, payload.jobs, outcome]
            jobs += payload.jobs
        if args:
            await self._release(worker_id, args)

    async def _release(self, worker_id: str, args: list[Any]) -> None:
        names = (keys.queue(self._queue), keys.wake(self._queue))
        await self._scripts.run("release", names, (worker_id, _LIFETIME_MS, *args))

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


def _crash(worker_id: str, death: Death, now: float, chunk_id: str, payload: Payload, begun: int) -> Crash | None:
    """Say under which jobs of a chunk the worker has died, if it was any."""
    current = death.current
    if death.in_order:
        return None
    if current is None or death.killed:  # it may have been the doing of any that had started, or of none
        start = payload.first if payload.index is None else payload.index
        crash = Crash(worker=worker_id, start=start, stop=begun, ending=death.ending, ended_at=now)
        harmless = {"ending": "killed, as another job held its loop", "doubtful": True, "harmless": True}
        return crash.model_copy(update=harmless) if death.killed else crash
    if current.chunk_id != chunk_id:
        return None
    name = f"{payload.batch_id}:{current.index}"
    logger.warning(
        "a worker process ended (%s) under job %s", death.ending, name,
        extra={"event": "job.crash", "batch": payload.batch_id, "job": name},
    )  # fmt: skip
    return Crash(
        worker=worker_id,
        start=current.index,
        stop=current.index + 1,
        ending=death.ending,
        started_at=now - (time.monotonic() - current.started),
        ended_at=now,
    )


def _options(batch_id: str, encoded: bytes) -> BatchOptions:
    try:
        return BatchOptions.model_validate_json(encoded)
    except ValidationError as error:
        raise ProtocolError(keys.batch(batch_id), f"field options: {explain(error, 1)}") from None


def _say_unreadable(error: Exception) -> None:
    logger.warning("a dead worker's job or chunks cannot be read: %s", error, extra={"event": "aftermath.unreadable"})
