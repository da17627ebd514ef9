"""The clocks of one chunk's jobs: which may still start, what bounds one that does, which ran out first.

A job's own `timeout`, `queue_timeout` and `heartbeat_timeout` win over its batch's, and a batch's over its function's.
A deadline bounds whatever the others allow, so of a job's own and its batch's the earlier one holds.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from protocol.batches import DEFAULT_TIMEOUT, BatchOptions
from protocol.clock import RedisClock
from protocol.connection import Payload
from protocol.jobs import JobSpec
from protocol.results import Phase
from workers.registry import Job


class Clocks(NamedTuple):
    """What a run is bounded by.

    Args:
        limit: Longest run, s.
        phase: Which clock that is.
        grace: Time for cleanup, s.
    """

    limit: float
    phase: Phase
    grace: float


class ChunkClocks:
    """The clocks of a chunk's jobs.

    Args:
        clock: Redis' clock.
        payload: When the jobs were submitted, and whether one of them runs again.
        options: Their batch's.
        deadline: The batch's, Unix s; None if it has none.
    """

    def __init__(self, clock: RedisClock, payload: Payload, options: BatchOptions, deadline: float | None) -> None:
        self._clock = clock
        self._payload = payload
        self.options = options
        self._deadline = deadline
        self._batch_limit = options.deadline or 0.0

    def move_deadline(self, deadline: float) -> bool:
        """Take note that the batch's deadline, Unix s, was moved; returns whether it is another one."""
        if deadline == self._deadline:
            return False
        if self._deadline is None:
            self._batch_limit = round(deadline - self._payload.enqueued_at, 3)
        else:
            self._batch_limit = round(self._batch_limit + deadline - self._deadline, 3)
        self._deadline = deadline
        return True

    def are_alike(self, function: Job[..., Any, Any]) -> bool:
        """Whether jobs of this function that have no clocks of their own are bounded by nothing but a timeout."""
        options = self.options
        silence = options.heartbeat_timeout or function.heartbeat_timeout
        return self._deadline is None and options.queue_timeout is None and silence is None

    def late(self, job: JobSpec[Any]) -> tuple[float, Phase] | None:
        """Say which clock of a job, s, has run out before it could start."""
        longest = job.queue_timeout or self.options.queue_timeout
        if self._deadline is None and longest is None and job.deadline is None:
            return None
        payload, now = self._payload, self._clock.now()
        if self._deadline is not None and now >= self._deadline:
            return self._batch_limit, "batch"
        if job.deadline is not None and now - payload.enqueued_at >= job.deadline:
            return job.deadline, "deadline"
        # A job that runs again has started before.
        if longest is not None and payload.index is None and now - payload.enqueued_at > longest:
            return longest, "queued"
        return None

    def first_to_run_out(self, jobs: Iterable[JobSpec[Any]]) -> float | None:
        """Say when the first of some jobs could start no more, Unix s; None if none has such a clock."""
        moments = [] if self._deadline is None else [self._deadline]
        payload, longest = self._payload, self.options.queue_timeout
        for job in jobs:
            if job.deadline is not None:
                moments.append(payload.enqueued_at + job.deadline)
            if payload.index is None and (wait := job.queue_timeout or longest) is not None:
                moments.append(payload.enqueued_at + wait)
        return min(moments, default=None)

    def of(self, job: JobSpec[Any], function: Job[..., Any, Any], start: float | None = None) -> Clocks:
        """Say what bounds a job that starts now, or has started at a time on Redis' clock."""
        limit = job.timeout or self.options.timeout or function.timeout or DEFAULT_TIMEOUT
        if self._deadline is None and job.deadline is None:
            return Clocks(limit, "running", self.options.grace)
        start = self._clock.now() if start is None else start
        phase: Phase = "running"
        if job.deadline is not None and (remaining := self._payload.enqueued_at + job.deadline - start) < limit:
            limit, phase = max(0.0, remaining), "deadline"
        if self._deadline is not None and (remaining := self._deadline - start) < limit:
            limit, phase = max(0.0, remaining), "batch"
        return Clocks(limit, phase, self.options.grace)

    def heartbeat_timeout(self, job: JobSpec[Any], function: Job[..., Any, Any]) -> float | None:
        """Say for how long a job may be silent, s; None if it has promised no heartbeats."""
        return job.heartbeat_timeout or self.options.heartbeat_timeout or function.heartbeat_timeout

    def limit_of(self, phase: Phase, job: JobSpec[Any], limit: float) -> float:
        """Say how long the clock is that has run out for a run, which may have had only what was left of it."""
        return whole_limit(phase, limit, job, self._batch_limit)

    def allow_start(self, job: JobSpec[Any], delay: float) -> bool:
        """Whether a job may start so many seconds from now."""
        start = self._clock.now() + delay
        if self._deadline is not None and start >= self._deadline:
            return False
        return job.deadline is None or start < self._payload.enqueued_at + job.deadline


def whole_limit(phase: Phase, limit: float, job: JobSpec[Any], batch_limit: float | None) -> float:
    """Say how long a clock is, s: a run that a deadline has ended had only what was left of that."""
    if phase == "batch":
        return batch_limit or limit
    return job.deadline or limit if phase == "deadline" else limit
