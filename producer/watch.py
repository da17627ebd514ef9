"""What a collector sees to while it waits: that the batch is there, its deadline, and whether anybody runs its jobs.

A collector waits in blocking reads; this module says how long each may block, and looks at the batch when one came back
empty or the deadline has passed. A look is one small round trip; without a deadline there is none in the first second
without a result, and then one every 5 s. Who has just submitted the batch knows all that the first look would tell.
"""

from __future__ import annotations

import math
import time

from producer.control.expiry import Expiry
from producer.overview.fleet import Fleet
from producer.spoilt import raise_named
from producer.status import parse_options, parse_status, read_status
from protocol import keys
from protocol.batches import BatchOptions, BatchStatus
from protocol.clock import RedisClock
from protocol.connection import Scripts
from protocol.errors import BatchLostError, BatchNotFoundError

# A blocked read returns after this time, s, the first one of a collector sooner, so that people soon learn that nobody
# is there to run their jobs.
LONGEST_BLOCK = 5.0
FIRST_BLOCK = 1.0
# Redis answers a read that would block for less than 1 ms only when there is something.
_SHORTEST_BLOCK = 0.001
# The deadline belongs to the workers first: they report what does not start any more, and what they have stopped within
# the grace; what they leave is reported this much later, s (docs/timeouts.md promises the second).
_AFTER_DEADLINE = 0.05
_AFTER_GRACE = 0.25


class Watch:
    """Watch over one batch for its collectors.

    Args:
        scripts: The scripts of its Redis.
        batch_id: Its id.
        queue: Its queue, until its header tells.
        is_there: Whether it is known to have been there: if it is gone then, it is lost.

    Attributes:
        is_new: Whether it has just been submitted, under an id of its own, without a deadline, and nothing was decided
            about it since: then there is no need to look at it first.
        is_complete: Whether it was complete when it was last seen.
        total: How many jobs it had then; None if it was not seen yet.
        seen: How far it was then.
        closed_with: How many jobs it has, once it is known to be closed.
    """

    def __init__(self, scripts: Scripts, batch_id: str, queue: str, *, is_there: bool) -> None:
        self._scripts = scripts
        self._batch_id = batch_id
        self._queue = queue
        self._is_there = is_there
        self._clock = RedisClock()
        self._fleet = Fleet()
        self._next_look = -math.inf
        self._due = math.inf
        self.is_new = False
        self.is_complete = False
        self.total: int | None = None
        self.seen: BatchStatus | None = None
        self.closed_with: int | None = None

    async def begin(self) -> None:
        """Make ready for a collector's reads.

        Raises:
            BatchNotFoundError: If there is no such batch; BatchLostError, if there was.
            ProtocolError: If one of its keys is not ours.
        """
        if not self.is_new:
            status, options, _ = await self._observe()
            self._schedule(status, options, after=-math.inf)
        self.is_new = False
        self._next_look = max(self._next_look, time.monotonic() + FIRST_BLOCK)

    def block(self) -> float | None:
        """Say how long the next read may block, s; None: not at all, as nothing more will come."""
        if self.is_complete:
            return None
        now = time.monotonic()
        longest = min(max(FIRST_BLOCK, self._next_look - now), LONGEST_BLOCK)
        return max(_SHORTEST_BLOCK, min(longest, self._due - now))

    @property
    def is_due(self) -> bool:
        """Whether the batch's deadline asks for a look, whatever results come."""
        return time.monotonic() >= self._due

    async def look(self) -> None:
        """Look after the batch: end it if its time is up or it was stopped; else say if nobody runs its jobs.

        Raises:
            BatchLostError: If it is gone.
            ProtocolError: If one of its keys is not ours.
        """
        status, options, alive = await self._observe()
        now = self._clock.now()
        self._schedule(status, options, after=now)
        self._next_look = time.monotonic() + LONGEST_BLOCK
        passed = [moment for moment in _moments(status, options) if moment <= now]
        if self.is_complete:
            return
        if passed or status.stopped is not None:
            await Expiry(self._scripts, status, options, self._clock).run(is_final=len(passed) == 2)
        else:
            self._fleet.see(status, alive)

    async def status(self) -> BatchStatus:
        """Count the batch's jobs.

        Raises:
            BatchNotFoundError: If there is no such batch; BatchLostError, if there was.
            ProtocolError: If its header is not ours.
        """
        try:
            found = await read_status(self._scripts.redis, self._batch_id)
        except BatchNotFoundError:
            raise self._gone() from None
        self.is_new = False
        self._take_note(found)
        return found

    async def workers(self) -> int:
        """Count the live workers of the batch's queue.

        Raises:
            As `status`.
        """
        _, _, alive = await self._observe()
        return alive

    async def _observe(self) -> tuple[BatchStatus, BatchOptions, int]:
        """Read status, options (if it has a deadline), and how many workers are alive, in one round trip."""
        header_key, workers_key = keys.batch(self._batch_id), keys.workers(self._queue)
        sent = time.monotonic()
        async with self._scripts.redis.pipeline(transaction=False) as pipe:
            pipe.time()
            pipe.hgetall(header_key)
            pipe.zcount(workers_key, self._clock.now() - keys.WORKER_LIFETIME, "+inf")
            (seconds, microseconds), header, alive = await pipe.execute(raise_on_error=False)
        self._clock.sync(seconds, microseconds, sent, time.monotonic())
        raise_named(header, header_key)
        raise_named(alive, workers_key)
        if not header:
            raise self._gone()
        status = parse_status(self._batch_id, header)
        self._queue = status.queue
        self._take_note(status)
        # Only an early end asks for the options: without one, those that cannot be read are for the workers to report.
        has_end = status.deadline is not None or status.cancelled_at is not None
        options = parse_options(self._batch_id, header) if has_end else BatchOptions()
        return status, options, alive

    def _take_note(self, status: BatchStatus) -> None:
        self._is_there = True
        least = self.closed_with if self.seen is None else self.seen.total
        was_closed = self.closed_with is not None
        # Its jobs never become fewer, and no batch is opened again.
        if status.total < (least or 0) or (was_closed and not status.closed):
            raise BatchLostError(self._batch_id, is_cut_short=True)
        self.total, self.seen = status.total, status
        if status.closed:
            self.closed_with = status.total

    def _schedule(self, status: BatchStatus, options: BatchOptions, after: float) -> None:
        """Take note of when the batch is to be looked at next, after a time on Redis' clock."""
        self.is_complete = status.complete
        to_come = [moment for moment in _moments(status, options) if moment > after]
        self._due = time.monotonic() + to_come[0] - self._clock.now() if to_come and not status.complete else math.inf

    def _gone(self) -> BatchNotFoundError:
        return BatchLostError(self._batch_id) if self._is_there else BatchNotFoundError(self._batch_id)


def _moments(status: BatchStatus, options: BatchOptions) -> list[float]:
    """When an early end asks something of a collector, Unix s: for what has not started, and for all the rest."""
    ends = [moment for moment in (status.deadline, status.cancelled_at) if moment is not None]
    if not ends:
        return []
    return [min(ends) + _AFTER_DEADLINE, min(ends) + options.grace + _AFTER_GRACE]
