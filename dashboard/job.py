"""One job: what it was called with, what is recorded of its attempts, what it ended in, and when what happened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from dashboard.follower import Follower
from dashboard.table import read_results
from producer.arguments import read_job
from producer.producer import Producer
from protocol.jobs import JobSpec
from protocol.results import Result
from protocol.running import RunningJob


class Event(NamedTuple):
    """Something that happened to a job, Unix s on Redis' clock."""

    at: float
    what: str


@dataclass(frozen=True, slots=True)
class Life:
    """What is known of a job.

    Args:
        spec: What it was called with; None if that is no longer kept.
        result: What it ended in, if it has and that has been read.
        recorded_at: When that was recorded.
        running: What its worker tells of it, if it runs.
    """

    spec: JobSpec[Any] | None
    result: Result[Any] | None
    recorded_at: float | None
    running: RunningJob | None

    @property
    def status(self) -> str:
        """Its result's status, or where it is before it has one."""
        if self.result is not None:
            return self.result.status
        return "running" if self.running is not None else "queued"

    @property
    def key(self) -> str | None:
        """What the producer called it."""
        known = self.result or self.running or self.spec
        return known.key if known is not None else None

    @property
    def function(self) -> str:
        """What it calls."""
        known = self.result or self.running or self.spec
        return known.function if known is not None else ""

    @property
    def attempt(self) -> int:
        """Which attempt is the last that is known."""
        known = self.result or self.running
        return known.attempt if known is not None else 1

    @property
    def events(self) -> list[Event]:
        """What happened, in order."""
        result, found = self.result or self.running, []
        if self.result is not None and self.result.enqueued_at is not None:
            found.append(Event(self.result.enqueued_at, "submitted"))
        if result is not None and result.started_at is not None:
            where = f" on {result.worker}" if result.worker else ""
            found.append(Event(result.started_at, f"attempt {result.attempt} started{where}"))
        if self.result is not None and self.result.finished_at is not None:
            found.append(Event(self.result.finished_at, f"attempt {self.result.attempt} ended"))
        if self.recorded_at is not None:
            found.append(Event(self.recorded_at, "result recorded"))
        return sorted(found)


async def read_life(producer: Producer, follower: Follower, index: int) -> Life:
    """Read what is known of a job.

    Raises:
        ProtocolError: If one of its keys is not ours.
    """
    digest = follower.digest
    row = digest.index.row_of(index)
    positions = [] if row is None else [digest.index.position(row)]
    [result] = await read_results(producer, follower.batch_id, positions) or [None]
    running = next((job for job in follower.running if job.index == index), None)
    return Life(
        await read_job(producer.redis, follower.batch_id, index),
        result,
        None if row is None else digest.index.recorded_at(row),
        running if result is None else None,
    )
