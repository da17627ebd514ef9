"""Run failed jobs again, later: which, after how long, and their way back into the queue.

Each travels alone, as one of arq's deferred jobs, so that it waits for no other of its chunk. Only a failure counts
against `retries`: what a worker's death or shutdown costs is told by `workers.claims`.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from typing import Any, NamedTuple

from redis.exceptions import RedisError

from protocol import keys
from protocol.batches import DEFAULT_BACKOFF, BatchOptions
from protocol.connection import Payload, Scripts, encode_payload
from protocol.errors import OptionError
from workers.ending.failures import Again, asks_again
from workers.ending.outcomes import Outcome, Raised, TimedOut
from workers.recorder import Recorded
from workers.registry import Job

logger = logging.getLogger(__name__)

# No back-off grows beyond this, s: who comes back after an outage need not wait for long.
LONGEST_BACKOFF = 3600.0
# So many cost Redis about 1 ms on a machine that has other things to do.
_RETRIES_A_CALL = 50
# A queue where another kind of value stands is tried again this often, s.
_UNTIL_MENDED = 1.0


class Retry(Again):
    """Raised by a job that wants to run again: `raise Retry(after=30)`.

    It counts as a failure, so the job needs `retries`; without any left it ends in a FailureResult. Not an Exception,
    as no `except Exception` of the job's own is to swallow it.

    Args:
        after: When to run again, s from now; by default the job's usual back-off.

    Raises:
        OptionError: If that is no time to wait for.
    """

    def __init__(self, after: float | None = None) -> None:
        if after is not None and not 0 <= after < float("inf"):
            raise OptionError(f"Retry(after={after!r}): a finite number of seconds from 0")
        super().__init__("the job asks to run again, but has no retries left: submit it with more `retries`")
        self.after = after


def delay_before_retry(
    outcome: Outcome | None, options: BatchOptions, function: Job[..., Any, Any] | None, failures: int
) -> float | None:
    """Say how long, s, a job waits before it runs again after this outcome; None if it does not.

    Exponential back-off: `backoff * 2 ** failures`, times a random 0.5 to 1.5, so that jobs which failed together do
    not come back together; at most an hour.

    Args:
        outcome: What the run ended in.
        options: The batch's.
        function: The job's function; None where it is not at hand: then the batch's options are all there is.
        failures: How often the job has failed before.
    """
    retries = function.retries if function and options.retries is None else options.retries
    if failures >= (retries or 0):
        return None
    match outcome:
        case Raised(error) if (asked := asks_again(error)) is not None:
            if asked.after is not None:
                return asked.after
        case Raised() if "failure" in options.retry_on:
            pass
        case TimedOut(phase="running" | "heartbeat") if "timeout" in options.retry_on:
            pass
        case _:
            return None
    backoff = function.backoff if function and options.backoff is None else options.backoff
    base = DEFAULT_BACKOFF if backoff is None else backoff
    return min(LONGEST_BACKOFF, base * 2.0 ** min(failures, 64)) * random.uniform(0.5, 1.5)


def say_again(batch_id: str, index: int, delay: float, attempt: int) -> None:
    """Log that a job runs again."""
    name = f"{batch_id}:{index}"
    logger.debug(
        "job %s runs again in %.3f s", name, delay,
        extra={"event": "job.again", "batch": batch_id, "job": name, "attempt": attempt},
    )  # fmt: skip


class Deferred(NamedTuple):
    """A job that runs again.

    Args:
        chunk_id: The chunk in which it has failed.
        payload: That chunk's.
        job: Its index.
        failures: How often it has failed by now.
        delay: When it runs again, s from now.
        attempt: How this attempt has ended, from `protocol.attempts`.
    """

    chunk_id: str
    payload: Payload
    job: int
    failures: int
    delay: float
    attempt: bytes


class Retries:
    """Bring failed jobs back into the queue, many in one trip.

    Args:
        scripts: The scripts of the Redis that holds the queue.
        queue: The queue's name.
        worker_id: Who holds the chunks that they come from.
    """

    def __init__(self, scripts: Scripts, queue: str, worker_id: str) -> None:
        self._scripts = scripts
        self._queue = queue
        self._worker_id = worker_id
        self._deferred: list[tuple[Deferred, Recorded]] = []
        self._writing: asyncio.Task[None] | None = None

    def put(self, deferred: Deferred, owner: Recorded) -> None:
        """Let a job run again; its owner is told once that is written."""
        self._deferred.append((deferred, owner))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_all(), name="straggler-retries")

    async def _write_all(self) -> None:
        try:
            while self._deferred:
                some, self._deferred = self._deferred[:_RETRIES_A_CALL], self._deferred[_RETRIES_A_CALL:]
                await self._write_until_taken([deferred for deferred, _ in some])
                for _, owner in some:
                    owner.count_recorded(1)
        finally:
            self._writing = None

    async def _write_until_taken(self, some: Sequence[Deferred]) -> None:
        while True:
            try:
                await self.write(some)
            except RedisError as error:
                logger.error(  # noqa: TRY400  # Redis has said what is wrong
                    "%d jobs cannot be brought back into Redis key %r (%s): they are held and tried again",
                    len(some), keys.queue(self._queue), error, extra={"event": "retries.waiting"},
                )  # fmt: skip
                await asyncio.sleep(_UNTIL_MENDED)
            else:
                return

    async def write(self, some: Sequence[Deferred]) -> None:
        """Bring jobs back, at most 50 of them."""
        args: list[Any] = [self._worker_id, int(keys.OPEN_BATCH_LIFETIME * 1000)]
        for chunk_id, payload, index, failures, delay, attempt in some:
            batch_id, first = payload.batch_id, payload.first
            args += [batch_id, chunk_id, index, failures, int(delay * 1000), keys.retry_id(batch_id, first, index)]
            args += [encode_payload(batch_id, first, payload.count, payload.enqueued_at, index), attempt]
        await self._scripts.run("retry", (keys.queue(self._queue), keys.wake(self._queue)), args)
