"""What a job can ask about itself while it runs: `current_job()`."""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

from protocol.errors import StragglerError

_current: ContextVar[RunsJob] = ContextVar("straggler_current_job")


@dataclass(frozen=True, slots=True)
class CurrentJob:
    """The job that is running here.

    Args:
        batch_id: Its batch.
        index: Its place in the batch, from 0.
        key: What the producer called it.
        attempt: From 1.
        deadline: When its time is up, on `time.monotonic()`.
    """

    batch_id: str
    index: int
    key: str | None
    attempt: int
    deadline: float

    @property
    def job_id(self) -> str:
        """`batch:index`."""
        return f"{self.batch_id}:{self.index}"

    def remaining(self) -> float:
        """Seconds until the deadline; 0 once it has passed."""
        return max(0.0, self.deadline - time.monotonic())


class RunsJob(Protocol):
    """A run that can tell which job it runs; asked only if the job asks, as most never do."""

    def current_job(self) -> CurrentJob:
        """Describe the job."""


def current_job() -> CurrentJob:
    """Return the job that is running here.

    Raises:
        StragglerError: If it is not called from inside a job.
    """
    try:
        run = _current.get()
    except LookupError:
        raise StragglerError("current_job() was called outside a job; only a worker runs jobs") from None
    return run.current_job()


def enter(run: RunsJob) -> None:
    """Let `current_job()` return this run's job for the rest of the current task."""
    _current.set(run)
